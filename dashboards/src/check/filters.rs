//! The two global filters reach every panel: controls for what asks OpenSearch, variables for what asks
//! Prometheus.

use super::Fault;
use crate::Object;
use serde_json::Value;

/// What is filtered by.
const FILTERS: [&str; 2] = ["agent", "project"];
/// Series that belong to agents begin with this.
const OF_AGENTS: &str = "claude_code_";

fn query(object: &Object) -> String {
    let source = object.text("searchSourceJSON").unwrap_or_default();
    source["query"]["query"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The panel's kind of visualization, if it is one.
fn drawn(object: &Object) -> String {
    let state = object.text("visState").unwrap_or_default();
    state["type"].as_str().unwrap_or_default().to_owned()
}

/// Whether its panel shows records.
fn of_records(object: &Object) -> bool {
    object.kind() == "search"
        || object.kind() == "visualization"
            && !matches!(drawn(object).as_str(), "markdown" | "input_control_vis")
}

/// Fields that a panel of controls filters by.
fn controlled(object: &Object) -> Vec<String> {
    let state = object.text("visState").unwrap_or_default();
    let controls = state["params"]["controls"].as_array().cloned();
    let field = |c: &Value| Some(c["fieldName"].as_str()?.to_owned());
    controls
        .unwrap_or_default()
        .iter()
        .filter_map(field)
        .collect()
}

/// What is wrong with a PromQL query.
fn promql(query: &str) -> Option<&'static str> {
    let selectors: Vec<&str> = query.split(OF_AGENTS).skip(1).collect();
    let narrowed = |selector: &&str| {
        // Series that no value of a filter could reach are asked for by that.
        let none = FILTERS
            .iter()
            .any(|f| selector.contains(&format!("{{{f}=\"\"}}")));
        let by = |f: &&str| selector.contains(&format!("{f}=~`${{{f}}}`"));
        none || FILTERS.iter().all(by)
    };
    if !selectors.iter().all(narrowed) {
        return Some("a series of agents is asked for without the variables agent and project");
    }
    let typed = ["{type=", ",type=", "(type)", "(type,", ", type)", ", type,"];
    if typed.iter().any(|t| query.contains(t)) {
        return Some("a label named `type` breaks the answer of the data source");
    }
    if query.trim().is_empty() {
        return Some("there is no query");
    }
    None
}

/// What is wrong with the variables of a dashboard.
fn variables(object: &Object) -> Option<&'static str> {
    let saved = object.text("variablesJSON").unwrap_or_default();
    let named = |name: &str| {
        let list = saved["variables"].as_array().into_iter().flatten();
        list.into_iter().find(|v| v["name"] == name).cloned()
    };
    for name in FILTERS {
        let Some(variable) = named(name) else {
            return Some("it asks for series of agents and lacks a variable");
        };
        let asks = variable["query"].as_str().unwrap_or_default();
        let right = variable["type"] == "query"
            && variable["language"] == "PPL"
            && variable["multi"] == true
            && variable["includeAll"] == true
            && variable["dataset"]["title"] == "clawker-*"
            && asks.contains(&format!("`attributes.{name}`"));
        if !right {
            return Some("a variable does not list what the controls list");
        }
    }
    None
}

/// What is wrong with the filters of an object.
pub(super) fn faults(object: &Object, all: &[Object]) -> Vec<Fault> {
    let what = match object.kind() {
        "explore" => promql(&query(object)),
        "dashboard" => dashboard(object, all),
        "visualization" if drawn(object) == "input_control_vis" => {
            let fields = controlled(object);
            let both = FILTERS.map(|f| format!("attributes.{f}"));
            let pinned =
                object.text("visState").unwrap_or_default()["params"]["pinFilters"] == true;
            (fields != both || !pinned).then_some("the controls are not agent and project, pinned")
        }
        "visualization" if drawn(object) == "markdown" => links(object, all),
        _ => None,
    };
    what.map(|what| Fault::Filter {
        of: object.to_string(),
        what,
    })
    .into_iter()
    .collect()
}

/// A link of a note to a dashboard that is not here.
fn links(object: &Object, all: &[Object]) -> Option<&'static str> {
    let state = object.text("visState").unwrap_or_default();
    let text = state["params"]["markdown"].as_str().unwrap_or_default();
    let here = |id: &str| all.iter().any(|o| o.kind() == "dashboard" && o.id() == id);
    let mut links = text
        .split("(#/view/")
        .skip(1)
        .filter_map(|l| l.split_once(')'));
    (!links.all(|(id, _)| here(id))).then_some("a link leads to no dashboard")
}

fn dashboard(object: &Object, all: &[Object]) -> Option<&'static str> {
    let panels: Vec<&Object> = object
        .references()
        .filter_map(|(_, kind, id)| all.iter().find(|o| o.kind() == kind && o.id() == id))
        .collect();
    let controls = panels.iter().any(|p| drawn(p) == "input_control_vis");
    if !controls && panels.iter().any(|p| of_records(p)) {
        return Some("it shows records and has no controls");
    }
    let uses = |p: &&&Object| {
        FILTERS
            .iter()
            .any(|f| query(p).contains(&format!("${{{f}}}")))
    };
    if panels
        .iter()
        .filter(|p| p.kind() == "explore")
        .any(|p| uses(&p))
    {
        return variables(object);
    }
    None
}
