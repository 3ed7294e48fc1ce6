//! The shipped objects are right, and every way of breaking one of them is found, wherever it is done.

mod breaks;

use super::*;
use crate::fields::Kind;
use breaks::BREAKS;
use serde_json::{Map, Value, json};

#[test]
fn the_shipped_objects_are_right() {
    let faults: Vec<_> = objects(crate::objects())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn whatever_is_broken_wherever_is_found() {
    let mut all = crate::objects().to_vec();
    for (what, told, breaks) in BREAKS {
        let mut applied = 0;
        for at in 0..all.len() {
            let whole = all[at].clone();
            if breaks(&mut all[at]) {
                applied += 1;
                let faults: Vec<_> = one(&all[at], &all)
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let start = format!("{}:", all[at]);
                let found = |f: &String| f.starts_with(&start) && f.contains(told);
                assert!(faults.iter().any(found), "{what} in {whole}: {faults:#?}");
            }
            all[at] = whole;
        }
        assert!(applied > 0, "{what} applies to nothing");
    }
}

#[test]
fn an_object_twice_is_found() {
    let mut all = crate::objects().to_vec();
    for at in 0..all.len() {
        all.push(all[at].clone());
        let of = all[at].to_string();
        assert_eq!(shape::twice(&all), [Fault::Twice { of }]);
        all.pop();
    }
}

fn boards() -> impl Iterator<Item = &'static Object> {
    crate::objects().iter().filter(|o| o.kind() == "dashboard")
}

#[test]
fn what_only_a_missing_dashboard_showed_is_found() {
    for board in boards() {
        let all: Vec<_> = crate::objects()
            .iter()
            .filter(|o| *o != board)
            .cloned()
            .collect();
        let elsewhere = |id: &str| {
            let others = boards().filter(|b| *b != board);
            others
                .flat_map(Object::references)
                .any(|(_, _, other)| other == id)
        };
        let alone = board.references().filter(|(_, _, id)| !elsewhere(id));
        let mut expected: Vec<_> = alone.map(|(_, kind, id)| format!("{kind} {id}")).collect();
        let mut orphans: Vec<_> = layout::orphans(&all)
            .into_iter()
            .map(|f| match f {
                Fault::Orphan { of } => of,
                other => panic!("{other}"),
            })
            .collect();
        expected.sort();
        orphans.sort();
        assert!(!orphans.is_empty());
        assert_eq!(orphans, expected);
    }
}

#[test]
fn records_without_controls_are_found() {
    let shown = |b: &&Object| b.references().any(|(_, _, id)| id == "clawker-controls");
    let all: Vec<_> = crate::objects()
        .iter()
        .filter(|o| o.id() != "clawker-controls")
        .cloned()
        .collect();
    assert!(boards().filter(shown).count() > 1);
    for board in boards().filter(shown) {
        let faults = filters::faults(board, &all);
        assert!(
            faults.iter().any(|f| f.to_string().contains("no controls")),
            "{board}"
        );
    }
}

/// A mapping of every field, nested at its dots.
fn whole() -> Value {
    let mut root = json!({});
    for field in crate::fields::all() {
        let mut place = &mut root;
        let mut parts = field.name.split('.').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let map = place.as_object_mut().unwrap();
            let entry = map.entry(part).or_insert_with(|| Value::Object(Map::new()));
            if last {
                entry["type"] = json!(field.mapping);
                break;
            }
            let inner = entry.as_object_mut().unwrap();
            place = inner.entry("properties").or_insert_with(|| json!({}));
        }
    }
    root
}

#[test]
fn a_field_that_templates_map_otherwise_is_found() {
    assert_eq!(mappings("all", &whole()), []);
    for field in crate::fields::all() {
        let pointer = format!("/{}", field.name.replace('.', "/properties/"));
        let mut other = whole();
        let kind = if field.kind == Kind::Keyword {
            "long"
        } else {
            "keyword"
        };
        other.pointer_mut(&pointer).unwrap()["type"] = json!(kind);
        let faults = mappings("all", &other);
        assert_eq!(faults.len(), 1, "{}: {faults:?}", field.name);
        assert!(faults[0].to_string().contains(&field.name));
        let mut none = whole();
        none.pointer_mut(&pointer)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove("type");
        assert_eq!(mappings("all", &none).len(), 1, "{}", field.name);
    }
}
