//! Where panels lie on a dashboard, and that each is on one.

use super::Fault;
use crate::Object;
use serde_json::Value;

/// Columns of a dashboard's grid.
const WIDTH: u64 = 48;

/// A panel's place.
struct Place {
    panel: String,
    x: u64,
    y: u64,
    w: u64,
    h: u64,
}

impl Place {
    fn of(panel: &Value) -> Option<Self> {
        let grid = &panel["gridData"];
        let index = panel["panelIndex"].as_str()?;
        (grid["i"] == panel["panelIndex"]).then_some(())?;
        Some(Self {
            panel: index.to_owned(),
            x: grid["x"].as_u64()?,
            y: grid["y"].as_u64()?,
            w: grid["w"].as_u64().filter(|w| *w > 0)?,
            h: grid["h"].as_u64().filter(|h| *h > 0)?,
        })
    }

    fn over(&self, other: &Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

/// What is wrong with the grid of a dashboard.
pub(super) fn faults(object: &Object) -> Vec<Fault> {
    if object.kind() != "dashboard" {
        return Vec::new();
    }
    let of = object.to_string();
    let Some(Value::Array(panels)) = object.text("panelsJSON") else {
        return vec![Fault::Form {
            of,
            attribute: "panelsJSON".to_owned(),
        }];
    };
    let mut faults = Vec::new();
    let mut fault = |panel: &str, what: String| {
        faults.push(Fault::Grid {
            of: of.clone(),
            panel: panel.to_owned(),
            what,
        });
    };
    let mut places: Vec<Place> = Vec::new();
    for panel in &panels {
        if !panel["panelRefName"].is_string() || !panel["embeddableConfig"].is_object() {
            fault(
                &panel["panelIndex"].to_string(),
                "names no object".to_owned(),
            );
        }
        let Some(place) = Place::of(panel) else {
            fault(&panel["panelIndex"].to_string(), "has no place".to_owned());
            continue;
        };
        if place.x + place.w > WIDTH {
            fault(&place.panel, "is wider than the grid".to_owned());
        }
        for other in &places {
            if place.panel == other.panel {
                fault(&place.panel, "has the index of another".to_owned());
            }
            if place.over(other) {
                fault(&place.panel, format!("lies over panel {}", other.panel));
            }
        }
        places.push(place);
    }
    faults
}

/// Panels that no dashboard shows.
pub(super) fn orphans(all: &[Object]) -> Vec<Fault> {
    let shown = |object: &Object| {
        let boards = all.iter().filter(|o| o.kind() == "dashboard");
        boards
            .flat_map(Object::references)
            .any(|(_, kind, id)| kind == object.kind() && id == object.id())
    };
    all.iter()
        .filter(|o| matches!(o.kind(), "visualization" | "search" | "explore"))
        .filter(|o| !shown(o))
        .map(|o| Fault::Orphan { of: o.to_string() })
        .collect()
}
