//! The state for people.

use crate::spool::State;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;

/// Lines that say what is in the spool; one row a data stream.
#[must_use]
pub fn table(state: &State, now: Timestamp) -> String {
    let mut out = format!(
        "spool {} of {}, file {}\n",
        bytes(state.bytes),
        match state.max_bytes {
            0 => "?".to_owned(),
            n => bytes(n),
        },
        bytes(state.file_bytes),
    );
    if let Some(trouble) = &state.trouble {
        out += &format!("trouble: {trouble}\n");
    }
    if state.undeclared > 0 {
        out += &format!("losses not declared yet: {}\n", state.undeclared);
    }
    if state.streams.is_empty() {
        return out + "no records yet\n";
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "STREAM",
            "WAITING",
            "SIZE",
            "OLDEST",
            "DELIVERED",
            "SHED",
            "ASIDE",
            "TROUBLE",
        ]);
    for s in &state.streams {
        table.add_row([
            s.stream.clone(),
            s.pending.to_string(),
            bytes(s.bytes),
            s.oldest_ms.map_or_else(|| "-".to_owned(), |t| age(t, now)),
            s.delivered.to_string(),
            s.shed.to_string(),
            s.set_aside.to_string(),
            s.trouble.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    out + &table.trim_fmt() + "\n"
}

/// Bytes in the unit that fits, as the bounds are given.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// How long ago that was.
fn age(since_ms: u64, now: Timestamp) -> String {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let seconds = now.saturating_sub(since_ms) / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::StreamState;

    #[test]
    fn a_row_says_what_waits_and_why() {
        let stream = StreamState {
            stream: "clawker-egress".to_owned(),
            kept: 12,
            delivered: 5,
            pending: 6,
            set_aside: 1,
            bytes: 2048,
            oldest_ms: Some(1_000),
            trouble: Some("cannot connect: refused".to_owned()),
            ..StreamState::default()
        };
        let state = State {
            bytes: 2048,
            max_bytes: 1 << 30,
            file_bytes: 1 << 20,
            streams: vec![stream],
            ..State::default()
        };
        let now = Timestamp::from_second(301).unwrap();
        let text = table(&state, now);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0],
            "spool 2.0 K of 1.0 G, file 1.0 M"
                .split(' ')
                .collect::<Vec<_>>()
        );
        let wanted = "clawker-egress 6 2.0 K 5 min 5 0 1 cannot connect: refused";
        assert_eq!(lines[2], wanted.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_spool_says_so() {
        let text = table(&State::default(), Timestamp::UNIX_EPOCH);
        assert!(text.ends_with("no records yet\n"), "{text}");
    }
}
