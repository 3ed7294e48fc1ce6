//! `policy allow`: the rule that would have let a denied flow through.

use super::{
    super::{CommandError, FAILED},
    AskError, print, print_json,
};
use crate::{
    cli::AllowArgs,
    render::line::printable,
    seen::{self, Seen},
};
use ::policy::{Outcome, Suggestion};
use serde::Serialize;

/// What `--json` says.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    flow_id: &'a str,
    /// The item for `rules:`; absent where no rule helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// What one should know before adding it.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    /// Why no rule helps, and what would.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub(super) fn allow(args: &AllowArgs) -> Result<u8, CommandError> {
    let (seen, outcome) = find(args)?;
    let flow_id = seen.flow_id.as_deref().unwrap_or_default();
    let found = suggestion(&seen, outcome);
    if args.json {
        let rule = found.as_ref().ok();
        print_json(&Answer {
            flow_id,
            rule: rule.map(ToString::to_string),
            note: rule.and_then(|rule| rule.note.as_deref()),
            why: found.as_ref().err().cloned(),
        })?;
        return Ok(u8::from(found.is_err()));
    }
    match found {
        Ok(rule) => {
            let note = rule.note.as_ref().map(|note| format!(" # {note}"));
            print(&format!("  {rule}{}\n", note.unwrap_or_default()))?;
            Ok(0)
        }
        Err(why) => {
            let flow_id = printable(flow_id);
            anstream::eprintln!("no rule would let {flow_id} through: {}", printable(&why));
            Ok(FAILED)
        }
    }
}

fn suggestion(seen: &Seen<'_>, outcome: Outcome) -> Result<Suggestion, String> {
    if seen.was_cut() {
        let why = "it was allowed, and cut when the policy changed or a bypass ended; `policy explain` tells what the new policy says";
        return Err(why.to_owned());
    }
    match outcome {
        Outcome::Denied => seen.suggest().map_err(|why| why.to_string()),
        Outcome::Allowed => Err("it was allowed".to_owned()),
        Outcome::Bypassed => {
            let why = "it passed, by a bypass; `policy explain` tells what the policy says";
            Err(why.to_owned())
        }
    }
}

/// The one record that is meant.
fn find(args: &AllowArgs) -> Result<(Seen<'static>, Outcome), CommandError> {
    let mut found = Vec::new();
    let mut exact = None;
    let end = format!("-{}", args.flow);
    seen::read(std::slice::from_ref(&args.from), |seen, outcome| {
        let id = seen.flow_id.as_deref().unwrap_or_default();
        if id == args.flow {
            exact = Some((seen.clone(), outcome));
        } else if id.ends_with(&end) {
            found.push((seen.clone(), outcome));
        }
    })?;
    if let Some(one) = exact {
        return Ok(one);
    }
    let (file, flow, count) = (
        args.from.display().to_string(),
        args.flow.clone(),
        found.len(),
    );
    match found.pop() {
        Some(one) if count == 1 => Ok(one),
        Some(_) => Err(AskError::Flows { file, flow, count }.into()),
        None => Err(AskError::NoFlow { file, flow }.into()),
    }
}
