//! What cannot be had for tests: index state management, data sources of the SQL plugin, and Dashboards. One
//! stand-in answers for them. It checks every body against the schema that the documentation or the sources of
//! the real ones give, refuses as they refuse, and remembers; the rest it passes on to the real OpenSearch.
//!
//! It models what `provision` uses, and no more: no policy is ever carried out, no query asked, no page shown.

mod boards;
mod http;
mod ism;
mod sources;

pub use boards::Boards;
use http::serve;
pub use http::{Reply, Request, Upstream};

use crate::opensearch::Asker;
use serde_json::{Value, json};
use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

/// The stand-in in front of an OpenSearch, and its Dashboards.
#[derive(Clone)]
pub struct StandIn {
    state: Arc<Mutex<State>>,
    store: Asker,
}

/// What it remembers.
#[derive(Default)]
struct State {
    ism: ism::Ism,
    sources: sources::Sources,
    boards: Boards,
}

/// A refusal: HTTP status, and the words.
pub(crate) type Refusal = (u16, String);

/// A refusal for a body that has another form.
pub(crate) fn bad(why: impl Into<String>) -> Refusal {
    (400, why.into())
}

impl StandIn {
    /// One in front of the OpenSearch that `store` asks. `store` is used for what the stand-in itself has to
    /// know, such as the indices of a data stream.
    #[must_use]
    pub fn new(store: Asker) -> Self {
        Self {
            state: Arc::default(),
            store,
        }
    }

    /// Answers as OpenSearch at an address, for as long as the process lives.
    pub fn serve_store(&self, address: &str, upstream: Upstream) {
        let here = self.clone();
        let listener = TcpListener::bind(address).expect("the address is free");
        serve(listener, move |request| {
            here.store_reply(request, &upstream)
        });
    }

    /// Answers as Dashboards at an address, for as long as the process lives.
    pub fn serve_boards(&self, address: &str) {
        let here = self.clone();
        let listener = TcpListener::bind(address).expect("the address is free");
        serve(listener, move |request| here.boards_reply(request));
    }

    /// An answer of OpenSearch.
    #[must_use]
    pub fn store_reply(&self, request: &Request, upstream: &Upstream) -> Reply {
        let path = request.path();
        let ours = ["/_plugins/_ism/", "/_plugins/_query/_datasources"];
        if !ours.iter().any(|p| path.starts_with(p)) {
            return upstream.forward(request);
        }
        if let Some(refused) = self.refused(request) {
            return refused;
        }
        let mut state = self.state.lock().expect("nobody panicked with it");
        let came = match path.strip_prefix("/_plugins/_ism/") {
            Some(rest) => state.ism.answer(request, rest, &self.store),
            None => state.sources.answer(request),
        };
        came.map_or_else(
            |(status, why)| Reply::json(status, &json!({"error": {"type": "status_exception", "reason": why}, "status": status})),
            |(status, body)| Reply::json(status, &body),
        )
    }

    /// An answer of Dashboards.
    #[must_use]
    pub fn boards_reply(&self, request: &Request) -> Reply {
        if request.path() == "/app/login" {
            return Reply::json(200, &json!({}));
        }
        if let Some(refused) = self.refused(request) {
            return refused;
        }
        let mut state = self.state.lock().expect("nobody panicked with it");
        state.boards.answer(request).map_or_else(
            |(status, why)| {
                Reply::json(
                    status,
                    &json!({"statusCode": status, "error": "Bad Request", "message": why}),
                )
            },
            |body| Reply::json(200, &body),
        )
    }

    /// What the real ones would say to somebody without a name, where OpenSearch knows names.
    fn refused(&self, request: &Request) -> Option<Reply> {
        let who = self
            .store
            .with_authorization(request.header("authorization"));
        let answer = who.try_ask("GET", "/", None).ok()?;
        (answer.status == 401).then(|| Reply::text(401, "Unauthorized"))
    }

    /// Looks at, or changes, what Dashboards holds.
    pub fn boards<T>(&self, look: impl FnOnce(&mut Boards) -> T) -> T {
        look(&mut self.state.lock().expect("nobody panicked with it").boards)
    }

    /// The policies, by name, with the number of times each was written.
    #[must_use]
    pub fn policies(&self) -> Vec<(String, Value, u64)> {
        self.state
            .lock()
            .expect("nobody panicked with it")
            .ism
            .policies()
    }

    /// Makes an index look as if it had been made before any policy.
    pub fn detach(&self, index: &str) {
        let mut state = self.state.lock().expect("nobody panicked with it");
        state.ism.detach(index);
    }

    /// The data sources, by name.
    #[must_use]
    pub fn sources(&self) -> Value {
        self.state
            .lock()
            .expect("nobody panicked with it")
            .sources
            .all()
    }
}

/// Refuses an object with a key that is not among these.
pub(crate) fn only(what: &str, of: &Value, keys: &[&str]) -> Result<(), Refusal> {
    let map = of
        .as_object()
        .ok_or_else(|| bad(format!("{what} is no object")))?;
    match map.keys().find(|k| !keys.contains(&k.as_str())) {
        Some(key) => Err(bad(format!("{what}: unknown field [{key}]"))),
        None => Ok(()),
    }
}

/// A text that must be there.
pub(crate) fn text<'a>(of: &'a Value, key: &str) -> Result<&'a str, Refusal> {
    of[key]
        .as_str()
        .filter(|t| !t.is_empty())
        .ok_or_else(|| bad(format!("[{key}] must be a text")))
}
