//! Cells under names: a table for people, or one JSON object a row.

use crate::render::{line, units};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::{self, Write as _};

/// Rows of a table, or of JSON objects: the same cells under the same names.
pub(super) struct Rows {
    pub(super) heads: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Value>>,
    /// Said when there are no rows.
    pub(super) none: &'static str,
}

impl Rows {
    /// Leaves out columns of these names where nobody has anything in them.
    pub(super) fn hide_empty(&mut self, heads: &[&str]) {
        for head in heads {
            let Some(at) = self.heads.iter().position(|h| h == head) else {
                continue;
            };
            if self
                .rows
                .iter()
                .all(|row| row.get(at).is_some_and(|v| *v == ""))
            {
                self.heads.remove(at);
                for row in &mut self.rows {
                    row.remove(at);
                }
            }
        }
    }
}

pub(super) fn print(rows: &Rows, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        for row in &rows.rows {
            let object: serde_json::Map<String, Value> = rows
                .heads
                .iter()
                .map(|h| (*h).to_owned())
                .zip(row.iter().cloned())
                .collect();
            writeln!(out, "{}", Value::Object(object))?;
        }
        return Ok(());
    }
    if rows.rows.is_empty() {
        return writeln!(out, "{}", rows.none);
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(rows.heads.iter().map(|h| h.to_uppercase()));
    for row in &rows.rows {
        table.add_row(row.iter().map(cell));
    }
    for (i, first) in rows.rows[0].iter().enumerate() {
        if let (true, Some(column)) = (first.is_number(), table.column_mut(i)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")
}

pub(super) fn cell(v: &Value) -> String {
    match v {
        Value::String(s) if s.is_empty() => "-".to_owned(),
        Value::String(s) => line::printable(s),
        Value::Number(n) => n.as_u64().map_or_else(|| n.to_string(), units::count),
        Value::Array(a) => a.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
