use super::{super::State, *};
use crate::kernel::probe::FEATURES;

fn well() -> Machine {
    Machine {
        release: "6.18.1".into(),
        root: true,
        lacking: vec![],
        features: FEATURES.iter().map(|f| (*f, Ok(true))).collect(),
        trial: Some(Ok(())),
        compiled: Some(true),
        types: Ok(()),
        cgroups: Ok(Cgroups {
            path: "/sys/fs/cgroup/unified".into(),
            hybrid: true,
            read_only: false,
            borders: true,
        }),
        pins: PinPlace {
            path: "/sys/fs/bpf".into(),
            bpffs: true,
            read_only: false,
            mountable: true,
        },
    }
}

/// The one finding of a machine that is not as it should be.
#[track_caller]
fn only(m: &Machine) -> Finding {
    let mut bad = findings(m);
    bad.retain(|f| f.state != State::Ok);
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert!(!bad[0].cost.is_empty());
    bad.remove(0)
}

#[test]
fn a_machine_that_is_well_has_only_good_findings() {
    let all = findings(&well());
    assert!(all.iter().all(|f| f.state == State::Ok), "{all:#?}");
    assert!(all.iter().any(|f| f.what.contains("unified (hybrid)")));
}

#[test]
fn each_missing_feature_is_a_problem_of_its_own_but_tcx_is_a_note() {
    for lost in FEATURES {
        let mut m = well();
        m.features = FEATURES.iter().map(|f| (*f, Ok(*f != lost))).collect();
        let finding = only(&m);
        let state = if lost == Feature::Tcx {
            State::Note
        } else {
            State::Problem
        };
        assert_eq!(
            (finding.check, finding.state),
            ("feature", state),
            "{lost:?}"
        );
        assert!(finding.what.contains(meaning(lost).0));
    }
}

#[test]
fn what_could_not_be_asked_is_said_and_is_no_problem() {
    let mut m = well();
    m.features[0].1 = Err("Operation not permitted".into());
    let finding = only(&m);
    assert_eq!(finding.state, State::Note);
    assert!(
        finding.what.contains("bpf_loop could not be checked"),
        "{finding:?}"
    );
    let m = Machine {
        root: false,
        lacking: vec!["CAP_SYS_ADMIN".into()],
        features: vec![],
        trial: None,
        ..well()
    };
    let states: Vec<State> = findings(&m).iter().map(|f| f.state).collect();
    assert!(!states.contains(&State::Problem));
    assert_eq!(states.iter().filter(|s| **s == State::Note).count(), 2);
}

#[test]
fn every_break_is_named_with_its_mend() {
    let broken: [(Machine, &str, &str, &str); 8] = [
        (
            Machine {
                release: "5.16.2".into(),
                ..well()
            },
            "kernel",
            "5.16.2",
            "boot Linux 5.17",
        ),
        (
            Machine {
                trial: Some(Err("refused connect4: x:\n1: r0 = 1".into())),
                ..well()
            },
            "programs",
            "refused connect4: x",
            "run -- true",
        ),
        (
            Machine {
                compiled: Some(false),
                ..well()
            },
            "compiler",
            "interpreted",
            "bpf_jit_enable=1",
        ),
        (
            Machine {
                types: Err("cannot read".into()),
                ..well()
            },
            "btf",
            "cannot read",
            "CONFIG_DEBUG_INFO_BTF",
        ),
        (
            Machine {
                lacking: vec!["CAP_SYS_ADMIN".into()],
                ..well()
            },
            "capabilities",
            "CAP_SYS_ADMIN",
            "root of the machine",
        ),
        (
            Machine {
                cgroups: Err("no cgroup v2 file system is mounted".into()),
                ..well()
            },
            "cgroup",
            "no cgroup v2",
            "mount -t cgroup2",
        ),
        (
            Machine {
                cgroups: Ok(Cgroups {
                    path: "/c".into(),
                    hybrid: false,
                    read_only: true,
                    borders: true,
                }),
                ..well()
            },
            "cgroup",
            "/c is read-only",
            "remount,rw /c",
        ),
        (
            Machine {
                pins: PinPlace {
                    read_only: true,
                    ..well().pins
                },
                ..well()
            },
            "bpffs",
            "/sys/fs/bpf is read-only",
            "remount,rw /sys/fs/bpf",
        ),
    ];
    for (m, check, what, mend) in broken {
        let f = only(&m);
        assert_eq!((f.check, f.state), (check, State::Problem));
        assert!(f.what.contains(what), "{f:?}");
        assert!(f.mend.contains(mend), "{f:?}");
        assert_eq!(f.what.lines().count(), 1);
    }
}

#[test]
fn a_place_for_pins_that_run_would_make_is_only_a_note() {
    let mut m = well();
    m.pins.bpffs = false;
    assert_eq!(only(&m).state, State::Note);
    m.pins.mountable = false;
    assert_eq!(only(&m).state, State::Problem);
}
