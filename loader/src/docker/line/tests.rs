//! How far the stream of events has been read.

use super::*;
use std::io::Write as _;
use tokio::time::timeout;

type Event = Result<EventMessage, EngineError>;

/// The time of a mark; of an event, that it is one.
fn word(heard: &Heard) -> Result<u64, &'static str> {
    match heard {
        Heard::Event(_) => Err("event"),
        Heard::Until(at) => Ok(*at),
    }
}

#[tokio::test]
async fn marks_go_on_in_silence_and_each_is_of_the_time_before_it() {
    let (tell, mut heard) = queue::unbounded_channel();
    let began = boot_now();
    let reading = tokio::spawn(async move { read(stream::pending::<Event>(), &tell).await });
    let mut before = began;
    for _ in 0..3 {
        let mark = timeout(20 * MARKS, heard.recv()).await.unwrap().unwrap();
        let now = boot_now();
        let at = word(&mark).unwrap();
        assert!(before <= at && u128::from(now - at) > (MARKS / 2).as_nanos());
        before = at;
    }
    reading.abort();
}

#[tokio::test]
async fn no_mark_passes_an_event_that_waits() {
    let (tell, mut heard) = queue::unbounded_channel();
    // A byte is an event.
    let (mut engine, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let ours = tokio::net::UnixStream::from_std(ours).unwrap();
    let events = stream::unfold(ours, |ours| async move {
        loop {
            ours.readable().await.unwrap();
            match ours.try_read(&mut [0]) {
                Ok(0) => return None,
                Ok(_) => return Some((Event::Ok(EventMessage::default()), ours)),
                Err(_) => {}
            }
        }
    });
    let reading = tokio::spawn(async move { read(events, &tell).await });
    // It has begun, and waits for the first mark.
    yield_now().await;
    engine.write_all(b"e").unwrap();
    let sent = boot_now();
    // Nothing is read meanwhile, and the mark is long due.
    std::thread::park_timeout(3 * MARKS);
    let first = heard.recv().await.unwrap();
    assert_eq!(word(&first), Err("event"));
    let until = loop {
        let at = word(&heard.recv().await.unwrap()).unwrap();
        if at >= sent {
            break at;
        }
    };
    assert!(until < boot_now());
    drop(engine);
    reading.await.unwrap();
}
