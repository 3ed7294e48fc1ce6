//! What is told of events and looks in the orders in which they happen; all the others are in `orders`.

mod orders;

use super::*;
use crate::docker::look::Still;

const A: &str = "a";

fn container(id: &str, started: i64) -> Container {
    Container {
        id: id.to_owned(),
        name: "n".to_owned(),
        is_agent: true,
        agent: Some("x".to_owned()),
        project: None,
        pid: 7,
        cgroup: "/cg".into(),
        netns: Some(1),
        addresses: vec![],
        networks: vec![],
        weaknesses: vec![],
        started,
    }
}

/// A running container whose cgroup has the time of its start for an id.
fn running(started: i64) -> Seen {
    let cgroup_id = started.unsigned_abs();
    Seen::Running(Box::new(Running {
        container: container(A, started),
        cgroup_id,
        parent: String::new(),
    }))
}

fn still(finished: Option<i64>) -> Seen {
    Seen::Still(Box::new(Still {
        name: "n".to_owned(),
        labels: agent(),
        parent: String::new(),
        finished,
        failed: false,
    }))
}

fn agent() -> Labels {
    Labels {
        is_agent: true,
        agent: Some("x".to_owned()),
        ..Labels::default()
    }
}

fn birth(cgroup_id: u64) -> Birth {
    Birth {
        id: A.to_owned(),
        path: "/cg".into(),
        cgroup_id,
    }
}

/// What was told, short: `[STARTS]` all, `*` born, `+START`, `-END`, `?` unclear.
fn told(steps: Vec<Step>) -> String {
    let tell = |step| match step {
        Step::Tell(news) => Some(word(&news)),
        Step::Look(_) | Step::LookAtNetwork { .. } | Step::Watch(_) => None,
    };
    steps
        .into_iter()
        .filter_map(tell)
        .collect::<Vec<_>>()
        .join(" ")
}

fn word(news: &News) -> String {
    match news {
        News::All(all) => format!("{:?}", all.iter().map(|c| c.started).collect::<Vec<_>>()),
        News::Born(born) if born.ends.is_empty() => format!("*{}", born.cgroup_id),
        News::Born(born) => format!("*{}{:?}", born.cgroup_id, born.ends),
        News::Is(c) => format!("+{}", c.started),
        News::Ended { at, .. } => format!("-{at}"),
        News::Unclear { .. } => "?".to_owned(),
        News::Away(_) => "away".to_owned(),
        News::Until(at) => format!("..{at}"),
    }
}

#[test]
fn a_life_is_told_once_from_birth_to_end() {
    let mut book = Book::default();
    assert_eq!(told(book.meet(A, "n".to_owned(), agent())), "");
    assert_eq!(told(book.looked(A, still(None), 99)), "");
    assert_eq!(told(book.appeared(birth(10))), "*10");
    assert_eq!(book.want(A), [Step::Look(A.to_owned())]);
    assert_eq!(told(book.looked(A, running(10), 99)), "+10");
    assert_eq!(told(book.appeared(birth(10))), "");
    assert_eq!(told(book.died(A, 20)), "-20");
    assert_eq!(told(book.died(A, 20)), "");
    assert!(book.vanished(&birth(10)).is_empty());
}

#[test]
fn one_that_is_being_started_has_the_addresses_of_this_start() {
    let ends = |text: &str| vec![text.parse::<IpNet>().unwrap()];
    let look = |attempt| Step::LookAtNetwork {
        id: A.to_owned(),
        network: "n".to_owned(),
        attempt,
    };
    let mut book = Book::default();
    book.meet(A, "n".to_owned(), agent());
    book.looked(A, still(None), 1);
    assert_eq!(book.connected(A, "n".to_owned()), [look(1)]);
    assert_eq!(told(book.attached(A, 1, ends("10.0.0.2/24"))), "");
    assert_eq!(told(book.appeared(birth(10))), "*10[10.0.0.2/24]");
    assert_eq!(book.connected(A, "n".to_owned()), [look(1)]);
    let both = "*10[10.0.0.2/24, 10.0.1.2/24]";
    assert_eq!(told(book.attached(A, 1, ends("10.0.1.2/24"))), both);
    assert_eq!(told(book.attached(A, 1, ends("10.0.1.2/24"))), "");
    assert_eq!(told(book.died(A, 20)), "-20");
    // What was seen of the start before comes late.
    assert_eq!(book.connected(A, "n".to_owned()), [look(2)]);
    assert_eq!(told(book.attached(A, 1, ends("10.0.0.2/24"))), "");
    assert_eq!(told(book.appeared(birth(30))), "*30");
    book.want(A);
    assert_eq!(told(book.looked(A, running(30), 99)), "+30");
    assert_eq!(told(book.attached(A, 2, ends("10.0.0.9/24"))), "");
    assert_eq!(book.disconnected(A), [Step::Look(A.to_owned())]);
}

