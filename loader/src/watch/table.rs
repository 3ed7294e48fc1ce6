//! Rows of flows: kept up to a limit, filtered once, and put in order as far as they are looked at.

use crate::{cli::Sort, filter::Filter, record::Record, render::line};
use std::{
    cmp::{Ordering, Reverse},
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    rc::Rc,
};

/// One flow.
#[derive(Debug, PartialEq)]
pub struct Row {
    /// Tells it from the other rows of its table, for as long as it is there.
    pub key: u64,
    /// Instance that it is of.
    pub instance: Rc<str>,
    /// What is known of it.
    pub record: Record,
}

/// Flows that ended, the latest of them, in the order in which they were heard of.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    all: VecDeque<Rc<Row>>,
    matching: VecDeque<Rc<Row>>,
}

/// Most ended flows that are kept.
pub const KEPT: usize = 10_000;

impl Row {
    /// A key by which a live flow is known from one snapshot to the next, and in its record.
    #[must_use]
    pub fn live_key(instance: &str, r: &Record) -> u64 {
        let mut h = DefaultHasher::new();
        (instance, &r.l4_proto, r.direction, r.pid).hash(&mut h);
        (r.src_ip, r.src_port, r.dst_ip, r.dst_port).hash(&mut h);
        h.finish()
    }

    /// Payload both ways.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.record.bytes_in.saturating_add(self.record.bytes_out)
    }

    fn place(&self) -> impl Ord + '_ {
        let r = &self.record;
        let name = r
            .dst_host
            .as_deref()
            .or(r.dst_hosts.first().map(String::as_str));
        // Names first, then addresses, then what has neither.
        let name = (name.is_none(), name);
        let peer = line::peer(r);
        (name, peer.is_none(), peer, r.dst_port)
    }
}

/// Which of two rows comes first.
fn order(sort: Sort, a: &Row, b: &Row) -> Ordering {
    let first = match sort {
        Sort::Time => Reverse(a.record.start_time).cmp(&Reverse(b.record.start_time)),
        Sort::Bytes => Reverse(a.bytes()).cmp(&Reverse(b.bytes())),
        Sort::Dst => a.place().cmp(&b.place()),
    };
    first.then_with(|| b.key.cmp(&a.key))
}

impl Ended {
    /// Adds a flow with the next key, and forgets the oldest if there are too many.
    pub fn push(&mut self, row: Rc<Row>, filter: &Filter) {
        if filter.matches(&row.record) {
            self.matching.push_back(Rc::clone(&row));
        }
        self.all.push_back(row);
        if self.all.len() > KEPT {
            self.all.pop_front();
        }
        let oldest = self.all.front().map_or(0, |r| r.key);
        while self.matching.front().is_some_and(|r| r.key < oldest) {
            self.matching.pop_front();
        }
    }

    /// Chooses again which rows to show.
    pub fn refilter(&mut self, filter: &Filter) {
        let fits = |r: &&Rc<Row>| filter.matches(&r.record);
        self.matching = self.all.iter().filter(fits).cloned().collect();
    }

    /// How many rows there are to show.
    #[must_use]
    pub fn len(&self) -> usize {
        self.matching.len()
    }

    /// Whether there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matching.is_empty()
    }

    /// `n` rows from rank `top` on. By time that is the order in which they were heard of, which costs
    /// nothing; otherwise only what comes up to there is put in order.
    #[must_use]
    pub fn window(&self, sort: Sort, top: usize, n: usize) -> Vec<Rc<Row>> {
        let end = top.saturating_add(n).min(self.len());
        if sort == Sort::Time {
            return self
                .matching
                .iter()
                .rev()
                .take(end)
                .skip(top)
                .cloned()
                .collect();
        }
        let mut rows: Vec<&Rc<Row>> = self.matching.iter().collect();
        if (1..rows.len()).contains(&end) {
            rows.select_nth_unstable_by(end - 1, |a, b| order(sort, a, b));
        }
        rows.truncate(end);
        rows.sort_unstable_by(|a, b| order(sort, a, b));
        rows.into_iter().skip(top).cloned().collect()
    }

    /// At which rank a row stands.
    #[must_use]
    pub fn rank(&self, sort: Sort, key: u64) -> Option<usize> {
        let at = self.matching.binary_search_by_key(&key, |r| r.key).ok()?;
        if sort == Sort::Time {
            return Some(self.len() - 1 - at);
        }
        let row = self.matching.get(at)?;
        let before = |r: &&Rc<Row>| order(sort, r, row) == Ordering::Less;
        Some(self.matching.iter().filter(before).count())
    }
}

