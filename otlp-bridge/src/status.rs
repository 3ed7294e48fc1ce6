//! What a bridge says about itself: served on its unix socket, asked for by `status` and `check-health`.

mod ask;
mod table;

pub use ask::{AskError, ask};
pub use table::table;

use crate::{
    deliver::Deliveries,
    spool::{Spool, SpoolError, State},
};
use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::get};
use std::sync::Arc;

/// Where it is asked for.
pub const PATH: &str = "/v1/status";

/// Answers `GET /v1/status` with a [`State`], 500 when the spool cannot be read.
pub fn router(spool: Arc<Spool>, deliveries: Deliveries) -> Router {
    let answer = move || {
        let (spool, deliveries) = (Arc::clone(&spool), deliveries.clone());
        async move {
            let state = tokio::task::spawn_blocking(move || state(&spool, &deliveries)).await;
            match state.unwrap_or(Err(SpoolError::Closed)) {
                Ok(state) => Json(state).into_response(),
                Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
            }
        }
    };
    Router::new().route(PATH, get(answer))
}

/// What is in the spool, with what stands in the way of each data stream.
pub fn state(spool: &Spool, deliveries: &Deliveries) -> Result<State, SpoolError> {
    let mut state = spool.state()?;
    for s in &mut state.streams {
        s.trouble = deliveries.trouble(&s.stream);
    }
    Ok(state)
}