/// After a resync, too: it lists who runs, and says nothing more of how they were made.
#[test]
fn who_ran_when_all_was_looked_at_is_heard_of_at_the_birth_of_the_next_life() {
    let unclear = || Seen::Unclear {
        name: None,
        why: String::new(),
    };
    let mut book = Book::default();
    for seen in [running(10), unclear()] {
        assert_eq!(told(book.begin(vec![(A.to_owned(), seen)])), "[10]");
    }
    assert_eq!(told(book.died(A, 20)), "-20");
    assert!(!book.connected(A, "n".to_owned()).is_empty());
    assert_eq!(told(book.appeared(birth(30))), "*30");
    let Seen::Running(mut below) = running(30) else {
        unreachable!("that is what it makes")
    };
    below.parent = "x.slice".to_owned();
    let steps = book.begin(vec![(A.to_owned(), Seen::Running(below))]);
    assert!(
        steps.contains(&Step::Watch("x.slice".to_owned())),
        "{steps:?}"
    );
}

#[test]
fn what_is_told_is_not_complete_while_a_look_could_change_an_address() {
    let mut book = Book::default();
    assert_eq!(told(book.read_until(1)), "..1");
    book.want(A);
    assert_eq!(told(book.read_until(2)), "..1", "a start");
    book.looked(A, running(10), 99);
    assert_eq!(told(book.read_until(3)), "..3", "all is quiet");
    book.disconnected(A);
    assert_eq!(told(book.read_until(4)), "..3");
    assert_eq!(told(book.read_until(5)), "..3");
    // Another one asks for a look behind it, and waits for that one alone.
    book.disconnected(A);
    assert_eq!(told(book.read_until(6)), "..3");
    book.looked(A, running(10), 99);
    assert_eq!(told(book.read_until(7)), "..5");
    book.looked(A, running(10), 99);
    assert_eq!(told(book.read_until(8)), "..8");
    // An end that is doubted.
    book.died(A, 5);
    assert_eq!(told(book.read_until(9)), "..8");
    book.looked(A, running(10), 99);
    // A new name is none of an address.
    book.meet(A, "new".to_owned(), agent());
    assert_eq!(told(book.read_until(10)), "..10");
    // Everything was looked at anew, and no look of before is waited for.
    book.disconnected(A);
    book.begin(vec![(A.to_owned(), running(10))]);
    assert_eq!(told(book.read_until(11)), "..11");
}

#[test]
fn what_is_told_is_not_complete_while_addresses_of_a_start_are_asked_for() {
    let mut book = Book::default();
    book.meet(A, "n".to_owned(), agent());
    book.looked(A, still(None), 1);
    book.read_until(1);
    book.connected(A, "n".to_owned());
    book.read_until(2);
    book.connected(A, "m".to_owned());
    assert_eq!(told(book.read_until(3)), "..1");
    book.attached(A, 1, Vec::new());
    assert_eq!(told(book.read_until(4)), "..2");
    book.died(A, 5);
    book.attached(A, 1, Vec::new());
    assert_eq!(
        told(book.read_until(5)),
        "..5",
        "whatever came of the start"
    );
}

#[test]
fn a_start_that_fails_leaves_no_addresses_behind() {
    let mut book = Book::default();
    book.meet(A, "n".to_owned(), agent());
    book.connected(A, "n".to_owned());
    book.disconnected(A);
    let ends = vec!["10.0.0.2/24".parse().unwrap()];
    assert_eq!(told(book.attached(A, 1, ends)), "");
    assert_eq!(told(book.appeared(birth(10))), "*10");
    // Nobody asks for those who are no agents.
    book.meet("b", "n".to_owned(), Labels::default());
    book.looked("b", still(None), 1);
    assert_eq!(book.connected("b", "n".to_owned()), []);
}

#[test]
fn a_start_that_fails_ends_when_the_engine_says_so() {
    let mut book = Book::default();
    book.meet(A, "n".to_owned(), agent());
    book.looked(A, still(None), 1);
    assert_eq!(told(book.appeared(birth(10))), "*10");
    assert!(book.vanished(&birth(9)).is_empty(), "another one's");
    assert_eq!(book.vanished(&birth(10)), [Step::Look(A.to_owned())]);
    let Seen::Still(mut failed) = still(None) else {
        unreachable!("that is what it makes");
    };
    failed.failed = true;
    assert_eq!(told(book.looked(A, Seen::Still(failed), 12)), "-12");
}

