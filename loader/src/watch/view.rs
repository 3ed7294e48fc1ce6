//! The model as it looks: pure drawing into a buffer.

use super::{
    columns::{self, Column, GAP},
    details, keys,
    model::{Model, Page, Pane},
    table::Row,
};
use crate::{
    bypass::Lifted,
    control::Status,
    filter::{FIELDS, Filter},
    render::{line::printable, units},
    whom,
};
use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Position, Rect},
    style::{Color, Style},
    text::Span,
};

mod ink;

use ink::{BOLD, CHOSEN, DIM, PLAIN, below, cell_area, labelled, put, put_aligned, split_off_last};

/// How things are shown.
#[derive(Clone, Debug)]
pub struct Look {
    /// Whether colours are wanted.
    pub color: bool,
    /// Of times.
    pub zone: TimeZone,
    /// What time it is.
    pub now: Timestamp,
}

impl Look {
    fn color(&self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            PLAIN
        }
    }

    fn verdict(&self, verdict: &str) -> Style {
        self.color(match verdict {
            "ALLOWED" => Color::Green,
            "BYPASSED" => Color::Yellow,
            _ => Color::Red,
        })
    }
}

/// Draws everything.
pub fn draw(model: &mut Model, frame: &mut Frame<'_>, look: &Look) {
    let area = frame.area();
    if area.is_empty() {
        return;
    }
    let buf = frame.buffer_mut();
    title(model, area, buf, look);
    let (body, foot) = split_off_last(below(area, 1));
    match &model.page {
        Page::Tables => {
            let cursor = tables(model, body, buf, look);
            if let Some(at) = cursor {
                frame.set_cursor_position(at);
            }
        }
        Page::Details(d) => {
            let lifted = model.bypass_of(&d.row).filter(|b| b.until > look.now);
            let lifted = lifted.map(|b| details::bypass(b, look.now, &look.zone));
            let lines = details::lines(d, lifted);
            let scroll = labelled(&lines, d.scroll, body, buf);
            if let Page::Details(d) = &mut model.page {
                d.scroll = scroll;
            }
        }
        Page::Help(scroll) => {
            let scroll = labelled(&help(), *scroll, body, buf);
            model.page = Page::Help(scroll);
        }
    }
    footer(model, foot, frame.buffer_mut());
}

fn title(model: &Model, area: Rect, buf: &mut Buffer, look: &Look) {
    buf.set_style(Rect { height: 1, ..area }, CHOSEN);
    let who: Vec<String> = model
        .sources
        .iter()
        .map(|(id, s)| {
            let status = s.status.as_ref();
            let label =
                |of: fn(&Status) -> Option<&String>| status.and_then(of).map_or("", String::as_str);
            match whom::name(label(|s| s.agent.as_ref()), label(|s| s.project.as_ref())) {
                name if name.is_empty() => id.clone(),
                name => format!("{id} ({name})"),
            }
        })
        .collect();
    let who = match who.len() {
        0 => "waiting for an instance…".to_owned(),
        1 => who.concat(),
        n => format!("{n} instances: {}", who.join(", ")),
    };
    let mut text = format!(" {}", units::count(model.heard));
    text.push_str(" ended");
    if model.lost > 0 {
        text.push_str(&format!(
            " · {} lost: too slow here",
            units::count(model.lost)
        ));
    }
    if model.is_paused() {
        text.push_str(&format!(
            " · PAUSED, {} since",
            units::count(model.missed())
        ));
    }
    let bypassed = bypassed(model, look);
    if !bypassed.is_empty() {
        text.push_str(&format!(" · BYPASSED: {}", bypassed.join(", ")));
    }
    text.push_str(&format!(" · {} ", printable(&who)));
    let style = if model.lost > 0 || !bypassed.is_empty() {
        CHOSEN.patch(look.color(Color::Yellow))
    } else {
        CHOSEN
    };
    put(buf, area, &text, style);
}

