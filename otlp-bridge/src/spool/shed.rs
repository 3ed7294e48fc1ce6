//! Throwing away what has no room: allowed flows first, then other sources, denied flows and audit last,
//! the oldest first among equals. Every record of it is declared.

use super::{
    apply::{Apply, Within},
    books::{Tier, size},
    handed::Handed,
    notice::{self, Cause, Group, Loss},
    tables::{FlowsRow, Key, RECORDS, Row, Tables},
};
use redb::{
    AccessGuard, Error, Range, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _,
};
use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};
use wire::stream;

/// Declarations that may wait for delivery. Beyond it they are added up until there is room.
const DECLARATIONS_MOST: u64 = 1000;
/// More than what is needed goes at once, this part of the bound: so that not every commit has losses to
/// declare.
const AT_ONCE: u64 = 64;

/// A record that goes.
struct Victim {
    stream: String,
    tier: Tier,
    place: u64,
    id: String,
    size: u64,
}

/// A record that would go, if its turn came.
type Entry<'r> = (AccessGuard<'r, Key<'static>>, AccessGuard<'r, Row<'static>>);

/// Sums of what goes.
type Losses = BTreeMap<Group, Loss>;

/// Throws away what is over a bound.
pub(super) fn shed(a: &mut Apply<'_, '_>, within: Within) -> Result<(), Error> {
    aside(a, within)?;
    let mut losses = Losses::new();
    let mut victims = Vec::new();
    if within.oldest > 0 {
        for tier in Tier::SHEDDABLE {
            choose(
                a,
                tier,
                Cause::SpoolAge,
                &mut losses,
                &mut victims,
                |kept, _| kept < within.oldest,
            )?;
            remove(a, &mut victims)?;
        }
    }
    let total = a.books.total();
    if total > within.bytes {
        let goal = total - within.bytes + within.bytes / AT_ONCE;
        let mut freed = 0;
        for &tier in within.tiers {
            choose(
                a,
                tier,
                within.cause,
                &mut losses,
                &mut victims,
                |_, size| {
                    let wanted = freed < goal;
                    freed += if wanted { size } else { 0 };
                    wanted
                },
            )?;
            remove(a, &mut victims)?;
        }
    }
    add(a.tables, losses)
}

