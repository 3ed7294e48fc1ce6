//! Arguments of `serve`.

use super::{LeadArgs, Mode, OtlpArgs};
use clap::Args;
use ipnet::IpNet;
use std::path::PathBuf;

/// What `serve --help` says behind the options.
pub(super) const HELP: &str = "Puts every container that has the label dev.clawker.agent under the firewall, from its start to its last socket, and sends a record of every flow to the bridge. Containers without the label are left alone.

Programs, links and maps are pinned: when this process ends or dies, the agents stay under their policy and the kernel goes on counting. The next one takes over, of this version or another. SIGTERM stops reading and leaves everything in force. SIGHUP reads the policy file again, which a change of it does too.

Without --policy agents are observed. An agent whose part of the policy cannot be put into force can reach nothing, which is said.

docs/serve.md tells what becomes of a container, step by step.

Examples:
  sudo ebpf-manager serve --policy /etc/clawker/egress.yaml
  sudo ebpf-manager serve --policy egress.yaml --mode audit --out flows.jsonl
  sudo ebpf-manager serve --policy egress.yaml --otlp unix:///run/clawker/bridge/bridge.sock
  sudo ebpf-manager serve --engine /run/user/1000/docker.sock --max-agents 32
  sudo ebpf-manager serve --policy egress.yaml --cgroup-parent agents
  sudo ebpf-manager watch --instance serve";

/// Where the bridge listens.
pub const BRIDGE: &str = "unix:///run/clawker/bridge/bridge.sock";

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Policy file (YAML) with the rules of all projects and agents; without one they are only observed
    #[arg(short, long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Overrides the policy's mode, for every agent
    #[arg(short, long, value_enum)]
    pub mode: Option<Mode>,
    /// Socket of the container engine
    #[arg(long, value_name = "SOCKET", default_value = "/var/run/docker.sock")]
    pub engine: PathBuf,
    /// Parent of agents' cgroups, as for `docker run --cgroup-parent`: below it nothing leaves that is not enrolled
    #[arg(long, value_name = "PARENT")]
    pub cgroup_parent: Vec<String>,
    /// Network of the monitor itself (its store, its collector's inner side): closed to agents in every mode and under bypass
    #[arg(long, value_name = "CIDR")]
    pub own_network: Vec<IpNet>,
    /// Where connections and DNS are led.
    #[command(flatten)]
    pub lead: LeadArgs,
    /// Append every record to FILE, one JSON object a line; without --otlp nothing goes to the bridge then
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// One JSON object a line on stderr for every record
    #[arg(long)]
    pub json: bool,
    /// Where records go: the bridge, unless said otherwise.
    #[command(flatten)]
    pub otlp: OtlpArgs,
    /// Where to publish who held which address; otlp-bridge follows it
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/run/clawker/leases/leases.json"
    )]
    pub leases: PathBuf,
    /// Group that may read the leases, by name or number: the bridge's
    #[arg(long, value_name = "GROUP", hide_short_help = true)]
    pub leases_group: Option<String>,
    /// Group whose members may watch, by name or number; `clawker` if there is one of this name
    #[arg(long, value_name = "GROUP", hide_short_help = true)]
    pub control_group: Option<String>,
    /// Agents that can be enrolled at once; whoever comes then can reach nothing until one has gone
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_agents: u32,
    /// How long connections may outlive their container before they are cut, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, hide_short_help = true)]
    pub linger: u64,
    /// Records a second of one agent before flows are folded into one record with a count
    #[arg(long, value_name = "N", default_value_t = 2000, hide_short_help = true)]
    pub rate: u32,
    /// Size of each of the two rings in KiB, a power of two
    #[arg(
        long,
        value_name = "KIB",
        default_value_t = 1024,
        hide_short_help = true
    )]
    pub ring_kib: u32,
    /// Configuration of the proxies, which follows the policy and the containers.
    #[command(flatten, next_help_heading = "Proxies")]
    pub files: super::ProxyArgs,
}
