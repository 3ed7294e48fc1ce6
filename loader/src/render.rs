//! What people read: units, one line a flow, the summary. Pure: text in, text out.

pub mod explain;
pub mod findings;
pub mod line;
pub mod sentence;
pub mod summary;
pub mod units;
