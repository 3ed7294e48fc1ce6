use super::*;
use crate::render::line::tests::record;
use std::{
    io::{BufRead as _, BufReader, ErrorKind, IoSlice, Read as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    time::Instant,
};
use wire::Options;

const PATIENCE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A receiver that answers every request as the closure says, which is told the number of the request;
/// nothing to say means to close the connection.
fn receiver(mut answer: impl FnMut(usize) -> Option<Vec<u8>> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut n = 0;
        while let Ok((stream, _)) = listener.accept() {
            let mut stream = BufReader::new(stream);
            while read(&mut stream).is_some() {
                n += 1;
                let Some(bytes) = answer(n - 1) else { break };
                if stream.get_mut().write_all(&bytes).is_err() {
                    break;
                }
            }
        }
    });
    url
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(n) = line.strip_prefix("content-length: ") {
            length = n.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()
}

fn export(url: &str) -> Export {
    Export::new(Endpoint::new(url, &Options::default()).unwrap())
}

fn keeping(url: &str) -> Export {
    let sender = BatchId {
        sender: "loader".to_owned(),
        number: 1,
    };
    Export::keeping(Endpoint::new(url, &Options::default()).unwrap(), sender)
}

const LOST: Debt = Debt {
    slot: 7,
    verdict: abi::VERDICT_DENIED,
    flows: 3,
};

/// Two records for five flows.
fn offer_two(export: &mut Export) {
    let debt = |verdict, flows| Debt {
        slot: 7,
        verdict,
        flows,
    };
    export.offer(&record(), debt(abi::VERDICT_ALLOWED, 1));
    let denied = Record {
        verdict: "DENIED",
        count: Some(4),
        ..record()
    };
    export.offer(&denied, debt(abi::VERDICT_DENIED, 4));
}

#[test]
fn what_the_receiver_confirms_is_not_missing() {
    let url = receiver(|_| Some(OK.into()));
    let mut export = export(&url);
    export.start("run-1");
    for _ in 0..5000 {
        offer_two(&mut export);
    }
    assert_eq!(export.finish(PATIENCE).records(), 0);
}

#[test]
fn a_receiver_that_is_busy_at_first_gets_the_records_later() {
    let busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
    let url = receiver(move |n| match n {
        0 => Some(busy.to_vec()),
        1 => None,
        _ => Some(OK.into()),
    });
    let mut export = export(&url);
    export.start("run-1");
    offer_two(&mut export);
    assert_eq!(export.finish(PATIENCE).records(), 0);
}

#[test]
fn refused_records_are_missing_by_verdict_with_their_flows() {
    let url = receiver(|_| Some(b"HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\nno".to_vec()));
    let mut export = export(&url);
    export.start("run-1");
    offer_two(&mut export);
    let undelivered = export.finish(PATIENCE);
    assert_eq!(undelivered.records(), 2);
    assert_eq!(
        undelivered.to_string(),
        format!(
            "2 records were not delivered to {url} (or not confirmed): 1 ALLOWED, 1 DENIED (4 flows)"
        )
    );
}

#[test]
fn records_that_the_receiver_throws_away_are_missing() {
    // partial_success { rejected_log_records: 1 }, to the first request alone.
    let partial = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x0a\x02\x08\x01";
    let url = receiver(move |n| Some(if n == 0 { partial.to_vec() } else { OK.into() }));
    let mut export = export(&url);
    export.start("run-1");
    for _ in 0..10 {
        offer_two(&mut export);
    }
    let undelivered = export.finish(PATIENCE);
    assert_eq!(
        undelivered.to_string(),
        format!(
            "1 records were not delivered to {url} (or not confirmed): 1 that the receiver threw away"
        )
    );
}

#[test]
fn a_silent_receiver_costs_no_more_than_the_limit_and_everything_is_missing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut export = export(&format!("http://{}", listener.local_addr().unwrap()));
    export.start("run-1");
    // More than the queue holds: what finds no room is missing as well, and nobody waits.
    for _ in 0..QUEUE {
        offer_two(&mut export);
    }
    let began = Instant::now();
    let undelivered = export.finish(Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(undelivered.records(), 2 * QUEUE as u64);
    let n = QUEUE as u64;
    assert_eq!(undelivered.missing.flows, [n, 4 * n, 0]);
}

#[test]
fn a_way_that_was_never_gone_has_lost_what_it_was_offered() {
    let mut export = export("http://127.0.0.1:1");
    assert_eq!(export.finish(PATIENCE).records(), 0);
    offer_two(&mut export);
    assert_eq!(export.finish(PATIENCE).records(), 2);
}

#[test]
fn flows_that_are_declared_lost_are_settled_as_the_receiver_says() {
    let answers = [
        (OK, vec![LOST], vec![]),
        (
            "HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n",
            vec![],
            vec![LOST],
        ),
    ];
    for (answer, paid, refused) in answers {
        let url = receiver(move |_| Some(answer.into()));
        let mut export = keeping(&url);
        export.declare(LogRecord::default(), LOST);
        let before = export.settled();
        assert!(before.paid.is_empty() && before.refused.is_empty());
        export.start("serve");
        export.finish(PATIENCE);
        let after = export.settled();
        assert_eq!((after.paid, after.refused), (paid, refused));
    }
}

#[test]
fn a_declaration_outlives_a_crowd_of_other_audit_records() {
    let url = receiver(|_| Some(OK.into()));
    let mut export = keeping(&url);
    export.declare(LogRecord::default(), LOST);
    for _ in 0..EVENTS + 5 {
        export.tell(LogRecord::default());
    }
    assert_eq!(export.state().given_up, 6);
    export.start("serve");
    export.finish(PATIENCE);
    assert_eq!(export.settled().paid, [LOST]);
}

#[test]
fn a_receiver_that_hangs_up_does_not_take_the_loader_down() {
    crate::commands::default_sigpipe();
    let _runtime = runtime().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    // As hyper writes: in several pieces, which the standard library does not shield from the signal.
    let e = ours.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")]);
    assert_eq!(e.unwrap_err().kind(), ErrorKind::BrokenPipe);
}
