//! `policy …`: what can be asked of a policy file.

use super::{
    Mode,
    proxies::{RENDER_HELP, RenderArgs},
};
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use policy::{Proto, TARGET_PROTOS};
use std::{net::IpAddr, path::PathBuf};

/// What to do with a policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Check a policy file: every mistake at once, nothing is changed
    Check {
        /// Policy files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Tell which rule decides about a destination, and why the others do not
    #[command(
        after_long_help = "Nothing is asked of the network or the kernel: it is what the file says. A name is taken to lead to a public address unless --addr says where. Path rules are told as the proxy decides them: the first that matches.\n\nThe exit code says whether it could be told, not what was decided.\n\nExamples:\n  ebpf-manager policy explain egress.yaml --to api.github.com:443\n  ebpf-manager policy explain egress.yaml --agent acme/reviewer --to api.github.com --proto https --method GET --path /repos/acme/x\n  ebpf-manager policy explain egress.yaml --to dev.internal:443 --addr 10.1.2.3\n  ebpf-manager policy explain egress.yaml --to 198.51.100.7 --proto icmp --json"
    )]
    Explain(ExplainArgs),
    /// Hold a policy against a table of expectations (`tests:`)
    #[command(
        after_long_help = "Every test is tried, every difference shown with its line and what decided instead. The mode of the policy does not matter: tests are about what the rules say.\n\nExit codes: 0 every test passes, 1 there are differences, 2 a file has mistakes or no tests.\n\nExamples:\n  ebpf-manager policy test egress.yaml\n  ebpf-manager policy test egress.yaml --expect expectations.yaml"
    )]
    Test(TestArgs),
    /// Print the smallest policy that allows what records say was reached
    #[command(
        after_long_help = "Reads what `run --out FILE` or `run --json` wrote. Flows that were denied, would have been, or passed by a bypass are not learned. The policy is sorted; comments tell how often and by which processes each rule was used, and what could not be made a rule.\n\nRecords are believed: keep them where the observed command cannot write, or use `run --learn`.\n\nExamples:\n  ebpf-manager policy learn monday.jsonl tuesday.jsonl > egress.yaml\n  ebpf-manager policy learn flows.jsonl --wildcards\n  ebpf-manager policy learn flows.jsonl --base egress.yaml\n  jq -c 'select(.agent == \"reviewer\")' flows.jsonl | ebpf-manager policy learn -"
    )]
    Learn(LearnArgs),
    /// Print the rule that would have let a denied flow through
    #[command(
        after_long_help = "Prints one item for `rules:`, indented by two blanks, so that it can be appended to a file whose last part is a `rules:` list indented so. Where no rule would help it says what would, and the exit code is 1.\n\nExamples:\n  jq -r 'select(.verdict == \"DENIED\") | .flow_id' out.jsonl\n  ebpf-manager policy allow --from out.jsonl --flow 4711-d3 >> egress.yaml"
    )]
    Allow(AllowArgs),
    /// Write the policy as configuration of Envoy and CoreDNS
    #[command(after_long_help = RENDER_HELP)]
    Render(Box<RenderArgs>),
    /// Put a running instance of `run` under another policy, without a moment in between
    #[command(
        after_long_help = "The new policy is complete in the kernel before the old one goes. Live flows are judged again at their next packet; one that the new policy denies is cut and recorded with close_reason `policy`. `serve` follows its own file, with its proxies: change that one."
    )]
    Apply {
        /// Policy file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Instance, as `dump` names it
        #[arg(long, value_name = "ID")]
        instance: String,
        /// Overrides the policy's mode
        #[arg(short, long, value_enum)]
        mode: Option<Mode>,
    },
}

/// Words for the protocol of a destination.
fn proto() -> impl clap::builder::TypedValueParser<Value = Proto> {
    let words = PossibleValuesParser::new(TARGET_PROTOS.map(|(word, _)| word));
    words.try_map(|typed| {
        let known = TARGET_PROTOS.iter().find(|(word, _)| *word == typed);
        known.map(|(_, proto)| *proto).ok_or("not a protocol")
    })
}

/// Arguments of `policy explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Policy file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where to: `api.github.com:443`, `192.0.2.7:22`, `[2001:db8::1]:443`
    #[arg(long, value_name = "HOST:PORT")]
    pub to: String,
    /// Protocol; https, http, wss, ws and ssh are TCP with a port of their own
    #[arg(long, value_name = "PROTO", default_value = "tcp", value_parser = proto())]
    pub proto: Proto,
    /// Address that the name leads to
    #[arg(long, value_name = "IP")]
    pub addr: Option<IpAddr>,
    /// Agent to ask for, `agent` or `project/agent`
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Project to ask for
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Method of an HTTP request
    #[arg(long, value_name = "METHOD", requires = "path")]
    pub method: Option<String>,
    /// Path of the request, without query
    #[arg(long, value_name = "PATH", requires = "method")]
    pub path: Option<String>,
    /// List every rule, however far it was from deciding
    #[arg(long)]
    pub all: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `policy test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Policy file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Take `tests:` from this file instead
    #[arg(long, value_name = "FILE")]
    pub expect: Option<PathBuf>,
    /// One JSON object a test
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `policy learn`.
#[derive(Debug, Args)]
pub struct LearnArgs {
    /// Files of records, `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One rule for several names below a registered domain, unless one of them was denied
    #[arg(long)]
    pub wildcards: bool,
    /// Print only what this policy does not allow already, and nothing that its rules deny
    #[arg(long, value_name = "POLICY")]
    pub base: Option<PathBuf>,
}

/// Arguments of `policy allow`.
#[derive(Debug, Args)]
pub struct AllowArgs {
    /// File of records, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// `flow_id` of the denied flow; its end is enough where no other has it
    #[arg(long, value_name = "ID")]
    pub flow: String,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}
