//! The loader on its socket, and the collector over gRPC.

use crate::house::{House, eventually, get, payload, record, said, says, sent_by};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use wire::{BatchId, Client, Failure, Held, Outcome, Payload, held};

const BOOT: &str = "0123456789abcdef0123456789abcdef";

fn flows(n: u64) -> Payload {
    let flow = |i| {
        record(vec![
            says("agent", "web"),
            says("verdict", "DENIED"),
            says("flow_id", &format!("{BOOT}-7-d{i}")),
        ])
    };
    payload("clawker-egress", (0..n).map(flow).collect())
}

#[track_caller]
fn refused(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused(failure) => failure.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_of_the_loader_is_kept_once() {
    let house = House::new().await;
    let client = Client::new(&house.loader());
    let first = BatchId::first("loader-1").unwrap();
    for _ in 0..2 {
        assert_eq!(
            client.send_batch(&flows(3), &first).await,
            Outcome::Delivered
        );
    }
    assert_eq!(
        client.send_batch(&flows(2), &first.next()).await,
        Outcome::Delivered
    );
    let kept = house.keeper.records();
    assert_eq!(kept.len(), 5);
    assert_eq!(said(&kept[0], "agent").as_deref(), Some("web"));
    let held = held::ask(&house.loader(), BOOT).await.unwrap();
    let wanted = Held {
        slot: 7,
        verdict: "DENIED".to_owned(),
        flows: 5,
    };
    assert_eq!(held, [wanted]);
    assert_eq!(
        held::ask(&house.loader(), &"f".repeat(32)).await.unwrap(),
        []
    );
}

#[tokio::test]
async fn a_request_of_the_loader_without_a_name_is_refused() {
    let house = House::new().await;
    let client = Client::new(&house.loader());
    let why = refused(&client.send(&flows(1)).await);
    assert!(
        why.contains("InvalidArgument") && why.contains("clawker-batch"),
        "{why}"
    );
    let bad = BatchId {
        sender: "a b".to_owned(),
        number: 1,
    };
    let why = refused(&client.send_batch(&flows(1), &bad).await);
    assert!(why.contains("clawker-batch"), "{why}");
    assert_eq!(house.keeper.records(), []);
    assert_eq!(house.intake.counters().counts().refused, 2);
}

#[tokio::test]
async fn a_record_of_no_stream_of_the_loader_is_refused_and_told() {
    let house = House::new().await;
    let client = Client::new(&house.loader());
    let odd = payload("clawker-envoy", vec![record(vec![]); 2]);
    let outcome = client.send_batch(&odd, &BatchId::first("l").unwrap()).await;
    let Outcome::Partial { rejected, message } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(rejected, 2);
    assert!(message.contains("name no stream"), "{message}");
}

#[tokio::test]
async fn while_it_cannot_be_kept_the_sender_holds_it() {
    let house = House::new().await;
    let loader = Client::new(&house.loader());
    let batch = BatchId::first("l").unwrap();
    house.keeper.set_full(true);
    for outcome in [
        loader.send_batch(&flows(1), &batch).await,
        house.client("").send(&sent_by("10.0.0.1")).await,
        house.client("/v1/logs").send(&sent_by("10.0.0.1")).await,
    ] {
        let Outcome::Retry { after, failure } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(after.is_some_and(|after| after.as_secs() == 2), "{after:?}");
        assert!(
            failure.to_string().contains("the disk is full"),
            "{failure}"
        );
    }
    assert_eq!(house.intake.counters().counts().put_off, 3);
    let failed = held::ask(&house.loader(), BOOT)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        failed.contains("500") && failed.contains("the disk is full"),
        "{failed}"
    );
    house.keeper.set_full(false);
    assert_eq!(
        loader.send_batch(&flows(1), &batch).await,
        Outcome::Delivered
    );
    assert_eq!(house.keeper.records().len(), 1);
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_kept() {
    let house = House::new().await;
    house.keeper.set_slow(true);
    let client = Client::new(&house.loader());
    let sending = tokio::spawn(async move {
        let batch = BatchId::first("l").unwrap();
        client.send_batch(&flows(1), &batch).await
    });
    let keeper = Arc::clone(&house.keeper);
    eventually(|| keeper.waiting() == 1).await;
    assert!(!sending.is_finished());
    house.keeper.set_slow(false);
    assert_eq!(sending.await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn the_collector_is_taken_compressed_and_without_a_name() {
    let house = House::new().await;
    let client = house.client("");
    assert_eq!(client.send(&sent_by("10.0.0.1")).await, Outcome::Delivered);
    let kept = house.keeper.records();
    assert_eq!((kept.len(), &*kept[0].stream), (1, "clawker-claude"));
    assert_eq!(said(&kept[0], "record_id").as_ref(), Some(&kept[0].id));
    let counts = house.intake.counters().counts();
    assert_eq!(
        (counts.accepted, counts.tally.nobody + counts.tally.beyond),
        (1, 1)
    );
}

#[tokio::test]
async fn what_was_altered_is_said_without_rejecting_it() {
    let house = House::new().await;
    let long = says("long", &"x".repeat(100_000));
    let request = payload("", vec![record(vec![says("clawker.lane", "envoy"), long])]);
    assert_eq!(house.client("").send(&request).await, Outcome::Delivered);
    assert_eq!(house.intake.counters().counts().tally.truncated, 1);
}

#[tokio::test]
async fn the_bridge_says_how_it_is() {
    let house = House::new().await;
    let answer = get(&house.socket, "/healthz").await;
    assert_eq!((answer.status, &*answer.body), (200, &b"ok\n"[..]));
    let answer = get(&house.socket, "/v1/status").await;
    let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(status["spool"], "empty");
    assert_eq!(status["intake"]["accepted"], 0);
    assert_eq!(status["intake"]["truncated"], 0);
    assert_eq!(status["leases"]["count"], 0);
    for odd in [
        "/v1/held",
        "/v1/held?boot=",
        "/v1/held?boot=x",
        "/v1/held?x=y",
    ] {
        assert_eq!(get(&house.socket, odd).await.status, 400, "{odd}");
    }
    assert_eq!(get(&house.socket, "/v1/logs").await.status, 404);
}

#[tokio::test]
async fn nobody_there_is_not_taken_for_nothing_held() {
    let house = House::new().await;
    let endpoint = house.loader();
    house.intake.close().await;
    let failed = held::ask(&endpoint, BOOT).await.unwrap_err();
    assert!(
        matches!(failed, held::HeldError::Connection { .. }),
        "{failed}"
    );
    let client = Client::new(&endpoint);
    let outcome = client
        .send_batch(&flows(1), &BatchId::first("l").unwrap())
        .await;
    let Outcome::Retry { failure, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert!(matches!(failure, Failure::Connect(_)), "{failure}");
    assert!(held::ask(&endpoint, "not-a-boot").await.is_err());
}

#[tokio::test]
async fn closing_answers_what_is_under_way() {
    let house = House::new().await;
    house.keeper.set_slow(true);
    let client = Client::new(&house.loader());
    let sending = tokio::spawn(async move {
        let batch = BatchId::first("l").unwrap();
        client.send_batch(&flows(1), &batch).await
    });
    let keeper = Arc::clone(&house.keeper);
    eventually(|| keeper.waiting() == 1).await;
    let closing = tokio::spawn(house.intake.close());
    // Nobody gets in any more, whoever is in is waited for.
    let socket = house.socket.clone();
    eventually(|| !socket.exists()).await;
    assert!(!closing.is_finished());
    keeper.set_slow(false);
    assert_eq!(sending.await.unwrap(), Outcome::Delivered);
    closing.await.unwrap();
}

#[tokio::test]
async fn what_is_held_has_what_a_sender_brought_that_has_died() {
    let house = House::new().await;
    house.keeper.set_slow(true);
    let client = Client::new(&house.loader());
    let dying = tokio::spawn(async move {
        let first = BatchId::first("l").unwrap();
        client.send_batch(&flows(3), &first).await
    });
    eventually(|| house.keeper.waiting() == 1).await;
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());
    let loader = house.loader();
    let mut asked = tokio::spawn(async move { held::ask(&loader, BOOT).await });
    // The disk takes its time, and so does the answer.
    let early = timeout(Duration::from_millis(300), &mut asked).await;
    assert!(early.is_err(), "{early:?}");
    house.keeper.set_slow(false);
    let held = asked.await.unwrap().unwrap();
    assert_eq!(held.iter().map(|h| h.flows).sum::<u64>(), 3);
}
