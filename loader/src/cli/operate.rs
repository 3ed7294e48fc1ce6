//! Arguments of `bypass` and `enforce`.

use crate::{
    bypass::{LONGEST, MAX_REASON, SHORTEST},
    whom::Whom,
};
use clap::Args;
use jiff::SignedDuration;
use std::time::Duration;

/// What `bypass --help` says at its end.
pub(super) const BYPASS_HELP: &str = "\
Everything passes but the built-in deny set (cloud metadata, link-local). Every flow of that time has the verdict BYPASSED, with its bytes and its end. When the time is up the programs in the kernel end it by themselves, whoever is alive: from then on flows are judged by the policy again, and a live one that the policy denies is cut. Another bypass takes the place of a running one.

Everybody who has this name gets it: several containers, several instances. Each is told.

Asks the loader, so root or membership of the instance's control group will do. Where no loader answers, root writes it into the kernel's maps directly; the record of it then waits in a file, which is named.

Exit codes: 0 done for everybody meant, 1 not for all, 2 wrong use, or nobody has this name.

Examples:
  sudo ebpf-manager bypass --agent reviewer --for 5m --reason \"debug npm\"
  sudo ebpf-manager bypass --agent reviewer --project acme --for 90s --reason \"ticket 4711\" --json
  sudo ebpf-manager bypass --instance run-4711 --for 1h --reason \"first install\"
  sudo ebpf-manager enforce --agent reviewer";

/// What `enforce --help` says at its end.
pub(super) const ENFORCE_HELP: &str = "\
Flows are judged by the policy again at once; a live one that it denies is cut at its next packet. Without --agent, --project and --instance it ends every bypass. Who is enforced already stays so.

Works without a loader, as `bypass` does.

Exit codes: 0 everybody meant is enforced, 1 not all, 2 wrong use, or nobody has this name.

Examples:
  sudo ebpf-manager enforce
  sudo ebpf-manager enforce --agent reviewer --project acme --reason \"done\"";

/// Arguments of `bypass`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("meant").args(["agent", "project", "instance"]).multiple(true).required(true))]
pub struct BypassArgs {
    /// Whose.
    #[command(flatten)]
    pub whom: Whom,
    /// Only in this instance, as `dump` names it
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// For how long: 90s, 5m, 2h; at most 24h
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub time: Duration,
    /// Why; it goes into the records
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
    /// One JSON object for each slot: the audit record
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `enforce`.
#[derive(Debug, Args)]
pub struct EnforceArgs {
    /// Whose.
    #[command(flatten)]
    pub whom: Whom,
    /// Only in this instance, as `dump` names it
    #[arg(long, value_name = "ID")]
    pub instance: Option<String>,
    /// Why; it goes into the records
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// One JSON object for each slot that was bypassed: the audit record
    #[arg(long)]
    pub json: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    let units = || "write a time with its unit: 90s, 5m, 2h".to_owned();
    let time: SignedDuration = text.parse().map_err(|_| units())?;
    let time = Duration::try_from(time).map_err(|_| units())?;
    if (SHORTEST..=LONGEST).contains(&time) {
        Ok(time)
    } else {
        Err("a bypass lasts from 1s to 24h".to_owned())
    }
}

fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("say why; it goes into the records".to_owned());
    }
    if text.len() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(format!("one line of at most {MAX_REASON} bytes"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        for (text, secs) in [("90s", 90), ("5m", 300), ("1h 30m", 5400), ("24h", 86_400)] {
            assert_eq!(time(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for wrong in ["", "5", "-5m", "0s", "25h", "5 parsecs", "24h 1s", "999ms"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_reason_is_a_line() {
        assert!(reason("debug npm").is_ok());
        for wrong in ["", "  ", "a\nb", &"x".repeat(MAX_REASON + 1)] {
            assert!(reason(wrong).is_err(), "{wrong:?}");
        }
    }
}
