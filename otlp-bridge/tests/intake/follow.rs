//! Leases: new ones are used as soon as they are published, broken ones never, and the last ones for as
//! long as there are no others.

use crate::house::{House, LONG, leases, now, publish, said, sent_by, settings};
use otlp_bridge::incoming::Incoming;
use std::{
    fs,
    time::{Duration, Instant},
};
use wire::Outcome;

const IP: &str = "10.0.0.1";

async fn kept_of(house: &House) -> Incoming {
    assert_eq!(
        house.client("").send(&sent_by(IP)).await,
        Outcome::Delivered
    );
    house.keeper.records().pop().unwrap()
}

/// Long after anything in these tests.
fn tomorrow() -> lease::BootTime {
    now() + Duration::from_secs(86_400)
}

async fn with_leases(holder: &str, as_of: lease::BootTime) -> House {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    publish(&settings.leases, &leases(&[(holder, IP)], as_of));
    House::of(dir, settings).await
}

#[tokio::test]
async fn the_first_request_finds_the_leases() {
    let house = with_leases("web", tomorrow()).await;
    let kept = kept_of(&house).await;
    assert_eq!(said(&kept, "agent").as_deref(), Some("web"));
    assert_eq!(said(&kept, "identity_as_of"), None);
}

#[tokio::test]
async fn a_request_waits_for_leases_that_are_as_new_as_it() {
    // Somebody had the address, and what has happened since is on its way.
    let house = with_leases("before", now()).await;
    let path = house.dir.path().join("leases.json");
    let client = house.client("");
    let sending = tokio::spawn(async move { client.send(&sent_by(IP)).await });
    let later = tokio::task::spawn_blocking(move || {
        publish(&path, &leases(&[("after", IP)], tomorrow()));
    });
    later.await.unwrap();
    assert_eq!(sending.await.unwrap(), Outcome::Delivered);
    let kept = house.keeper.records().pop().unwrap();
    assert_eq!(said(&kept, "agent").as_deref(), Some("after"));
    assert_eq!(said(&kept, "identity_as_of"), None);
}

#[tokio::test]
async fn without_the_loader_the_last_leases_are_used_and_named() {
    let old = lease::BootTime(now().0 - 60_000_000_000);
    let house = with_leases("web", old).await;
    let began = Instant::now();
    let kept = kept_of(&house).await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "nobody is there to wait for"
    );
    assert_eq!(said(&kept, "agent").as_deref(), Some("web"));
    assert!(said(&kept, "identity_as_of").is_some());
    assert_eq!(house.intake.counters().counts().tally.stale, 1);
    fs::remove_file(house.dir.path().join("leases.json")).unwrap();
    assert_eq!(
        said(&kept_of(&house).await, "agent").as_deref(),
        Some("web")
    );
}

#[tokio::test]
async fn broken_leases_do_not_replace_good_ones() {
    let house = with_leases("web", tomorrow()).await;
    let path = house.dir.path().join("leases.json");
    let good = fs::read(&path).unwrap();
    for broken in [&b""[..], b"{", &good[..good.len() / 2], b"\xff\xff"] {
        let fresh = house.dir.path().join("fresh");
        fs::write(&fresh, broken).unwrap();
        fs::rename(&fresh, &path).unwrap();
        assert_eq!(
            said(&kept_of(&house).await, "agent").as_deref(),
            Some("web")
        );
    }
    publish(&path, &leases(&[("db", IP)], tomorrow()));
    let deadline = Instant::now() + LONG;
    while said(&kept_of(&house).await, "agent").as_deref() != Some("db") {
        assert!(Instant::now() < deadline, "the new leases were never read");
    }
}
