use super::{
    super::{
        State,
        instance::sample::{after, only, the_slot, well},
    },
    *,
};
use crate::kernel::query::RingFill;

fn books(i: &mut Instance) -> &mut Books {
    &mut the_slot(i).books
}

#[test]
fn the_identity_is_told_with_its_parts() {
    let mut i = well();
    books(&mut i).after.recorded[0] = 6;
    let all = findings(&i);
    let text = "accounting: 12 flows = 6 recorded + 4 waiting + 2 live";
    assert!(all.iter().any(|f| f.what == text), "{all:#?}");
}

#[test]
fn a_flow_that_is_in_no_count_or_in_two_is_told() {
    let lost = after(|i| books(i).live = Ok(1));
    only(
        &lost,
        State::Problem,
        "accounting",
        &["12 opened, 10 ended, 1 live: 1 flow in neither"],
    );
    let extra = after(|i| books(i).live = Ok(4));
    only(
        &extra,
        State::Problem,
        "accounting",
        &["4 live: 2 flows too many"],
    );
    let unread = after(|i| books(i).live = Err("cannot read iter_tcp".into()));
    only(&unread, State::Problem, "accounting", &["iter_tcp"]);
}

#[test]
fn flows_that_move_while_they_are_counted_are_not_called_lost() {
    for live in 0..=7 {
        let found = after(|i| {
            let b = books(i);
            b.live = Ok(live);
            b.after.opened += 5;
            b.after.ended[0] += 2;
        });
        assert_eq!(found, [], "{live}");
    }
    let found = after(|i| {
        books(i).after.opened += 5;
        books(i).live = Ok(8);
    });
    only(
        &found,
        State::Problem,
        "accounting",
        &["8 live: 1 flow too many"],
    );
}

#[test]
fn sums_that_do_not_fit_are_told() {
    let ended = after(|i| books(i).after.opened = 9);
    only(
        &ended,
        State::Problem,
        "accounting",
        &["10 ended, but only 9 were opened"],
    );
    let reasons = after(|i| {
        books(i).before.denied[1] = 9;
        books(i).after.denied[1] = 9;
    });
    only(&reasons, State::Problem, "accounting", &["reasons add up"]);
    let folded = after(|i| books(i).before.folded[0] = 8);
    only(
        &folded,
        State::Problem,
        "accounting",
        &["folded than ended"],
    );
    let waiting = after(|i| {
        i.rings[0].1 = Ok(RingFill {
            records: 11,
            capacity: 100,
        });
    });
    only(
        &waiting,
        State::Problem,
        "accounting",
        &["11 flows in rings", "only 10 ended"],
    );
}

#[test]
fn what_is_over_80_percent_full_is_noted_and_what_is_full_a_problem() {
    type Fill = fn(&mut Instance, u64);
    let soft = ["folded rows", "RING_ALLOWED"];
    let tables: [(&str, Fill); 5] = [
        ("learned names", |i, n| books(i).after.names_used = n),
        ("learned addresses", |i, n| books(i).after.addrs_used = n),
        ("folded rows", |i, n| {
            books(i).after.folds_used = [0, n / 10];
        }),
        ("POLICY_ADDRS", |i, n| {
            let used = (u64::from(abi::MAX_POLICY_ENTRIES) * n).div_ceil(100);
            i.policy = Ok(vec![(maps::POLICY_ADDRS, used)]);
        }),
        ("RING_ALLOWED", |i, n| {
            books(i).before.opened += n;
            books(i).after.opened += n;
            books(i).before.ended[0] += n;
            books(i).after.ended[0] += n;
            i.rings[0].1 = Ok(RingFill {
                records: n,
                capacity: 100,
            });
        }),
    ];
    for (name, set) in tables {
        assert_eq!(after(|i| set(i, 70)), [], "{name}");
        only(
            &after(|i| set(i, 80)),
            State::Note,
            "fill",
            &[name, "(80 %)"],
        );
        let worst = if soft.contains(&name) {
            State::Note
        } else {
            State::Problem
        };
        only(&after(|i| set(i, 100)), worst, "fill", &[name, "(100 %)"]);
    }
}

#[test]
fn room_for_slots_counts_where_there_is_more_than_one() {
    assert_eq!(after(|i| i.room = 1), []);
    let slots = |n: usize| {
        after(move |i| {
            let one = the_slot(i).clone();
            i.slots = Ok(vec![one; n]);
            i.room = 5;
        })
    };
    assert_eq!(slots(3), []);
    only(&slots(4), State::Note, "fill", &["SLOT_INFO", "4 of 5"]);
}

#[test]
fn every_counter_of_trouble_is_noted_with_its_number() {
    for (n, t) in TROUBLE.iter().enumerate() {
        let found = after(|i| books(i).after.trouble[n] = 1234);
        only(&found, State::Note, "trouble", &["1 234", t.name]);
        assert!(!found[0].mend.is_empty());
    }
}

#[test]
fn refusals_without_a_slot_are_noted() {
    only(
        &after(|i| i.unenrolled = 3),
        State::Note,
        "unenrolled",
        &["3 attempts"],
    );
}
