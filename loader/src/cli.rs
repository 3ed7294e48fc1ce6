//! What the user typed: definitions only, no effects.

mod operate;
mod otlp;
mod policy;
mod proxies;
mod serve;

pub use operate::{BypassArgs, EnforceArgs};
pub use otlp::OtlpArgs;
pub use policy::{AllowArgs, ExplainArgs, LearnArgs, PolicyCommand, TestArgs};
pub use proxies::{CaCommand, LeadArgs, ProxyArgs, RenderArgs};
pub use serve::{BRIDGE, ServeArgs};

use crate::{filter::Filter, weakness, whom::Whom};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{ffi::OsString, path::PathBuf};

/// What `watch --help` says at its end.
const WATCH_HELP: &str = "\
On a terminal a live table: what lives above, what ended below. Quitting leaves everything running. When the output is piped, one line for each flow that ended. A watcher that is too slow loses flows and is told how many; nobody else notices.

Keys: / filter, b t d or s order, space pause, enter details, tab other table, ? help, q quit.

A filter is a list of terms, FIELD OPERATOR VALUE, that must all hold. Operators are = != ~ > < >= <=; `~` looks for a part of a text. Upper and lower case are the same. `!` in front of a term turns it around. Fields: dst src host port sport proto bytes in out packets duration rtt close, and every field of a record.

Needs root, or membership of the instance's control group (`run --control-group`).

Examples:
  sudo ebpf-manager watch
  sudo ebpf-manager watch --filter 'verdict=DENIED dst~github port=22'
  sudo ebpf-manager watch --instance run-4711 --sort bytes
  sudo ebpf-manager watch --agent reviewer --project acme
  sudo ebpf-manager watch --json --filter 'dst=10.0.0.0/8 bytes>1M' | jq .comm
  sudo ebpf-manager watch --filter '!verdict=ALLOWED rule=\"github api\"' | tee denied.txt";

