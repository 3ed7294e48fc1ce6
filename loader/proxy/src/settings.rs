//! Where things are that the rendered files point at.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A listener's port is the port that the agent asked for plus this: 443 is 10443.
pub const LISTENER_OFFSET: u16 = 10_000;

/// Where things are that the rendered files point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Directory of the rendered files, as Envoy sees it.
    pub directory: String,
    /// Envoy's socket for whoever asks what it works with, as Envoy sees it; [`ADMIN`] in the directory where it is not
    /// said. Nothing else has to be written by Envoy.
    pub admin: Option<String>,
    /// Addresses that Envoy and CoreDNS listen on.
    pub listen: Vec<IpAddr>,
    /// Port that CoreDNS listens on.
    pub dns_port: u16,
    /// Whom Envoy and CoreDNS ask for names; none: whom their machine asks.
    pub resolvers: Vec<SocketAddr>,
    /// Name or address of the collector.
    pub collector_host: String,
    /// Port of the collector's OTLP/gRPC entrance for proxies.
    pub collector_port: u16,
    /// Certificates that Envoy believes upstream servers by, a PEM file as Envoy sees it.
    pub upstream_ca: String,
    /// What listeners and clusters are called by when Envoy is asked which it has; without, nothing.
    pub version: String,
    /// Whether there are certificates to intercept TLS with; without, TLS is not answered.
    pub intercept: bool,
    /// When the certificates were issued, in any words: Envoy reads them again where it is told others.
    pub issued: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: "/etc/clawker/envoy".to_owned(),
            admin: None,
            listen: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            dns_port: 53,
            resolvers: Vec::new(),
            collector_host: "collector".to_owned(),
            collector_port: 4320,
            upstream_ca: "/etc/ssl/certs/ca-certificates.crt".to_owned(),
            version: String::new(),
            intercept: false,
            issued: String::new(),
        }
    }
}

/// Where Envoy answers `/ready`, on its own loopback: below [`LISTENER_OFFSET`], so no port of an agent's.
pub const READY_PORT: u16 = 9902;
/// What CoreDNS answers to its own machine alone, with 127.0.0.1 and without a line in its log: for a health check.
pub const READY_NAME: &str = "ready.clawker";

/// Name of Envoy's admin socket.
pub const ADMIN: &str = "admin.sock";

impl Settings {
    /// Envoy's admin socket.
    pub(crate) fn admin(&self) -> String {
        self.admin.clone().unwrap_or_else(|| self.file(ADMIN))
    }

    /// A file in [`Settings::directory`].
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.directory.trim_end_matches('/'))
    }
}
