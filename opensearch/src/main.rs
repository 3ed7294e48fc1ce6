//! `provision`: prepares OpenSearch and Dashboards for the monitor's data streams.

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use provision::{
    cli::{Cli, Command, TargetArgs},
    run::{self, Mode},
};
use std::{
    env,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{self, ExitCode},
};

/// The authorities that the TLS library trusts.
const AUTHORITIES: &str = "SSL_CERT_FILE";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => apply(&cli.target, Mode::Prepare),
        Some(Command::Check(target)) => apply(&target, Mode::Check),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "provision", &mut io::stdout());
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            const RED: Style = AnsiColor::Red.on_default().bold();
            anstream::eprintln!("{RED}error{RED:#}: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
fn apply(args: &TargetArgs, mode: Mode) -> anyhow::Result<bool> {
    if let Some(ca) = &args.ca {
        trust(ca)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let report = runtime.block_on(run::run(args, mode, |name| env::var(name).ok()));
    let mut out = anstream::stdout();
    let text = if args.json {
        report.json()
    } else {
        report.text()
    };
    match out.write_all(text.as_bytes()) {
        // A reader that went away is no failure.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e).context("standard output"),
        _ => Ok(report.failures() == 0),
    }
}

/// Sees that only this authority is trusted. The client can be given none, but takes those of the environment,
/// which a running program cannot change: so this one starts again, once.
fn trust(ca: &Path) -> anyhow::Result<()> {
    if env::var_os(AUTHORITIES).is_some_and(|set| set == *ca) {
        return Ok(());
    }
    std::fs::metadata(ca).with_context(|| format!("--ca {}", ca.display()))?;
    let myself = env::current_exe().context("this program's own file")?;
    let mut again = process::Command::new(myself);
    again
        .args(env::args_os().skip(1))
        .env(AUTHORITIES, ca)
        .env_remove("SSL_CERT_DIR");
    Err(again.exec()).context("this program cannot be started again")
}
