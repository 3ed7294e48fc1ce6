//! A flow's record as OTLP.

use super::Record;
use crate::render::sentence;
use jiff::Timestamp;
use wire::{LogRecord, RecordBuilder, Severity, fields as f, stream};

impl Record {
    /// The same record for an OTLP receiver. `observed`: when it was read.
    #[must_use]
    pub fn otlp(&self, observed: Timestamp) -> LogRecord {
        let severity = match self.verdict {
            "ALLOWED" => Severity::Info,
            _ => Severity::Warn,
        };
        let sentence = sentence::sentence(self);
        let hosts = (!self.dst_hosts.is_empty()).then_some(self.dst_hosts.as_slice());
        RecordBuilder::new(stream::FLOW, self.time, observed, severity, sentence)
            .maybe(f::AGENT, self.agent.as_deref())
            .maybe(f::PROJECT, self.project.as_deref())
            .maybe(f::CONTAINER_ID, self.container_id.as_deref())
            .maybe(f::CONTAINER_NAME, self.container_name.as_deref())
            .with(f::VERDICT, self.verdict)
            .with(f::DIRECTION, self.direction)
            .maybe(f::SRC_IP, self.src_ip)
            .maybe(f::SRC_PORT, self.src_port)
            .maybe(f::DST_IP, self.dst_ip)
            .maybe(f::DST_PORT, self.dst_port)
            .with(f::L4_PROTO, self.l4_proto.as_str())
            .maybe(f::DST_HOST, self.dst_host.as_deref())
            .maybe(f::DST_HOSTS, hosts)
            .maybe(f::QNAME, self.qname.as_deref())
            .with(f::L7_PROTO, self.l7_proto)
            .with(f::BYTES_IN, self.bytes_in)
            .with(f::BYTES_OUT, self.bytes_out)
            .with(f::PACKETS_IN, self.packets_in)
            .with(f::PACKETS_OUT, self.packets_out)
            .with(f::DURATION_MS, self.duration_ms)
            .with(f::START_TIME, self.start_time)
            .with(f::REASON, self.reason)
            .maybe(f::RULE, self.rule.as_deref())
            .maybe(f::CLOSE_REASON, self.close_reason)
            .maybe(f::PID, self.pid)
            .maybe(f::COMM, self.comm.as_deref())
            .maybe(f::RTT_US, self.rtt_us)
            .maybe(f::RETRANSMITS, self.retransmits)
            .maybe(f::FLOW_ID, self.flow_id.as_deref())
            .maybe(f::COUNT, self.count)
            .maybe(f::FIRST_TIME, self.first_time)
            .maybe(f::WOULD_DENY, self.would_deny)
            .maybe(f::PROXY_IP, self.proxy_ip)
            .maybe(f::PROXY_PORT, self.proxy_port)
            .build()
    }
}

#[cfg(test)]
mod tests;
