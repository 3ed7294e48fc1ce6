//! What has been done, line by line.

use crate::answer::CallError;
use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;
use serde_json::json;
use std::fmt;

/// What came of a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not there.
    Made,
    /// It was there and is now as it should be.
    Brought,
    /// It was as it should be, or has been put there again.
    Right,
    /// It is not this program's to make.
    Left,
    /// It is not as it should be.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Brought => "updated",
            Self::Right => "ok",
            Self::Left => "left",
            Self::Failed => "FAILED",
        })
    }
}

/// A step and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Kind of thing: `policy`, `data stream`, ….
    pub kind: &'static str,
    /// Which.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What to know about it; empty for nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What to do, where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Everything that has been done.
#[derive(Debug, Default)]
pub struct Report {
    steps: Vec<Step>,
}

impl Report {
    /// Notes a step that is done.
    pub fn done(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        outcome: Outcome,
        note: impl Into<String>,
    ) {
        self.steps.push(Step {
            kind,
            name: name.into(),
            outcome,
            note: note.into(),
            advice: None,
        });
    }

    /// Notes a step that failed.
    pub fn failed(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        why: impl fmt::Display,
        advice: &str,
    ) {
        self.steps.push(Step {
            kind,
            name: name.into(),
            outcome: Outcome::Failed,
            note: why.to_string(),
            advice: Some(advice.to_owned()),
        });
    }

    /// Notes what came of a call.
    pub fn note(&mut self, kind: &'static str, name: &str, came: Result<Outcome, CallError>) {
        match came {
            Ok(outcome) => self.done(kind, name, outcome, ""),
            Err(e) => self.failed(kind, name, &e, e.advice()),
        }
    }

    /// Steps in the order done.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many failed.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.steps
            .iter()
            .filter(|s| s.outcome == Outcome::Failed)
            .count()
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> String {
        json!({"ok": self.failures() == 0, "steps": self.steps}).to_string() + "\n"
    }

    /// For people: a table, and what to do about failures.
    #[must_use]
    pub fn text(&self) -> String {
        const RED: Style = AnsiColor::Red.on_default().bold();
        let mut table = Table::new();
        table
            .load_style(NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        for step in &self.steps {
            // What failed is told below, with what to do.
            let note = if step.advice.is_some() {
                ""
            } else {
                &step.note
            };
            table.add_row([
                step.outcome.to_string(),
                step.kind.to_owned(),
                step.name.clone(),
                note.to_owned(),
            ]);
        }
        let mut text = table.trim_fmt() + "\n";
        for step in &self.steps {
            if let Some(advice) = &step.advice {
                text += &format!(
                    "{RED}error{RED:#}: {} {}: {}\n  {advice}\n",
                    step.kind, step.name, step.note
                );
            }
        }
        text
    }
}
