//! A request of logs, record by record.

use super::{
    Context, Entrance, Lane, Malformed, Tally,
    claims::{self, Way},
    decode::Reader,
    flows,
    id::{self, Ids, Print},
    identity::Asker,
    raw::{Part, Parts, all, put},
};
use crate::incoming::{Incoming, Weight};
use lease::{BootTime, WallTime};
use opentelemetry_proto::tonic::{
    common::v1::KeyValue, logs::v1::LogRecord, resource::v1::Resource,
};
use prost::Message as _;
use wire::{
    fields::{RECORD_ID, SERVICE_NAME, SRC_IP, TRUNCATED},
    stream::{CLAUDE, COREDNS, ENVOY, UNKNOWN},
};

/// What became of a request.
#[derive(Clone, Debug, Default)]
pub struct Stamped {
    /// Its records, without those that were refused.
    pub records: Vec<Incoming>,
    /// What became of all of them.
    pub tally: Tally,
    /// The latest moment that was asked for, if the leases are not known to be complete up to it. Leases
    /// that are may give another answer.
    pub ahead: Option<BootTime>,
}

impl Stamped {
    /// What to tell the sender besides how many records were refused; nothing if all is well.
    #[must_use]
    pub fn message(&self) -> Option<String> {
        let t = &self.tally;
        let said: Vec<String> = [
            (t.malformed, "are no OTLP"),
            (t.too_large, "are too large"),
            (t.too_many, "are more than a request may have"),
            (t.no_stream, "name no stream of the loader"),
            (t.truncated, "were cut to their bounds"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} record(s) {what}"))
        .collect();
        (!said.is_empty()).then(|| said.join(", "))
    }
}

/// Stamps an encoded `ExportLogsServiceRequest`. An error means that it cannot be taken apart at all.
pub fn logs(request: &[u8], context: Context<'_>) -> Result<Stamped, Malformed> {
    let mut stamper = Stamper {
        context,
        asker: Asker::new(context),
        ids: Ids::default(),
        room: context.limits.output_bytes,
        out: Stamped::default(),
    };
    for group in all(request, 1)? {
        stamper.resource_logs(group)?;
    }
    stamper.out.ahead = stamper.asker.ahead;
    Ok(stamper.out)
}

/// Resource and scope around a record.
struct Envelope {
    /// The attributes of the resource, without its stream, encoded as a resource.
    resource: Vec<u8>,
    resource_schema: String,
    scope: Vec<u8>,
    scope_schema: String,
    /// Of resource and scope.
    print: Print,
    way: Way,
    /// The stream that the resource names.
    named: Option<String>,
    altered: bool,
}

struct Stamper<'c> {
    context: Context<'c>,
    asker: Asker<'c>,
    ids: Ids,
    /// Bytes that may still go out.
    room: usize,
    out: Stamped,
}

