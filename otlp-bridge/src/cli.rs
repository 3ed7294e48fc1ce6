//! What the user typed: definitions only, no effects.

mod values;

use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Where the bridge's socket is.
const SOCKET: &str = "/run/clawker/bridge/bridge.sock";
/// Where the spool is.
const SPOOL: &str = "/var/lib/clawker/spool";

/// Takes telemetry in, stamps whose it is, keeps it on disk, and delivers it.
#[derive(Debug, Parser)]
#[command(
    name = "otlp-bridge",
    version,
    about = "Stamps identity on telemetry, keeps it on disk, delivers it",
    long_about = "Stands between the sources (the loader, the collector's intake) and the collector. It says yes to a record only when it is on the disk, and forgets it only when the receiver has it. It needs no privilege: only a directory of its own.",
    after_long_help = "Every option of `serve` but --header can be given in the environment as well.\n\nExit codes: 0 ok, 1 failed, 2 wrong use.\n\nStart here:\n  otlp-bridge serve --to http://collector:4318/v1/logs    # run\n  otlp-bridge status                                      # what waits, what fails\n  otlp-bridge check-health                                # for a container's health check"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the bridge
    #[command(
        after_long_help = "The spool is bound by --max-bytes and --max-age. When it is full, allowed flows go first, then records of other sources, then denied and bypassed flows and audit, the oldest first; all of it is declared by records in clawker-overseer.\n\nSIGHUP tries again what was set aside because the receiver did not take it; the bridge does so by itself from time to time. SIGTERM and SIGINT end it after the commit that is under way. What was not delivered is delivered after the next start.\n\nExamples:\n  otlp-bridge serve --to http://127.0.0.1:4318/v1/logs\n  otlp-bridge serve --to https://otel.example.com:4318/v1/logs --ca ca.pem --cert bridge.pem --key bridge.key\n  otlp-bridge serve --to http://collector:4318/v1/logs --spool /data/spool --max-bytes 20G --max-age 30d\n  CLAWKER_BRIDGE_TO=http://collector:4318/v1/logs otlp-bridge serve"
    )]
    Serve(Box<ServeArgs>),
    /// Show what is in the spool, and what stands in the way of it
    #[command(
        after_long_help = "Asks the running bridge over its socket; when none runs, reads the store.\n\nExamples:\n  otlp-bridge status\n  otlp-bridge status --json | jq '.streams[] | select(.set_aside > 0)'"
    )]
    Status(StatusArgs),
    /// Ask the running bridge whether it can keep records; exit code 0 if so, 1 if not
    #[command(
        after_long_help = "Prints nothing when all is well. That nothing can be delivered is no failure of the bridge: it keeps the records meanwhile.\n\nExample (Dockerfile):\n  HEALTHCHECK CMD [\"/otlp-bridge\", \"check-health\"]"
    )]
    CheckHealth(AskArgs),
    /// Print a completion script for a shell
    #[command(
        after_long_help = "Examples:\n  otlp-bridge completions bash | sudo tee /etc/bash_completion.d/otlp-bridge\n  otlp-bridge completions fish > ~/.config/fish/completions/otlp-bridge.fish"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Bounds and place of the spool.
    #[command(flatten)]
    pub spool: SpoolArgs,
    /// Where records go.
    #[command(flatten)]
    pub to: ToArgs,
    /// Where records come from.
    #[command(flatten)]
    pub entrances: EntranceArgs,
    /// What the bridge says about itself on stderr: error, warn, info, debug, or a filter of tracing
    #[arg(
        long,
        value_name = "LEVEL",
        env = "CLAWKER_BRIDGE_LOG",
        default_value = "info"
    )]
    pub log: String,
}

