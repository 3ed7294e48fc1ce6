//! `ca …`: the authority that agents are to believe.

use super::CommandError;
use crate::{ca, cli::CaCommand};
use jiff::Zoned;
use std::io::Write as _;

pub(super) fn ca(command: CaCommand) -> Result<u8, CommandError> {
    match command {
        CaCommand::Init { dir } => {
            ca::init(&dir, &Zoned::now())?;
            println!(
                "{}: made; `ebpf-manager ca export` prints what agents need",
                dir.display()
            );
        }
        CaCommand::Export { dir } => {
            let certificate = ca::export(&dir)?;
            let mut out = std::io::stdout().lock();
            out.write_all(certificate.as_bytes())
                .map_err(CommandError::Output)?;
        }
    }
    Ok(0)
}
