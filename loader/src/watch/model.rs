//! What is known and what is looked at: news and keys in, something to draw out. Pure.

use super::{
    edit::Edit,
    links::{Left, News},
    table::{Ended, Row, in_order},
};
use crate::{
    bypass::Lifted, cli::Sort, control::Status, filter::Filter, record::Record, whom::Whom,
};
use std::{collections::BTreeMap, rc::Rc};

/// One of the two tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pane {
    /// Flows that live.
    Live,
    /// Flows that ended.
    #[default]
    Ended,
}

/// What of a table is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Key of the row; without one the cursor stays at the top, whatever comes there.
    pub(super) key: Option<u64>,
    /// Rank of the first row on the screen.
    pub(super) top: usize,
    /// Rows on the screen when it was last drawn.
    pub(super) height: usize,
}

/// One flow, looked at as a whole.
#[derive(Clone, Debug)]
pub struct Details {
    /// The flow.
    pub row: Rc<Row>,
    /// Whether it lives.
    pub lives: bool,
    /// First line on the screen.
    pub scroll: usize,
}

/// What fills the screen.
#[derive(Clone, Debug, Default)]
pub enum Page {
    /// The tables.
    #[default]
    Tables,
    /// All of one flow.
    Details(Details),
    /// Keys and fields, from this line on.
    Help(usize),
}

/// An instance that is connected.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    pub(super) status: Option<Status>,
    /// Bypasses that run in it.
    pub(super) bypasses: Vec<Lifted>,
    live: Vec<Rc<Row>>,
    /// Live flows there are; more than those that were told if there are very many.
    live_total: u64,
}

/// What was on the screen when it was halted.
#[derive(Clone, Debug)]
struct Frozen {
    ended: Ended,
    live: Vec<Rc<Row>>,
    live_total: u64,
    /// Flows that had ended.
    heard: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub struct Model {
    pub(super) sources: BTreeMap<String, Source>,
    ended: Ended,
    /// Live flows as they are shown: chosen and in order.
    live: Vec<Rc<Row>>,
    frozen: Option<Frozen>,
    /// Whose flows are shown at all.
    pub(super) whom: Whom,
    pub(super) filter: Filter,
    pub(super) edit: Option<Edit>,
    pub(super) sort: Sort,
    pub(super) focus: Pane,
    pub(super) cursors: [Cursor; 2],
    pub(super) page: Page,
    pub(super) notice: String,
    /// Flows that ended since the beginning.
    pub(super) heard: u64,
    /// Records that did not come through.
    pub(super) lost: u64,
    next_key: u64,
}

impl Model {
    /// Nothing heard yet.
    #[must_use]
    pub fn new(filter: Filter, sort: Sort) -> Self {
        Self {
            filter,
            sort,
            ..Self::default()
        }
    }

    /// Of these agents alone.
    #[must_use]
    pub fn of(self, whom: Whom) -> Self {
        Self { whom, ..self }
    }

    /// The bypass that a flow's agent has, if one runs.
    pub(super) fn bypass_of(&self, row: &Row) -> Option<&Lifted> {
        let of = |r: &Record, b: &Lifted| {
            let container = b.container_name.is_none() || r.container_name == b.container_name;
            container && r.agent == b.agent && r.project == b.project
        };
        let mut all = self.sources.get(&*row.instance)?.bypasses.iter();
        all.find(|b| of(&row.record, b))
    }

    /// Takes in what an instance says.
    pub fn hear(&mut self, id: &str, news: News<'_>) {
        match news {
            News::Joined(status) => {
                let source = self.sources.entry(id.to_owned()).or_default();
                source.status = Some(status);
            }
            News::Ended(json) => self.end(id, json),
            News::Live(live) => {
                let instance: Rc<str> = id.into();
                let row = |record| {
                    Rc::new(Row {
                        key: Row::live_key(id, &record),
                        instance: Rc::clone(&instance),
                        record,
                    })
                };
                let told = live.flows.len() as u64;
                let mut flows = live.flows;
                flows.retain(|r| self.whom.covers_flow(r));
                // Of those that were not told it is not known whose they are.
                let total = live.total - (told - flows.len() as u64).min(live.total);
                let rows: Vec<_> = flows.into_iter().map(row).collect();
                self.renew_details(&instance, &rows, total);
                let source = self.sources.entry(id.to_owned()).or_default();
                (source.live, source.live_total) = (rows, total);
                self.arrange();
            }
            News::Bypasses(mut all) => {
                let covers = |b: &Lifted| {
                    let same = |wanted: &Option<String>, has: &Option<String>| {
                        wanted.is_none() || wanted == has
                    };
                    same(&self.whom.agent, &b.agent) && same(&self.whom.project, &b.project)
                };
                all.retain(covers);
                self.sources.entry(id.to_owned()).or_default().bypasses = all;
            }
            News::Lost(records) => self.lost = self.lost.saturating_add(records),
            News::Left(left) => {
                self.sources.remove(id);
                self.renew_details(id, &[], 0);
                self.arrange();
                self.notice = match left {
                    Left::Over => format!("{id} is over"),
                    Left::Died => format!("{id} is gone: its loader died"),
                    Left::Refused(why) => format!("{id} cannot be watched: {why}"),
                };
            }
        }
    }

    /// Says something until the next key.
    pub fn notice(&mut self, text: String) {
        self.notice = text;
    }