/// Who is bypassed, and for how long; those that are the longest first, as many as there is room for.
fn bypassed(model: &Model, look: &Look) -> Vec<String> {
    const MOST: usize = 3;
    let mut all: Vec<_> = model
        .sources
        .iter()
        .flat_map(|(id, s)| s.bypasses.iter().map(move |b| (id, b)))
        .filter(|(_, b)| b.until > look.now)
        .collect();
    all.sort_by_key(|(_, b)| std::cmp::Reverse(b.until));
    let label = |l: &Option<String>| l.clone().unwrap_or_default();
    let told = |(id, b): &(&String, &Lifted)| {
        let name = whom::name(&label(&b.agent), &label(&b.project));
        let name = if name.is_empty() { (*id).clone() } else { name };
        printable(&format!("{name} {}", details::left(b, look.now)))
    };
    let mut shown: Vec<_> = all.iter().take(MOST).map(told).collect();
    if all.len() > MOST {
        shown.push(format!("{} more", all.len() - MOST));
    }
    shown
}

/// Draws filter, heads and both tables; returns where the cursor of the filter is.
fn tables(model: &mut Model, area: Rect, buf: &mut Buffer, look: &Look) -> Option<Position> {
    let (rows, cursor) = filter_line(model, area, buf, look);
    let area = below(area, rows);
    let many = model.sources.len() > 1;
    let columns = columns::choose(usize::from(area.width), many);
    let mut x = area.x;
    for (column, width) in &columns {
        let cell = cell_area(area, x, *width);
        put_aligned(buf, cell, column.head(), BOLD, column.is_right());
        x = cell.right().saturating_add(GAP as u16);
    }
    let area = below(area, 1);
    for (pane, area) in panes(model, area) {
        table(model, pane, area, buf, look, &columns);
    }
    cursor
}

/// Where the tables stand: the live one gets what it needs, up to two fifths; where there is little room
/// only the one in focus is shown.
fn panes(model: &Model, area: Rect) -> Vec<(Pane, Rect)> {
    const BOTH: u16 = 7;
    if area.height < BOTH {
        return vec![(model.focus, area)];
    }
    let wanted = u16::try_from(model.len(Pane::Live))
        .unwrap_or(u16::MAX)
        .saturating_add(1);
    let share = match model.focus {
        Pane::Live => area.height * 3 / 5,
        Pane::Ended => area.height * 2 / 5,
    };
    let height = wanted.clamp(2, share);
    let live = Rect { height, ..area };
    vec![(Pane::Live, live), (Pane::Ended, below(area, height))]
}

fn filter_line(
    model: &Model,
    area: Rect,
    buf: &mut Buffer,
    look: &Look,
) -> (u16, Option<Position>) {
    let Some(edit) = &model.edit else {
        let whose = |what: &str, name: &Option<String>| {
            let told = |n: &String| format!(" of {what} {}", printable(n));
            name.as_ref().map(told).unwrap_or_default()
        };
        let whose = whose("agent", &model.whom.agent) + &whose("project", &model.whom.project);
        let text = if model.filter.is_empty() {
            format!(" all flows{whose}")
        } else {
            format!(" filter: {}{whose}", printable(model.filter.text()))
        };
        put(
            buf,
            area,
            &text,
            if model.filter.is_empty() { DIM } else { BOLD },
        );
        return (1, None);
    };
    const PROMPT: &str = " filter: ";
    let text = edit.text();
    let at = put(buf, area, PROMPT, BOLD);
    let room = Rect {
        x: area.x + at,
        width: area.width - at,
        ..area
    };
    // A long text is shown around the cursor.
    let before = Span::raw(edit.before()).width();
    let shift = (before + 1).saturating_sub(usize::from(room.width));
    let shown: String = text.chars().skip(shift).collect();
    put(buf, room, &shown, PLAIN);
    let x = room.x.saturating_add((before - shift.min(before)) as u16);
    let cursor = Position {
        x: x.min(area.right().saturating_sub(1)),
        y: area.y,
    };
    let error = below(area, 1);
    if let (Err(e), false) = (Filter::parse(&text), error.is_empty()) {
        let column = e.column().saturating_sub(shift) as u16;
        let mark = Rect {
            x: room.x.saturating_add(column).min(area.right() - 1),
            ..error
        };
        let mark = Rect {
            width: area.right() - mark.x,
            ..mark
        };
        let red = look.color(Color::Red);
        put(buf, mark, "^", red);
        put(buf, below(error, 1), &format!(" {}", e.problem), red);
    } else {
        put(
            buf,
            below(error, 1),
            " enter applies it, esc leaves it as it was",
            DIM,
        );
    }
    (3, Some(cursor))
}