/// Bounds and place of the spool.
#[derive(Debug, Args)]
pub struct SpoolArgs {
    /// Directory of the spool; made if it is not there
    #[arg(long, value_name = "DIR", env = "CLAWKER_BRIDGE_SPOOL", default_value = SPOOL)]
    pub spool: PathBuf,
    /// What records may take in the spool (512M, 20G); give its volume three times as much
    #[arg(long, value_name = "SIZE", env = "CLAWKER_BRIDGE_MAX_BYTES", default_value = "1G", value_parser = values::size)]
    pub max_bytes: u64,
    /// How old a record may become in the spool (12h, 7d)
    #[arg(long, value_name = "AGE", env = "CLAWKER_BRIDGE_MAX_AGE", default_value = "7d", value_parser = values::age)]
    pub max_age: Duration,
}

/// Where records go, and how.
#[derive(Debug, Args)]
pub struct ToArgs {
    /// OpenTelemetry receiver that the records go to
    ///
    /// http://HOST:PORT/v1/logs or https://HOST:PORT/v1/logs: OTLP over HTTP, which carries long answers
    /// whole. Without a path it is OTLP over gRPC. The receiver must answer only when the records are
    /// stored: no queue and no retry of its own.
    #[arg(long, value_name = "URL", env = "CLAWKER_BRIDGE_TO")]
    pub to: String,
    /// OpenTelemetry receiver for metrics, the agents' and the bridge's own (default: that of --to)
    #[arg(long, value_name = "URL", env = "CLAWKER_BRIDGE_METRICS_TO")]
    pub metrics_to: Option<String>,
    /// Header of every request, several times if need be
    ///
    /// K=@FILE takes the value from a file. A value on the command line can be read by every process of
    /// this machine.
    #[arg(long, value_name = "K=V", value_parser = values::header)]
    pub header: Vec<(String, String)>,
    /// Authorities to check the receiver's certificate with, PEM (default: this machine's)
    #[arg(long, value_name = "FILE", env = "CLAWKER_BRIDGE_CA")]
    pub ca: Option<PathBuf>,
    /// Certificate to show to the receiver, PEM, with its chain
    #[arg(
        long,
        value_name = "FILE",
        env = "CLAWKER_BRIDGE_CERT",
        requires = "key"
    )]
    pub cert: Option<PathBuf>,
    /// Key of --cert, PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "CLAWKER_BRIDGE_KEY",
        requires = "cert"
    )]
    pub key: Option<PathBuf>,
    /// How long the receiver may take for an answer (30s, 2m)
    ///
    /// Longer than the receiver itself waits for its store: no answer means that nothing is known, and the
    /// records are sent again.
    #[arg(long, value_name = "TIME", env = "CLAWKER_BRIDGE_TIMEOUT", default_value = "40s", value_parser = values::age)]
    pub timeout: Duration,
}

/// Where records come from.
#[derive(Debug, Args)]
pub struct EntranceArgs {
    /// Unix socket for the loader, and for `status`
    #[arg(long, value_name = "PATH", env = "CLAWKER_BRIDGE_SOCKET", default_value = SOCKET)]
    pub socket: PathBuf,
    /// Group of that socket; only root and the bridge's own user may use it all the same
    #[arg(long, value_name = "GROUP", env = "CLAWKER_BRIDGE_SOCKET_GROUP", value_parser = values::group)]
    pub socket_group: Option<u32>,
    /// Address for the collector's intake, OTLP over gRPC and HTTP; several times if need be
    ///
    /// Whoever reaches it speaks for the collector: put it into a network that holds the two alone.
    #[arg(
        long,
        value_name = "ADDR",
        env = "CLAWKER_BRIDGE_LISTEN",
        value_delimiter = ','
    )]
    pub listen: Vec<SocketAddr>,
    /// File with the leases that the loader publishes: who held which address when
    #[arg(
        long,
        value_name = "FILE",
        env = "CLAWKER_BRIDGE_LEASES",
        default_value = "/run/clawker/leases/leases.json"
    )]
    pub leases: PathBuf,
}

/// How to reach a running bridge.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Unix socket of the running bridge
    #[arg(long, value_name = "PATH", env = "CLAWKER_BRIDGE_SOCKET", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The running bridge.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Directory of the spool, for when no bridge runs
    #[arg(long, value_name = "DIR", env = "CLAWKER_BRIDGE_SPOOL", default_value = SPOOL)]
    pub spool: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}
