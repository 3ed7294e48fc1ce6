//! One policy in the place of another: whole, whoever else writes and whoever died while writing.

use ebpf_manager::{
    enrol,
    kernel::{KernelError, Pins},
};
use kernel_tests::{
    engine::{compile, exchange},
    follow::{KNOCK, ONE, TWO},
    run::Bench,
    talk::Talk,
};
use std::thread;

fn start(bench: &Bench) -> (Talk, Pins) {
    let mut talk = bench.talk(ONE, &[], KNOCK);
    assert_eq!(talk.hear(), "one -");
    let pins = bench.pins_of(&talk.instance());
    (talk, pins)
}

fn replace(pins: &Pins, text: &str) {
    exchange(pins, text).cleaned.unwrap();
}

#[test]
fn changes_at_once_do_not_mix() {
    let bench = Bench::new();
    let (mut talk, pins) = start(&bench);
    for _ in 0..5 {
        thread::scope(|scope| {
            for text in [ONE, TWO, ONE, TWO] {
                let pins = &pins;
                scope.spawn(move || replace(pins, text));
            }
        });
        let got = talk.go();
        assert!(["one -", "- two"].contains(&got.as_str()), "{got}");
    }
    let (info, config) = enrol::current(&pins, 1).unwrap().unwrap();
    assert_eq!((config.policy, config.generation), (21, 21));
    assert_eq!(enrol::text(&info.policy_file), "file");
    assert_eq!(talk.end(&bench).code, 0);
}

#[test]
fn what_a_dead_writer_left_does_not_hold() {
    let bench = Bench::new();
    let (mut talk, pins) = start(&bench);
    // It wrote its rules and did not come to switching over.
    let both = format!("{ONE}  - {{ name: two, dst: 192.0.2.2, proto: any }}\n");
    pins.policy().unwrap().write(&compile(&both, 2)).unwrap();
    assert_eq!(talk.go(), "one -");
    replace(&pins, ONE);
    assert_eq!(talk.go(), "one -");
    let rules = bench.dump(&["--policy"]);
    assert!(!rules.iter().any(|r| r["name"] == "two"), "{rules:#?}");
    assert_eq!(talk.end(&bench).code, 0);
}

#[test]
fn a_policy_that_fails_to_compile_leaves_the_old_one() {
    let bench = Bench::new();
    let (mut talk, pins) = start(&bench);
    let before = enrol::current(&pins, 1).unwrap().unwrap().1;
    let failed = enrol::replace_policy(&pins, 1, "file", |_, _| Err(KernelError::NoObject));
    assert!(matches!(failed, Err(KernelError::NoObject)));
    assert_eq!(enrol::current(&pins, 1).unwrap().unwrap().1, before);
    let none = enrol::replace_policy::<KernelError>(&pins, 0, "file", |_, _| unreachable!());
    assert!(none.unwrap().is_none(), "nobody is in row 0");
    assert_eq!(talk.go(), "one -");
    assert_eq!(talk.end(&bench).code, 0);
}
