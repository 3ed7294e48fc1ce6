//! The queries that Dashboards sends for a panel, made here because there is no Dashboards to make them: the
//! aggregations of a `visState`, the filters of its search source and of the dashboard, and the time range.
//!
//! It models Dashboards' own translation for what the shipped panels use; anything else panics, so that a panel
//! that it does not know cannot pass for one that has been asked.

use dashboards::Object;
use serde_json::{Map, Value, json};

/// A query as it is sent.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whom it asks: the title of the index pattern.
    pub index: String,
    /// The body of `_search`.
    pub body: Value,
    /// Ids of the aggregations that group, from the outside in.
    pub groups: Vec<String>,
    /// Ids and types of those that count, but for plain numbers of records.
    pub numbers: Vec<(String, String)>,
}

/// A time range, in RFC 3339.
#[derive(Clone, Debug)]
pub struct Range {
    /// From when on.
    pub from: String,
    /// Until when.
    pub to: String,
}

/// Title of the index pattern that a reference leads to.
fn index(object: &Object, name: &str) -> String {
    let id = object
        .referred(name)
        .unwrap_or_else(|| panic!("{object}: no {name}"));
    let mut all = dashboards::objects().iter();
    let pattern = all.find(|o| o.kind() == "index-pattern" && o.id() == id);
    pattern
        .unwrap_or_else(|| panic!("{object}: no pattern {id}"))
        .title()
        .to_owned()
}

/// The condition of all filters: those of the panel, those of the dashboard, and the time range.
fn condition(source: &Value, filters: &[Value], range: &Range) -> Value {
    let own = source["filter"].as_array().into_iter().flatten();
    let (mut must, mut must_not) = (vec![json!({"match_all": {}})], Vec::new());
    for filter in own.chain(filters) {
        let list = if filter["meta"]["negate"] == true {
            &mut must_not
        } else {
            &mut must
        };
        list.push(filter["query"].clone());
    }
    let asked = must.split_off(1);
    let mut asked = asked;
    asked.push(json!({"range": {"@timestamp": {
        "gte": range.from, "lte": range.to, "format": "strict_date_optional_time"}}}));
    json!({"bool": {"must": must, "filter": asked, "should": [], "must_not": must_not}})
}

/// What a panel asks OpenSearch; nothing for panels that ask nothing. `filters` are those of the dashboard.
#[must_use]
pub fn query(object: &Object, filters: &[Value], range: &Range) -> Option<Query> {
    let source = object.text("searchSourceJSON").expect("a search source");
    let pattern = source["indexRefName"].as_str();
    match object.kind() {
        "search" => {
            let sort = object.attributes()["sort"].as_array().expect("an order");
            let order = |s: &Value| json!({s[0].as_str().expect("a field"): {"order": s[1], "unmapped_type": "boolean"}});
            Some(Query {
                index: index(object, pattern?),
                body: json!({"size": 500, "version": true, "track_total_hits": true,
                    "sort": sort.iter().map(order).collect::<Vec<_>>(),
                    "query": condition(&source, filters, range)}),
                groups: Vec::new(),
                numbers: Vec::new(),
            })
        }
        "visualization" => {
            let state = object.text("visState").expect("a state");
            if matches!(
                state["type"].as_str(),
                Some("markdown" | "input_control_vis")
            ) {
                return None;
            }
            let all = state["aggs"].as_array().expect("aggregations").clone();
            let grouping =
                |a: &&Value| matches!(a["type"].as_str(), Some("terms" | "date_histogram"));
            let (groups, numbers): (Vec<Value>, Vec<Value>) =
                all.into_iter().partition(|a| grouping(&a));
            let id = |a: &Value| a["id"].as_str().expect("an id").to_owned();
            Some(Query {
                index: index(object, pattern?),
                body: json!({"size": 0, "track_total_hits": true, "query": condition(&source, filters, range),
                    "aggs": nested(&groups, &numbers)}),
                groups: groups.iter().map(id).collect(),
                numbers: numbers
                    .iter()
                    .filter(|a| a["type"] != "count")
                    .map(|a| (id(a), a["type"].as_str().expect("a type").to_owned()))
                    .collect(),
            })
        }
        other => panic!("{object}: no query for {other}"),
    }
}

/// Aggregations of groups in groups, with the numbers in the innermost.
fn nested(groups: &[Value], numbers: &[Value]) -> Value {
    let mut level = Map::new();
    let Some((group, inner)) = groups.split_first() else {
        level.extend(numbers.iter().filter_map(number));
        return Value::Object(level);
    };
    let mut aggregation = grouped(group, numbers);
    let mut below = nested(inner, numbers);
    // What a group is ordered by has to be known at its own level too.
    let by = group["params"]["orderBy"].as_str();
    let ordering = numbers
        .iter()
        .filter(|n| n["id"].as_str() == by)
        .filter_map(number);
    below.as_object_mut().expect("an object").extend(ordering);
    if below.as_object().is_some_and(|b| !b.is_empty()) {
        aggregation["aggs"] = below;
    }
    level.insert(group["id"].as_str().expect("an id").to_owned(), aggregation);
    Value::Object(level)
}

/// Parameters that a panel adds as JSON of its own.
fn merged(mut params: Value, one: &Value) -> Value {
    if let Some(text) = one["params"]["json"].as_str() {
        let more: Map<String, Value> = serde_json::from_str(text).expect("JSON");
        params.as_object_mut().expect("an object").extend(more);
    }
    params
}

