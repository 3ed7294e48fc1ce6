//! The proxies' configuration, which follows the policy and the containers.

use super::super::{
    policy::render::{self, RenderError},
    warn,
};
use crate::{cli::ProxyArgs, fleet::Fleet};
use proxy::{Agent, Settings};
use std::time::{Duration, Instant};

/// How long to wait before what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The files, and what is in them.
pub(super) struct Proxies {
    args: ProxyArgs,
    settings: Settings,
    /// Number of the policy, and the agents; nothing before the first time.
    written: Option<(u64, Vec<Agent>)>,
    /// What was said about the last failure, and when to try again.
    failed: Option<(String, Instant)>,
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
        Ok(Some(Self {
            args: args.clone(),
            settings: render::settings(args)?,
            written: None,
            failed: None,
        }))
    }

    /// Writes the files anew if the policy or the agents have changed. What fails is said once, and tried again.
    pub(super) fn follow(&mut self, fleet: &Fleet) {
        let at = self.failed.as_ref().map(|(_, at)| *at);
        if at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let now = (fleet.policy_number(), fleet.addressed());
        if self.written.as_ref() == Some(&now) {
            return;
        }
        match self.write(fleet, &now.1) {
            Ok(()) => {
                tracing::info!(agents = now.1.len(), "the proxies have a new configuration");
                (self.written, self.failed) = (Some(now), None);
            }
            Err(e) => {
                let said = format!("the proxies keep their configuration: {e}");
                if self
                    .failed
                    .as_ref()
                    .is_none_or(|(before, _)| *before != said)
                {
                    tracing::error!("{said}");
                    warn(&said);
                }
                self.failed = Some((said, Instant::now() + AGAIN));
            }
        }
    }

    fn write(&self, fleet: &Fleet, agents: &[Agent]) -> Result<(), RenderError> {
        let agents = proxy::Fleet::new(agents.to_vec())?;
        render::write(&self.args, fleet.policy(), &agents, &self.settings)
    }
}
