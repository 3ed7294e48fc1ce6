use super::*;
use crate::render::line::tests::record;
use proptest::prelude::*;

#[test]
fn requests_ask_for_one_thing_in_one_version() {
    let parse = |line: &str| Request::parse(line.as_bytes());
    assert_eq!(parse(r#"{"v":1,"status":{}}"#), Ok(Request::Status));
    let all = Request::Watch(Watch { live: true });
    assert_eq!(parse(r#"{"v":1,"watch":{}}"#), Ok(all.clone()));
    let ended = Request::Watch(Watch { live: false });
    assert_eq!(
        parse(r#"{"watch":{"live":false},"v":1}"#),
        Ok(ended.clone())
    );
    let lift = Request::Order(Order::Lift(Lift {
        agent: Some("reviewer".to_owned()),
        project: None,
        for_ms: 300_000,
        reason: "debug npm".to_owned(),
    }));
    let asked = r#"{"v":1,"bypass":{"agent":"reviewer","for_ms":300000,"reason":"debug npm"}}"#;
    assert_eq!(parse(asked).as_ref(), Ok(&lift));
    let restore = Request::Order(Order::Restore(Restore {
        agent: None,
        project: Some("acme".to_owned()),
        reason: None,
    }));
    assert_eq!(
        parse(r#"{"v":1,"enforce":{"project":"acme"}}"#).as_ref(),
        Ok(&restore)
    );
    for request in [Request::Status, all, ended, lift, restore] {
        assert_eq!(parse(request.line().trim_end()), Ok(request));
    }
    assert_eq!(
        parse(r#"{"v":2,"watch":{}}"#),
        Err(RequestError::Version(2))
    );
    assert_eq!(parse(r#"{"v":1}"#), Err(RequestError::NotOne));
    let both = parse(r#"{"v":1,"watch":{},"status":{}}"#);
    assert_eq!(both, Err(RequestError::NotOne));
    let both = parse(r#"{"v":1,"bypass":{"for_ms":1000,"reason":"x"},"enforce":{}}"#);
    assert_eq!(both, Err(RequestError::NotOne));
    for unbounded in [
        r#"{"v":1,"bypass":{"for_ms":0,"reason":"x"}}"#,
        r#"{"v":1,"bypass":{"for_ms":18446744073709551615,"reason":"x"}}"#,
        r#"{"v":1,"bypass":{"for_ms":1000,"reason":" "}}"#,
        r#"{"v":1,"bypass":{"for_ms":1000,"reason":"a\nb"}}"#,
        r#"{"v":1,"enforce":{"reason":""}}"#,
    ] {
        assert!(
            matches!(parse(unbounded), Err(RequestError::Order(_))),
            "{unbounded}"
        );
    }
    for wrong in [
        "",
        "{",
        "1",
        "[]",
        r#"{"watch":{}}"#,
        r#"{"v":1,"watch":{"fast":1}}"#,
        r#"{"v":1,"watch":1}"#,
        r#"{"v":-1,"watch":{}}"#,
        r#"{"v":1,"kill":{}}"#,
        r#"{"v":1,"bypass":{"for_ms":1000}}"#,
        r#"{"v":1,"bypass":{"for_ms":-1,"reason":"x"}}"#,
        r#"{"v":1,"bypass":{"for_ms":1e300,"reason":"x"}}"#,
        r#"{"v":1,"bypass":{"for_ms":1000,"reason":"x","slot":1}}"#,
        r#"{"v":1,"enforce":{"for_ms":1000}}"#,
    ] {
        assert!(
            matches!(parse(wrong), Err(RequestError::Json(_))),
            "{wrong}"
        );
    }
    assert!(Request::parse(b"\xff\xfe").is_err());
}

#[test]
fn what_is_said_is_understood() {
    let r = record();
    let line = ended(&r).unwrap();
    let Ok(Message::Ended(json)) = Message::parse(line.trim_end()) else {
        panic!("{line}")
    };
    assert_eq!(serde_json::from_str::<Record>(json).unwrap(), r);
    let spaced = format!(" {{ \"ended\" : {json} }} ");
    assert!(matches!(Message::parse(&spaced), Ok(Message::Ended(j)) if j == json));
    assert!(matches!(
        Message::parse(lost(7).trim_end()),
        Ok(Message::Lost(7))
    ));
    assert!(matches!(Message::parse(END.trim_end()), Ok(Message::End)));
    assert!(
        matches!(Message::parse(error("a \"b\"").trim_end()), Ok(Message::Error(e)) if e == "a \"b\"")
    );
    assert!(matches!(
        Message::parse(r#"{"v":1,"weather":{}}"#),
        Ok(Message::Unknown)
    ));
    assert!(Message::parse("nonsense").is_err());
    let told = Done {
        changes: vec![crate::audit::bypass_tests::change()],
        unchanged: vec!["acme/builder".to_owned()],
        ..Done::default()
    };
    assert!(matches!(Message::parse(done(&told).trim_end()), Ok(Message::Done(d)) if d == told));
    let none = bypasses(&[]);
    assert!(matches!(Message::parse(none.trim_end()), Ok(Message::Bypasses(b)) if b.is_empty()));
}

#[test]
fn a_snapshot_has_what_fits_and_says_how_many_there_are() {
    let flows = |n| std::iter::repeat_with(record).take(n);
    for n in [0, 1, 3] {
        let line = live(n, flows(n), 1 << 20);
        let Ok(Message::Live(l)) = Message::parse(line.trim_end()) else {
            panic!("{line}")
        };
        assert_eq!((l.total, l.flows.len()), (n as u64, n));
    }
    let line = live(9000, flows(9000), 10_000);
    assert!(line.len() < 10_100);
    let Ok(Message::Live(l)) = Message::parse(line.trim_end()) else {
        panic!("{line}")
    };
    assert_eq!(l.total, 9000);
    assert!((5..100).contains(&l.flows.len()), "{}", l.flows.len());
}

#[test]
fn the_documentation_is_right() {
    let page = include_str!("../../../../docs/control.md");
    let lines = |kind: &str| {
        let block = page.split(&format!("```{kind}\n")).nth(1).unwrap();
        block
            .split("```")
            .next()
            .unwrap()
            .lines()
            .collect::<Vec<_>>()
    };
    assert_eq!(lines("request").len(), 5);
    for line in lines("request") {
        assert!(Request::parse(line.as_bytes()).is_ok(), "{line}");
    }
    for line in lines("said") {
        assert!(
            matches!(
                Message::parse(line),
                Ok(Message::Status(_) | Message::Done(_) | Message::Bypasses(_))
            ),
            "{line}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
        let _ = Request::parse(&bytes);
        let _ = Request::parse(text.as_bytes());
        let _ = Message::parse(&text);
    }
}
