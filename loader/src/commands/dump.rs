//! `dump`: the state of the kernel side from its pins alone.

use super::{CommandError, need_root};
use crate::{
    accounting,
    cli::DumpArgs,
    doctor::books::TROUBLE,
    enrol,
    filter::Filter,
    instance::{Found, Root},
    kernel::Learned,
    record::{Lookup as _, reason_name},
    render::{line, units},
    session::{self, Names},
};
use abi::{SlotConfig, SlotInfo, SlotMetrics, VERDICT_ALLOWED, VERDICT_BYPASSED, VERDICT_DENIED};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    time::Duration,
};

/// One slot with everything the pins say of it.
struct Slot {
    instance: Found,
    index: u32,
    info: SlotInfo,
    config: Option<SlotConfig>,
    books: SlotMetrics,
}

pub(super) fn dump(root: &Root, args: &DumpArgs) -> Result<u8, CommandError> {
    need_root("dump")?;
    let found = match &args.instance {
        Some(id) => vec![root.find(id)?],
        None => root.list()?,
    };
    let mut slots = Vec::new();
    for instance in found.iter().filter(|f| f.is_whole()) {
        match open(instance) {
            Ok(more) => slots.extend(more),
            // It went while it was looked at.
            Err(_) if !instance.is_whole() => {}
            Err(e) => return Err(e),
        }
    }
    let rows = if args.what.policy {
        policy(&slots)?
    } else if args.what.names {
        names(&slots)?
    } else if args.what.flows {
        return flows(&slots, args);
    } else if args.what.counters {
        counters(&slots)
    } else {
        overview(&slots, args.json)?
    };
    print(&rows, args.json).map_err(CommandError::Output)?;
    Ok(0)
}

fn open(found: &Found) -> Result<Vec<Slot>, CommandError> {
    let books = found.pins.books()?;
    let mut slots = Vec::new();
    for (index, info) in found.pins.infos()? {
        if let Some(books) = books.get(index as usize) {
            let config = found.pins.config(info.cgroup_id)?;
            slots.push(Slot {
                instance: found.clone(),
                index,
                info,
                config,
                books: *books,
            });
        }
    }
    Ok(slots)
}

/// Rows of a table, or of JSON objects: the same cells under the same names.
struct Rows {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
    /// Said when there are no rows.
    none: &'static str,
}

