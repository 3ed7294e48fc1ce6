//! `policy explain`: what a policy says of one destination, and why.

use super::{super::CommandError, AskError, load, print, print_json};
use crate::{cli::ExplainArgs, render::explain::Answer, resolvers};
use ::policy::{Request, RequestError, Target};

pub(super) fn explain(args: &ExplainArgs) -> Result<u8, CommandError> {
    let target = target(args)?;
    let (agent, project) = identity(args)?;
    let request = request(args)?;
    let file = load(&args.file)?;
    let trusted = resolvers::known(file.policy.resolvers());
    let told = target.ask(&trusted, |question| {
        file.policy
            .explain(agent, project, question, request.as_ref())
    });
    let answer = Answer {
        file: &file.name,
        agent,
        project,
        target: &target,
        request: request.as_ref(),
        trusted: &trusted,
        told: &told,
    };
    if args.json {
        print_json(&answer.json())?;
    } else {
        print(&answer.text(args.all))?;
    }
    Ok(0)
}

fn target(args: &ExplainArgs) -> Result<Target, AskError> {
    let target =
        Target::parse(&args.to, Some(args.proto)).map_err(|source| AskError::Target { source })?;
    match args.addr {
        Some(_) if target.addr.is_some() => Err(AskError::Addr),
        Some(addr) => Ok(target.leading_to(addr)),
        None => Ok(target),
    }
}

/// Agent and project; `--agent project/agent` names both.
fn identity(args: &ExplainArgs) -> Result<(Option<&str>, Option<&str>), AskError> {
    let (agent, project) = (args.agent.as_deref(), args.project.as_deref());
    match (agent.and_then(|agent| agent.split_once('/')), project) {
        (None, project) => Ok((agent, project)),
        (Some((project, agent)), None) => Ok((Some(agent), Some(project))),
        (Some((own, agent)), Some(_)) => Err(AskError::Project(format!("{own}/{agent}"))),
    }
}

fn request(args: &ExplainArgs) -> Result<Option<Request>, AskError> {
    let Some((method, path)) = args.method.as_deref().zip(args.path.as_deref()) else {
        return Ok(None);
    };
    let request = Request::new(method, path).map_err(|error| {
        let (flag, text) = match error {
            RequestError::Method => ("method", method),
            RequestError::Path | RequestError::Query => ("path", path),
        };
        AskError::Request {
            flag,
            text: text.to_owned(),
            error,
        }
    })?;
    Ok(Some(request))
}
