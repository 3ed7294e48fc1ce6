//! The dictionary: every attribute that a record may carry, once, with its type. The type is part of the
//! constant's type, so that the same name cannot be given values of two kinds.
//!
//! `docs/fields.md` is made from this table.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use std::{marker::PhantomData, net::IpAddr};

/// Kind of an attribute's values.
pub trait Kind {
    /// The kind's name in the documentation; the first word is the OTLP type.
    const NAME: &'static str;
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub enum $kind {}

            impl Kind for $kind {
                const NAME: &'static str = $name;
            }
        )+
    };
}

kinds! {
    /// Text.
    Text = "string";
    /// A list of texts.
    Texts = "list of strings";
    /// A whole number; what does not fit into 63 bits is sent as the largest that does.
    Int = "int";
    /// A number with a fraction.
    Float = "double";
    /// Yes or no.
    Flag = "bool";
    /// An address, IPv4 or IPv6, sent as text.
    Address = "string, IP address";
    /// A moment, sent as RFC 3339 text in UTC.
    Time = "string, RFC 3339 time";
}

/// A value of a kind.
pub struct Value<K>(any_value::Value, PhantomData<K>);

impl<K> Value<K> {
    fn text(s: String) -> Self {
        Self(any_value::Value::StringValue(s), PhantomData)
    }
}

impl From<&str> for Value<Text> {
    fn from(s: &str) -> Self {
        Self::text(s.to_owned())
    }
}

impl From<String> for Value<Text> {
    fn from(s: String) -> Self {
        Self::text(s)
    }
}

impl From<IpAddr> for Value<Address> {
    fn from(a: IpAddr) -> Self {
        Self::text(a.to_string())
    }
}

impl From<Timestamp> for Value<Time> {
    fn from(t: Timestamp) -> Self {
        Self::text(t.to_string())
    }
}

impl From<bool> for Value<Flag> {
    fn from(b: bool) -> Self {
        Self(any_value::Value::BoolValue(b), PhantomData)
    }
}

impl From<u64> for Value<Int> {
    fn from(n: u64) -> Self {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        Self(any_value::Value::IntValue(n), PhantomData)
    }
}

impl From<u32> for Value<Int> {
    fn from(n: u32) -> Self {
        u64::from(n).into()
    }
}

impl From<u16> for Value<Int> {
    fn from(n: u16) -> Self {
        u64::from(n).into()
    }
}

impl From<&[String]> for Value<Texts> {
    fn from(list: &[String]) -> Self {
        let one = |s: &String| AnyValue {
            value: Some(any_value::Value::StringValue(s.clone())),
        };
        let values = list.iter().map(one).collect();
        Self(
            any_value::Value::ArrayValue(ArrayValue { values }),
            PhantomData,
        )
    }
}

/// An attribute: its name and, in its type, what its values are.
#[derive(Debug)]
pub struct Field<K> {
    /// The key in records.
    pub name: &'static str,
    kind: PhantomData<K>,
}

impl<K> Clone for Field<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Field<K> {}

impl<K> Field<K> {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            kind: PhantomData,
        }
    }

    /// The attribute with a value.
    #[must_use]
    pub fn with(self, value: impl Into<Value<K>>) -> KeyValue {
        KeyValue {
            key: self.name.to_owned(),
            value: Some(AnyValue {
                value: Some(value.into().0),
            }),
            ..KeyValue::default()
        }
    }
}

