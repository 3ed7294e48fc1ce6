//! Flows of fifty agents over a week, made up; the same on every run.

use jiff::Timestamp;
use stack_tests::demo::{Dice, END, rfc3339};
use wire::{LogRecord, RecordBuilder, Severity, fields as f, stream};

/// Seconds over which they are spread.
pub(crate) const SPAN: i64 = 7 * 86_400;

const BOOT: &str = "0123456789abcdef0123456789abcdef";
const COMMANDS: [&str; 8] = [
    "node", "git", "curl", "python3", "npm", "apt-get", "cargo", "ssh",
];
const REASONS: [&str; 3] = ["rule", "default", "bypass"];

/// One flow, before it is written as a document or as a record.
pub(crate) struct Flow {
    number: u64,
    agent: u64,
    host: u64,
    /// Index of [`VERDICTS`].
    verdict: usize,
    /// Seconds before the end.
    before: i64,
    bytes_in: u64,
    bytes_out: u64,
    millis: u64,
    command: &'static str,
}

const VERDICTS: [&str; 3] = ["ALLOWED", "DENIED", "BYPASSED"];

/// An endless row of them.
pub(crate) struct Flows {
    dice: Dice,
    next: u64,
}

impl Flows {
    pub(crate) fn new() -> Self {
        Self {
            dice: Dice::new(1),
            next: 0,
        }
    }
}

impl Iterator for Flows {
    type Item = Flow;

    fn next(&mut self) -> Option<Flow> {
        let d = &mut self.dice;
        // One in ten is denied, one in a hundred bypassed; a few hosts get most of it.
        let verdict = match d.below(100) {
            0..=9 => 1,
            10 => 2,
            _ => 0,
        };
        let near = d.below(3000) + 1;
        let flow = Flow {
            number: self.next,
            agent: d.below(50),
            host: d.below(near),
            verdict,
            before: i64::try_from(d.below(SPAN.unsigned_abs())).expect("within a week"),
            bytes_in: d.below(1 << 20),
            bytes_out: d.below(1 << 14),
            millis: d.below(60_000),
            command: d.of::<&str>(&COMMANDS),
        };
        self.next += 1;
        Some(flow)
    }
}

impl Flow {
    fn source(&self) -> String {
        format!("172.28.0.{}", 10 + self.agent)
    }

    fn destination(&self) -> String {
        format!("203.0.{}.{}", self.host / 250, 1 + self.host % 250)
    }

    fn name(&self) -> String {
        format!("host-{}.service-{}.example", self.host, self.host % 97)
    }

    fn id(&self) -> String {
        let letter = &"adb"[self.verdict..=self.verdict];
        format!("{BOOT}-{}-{letter}{}", self.agent + 1, self.number)
    }

    /// As the exporter writes it, without its line end.
    pub(crate) fn document(&self) -> String {
        let (verdict, reason) = (VERDICTS[self.verdict], REASONS[self.verdict]);
        let (time, start) = (END - self.before, END - self.before - 1);
        format!(
            concat!(
                r#"{{"@timestamp":"{time}","observedTimestamp":"{time}","body":"{verdict} {command} to {name}:443 over tcp, {reason}","#,
                r#""attributes":{{"agent":"agent-{agent}","project":"project-{project}","container_id":"{agent:064x}","container_name":"c{agent}","#,
                r#""verdict":"{verdict}","direction":"egress","src_ip":"{source}","src_port":{port},"dst_ip":"{destination}","dst_port":443,"#,
                r#""l4_proto":"tcp","l7_proto":"unknown","dst_host":"{name}","bytes_in":{bytes_in},"bytes_out":{bytes_out},"packets_in":{packets},"packets_out":{packets},"#,
                r#""duration_ms":{millis},"start_time":"{start}","reason":"{reason}","rule":"rule-{rule}","close_reason":"fin","pid":{pid},"comm":"{command}","#,
                r#""rtt_us":{rtt},"retransmits":0,"flow_id":"{id}","event_name":"clawker.egress.flow","#,
                r#""data_stream":{{"dataset":"egress","namespace":"clawker","type":"record"}}}},"#,
                r#""resource":{{"service.name":"clawker-egress"}},"instrumentationScope":{{}},"severity":{{"text":"INFO","number":9}}}}"#
            ),
            time = rfc3339(time),
            start = rfc3339(start),
            verdict = verdict,
            reason = reason,
            command = self.command,
            name = self.name(),
            agent = self.agent,
            project = self.agent % 10,
            source = self.source(),
            destination = self.destination(),
            port = 32_768 + self.number % 28_000,
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            packets = 2 + self.bytes_in / 1400,
            millis = self.millis,
            rule = self.host % 20,
            pid = 100 + self.number % 30_000,
            rtt = 200 + self.host,
            id = self.id(),
        )
    }

    /// As the loader sends it. Now: what is old leaves the spool by its age.
    pub(crate) fn record(&self) -> LogRecord {
        let now = Timestamp::now();
        let (verdict, reason) = (VERDICTS[self.verdict], REASONS[self.verdict]);
        let text = format!("{verdict} {} to {}:443 over tcp", self.command, self.name());
        let id = self.id();
        RecordBuilder::new(stream::FLOW, now, now, Severity::Info, text)
            .with(f::AGENT, format!("agent-{}", self.agent))
            .with(f::PROJECT, format!("project-{}", self.agent % 10))
            .with(f::CONTAINER_ID, format!("{:064x}", self.agent))
            .with(f::CONTAINER_NAME, format!("c{}", self.agent))
            .with(f::VERDICT, verdict)
            .with(f::DIRECTION, "egress")
            .with(
                f::SRC_IP,
                self.source()
                    .parse::<std::net::IpAddr>()
                    .expect("an address"),
            )
            .with(
                f::DST_IP,
                self.destination()
                    .parse::<std::net::IpAddr>()
                    .expect("an address"),
            )
            .with(f::DST_PORT, 443_u16)
            .with(f::L4_PROTO, "tcp")
            .with(f::L7_PROTO, "unknown")
            .with(f::DST_HOST, self.name())
            .with(f::BYTES_IN, self.bytes_in)
            .with(f::BYTES_OUT, self.bytes_out)
            .with(f::DURATION_MS, self.millis)
            .with(f::START_TIME, now)
            .with(f::REASON, reason)
            .with(f::COMM, self.command)
            .with(f::CLOSE_REASON, "fin")
            .with(f::FLOW_ID, id.as_str())
            .build()
    }
}
