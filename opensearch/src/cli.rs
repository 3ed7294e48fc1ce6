//! What the user typed: definitions only, no effects.

use crate::streams::Retention;
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, time::Duration};

/// Prepares OpenSearch and Dashboards for the monitor's data streams.
#[derive(Debug, Parser)]
#[command(
    name = "provision",
    version,
    about = "Prepares OpenSearch and Dashboards for the monitor's data streams",
    long_about = "Makes what the monitor needs in OpenSearch before the first record is written: retention policies, templates, the pipeline that keeps every record, the data streams, roles. Then the data source for Prometheus, and the dashboards. It can be run as often as one likes: what is there is brought up to date, and nothing is deleted.",
    after_long_help = "The passwords are taken from the environment only: OPENSEARCH_INITIAL_ADMIN_PASSWORD is that of --user. CLAWKER_COLLECTOR_PASSWORD, CLAWKER_VIEWER_PASSWORD and CLAWKER_DASHBOARDS_PASSWORD are those of the users that it makes where security is on and they are not laid down in files.\n\nExit codes: 0 ok, 1 something is not as it should be, 2 wrong use.\n\nExamples:\n  provision --opensearch http://127.0.0.1:9200                       # without security and dashboards\n  provision --opensearch https://opensearch:9200 --ca ca.pem --dashboards http://dashboards:5601 --prometheus http://prometheus:9090\n  provision --opensearch http://127.0.0.1:9200 --retention egress=90d --retention coredns=7d\n  provision check --opensearch http://127.0.0.1:9200                 # change nothing\n  provision --opensearch http://127.0.0.1:9200 --json | jq '.steps[] | select(.outcome == \"failed\")'",
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do instead of preparing everything.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Where, and what.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// What to do instead of preparing everything.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See whether everything is there, and change nothing
    #[command(
        after_long_help = "Exit code 0 if so, 1 if something is missing or of another version.\n\nExample:\n  provision check --opensearch https://opensearch:9200 --ca ca.pem"
    )]
    Check(TargetArgs),
    /// Print a completion script for a shell
    #[command(
        after_long_help = "Examples:\n  provision completions bash | sudo tee /etc/bash_completion.d/provision\n  provision completions fish > ~/.config/fish/completions/provision.fish"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where, and what.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// Address of OpenSearch
    #[arg(
        long,
        value_name = "URL",
        env = "OPENSEARCH_URL",
        default_value = "http://127.0.0.1:9200"
    )]
    pub opensearch: String,
    /// Address of Dashboards (default: no dashboards)
    #[arg(long, value_name = "URL", env = "CLAWKER_DASHBOARDS_URL")]
    pub dashboards: Option<String>,
    /// Address of Prometheus as OpenSearch reaches it (default: no data source)
    #[arg(long, value_name = "URL", env = "CLAWKER_PROMETHEUS_URL")]
    pub prometheus: Option<String>,
    /// Who asks, where security is on; the password is in OPENSEARCH_INITIAL_ADMIN_PASSWORD
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub user: String,
    /// Authority to check certificates with, PEM; no other is trusted then (default: this machine's)
    #[arg(long, value_name = "FILE", env = "CLAWKER_CA")]
    pub ca: Option<PathBuf>,
    /// How long to wait for OpenSearch and for Dashboards (90s, 5m)
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
    /// How long a stream is kept, several times if need be (egress=90d); see docs/retention.md
    #[arg(
        long,
        value_name = "STREAM=DAYS",
        env = "CLAWKER_RETENTION",
        value_delimiter = ','
    )]
    pub retention: Vec<Retention>,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("a time is a number and s, m or h, for example 90s".to_owned()),
    };
    let number = text.strip_suffix(unit).and_then(|n| n.parse::<u32>().ok());
    let number = number.ok_or("a time is a number and s, m or h, for example 90s")?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["5", "m", "", "-3s", "5 m", "9999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
