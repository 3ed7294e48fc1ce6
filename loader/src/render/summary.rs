//! What a run comes to: flows by destination, and how to allow what was denied.

use super::{line, units};
use crate::{record::Record, seen::Seen};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::{collections::BTreeMap, time::Duration};

/// Destinations listed; the rest is counted.
const SHOWN: usize = 40;

/// Sums over the flows of one destination and verdict.
#[derive(Debug, Default)]
struct Sum {
    flows: u64,
    sent: u64,
    received: u64,
    hint: Option<String>,
}

/// Collects flows as they end.
#[derive(Debug, Default)]
pub struct Summary {
    rows: BTreeMap<(String, u16, &'static str, String), Sum>,
    flows: [u64; 3],
}

/// What the accounting says at the end.
#[derive(Debug, Default, Clone, Copy)]
pub struct Losses {
    /// Flows that ended in the kernel and reached no record.
    pub lost: u64,
    /// Records that could not be written out.
    pub unwritten: u64,
    /// Records that are not known to have reached the OTLP receiver.
    pub undelivered: u64,
}

impl Summary {
    /// Adds one record.
    pub fn add(&mut self, r: &Record) {
        let n = r.count.unwrap_or(1);
        let verdict = match r.verdict {
            "ALLOWED" => 0,
            "DENIED" => 1,
            _ => 2,
        };
        self.flows[verdict] += n;
        let host = match (&r.dst_host, line::peer(r)) {
            (Some(name), _) => name.clone(),
            (None, Some(ip)) => ip.to_string(),
            (None, None) => format!("({} socket)", r.l4_proto),
        };
        let key = (host, r.dst_port.unwrap_or(0), r.verdict, r.l4_proto.clone());
        let sum = self.rows.entry(key).or_default();
        sum.flows += n;
        sum.sent += r.bytes_out;
        sum.received += r.bytes_in;
        if r.verdict == "DENIED"
            && let Ok(rule) = Seen::from(r).suggest()
        {
            sum.hint = Some(rule.to_string());
        }
    }

    /// The summary as text. `file`: where a suggested rule belongs.
    #[must_use]
    pub fn render(&self, took: Duration, losses: Losses, file: Option<&str>) -> String {
        let [allowed, denied, bypassed] = self.flows.map(units::count);
        let mut head = format!(
            "egress summary · {} · {allowed} allowed · {denied} denied",
            units::duration(took)
        );
        if self.flows[2] > 0 {
            head.push_str(&format!(" · {bypassed} bypassed"));
        }
        head.push_str(&format!(" · {} lost", units::count(losses.lost)));
        for (n, what) in [
            (losses.unwritten, "not written"),
            (losses.undelivered, "not delivered"),
        ] {
            if n > 0 {
                head.push_str(&format!(" · {} {what}", units::count(n)));
            }
        }
        if self.rows.is_empty() {
            return head + "\n";
        }
        let table = self.table(file).to_string();
        let lines = table.lines().map(|l| format!(" {}\n", l.trim_end()));
        format!("{head}\n{}", lines.collect::<String>())
    }

    fn table(&self, file: Option<&str>) -> Table {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
            "DESTINATION",
            "PORT",
            "FLOWS",
            "SENT",
            "RECEIVED",
            "VERDICT",
        ]);
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(_, s)| std::cmp::Reverse((s.sent + s.received, s.flows)));
        for ((host, port, verdict, proto), sum) in rows.iter().take(SHOWN) {
            let port = if *port == 0 {
                proto.clone()
            } else {
                format!("{port}/{proto}")
            };
            let mut last = verdict.to_lowercase();
            if let Some(hint) = &sum.hint {
                last.push_str(&match file {
                    Some(file) => format!("   add `{hint}` to {file} to allow it"),
                    None => format!("   `{hint}` would allow it"),
                });
            }
            table.add_row([
                line::printable(host),
                port,
                units::count(sum.flows),
                units::bytes(sum.sent),
                units::bytes(sum.received),
                last,
            ]);
        }
        if rows.len() > SHOWN {
            table.add_row([format!("and {} more", rows.len() - SHOWN)]);
        }
        for column in [2, 3, 4] {
            if let Some(c) = table.column_mut(column) {
                c.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}
