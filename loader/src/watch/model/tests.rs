use super::*;
use crate::{
    control::Live,
    record::Record,
    render::line::tests::record,
    watch::{
        keys::{Then, key},
        table::KEPT,
    },
};
use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

pub(crate) fn status(id: &str) -> Status {
    Status {
        instance: id.to_owned(),
        agent: Some("reviewer".to_owned()),
        project: Some("acme".to_owned()),
        command: "curl".to_owned(),
        policy_file: String::new(),
        pid: 7,
        since: jiff::Timestamp::UNIX_EPOCH,
        version: "1".to_owned(),
    }
}

pub(crate) fn to(port: u16) -> Record {
    Record {
        dst_port: Some(port),
        src_port: Some(port),
        bytes_in: u64::from(port),
        ..record()
    }
}

pub(crate) fn end(model: &mut Model, id: &str, r: &Record) {
    let json = serde_json::to_string(r).unwrap();
    model.hear(id, News::Ended(&json));
}

pub(crate) fn live(model: &mut Model, id: &str, flows: Vec<Record>, total: u64) {
    model.hear(id, News::Live(Live { total, flows }));
}

pub(crate) fn press(model: &mut Model, keys: &str) -> Then {
    let mut then = Then::GoOn;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            c => KeyCode::Char(c),
        };
        then = key(model, KeyEvent::new(code, KeyModifiers::NONE));
    }
    then
}

fn ports(rows: &[Rc<Row>]) -> Vec<u16> {
    rows.iter().filter_map(|r| r.record.dst_port).collect()
}

fn shown(model: &mut Model) -> Vec<u16> {
    ports(&model.show(Pane::Ended, 100).0)
}

/// A model with an instance and flows that ended to these ports.
fn with(flows: impl IntoIterator<Item = u16>) -> Model {
    let mut model = Model::default();
    model.hear("run-1", News::Joined(status("run-1")));
    for port in flows {
        end(&mut model, "run-1", &to(port));
    }
    model
}

#[test]
fn the_latest_come_first_and_other_orders_are_a_key_away() {
    let mut m = with([20, 30, 10]);
    assert_eq!(shown(&mut m), [10, 30, 20]);
    press(&mut m, "b");
    assert_eq!(shown(&mut m), [30, 20, 10]);
    press(&mut m, "d");
    assert_eq!(shown(&mut m), [10, 20, 30]);
    press(&mut m, "s");
    assert_eq!((shown(&mut m), m.sort), (vec![10, 30, 20], Sort::Time));
}

#[test]
fn a_filter_is_written_corrected_and_applied() {
    let mut m = with([22, 80, 443]);
    press(&mut m, "/prt>79\n");
    assert!(m.edit.is_some(), "it is not accepted");
    assert_eq!(shown(&mut m), [443, 80, 22]);
    press(&mut m, "q\u{1b}");
    assert_eq!((m.edit.clone(), m.filter.text()), (None, ""));
    press(&mut m, "/port>79 ");
    assert_eq!(shown(&mut m), [443, 80, 22], "not before it is done");
    press(&mut m, "\n");
    assert_eq!(shown(&mut m), [443, 80]);
    end(&mut m, "run-1", &to(23));
    end(&mut m, "run-1", &to(81));
    assert_eq!((shown(&mut m), m.heard), (vec![81, 443, 80], 5));
    press(&mut m, "/");
    assert_eq!(m.edit.as_ref().map(Edit::text).as_deref(), Some("port>79"));
    press(&mut m, "\u{1b}x");
    assert_eq!(shown(&mut m).len(), 5);
}

#[test]
fn a_halted_screen_stands_still_and_catches_up() {
    let mut m = with([1, 2]);
    live(&mut m, "run-1", vec![to(7)], 1);
    press(&mut m, " ");
    end(&mut m, "run-1", &to(3));
    live(&mut m, "run-1", vec![], 0);
    m.hear("run-1", News::Left(Left::Over));
    assert_eq!(shown(&mut m), [2, 1]);
    assert_eq!(
        (ports(&m.live), m.live_total(), m.missed()),
        (vec![7], 1, 1)
    );
    press(&mut m, "/port=1\n");
    assert_eq!(shown(&mut m), [1]);
    press(&mut m, "x ");
    assert_eq!(
        (shown(&mut m), m.live.len(), m.missed()),
        (vec![3, 2, 1], 0, 0)
    );
    assert!(!m.is_paused());
}

