//! Ways to break an object.

use crate::Object;
use serde_json::{Value, json};

/// A way to break an object; false where it does not apply to it.
pub(super) type Break = fn(&mut Object) -> bool;

/// Changes an attribute that is JSON inside a string.
fn edit(object: &mut Object, text: &str, change: impl FnOnce(&mut Value) -> bool) -> bool {
    let Some(mut value) = object.text(text) else {
        return false;
    };
    if !change(&mut value) {
        return false;
    }
    let attributes = &mut object.value_mut()["attributes"];
    let place = match text {
        "searchSourceJSON" => &mut attributes["kibanaSavedObjectMeta"][text],
        _ => &mut attributes[text],
    };
    *place = Value::String(value.to_string());
    true
}

/// Changes the first item of a list that `which` takes.
fn first(
    list: &mut Value,
    which: impl Fn(&Value) -> bool,
    change: impl FnOnce(&mut Value),
) -> bool {
    let mut items = list.as_array_mut().into_iter().flatten();
    items.find(|i| which(i)).map(change).is_some()
}

fn any(_: &Value) -> bool {
    true
}

fn attribute(object: &mut Object, name: &str, value: Value) -> bool {
    let kind = object.kind().to_owned();
    object.value_mut()["attributes"][name] = value;
    !kind.is_empty()
}

/// Replaces a part of a PromQL query.
fn requery(object: &mut Object, from: &str, to: &str) -> bool {
    edit(object, "searchSourceJSON", |s| {
        let query = s["query"]["query"].as_str().unwrap_or_default().to_owned();
        s["query"]["query"] = json!(query.replacen(from, to, 1));
        s["query"]["language"] == "PROMQL" && query.contains(from)
    })
}

