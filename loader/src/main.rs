//! Arguments in, exit code out.

use clap::Parser as _;
use ebpf_manager::{cli::Cli, commands};
use std::process::ExitCode;

fn main() -> ExitCode {
    // A reader that went away (`dump | head`) is no failure: let the signal end us quietly.
    commands::default_sigpipe();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // `--help` and `--version` are errors to clap, with exit code 0.
            let code = if e.use_stderr() {
                commands::WRONG_USE
            } else {
                0
            };
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    match commands::execute(cli) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            commands::report(&e);
            ExitCode::from(commands::exit_code(&e))
        }
    }
}
