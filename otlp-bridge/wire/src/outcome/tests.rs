use super::*;
use http::HeaderValue;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;
use proptest::prelude::*;
use tonic_types::ErrorDetails;

const CODES: [(Code, bool); 17] = [
    (Code::Ok, false),
    (Code::Cancelled, true),
    (Code::Unknown, false),
    (Code::InvalidArgument, false),
    (Code::DeadlineExceeded, true),
    (Code::NotFound, false),
    (Code::AlreadyExists, false),
    (Code::PermissionDenied, false),
    (Code::ResourceExhausted, false),
    (Code::FailedPrecondition, false),
    (Code::Aborted, true),
    (Code::OutOfRange, true),
    (Code::Unimplemented, false),
    (Code::Internal, false),
    (Code::Unavailable, true),
    (Code::DataLoss, true),
    (Code::Unauthenticated, false),
];

fn now() -> Timestamp {
    "2026-11-01T00:00:00Z".parse().unwrap()
}

fn http(status: u16, retry_after: Option<&str>, body: &[u8]) -> Outcome {
    let mut headers = HeaderMap::new();
    if let Some(text) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    of_http(status, &headers, body, 10, now())
}

fn response(rejected: i64, message: &str) -> ExportLogsServiceResponse {
    ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: message.to_owned(),
        }),
    }
}

fn failed(code: &str, message: &str) -> Failure {
    Failure::Status {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

#[test]
fn codes_of_grpc_are_retryable_as_the_specification_says() {
    for (code, again) in CODES {
        let failure = failed(&format!("{code:?}"), "because");
        let wanted = if again {
            Outcome::Retry {
                after: None,
                failure,
            }
        } else {
            Outcome::Refused(failure)
        };
        assert_eq!(of_status(&Status::new(code, "because")), wanted);
    }
}

#[test]
fn retry_info_is_obeyed_and_makes_an_exhausted_resource_retryable() {
    for (code, again) in CODES {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1500)));
        let outcome = of_status(&Status::with_error_details(code, "", details));
        let after = match outcome {
            Outcome::Retry { after, .. } => after,
            Outcome::Refused(_) => None,
            other => panic!("{other:?}"),
        };
        let wanted = again || code == Code::ResourceExhausted;
        assert_eq!(
            after,
            wanted.then(|| Duration::from_millis(1500)),
            "{code:?}"
        );
    }
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(1 << 40)));
    let outcome = of_status(&Status::with_error_details(Code::Unavailable, "", details));
    let Outcome::Retry { after, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(after, Some(LONGEST_WAIT));
}

#[test]
fn a_status_made_on_our_side_says_nothing_about_the_receivers_will() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let connect = Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))));
    let Outcome::Retry { failure, .. } = of_status(&connect) else {
        panic!("{connect:?}");
    };
    assert_eq!(failure, Failure::Connect("connection refused".to_owned()));
    assert!(!failure.may_be_stored());
    let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let Outcome::Retry { failure, .. } = of_status(&Status::from_error(Box::new(broken))) else {
        panic!("it is not final");
    };
    assert_eq!(failure, Failure::Broken("broken pipe".to_owned()));
    assert!(failure.may_be_stored());
}

#[test]
fn only_rejected_records_make_a_partial_success() {
    assert_eq!(accepted(response(0, "a warning"), 10), Outcome::Delivered);
    assert_eq!(
        accepted(ExportLogsServiceResponse::default(), 10),
        Outcome::Delivered
    );
    let partial = |rejected| Outcome::Partial {
        rejected,
        message: "why".to_owned(),
    };
    assert_eq!(accepted(response(3, "why"), 10), partial(3));
    // Nobody can reject what was not sent.
    assert_eq!(accepted(response(i64::MAX, "why"), 10), partial(10));
    assert_eq!(accepted(response(-3, "why"), 10), Outcome::Delivered);
}

#[test]
fn http_answers_are_classified_by_status() {
    assert_eq!(http(200, None, b""), Outcome::Delivered);
    assert_eq!(
        http(200, None, &response(2, "why").encode_to_vec()),
        Outcome::Partial {
            rejected: 2,
            message: "why".to_owned()
        }
    );
    for status in [429, 502, 503, 504] {
        assert_eq!(
            http(status, None, b"busy"),
            Outcome::Retry {
                after: None,
                failure: failed(&status.to_string(), "busy")
            }
        );
    }
    for status in [301, 400, 401, 403, 404, 405, 413, 415, 500, 501] {
        let wanted = Outcome::Refused(failed(&status.to_string(), "no"));
        assert_eq!(http(status, None, b"no"), wanted);
    }
}

#[test]
fn something_that_is_no_receiver_has_taken_nothing() {
    let outcome = http(200, None, b"<html>Welcome</html>");
    assert!(
        matches!(
            outcome,
            Outcome::Retry {
                failure: Failure::Foreign(_),
                ..
            }
        ),
        "{outcome:?}"
    );
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let after = |text| match http(503, Some(text), b"") {
        Outcome::Retry { after, .. } => after,
        other => panic!("{other:?}"),
    };
    assert_eq!(after("7"), Some(Duration::from_secs(7)));
    assert_eq!(after(" 0 "), Some(Duration::ZERO));
    assert_eq!(
        after("Sun, 01 Nov 2026 00:00:30 GMT"),
        Some(Duration::from_secs(30))
    );
    assert_eq!(after("Sat, 31 Oct 2026 00:00:30 GMT"), Some(Duration::ZERO));
    assert_eq!(after("99999999999"), Some(LONGEST_WAIT));
    assert_eq!(after("Mon, 01 Nov 2027 00:00:00 GMT"), Some(LONGEST_WAIT));
    for nonsense in ["-1", "soon", "", "1e3", "99999999999999999999999"] {
        assert_eq!(after(nonsense), None, "{nonsense}");
    }
}

#[test]
fn the_message_of_a_status_in_the_body_is_found() {
    let status = tonic_types::Status {
        code: 14,
        message: "exporter \u{1b}[2J\nis down".to_owned(),
        details: Vec::new(),
    };
    assert_eq!(
        http(503, None, &status.encode_to_vec()),
        Outcome::Retry {
            after: None,
            failure: failed("503", "exporter  [2J is down")
        }
    );
}

#[test]
fn failures_say_what_happened_in_one_line() {
    let long = failed("Internal", &"x".repeat(500));
    assert_eq!(
        long.to_string(),
        format!(
            "the receiver answered Internal: {}…",
            "x".repeat(MESSAGE_MOST)
        )
    );
    assert_eq!(failed("503", "").to_string(), "the receiver answered 503");
    assert_eq!(
        Failure::Timeout(Duration::from_millis(1500)).to_string(),
        "no answer within 1.5 s"
    );
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic_or_steer_the_terminal(
        status in 100u16..1000, after in "[ -~]{0,40}", body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let outcome = http(status, Some(&after), &body);
        let said = match &outcome {
            Outcome::Delivered => String::new(),
            Outcome::Partial { rejected, message } => {
                prop_assert!(*rejected <= 10);
                message.clone()
            }
            Outcome::Retry { after, failure } => {
                prop_assert!(after.unwrap_or_default() <= LONGEST_WAIT);
                failure.to_string()
            }
            Outcome::Refused(failure) => failure.to_string(),
        };
        prop_assert!(!said.chars().any(char::is_control), "{said:?}");
        prop_assert!(said.chars().count() < 2 * MESSAGE_MOST);
        // What is not a success is never taken for one.
        let taken = matches!(outcome, Outcome::Delivered | Outcome::Partial { .. });
        prop_assert!(!taken || (200..300).contains(&status));
    }
}