/// (what is broken, how the fault is told, how it is done)
pub(super) const BREAKS: &[(&str, &str, Break)] = &[
    ("an unknown type", "unknown type", |o| {
        o.value_mut()["type"] = json!("lens");
        true
    }),
    ("an attribute of Kibana", "is no attribute", |o| {
        attribute(o, "controlGroupInput", json!({}))
    }),
    ("no title", "`title`", |o| {
        o.kind() != "data-connection" && attribute(o, "title", json!(""))
    }),
    ("a state that is no JSON", "visState", |o| {
        o.kind() == "visualization" && attribute(o, "visState", json!("{\"type\": "))
    }),
    ("panels that are no JSON", "panelsJSON", |o| {
        o.kind() == "dashboard" && attribute(o, "panelsJSON", json!("[{]"))
    }),
    ("options that are no text", "optionsJSON", |o| {
        o.kind() == "dashboard" && attribute(o, "optionsJSON", json!({"useMargins": true}))
    }),
    ("a search source that is none", "searchSourceJSON", |o| {
        let kinds = ["search", "visualization", "dashboard", "explore"];
        kinds.contains(&o.kind())
            && attribute(o, "kibanaSavedObjectMeta", json!({"searchSourceJSON": "x"}))
    }),
    ("a query in words", "searchSourceJSON.query", |o| {
        edit(o, "searchSourceJSON", |s| {
            s["query"]["query"] = json!("attributes.agent: web");
            s["query"]["language"] == "kuery"
        })
    }),
    (
        "a filter that is switched off",
        "searchSourceJSON.filter[0]",
        |o| {
            edit(o, "searchSourceJSON", |s| {
                first(&mut s["filter"], any, |f| {
                    f["meta"]["disabled"] = json!(true);
                })
            })
        },
    ),
    ("a reference that is gone", "used and not given", |o| {
        let list = o.value_mut()["references"].as_array_mut().unwrap();
        list.pop().is_some()
    }),
    ("a reference too many", "given and not used", |o| {
        let list = o.value_mut()["references"].as_array_mut().unwrap();
        list.push(json!({"name": "other", "type": "index-pattern", "id": "clawker-all"}));
        true
    }),
    ("a reference to nothing", "that is not here", |o| {
        first(&mut o.value_mut()["references"], any, |r| {
            r["id"] = json!("clawker-gone");
        })
    }),
    ("a reference of another type", "may not lead to", |o| {
        first(&mut o.value_mut()["references"], any, |r| {
            r["type"] = json!("dashboard");
        })
    }),
    (
        "a column that records do not have",
        "is not one of records",
        |o| {
            let columns = &mut o.value_mut()["attributes"]["columns"];
            columns != &json!(["_source"]) && first(columns, any, |c| *c = json!("attributes.agnt"))
        },
    ),
    ("a column with content", "never stored", |o| {
        let columns = &mut o.value_mut()["attributes"]["columns"];
        columns != &json!(["_source"]) && first(columns, any, |c| *c = json!("attributes.prompt"))
    }),
    ("an order by text", "cannot be grouped by", |o| {
        first(&mut o.value_mut()["attributes"]["sort"], any, |s| {
            s[0] = json!("body");
        })
    }),
    (
        "a filter by an unknown field",
        "is not one of records",
        |o| {
            edit(o, "searchSourceJSON", |s| {
                first(&mut s["filter"], any, |f| {
                    f["query"] = json!({"exists": {"field": "attributes.x"}});
                })
            })
        },
    ),
    ("groups by text", "cannot be grouped by", |o| {
        edit(o, "visState", |s| {
            first(
                &mut s["aggs"],
                |a| a["type"] == "terms",
                |a| a["params"]["field"] = json!("body"),
            )
        })
    }),
    ("a sum of words", "is no number", |o| {
        edit(o, "visState", |s| {
            first(
                &mut s["aggs"],
                |a| a["type"] == "sum",
                |a| a["params"]["field"] = json!("attributes.agent"),
            )
        })
    }),
    ("a time axis of numbers", "is no time", |o| {
        edit(o, "visState", |s| {
            first(
                &mut s["aggs"],
                |a| a["type"] == "date_histogram",
                |a| a["params"]["field"] = json!("attributes.count"),
            )
        })
    }),
    ("a sum of nothing", "is of no field", |o| {
        edit(o, "visState", |s| {
            first(
                &mut s["aggs"],
                |a| a["type"] == "sum",
                |a| a["params"] = json!({}),
            )
        })
    }),
    ("an order by a group", "ordered by what is no number", |o| {
        edit(o, "visState", |s| {
            first(
                &mut s["aggs"],
                |a| a["type"] == "terms",
                |a| a["params"]["orderBy"] = a["id"].clone(),
            )
        })
    }),
    (
        "an aggregation of another plugin",
        "of a type that is not known",
        |o| {
            edit(o, "visState", |s| {
                first(&mut s["aggs"], any, |a| a["type"] = json!("rate"))
            })
        },
    ),
    ("a schema of another panel", "schema that this kind", |o| {
        edit(o, "visState", |s| {
            first(&mut s["aggs"], any, |a| a["schema"] = json!("column"))
        })
    }),
    ("two of one id", "id of another", |o| {
        edit(o, "visState", |s| {
            let more = s["aggs"][0].clone();
            s["aggs"].as_array_mut().is_some_and(|a| {
                !a.is_empty() && {
                    a.push(more);
                    true
                }
            })
        })
    }),
    (
        "JSON of an aggregation that is none",
        "JSON of its own",
        |o| {
            edit(o, "visState", |s| {
                first(&mut s["aggs"], any, |a| {
                    a["params"]["json"] = json!("{missing: 1}");
                })
            })
        },
    ),
    ("a series of no number", "seriesParams", |o| {
        edit(o, "visState", |s| {
            first(&mut s["params"]["seriesParams"], any, |p| {
                p["data"]["id"] = json!("99");
            })
        })
    }),
    ("an unknown panel", "visState.type", |o| {
        edit(o, "visState", |s| {
            s["type"] = json!("lens");
            true
        })
    }),
    ("a state with another title", "visState.title", |o| {
        edit(o, "visState", |s| {
            s["title"] = json!("Old");
            true
        })
    }),
    ("panels over each other", "lies over panel", |o| {
        edit(o, "panelsJSON", |p| {
            p[1]["gridData"]["y"] = p[0]["gridData"]["y"].clone();
            p[1]["gridData"]["x"] = p[0]["gridData"]["x"].clone();
            true
        })
    }),
    ("a panel beside the grid", "wider than the grid", |o| {
        edit(o, "panelsJSON", |p| {
            p[0]["gridData"]["x"] = json!(47);
            true
        })
    }),
    ("a panel without a place", "has no place", |o| {
        edit(o, "panelsJSON", |p| {
            p[0]["gridData"]["h"] = json!(0);
            true
        })
    }),
    ("a panel of no object", "names no object", |o| {
        edit(o, "panelsJSON", |p| {
            p[0].as_object_mut()
                .unwrap()
                .remove("panelRefName")
                .is_some()
        })
    }),
    ("two panels of one index", "index of another", |o| {
        edit(o, "panelsJSON", |p| {
            p[1]["panelIndex"] = p[0]["panelIndex"].clone();
            p[1]["gridData"]["i"] = p[0]["gridData"]["i"].clone();
            true
        })
    }),
    ("controls of one filter", "the controls are not", |o| {
        edit(o, "visState", |s| {
            first(&mut s["params"]["controls"], any, |c| {
                c["fieldName"] = json!("attributes.verdict");
            })
        })
    }),
    (
        "controls that end with the dashboard",
        "the controls are not",
        |o| {
            edit(o, "visState", |s| {
                s["params"]["pinFilters"] = json!(false);
                s["type"] == "input_control_vis"
            })
        },
    ),
    ("a link to nowhere", "leads to no dashboard", |o| {
        edit(o, "visState", |s| {
            let text = s["params"]["markdown"]
                .as_str()
                .unwrap_or_default()
                .replace("#/view/clawker-", "#/view/old-");
            let linked = text.contains("#/view/old-");
            s["params"]["markdown"] = json!(text);
            linked
        })
    }),
    ("a series of every agent", "without the variables", |o| {
        requery(o, "agent=~`${agent}`", "model=~`.+`")
    }),
    ("a series of every project", "without the variables", |o| {
        requery(o, "project=~`${project}`", "model=~`.+`")
    }),
    ("the label type", "named `type`", |o| {
        requery(o, "sum by (", "sum by (type, ") || requery(o, "{", "{type=`x`,")
    }),
    ("no query", "there is no query", |o| {
        edit(o, "searchSourceJSON", |s| {
            s["query"]["query"] = json!(" ");
            s["query"]["language"] == "PROMQL"
        })
    }),
    ("a variable of one value", "does not list", |o| {
        edit(o, "variablesJSON", |v| {
            v["variables"][0]["multi"] = json!(false);
            true
        })
    }),
    ("a variable of another field", "does not list", |o| {
        edit(o, "variablesJSON", |v| {
            v["variables"][1]["query"] = v["variables"][0]["query"].clone();
            true
        })
    }),
    ("no variables", "lacks a variable", |o| {
        let attributes = o.value_mut()["attributes"].as_object_mut().unwrap();
        attributes.remove("variablesJSON").is_some()
    }),
    (
        "a pattern without a field",
        "not listed with its type",
        |o| {
            edit(o, "fields", |f| {
                f.as_array_mut().unwrap().pop();
                true
            })
        },
    ),
    ("a pattern with content", "never stored", |o| {
        edit(o, "fields", |f| {
            f.as_array_mut()
                .unwrap()
                .push(json!({"name": "attributes.tool_input"}));
            true
        })
    }),
];