#[test]
fn the_cursor_stays_on_its_flow_while_others_come() {
    let mut m = with(1..=50);
    let _ = m.show(Pane::Ended, 10);
    assert_eq!(m.chosen().map(|r| r.record.dst_port), Some(Some(50)));
    end(&mut m, "run-1", &to(51));
    assert_eq!(
        ports(&[m.chosen().unwrap()]),
        [51],
        "at the top it stays there"
    );
    press(&mut m, "↓↓");
    for port in 52..90 {
        end(&mut m, "run-1", &to(port));
        assert_eq!(ports(&[m.chosen().unwrap()]), [49]);
    }
    let (rows, at) = m.show(Pane::Ended, 10);
    assert_eq!(ports(&rows)[at], 49, "it is on the screen");
    press(&mut m, "b");
    assert_eq!(ports(&[m.chosen().unwrap()]), [49]);
    press(&mut m, "G");
    assert_eq!(ports(&[m.chosen().unwrap()]), [1]);
    let (rows, at) = m.show(Pane::Ended, 10);
    assert_eq!((rows.len(), at), (10, 9));
    press(&mut m, "g");
    assert_eq!(ports(&[m.chosen().unwrap()]), [89]);
}

#[test]
fn details_follow_a_live_flow_to_its_end() {
    let mut m = with([]);
    let flow = |bytes_in| Record {
        bytes_in,
        close_reason: None,
        ..to(443)
    };
    live(&mut m, "run-1", vec![flow(5), to(80)], 2);
    press(&mut m, "/port=443\n\t\n");
    let looked_at = |m: &Model| match &m.page {
        Page::Details(d) => (d.row.record.bytes_in, d.lives),
        _ => panic!("no details"),
    };
    assert_eq!(looked_at(&m), (5, true));
    live(&mut m, "run-1", vec![flow(9)], 1);
    assert_eq!(looked_at(&m), (9, true));
    live(&mut m, "run-2", vec![flow(77)], 1);
    end(&mut m, "run-2", &flow(78));
    assert_eq!(
        looked_at(&m),
        (9, true),
        "another instance has its own flows"
    );
    live(&mut m, "run-1", vec![], 5000);
    assert_eq!(looked_at(&m), (9, true), "not every flow was told");
    end(
        &mut m,
        "run-1",
        &Record {
            close_reason: Some("fin"),
            ..flow(12)
        },
    );
    assert_eq!(looked_at(&m), (12, false));
    press(&mut m, "\u{1b}");
    assert!(matches!(m.page, Page::Tables));
}

#[test]
fn instances_come_and_go() {
    let mut m = with([]);
    m.hear("run-2", News::Joined(status("run-2")));
    live(&mut m, "run-2", vec![to(1)], 1);
    m.hear("run-2", News::Lost(30));
    m.hear("run-2", News::Lost(u64::MAX));
    assert_eq!((m.sources.len(), m.live_total(), m.lost), (2, 1, u64::MAX));
    m.hear("run-2", News::Left(Left::Died));
    assert_eq!((m.sources.len(), m.live_total()), (1, 0));
    assert!(m.notice.contains("loader died"), "{}", m.notice);
    m.hear("run-1", News::Left(Left::Refused("no".to_owned())));
    assert!(m.sources.is_empty() && m.notice.contains("no"));
}

#[test]
fn what_cannot_be_read_is_counted_as_lost() {
    let mut m = with([]);
    m.hear("run-1", News::Ended("{}"));
    assert_eq!((m.lost, m.heard), (1, 0));
}

#[test]
fn quitting_is_a_key_but_not_while_a_filter_is_written() {
    let mut m = with([1]);
    assert_eq!(press(&mut m, "?"), Then::GoOn);
    assert_eq!(press(&mut m, "q"), Then::Quit);
    assert_eq!(press(&mut m, "\u{1b}/q"), Then::GoOn);
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(key(&mut m, control_c), Then::Quit);
}

#[test]
fn memory_is_bounded() {
    let mut m = with([]);
    for port in 0..3 * KEPT {
        end(&mut m, "run-1", &to(port as u16));
        if port == KEPT {
            press(&mut m, " ");
        }
    }
    assert_eq!(m.ended().len(), KEPT);
    press(&mut m, " ");
    assert_eq!((m.ended().len(), m.heard), (KEPT, 3 * KEPT as u64));
}

proptest! {
    #[test]
    fn no_keys_and_no_news_bring_it_down(steps in prop::collection::vec((0u8..6, any::<u16>(), any::<char>()), 0..200)) {
        let mut m = with([1, 2, 3]);
        for (what, port, c) in steps {
            match what {
                0 => end(&mut m, "run-1", &to(port)),
                1 => live(&mut m, "run-2", vec![to(port)], u64::from(port)),
                2 => m.hear("run-2", News::Left(Left::Over)),
                3 => { press(&mut m, &c.to_string()); }
                4 => {
                    let keys = ['/', '\n', '\u{1b}', '\t', ' ', 's', '↓', '↑', 'G', 'g', '?', 'x'];
                    press(&mut m, &keys[usize::from(port) % keys.len()].to_string());
                }
                _ => {
                    for pane in [Pane::Live, Pane::Ended] {
                        let height = usize::from(port % 7);
                        let (rows, at) = m.show(pane, height);
                        prop_assert!(rows.len() <= height);
                        prop_assert!(rows.is_empty() || at < rows.len());
                    }
                }
            }
        }
    }
}
