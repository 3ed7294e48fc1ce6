//! The screen, compared whole with the files in `golden`. After a wanted change run with
//! `UPDATE_GOLDEN=1` and read the difference.

use super::*;
use crate::{
    control::Status,
    record::Record,
    render::line::tests::record,
    watch::{
        links::{Left, News},
        model::tests::{end, live, press, status, to},
    },
    whom::Whom,
};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, style::Modifier};
use std::path::Path;

fn look(color: bool) -> Look {
    Look {
        color,
        zone: TimeZone::UTC,
        now: "2026-01-31T08:00:00Z".parse().unwrap(),
    }
}

fn drawn(model: &mut Model, width: u16, height: u16, color: bool) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|f| draw(model, f, &look(color))).unwrap();
    terminal.backend().clone()
}

fn text(backend: &TestBackend) -> String {
    let buf = backend.buffer();
    let mut out = String::new();
    for y in 0..buf.area.height {
        let line: String = (0..buf.area.width).map(|x| buf[(x, y)].symbol()).collect();
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[track_caller]
fn compare(name: &str, model: &mut Model, width: u16, height: u16) {
    let shown = text(&drawn(model, width, height, true));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/watch/view/golden");
    let file = file.join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(&file).unwrap(), "{name}");
}

/// Two instances, some flows.
fn model() -> Model {
    let mut m = Model::default();
    m.hear("run-4711", News::Joined(status("run-4711")));
    let nameless = Status {
        agent: None,
        project: None,
        ..status("run-4712")
    };
    m.hear("run-4712", News::Joined(nameless));
    let denied = Record {
        verdict: "DENIED",
        dst_host: None,
        dst_ip: Some("2001:db8:1:2:3:4:5:6".parse().unwrap()),
        bytes_in: 0,
        bytes_out: 0,
        reason: "default",
        rule: None,
        close_reason: Some("denied"),
        comm: Some("\u{1b}[31mévil".to_owned()),
        ..to(22)
    };
    let folded = Record {
        count: Some(12_345),
        comm: None,
        pid: None,
        ..denied.clone()
    };
    let bypassed = Record {
        verdict: "BYPASSED",
        reason: "bypass",
        l4_proto: "udp".to_owned(),
        rule: None,
        ..to(123)
    };
    for r in [&record(), &denied, &bypassed, &folded] {
        end(&mut m, "run-4711", r);
    }
    let growing = Record {
        close_reason: None,
        bytes_out: 5_300_000_000,
        duration_ms: 75_000,
        dst_host: Some("a-rather-long-name-of-a-host.subdomain.example.com".to_owned()),
        ..to(8443)
    };
    live(
        &mut m,
        "run-4712",
        vec![
            Record {
                close_reason: None,
                ..to(80)
            },
            growing,
        ],
        2,
    );
    m
}

#[test]
fn the_tables_at_several_sizes() {
    for (width, height) in [(160, 30), (120, 20), (80, 24), (60, 12), (40, 8), (20, 5)] {
        compare(
            &format!("tables-{width}x{height}"),
            &mut model(),
            width,
            height,
        );
    }
}

#[test]
fn one_instance_needs_no_column() {
    let mut m = model();
    m.hear("run-4712", News::Left(Left::Died));
    m.hear("run-4711", News::Lost(1234));
    // What is said stays until the next key.
    compare("loader-died", &mut m, 120, 14);
    press(&mut m, " ");
    end(&mut m, "run-4711", &record());
    compare("one-instance", &mut m, 120, 14);
    press(&mut m, "b");
    compare("by-bytes", &mut m, 120, 14);
}

#[test]
fn nothing_to_see() {
    compare("waiting", &mut Model::default(), 80, 10);
}

#[test]
fn a_filter_shows_its_mistake_where_it_is() {
    let mut m = model();
    press(&mut m, "/verdict=denied colour=red");
    compare("filter-mistake", &mut m, 80, 16);
    compare("filter-narrow", &mut m, 30, 10);
    press(&mut m, "\u{1b}/port=22\n");
    compare("filtered", &mut m, 80, 16);
}

#[test]
fn everything_about_one_flow() {
    let mut m = model();
    press(&mut m, "\n");
    compare("details", &mut m, 80, 40);
    press(&mut m, "\u{1b}\t\n");
    compare("details-live", &mut m, 80, 40);
    press(&mut m, "G");
    compare("details-small", &mut m, 40, 10);
}

/// A bypass until so many minutes after eight, when it is drawn.
fn lifted(agent: &str, minutes: i64) -> Lifted {
    let look = look(false);
    Lifted {
        agent: Some(agent.to_owned()),
        project: Some("acme".to_owned()),
        container_name: None,
        by: "alice, uid 1000".to_owned(),
        reason: "debug \u{1b}npm".to_owned(),
        until: look.now + jiff::SignedDuration::from_mins(minutes),
    }
}

#[test]
fn who_is_bypassed_stands_at_the_head_and_with_the_flow() {
    let mut m = model();
    let flow = Record {
        agent: Some("reviewer".to_owned()),
        project: Some("acme".to_owned()),
        ..to(443)
    };
    end(&mut m, "run-4711", &flow);
    let all = [("reviewer", 5), ("a", 3), ("b", 4), ("c", 90), ("over", -1)];
    let all = all.map(|(agent, minutes)| lifted(agent, minutes));
    m.hear("run-4711", News::Bypasses(all.to_vec()));
    compare("bypassed", &mut m, 140, 12);
    press(&mut m, "\n");
    compare("details-bypassed", &mut m, 80, 12);
    m.hear("run-4711", News::Bypasses(Vec::new()));
    let shown = text(&drawn(&mut m, 140, 12, false));
    assert!(
        !shown.contains("BYPASSED:") && !shown.contains("bypass now"),
        "{shown}"
    );
}

#[test]
fn only_the_chosen_agent_is_shown() {
    let whom = Whom {
        agent: Some("reviewer".to_owned()),
        project: None,
    };
    let mut m = Model::default().of(whom);
    m.hear("run-4711", News::Joined(status("run-4711")));
    let of = |agent: &str, port| Record {
        agent: Some(agent.to_owned()),
        close_reason: None,
        ..to(port)
    };
    for (agent, port) in [("reviewer", 1), ("Reviewer", 2), ("builder", 3)] {
        end(&mut m, "run-4711", &of(agent, port));
    }
    live(
        &mut m,
        "run-4711",
        vec![of("builder", 4), of("reviewer", 5)],
        7,
    );
    m.hear("run-4711", News::Bypasses(vec![lifted("builder", 5)]));
    compare("one-agent", &mut m, 100, 10);
}

#[test]
fn the_help_page() {
    let mut m = model();
    press(&mut m, "?");
    compare("help", &mut m, 90, 68);
}

#[test]
fn colours_are_nothing_but_colours() {
    let mut m = model();
    let (plain, colored) = (drawn(&mut m, 100, 20, false), drawn(&mut m, 100, 20, true));
    assert_eq!(text(&plain), text(&colored));
    let colors = |b: &TestBackend| {
        b.buffer()
            .content
            .iter()
            .filter(|c| c.fg != Color::Reset)
            .count()
    };
    assert_eq!(colors(&plain), 0);
    assert!(colors(&colored) > 0);
}

#[test]
fn the_chosen_row_is_marked() {
    let mut m = model();
    press(&mut m, "↓");
    let shown = drawn(&mut m, 80, 20, false);
    let buf = shown.buffer();
    let marked: Vec<_> = (1..20)
        .filter(|y| buf[(0, *y)].modifier.contains(Modifier::REVERSED))
        .collect();
    assert_eq!(marked.len(), 1);
    let line: String = (0..80).map(|x| buf[(x, marked[0])].symbol()).collect();
    assert!(line.contains("BYPASSED"), "{line}");
}

proptest! {
    #[test]
    fn no_size_brings_it_down(width in 0u16..200, height in 0u16..60, keys in "[/=a?\\n\\t bG]{0,12}") {
        let mut m = model();
        press(&mut m, &keys);
        let shown = text(&drawn(&mut m, width, height, true));
        prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'));
    }
}
