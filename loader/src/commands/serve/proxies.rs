//! The proxies' configuration, which follows the policy and the containers.
//!
//! A new policy comes to Envoy first, then into the kernel, and each part is at every moment under the old one or the
//! new one:
//!
//! ```text
//! file ─▶ offered: the new policy, hosts and ports of the old one included ─▶ Envoy takes it ─▶ kernel ─▶ the new policy alone
//!                                                                        └▶ refuses it ─▶ the old files; nothing has changed
//! ```

use super::super::{
    policy::render::{self, RenderError},
    warn,
};
use crate::{
    cli::ProxyArgs,
    envoy::{Envoy, EnvoyError},
    fleet::Fleet,
    policy_file::PolicyFile,
    proxy_files,
};
use policy::Policy;
use proxy::{ADMIN, Agent, Settings};
use std::time::{Duration, Instant};

/// How long to wait before what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two questions to Envoy.
const PAUSE: Duration = Duration::from_millis(50);
/// How long Envoy may take to take a configuration. One that is not there takes what it finds when it starts.
const PATIENCE: Duration = Duration::from_secs(10);

/// The files, and what is in them.
pub(super) struct Proxies {
    args: ProxyArgs,
    settings: Settings,
    /// Who is asked whether it has taken them.
    envoy: Option<Envoy>,
    /// Tells the versions of this loader's files from those of another one.
    run: String,
    /// How many versions there were.
    turn: u64,
    /// Number of the policy, the agents, and when certificates were issued; nothing before the first time.
    written: Option<(u64, Vec<Agent>, String)>,
    /// What was said about the last failure, and when to try again.
    failed: Option<(String, Instant)>,
    /// What Envoy has been given and has not said anything about.
    asked: Option<Asked>,
    /// What was said of a CoreDNS that was not told.
    untold: Option<String>,
}

/// A configuration that Envoy is to take.
struct Asked {
    /// The policy that it belongs to, which the kernel is not under yet.
    file: Option<PolicyFile>,
    version: String,
    /// How often Envoy had refused something before, if it was there.
    refused: Option<u64>,
    since: Instant,
    /// When to ask again.
    next: Instant,
}

impl Asked {
    fn now(file: Option<PolicyFile>, version: String, refused: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            file,
            version,
            refused,
            since: now,
            next: now,
        }
    }
}

/// What has become of a policy that was offered.
pub(super) enum Offer {
    /// Envoy has it; the kernel may follow.
    Taken(PolicyFile),
    /// Envoy is not there, or says nothing. It decides nothing either: what needs it does not pass.
    Silent(PolicyFile, String),
    /// Nothing has changed.
    Refused(PolicyFile, String),
}

impl Proxies {
    /// None where no file is asked for.
    pub(super) fn new(args: &ProxyArgs) -> Result<Option<Self>, RenderError> {
        if render::is_printed(&args.envoy) || render::is_printed(&args.coredns) {
            return Err(RenderError::Printed);
        }
        if args.envoy.is_none() && args.coredns.is_none() {
            return Ok(None);
        }
        let started = jiff::Timestamp::now().as_millisecond();
        Ok(Some(Self {
            args: args.clone(),
            settings: render::settings(args)?,
            envoy: args.envoy.as_deref().map(|dir| {
                let socket = args.admin_socket.clone();
                Envoy::at(&socket.unwrap_or_else(|| dir.join(ADMIN)))
            }),
            run: started.to_string(),
            turn: 0,
            written: None,
            failed: None,
            asked: None,
            untold: None,
        }))
    }

    /// Gives Envoy a policy that the kernel is not under yet. One that was offered before and is not in force is
    /// forgotten.
    pub(super) fn offer(&mut self, file: PolicyFile, fleet: &Fleet) -> Result<(), RenderError> {
        let (_, before) = fleet.policy();
        let refused = self.refused();
        let agents = fleet.addressed();
        // Whatever comes of it, the files are not those of the policy in force.
        self.written = None;
        let version = self.write((&file.name, &file.policy), before, &agents)?;
        self.asked = Some(Asked::now(Some(file), version, refused));
        Ok(())
    }