/// An aggregation that counts; nothing for plain numbers of records, which every answer has.
fn number(one: &Value) -> Option<(String, Value)> {
    let class = one["type"].as_str().expect("a type");
    if class == "count" {
        return None;
    }
    assert!(
        matches!(class, "sum" | "avg" | "max" | "min" | "cardinality"),
        "no query for {class}"
    );
    let params = merged(json!({"field": one["params"]["field"]}), one);
    Some((
        one["id"].as_str().expect("an id").to_owned(),
        json!({class: params}),
    ))
}

/// An aggregation that groups.
fn grouped(one: &Value, numbers: &[Value]) -> Value {
    let params = &one["params"];
    match one["type"].as_str() {
        Some("terms") => {
            let by = params["orderBy"].as_str().expect("an order");
            let counted = numbers.iter().find(|n| n["id"] == params["orderBy"]);
            let by = match counted {
                Some(n) if n["type"] == "count" => "_count",
                _ => by,
            };
            let mut terms = json!({"field": params["field"], "order": {by: params["order"]}, "size": params["size"]});
            let name = params["field"].as_str().expect("a field");
            let text = dashboards::fields::find(name).is_some_and(|f| f.mapping == "keyword");
            if params["missingBucket"] == true && text {
                terms["missing"] = json!("__missing__");
            }
            json!({"terms": merged(terms, one)})
        }
        // `auto` takes about a hundred steps; this is what it takes for a day.
        Some("date_histogram") => json!({"date_histogram": merged(
            json!({"field": params["field"], "fixed_interval": "30m", "time_zone": "UTC", "min_doc_count": 1}), one)}),
        other => panic!("no query for {other:?}"),
    }
}

/// What the panel of controls asks for its lists: (field, index, body).
#[must_use]
pub fn lists(controls: &Object, range: &Range) -> Vec<(String, String, Value)> {
    let state = controls.text("visState").expect("a state");
    let all = state["params"]["controls"]
        .as_array()
        .expect("controls")
        .clone();
    let one = |control: &Value| {
        let field = control["fieldName"].as_str().expect("a field").to_owned();
        let name = control["indexPatternRefName"]
            .as_str()
            .expect("a reference");
        let body = json!({"size": 0, "query": condition(&Value::Null, &[], range), "aggs": {"termsAgg": {"terms": {
            "field": field, "size": control["options"]["size"], "order": {"_count": control["options"]["order"]}}}}});
        (field, index(controls, name), body)
    };
    all.iter().map(one).collect()
}

/// The filter that a control makes of the value that is picked.
#[must_use]
pub fn picked(field: &str, value: &str) -> Value {
    json!({"meta": {"negate": false, "disabled": false, "key": field, "type": "phrase", "params": {"query": value}},
        "query": {"match_phrase": {field: value}}})
}

/// A PromQL query with the values that are picked for its variables, as Dashboards puts them in: what would mean
/// something in a pattern is escaped, several are alternatives.
#[must_use]
pub fn interpolated(query: &str, values: &[(&str, &[&str])]) -> String {
    let escaped = |value: &&str| -> String {
        let special = |c: char| r"\.*+?^$|()[]{}".contains(c);
        value
            .chars()
            .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
            .collect()
    };
    values
        .iter()
        .fold(query.to_owned(), |query, (name, picked)| {
            let choices: Vec<_> = picked.iter().map(escaped).collect();
            query.replace(&format!("${{{name}}}"), &format!("({})", choices.join("|")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(id: &str) -> &'static Object {
        let mut all = dashboards::objects().iter();
        all.find(|o| o.id() == id && o.kind() != "index-pattern")
            .unwrap()
    }

    fn range() -> Range {
        Range {
            from: "a".to_owned(),
            to: "b".to_owned(),
        }
    }

    #[test]
    fn groups_are_nested_and_numbers_are_where_they_order_and_inside() {
        let query = query(panel("clawker-denied-names"), &[], &range()).unwrap();
        assert_eq!(query.index, "clawker-egress");
        let outer = &query.body["aggs"]["3"];
        assert_eq!(
            outer["terms"],
            json!({"field": "attributes.qname", "order": {"1": "desc"}, "size": 50})
        );
        let flows = json!({"sum": {"field": "attributes.count", "missing": 1}});
        assert_eq!(outer["aggs"]["1"], flows);
        let inner = &outer["aggs"]["4"];
        assert_eq!(inner["terms"]["missing"], "__missing__");
        assert_eq!(
            inner["aggs"],
            json!({"1": flows, "2": {"max": {"field": "@timestamp"}}})
        );
        assert_eq!(query.groups, ["3", "4"]);
    }

    #[test]
    fn filters_are_asked_or_excluded() {
        let query = query(
            panel("clawker-no-name"),
            &[picked("attributes.agent", "web")],
            &range(),
        )
        .unwrap();
        let all = &query.body["query"]["bool"];
        assert_eq!(all["must_not"].as_array().unwrap().len(), 2);
        assert_eq!(
            all["filter"][0],
            json!({"match_phrase": {"attributes.agent": "web"}})
        );
        assert_eq!(all["filter"][1]["range"]["@timestamp"]["gte"], "a");
    }

    #[test]
    fn values_of_variables_are_no_patterns() {
        let query = interpolated("up{agent=~`${agent}`}", &[("agent", &["a.b", "c"])]);
        assert_eq!(query, r"up{agent=~`(a\.b|c)`}");
    }
}
