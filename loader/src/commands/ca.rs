//! `ca …`: the authority that agents are to believe.

use super::CommandError;
use crate::{
    ca::{self, Authority, CaError},
    cli::CaCommand,
};
use jiff::Zoned;
use std::io::Write as _;

pub(super) fn ca(command: CaCommand) -> Result<u8, CommandError> {
    match command {
        CaCommand::Init { dir, keep } => match ca::init(&dir, &Zoned::now()) {
            Err(CaError::Exists(_)) if keep => {
                // One that cannot be used should be told now, not when it is needed.
                Authority::load(&dir)?;
                println!("{}: there is one, which stays", dir.display());
            }
            made => {
                made?;
                println!(
                    "{}: made; `ebpf-manager ca export` prints what agents need",
                    dir.display()
                );
            }
        },
        CaCommand::Export { dir } => {
            let certificate = ca::export(&dir)?;
            let mut out = std::io::stdout().lock();
            out.write_all(certificate.as_bytes())
                .map_err(CommandError::Output)?;
        }
    }
    Ok(0)
}