/// Flows that live, in order.
#[must_use]
pub fn in_order<'a>(
    rows: impl Iterator<Item = &'a Rc<Row>>,
    filter: &Filter,
    sort: Sort,
) -> Vec<Rc<Row>> {
    let mut rows: Vec<_> = rows
        .filter(|r| filter.matches(&r.record))
        .cloned()
        .collect();
    rows.sort_unstable_by(|a, b| order(sort, a, b));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::line::tests::record;
    use proptest::prelude::*;

    fn rows(bytes: &[u8]) -> Ended {
        let mut ended = Ended::default();
        let filter = Filter::parse("bytes<200").unwrap();
        for (key, n) in (0..).zip(bytes) {
            let record = Record {
                bytes_in: u64::from(*n),
                bytes_out: 0,
                dst_port: Some(u16::from(*n)),
                ..record()
            };
            let row = Row {
                key,
                instance: "run-1".into(),
                record,
            };
            ended.push(Rc::new(row), &filter);
        }
        ended
    }

    fn keys(rows: &[Rc<Row>]) -> Vec<u64> {
        rows.iter().map(|r| r.key).collect()
    }

    proptest! {
        #[test]
        fn a_window_is_a_part_of_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..60),
                top in 0usize..70, n in 0usize..70) {
            let ended = rows(&bytes);
            prop_assert_eq!(ended.len(), bytes.iter().filter(|b| **b < 200).count());
            for sort in [Sort::Time, Sort::Bytes, Sort::Dst] {
                let all = ended.window(sort, 0, usize::MAX);
                prop_assert_eq!(all.len(), ended.len());
                let part: Vec<_> = keys(&all).into_iter().skip(top).take(n).collect();
                prop_assert_eq!(keys(&ended.window(sort, top, n)), part);
                for (rank, row) in all.iter().enumerate() {
                    prop_assert_eq!(ended.rank(sort, row.key), Some(rank));
                }
                let sorted = all.windows(2).all(|w| match sort {
                    Sort::Time => w[0].key > w[1].key,
                    Sort::Bytes => w[0].bytes() >= w[1].bytes(),
                    Sort::Dst => w[0].record.dst_port <= w[1].record.dst_port,
                });
                prop_assert!(sorted, "{:?} {:?}", sort, keys(&all));
            }
        }
    }

    #[test]
    fn the_oldest_are_forgotten_in_both_lists() {
        let mut ended = rows(&vec![1; KEPT + 500]);
        assert_eq!((ended.len(), ended.all.len()), (KEPT, KEPT));
        assert_eq!(ended.window(Sort::Time, KEPT - 1, 5)[0].key, 500);
        assert_eq!(ended.rank(Sort::Time, 499), None);
        ended.refilter(&Filter::parse("bytes>1").unwrap());
        assert!(ended.is_empty());
        ended.refilter(&Filter::default());
        assert_eq!(ended.len(), KEPT);
        let rare = Filter::parse("bytes=2").unwrap();
        let mut few = rows(&[]);
        for key in 0..2 * KEPT as u64 {
            let record = Record {
                bytes_in: 1 + u64::from(key == 5),
                bytes_out: 0,
                ..record()
            };
            let instance = "run-1".into();
            few.push(
                Rc::new(Row {
                    key,
                    instance,
                    record,
                }),
                &rare,
            );
        }
        assert!(few.is_empty(), "it is no longer among those that are kept");
    }
}