/// The egress firewall and flow monitor of clawker.
#[derive(Debug, Parser)]
#[command(
    name = "ebpf-manager",
    version,
    about = "Egress firewall and flow monitor for AI agents, in the kernel",
    long_about = "Puts a command under a firewall in the kernel (cgroup BPF) and turns every flow it opens or accepts, allowed or denied, into one record at its end.",
    after_long_help = "Exit codes: 0 ok, 1 failed, 2 wrong use. `run` passes the command's own code through.\n\nStart here:\n  sudo ebpf-manager run -- curl -s https://example.com       # watch, nothing is denied\n  sudo ebpf-manager run --policy egress.yaml -- ./agent       # enforce a policy\n  ebpf-manager policy check egress.yaml                       # every mistake at once\n  sudo ebpf-manager dump                                      # what is attached, loader alive or not\n  sudo ebpf-manager doctor                                    # what is wrong, and what to do"
)]
pub struct Cli {
    /// Directory for pins, on a BPF file system. Every command must be given the same one.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/sys/fs/bpf/clawker",
        hide_short_help = true
    )]
    pub pin_root: PathBuf,
    /// Directory of the control sockets. Every command must be given the same one.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/run/clawker",
        hide_short_help = true
    )]
    pub control_dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command under the firewall and record every flow of it
    #[command(
        after_long_help = "The command runs in a cgroup of its own from its first instruction, with its terminal, its signals and its exit code. Without --policy nothing is denied but the built-in deny set (cloud metadata, link-local).\n\nFlow lines and the summary go to stderr; stdout belongs to the command.\n\nA changed policy file takes effect at once, and flows that it denies are cut. A file with mistakes is told and changes nothing. By default this is so only for a file that the command's user cannot write or replace.\n\nExamples:\n  sudo ebpf-manager run -- apt-get update\n  sudo ebpf-manager run --learn egress.yaml -- apt-get update\n  sudo ebpf-manager run --policy egress.yaml -- sh -c 'curl -s https://api.github.com/zen'\n  sudo ebpf-manager run --policy egress.yaml --mode audit --out flows.jsonl -- ./agent\n  sudo ebpf-manager run --policy egress.yaml --agent reviewer --project acme -- ./agent\n  sudo ebpf-manager run --policy egress.yaml --reload -- ./agent\n  sudo ebpf-manager run --policy egress.yaml --otlp http://127.0.0.1:4317 -- ./agent"
    )]
    Run(Box<RunArgs>),
    /// Guard every container that has the label dev.clawker.agent, and send a record of every flow
    #[command(after_long_help = serve::HELP)]
    Serve(Box<ServeArgs>),
    /// Watch the flows of running instances, as they live and end
    #[command(
        after_long_help = WATCH_HELP
    )]
    Watch(WatchArgs),
    /// Show what is attached and what it has seen; reads pinned maps only, needs no loader
    #[command(
        after_long_help = "Works when everything in user space is dead: it reads the maps and iterators that are pinned in the kernel.\n\nExamples:\n  sudo ebpf-manager dump\n  sudo ebpf-manager dump --flows --json | jq .dst_host\n  sudo ebpf-manager dump --flows --filter 'dst~github bytes>1M'\n  sudo ebpf-manager dump --names\n  sudo ebpf-manager dump --agent reviewer --project acme"
    )]
    Dump(DumpArgs),
    /// Lift the firewall from an agent for a time; every flow of it is recorded as BYPASSED
    #[command(after_long_help = operate::BYPASS_HELP)]
    Bypass(BypassArgs),
    /// End a bypass before its time
    #[command(after_long_help = operate::ENFORCE_HELP)]
    Enforce(EnforceArgs),
    /// Remove programs, pins and cgroups of instances whose loader is gone
    #[command(
        after_long_help = "Ends what is left of the flows, tells what the dead loader did not report, detaches and unpins. A cgroup that still has processes is left to them unless --force is given: they would be without a firewall.\n\nExamples:\n  sudo ebpf-manager detach --all\n  sudo ebpf-manager detach --instance run-4711 --force"
    )]
    Detach(DetachArgs),
    /// Check the machine and every instance: what is wrong, what it costs, what to do
    #[command(
        after_long_help = "Asks the kernel what is really in force instead of believing the pins: each hook on each cgroup, whose programs and maps they are, who else is attached there, and whether the accounting adds up. docs/doctor.md explains every finding.\n\nWithout root it checks what it can and says what it could not.\n\nExit codes: 0 no problem, 1 a problem, 2 wrong use.\n\nExamples:\n  sudo ebpf-manager doctor\n  sudo ebpf-manager doctor --instance run-4711\n  sudo ebpf-manager doctor --agent reviewer --accept engine_socket\n  sudo ebpf-manager doctor --json | jq 'select(.state == \"problem\")'"
    )]
    Doctor(DoctorArgs),
    /// Check, explain, test, learn and render policies, or put a running instance under another one
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Make the certificate authority that lets the proxy read TLS, and print its certificate
    #[command(subcommand, after_long_help = proxies::CA_HELP)]
    Ca(CaCommand),
    /// Tell the versions of the binary, the kernel and the pinned types, and the hash of the kernel object
    #[command(
        after_long_help = "Two binaries with the same hash load the same programs.\n\nExamples:\n  ebpf-manager version\n  ebpf-manager version --json | jq -r .object_sha256"
    )]
    Version {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the man page, or write those of all commands to a directory
    #[command(
        after_long_help = "Examples:\n  ebpf-manager man | man -l -\n  sudo ebpf-manager man --dir /usr/local/share/man/man1"
    )]
    Man {
        /// Where to write one page for each command
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print a completion script for a shell
    #[command(
        after_long_help = "Examples:\n  ebpf-manager completions bash | sudo tee /etc/bash_completion.d/ebpf-manager\n  ebpf-manager completions fish > ~/.config/fish/completions/ebpf-manager.fish"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How a policy is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Deny what the policy denies
    Enforce,
    /// Let everything pass, mark what would have been denied
    Audit,
    /// Let everything pass
    Observe,
}

