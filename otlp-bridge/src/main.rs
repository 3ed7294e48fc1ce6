//! `otlp-bridge`: unprivileged; the only durable store between the sources and the collector.

use anstyle::{AnsiColor, Style};
use clap::{CommandFactory as _, Parser as _};
use jiff::Timestamp;
use otlp_bridge::{
    cli::{AskArgs, Cli, Command, ServeArgs, StatusArgs},
    serve::{self, ServeError},
    spool::{Spool, SpoolError, State},
    status::{self, AskError},
};
use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};
use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, registry, util::SubscriberInitExt as _,
};
use wire::{Volume, log_layer};

/// Crates whose warnings are kept as records: those of this house that run in the bridge.
const OWN_CRATES: &[&str] = &["otlp_bridge", "lease", "wire"];
/// Something failed.
const FAILED: u8 = 1;
/// The user made a mistake.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => run(&args),
        Command::Status(args) => show(&args),
        Command::CheckHealth(args) => healthy(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "otlp-bridge", &mut io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            const RED: Style = AnsiColor::Red.on_default().bold();
            anstream::eprintln!("{RED}error{RED:#}: {e}");
            let mistake = matches!(e.downcast_ref(), Some(ServeError::To(_)))
                || e.is::<tracing_subscriber::filter::ParseError>();
            ExitCode::from(if mistake { WRONG_USE } else { FAILED })
        }
    }
}

fn run(args: &ServeArgs) -> Result<(), Box<dyn Error>> {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let shown = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .with_target(false)
        .with_filter(EnvFilter::try_new(&args.log)?);
    let (kept, log) = log_layer::layer(OWN_CRATES, Volume::default());
    registry().with(shown).with(kept).init();
    Ok(serve::serve(args, log)?)
}

fn show(args: &StatusArgs) -> Result<(), Box<dyn Error>> {
    let state = look(args)?;
    let text = if args.json {
        serde_json::to_string(&state)? + "\n"
    } else {
        status::table(&state, Timestamp::now())
    };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that went away is no failure.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// The running bridge's word; the store itself when none runs.
fn look(args: &StatusArgs) -> Result<State, Box<dyn Error>> {
    match status::ask(&args.ask.socket) {
        Err(AskError::NotRunning(socket)) => Spool::look(&args.spool).map_err(|e| match e {
            SpoolError::InUse(spool) => format!(
                "the spool {} is in use, but no bridge listens on {}: give the --socket of the bridge that uses it",
                spool.display(),
                socket.display()
            )
            .into(),
            e => e.into(),
        }),
        state => Ok(state?),
    }
}

fn healthy(args: &AskArgs) -> Result<(), Box<dyn Error>> {
    match status::ask(&args.socket)?.trouble {
        None => Ok(()),
        Some(trouble) => Err(trouble.into()),
    }
}
