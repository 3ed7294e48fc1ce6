//! A stand-in for a container engine, where more containers are wanted than a machine can run: it knows
//! processes in cgroups that a bench has made, and describes each as a running container.
//! Nothing ever happens to them. It models `GET` of `/containers/json`, `/containers/ID/json` and `/events`
//! of the engine's API, as far as the loader reads the answers.

use crate::{cgroup_root, clear};
use ebpf_manager::cgroup::Cgroup;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// What the stand-in knows: descriptions, as `/containers/ID/json` answers them.
type Known = Arc<Mutex<Vec<Value>>>;

/// The stand-in, and the cgroups of what it calls containers. They go with it.
pub struct StandIn {
    /// Where it listens.
    pub socket: PathBuf,
    known: Known,
    parent: Cgroup,
}

impl StandIn {
    /// Starts listening in a directory. Nothing runs yet.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let socket = dir.join("engine.sock");
        let listener = UnixListener::bind(&socket).expect("a place for a socket");
        let known = Known::default();
        let all = Arc::clone(&known);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let all = Arc::clone(&all);
                thread::spawn(move || serve(stream, &all));
            }
        });
        let name = format!("clawker-test-{}-containers", std::process::id());
        let parent = Cgroup::create(cgroup_root().join(name)).expect("cgroup v2");
        Self {
            socket,
            known,
            parent,
        }
    }

    /// Puts a process into a cgroup of its own and calls that a container of an agent.
    pub fn add(&self, n: usize, pid: u32) {
        self.add_on(n, pid, &json!({}));
    }

    /// The same on networks, as the engine describes them.
    pub fn add_on(&self, n: usize, pid: u32, networks: &Value) {
        let id = format!("{n:064x}");
        let cgroup = Cgroup::create(self.parent.path().join(&id)).expect("a new cgroup");
        fs::write(cgroup.path().join("cgroup.procs"), pid.to_string()).expect("it moves");
        let labels =
            json!({"dev.clawker.agent": format!("agent-{n}"), "dev.clawker.project": "bench"});
        let state = json!({"Running": true, "Pid": pid, "StartedAt": "2026-01-01T00:00:00Z",
            "FinishedAt": "0001-01-01T00:00:00Z"});
        let container = json!({"Id": id, "Name": format!("/agent-{n}"), "State": state,
            "Config": {"Labels": labels}, "HostConfig": {"NetworkMode": "none"}, "Mounts": [],
            "NetworkSettings": {"Networks": networks}});
        self.known.lock().expect("no panic").push(container);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        clear(&self.parent);
        for entry in fs::read_dir(self.parent.path()).into_iter().flatten() {
            // Files of the cgroup itself are no directories.
            let _ = entry.map(|e| fs::remove_dir(e.path()));
        }
        let _ = self.parent.remove();
    }
}

/// Answers one connection for as long as it lasts.
fn serve(mut stream: UnixStream, known: &Known) {
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    let mut lines = BufReader::new(reading).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        // A GET has a head alone.
        while lines.next().is_some_and(|line| !line.is_empty()) {}
        let path = request.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        if path.ends_with("/events") {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            // Until the other end is gone.
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.read(&mut [0]);
            return;
        }
        let body = answer(path, &known.lock().expect("no panic")).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(path: &str, known: &[Value]) -> Value {
    let id = path
        .strip_suffix("/json")
        .and_then(|p| p.rsplit('/').next());
    match id {
        Some("containers") => {
            let summary = |c: &Value| {
                json!({"Id": c["Id"], "Names": [c["Name"]], "State": "running",
                    "Labels": c["Config"]["Labels"]})
            };
            known.iter().map(summary).collect()
        }
        Some(id) => {
            let found = known.iter().find(|c| c["Id"] == id);
            found.cloned().unwrap_or_else(|| json!({}))
        }
        None => json!({}),
    }
}