impl From<Mode> for ::policy::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Enforce => Self::Enforce,
            Mode::Audit => Self::Audit,
            Mode::Observe => Self::Observe,
        }
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Policy file (YAML); without one the command is only observed
    #[arg(short, long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Write a policy to FILE that allows what the command reached; nothing may be denied meanwhile
    #[arg(
        long,
        value_name = "FILE",
        long_help = "Write a policy to FILE that allows what the command reached, and nothing else. The run must deny nothing: no policy, or mode audit or observe. What a policy would have denied is not learned.\n\nA FILE that an earlier --learn wrote is added to, so that several runs teach together and the same run twice gives the same file. Any other FILE is refused, and so is one that somebody has changed. It belongs to whoever called sudo: keep it where the command cannot write, or run the command as another --user."
    )]
    pub learn: Option<PathBuf>,
    /// Overrides the policy's mode
    #[arg(short, long, value_enum)]
    pub mode: Option<Mode>,
    /// Follow the policy file although the command could change it, and so lift its own firewall
    #[arg(long, requires = "policy", conflicts_with = "no_reload")]
    pub reload: bool,
    /// Do not follow the policy file: what it says at the start holds to the end
    #[arg(long)]
    pub no_reload: bool,
    /// Agent whose section of the policy applies, and whose name the records carry
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Project whose section of the policy applies, and whose name the records carry
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Where connections and DNS are led.
    #[command(flatten)]
    pub lead: LeadArgs,
    /// One JSON object a line on stderr instead of the table
    #[arg(long, conflicts_with_all = ["table", "quiet"])]
    pub json: bool,
    /// A table on stderr (the default)
    #[arg(long, conflicts_with = "quiet")]
    pub table: bool,
    /// Neither flow lines nor summary on stderr
    #[arg(short, long)]
    pub quiet: bool,
    /// Append every record to FILE, one JSON object a line
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where else records go.
    #[command(flatten)]
    pub otlp: OtlpArgs,
    /// Run the command as this user; under sudo the default is whoever called it
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
    /// Leave a capability that is withheld otherwise (CAP_NET_ADMIN, …); weakens the containment
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Leave file descriptors above 2 open; sockets among them are not seen
    #[arg(long)]
    pub keep_fds: bool,
    /// Records a second before flows are folded into one record with a count
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
    /// Group whose members may watch, and lift the firewall for a time, by name or number; `clawker` if there is one of this name
    #[arg(long, value_name = "GROUP", hide_short_help = true)]
    pub control_group: Option<String>,
    /// How long to wait for connections that outlive the command, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, hide_short_help = true)]
    pub linger: u64,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Arguments of `dump`.
#[derive(Debug, Args)]
#[group(multiple = false, id = "what")]
pub struct DumpWhat {
    /// The rules that each slot is under
    #[arg(long)]
    pub policy: bool,
    /// Names and addresses learned from DNS
    #[arg(long)]
    pub names: bool,
    /// Live flows
    #[arg(long)]
    pub flows: bool,
    /// Every counter of the books
    #[arg(long)]
    pub counters: bool,
}

/// Arguments of `dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// What to show.
    #[command(flatten)]
    pub what: DumpWhat,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Only this instance
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub whom: Whom,
    /// Only flows for which this holds; see `ebpf-manager watch --help`
    #[arg(long, value_name = "EXPR", requires = "flows")]
    pub filter: Option<Filter>,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Only this instance, as `dump` names it; without it every one, those that start later too
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub whom: Whom,
    /// Only flows for which this holds
    #[arg(
        short,
        long,
        value_name = "EXPR",
        default_value = "",
        hide_default_value = true
    )]
    pub filter: Filter,
    /// What comes first, on a terminal
    #[arg(short, long, value_enum, default_value_t = Sort::Time)]
    pub sort: Sort,
    /// One JSON object a line, also on a terminal
    #[arg(long, conflicts_with = "plain")]
    pub json: bool,
    /// One line a flow, also on a terminal
    #[arg(long)]
    pub plain: bool,
}

/// What comes first in a table of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The latest
    #[default]
    Time,
    /// What moved most
    Bytes,
    /// By destination
    Dst,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// One JSON object a finding
    #[arg(long)]
    pub json: bool,
    /// Only this instance, besides the machine
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// Not the machine either: for health checks, which must not take the machine's problems for the loader's
    #[arg(long, requires = "instance")]
    pub no_machine: bool,
    /// Whose.
    #[command(flatten)]
    pub whom: Whom,
    /// A weakness of a container's set-up that is meant, several times if need be
    #[arg(long, value_name = "WORD", value_parser = weakness::words())]
    pub accept: Vec<String>,
}

/// Arguments of `detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// One instance, as `dump` names it
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    pub instance: Option<String>,
    /// Every instance
    #[arg(long)]
    pub all: bool,
    /// Also where processes still run or the loader is alive: they lose their firewall
    #[arg(long)]
    pub force: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &[&str]) -> Vec<OsString> {
        let all = ["ebpf-manager", "run"].iter().chain(line);
        match Cli::try_parse_from(all).map(|cli| cli.command) {
            Ok(Command::Run(args)) => args.command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_behind_the_command_are_its_own() {
        let wanted = ["curl", "-s", "--policy", "x"];
        assert_eq!(command(&wanted), wanted);
        assert_eq!(command(&[&["--"], &wanted[..]].concat()), wanted);
    }

    #[test]
    fn a_mistyped_option_is_no_command() {
        let line = ["ebpf-manager", "run", "--polcy", "x", "--", "true"];
        let said = Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(said.contains("'--policy'"), "{said}");
    }
}
