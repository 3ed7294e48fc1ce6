//! A look at one container: the engine's description, then `/proc` and the cgroup file system.

use super::{
    Container, Weakness,
    convert::{self, Described},
    place,
    sockets::Sockets,
};
use bollard::{
    Docker,
    errors::Error as EngineError,
    query_parameters::{InspectContainerOptions, InspectNetworkOptions},
};
use ipnet::IpNet;
use lease::Labels;
use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// How long the engine may take to describe a container. It keeps a container locked while it starts it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tries, and the wait between them.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// Directory of a cgroup, its id, and a network namespace.
type Home = (PathBuf, u64, Option<u64>);

/// A running container and the id of its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    pub(super) container: Container,
    pub(super) cgroup_id: u64,
    /// `--cgroup-parent`; empty for the engine's default.
    pub(super) parent: String,
}

/// What a look saw.
#[derive(Debug)]
pub(super) enum Seen {
    /// It runs.
    Running(Box<Running>),
    /// It does not run.
    Still(Box<Still>),
    /// Its process has ended, of which the engine does not know yet: the event is on its way.
    Over,
    /// There is no such container.
    Gone,
    /// It runs perhaps, and cannot be enrolled.
    Unclear { name: Option<String>, why: String },
}

/// A container that does not run.
#[derive(Debug)]
pub(super) struct Still {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) parent: String,
    /// When it ended, nanoseconds of wall time; nothing if it never ran.
    pub(super) finished: Option<i64>,
    /// Whether the last try to start it failed.
    pub(super) failed: bool,
}

/// Who looks.
#[derive(Clone, Debug)]
pub(super) struct Looker {
    pub(super) docker: Docker,
    /// Path of the engine's socket.
    pub(super) socket: PathBuf,
    /// Where cgroup v2 is mounted.
    pub(super) root: PathBuf,
}

impl Looker {
    /// Looks until there is an answer, or for as long as is reasonable.
    pub(super) async fn look(&self, id: &str) -> Seen {
        let (mut name, mut why) = (None, String::new());
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            let options = None::<InspectContainerOptions>;
            let asked = timeout(PATIENCE, self.docker.inspect_container(id, options));
            match asked.await {
                Err(_) => why = format!("the engine does not describe it within {PATIENCE:?}"),
                Ok(Err(EngineError::DockerResponseServerError {
                    status_code: 404, ..
                })) => {
                    return Seen::Gone;
                }
                Ok(Err(e)) => why = format!("the engine does not describe it: {e}"),
                Ok(Ok(answer)) => match convert::read(answer) {
                    // Its process may just have ended, and its number be another's.
                    Ok(described) => match self.place(described) {
                        Seen::Unclear { name: n, why: w } => (name, why) = (n, w),
                        seen => return seen,
                    },
                    Err(e) => why = e.to_string(),
                },
            }
        }
        Seen::Unclear { name, why }
    }

    /// The addresses that a container has on a network, each with the network that it is in.
    pub(super) async fn ends(&self, id: &str, network: &str) -> Vec<IpNet> {
        let options = None::<InspectNetworkOptions>;
        let asked = timeout(PATIENCE, self.docker.inspect_network(network, options));
        let Ok(Ok(answer)) = asked.await else {
            return Vec::new();
        };
        convert::ends(answer, id)
    }

    /// Finds the cgroup and the network namespace of what runs.
    fn place(&self, of: Described) -> Seen {
        let Some((pid, started)) = of.life else {
            return Seen::Still(Box::new(Still {
                name: of.name,
                labels: of.labels,
                parent: of.parent,
                finished: of.finished,
                failed: of.failed,
            }));
        };
        let (cgroup, cgroup_id, netns) = match self.home(pid, &of) {
            Ok(Some(found)) => found,
            Ok(None) => return Seen::Over,
            Err(why) => {
                let name = Some(of.name);
                return Seen::Unclear { name, why };
            }
        };
        for refused in &of.labels.refused {
            tracing::warn!(container = of.id, name = of.name, "{refused}");
        }
        let mut weaknesses = of.weaknesses;
        let sockets = Sockets::find(&self.socket);
        if of.mounts.iter().any(|source| sockets.reached_from(source)) {
            weaknesses.push(Weakness::EngineSocket);
        }
        weaknesses.sort_unstable();
        let container = Container {
            id: of.id,
            name: of.name,
            is_agent: of.labels.is_agent,
            agent: of.labels.agent,
            project: of.labels.project,
            pid,
            cgroup,
            netns,
            addresses: of.addresses,
            networks: of.networks,
            weaknesses,
            started,
        };
        Seen::Running(Box::new(Running {
            container,
            cgroup_id,
            parent: of.parent,
        }))
    }

    /// Directory and id of the cgroup, and the network namespace; nothing if the process has ended. Its
    /// number may be another's by now: only what its cgroup says to be of this container counts.
    fn home(&self, pid: u32, of: &Described) -> Result<Option<Home>, String> {
        // Before the cgroup is read: if that is the container's, this was its process.
        let netns = fs::metadata(format!("/proc/{pid}/ns/net")).ok();
        let line = fs::read_to_string(format!("/proc/{pid}/cgroup"));
        let own = line
            .as_deref()
            .ok()
            .and_then(|text| place::own(text, &of.id));
        if let Some(path) = own.map(|own| self.root.join(own))
            && let Ok(id) = directory(&path)
        {
            return Ok(Some((path, id, netns.map(|n| n.ino()))));
        }
        // A process that moved elsewhere leaves the cgroup where the engine made it.
        for path in place::candidates(&of.parent, &of.id) {
            let path = self.root.join(path);
            if let Ok(id) = directory(&path) {
                return Ok(Some((path, id, None)));
            }
        }
        let line = match line {
            Ok(text) => text.lines().last().unwrap_or_default().to_owned(),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                return Ok(None);
            }
            Err(e) => e.to_string(),
        };
        Err(format!(
            "it has no cgroup of its own below {} (/proc/{pid}/cgroup: {line:?}): let the engine use \
             cgroup v2, and run this in the machine's PID and cgroup namespaces",
            self.root.display(),
        ))
    }
}

/// The id of a cgroup's directory.
pub(super) fn directory(path: &Path) -> io::Result<u64> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        Ok(meta.ino())
    } else {
        Err(io::ErrorKind::NotADirectory.into())
    }
}
