//! Texts and areas: what every part of the screen is drawn with.

use crate::watch::columns::GAP;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Modifier, Style},
    text::Span,
};

pub(super) const PLAIN: Style = Style::new();
pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub(super) const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// What is left of an area without its first rows.
pub(super) fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect {
        y: area.y + rows,
        height: area.height - rows,
        ..area
    }
}

/// An area without its last row, and that row.
pub(super) fn split_off_last(area: Rect) -> (Rect, Rect) {
    let last = area.height.min(1);
    let body = Rect {
        height: area.height - last,
        ..area
    };
    (body, below(area, body.height))
}

/// Writes a text into the first row of an area, cut with a mark where it is too long. Returns its width.
pub(super) fn put(buf: &mut Buffer, area: Rect, text: &str, style: Style) -> u16 {
    if area.is_empty() {
        return 0;
    }
    let width = usize::from(area.width);
    let (end, _) = buf.set_stringn(area.x, area.y, text, width, style);
    if Span::raw(text).width() > width {
        buf.set_stringn(area.right() - 1, area.y, "…", 1, style);
    }
    end - area.x
}

pub(super) fn cell_area(area: Rect, x: u16, width: usize) -> Rect {
    let x = x.min(area.right());
    Rect {
        x,
        width: (width as u16).min(area.right() - x),
        ..area
    }
}

pub(super) fn put_aligned(buf: &mut Buffer, cell: Rect, text: &str, style: Style, right: bool) {
    let used = u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX);
    let shift = if right {
        cell.width.saturating_sub(used)
    } else {
        0
    };
    let cell = Rect {
        x: cell.x + shift,
        width: cell.width - shift,
        ..cell
    };
    put(buf, cell, text, style);
}

/// Labels and values below each other from a line on; returns the line that it really begins with.
pub(super) fn labelled(
    lines: &[(&'static str, String)],
    scroll: usize,
    area: Rect,
    buf: &mut Buffer,
) -> usize {
    let height = usize::from(area.height);
    let scroll = scroll.min(lines.len().saturating_sub(height));
    let widest = lines
        .iter()
        .map(|(l, _)| Span::raw(*l).width())
        .max()
        .unwrap_or(0);
    for (i, (label, value)) in lines.iter().skip(scroll).take(height).enumerate() {
        let line = below(area, i as u16);
        let label_area = cell_area(line, line.x.saturating_add(1), widest);
        put(buf, label_area, label, BOLD);
        let rest = cell_area(
            line,
            label_area.right().saturating_add(GAP as u16),
            usize::from(line.width),
        );
        put(buf, rest, value, PLAIN);
    }
    scroll
}
