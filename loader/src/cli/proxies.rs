//! `policy render` and `ca`: configuration for proxies, and the certificates that they need.

use clap::{ArgGroup, Args, Subcommand};
use proxy::{Agent, Settings};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// An address where a proxy can listen.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|e| format!("{e}"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err("nobody can listen there".to_owned());
    }
    Ok(ip.to_canonical())
}

/// What `policy render --help` says at its end.
pub(super) const RENDER_HELP: &str = "\
Renders what stock Envoy 1.40 and stock CoreDNS 1.15 need to hold the same policy: path rules, methods, names. Agents are told apart by their addresses; connections from other addresses are refused. A request that is denied gets a page that names the rule.

`run --proxy` and `serve --proxy` send connections there that rules for http, https, ws and wss allow. A listener's port is the port asked for plus 10000: 443 is 10443.

`-` in place of a file prints it: Envoy's files as one JSON object. What stock programs cannot do for a rule is told on stderr, with its line.

Envoy takes changed files up by itself, CoreDNS within two seconds.

Examples:
  ebpf-manager policy render egress.yaml --agent acme/reviewer@10.237.64.11 --coredns Corefile
  ebpf-manager policy render egress.yaml --agent reviewer@10.237.64.11 --envoy - | jq .listeners
  sudo ebpf-manager ca init --dir /etc/clawker/ca
  sudo ebpf-manager policy render egress.yaml --agent reviewer@10.237.64.11 --ca /etc/clawker/ca --envoy /etc/clawker/envoy
  envoy -c /etc/clawker/envoy/bootstrap.json";

/// Arguments of `policy render`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("rendered").args(["envoy", "coredns"]).required(true).multiple(true))]
pub struct RenderArgs {
    /// Policy file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// An agent and its addresses, several times: `acme/reviewer@10.237.64.11,fd00::11`, `#CONTAINER` behind it if known
    #[arg(long, value_name = "[PROJECT/]AGENT@IP", required = true, value_parser = Agent::parse)]
    pub agent: Vec<Agent>,
    /// Where to, and what the files point at.
    #[command(flatten)]
    pub files: ProxyArgs,
}

/// Where connections and DNS are led.
#[derive(Clone, Debug, Default, Args)]
pub struct LeadArgs {
    /// Address of the proxy (Envoy, configured by `policy render`) that decides about requests; one of each IP version
    #[arg(long, value_name = "IP", value_parser = address)]
    pub proxy: Vec<IpAddr>,
    /// Address of the name server (CoreDNS, configured by `policy render`) that every DNS query is led to, whomever it was meant for; one of each IP version
    #[arg(long, value_name = "IP", value_parser = address)]
    pub dns: Vec<IpAddr>,
}

/// Where the proxies' configuration goes, and what it points at.
#[derive(Clone, Debug, Args)]
pub struct ProxyArgs {
    /// Write Envoy's files to DIR
    #[arg(long, value_name = "DIR")]
    pub envoy: Option<PathBuf>,
    /// Write CoreDNS's Corefile
    #[arg(long, value_name = "FILE")]
    pub coredns: Option<PathBuf>,
    /// Directory of the project's certificate authority (`ebpf-manager ca init`); without it TLS is not answered
    #[arg(long, value_name = "DIR")]
    pub ca: Option<PathBuf>,
    /// Where Envoy sees DIR, if not in the same place
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Envoy's admin socket, the same for Envoy and for `serve`, which asks there what Envoy has taken (default:
    /// admin.sock in DIR; elsewhere, Envoy needs to write nothing in DIR)
    #[arg(long, value_name = "SOCKET")]
    pub admin_socket: Option<PathBuf>,
    /// Address to listen on, several times
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub listen: Vec<IpAddr>,
    /// Whom Envoy and CoreDNS ask for names, several times; without it CoreDNS asks the policy's resolvers
    #[arg(long, value_name = "IP:PORT")]
    pub resolver: Vec<SocketAddr>,
    /// Where Envoy's access log goes, OTLP over gRPC
    #[arg(long, value_name = "HOST:PORT", default_value = "collector:4320", value_parser = collector)]
    pub collector: (String, u16),
    /// Certificates that Envoy believes servers by
    #[arg(long, value_name = "FILE", default_value_t = Settings::default().upstream_ca, hide_short_help = true)]
    pub upstream_ca: String,
    /// Port that CoreDNS listens on
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 53,
        hide_short_help = true
    )]
    pub dns_port: u16,
}

fn collector(text: &str) -> Result<(String, u16), &'static str> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or("write it like collector:4320")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| "the port is not a number")?;
    if host.is_empty() {
        return Err("write it like collector:4320");
    }
    Ok((host.to_owned(), port))
}

/// What `ca --help` says at its end.
pub(super) const CA_HELP: &str = "\
An agent believes Envoy where it believes this authority. Give it the certificate, never the key: the file of `ca export`, and the variables that programs look at, SSL_CERT_FILE (OpenSSL, Go, Ruby), NODE_EXTRA_CA_CERTS (Node.js), REQUESTS_CA_BUNDLE (Python requests), CURL_CA_BUNDLE (curl), GIT_SSL_CAINFO (git). All but Node's take the place of the system's own list.

Examples:
  sudo ebpf-manager ca init --dir /etc/clawker/ca
  ebpf-manager ca export --dir /etc/clawker/ca > clawker-ca.pem";

/// What to do with the certificate authority.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make an authority; an existing one is left as it is, and told
    Init {
        /// Where: made with mode 0700, the key in it with 0600
        #[arg(long, value_name = "DIR", default_value = "/etc/clawker/ca")]
        dir: PathBuf,
        /// Succeed where there is one already
        #[arg(long)]
        keep: bool,
    },
    /// Print the authority's certificate, for the trust stores of agents
    Export {
        /// Where it is
        #[arg(long, value_name = "DIR", default_value = "/etc/clawker/ca")]
        dir: PathBuf,
    },
}
