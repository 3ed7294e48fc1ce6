//! Everything, in the order in which it has to be done.

use crate::{
    access,
    answer::CallError,
    boards, check,
    cli::TargetArgs,
    client::Client,
    report::{Outcome, Report},
    store, streams, wait,
};
use serde_json::Value;

/// Where the administrator's password is.
pub const PASSWORD: &str = "OPENSEARCH_INITIAL_ADMIN_PASSWORD";
/// The first version with everything that is used.
const OLDEST: u64 = 3;

/// Whether everything is made, or only looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Make what is missing, bring the rest up to date.
    Prepare,
    /// Change nothing.
    Check,
}

/// Does it; what came of it. `variable` looks a variable of the environment up.
pub async fn run(
    args: &TargetArgs,
    mode: Mode,
    variable: impl Fn(&str) -> Option<String>,
) -> Report {
    let mut report = Report::default();
    let password = variable(PASSWORD).filter(|p| !p.is_empty());
    let user = password.as_deref().map(|p| (args.user.as_str(), p));
    let client = match open(args, user).await {
        Ok((client, version)) => {
            report.done(
                "OpenSearch",
                version,
                Outcome::Right,
                args.opensearch.as_str(),
            );
            client
        }
        Err(e) => {
            let advice = match &e {
                CallError::Refused { status: 401, .. } if password.is_none() => {
                    "security is on: set OPENSEARCH_INITIAL_ADMIN_PASSWORD to the password of --user"
                }
                e => e.advice(),
            };
            report.failed("OpenSearch", args.opensearch.as_str(), &e, advice);
            return report;
        }
    };
    let streams = streams::all(&args.retention);
    if mode == Mode::Check {
        check::store(&client, &streams, &mut report).await;
        return report;
    }
    store::prepare(&client, &streams, &mut report).await;
    access::prepare(&client, &access::users(&variable), &mut report).await;
    if let Some(prometheus) = &args.prometheus {
        boards::data_source(&client, prometheus, &mut report).await;
    }
    if let Some(url) = &args.dashboards {
        match open_dashboards(args, url, user).await {
            Ok(client) => boards::prepare(&client, &mut report).await,
            Err(e) => report.failed("Dashboards", url.as_str(), &e, e.advice()),
        }
    }
    report
}

/// Waits for OpenSearch; its version.
async fn open(
    args: &TargetArgs,
    user: Option<(&str, &str)>,
) -> Result<(Client, String), CallError> {
    let client = Client::new(&args.opensearch, user)?;
    let answer = wait::answer(&client, "/", "OpenSearch", args.timeout).await?;
    let version = answer["version"]["number"].as_str().unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|m| m.parse::<u64>().ok());
    if major.is_none_or(|m| m < OLDEST) {
        let what = "no version from 3 on";
        return Err(crate::answer::unexpected(
            "GET",
            "/",
            what,
            &answer["version"],
        ));
    }
    // It answers before it has read what it holds.
    let path = "/_cluster/health?wait_for_status=yellow&timeout=10s";
    wait::answer(&client, path, "the indices of OpenSearch", args.timeout).await?;
    Ok((client, version.to_owned()))
}

async fn open_dashboards(
    args: &TargetArgs,
    url: &str,
    user: Option<(&str, &str)>,
) -> Result<Client, CallError> {
    let client = Client::new(url, user)?;
    let answer = wait::answer(&client, "/api/status", "Dashboards", args.timeout).await?;
    match answer["status"]["overall"]["state"].as_str() {
        Some("red") => Err(crate::answer::unexpected(
            "GET",
            "/api/status",
            "the state red",
            &Value::from("its log says why"),
        )),
        _ => Ok(client),
    }
}
