//! What has been told of whom, and so what is still to be told. Pure: events and looks go in, steps come
//! out.
//!
//! An event says that something happened, a look (by another way, and later) how things are. A look may
//! see a life of which the events have not yet told the end of the one before; what makes them agree is
//! the time at which a life began, as the engine says.

mod looks;

use super::{
    Container, Newborn, News,
    births::Birth,
    look::{Running, Seen},
};
use ipnet::IpNet;
use lease::Labels;
use looks::Looking;
use std::collections::{HashMap, HashSet};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Tell this.
    Tell(News),
    /// Look at this container, and bring what was seen.
    Look(String),
    /// Look which addresses this container has on a network, and bring them with the number of the attempt.
    LookAtNetwork {
        /// The container.
        id: String,
        /// The network.
        network: String,
        /// The attempt to start it.
        attempt: u64,
    },
    /// Watch where containers with this `--cgroup-parent` are born.
    Watch(String),
}

/// Who somebody is before he runs.
#[derive(Debug)]
struct Known {
    name: String,
    labels: Labels,
}

/// The addresses of somebody who is being started.
#[derive(Debug)]
struct Start {
    /// Tells it from starts before.
    attempt: u64,
    ends: Vec<IpNet>,
}

/// The book.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Told to run.
    running: HashMap<String, Running>,
    /// Told to be born, not to run.
    born: HashMap<String, Newborn>,
    /// Born before the end of the life before was told.
    next: HashMap<String, Birth>,
    looking: HashMap<String, Looking>,
    known: HashMap<String, Known>,
    /// Agents that have networks, and do not run yet.
    starts: HashMap<String, Start>,
    attempts: u64,
    /// Looks at networks that are under way: the attempt, and up to when events had been read.
    attaching: Vec<(u64, u64)>,
    /// Up to when events have been read, boot clock, nanoseconds.
    read: u64,
    /// Told to be unclear in this life.
    unclear: HashSet<String>,
}

impl Book {
    /// Begins anew, after everything has been looked at. `seen` is the whole, ids without an answer
    /// included; of those, what was known before stays.
    pub(super) fn begin(&mut self, seen: Vec<(String, Seen)>) -> Vec<Step> {
        let mut before = std::mem::take(self);
        self.read = before.read;
        let mut steps = Vec::new();
        for (id, seen) in seen {
            match seen {
                Seen::Running(running) => {
                    steps.extend(self.meet_running(&id, &running));
                    self.running.insert(id, *running);
                }
                Seen::Still(still) => {
                    steps.extend(watch(still.labels.is_agent, &still.parent));
                    let (name, labels) = (still.name, still.labels);
                    self.known.insert(id, Known { name, labels });
                }
                Seen::Over | Seen::Gone => {}
                Seen::Unclear { name, why } => {
                    if let Some(known) = before.known.remove(&id) {
                        self.known.insert(id.clone(), known);
                    }
                    match before.running.remove(&id) {
                        Some(running) => {
                            self.running.insert(id, running);
                        }
                        None => steps.extend(self.unclear(id, name, why)),
                    }
                }
            }
        }
        let mut all: Vec<Container> = self.running.values().map(|r| r.container.clone()).collect();
        all.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
        steps.insert(0, Step::Tell(News::All(all)));
        steps
    }

    /// A container has been made, or renamed: it may not run yet.
    pub(super) fn meet(&mut self, id: &str, name: String, labels: Labels) -> Vec<Step> {
        self.known.insert(id.to_owned(), Known { name, labels });
        // Of one that runs only the name has changed.
        self.ask(id, None)
    }

    /// Who runs is who he will be when he is started anew.
    fn meet_running(&mut self, id: &str, running: &Running) -> Option<Step> {
        let of = &running.container;
        let labels = Labels {
            is_agent: of.is_agent,
            agent: of.agent.clone(),
            project: of.project.clone(),
            refused: Vec::new(),
        };
        let name = of.name.clone();
        self.known.insert(id.to_owned(), Known { name, labels });
        watch(of.is_agent, &running.parent)
    }

    /// It was removed.
    pub(super) fn forget(&mut self, id: &str) {
        self.known.remove(id);
        self.starts.remove(id);
    }

