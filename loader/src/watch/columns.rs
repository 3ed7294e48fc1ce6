//! Which columns a width has room for, and what stands in them.

use super::table::Row;
use crate::render::{line, units};
use jiff::tz::TimeZone;
use ratatui::text::Span;
use std::time::Duration;

/// A column of the tables, in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// End of the flow; its beginning while it lives.
    Time,
    /// Instance; only where there are several.
    Instance,
    /// Verdict.
    Verdict,
    /// Protocol.
    Proto,
    /// Where to, by name if there is one.
    Destination,
    /// Where to, by address if the name stands in another column.
    Address,
    /// Bytes out.
    Sent,
    /// Bytes in.
    Received,
    /// How long.
    Took,
    /// Command.
    Comm,
    /// Rule or reason.
    Why,
}

use Column::{
    Address, Comm, Destination, Instance, Proto, Received, Sent, Time, Took, Verdict, Why,
};

/// Blanks between columns.
pub const GAP: usize = 2;

/// Columns with head, and widths: the least, a good one, the most. The most wanted first.
const COLUMNS: [(Column, &str, [usize; 3]); 11] = [
    (Destination, "DESTINATION", [14, 22, 44]),
    (Verdict, "VERDICT", [8, 8, 8]),
    (Sent, "SENT", [7, 7, 7]),
    (Time, "TIME", [8, 8, 8]),
    (Received, "RECEIVED", [8, 8, 8]),
    (Comm, "COMMAND", [8, 10, 15]),
    (Why, "WHY", [12, 36, usize::MAX]),
    (Proto, "PROTO", [5, 5, 5]),
    (Instance, "INSTANCE", [10, 10, 16]),
    (Took, "TOOK", [7, 7, 7]),
    (Address, "ADDRESS", [15, 15, 39]),
];

impl Column {
    /// What stands above it.
    #[must_use]
    pub fn head(self) -> &'static str {
        COLUMNS.iter().find(|c| c.0 == self).map_or("", |c| c.1)
    }

    /// Whether its values are numbers that want to stand below each other.
    #[must_use]
    pub fn is_right(self) -> bool {
        matches!(self, Sent | Received | Took)
    }

    /// What stands in it for a flow.
    #[must_use]
    pub fn cell(self, row: &Row, lives: bool, zone: &TimeZone) -> String {
        let r = &row.record;
        match self {
            Time => {
                let at = if lives { r.start_time } else { r.time };
                at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
            }
            Instance => line::printable(&row.instance),
            Verdict => r.verdict.to_owned(),
            Proto => line::printable(&r.l4_proto),
            Destination => line::printable(&line::destination(r)),
            Address => match line::peer(r) {
                Some(ip) if r.dst_host.is_some() || !r.dst_hosts.is_empty() => ip.to_string(),
                _ => String::new(),
            },
            Sent => units::bytes(r.bytes_out),
            Received => units::bytes(r.bytes_in),
            Took if r.close_reason == Some("denied") => "-".to_owned(),
            Took => units::duration(Duration::from_millis(r.duration_ms)),
            Comm => line::printable(r.comm.as_deref().unwrap_or("-")),
            Why => {
                let many = r.count.map(|n| format!("{} flows · ", units::count(n)));
                format!(
                    "{}{}",
                    many.unwrap_or_default(),
                    line::printable(&line::why(r))
                )
            }
        }
    }
}

/// The columns that fit, in order, with their widths.
#[must_use]
pub fn choose(width: usize, instances: bool) -> Vec<(Column, usize)> {
    let mut left = width + GAP;
    let mut chosen = Vec::new();
    for (column, _, widths) in COLUMNS {
        if column == Instance && !instances {
            continue;
        }
        // Something is shown, however narrow it is.
        let least = if chosen.is_empty() {
            widths[0].min(width)
        } else {
            widths[0]
        };
        if left < least + GAP {
            break;
        }
        left -= least + GAP;
        chosen.push((column, least, widths));
    }
    for step in [1, 2] {
        for (_, width, widths) in &mut chosen {
            let more = left.min(widths[step].saturating_sub(*width));
            *width += more;
            left -= more;
        }
    }
    chosen.sort_by_key(|(column, ..)| *column as usize);
    let widths = chosen.into_iter().map(|(column, width, _)| (column, width));
    widths.collect()
}

/// A destination in so many characters: what is cut is the name, not the port.
#[must_use]
pub fn shorten(place: &str, width: usize) -> String {
    let too_long = Span::raw(place).width() > width;
    let at = place.rfind(" → :").or_else(|| place.rfind(':'));
    let (Some(at), true) = (at, too_long) else {
        return place.to_owned();
    };
    let (host, port) = place.split_at(at);
    let room = width.saturating_sub(Span::raw(port).width() + 1);
    let mut kept = String::new();
    for c in host.chars() {
        kept.push(c);
        if Span::raw(&kept).width() > room {
            kept.pop();
            break;
        }
    }
    format!("{kept}…{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fill_the_width_and_go_one_by_one_when_it_shrinks() {
        let mut before = choose(400, true);
        assert_eq!(before.len(), COLUMNS.len());
        for width in (1..400).rev() {
            let columns = choose(width, true);
            let used: usize = columns.iter().map(|(_, w)| w + GAP).sum::<usize>() - GAP;
            assert!(used <= width, "{width}: {columns:?}");
            assert!(columns.iter().any(|(c, _)| *c == Destination), "{width}");
            assert!(columns.len() <= before.len(), "{width}");
            assert!(
                columns
                    .iter()
                    .all(|(c, _)| before.iter().any(|(b, _)| b == c)),
                "{width}"
            );
            before = columns;
        }
        assert!(choose(400, false).iter().all(|(c, _)| *c != Instance));
        assert_eq!(choose(0, true), [(Destination, 0)]);
    }

    #[test]
    fn a_name_is_cut_and_its_port_is_not() {
        for (place, width, shown) in [
            ("api.github.com:443", 18, "api.github.com:443"),
            ("api.github.com:443", 17, "api.github.c…:443"),
            ("[2001:db8::1]:443", 10, "[2001…:443"),
            ("192.0.2.9 → :8080", 12, "192… → :8080"),
            ("日本.example:1", 8, "日本.…:1"),
            ("(raw socket)", 5, "(raw socket)"),
            ("a.example:443", 0, "…:443"),
        ] {
            assert_eq!(shorten(place, width), shown, "{place} in {width}");
        }
    }
}
