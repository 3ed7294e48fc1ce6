//! `policy render`: the policy as configuration of Envoy and CoreDNS.

use super::{super::CommandError, super::warn, load, print, print_json};
use crate::{
    ca::{Authority, CaError},
    cli::{ProxyArgs, RenderArgs},
    proxy_files::{self, ProxyFilesError},
    render::line::printable,
};
use ::policy::Policy;
use proxy::{Fleet, FleetError, Settings, coredns, envoy};
use std::{
    io,
    path::{Path, PathBuf, absolute},
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
    /// Nobody reads it there.
    #[error("--envoy and --coredns of `serve` name files, not the output")]
    Printed,
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
        matches!(self, Self::Fleet(_) | Self::Both | Self::Printed)
    }
}

pub(super) fn render(args: &RenderArgs) -> Result<u8, CommandError> {
    let to = &args.files;
    let (envoy, coredns) = (is_printed(&to.envoy), is_printed(&to.coredns));
    if envoy && coredns {
        return Err(RenderError::Both.into());
    }
    let fleet = Fleet::new(args.agent.clone()).map_err(RenderError::Fleet)?;
    let settings = settings(to)?;
    let file = load(&args.file)?;
    let policy = &file.policy;
    if envoy {
        let rendered = envoy::render(policy, &fleet, &settings);
        note(&file.name, &rendered);
        print_json(&serde_json::json!({
            "bootstrap": rendered.bootstrap,
            "clusters": rendered.clusters,
            "listeners": rendered.listeners,
            "certificates": rendered.certificates,
        }))?;
    }
    if coredns {
        print(&coredns::render(policy, &fleet, &settings))?;
    }
    write(to, (&file.name, policy), policy, &fleet, &settings)?;
    Ok(0)
}

/// Writes what goes into files, for the time in which the kernel may still lead what the policy `before` says.
pub(in crate::commands) fn write(
    to: &ProxyArgs,
    (name, policy): (&str, &Policy),
    before: &Policy,
    fleet: &Fleet,
    settings: &Settings,
) -> Result<(), RenderError> {
    if let Some(dir) = in_file(&to.envoy) {
        let settings = Settings {
            issued: proxy_files::issued(),
            ..settings.clone()
        };
        let rendered = envoy::between(policy, before, fleet, &settings);
        note(name, &rendered);
        let authority = to.ca.as_deref().map(Authority::load).transpose()?;
        proxy_files::write_envoy(dir, &rendered, authority.as_ref())?;
    }
    if let Some(file) = in_file(&to.coredns) {
        let text = coredns::render(policy, fleet, settings);
        proxy_files::put(file, 0o644, text.as_bytes())?;
    }
    Ok(())
}

/// Says what the rules ask for and the rendering does not do.
fn note(name: &str, rendered: &envoy::Rendered) {
    for note in &rendered.notes {
        warn(&format!("{name}: {}", printable(&note.to_string())));
    }
}

/// Whether it goes to the output.
pub(in crate::commands) fn is_printed(path: &Option<PathBuf>) -> bool {
    path.as_deref() == Some(Path::new("-"))
}

/// The file or directory that it goes into, if it does.
fn in_file(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|_| !is_printed(path))
}

/// What the files point at.
pub(in crate::commands) fn settings(args: &ProxyArgs) -> Result<Settings, RenderError> {
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
    let admin = args.admin_socket.as_ref();
    settings.admin = admin.map(|path| path.display().to_string());
    if let Some(dir) = args.directory.as_deref().or(in_file(&args.envoy)) {
        let whole = absolute(dir).map_err(RenderError::Directory)?;
        settings.directory = whole.display().to_string();
    }
    Ok(settings)
}