fn print(rows: &Rows, as_json: bool) -> io::Result<()> {
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

fn cell(v: &Value) -> String {
    match v {
        Value::String(s) if s.is_empty() => "-".to_owned(),
        Value::String(s) => line::printable(s),
        Value::Number(n) => n.as_u64().map_or_else(|| n.to_string(), units::count),
        Value::Array(a) => a.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

impl Slot {
    fn who(&self) -> [Value; 2] {
        [
            json!(enrol::text(&self.info.agent)),
            json!(enrol::text(&self.info.project)),
        ]
    }

    fn age(&self) -> Duration {
        Duration::from_nanos(session::boot_now().saturating_sub(self.info.since))
    }

    fn live(&self) -> Result<u64, CommandError> {
        let all = self.instance.pins.live()?;
        Ok(all.iter().filter(|l| l.flow.slot == self.info.slot).count() as u64)
    }

    /// Flows that the books have lost sight of. The endings are read after the live flows were counted:
    /// what begins or ends meanwhile is never taken for lost.
    fn astray(&self, live: u64) -> Result<u64, CommandError> {
        let now = self.instance.pins.books()?;
        let ended = now
            .get(self.index as usize)
            .map_or(self.books.ended, |b| b.ended);
        let books = SlotMetrics {
            ended,
            ..self.books
        };
        Ok(accounting::astray(&books, live))
    }
}

fn mode(config: Option<&SlotConfig>) -> &'static str {
    match config.map(|c| c.mode) {
        None => "detached",
        Some(abi::MODE_AUDIT) => "audit",
        Some(abi::MODE_OBSERVE) => "observe",
        Some(_) => "enforce",
    }
}

fn overview(slots: &[Slot], as_json: bool) -> Result<Rows, CommandError> {
    if !as_json {
        let mut seen = Vec::new();
        for s in slots {
            if !seen.contains(&s.instance.id) {
                seen.push(s.instance.id.clone());
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
    }
    let mut rows = Vec::new();
    for s in slots {
        let [agent, project] = s.who();
        let ended = |v: u8| json!(s.books.ended[usize::from(v)]);
        let (live, astray) = match s.live().and_then(|n| Ok((n, s.astray(n)?))) {
            Ok(counted) => counted,
            Err(_) if !s.instance.is_whole() => continue,
            Err(e) => return Err(e),
        };
        let unrecorded: u64 = accounting::unrecorded(&s.books).iter().sum();
        rows.push(vec![
            json!(s.instance.id),
            agent,
            project,
            json!(mode(s.config.as_ref())),
            json!(enrol::text(&s.info.cgroup)),
            json!(enrol::text(&s.info.command)),
            json!(live),
            ended(VERDICT_ALLOWED),
            ended(VERDICT_DENIED),
            ended(VERDICT_BYPASSED),
            json!(unrecorded),
            json!(astray),
        ]);
    }
    let heads = vec![
        "instance",
        "agent",
        "project",
        "mode",
        "cgroup",
        "command",
        "live",
        "allowed",
        "denied",
        "bypassed",
        "unrecorded",
        "lost",
    ];
    Ok(Rows {
        heads,
        rows,
        none: "nothing is attached",
    })
}

fn policy(slots: &[Slot]) -> Result<Rows, CommandError> {
    let mut rows = Vec::new();
    for s in slots {
        let Some(config) = &s.config else { continue };
        let resolvers: Vec<String> = config.resolvers
            [..usize::from(config.resolver_count).min(abi::MAX_RESOLVERS)]
            .iter()
            .map(|ip| enrol::addr(ip).to_string())
            .collect();
        let on = |flag: u8| config.flags & flag != 0;
        let settings = [
            (
                "default",
                if on(abi::SLOT_DEFAULT_ALLOW) {
                    "allow"
                } else {
                    "deny"
                }
                .to_owned(),
            ),
            (
                "inbound",
                if on(abi::SLOT_INBOUND_DENY) {
                    "deny"
                } else {
                    "allow"
                }
                .to_owned(),
            ),
            ("resolvers", resolvers.join(" ")),
        ];
        for (name, value) in settings {
            rows.push(vec![
                json!(s.instance.id),
                json!(""),
                json!(name),
                json!(value),
            ]);
        }
        for (number, text) in s.instance.pins.policy()?.rules(config.policy)? {
            rows.push(vec![
                json!(s.instance.id),
                json!(number),
                json!(enrol::text(&text.name)),
                json!(enrol::text(&text.text)),
            ]);
        }
    }
    Ok(Rows {
        heads: vec!["instance", "number", "name", "rule"],
        rows,
        none: "no policy is in force",
    })
}

fn names(slots: &[Slot]) -> Result<Rows, CommandError> {
    let mut rows = Vec::new();
    let now = session::boot_now();
    for s in slots {
        let Learned { addrs, .. } = s.instance.pins.learned()?;
        let mut look = Names::new(&s.instance.pins);
        for (key, value) in addrs.iter().filter(|(k, _)| k.slot == s.info.slot) {
            for r in value.names.iter().filter(|r| r.hash != 0) {
                let left = Duration::from_nanos(r.expires.saturating_sub(now));
                rows.push(vec![
                    json!(s.instance.id),
                    json!(look.name(key.slot, r.hash).unwrap_or_default()),
                    json!(enrol::addr(&key.addr).to_string()),
                    json!(if left.is_zero() {
                        "expired".to_owned()
                    } else {
                        units::duration(left)
                    }),
                ]);
            }
        }
    }
    rows.sort_by_key(|r| (cell(&r[0]), cell(&r[1]), cell(&r[2])));
    Ok(Rows {
        heads: vec!["instance", "name", "address", "expires"],
        rows,
        none: "no name has been learned",
    })
}

fn flows(slots: &[Slot], args: &DumpArgs) -> Result<u8, CommandError> {
    let everything = Filter::default();
    let filter = args.filter.as_ref().unwrap_or(&everything);
    let mut out = anstream::stdout().lock();
    let zone = TimeZone::system();
    let mut any = false;
    for s in slots {
        let label = |f: &[u8]| Some(enrol::text(f)).filter(|t| !t.is_empty());
        let context = session::context(label(&s.info.agent), label(&s.info.project));
        let mut look = Names::new(&s.instance.pins);
        for l in s
            .instance
            .pins
            .live()?
            .iter()
            .filter(|l| l.flow.slot == s.info.slot)
        {
            let record = context.live(l, &mut look);
            if !filter.matches(&record) {
                continue;
            }
            any = true;
            let text = if args.json {
                serde_json::to_string(&record).map_err(|e| CommandError::Output(e.into()))?
            } else {
                line::line(&record, &zone)
            };
            writeln!(out, "{text}").map_err(CommandError::Output)?;
        }
    }
    if !any && !args.json {
        let none = if filter.is_empty() {
            "no flow is alive"
        } else {
            "no flow that matches is alive"
        };
        writeln!(out, "{none}").map_err(CommandError::Output)?;
    }
    Ok(0)
}

fn counters(slots: &[Slot]) -> Rows {
    let mut rows = Vec::new();
    for s in slots {
        let b = &s.books;
        let mut add = |name: String, value: u64| {
            rows.push(vec![json!(s.instance.id), json!(name), json!(value)]);
        };
        add("opened".to_owned(), b.opened);
        for (v, verdict) in [(0, "allowed"), (1, "denied"), (2, "bypassed")] {
            add(format!("ended_{verdict}"), b.ended[v]);
            add(format!("recorded_{verdict}"), b.recorded[v]);
            add(format!("folded_{verdict}"), b.folded[v]);
            add(format!("bytes_in_{verdict}"), b.bytes_in[v]);
            add(format!("bytes_out_{verdict}"), b.bytes_out[v]);
        }
        for (r, n) in b.denied.iter().enumerate() {
            add(format!("denied_{}", reason_name(r as u8)), *n);
        }
        for (t, n) in TROUBLE.iter().zip(b.trouble) {
            add(t.name.to_owned(), n);
        }
        add("names_used".to_owned(), b.names_used);
        add("addresses_used".to_owned(), b.addrs_used);
    }
    Rows {
        heads: vec!["instance", "counter", "value"],
        rows,
        none: "nothing is attached",
    }
}
