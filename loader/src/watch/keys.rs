//! What keys do.

use super::{
    edit::{Edit, Stroke},
    model::{Details, Model, Page, Pane},
};
use crate::{cli::Sort, filter::Filter};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What becomes of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    GoOn,
    /// It ends.
    Quit,
}

/// Keys and what they do, for the help page.
pub const HELP: [(&str, &str); 13] = [
    ("q  ^C", "quit; everything goes on running"),
    (
        "/",
        "write a filter; enter applies it, esc leaves it as it was",
    ),
    ("x", "show all flows again"),
    (
        "b  t  d",
        "what moved most first, the latest first, by destination",
    ),
    ("s", "the next of these orders"),
    ("space", "halt the screen, and go on"),
    ("tab", "the other table: live or ended flows"),
    ("↑ ↓  k j", "choose a flow"),
    ("pgup pgdn", "a screen up or down"),
    ("home end  g G", "the first or the last flow"),
    ("enter", "everything about the chosen flow"),
    ("esc", "back"),
    ("?", "this page"),
];

/// Handles a key.
pub fn key(model: &mut Model, event: KeyEvent) -> Then {
    if event.kind == KeyEventKind::Release {
        return Then::GoOn;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    if control && event.code == KeyCode::Char('c') {
        return Then::Quit;
    }
    if let Some(edit) = model.edit.take() {
        model.edit = write(model, edit, event.code, control);
        return Then::GoOn;
    }
    model.notice.clear();
    if event.code == KeyCode::Char('q') {
        return Then::Quit;
    }
    match &mut model.page {
        Page::Tables => tables(model, event.code),
        Page::Details(Details { scroll, .. }) | Page::Help(scroll) => match event.code {
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('?') => model.page = Page::Tables,
            code => *scroll = moved(code, *scroll, 10).unwrap_or(*scroll),
        },
    }
    Then::GoOn
}

/// Where a key leads from a place in a list; nothing for other keys.
fn moved(code: KeyCode, at: usize, screen: usize) -> Option<usize> {
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => at.saturating_add(1),
        KeyCode::PageUp => at.saturating_sub(screen),
        KeyCode::PageDown => at.saturating_add(screen),
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => usize::MAX,
        _ => return None,
    })
}

fn tables(model: &mut Model, code: KeyCode) {
    match code {
        KeyCode::Char('/') => model.edit = Some(Edit::new(model.filter.text())),
        KeyCode::Char('x') => model.set_filter(Filter::default()),
        KeyCode::Char('b') => model.set_sort(Sort::Bytes),
        KeyCode::Char('t') => model.set_sort(Sort::Time),
        KeyCode::Char('d') => model.set_sort(Sort::Dst),
        KeyCode::Char('s') => model.set_sort(match model.sort {
            Sort::Time => Sort::Bytes,
            Sort::Bytes => Sort::Dst,
            Sort::Dst => Sort::Time,
        }),
        KeyCode::Char(' ') => model.pause(),
        KeyCode::Tab | KeyCode::BackTab => {
            model.focus = match model.focus {
                Pane::Live => Pane::Ended,
                Pane::Ended => Pane::Live,
            };
        }
        KeyCode::Char('?') => model.page = Page::Help(0),
        KeyCode::Enter => {
            if let Some(row) = model.chosen() {
                let lives = model.focus == Pane::Live;
                let scroll = 0;
                model.page = Page::Details(Details { row, lives, scroll });
            }
        }
        KeyCode::Esc => model.go(0),
        code => {
            let height = model.cursors[model.focus as usize].height.max(1);
            if let Some(rank) = moved(code, model.rank(model.focus), height) {
                model.go(rank);
            }
        }
    }
}

/// One key of a filter that is being written; nothing when it is done.
fn write(model: &mut Model, mut edit: Edit, code: KeyCode, control: bool) -> Option<Edit> {
    let stroke = match (code, control) {
        (KeyCode::Esc, _) => return None,
        (KeyCode::Enter, _) => {
            // A mistake is shown below the line as long as it is there.
            let filter = Filter::parse(&edit.text()).ok();
            return match filter {
                Some(filter) => {
                    model.set_filter(filter);
                    None
                }
                None => Some(edit),
            };
        }
        (KeyCode::Backspace, _) | (KeyCode::Char('h'), true) => Stroke::Backspace,
        (KeyCode::Delete, _) => Stroke::Delete,
        (KeyCode::Char('w'), true) => Stroke::Word,
        (KeyCode::Char('u'), true) => Stroke::Clear,
        (KeyCode::Left, _) => Stroke::Left,
        (KeyCode::Right, _) => Stroke::Right,
        (KeyCode::Home, _) | (KeyCode::Char('a'), true) => Stroke::Home,
        (KeyCode::End, _) | (KeyCode::Char('e'), true) => Stroke::End,
        (KeyCode::Char(c), false) => Stroke::Insert(c),
        _ => return Some(edit),
    };
    edit.stroke(stroke);
    Some(edit)
}