    /// It is on a network. The engine describes nobody whom it is starting, but who is on its networks.
    pub(super) fn connected(&mut self, id: &str, network: String) -> Vec<Step> {
        let steps = self.changed(id);
        let is_agent = self.known.get(id).is_some_and(|k| k.labels.is_agent);
        if !steps.is_empty() || !is_agent {
            return steps;
        }
        let attempts = &mut self.attempts;
        let start = self.starts.entry(id.to_owned()).or_insert_with(|| {
            *attempts += 1;
            Start {
                attempt: *attempts,
                ends: Vec::new(),
            }
        });
        self.attaching.push((start.attempt, self.read));
        vec![Step::LookAtNetwork {
            id: id.to_owned(),
            network,
            attempt: start.attempt,
        }]
    }

    /// What a look at a network has seen of somebody.
    pub(super) fn attached(&mut self, id: &str, attempt: u64, ends: Vec<IpNet>) -> Vec<Step> {
        let is_it = |(of, _): &(u64, u64)| *of == attempt;
        if let Some(at) = self.attaching.iter().position(is_it) {
            self.attaching.remove(at);
        }
        let start = self.starts.get_mut(id);
        let Some(start) = start.filter(|s| s.attempt == attempt) else {
            return Vec::new();
        };
        start.ends.extend(ends);
        start.ends.sort_unstable();
        start.ends.dedup();
        let born = self.born.get_mut(id).filter(|b| b.ends != start.ends);
        let told = born.map(|born| {
            born.ends.clone_from(&start.ends);
            Step::Tell(News::Born(Box::new(born.clone())))
        });
        told.into_iter().collect()
    }

    /// It is off a network.
    pub(super) fn disconnected(&mut self, id: &str) -> Vec<Step> {
        self.starts.remove(id);
        self.changed(id)
    }

    /// One of its networks came or went, which matters if it runs.
    fn changed(&mut self, id: &str) -> Vec<Step> {
        if self.running.contains_key(id) || self.looking.contains_key(id) {
            self.want(id)
        } else {
            Vec::new()
        }
    }

    /// It ended at `at`.
    pub(super) fn died(&mut self, id: &str, at: i64) -> Vec<Step> {
        if self
            .running
            .get(id)
            .is_some_and(|r| at < r.container.started)
        {
            // The end of a life before, or the clock was set back in between.
            let steps = self.want(id);
            if let Some(looking) = self.looking.get_mut(id) {
                looking.doubtful = true;
            }
            return steps;
        }
        if let Some(looking) = self.looking.get_mut(id) {
            looking.ended = Some(at);
        }
        self.end(id, at)
    }

    fn end(&mut self, id: &str, at: i64) -> Vec<Step> {
        self.unclear.remove(id);
        self.starts.remove(id);
        let told = self.running.remove(id).is_some() | self.born.remove(id).is_some();
        let mut steps = Vec::new();
        if told {
            let id = id.to_owned();
            steps.push(Step::Tell(News::Ended { id, at }));
        }
        if let Some(birth) = self.next.remove(id) {
            steps.extend(self.appeared(birth));
        }
        steps
    }

    /// What a look has seen. `now`: nanoseconds of wall time.
    pub(super) fn looked(&mut self, id: &str, seen: Seen, now: i64) -> Vec<Step> {
        let Some(looking) = self.looking.remove(id) else {
            return Vec::new();
        };
        let mut steps = match seen {
            Seen::Running(running) => self.runs(id, *running, looking.ended),
            Seen::Still(_) | Seen::Gone if looking.doubtful => self.end_of_doubt(id, &seen, now),
            Seen::Gone if looking.unborn => self.end_unborn(id, now),
            Seen::Still(still) if looking.unborn && still.failed => self.end_unborn(id, now),
            Seen::Still(still) => watch(still.labels.is_agent, &still.parent)
                .into_iter()
                .collect(),
            Seen::Over | Seen::Gone => Vec::new(),
            Seen::Unclear { .. } if self.running.contains_key(id) => Vec::new(),
            Seen::Unclear { name, why } => self.unclear(id.to_owned(), name, why),
        };
        if looking.again {
            steps.extend(self.ask(id, looking.next_holds));
            if let Some(next) = self.looking.get_mut(id) {
                next.doubtful = looking.doubtful;
                next.unborn = looking.unborn;
            }
        }
        steps
    }

