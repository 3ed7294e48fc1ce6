//! An engine that goes away and comes back.

use docker_tests::{engine::Engine, hear::Ear};
use ebpf_manager::docker::News;
use std::fs;

fn aways(heard: &[News]) -> Vec<&str> {
    let all = heard.iter().filter_map(|news| match news {
        News::Away(why) => Some(why.as_str()),
        _ => None,
    });
    all.collect()
}

#[test]
fn what_happened_while_the_engine_was_away_is_known_when_it_is_back() {
    let mut engine = Engine::start();
    let mut ear = Ear::new(&engine);
    let stays = engine.agent("stays", "p", &[]).id;
    let dies = engine.agent("dies", "p", &[]);
    let (dies, pid) = (dies.id.clone(), dies.pid());
    for id in [&stays, &dies] {
        ear.is(id);
    }
    for round in 0..2 {
        engine.kill();
        ear.until("the outage", |heard| aways(heard).first().map(|_| ()));
        if round == 0 {
            fs::write(
                "/sys/fs/cgroup/docker/".to_owned() + &dies + "/cgroup.kill",
                "1",
            )
            .unwrap();
            kernel_tests::eventually("its death", || {
                (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
            });
        }
        engine.revive();
        ear.until("everything", |heard| {
            heard.iter().find(|n| matches!(n, News::All(_))).map(|_| ())
        });
        let told = aways(&ear.heard);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("docker.sock"), "{told:?}");
        let all = ear.all();
        assert_eq!(all.iter().map(|c| &c.id).collect::<Vec<_>>(), [&stays]);
        let new = engine.agent(&format!("new-{round}"), "p", &[]);
        ear.is(&new.id);
        new.remove();
        ear.ended(&new.id);
    }
    // Its first life is over; the next is told as any.
    engine.docker(&["start", &dies]);
    ear.is(&dies);
}

#[test]
fn an_engine_that_comes_late_is_waited_for() {
    let mut engine = Engine::start();
    let agent = engine.agent("agent", "p", &[]).id;
    engine.kill();
    let mut ear = Ear::new(&engine);
    ear.until("the outage", |heard| aways(heard).first().map(|_| ()));
    engine.revive();
    assert_eq!(
        ear.all().iter().map(|c| &c.id).collect::<Vec<_>>(),
        [&agent]
    );
}