    fn end(&mut self, id: &str, json: &str) {
        let Ok(record) = serde_json::from_str::<Record>(json) else {
            self.notice = format!("{id} told of a flow that cannot be read");
            self.lost += 1;
            return;
        };
        if !self.whom.covers_flow(&record) {
            return;
        }
        self.heard += 1;
        let row = Rc::new(Row {
            key: self.next_key,
            instance: id.into(),
            record,
        });
        self.next_key += 1;
        if let Page::Details(d) = &mut self.page
            && d.lives
            && Row::live_key(id, &row.record) == d.row.key
        {
            (d.row, d.lives) = (Rc::clone(&row), false);
        }
        self.ended.push(row, &self.filter);
    }

    /// A live flow that is looked at goes on as long as it is told of.
    fn renew_details(&mut self, instance: &str, rows: &[Rc<Row>], total: u64) {
        if let Page::Details(d) = &mut self.page
            && d.lives
            && *d.row.instance == *instance
        {
            match rows.iter().find(|r| r.key == d.row.key) {
                Some(row) => d.row = Rc::clone(row),
                None => d.lives = total > rows.len() as u64,
            }
        }
    }

    /// Whether the screen is halted.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Flows that ended while the screen was halted.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.frozen.as_ref().map_or(0, |f| self.heard - f.heard)
    }

    /// Halts the screen, or lets it go on.
    pub fn pause(&mut self) {
        self.frozen = match self.frozen {
            Some(_) => None,
            None => Some(Frozen {
                ended: self.ended.clone(),
                live: self.live_rows().cloned().collect(),
                live_total: self.live_total(),
                heard: self.heard,
            }),
        };
        self.arrange();
    }

    /// Shows other flows from now on.
    pub fn set_filter(&mut self, filter: Filter) {
        self.ended.refilter(&filter);
        if let Some(f) = &mut self.frozen {
            f.ended.refilter(&filter);
        }
        self.filter = filter;
        self.cursors = Default::default();
        self.arrange();
    }

    /// Puts the tables in another order.
    pub fn set_sort(&mut self, sort: Sort) {
        self.sort = sort;
        self.arrange();
        for cursor in &mut self.cursors {
            cursor.top = 0;
        }
    }

    /// Ended flows as they are shown.
    pub(super) fn ended(&self) -> &Ended {
        self.frozen.as_ref().map_or(&self.ended, |f| &f.ended)
    }

    fn live_rows(&self) -> impl Iterator<Item = &Rc<Row>> {
        let now = self.sources.values().flat_map(|s| &s.live);
        let (frozen, now) = match &self.frozen {
            Some(f) => (f.live.as_slice(), None),
            None => (&[][..], Some(now)),
        };
        frozen.iter().chain(now.into_iter().flatten())
    }

    fn arrange(&mut self) {
        self.live = in_order(self.live_rows(), &self.filter, self.sort);
    }

    /// Live flows that there are.
    #[must_use]
    pub fn live_total(&self) -> u64 {
        let now = || self.sources.values().map(|s| s.live_total).sum();
        self.frozen.as_ref().map_or_else(now, |f| f.live_total)
    }

    /// Rows in a table.
    pub(super) fn len(&self, pane: Pane) -> usize {
        match pane {
            Pane::Live => self.live.len(),
            Pane::Ended => self.ended().len(),
        }
    }

    /// The rows of a table from a rank on.
    pub(super) fn window(&self, pane: Pane, top: usize, n: usize) -> Vec<Rc<Row>> {
        match pane {
            Pane::Live => self.live.iter().skip(top).take(n).cloned().collect(),
            Pane::Ended => self.ended().window(self.sort, top, n),
        }
    }

    /// Rank of the row under the cursor of a table; the first if there is no such row any more.
    pub(super) fn rank(&self, pane: Pane) -> usize {
        let Some(key) = self.cursors[pane as usize].key else {
            return 0;
        };
        let rank = match pane {
            Pane::Live => self.live.iter().position(|r| r.key == key),
            Pane::Ended => self.ended().rank(self.sort, key),
        };
        rank.unwrap_or(0)
    }

    /// Puts the cursor of the table in focus on a rank.
    pub(super) fn go(&mut self, rank: usize) {
        let last = self.len(self.focus).saturating_sub(1);
        let rank = rank.min(last);
        let row = self.window(self.focus, rank, 1).into_iter().next();
        // At the top it stays at the top.
        self.cursors[self.focus as usize].key = row.filter(|_| rank > 0).map(|r| r.key);
    }

    /// The row under the cursor.
    pub(super) fn chosen(&self) -> Option<Rc<Row>> {
        self.window(self.focus, self.rank(self.focus), 1)
            .into_iter()
            .next()
    }

    /// Says how many rows of a table there is room for; returns which to draw, and which one of them is
    /// under the cursor.
    pub(super) fn show(&mut self, pane: Pane, height: usize) -> (Vec<Rc<Row>>, usize) {
        let rank = self.rank(pane);
        let len = self.len(pane);
        let cursor = &mut self.cursors[pane as usize];
        cursor.height = height;
        let last_top = len.saturating_sub(height);
        let from = (rank + 1).saturating_sub(height);
        cursor.top = cursor.top.min(rank).max(from).min(last_top);
        let top = cursor.top;
        (self.window(pane, top, height), rank - top.min(rank))
    }
}

#[cfg(test)]
pub(crate) mod tests;