#[test]
fn a_life_too_short_to_be_seen_ends_with_its_event() {
    let mut book = Book::default();
    book.meet(A, "n".to_owned(), agent());
    book.looked(A, still(None), 1);
    assert_eq!(told(book.appeared(birth(10))), "*10");
    book.vanished(&birth(10));
    assert_eq!(told(book.looked(A, Seen::Over, 25)), "", "it ran");
    book.want(A);
    assert_eq!(told(book.looked(A, still(Some(20)), 30)), "", "it ran");
    assert_eq!(told(book.appeared(birth(40))), "", "and runs again");
    book.want(A);
    assert_eq!(told(book.looked(A, running(40), 41)), "");
    assert_eq!(told(book.died(A, 20)), "-20 *40");
    book.want(A);
    assert_eq!(told(book.looked(A, running(40), 42)), "+40");
}

#[test]
fn the_next_life_is_born_when_the_end_of_this_one_is_told() {
    let mut book = Book::default();
    book.meet(A, "n".to_owned(), agent());
    book.looked(A, running(10), 11);
    let next = book.appeared(birth(30));
    assert!(next.is_empty(), "the event of the end is on its way");
    assert_eq!(told(book.died(A, 20)), "-20 *30");
}

#[test]
fn changes_are_told_and_repetitions_are_not() {
    let mut book = Book::default();
    book.want(A);
    assert_eq!(told(book.looked(A, running(10), 99)), "+10");
    book.changed(A);
    assert_eq!(told(book.looked(A, running(10), 99)), "");
    book.changed(A);
    let mut other = container(A, 10);
    other.name = "new".to_owned();
    let seen = Seen::Running(Box::new(Running {
        container: other,
        cgroup_id: 10,
        parent: String::new(),
    }));
    assert_eq!(told(book.looked(A, seen, 99)), "+10");
    assert!(book.changed("stranger").is_empty());
}

#[test]
fn a_look_that_began_before_the_end_does_not_wake_the_dead() {
    let mut book = Book::default();
    book.want(A);
    assert_eq!(told(book.died(A, 20)), "", "too short a life to be told");
    assert_eq!(told(book.looked(A, running(10), 99)), "");
    // Nor does it hide the next life.
    book.want(A);
    book.died(A, 40);
    assert_eq!(told(book.looked(A, running(50), 99)), "+50");
}

#[test]
fn a_look_into_the_next_life_waits_for_the_end_of_this_one() {
    let mut book = Book::default();
    book.want(A);
    book.looked(A, running(10), 99);
    book.changed(A);
    assert_eq!(told(book.looked(A, running(30), 99)), "");
    assert_eq!(told(book.died(A, 20)), "-20");
    book.want(A);
    assert_eq!(told(book.looked(A, running(30), 99)), "+30");
}

#[test]
fn an_end_before_the_start_is_believed_when_nothing_runs() {
    let mut book = Book::default();
    book.want(A);
    book.looked(A, running(30), 99);
    assert_eq!(told(book.died(A, 20)), "");
    assert_eq!(
        told(book.looked(A, running(30), 99)),
        "",
        "it was of the life before"
    );
    assert_eq!(told(book.died(A, 25)), "");
    assert_eq!(
        told(book.looked(A, still(Some(25)), 99)),
        "-30",
        "the clock was set back"
    );
}

#[test]
fn what_cannot_be_seen_is_said_once_and_does_not_undo_what_is_known() {
    let unclear = || Seen::Unclear {
        name: None,
        why: "why".to_owned(),
    };
    let mut book = Book::default();
    book.want(A);
    assert_eq!(told(book.looked(A, unclear(), 99)), "?");
    book.want(A);
    assert_eq!(told(book.looked(A, unclear(), 99)), "");
    book.want(A);
    assert_eq!(told(book.looked(A, running(10), 99)), "+10");
    book.changed(A);
    assert_eq!(told(book.looked(A, unclear(), 99)), "");
    assert_eq!(told(book.begin(vec![(A.to_owned(), unclear())])), "[10]");
    assert_eq!(told(book.begin(vec![])), "[]");
    assert_eq!(told(book.begin(vec![(A.to_owned(), unclear())])), "[] ?");
}

#[test]
fn only_agents_with_a_parent_of_their_own_have_it_watched() {
    let mut book = Book::default();
    let mut look = |labels: Labels, parent: &str| {
        book.want(A);
        let (name, parent) = (String::new(), parent.to_owned());
        book.looked(
            A,
            Seen::Still(Box::new(Still {
                name,
                labels,
                parent,
                finished: None,
                failed: false,
            })),
            99,
        )
    };
    assert_eq!(
        look(agent(), "x.slice"),
        [Step::Watch("x.slice".to_owned())]
    );
    assert_eq!(look(agent(), ""), []);
    assert_eq!(look(Labels::default(), "x.slice"), []);
}
