//! Streams and events. A stream is told by `service.name`; the collector routes each to a data stream of
//! the same name.

use crate::fields::{SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION};
use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};

/// Flows, one record at the end of each.
pub const EGRESS: &str = "clawker-egress";
/// What the loader and the bridge say about themselves.
pub const CONTROL_PLANE: &str = "clawker-cp";
/// Audit: changes of policy, bypasses, enrolment, declared losses.
pub const OVERSEER: &str = "clawker-overseer";
/// What the agents' own telemetry says.
pub const CLAUDE: &str = "clawker-claude";
/// Access log of Envoy.
pub const ENVOY: &str = "clawker-envoy";
/// Queries that CoreDNS answered.
pub const COREDNS: &str = "clawker-coredns";
/// Records that came by no lane the bridge knows, under no name of a stream that may be used there.
pub const UNKNOWN: &str = "clawker-unknown";

/// Value of [`LANE`](crate::fields::LANE): records that agents send themselves.
pub const LANE_AGENTS: &str = "agents";
/// Value of [`LANE`](crate::fields::LANE): records of Envoy.
pub const LANE_ENVOY: &str = "envoy";
/// Value of [`LANE`](crate::fields::LANE): records of CoreDNS.
pub const LANE_COREDNS: &str = "coredns";

/// Event name of a flow's record.
pub const FLOW: &str = "clawker.egress.flow";

/// Event name of a record that declares others lost.
pub const GAP: &str = "clawker.overseer.gap";
/// Event name of a record that announces one which no receiver takes.
pub const SET_ASIDE: &str = "clawker.overseer.set_aside";

/// Who speaks in a stream: the resource and the scope of its records.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub(crate) resource: Resource,
    pub(crate) scope: InstrumentationScope,
}

impl Source {
    /// A program, by name and version, that writes to a stream. `instance` tells several of them on one
    /// machine apart.
    #[must_use]
    pub fn new(stream: &str, program: &str, version: &str, instance: &str) -> Self {
        Self {
            resource: Resource {
                attributes: vec![
                    SERVICE_NAME.with(stream),
                    SERVICE_VERSION.with(version),
                    SERVICE_INSTANCE_ID.with(instance),
                ],
                ..Resource::default()
            },
            scope: InstrumentationScope {
                name: program.to_owned(),
                version: version.to_owned(),
                ..InstrumentationScope::default()
            },
        }
    }
    /// Records, with who wrote them.
    #[must_use]
    pub fn records(&self, records: Vec<LogRecord>) -> ResourceLogs {
        ResourceLogs {
            resource: Some(self.resource.clone()),
            scope_logs: vec![ScopeLogs {
                scope: Some(self.scope.clone()),
                log_records: records,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }
    }
}
