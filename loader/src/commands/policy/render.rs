//! `policy render`: the policy as configuration of Envoy and CoreDNS.

use super::{super::CommandError, super::warn, load, print, print_json};
use crate::{
    ca::{Authority, CaError},
    cli::RenderArgs,
    proxy_files::{self, ProxyFilesError},
    render::line::printable,
};
use proxy::{Fleet, FleetError, Settings, coredns, envoy};
use std::{
    io,
    path::{Path, absolute},
};

/// Why nothing is rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// See [`FleetError`].
    #[error("--agent: {0}")]
    Fleet(#[from] FleetError),
    /// Two documents on one output.
    #[error("--envoy - and --coredns -: only one of them can be printed")]
    Both,
    /// The working directory is gone.
    #[error("--envoy: {0}")]
    Directory(io::Error),
    /// See [`ProxyFilesError`].
    #[error(transparent)]
    Files(#[from] ProxyFilesError),
    /// See [`CaError`].
    #[error("--ca: {0}")]
    Ca(#[from] CaError),
}

impl RenderError {
    /// The user made a mistake.
    pub(in crate::commands) fn wrong_use(&self) -> bool {
        matches!(self, Self::Fleet(_) | Self::Both)
    }
}

pub(super) fn render(args: &RenderArgs) -> Result<u8, CommandError> {
    let printed = |path: &Option<std::path::PathBuf>| path.as_deref().is_some_and(is_stdout);
    if printed(&args.envoy) && printed(&args.coredns) {
        return Err(RenderError::Both.into());
    }
    let fleet = Fleet::new(args.agent.clone()).map_err(RenderError::Fleet)?;
    let settings = settings(args)?;
    let file = load(&args.file)?;
    if let Some(to) = &args.envoy {
        let rendered = envoy::render(&file.policy, &fleet, &settings);
        for note in &rendered.notes {
            warn(&format!("{}: {}", file.name, printable(&note.to_string())));
        }
        write_envoy(to, &rendered, &settings, args)?;
    }
    if let Some(to) = &args.coredns {
        let text = coredns::render(&file.policy, &fleet, &settings);
        if is_stdout(to) {
            print(&text)?;
        } else {
            proxy_files::put(to, 0o644, text.as_bytes()).map_err(RenderError::Files)?;
        }
    }
    Ok(0)
}

fn write_envoy(
    to: &Path,
    rendered: &envoy::Rendered,
    settings: &Settings,
    args: &RenderArgs,
) -> Result<(), CommandError> {
    if is_stdout(to) {
        return print_json(&serde_json::json!({
            "bootstrap": rendered.bootstrap,
            "clusters": rendered.clusters,
            "listeners": rendered.listeners,
            "certificates": rendered.certificates,
        }));
    }
    let authority = args.ca.as_deref().map(Authority::load).transpose();
    let authority = authority.map_err(RenderError::Ca)?;
    proxy_files::write_envoy(to, rendered, settings, authority.as_ref())
        .map_err(RenderError::Files)?;
    Ok(())
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn settings(args: &RenderArgs) -> Result<Settings, RenderError> {
    let mut settings = Settings {
        listen: args.listen.clone(),
        dns_port: args.dns_port,
        resolvers: args.resolver.clone(),
        collector_host: args.collector.0.clone(),
        collector_port: args.collector.1,
        upstream_ca: args.upstream_ca.clone(),
        intercept: args.ca.is_some(),
        ..Settings::default()
    };
    let own = args.envoy.as_deref().filter(|dir| !is_stdout(dir));
    if let Some(dir) = args.directory.as_deref().or(own) {
        let whole = absolute(dir).map_err(RenderError::Directory)?;
        settings.directory = whole.display().to_string();
    }
    Ok(settings)
}
