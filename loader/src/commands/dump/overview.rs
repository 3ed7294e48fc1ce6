//! `dump` without anything: who is under a firewall, and what it has seen.

use super::{CommandError, Slot, rows::Rows};
use crate::{accounting, bypass, enrol, render::units, session::boot_now};
use abi::{SlotConfig, VERDICT_ALLOWED, VERDICT_BYPASSED, VERDICT_DENIED};
use serde_json::{Value, json};
use std::time::Duration;

fn mode(config: Option<&SlotConfig>) -> &'static str {
    match config.map(|c| c.mode) {
        None => "detached",
        Some(abi::MODE_AUDIT) => "audit",
        Some(abi::MODE_OBSERVE) => "observe",
        Some(_) => "enforce",
    }
}

/// One line for each instance.
fn instances(slots: &[Slot]) {
    let mut seen = Vec::new();
    for s in slots {
        if seen.contains(&&s.instance.id) {
            continue;
        }
        seen.push(&s.instance.id);
        let loader = if s.instance.alive {
            "loader running"
        } else {
            "loader not running (enforcement goes on)"
        };
        println!(
            "clawker v{} · {} · programs attached {} ago · {loader}",
            abi::ABI_VERSION,
            s.instance.id,
            units::duration(s.age())
        );
    }
}

/// End of a running bypass, boot clock.
fn bypassed_until(config: Option<&SlotConfig>) -> Option<u64> {
    config.map(|c| c.bypass_until).filter(|u| *u > boot_now())
}

/// Cells about a bypass: what is left of it for people, all of it for programs.
fn bypass(s: &Slot, as_json: bool) -> Vec<(&'static str, Value)> {
    let until = bypassed_until(s.config.as_ref());
    if !as_json {
        let left = until.map(|u| Duration::from_nanos(u.saturating_sub(boot_now())));
        let left = left.map_or(String::new(), |d| format!("{} left", units::duration(d)));
        return vec![("bypass", json!(left))];
    }
    let told = |field: &[u8]| until.map(|_| enrol::text(field));
    vec![
        ("bypass_until", json!(until.map(bypass::wall))),
        ("bypass_by", json!(told(&s.info.bypass_by))),
        ("bypass_reason", json!(told(&s.info.bypass_reason))),
    ]
}

fn cells(s: &Slot, as_json: bool) -> Result<Vec<(&'static str, Value)>, CommandError> {
    let live = s.live()?;
    let astray = s.astray(live)?;
    let unrecorded: u64 = accounting::unrecorded(&s.books).iter().sum();
    let ended = |v: u8| json!(s.books.ended[usize::from(v)]);
    let text = |field: &[u8]| json!(enrol::text(field));
    let mut all = vec![
        ("instance", json!(s.instance.id)),
        ("agent", text(&s.info.agent)),
        ("project", text(&s.info.project)),
        ("container", text(&s.info.container_name)),
        ("mode", json!(mode(s.config.as_ref()))),
    ];
    if as_json {
        all.push(("slot", json!(s.info.slot)));
        all.push(("container_id", text(&s.info.container_id)));
    }
    all.extend(bypass(s, as_json));
    all.extend([
        ("policy", text(&s.info.policy_file)),
        ("cgroup", text(&s.info.cgroup)),
        ("command", text(&s.info.command)),
        ("live", json!(live)),
        ("allowed", ended(VERDICT_ALLOWED)),
        ("denied", ended(VERDICT_DENIED)),
        ("bypassed", ended(VERDICT_BYPASSED)),
        ("unrecorded", json!(unrecorded)),
        ("lost", json!(astray)),
    ]);
    Ok(all)
}

pub(super) fn overview(slots: &[Slot], as_json: bool) -> Result<Rows, CommandError> {
    /// Columns that are left out of the table where nobody has anything in them.
    const OPTIONAL: [&str; 6] = [
        "agent",
        "project",
        "container",
        "bypass",
        "policy",
        "command",
    ];
    if !as_json {
        instances(slots);
    }
    let mut all = Vec::new();
    for s in slots {
        match cells(s, as_json) {
            Ok(row) => all.push(row),
            Err(_) if !s.instance.is_whole() => {}
            Err(e) => return Err(e),
        }
    }
    let heads = all.first().map(|row| row.iter().map(|(h, _)| *h).collect());
    let rows = all
        .into_iter()
        .map(|row| row.into_iter().map(|(_, v)| v).collect());
    let mut rows = Rows {
        heads: heads.unwrap_or_default(),
        rows: rows.collect(),
        none: "nothing is attached",
    };
    if !as_json {
        rows.hide_empty(&OPTIONAL);
    }
    Ok(rows)
}