impl Stamper<'_> {
    fn resource_logs(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(self.context.limits);
        let mut attributes = reader.resource(&all(message, 1)?)?;
        let schema = all(message, 3)?.last().map(|b| reader.name(b));
        let way = Way::unknown().with(&attributes);
        let named = claims::text(claims::only(&attributes, SERVICE_NAME.name)).map(str::to_owned);
        let loaders = flows::stream(&attributes).is_some();
        self.clean(&mut attributes, true);
        attributes.retain(|pair| pair.key != SERVICE_NAME.name);
        reader.altered |= claims::settle(&mut attributes);
        let resource = Resource {
            attributes,
            ..Resource::default()
        };
        let mut envelope = Envelope {
            resource: resource.encode_to_vec(),
            resource_schema: schema.unwrap_or_default(),
            scope: Vec::new(),
            scope_schema: String::new(),
            print: Print::default(),
            way,
            named,
            altered: reader.altered,
        };
        let usable = self.context.entrance == Entrance::Collector || loaders;
        for group in all(message, 2)? {
            self.scope_logs(group, &mut envelope, usable)?;
        }
        Ok(())
    }

    fn scope_logs(
        &mut self,
        message: &[u8],
        envelope: &mut Envelope,
        usable: bool,
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(self.context.limits);
        let mut scope = reader.scope(&all(message, 1)?)?;
        self.clean(&mut scope.attributes, true);
        reader.altered |= claims::settle(&mut scope.attributes);
        let schema = all(message, 3)?.last().map(|b| reader.name(b));
        envelope.scope = scope.encode_to_vec();
        envelope.print = id::print(&[&envelope.resource, &envelope.scope]);
        envelope.scope_schema = schema.unwrap_or_default();
        let before = envelope.altered;
        envelope.altered |= reader.altered;
        for field in Parts::new(message) {
            if let (2, Part::Bytes(record)) = field? {
                self.out.tally.records += 1;
                if usable {
                    self.record(record, envelope);
                } else {
                    self.out.tally.no_stream += 1;
                }
            }
        }
        envelope.altered = before;
        Ok(())
    }

    /// Takes away what a sender may not say; `source`: addresses included.
    fn clean(&self, attributes: &mut Vec<KeyValue>, source: bool) {
        if self.context.entrance == Entrance::Collector {
            claims::strip(attributes);
            if source {
                claims::strip_source(attributes);
            }
        }
    }

    fn record(&mut self, message: &[u8], envelope: &Envelope) {
        let limits = self.context.limits;
        if message.len() > limits.record_bytes {
            self.out.tally.too_large += 1;
            return;
        }
        if self.out.records.len() >= limits.records {
            self.out.tally.too_many += 1;
            return;
        }
        let mut reader = Reader::new(limits);
        let Ok(mut record) = reader.record(message) else {
            self.out.tally.malformed += 1;
            return;
        };
        let asked = (self.out.tally.clone(), self.asker.ahead);
        let mut made = match self.context.entrance {
            Entrance::Loader => self.loaders(&mut record, envelope),
            Entrance::Collector => self.collectors(&mut record, envelope),
        };
        let altered = claims::settle(&mut record.attributes) || reader.altered || envelope.altered;
        if altered {
            record.attributes.push(TRUNCATED.with(true));
        }
        made.bytes = envelope.around(&made.stream, &record);
        if made.bytes.len() > self.room {
            (self.out.tally, self.asker.ahead) = asked;
            self.out.tally.too_many += 1;
            return;
        }
        self.room -= made.bytes.len();
        self.out.tally.truncated += u64::from(altered);
        self.out.tally.kept += 1;
        self.out.records.push(made);
    }

    /// A record of the loader: true as it is.
    fn loaders(&mut self, record: &mut LogRecord, envelope: &Envelope) -> Incoming {
        self.set_time(record);
        // Only resources that name a stream of the loader get here.
        let stream = envelope.named.clone().unwrap_or_default();
        let flows = flows::accounted(&stream, record);
        self.out.tally.uncounted += u64::from(flows == Some(None));
        let id = flows::id(&record.attributes).unwrap_or_else(|| {
            let attributes = &mut record.attributes;
            attributes.retain(|pair| pair.key != RECORD_ID.name);
            self.give_id(record, envelope, envelope.way)
        });
        Incoming {
            weight: flows::weight(&stream, &record.attributes),
            stream,
            id,
            flows: flows.flatten(),
            bytes: Vec::new(),
        }
    }

    /// A record of anybody else: whose it is, is for the leases to say.
    fn collectors(&mut self, record: &mut LogRecord, envelope: &Envelope) -> Incoming {
        let way = envelope.way.with(&record.attributes);
        // Envoy and CoreDNS log an address, agents have the one they send from.
        let logs_address = matches!(way.lane(), Some(Lane::Envoy | Lane::Coredns));
        self.clean(&mut record.attributes, !logs_address);
        self.set_time(record);
        let id = self.give_id(record, envelope, way);
        let stream = match way.lane() {
            Some(lane) => {
                self.identify(record, lane, way);
                lane.stream()
            }
            None => {
                self.out.tally.no_lane += 1;
                let named = envelope.named.as_deref().unwrap_or_default();
                let free = [CLAUDE, ENVOY, COREDNS].into_iter();
                free.into_iter().find(|s| *s == named).unwrap_or(UNKNOWN)
            }
        };
        Incoming {
            stream: stream.to_owned(),
            id,
            weight: Weight::Other,
            flows: None,
            bytes: Vec::new(),
        }
    }

    fn identify(&mut self, record: &mut LogRecord, lane: Lane, way: Way) {
        let ip = match lane {
            Lane::Agents => way.peer(),
            Lane::Envoy | Lane::Coredns => {
                let logged = claims::text(claims::only(&record.attributes, SRC_IP.name));
                logged.and_then(claims::address)
            }
        };
        let time = WallTime(record.time_unix_nano);
        let found = self.asker.who(lane, ip, time, &mut self.out.tally);
        if let (Lane::Agents, Some(peer)) = (lane, ip) {
            record.attributes.push(SRC_IP.with(peer));
        }
        if let Some(found) = found {
            self.asker.set(&mut record.attributes, found);
        }
    }

    /// Makes an id for a record and writes it down.
    fn give_id(&mut self, record: &mut LogRecord, envelope: &Envelope, way: Way) -> String {
        // Who read it when may differ when it is read again.
        let observed = std::mem::take(&mut record.observed_time_unix_nano);
        let content = record.encode_to_vec();
        record.observed_time_unix_nano = observed;
        let way = format!("{way:?}");
        let parts = [&envelope.print[..], way.as_bytes(), &*content];
        let id = self.ids.id(record.time_unix_nano, &parts);
        record.attributes.push(RECORD_ID.with(&*id));
        id
    }

    /// A record without a time of its own gets the one at which it was seen.
    fn set_time(&self, record: &mut LogRecord) {
        if record.observed_time_unix_nano == 0 {
            record.observed_time_unix_nano = self.context.received.wall.0;
        }
        if record.time_unix_nano == 0 {
            record.time_unix_nano = record.observed_time_unix_nano;
        }
    }
}

impl Envelope {
    /// `ResourceLogs` with the stream and this one record.
    fn around(&self, stream: &str, record: &LogRecord) -> Vec<u8> {
        let mut scope_logs = Vec::new();
        if !self.scope.is_empty() {
            put(&mut scope_logs, 1, &self.scope);
        }
        put(&mut scope_logs, 2, &record.encode_to_vec());
        if !self.scope_schema.is_empty() {
            put(&mut scope_logs, 3, self.scope_schema.as_bytes());
        }
        let mut resource = self.resource.clone();
        put(&mut resource, 1, &SERVICE_NAME.with(stream).encode_to_vec());
        let mut out = Vec::with_capacity(resource.len() + scope_logs.len() + 32);
        put(&mut out, 1, &resource);
        put(&mut out, 2, &scope_logs);
        if !self.resource_schema.is_empty() {
            put(&mut out, 3, self.resource_schema.as_bytes());
        }
        out
    }
}