/// Whether anything is older than it may be.
pub(super) fn overdue(
    txn: &ReadTransaction,
    streams: &[String],
    oldest: u64,
) -> Result<bool, Error> {
    let records = txn.open_table(RECORDS)?;
    for (stream, tier) in streams.iter().flat_map(|s| Tier::SHEDDABLE.map(|t| (s, t))) {
        let range: (Key<'_>, Key<'_>) = ((stream, tier.0, 0), (stream, tier.0, u64::MAX));
        if let Some(first) = records.range(range.0..=range.1)?.next()
            && first?.1.value().0 < oldest
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Goes through the records of a tier that are in nobody's hands, in order of arrival over all data
/// streams, as long as they are wanted.
fn choose(
    a: &Apply<'_, '_>,
    tier: Tier,
    cause: Cause,
    losses: &mut Losses,
    victims: &mut Vec<Victim>,
    mut wanted: impl FnMut(u64, u64) -> bool,
) -> Result<(), Error> {
    let mut handed = a.handed.lock().unwrap_or_else(PoisonError::into_inner);
    let mut queues = Vec::new();
    for name in a.books.streams.keys() {
        let from: Key<'_> = (name, tier.0, handed.of(name).from(tier));
        let to: Key<'_> = (name, tier.0, u64::MAX);
        let mut queue = a.tables.records.range(from..=to)?;
        if let Some(entry) = next(name, &mut queue, &mut handed)? {
            queues.push((name, queue, entry));
        }
    }
    while let Some(at) = (0..queues.len()).min_by_key(|i| queues[*i].2.0.value().2) {
        let (name, queue, entry) = &mut queues[at];
        let (place, (kept, id, flows, bytes)) = (entry.0.value().2, entry.1.value());
        let size = size(id, bytes);
        if !wanted(kept, size) {
            break;
        }
        note(losses, (name, cause), id, flows, bytes);
        victims.push(Victim {
            stream: (*name).clone(),
            tier,
            place,
            id: id.to_owned(),
            size,
        });
        // From here on it is not handed out any more.
        handed.of(name).passed(tier, place);
        match next(name, queue, &mut handed)? {
            Some(following) => *entry = following,
            None => drop(queues.swap_remove(at)),
        }
    }
    Ok(())
}

fn next<'r>(
    stream: &str,
    queue: &mut Range<'r, Key<'static>, Row<'static>>,
    handed: &mut MutexGuard<'_, Handed>,
) -> Result<Option<Entry<'r>>, Error> {
    for entry in queue {
        let entry = entry?;
        if !handed.of(stream).has(entry.0.value().2) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn remove(a: &mut Apply<'_, '_>, victims: &mut Vec<Victim>) -> Result<(), Error> {
    for v in victims.drain(..) {
        let key: Key<'_> = (&v.stream, v.tier.0, v.place);
        a.tables.records.remove(key)?;
        a.tables.ids.remove(v.id.as_str())?;
        let book = a.books.book(&v.stream);
        book.leave(v.tier, v.size);
        book.shed += 1;
    }
    Ok(())
}

/// Throws away what was set aside long ago, or when there is too much of it.
fn aside(a: &mut Apply<'_, '_>, within: Within) -> Result<(), Error> {
    let streams: Vec<String> = a.books.streams.keys().cloned().collect();
    for stream in streams {
        let mut losses = Losses::new();
        while a.books.book(&stream).aside_records > 0 {
            let over = a.books.book(&stream).aside_bytes > within.aside_bytes;
            let Some((place, kept)) = oldest_aside(a.tables, &stream)? else {
                break;
            };
            if !over && kept >= within.oldest {
                break;
            }
            let Some(row) = a.tables.aside.remove((stream.as_str(), place))? else {
                break;
            };
            let (_, _, (_, id, flows, bytes)) = row.value();
            let cause = if over {
                Cause::AsideFull
            } else {
                Cause::SpoolAge
            };
            note(&mut losses, (&stream, cause), id, flows, bytes);
            a.tables.ids.remove(id)?;
            let book = a.books.book(&stream);
            book.aside_records -= 1;
            book.aside_bytes = book.aside_bytes.saturating_sub(size(id, bytes));
            book.shed += 1;
        }
        add(a.tables, losses)?;
    }
    Ok(())
}

/// Place of the first record that was set aside, and when it was kept.
fn oldest_aside(tables: &Tables<'_>, stream: &str) -> Result<Option<(u64, u64)>, Error> {
    let mut range = tables.aside.range((stream, 0)..=(stream, u64::MAX))?;
    let first = range.next().transpose()?;
    Ok(first.map(|(key, row)| (key.value().1, row.value().2.0)))
}

/// Notes a record that goes.
fn note(
    losses: &mut Losses,
    (stream, cause): (&str, Cause),
    id: &str,
    flows: Option<FlowsRow<'_>>,
    bytes: &[u8],
) {
    let (who, time) = notice::look(bytes);
    let group = Group {
        stream: stream.to_owned(),
        cause,
        who,
        flows: flows.map(|(boot, slot, verdict, _)| (boot.into(), slot, verdict.into())),
    };
    let loss = Loss::one(id, flows.map_or(0, |(.., count)| count), time);
    match losses.get_mut(&group) {
        Some(sum) => sum.add(loss),
        None => drop(losses.insert(group, loss)),
    }
}

/// Adds to what is not declared yet.
fn add(tables: &mut Tables<'_>, losses: Losses) -> Result<(), Error> {
    for (group, loss) in losses {
        let key = json(&group)?;
        let before = tables.lost.get(key.as_str())?.map(|l| l.value().to_owned());
        let sum = match before.map(|text| serde_json::from_str::<Loss>(&text)) {
            None => loss,
            Some(Ok(mut sum)) => {
                sum.add(loss);
                sum
            }
            Some(Err(e)) => return Err(Error::Corrupted(e.to_string())),
        };
        tables.lost.insert(key.as_str(), json(&sum)?.as_str())?;
    }
    Ok(())
}

/// Turns what is not declared yet into records, as far as not too many of them wait already.
pub(super) fn declare(a: &mut Apply<'_, '_>) -> Result<(), Error> {
    let waiting =
        |a: &mut Apply<'_, '_>| a.books.book(stream::OVERSEER).records[Tier::DECLARED.index()];
    while !a.tables.lost.is_empty()? && waiting(a) < DECLARATIONS_MOST {
        let Some((group, loss)) = undeclared(a.tables)? else {
            break;
        };
        let gap = notice::gap(&group, &loss, a.now);
        a.enter(&gap, Tier::DECLARED)?;
    }
    a.books.undeclared = a.tables.lost.len()?;
    Ok(())
}

/// Takes one that is not declared yet.
fn undeclared(tables: &mut Tables<'_>) -> Result<Option<(Group, Loss)>, Error> {
    let Some((group, loss)) = tables.lost.pop_first()? else {
        return Ok(None);
    };
    let wrong = |e: serde_json::Error| Error::Corrupted(e.to_string());
    let group = serde_json::from_str(group.value()).map_err(wrong)?;
    let loss = serde_json::from_str(loss.value()).map_err(wrong)?;
    Ok(Some((group, loss)))
}

fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::Corrupted(e.to_string()))
}
