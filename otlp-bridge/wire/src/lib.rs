//! The contract with the collector: what the streams, events and attributes are called, how a record is
//! built from them, how batches of records get to an OTLP receiver, and what the loader and the bridge say
//! to each other besides.
//!
//! The dictionaries ([`fields`], [`metrics`]) and the builders ([`record`], [`metrics::Snapshot`]) are pure.
//! [`client`] is the only room that opens sockets; [`Endpoint`] reads certificates once, when it is made.
//! [`log_layer`] turns what a program says about itself into records.

pub mod backoff;
pub mod batch;
pub mod batch_id;
pub mod client;
pub mod endpoint;
pub mod fields;
pub mod flow_id;
pub mod held;
pub mod log_layer;
pub mod metrics;
pub mod outcome;
pub mod record;
pub mod stream;

pub use backoff::Backoff;
pub use batch::{Batch, Limits, Payload};
pub use batch_id::{BatchId, BatchIdError};
pub use client::Client;
pub use endpoint::{Endpoint, EndpointError, Options};
pub use fields::Field;
pub use flow_id::FlowId;
pub use held::{Held, HeldError};
pub use log_layer::{Outlet, Volume, muted};
pub use metrics::Snapshot;
pub use outcome::{Failure, Outcome};
pub use record::{LogRecord, RecordBuilder, Severity};
pub use stream::Source;
