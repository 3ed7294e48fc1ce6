//! `--otlp`: from arguments to a way for records, and what is said at its end.

use super::{CommandError, warn};
use crate::{cli::OtlpArgs, export::Export, sink::Sink, telemetry::log};
use std::{fs, path::PathBuf, time::Duration};
use wire::{Endpoint, Options};

/// How long records may take to arrive when the run is over.
const LIMIT: Duration = Duration::from_secs(10);

/// The way to the receiver, if there is to be one, also for what this process has to say from now on.
/// Nothing is sent yet.
pub(super) fn export(args: &OtlpArgs) -> Result<Option<Export>, CommandError> {
    Ok(endpoint(args)?.map(|to| {
        let mut export = Export::new(to);
        export.log = log::listen();
        export
    }))
}

/// The receiver, if there is to be one.
pub(super) fn endpoint(args: &OtlpArgs) -> Result<Option<Endpoint>, CommandError> {
    let Some(url) = &args.otlp else {
        return Ok(None);
    };
    let headers = args.otlp_header.iter().map(|h| header(h));
    let options = Options {
        headers: headers.collect::<Result<_, _>>()?,
        ca: args.otlp_ca.clone(),
        identity: args.otlp_cert.clone().zip(args.otlp_key.clone()),
        ..Options::default()
    };
    Ok(Some(Endpoint::new(url, &options)?))
}

fn header(given: &str) -> Result<(String, String), CommandError> {
    let Some((name, value)) = given.split_once('=') else {
        return Err(CommandError::OtlpHeader);
    };
    let value = match value.strip_prefix('@') {
        None => value.to_owned(),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|source| CommandError::OtlpHeaderFile {
                name: name.to_owned(),
                path: PathBuf::from(path),
                source,
            })?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    Ok((name.to_owned(), value))
}

/// Waits for what is under way, tells what is missing, and returns how many records that are.
pub(super) fn finish(sink: &mut Sink) -> u64 {
    let Some(export) = &mut sink.export else {
        return 0;
    };
    let undelivered = export.finish(LIMIT);
    let n = undelivered.records();
    if n > 0 {
        warn(&undelivered.to_string());
    }
    n
}
