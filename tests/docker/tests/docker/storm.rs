//! Two hundred containers at once.

use docker_tests::{
    api,
    engine::Engine,
    hear::{Chronicle, Ear},
};
use ebpf_manager::docker::News;
use serde_json::json;
use std::{collections::HashMap, path::Path, thread};

const CONTAINERS: usize = 200;
/// At a time.
const HANDS: usize = 4;

/// Asks the engine the same of many containers, several at a time.
fn all(socket: &Path, ids: &[String], ask: impl Fn(&Path, &str) + Sync) {
    thread::scope(|scope| {
        for part in ids.chunks(ids.len().div_ceil(HANDS)) {
            let ask = &ask;
            scope.spawn(move || part.iter().for_each(|id| ask(socket, id)));
        }
    });
}

fn post(socket: &Path, path: &str) {
    let answer = api::ask(socket, "POST", path, None).unwrap();
    assert!(answer.status < 400, "{path}: {answer:?}");
}

fn start(socket: &Path, id: &str) {
    post(socket, &format!("/containers/{id}/start"));
}

fn kill(socket: &Path, id: &str) {
    post(socket, &format!("/containers/{id}/kill"));
}

/// What was told of each: its starts, and its ends with the beginning of the life that ended (nothing for
/// one that was only born).
type Lives = HashMap<String, Vec<(Option<i64>, i64)>>;

/// Lives in the order told. Panics where one begins before the last has ended, or ends without having begun.
fn lives(heard: &[News]) -> Lives {
    let mut alive: HashMap<&str, Option<i64>> = HashMap::new();
    let mut lives = Lives::new();
    for news in heard {
        match news {
            News::Born(born) => {
                assert!(
                    alive.insert(&born.id, None).is_none(),
                    "born alive: {born:?}"
                );
            }
            News::Is(is) => {
                let before = alive.insert(&is.id, Some(is.started)).flatten();
                assert!(before.is_none_or(|s| s == is.started), "{is:?} {before:?}");
            }
            News::Ended { id, at } => {
                let life = alive.remove(id.as_str()).expect("an end has a beginning");
                lives.entry(id.clone()).or_default().push((life, *at));
            }
            News::All(_) | News::Until(_) => {}
            News::Unclear { .. } | News::Away(_) => panic!("{news:?}"),
        }
    }
    assert!(alive.is_empty(), "{alive:?}");
    lives
}

#[test]
fn every_start_and_every_end_of_a_storm_is_told_once() {
    let engine = Engine::start();
    let chronicle = Chronicle::begin(&engine);
    let mut ear = Ear::new(&engine);
    let socket = engine.socket();
    let ids: Vec<String> = (0..CONTAINERS)
        .map(|n| {
            let labels = json!({"dev.clawker.agent": format!("agent-{n}")});
            // Without a network each: the storm is of cgroups and events.
            let host = json!({"NetworkMode": "none"});
            let body = json!({"Image": "agent", "Labels": labels, "HostConfig": host});
            let made = engine.api("POST", "/containers/create", Some(&body));
            made["Id"].as_str().expect("an id").to_owned()
        })
        .collect();
    let ended = |heard: &[News], n| {
        let ends = heard
            .iter()
            .filter(|n| matches!(n, News::Ended { .. }))
            .count();
        (ends == n).then_some(())
    };
    // All of them live at a time, then all of them die.
    all(&socket, &ids, start);
    ear.until("every start", |heard| {
        let starts = heard.iter().filter(|n| matches!(n, News::Is(_))).count();
        (starts == CONTAINERS).then_some(())
    });
    all(&socket, &ids, kill);
    ear.until("every end", |heard| ended(heard, CONTAINERS));
    // A second life that ends as it begins: some are over before anybody can look.
    let short = &ids[..CONTAINERS / 4];
    all(&socket, short, |socket, id| {
        start(socket, id);
        kill(socket, id);
    });
    let total = CONTAINERS + short.len();
    ear.until("every end of the second round", |heard| ended(heard, total));

    let lives = lives(&ear.heard);
    for (n, id) in ids.iter().enumerate() {
        let deaths = chronicle.times("die", id);
        assert_eq!(deaths.len(), if n < short.len() { 2 } else { 1 });
        let told = &lives[id];
        let ends: Vec<_> = told.iter().map(|life| life.1).collect();
        assert_eq!(ends, deaths, "the engine's own time of each end");
        assert!(told[0].0.is_some_and(|started| started < deaths[0]));
    }
}
