//! Why something did not arrive, in words of our own.
//!
//! A receiver's text may quote what a record says, in any wording: OpenSearch does it when a value does not
//! fit. Reasons are kept for long (in the store, in the log, in audit) and read by many. So of such a text
//! only words of a closed list remain, and a text without one is told by its code alone.

use wire::Failure;

/// Words that name a class of failures. First OpenSearch's, then those of connections between the receiver
/// and its store.
const CLASSES: [&str; 38] = [
    "action_request_validation_exception",
    "circuit_breaking_exception",
    "cluster_block_exception",
    "cluster_manager_not_discovered_exception",
    "document_parsing_exception",
    "illegal_argument_exception",
    "illegal_state_exception",
    "index_closed_exception",
    "index_not_found_exception",
    "ingest_processor_exception",
    "invalid_index_name_exception",
    "json_parse_exception",
    "mapper_exception",
    "mapper_parsing_exception",
    "no_shard_available_action_exception",
    "node_closed_exception",
    "process_cluster_event_timeout_exception",
    "rejected_execution_exception",
    "resource_already_exists_exception",
    "script_exception",
    "security_exception",
    "strict_dynamic_mapping_exception",
    "unavailable_shards_exception",
    "validation_exception",
    "version_conflict_engine_exception",
    "x_content_parse_exception",
    "connection refused",
    "connection reset by peer",
    "broken pipe",
    "no route to host",
    "no such host",
    "i/o timeout",
    "context deadline exceeded",
    "context canceled",
    "server closed idle connection",
    "certificate signed by unknown authority",
    "certificate has expired",
    "data refused due to high memory usage",
];

/// The classes that a receiver's text names, after `said`.
#[must_use]
pub fn classed(said: String, text: &str) -> String {
    let named: Vec<&str> = CLASSES.into_iter().filter(|c| text.contains(c)).collect();
    // The name of one may be a part of another's.
    let whole = |c: &&str| !named.iter().any(|o| o != c && o.contains(*c));
    let named: Vec<&str> = named.iter().copied().filter(whole).collect();
    if named.is_empty() {
        said
    } else {
        format!("{said}: {}", named.join(", "))
    }
}

/// A failure without what the other side has written. That of a connection which never was is this side's own
/// text.
#[must_use]
pub fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Connect(_) | Failure::Timeout(_) => failure.to_string(),
        Failure::Broken(text) => classed("the connection broke".to_owned(), text),
        Failure::Foreign(_) => "the answer is not OTLP".to_owned(),
        Failure::Status { code, message } => {
            classed(format!("the receiver answered {code}"), message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(message: &str) -> String {
        reason(&Failure::Status {
            code: "500".to_owned(),
            message: message.to_owned(),
        })
    }

    #[test]
    fn only_classes_remain_of_a_text() {
        let quoting = "Permanent error: flush: [mapper_parsing_exception] failed to parse field [attributes.dst_ip] of \
             type [ip] in document with id 'x'. Preview of field's value: 'my secret' caused by illegal_argument_exception: \
             'my secret' is not an IP string literal.";
        assert_eq!(
            answered(quoting),
            "the receiver answered 500: illegal_argument_exception, mapper_parsing_exception"
        );
        let down = "Permanent error: flush: dial tcp 10.0.0.2:9200: connect: connection refused";
        assert_eq!(
            answered(down),
            "the receiver answered 500: connection refused"
        );
        let full = "opensearch_rejected_execution_exception: my secret";
        assert_eq!(
            answered(full),
            "the receiver answered 500: rejected_execution_exception"
        );
        for other in ["", "my secret", "my_secret_exception", "Connection Refused"] {
            assert_eq!(answered(other), "the receiver answered 500");
        }
    }

    #[test]
    fn no_failure_tells_what_the_other_side_wrote() {
        let text = || "my secret".to_owned();
        for failure in [
            Failure::Broken(text()),
            Failure::Foreign(text()),
            Failure::Status {
                code: "Internal".to_owned(),
                message: text(),
            },
        ] {
            assert!(!reason(&failure).contains("secret"), "{failure}");
        }
        let unreachable = reason(&Failure::Connect("connection refused (111)".to_owned()));
        assert_eq!(unreachable, "cannot connect: connection refused (111)");
    }

    #[test]
    fn a_class_inside_another_is_not_said_twice() {
        let said = answered("action_request_validation_exception");
        assert_eq!(
            said,
            "the receiver answered 500: action_request_validation_exception"
        );
    }
}
