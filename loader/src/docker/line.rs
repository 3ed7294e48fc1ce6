//! One connection to the engine: its events, and looks at its containers.

use super::{
    look::{Looker, Seen, Still},
    watcher::Engine,
};
use crate::session::boot_now;
use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error as EngineError,
    models::{ContainerSummary, ContainerSummaryStateEnum as State, EventMessage},
    query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder},
};
use futures_util::{Stream, StreamExt as _, stream};
use ipnet::IpNet;
use jiff::Timestamp;
use lease::{Labels, container_name};
use std::{collections::HashMap, time::Duration};
use tokio::{
    sync::mpsc as queue,
    task::{JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval_at},
};

/// How long the engine may take to begin an answer, seconds.
const ANSWER: u64 = 60;
/// How often it is said up to when events have been read. It is also how long the engine may take to send one. The bridge
/// waits 3 s for leases, of which publishing and reading them take 1 s.
const MARKS: Duration = Duration::from_millis(150);
/// Looks at a time while everything is looked at.
const LOOKS: usize = 8;
/// What we want to hear of. Commands that are run in a container are many and change nothing.
const EVENTS: [&str; 7] = [
    "create",
    "start",
    "die",
    "rename",
    "destroy",
    "connect",
    "disconnect",
];

/// What the stream of events has brought.
pub(super) enum Heard {
    /// An event, or what broke the stream.
    Event(Result<EventMessage, EngineError>),
    /// Every event up to this moment has come before (boot clock, nanoseconds).
    Until(u64),
}

/// What a look has brought.
pub(super) enum Answer {
    /// How a container is.
    Seen(String, Seen),
    /// Its addresses on a network.
    Attached {
        id: String,
        attempt: u64,
        ends: Vec<IpNet>,
    },
}

/// One connection to the engine.
pub(super) struct Line {
    looker: Looker,
    pub(super) events: queue::UnboundedReceiver<Heard>,
    pub(super) looks: JoinSet<Answer>,
    /// Ends with the line.
    _reader: JoinSet<()>,
}

impl Line {
    /// Subscribes. Events are taken from now on, whenever the engine gets to sending them.
    pub(super) fn open(engine: &Engine) -> Result<Self, EngineError> {
        let now = Timestamp::now();
        let since = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
        let socket = engine.socket.to_string_lossy();
        let docker = Docker::connect_with_unix(&socket, ANSWER, API_DEFAULT_VERSION)?;
        let filters = HashMap::from([
            ("type", vec!["container", "network"]),
            ("event", EVENTS.to_vec()),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&since)
            .filters(&filters)
            .build();
        let (tell, events) = queue::unbounded_channel();
        let mut reader = JoinSet::new();
        let source = docker.clone();
        // Read at once, whatever else is being done: the engine drops what is not.
        reader.spawn(async move {
            read(source.events(Some(options)), &tell).await;
        });
        let looker = Looker {
            docker,
            socket: engine.socket.clone(),
            root: engine.cgroup_root.clone(),
        };
        Ok(Self {
            looker,
            events,
            looks: JoinSet::new(),
            _reader: reader,
        })
    }

    /// Begins to look at one container; what is seen comes out of `looks`.
    pub(super) fn look(&mut self, id: String) {
        let looker = self.looker.clone();
        self.looks.spawn(async move {
            let seen = looker.look(&id).await;
            Answer::Seen(id, seen)
        });
    }

    /// Begins to look which addresses a container has on a network. Where that fails they are known once it runs.
    pub(super) fn look_at_network(&mut self, id: String, network: String, attempt: u64) {
        let looker = self.looker.clone();
        self.looks.spawn(async move {
            let ends = looker.ends(&id, &network).await;
            Answer::Attached { id, attempt, ends }
        });
    }

    /// Everything the engine has, running or not.
    pub(super) async fn look_at_all(&self) -> Result<Vec<(String, Seen)>, EngineError> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let list = self.looker.docker.list_containers(Some(options)).await?;
        let looks = list.into_iter().filter_map(|one| {
            let id = one.id.clone()?;
            Some(async move {
                let seen = self.look_at_one(&id, one).await;
                (id, seen)
            })
        });
        Ok(stream::iter(looks).buffer_unordered(LOOKS).collect().await)
    }

    async fn look_at_one(&self, id: &str, one: ContainerSummary) -> Seen {
        let labels = Labels::read(&one.labels.unwrap_or_default());
        let quiet = matches!(
            one.state,
            Some(State::CREATED | State::EXITED | State::DEAD)
        );
        if !quiet || labels.is_agent {
            return self.looker.look(id).await;
        }
        let name = one
            .names
            .unwrap_or_default()
            .into_iter()
            .next()
            .unwrap_or_default();
        let name = container_name(&name).to_owned();
        Seen::Still(Box::new(Still {
            name,
            labels,
            parent: String::new(),
            finished: None,
            failed: false,
        }))
    }
}

/// Passes events on, and says between them up to when they have been read: up to the mark before, once a round of the
/// runtime, in which the connection is read, has brought nothing. Ends with the stream or the listener.
async fn read(
    events: impl Stream<Item = Result<EventMessage, EngineError>>,
    tell: &queue::UnboundedSender<Heard>,
) {
    let mut events = std::pin::pin!(events);
    let mut marks = interval_at(Instant::now() + MARKS, MARKS);
    marks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = boot_now();
    let mut due = None;
    loop {
        let heard = tokio::select! {
            biased;
            event = events.next() => match event {
                Some(event) => Heard::Event(event),
                None => return,
            },
            () = yield_now(), if due.is_some() => match due.take() {
                Some(until) => Heard::Until(until),
                None => continue,
            },
            _ = marks.tick() => {
                due = Some(std::mem::replace(&mut last, boot_now()));
                continue;
            }
        };
        if tell.send(heard).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
