//! `dump`: the state of the kernel side from its pins alone.

mod overview;
mod rows;

use super::{CommandError, need_root};
use crate::{
    accounting,
    cli::DumpArgs,
    doctor::books::TROUBLE,
    enrol,
    filter::Filter,
    instance::{Found, Root},
    kernel::Learned,
    record::{Lookup as _, Owner, reason_name},
    render::{line, units},
    session::{self, Names},
    whom,
};
use abi::{SlotConfig, SlotInfo, SlotMetrics};
use jiff::tz::TimeZone;
use rows::{Rows, cell, print};
use serde_json::{Value, json};
use std::{io::Write as _, time::Duration};

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
    slots.retain(|s| args.whom.covers(&s.info));
    if slots.is_empty() && !args.whom.is_everybody() && !args.json {
        println!("nobody of that name is attached");
        return Ok(0);
    }
    let mut rows = if args.what.policy {
        policy(&slots)?
    } else if args.what.names {
        names(&slots)?
    } else if args.what.flows {
        return flows(&slots, args);
    } else if args.what.counters {
        counters(&slots)
    } else {
        overview::overview(&slots, args.json)?
    };
    if !args.json {
        rows.hide_empty(&["agent", "project"]);
    }
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

impl Slot {
    /// First cells of every row of a list over several slots.
    fn head(&self) -> Vec<Value> {
        vec![
            json!(self.instance.id),
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
            rows.push([s.head(), vec![json!(""), json!(name), json!(value)]].concat());
        }
        for (number, text) in s.instance.pins.policy()?.rules(config.policy)? {
            let (name, text) = (enrol::text(&text.name), enrol::text(&text.text));
            rows.push([s.head(), vec![json!(number), json!(name), json!(text)]].concat());
        }
    }
    Ok(Rows {
        heads: vec!["instance", "agent", "project", "number", "name", "rule"],
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
                let found = vec![
                    json!(look.name(key.slot, r.hash).unwrap_or_default()),
                    json!(enrol::addr(&key.addr).to_string()),
                    json!(if left.is_zero() {
                        "expired".to_owned()
                    } else {
                        units::duration(left)
                    }),
                ];
                rows.push([s.head(), found].concat());
            }
        }
    }
    rows.sort_by_key(|r| r.iter().map(cell).collect::<Vec<_>>());
    Ok(Rows {
        heads: vec!["instance", "agent", "project", "name", "address", "expires"],
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
        let context = session::context(Owner {
            agent: whom::label(&s.info.agent),
            project: whom::label(&s.info.project),
            container_id: whom::label(&s.info.container_id),
            container_name: whom::label(&s.info.container_name),
        });
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
            rows.push([s.head(), vec![json!(name), json!(value)]].concat());
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
        heads: vec!["instance", "agent", "project", "counter", "value"],
        rows,
        none: "nothing is attached",
    }
}
