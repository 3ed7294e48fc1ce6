//! What a bridge says about itself: served on its unix socket, asked for by `status` and `check-health`.

mod ask;
mod table;

pub use ask::{AskError, ask};
pub use table::table;

use crate::{
    deliver::Deliveries,
    spool::{Spool, SpoolError, State},
};
/// Where it is asked for.
pub const PATH: &str = "/v1/status";
/// Stands in the answer when the spool cannot be read, and says why.
pub const ERROR: &str = "error";

/// What is in the spool, with what stands in the way of each data stream.
pub fn state(spool: &Spool, deliveries: &Deliveries) -> Result<State, SpoolError> {
    let mut state = spool.state()?;
    for s in &mut state.streams {
        s.trouble = deliveries.trouble(&s.stream);
    }
    Ok(state)
}