fn table(
    model: &mut Model,
    pane: Pane,
    area: Rect,
    buf: &mut Buffer,
    look: &Look,
    columns: &[(Column, usize)],
) {
    let len = units::count(model.len(pane) as u64);
    let total = model.live_total();
    let name = match pane {
        Pane::Live if model.filter.is_empty() => format!("live · {}", units::count(total)),
        Pane::Live => format!("live · {len} of {}", units::count(total)),
        Pane::Ended => format!("ended · {len}"),
    };
    let sort = match model.sort {
        crate::cli::Sort::Time => "latest first",
        crate::cli::Sort::Bytes => "most bytes first",
        crate::cli::Sort::Dst => "by destination",
    };
    let focused = model.focus == pane;
    let mark = if focused { "▸" } else { " " };
    put(
        buf,
        area,
        &format!("{mark}{name} · {sort}"),
        if focused { BOLD } else { DIM },
    );
    let area = below(area, 1);
    let (rows, chosen) = model.show(pane, usize::from(area.height));
    for (i, row) in rows.iter().enumerate() {
        let line = below(area, i as u16);
        let lit = focused && i == chosen;
        draw_row(row, pane == Pane::Live, line, buf, look, columns);
        if lit {
            buf.set_style(Rect { height: 1, ..line }, CHOSEN);
        }
    }
}

fn draw_row(
    row: &Row,
    lives: bool,
    line: Rect,
    buf: &mut Buffer,
    look: &Look,
    columns: &[(Column, usize)],
) {
    let mut x = line.x;
    for (column, width) in columns {
        let cell = cell_area(line, x, *width);
        let style = match column {
            Column::Verdict => look.verdict(row.record.verdict),
            _ => PLAIN,
        };
        let mut text = column.cell(row, lives, &look.zone);
        if *column == Column::Destination {
            text = columns::shorten(&text, *width);
        }
        put_aligned(buf, cell, &text, style, column.is_right());
        x = cell.right().saturating_add(GAP as u16);
    }
}

fn help() -> Vec<(&'static str, String)> {
    let mut lines: Vec<_> = keys::HELP
        .iter()
        .map(|(k, what)| (*k, (*what).to_owned()))
        .collect();
    lines.push(("", String::new()));
    lines.push((
        "filter",
        "FIELD OPERATOR VALUE …: every term must hold; ! turns one around".to_owned(),
    ));
    lines.push((
        "",
        "operators = != ~ (part of a text) > < >= <=, texts with blanks in \"…\"".to_owned(),
    ));
    lines.push((
        "",
        "verdict=DENIED dst~github port=22 bytes>1M !comm=git duration>2s".to_owned(),
    ));
    lines.extend(FIELDS.iter().map(|f| (f.name, f.help.to_owned())));
    lines
}

fn footer(model: &Model, area: Rect, buf: &mut Buffer) {
    let keys = match (&model.page, &model.edit) {
        (_, Some(_)) => " enter apply  esc cancel  ^U clear",
        (Page::Tables, _) => {
            " q quit  / filter  s sort  space pause  tab other table  enter details  ? help"
        }
        _ => " esc back  ↑↓ scroll  q quit",
    };
    if model.notice.is_empty() {
        put(buf, area, keys, DIM);
    } else {
        put(buf, area, &format!(" {}", printable(&model.notice)), BOLD);
    }
}

#[cfg(test)]
mod tests;
