//! `policy learn`: from records to a policy on standard output.

use super::{super::CommandError, load, print};
use crate::{cli::LearnArgs, resolvers, seen};
use ::policy::{Base, Form, Learner, Resolver};

pub(super) fn learn(args: &LearnArgs) -> Result<u8, CommandError> {
    let base = args.base.as_deref().map(load).transpose()?;
    let trusted = match &base {
        Some(file) => resolvers::known(file.policy.resolvers()),
        None => resolvers::known(&[Resolver::System]),
    };
    let base = base.map(|file| Base {
        policy: file.policy,
        name: file.name,
        beyond: true,
    });
    let mut learner = Learner::new(base, trusted);
    let others = seen::read(&args.files, |seen, outcome| {
        seen.observe(outcome, |observation| learner.add(observation));
    })?;
    if others > 0 {
        anstream::eprintln!("lines about something else than a flow, passed over: {others}");
    }
    print(&learner.finish(args.wildcards).render(Form::Printed)?)?;
    Ok(0)
}