/// A line of the dictionary.
#[derive(Debug)]
pub struct Entry {
    /// The key in records.
    pub name: &'static str,
    /// What its values are.
    pub kind: &'static str,
    /// Which records have it.
    pub records: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

macro_rules! fields {
    ($($records:literal { $($(#[doc = $doc:literal])+ $constant:ident: $kind:ident = $name:literal;)+ })+) => {
        $($(
            $(#[doc = $doc])+
            pub const $constant: Field<$kind> = Field::new($name);
        )+)+

        /// The whole dictionary, in the order of the documentation.
        pub const ALL: &[Entry] = &[$($(
            Entry {
                name: $name,
                kind: <$kind as Kind>::NAME,
                records: $records,
                meaning: concat!($($doc),+),
            },
        )+)+];
    };
}

fields! {
    "resource, between the collector and the bridge only" {
        /// Which way a record came in: `agents`, `envoy` or `coredns`. Set by the collector's intake.
        LANE: Text = "clawker.lane";
        /// Address of whoever sent it, on the lane `agents`. Set by the collector's intake.
        PEER: Address = "clawker.peer";
    }
    "resource of every stream" {
        /// The stream, `clawker-…`.
        SERVICE_NAME: Text = "service.name";
        /// Version of the program that wrote the record.
        SERVICE_VERSION: Text = "service.version";
        /// Which of several: the instance that `dump` names.
        SERVICE_INSTANCE_ID: Text = "service.instance.id";
    }
    "every stream" {
        /// Value of the label `dev.clawker.agent`, or of `run --agent`, as it was given.
        AGENT: Text = "agent";
        /// Value of the label `dev.clawker.project`, or of `run --project`, as it was given.
        PROJECT: Text = "project";
        /// The container, in the engine's long form.
        CONTAINER_ID: Text = "container_id";
        /// The container's name.
        CONTAINER_NAME: Text = "container_name";
        /// Name of the event, which the collector puts here from the record; absent where the record has none.
        EVENT_NAME: Text = "event_name";
    }
    "clawker-cp" {
        /// How much it matters: `error`, `warn`, `info`, `debug`, `trace`.
        LEVEL: Text = "level";
        /// Which part of the program says it; `clawker::security`: what a security operator must see.
        TARGET: Text = "target";
        /// Own records before this one that were not sent, because there were too many at once; absent for none.
        SUPPRESSED: Int = "suppressed";
    }
    "flows, Envoy, CoreDNS, Claude Code" {
        /// Who began the flow, asked, or sent the record; absent when a flow was refused before it had an address.
        SRC_IP: Address = "src_ip";
        /// From the first to the last packet; of other records, how long it took.
        DURATION_MS: Int = "duration_ms";
    }
    "flows, Envoy, CoreDNS" {
        /// Port of `src_ip`; absent for flows denied at connect.
        SRC_PORT: Int = "src_port";
        /// Transport protocol: `tcp`, `udp`, `icmp`, `icmp6`, …, or its number; `any` where several were folded.
        L4_PROTO: Text = "l4_proto";
        /// Application protocol; `unknown` in records from the kernel.
        L7_PROTO: Text = "l7_proto";
        /// `ALLOWED`, `DENIED` or `BYPASSED`.
        VERDICT: Text = "verdict";
    }
    "flows, Envoy" {
        /// Where the flow went, as the agent asked for it, before any redirect.
        DST_IP: Address = "dst_ip";
        /// Port of `dst_ip`; absent for protocols without ports.
        DST_PORT: Int = "dst_port";
        /// The DNS name that led to `dst_ip`; absent for direct addresses.
        DST_HOST: Text = "dst_host";
        /// Payload that arrived.
        BYTES_IN: Int = "bytes_in";
        /// Payload that left; 0 for denied flows.
        BYTES_OUT: Int = "bytes_out";
        /// Beginning of the flow.
        START_TIME: Time = "start_time";
    }
    "flows" {
        /// `egress`; `ingress` for accepted flows.
        DIRECTION: Text = "direction";
        /// The DNS names that led to `dst_ip`, when there are several; then there is no `dst_host`.
        DST_HOSTS: Texts = "dst_hosts";
        /// Segments or datagrams that arrived.
        PACKETS_IN: Int = "packets_in";
        /// Segments or datagrams that left.
        PACKETS_OUT: Int = "packets_out";
        /// Why this verdict, from a closed list: `rule`, `default`, `builtin`, `bypass`, `observe`, ….
        REASON: Text = "reason";
        /// Name or position of the rule that decided, or that cut the flow.
        RULE: Text = "rule";
        /// Why the flow ended, from a closed list: `fin`, `rst`, `refused`, `idle`, `policy`, `denied`, ….
        CLOSE_REASON: Text = "close_reason";
        /// Where the flow really went when it was redirected.
        PROXY_IP: Address = "proxy_ip";
        /// Port of `proxy_ip`.
        PROXY_PORT: Int = "proxy_port";
        /// Process that opened the flow.
        PID: Int = "pid";
        /// Command name of that process, as it calls itself.
        COMM: Text = "comm";
        /// Smoothed round trip, TCP.
        RTT_US: Int = "rtt_us";
        /// Retransmitted segments, TCP.
        RETRANSMITS: Int = "retransmits";
        /// Unique for ever: the key for telling duplicates.
        FLOW_ID: Text = "flow_id";
        /// How many flows a folded record stands for; only there.
        COUNT: Int = "count";
        /// End of the first flow of a folded record; on a gap, time of the first record that is missing.
        FIRST_TIME: Time = "first_time";
        /// True where audit mode let pass what enforcing would have denied; absent elsewhere.
        WOULD_DENY: Flag = "would_deny";
    }
    "every stream but flows" {
        /// Made by the bridge: the key for telling duplicates of records that are no flows.
        RECORD_ID: Text = "record_id";
    }
    "audit: gaps, records set aside" {
        /// Data stream of the records that this one is about.
        STREAM: Text = "stream";
        /// Why they are missing, from a closed list: `killed`, `refused`, `unseen`, `spool_full`, `spool_age`,
        /// `disk_full`, `aside_full`. Of a bypass, what made it begin or end: `operator`, `expired`, `over`.
        CAUSE: Text = "cause";
        /// How many records are missing.
        RECORDS: Int = "records";
        /// How many flows are declared lost.
        FLOWS: Int = "flows";
        /// Boot of the flows, as in `flow_id`.
        BOOT: Text = "boot";
        /// Slot in the kernel's maps, as in `flow_id`.
        SLOT: Int = "slot";
        /// Id of the first record that is missing, or of the one that is set aside.
        FIRST_ID: Text = "first_id";
        /// Id of the last record that is missing.
        LAST_ID: Text = "last_id";
        /// Time of the last record that is missing.
        LAST_TIME: Time = "last_time";
        /// Why no receiver takes the record that is set aside: the code of its answer and classes of failures,
        /// never its text.
        FAILURE: Text = "failure";
    }
    "every stream" {
        /// True where the bridge left out, cut or repaired a part of the record; absent elsewhere.
        TRUNCATED: Flag = "truncated";
        /// Until when the leases were complete, where the bridge had to name somebody from leases older than the record; absent elsewhere.
        IDENTITY_AS_OF: Time = "identity_as_of";
    }
    "flows, CoreDNS" {
        /// The name that was asked for. On a flow: of a DNS query that no rule could allow.
        QNAME: Text = "qname";
    }
    "audit" {
        /// What weakens the firewall around a container, from a closed list: `privileged`, `host_network`, `shared_network`, `host_pid`, `engine_socket`, `capability`.
        WEAKNESS: Text = "weakness";
        /// The policy file, as it was named.
        POLICY: Text = "policy";
        /// Generation of the configuration that is in force now.
        GENERATION: Int = "generation";
        /// `offered` to the proxies, `applied` or `refused`.
        OUTCOME: Text = "outcome";
        /// Why it was refused, or what to know about it.
        MESSAGE: Text = "message";
        /// Name of the loader's instance.
        INSTANCE: Text = "instance";
        /// User name of whoever ordered it.
        ACTOR: Text = "actor";
        /// User id of whoever ordered it.
        ACTOR_UID: Int = "actor_uid";
        /// Process that ordered it.
        ACTOR_PID: Int = "actor_pid";
        /// Command name of that process.
        ACTOR_COMM: Text = "actor_comm";
        /// Who had logged in, before `sudo` or `su`.
        ACTOR_LOGIN: Text = "actor_login";
        /// Who ordered the bypass.
        BYPASS_BY: Text = "bypass_by";
        /// Why.
        BYPASS_REASON: Text = "bypass_reason";
        /// Beginning of the bypass.
        BYPASS_FROM: Time = "bypass_from";
        /// Until when it is to last; of one that has ended, when it did.
        BYPASS_UNTIL: Time = "bypass_until";
        /// Until when the bypass was to last that this one takes the place of.
        REPLACED_UNTIL: Time = "replaced_until";
    }
    "CoreDNS" {
        /// Type of the question.
        QTYPE: Text = "qtype";
        /// How the query was answered.
        RCODE: Text = "rcode";
        /// True on a line of the query log that could not be taken apart; absent elsewhere.
        PARSE_ERROR: Flag = "parse_error";
    }
    "Envoy" {
        /// HTTP method.
        METHOD: Text = "method";
        /// Path of the request, without the query.
        PATH: Text = "path";
        /// Host that the request named.
        REQUEST_HOST: Text = "request_host";
        /// HTTP status of the answer.
        RESPONSE_CODE: Int = "response_code";
        /// Envoy's flags on how the request ended.
        RESPONSE_FLAGS: Text = "response_flags";
        /// Status of a gRPC call.
        GRPC_STATUS: Text = "grpc_status";
        /// Server name of the TLS handshake.
        SNI: Text = "sni";
        /// TLS version towards the agent.
        TLS_VERSION: Text = "tls_version";
        /// Address that Envoy connected to.
        UPSTREAM_IP: Address = "upstream_ip";
    }
    "Claude Code" {
        /// The session; of a UUID's shape.
        SESSION_ID: Text = "session_id";
        /// The prompt that this belongs to, not its text.
        PROMPT_ID: Text = "prompt_id";
        /// The message.
        MESSAGE_UUID: Text = "message_uuid";
        /// The request, in the words of the service.
        REQUEST_ID: Text = "request_id";
        /// The request, in the words of the client.
        CLIENT_REQUEST_ID: Text = "client_request_id";
        /// The use of a tool.
        TOOL_USE_ID: Text = "tool_use_id";
        /// The run of a workflow.
        WORKFLOW_RUN_ID: Text = "workflow_run_id";
        /// Its name.
        WORKFLOW_NAME: Text = "workflow_name";
        /// Number of the event in its session.
        EVENT_SEQUENCE: Int = "event_sequence";
        /// Version of Claude Code.
        APP_VERSION: Text = "app_version";
        /// How it was started.
        APP_ENTRYPOINT: Text = "app_entrypoint";
        /// Kind of terminal.
        TERMINAL_TYPE: Text = "terminal_type";
        /// Name of the agent inside Claude Code, which is not the container's.
        SUBAGENT_NAME: Text = "subagent_name";
        /// Where that one is from: `built-in`, ….
        SUBAGENT_SOURCE: Text = "subagent_source";
        /// Kind of a subagent.
        AGENT_TYPE: Text = "agent_type";
        /// The model.
        MODEL: Text = "model";
        /// What asked the model: main thread, subagent, ….
        QUERY_SOURCE: Text = "query_source";
        /// Speed of the request.
        SPEED: Text = "speed";
        /// Effort of the request.
        EFFORT: Text = "effort";
        /// Cost in US dollars.
        COST_USD: Float = "cost_usd";
        /// Cost in millionths of a US dollar.
        COST_USD_MICROS: Int = "cost_usd_micros";
        /// Tokens sent.
        INPUT_TOKENS: Int = "input_tokens";
        /// Tokens received.
        OUTPUT_TOKENS: Int = "output_tokens";
        /// Tokens read from the cache.
        CACHE_READ_TOKENS: Int = "cache_read_tokens";
        /// Tokens written to the cache.
        CACHE_CREATION_TOKENS: Int = "cache_creation_tokens";
        /// Tokens before a compaction.
        PRE_TOKENS: Int = "pre_tokens";
        /// Tokens after a compaction.
        POST_TOKENS: Int = "post_tokens";
        /// Tokens of a subagent.
        TOTAL_TOKENS: Int = "total_tokens";
        /// Uses of tools by a subagent.
        TOTAL_TOOL_USES: Int = "total_tool_uses";
        /// Characters of a prompt.
        PROMPT_LENGTH: Int = "prompt_length";
        /// Characters of a response.
        RESPONSE_LENGTH: Int = "response_length";
        /// Bytes of the body of a request or response.
        BODY_LENGTH: Int = "body_length";
        /// Whether that was cut.
        BODY_TRUNCATED: Flag = "body_truncated";
        /// The tool.
        TOOL_NAME: Text = "tool_name";
        /// Where the tool is from.
        TOOL_SOURCE: Text = "tool_source";
        /// Bytes of what the tool was given.
        TOOL_INPUT_SIZE_BYTES: Int = "tool_input_size_bytes";
        /// Bytes of what it answered.
        TOOL_RESULT_SIZE_BYTES: Int = "tool_result_size_bytes";
        /// On `tool_decision`: `accept` or `reject`.
        DECISION: Text = "decision";
        /// On `tool_decision`: who decided: `config`, `hook`, `user_permanent`, ….
        SOURCE: Text = "source";
        /// On `tool_result`: as `decision`.
        DECISION_TYPE: Text = "decision_type";
        /// On `tool_result`: as `source`.
        DECISION_SOURCE: Text = "decision_source";
        /// Whether it went well.
        SUCCESS: Flag = "success";
        /// HTTP status of the service.
        STATUS_CODE: Int = "status_code";
        /// Kind of error.
        ERROR_TYPE: Text = "error_type";
        /// Name of an internal error.
        ERROR_NAME: Text = "error_name";
        /// Code of an internal error.
        ERROR_CODE: Text = "error_code";
        /// Which try it was.
        ATTEMPT: Int = "attempt";
        /// How many tries there were.
        TOTAL_ATTEMPTS: Int = "total_attempts";
        /// How long all tries took.
        TOTAL_RETRY_DURATION_MS: Int = "total_retry_duration_ms";
        /// Category of a refusal, from a closed list of the service.
        CATEGORY: Text = "category";
        /// Whether a refusal has a category.
        HAS_CATEGORY: Flag = "has_category";
        /// Whether a refusal has an explanation.
        HAS_EXPLANATION: Flag = "has_explanation";
        /// Which of several models after a refusal.
        SERVER_FALLBACK_HOP: Int = "server_fallback_hop";
        /// What was done: `login`, ….
        ACTION: Text = "action";
        /// How somebody proved who he is.
        AUTH_METHOD: Text = "auth_method";
        /// What set it off.
        TRIGGER: Text = "trigger";
        /// Permission mode before.
        FROM_MODE: Text = "from_mode";
        /// Permission mode after.
        TO_MODE: Text = "to_mode";
        /// State of a connection to an MCP server.
        STATUS: Text = "status";
        /// How that server is reached: `stdio`, `http`, ….
        TRANSPORT_TYPE: Text = "transport_type";
        /// Who has configured it: `user`, `project`, ….
        SERVER_SCOPE: Text = "server_scope";
        /// The same, on `tool_result`.
        MCP_SERVER_SCOPE: Text = "mcp_server_scope";
        /// Slash command.
        COMMAND_NAME: Text = "command_name";
        /// Where that is from.
        COMMAND_SOURCE: Text = "command_source";
        /// Kind of what was mentioned with @.
        MENTION_TYPE: Text = "mention_type";
        /// Event that hooks are run for.
        HOOK_EVENT: Text = "hook_event";
        /// Hooks.
        NUM_HOOKS: Int = "num_hooks";
        /// Hooks that went well.
        NUM_SUCCESS: Int = "num_success";
        /// Hooks that stopped what was going on.
        NUM_BLOCKING: Int = "num_blocking";
        /// Hooks that failed without stopping it.
        NUM_NON_BLOCKING_ERROR: Int = "num_non_blocking_error";
        /// Hooks that were cancelled.
        NUM_CANCELLED: Int = "num_cancelled";
        /// How long all hooks took.
        TOTAL_DURATION_MS: Int = "total_duration_ms";
        /// What set a skill off.
        INVOCATION_TRIGGER: Text = "invocation_trigger";
        /// The skill.
        SKILL_NAME: Text = "skill_name";
        /// The plugin.
        PLUGIN_NAME: Text = "plugin_name";
        /// The market place that it is from.
        MARKETPLACE_NAME: Text = "marketplace_name";
    }
}