    /// The end of a life that was doubted, at the time that the engine has for it.
    fn end_of_doubt(&mut self, id: &str, seen: &Seen, now: i64) -> Vec<Step> {
        let at = match seen {
            Seen::Still(still) => still.finished.unwrap_or(now),
            _ => now,
        };
        let started = self.running.get(id).map(|r| r.container.started);
        self.end(id, started.map_or(at, |started| at.max(started)))
    }

    fn end_unborn(&mut self, id: &str, now: i64) -> Vec<Step> {
        if self.born.contains_key(id) {
            self.end(id, now)
        } else {
            Vec::new()
        }
    }

    fn runs(&mut self, id: &str, now: Running, ended: Option<i64>) -> Vec<Step> {
        if ended.is_some_and(|ended| now.container.started <= ended) {
            return Vec::new();
        }
        // Of another life than the one told: the events of its end and of this start are coming.
        let born = self.born.get(id);
        if born.is_some_and(|born| born.cgroup_id != now.cgroup_id) {
            return Vec::new();
        }
        let told = self.running.get(id);
        if told.is_some_and(|t| t.container.started != now.container.started || *t == now) {
            return Vec::new();
        }
        self.born.remove(id);
        self.next.remove(id);
        self.starts.remove(id);
        self.unclear.remove(id);
        let told = Step::Tell(News::Is(Box::new(now.container.clone())));
        let watch = self.meet_running(id, &now);
        self.running.insert(id.to_owned(), now);
        watch.into_iter().chain([told]).collect()
    }

    fn unclear(&mut self, id: String, name: Option<String>, why: String) -> Vec<Step> {
        let first = self.unclear.insert(id.clone());
        let tell = first.then_some(Step::Tell(News::Unclear { id, name, why }));
        tell.into_iter().collect()
    }

    /// A container's cgroup has appeared.
    pub(super) fn appeared(&mut self, birth: Birth) -> Vec<Step> {
        let running = self.running.get(&birth.id).map(|r| r.cgroup_id);
        let told = running.or(self.born.get(&birth.id).map(|b| b.cgroup_id));
        if told == Some(birth.cgroup_id) {
            return Vec::new();
        }
        if told.is_some() {
            self.next.insert(birth.id.clone(), birth);
            return Vec::new();
        }
        let Some(known) = self.known.get(&birth.id) else {
            return Vec::new();
        };
        let newborn = Newborn {
            name: known.name.clone(),
            is_agent: known.labels.is_agent,
            agent: known.labels.agent.clone(),
            project: known.labels.project.clone(),
            cgroup: birth.path,
            cgroup_id: birth.cgroup_id,
            ends: self
                .starts
                .get(&birth.id)
                .map_or_else(Vec::new, |start| start.ends.clone()),
            id: birth.id,
        };
        self.born.insert(newborn.id.clone(), newborn.clone());
        vec![Step::Tell(News::Born(Box::new(newborn)))]
    }

    /// A container's cgroup has gone. Of one that ran the engine tells.
    pub(super) fn vanished(&mut self, birth: &Birth) -> Vec<Step> {
        let same = |id: u64| id == birth.cgroup_id;
        if self.next.get(&birth.id).is_some_and(|b| same(b.cgroup_id)) {
            self.next.remove(&birth.id);
        }
        if !self.born.get(&birth.id).is_some_and(|b| same(b.cgroup_id)) {
            return Vec::new();
        }
        let steps = self.want(&birth.id);
        if let Some(looking) = self.looking.get_mut(&birth.id) {
            looking.unborn = true;
        }
        steps
    }
}

/// Where agents with this `--cgroup-parent` will be born.
fn watch(is_agent: bool, parent: &str) -> Option<Step> {
    let is_own = is_agent && !parent.is_empty();
    is_own.then(|| Step::Watch(parent.to_owned()))
}

#[cfg(test)]
mod tests;
