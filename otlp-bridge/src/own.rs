//! Records of the bridge's own: gaps, what is set aside, its warnings. They go into its spool like others.

use crate::incoming::{Incoming, Weight};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use wire::{Source, fields::RECORD_ID};

/// Who writes the bridge's own records.
#[must_use]
pub fn source(of: &str) -> Source {
    Source::new(
        of,
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION"),
        "bridge",
    )
}

/// A record of the bridge's own, for its own spool.
#[must_use]
pub fn own(stream: &str, weight: Weight, mut record: LogRecord) -> Incoming {
    let id = uuid::Uuid::now_v7().to_string();
    record.attributes.push(RECORD_ID.with(id.as_str()));
    Incoming {
        stream: stream.to_owned(),
        id,
        weight,
        flows: None,
        bytes: source(stream).records(vec![record]).encode_to_vec(),
    }
}
