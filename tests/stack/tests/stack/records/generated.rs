//! Records made at random.

use super::TIME;
use serde_json::{Map, Value, json};

/// A maker of records: keys that are known, parts of such, and none; values of every kind.
pub(super) struct Marks<'a, R> {
    random: &'a mut R,
    names: &'a [String],
    next: u64,
}

impl<'a, R: FnMut() -> u64> Marks<'a, R> {
    /// Marks are numbered from `next` on.
    pub(super) fn new(random: &'a mut R, names: &'a [String], next: u64) -> Self {
        Self {
            random,
            names,
            next,
        }
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        (self.random)() % n
    }

    fn key(&mut self) -> String {
        let n = self.below(self.names.len() as u64);
        let name = &self.names[usize::try_from(n).unwrap()];
        let short = name
            .rsplit_once('.')
            .map_or(name.as_str(), |(_, last)| last)
            .to_owned();
        match self.below(8) {
            0 => name.clone(),
            1 => format!("{short}.x"),
            2 => format!("{short}."),
            3 => format!("k{}", self.below(5)),
            4 => ["", ".", "..", " ", "a..b", "é", "\u{7}"]
                [usize::try_from(self.below(7)).unwrap()]
            .to_owned(),
            5 => name.split('.').next().unwrap_or_default().to_owned(),
            _ => short,
        }
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth > 4 { 7 } else { 10 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!((self.random)() as i64),
            3 => json!(f64::from_bits((self.random)())),
            4 => json!(TIME),
            5 => json!("192.0.2.7"),
            6 => {
                self.next += 1;
                json!(format!("mark-{}", self.next))
            }
            7 => (0..self.below(4)).map(|_| self.value(depth + 1)).collect(),
            _ => self.object(depth + 1).into(),
        }
    }

    pub(super) fn object(&mut self, depth: u32) -> Map<String, Value> {
        // What would name another index or id is the client's, not the record's.
        let mut map = Map::new();
        for _ in 0..self.below(8) {
            let value = self.value(depth);
            // A number over 64 bits is a case of its own.
            if !value.is_f64() || value.as_f64().is_some_and(|f| f.abs() < 1e15) {
                map.insert(self.key(), value);
            }
        }
        map
    }
}

/// Every text in it.
pub(super) fn texts(of: &Value) -> Vec<String> {
    match of {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().flat_map(texts).collect(),
        Value::Object(map) => map.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}
