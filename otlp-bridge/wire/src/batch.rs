//! Records put together into one request, within bounds.

use crate::{record::LogRecord, stream::Source};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::{
    Message as _,
    bytes::{BufMut as _, Bytes, BytesMut},
    encoding::{WireType, encode_key, encode_varint},
    length_delimiter_len,
};

/// How large a request may become.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes, encoded, before compression.
    pub bytes: usize,
}

impl Default for Limits {
    /// Well below the 4 MiB that gRPC receivers take by default.
    fn default() -> Self {
        Self {
            records: 1000,
            bytes: 1 << 20,
        }
    }
}

/// An encoded request, ready to be sent, as often as it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// An `ExportLogsServiceRequest`.
    pub bytes: Bytes,
    /// How many records are in it.
    pub records: u64,
}

impl Payload {
    /// A request of records that are encoded already, each as a `ResourceLogs` of its own.
    #[must_use]
    pub fn of_encoded<'a>(records: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        /// `resource_logs` in a request.
        const FIELD: u32 = 1;
        let mut bytes = BytesMut::with_capacity(records.clone().map(|r| nested(r.len())).sum());
        let mut count = 0;
        for record in records {
            encode_key(FIELD, WireType::LengthDelimited, &mut bytes);
            encode_varint(record.len() as u64, &mut bytes);
            bytes.put_slice(record);
            count += 1;
        }
        Self {
            bytes: bytes.freeze(),
            records: count,
        }
    }
}

/// Records of one source that will go out together.
#[derive(Clone, Debug)]
pub struct Batch {
    source: Source,
    limits: Limits,
    records: Vec<LogRecord>,
    /// Encoded size of the records, with the tag and length of each.
    encoded: usize,
    /// Encoded size of resource and scope.
    envelope: usize,
}

/// A message inside another: tag (one byte for all of ours), length, content.
fn nested(content: usize) -> usize {
    1 + length_delimiter_len(content) + content
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new(source: &Source, limits: Limits) -> Self {
        Self {
            source: source.clone(),
            limits,
            records: Vec::new(),
            encoded: 0,
            envelope: nested(source.resource.encoded_len()) + nested(source.scope.encoded_len()),
        }
    }

    /// Size of the request if the records took this much. The two lengths around the records are counted
    /// as if they were longest.
    fn request_len(&self, records: usize) -> usize {
        const LENGTHS: usize = 2 * (1 + 5);
        LENGTHS + self.envelope + records
    }

    /// Adds a record, or gives it back when the batch is full. An empty batch takes any record, also one
    /// that is over the bound by itself: whether that is too large is for the receiver to say.
    pub fn push(&mut self, record: LogRecord) -> Option<LogRecord> {
        let with_it = self.encoded + nested(record.encoded_len());
        let full = self.records.len() >= self.limits.records
            || self.request_len(with_it) > self.limits.bytes;
        if full && !self.records.is_empty() {
            return Some(record);
        }
        self.encoded = with_it;
        self.records.push(record);
        None
    }

    /// Records in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The request, encoded once. The batch is empty again.
    pub fn take(&mut self) -> Payload {
        self.encoded = 0;
        let records = std::mem::take(&mut self.records);
        let count = records.len() as u64;
        let request = ExportLogsServiceRequest {
            resource_logs: vec![self.source.records(records)],
        };
        Payload {
            bytes: request.encode_to_vec().into(),
            records: count,
        }
    }
}