    /// What has become of the policy that was offered, once that is known.
    pub(super) fn outcome(&mut self) -> Option<Offer> {
        let asked = self.asked.as_mut().filter(|a| a.next <= Instant::now())?;
        asked.next = Instant::now() + PAUSE;
        let Some(envoy) = &self.envoy else {
            // CoreDNS alone: it takes what it can read, and leaves names to the kernel that it knows nothing of.
            return self.asked.take()?.file.map(Offer::Taken);
        };
        let told = envoy.state();
        let said = match &told {
            Ok(state) if state.has(&asked.version) => {
                let file = self.asked.take()?.file;
                return file.map(Offer::Taken);
            }
            Ok(state) if asked.refused.is_some_and(|before| state.refused > before) => {
                let why = envoy.complaint().ok().flatten().unwrap_or_default();
                let said = format!("Envoy refuses the configuration: {why}");
                let Some(file) = self.asked.take()?.file else {
                    self.complain(format!("{said}; it keeps the one before"));
                    return None;
                };
                return Some(Offer::Refused(file, said));
            }
            Ok(_) => "Envoy has not taken the configuration".to_owned(),
            Err(EnvoyError::Away { .. }) if asked.file.is_some() => {
                // Nobody is there to wait for, and a policy that closes something should not wait.
                let file = self.asked.take()?.file;
                let said = told.err().map_or(String::new(), |e| e.to_string());
                return file.map(|file| Offer::Silent(file, said));
            }
            Err(e @ EnvoyError::Away { .. }) => e.to_string(),
            Err(e) => format!("Envoy says nothing of the configuration: {e}"),
        };
        if asked.since.elapsed() < PATIENCE {
            return None;
        }
        let complaint = envoy.complaint().ok().flatten();
        let Some(file) = self.asked.take()?.file else {
            self.complain(said);
            return None;
        };
        // It may have refused this one before it was first asked how often it has.
        Some(match complaint {
            Some(why) => Offer::Refused(file, format!("{said}: {why}")),
            None => Offer::Silent(file, said),
        })
    }

    /// Writes the files anew if the policy in force or the agents have changed, or certificates are due. What fails is said once, and tried again.
    pub(super) fn follow(&mut self, fleet: &Fleet) {
        if self.asked.as_ref().is_some_and(|a| a.file.is_some()) {
            return;
        }
        let at = self.failed.as_ref().map(|(_, at)| *at);
        if at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let now = (
            fleet.policy_number(),
            fleet.addressed(),
            proxy_files::issued(),
        );
        if self.written.as_ref() == Some(&now) {
            return;
        }
        let refused = self.refused();
        let (name, policy) = fleet.policy();
        match self.write((name, policy), policy, &now.1) {
            Ok(version) => {
                tracing::info!(agents = now.1.len(), "the proxies have a new configuration");
                (self.written, self.failed) = (Some(now), None);
                let envoy = self.envoy.as_ref();
                self.asked = envoy.map(|_| Asked::now(None, version, refused));
            }
            Err(e) => self.complain(format!("the proxies keep their configuration: {e}")),
        }
    }

    fn complain(&mut self, said: String) {
        let known = self.failed.as_ref();
        if known.is_none_or(|(before, _)| *before != said) {
            tracing::error!("{said}");
            warn(&said);
        }
        self.failed = Some((said, Instant::now() + AGAIN));
    }

    fn refused(&self) -> Option<u64> {
        self.envoy.as_ref()?.state().ok().map(|state| state.refused)
    }

    /// Writes the files; what version they are.
    fn write(
        &mut self,
        policy: (&str, &Policy),
        before: &Policy,
        agents: &[Agent],
    ) -> Result<String, RenderError> {
        self.turn += 1;
        self.settings.version = format!("{}-{}", self.run, self.turn);
        let agents = proxy::Fleet::new(agents.to_vec())?;
        render::write(&self.args, policy, before, &agents, &self.settings)?;
        let told = self.args.coredns.as_deref().map(proxy_files::announce);
        if let Some(Err(e)) = told {
            // One with `reload` looks at its file by itself; the others hear of the next change.
            let said = format!("CoreDNS is not told at once: {e}");
            if self.untold.as_ref() != Some(&said) {
                warn(&said);
                self.untold = Some(said);
            }
        }
        Ok(self.settings.version.clone())
    }
}
