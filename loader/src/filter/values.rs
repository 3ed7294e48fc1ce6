//! Values as people write them: sizes, durations, networks, moments, words of a list.

use super::{
    Order, Problem, Test,
    fields::{Bare, Get},
};
use crate::{record, render::line::printable};
use ipnet::IpNet;
use std::net::IpAddr;

/// An operator, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equals,
    Differs,
    Contains,
    Above,
    Below,
    AtLeast,
    AtMost,
}

impl Operator {
    fn written(self) -> &'static str {
        match self {
            Self::Equals => "=",
            Self::Differs => "!=",
            Self::Contains => "~",
            Self::Above => ">",
            Self::Below => "<",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
        }
    }

    /// Whether it asks for the same, whatever is made of the answer.
    fn is_equality(self) -> bool {
        matches!(self, Self::Equals | Self::Differs)
    }

    fn order(self) -> Option<Order> {
        match self {
            Self::Equals | Self::Differs => Some(Order::Equal),
            Self::Above => Some(Order::Above),
            Self::Below => Some(Order::Below),
            Self::AtLeast => Some(Order::AtLeast),
            Self::AtMost => Some(Order::AtMost),
            Self::Contains => None,
        }
    }
}

/// The question that an operator and a value put to a field.
pub(super) fn test(get: Get, operator: Operator, value: &str) -> Result<Test, Problem> {
    let refused = |what, usable| Problem::Operator {
        operator: operator.written(),
        what,
        usable,
    };
    let lower = value.to_lowercase();
    let ordered = |what| {
        let order = operator.order();
        order.ok_or_else(|| refused(what, "= != > < >= <="))
    };
    match get {
        Get::Text(_) | Get::Word(..) | Get::Proto(_) | Get::Addr(_) | Get::Place(..)
            if operator == Operator::Contains =>
        {
            Ok(Test::Contains(lower))
        }
        Get::Text(_) | Get::Word(..) | Get::Proto(_) if !operator.is_equality() => {
            Err(refused("texts", "= != ~"))
        }
        Get::Addr(_) | Get::Place(..) if !operator.is_equality() => {
            Err(refused("addresses", "= != ~"))
        }
        Get::Word(_, list) => word(value, lower, list),
        Get::Proto(_) => Ok(Test::Is(value.parse().map_or(lower, record::proto))),
        Get::Addr(_) => Ok(Test::Within(network(value)?)),
        Get::Place(..) if looks_numeric(value) => Ok(Test::Within(network(value)?)),
        Get::Text(_) | Get::Place(..) => Ok(Test::Is(lower)),
        Get::Number(_) => Ok(Test::Number(ordered("numbers")?, count(value)?)),
        Get::Size(_) => Ok(Test::Number(ordered("sizes")?, size(value)?)),
        Get::Span(_, unit, bare) => {
            let order = ordered("durations")?;
            Ok(Test::Number(order, span(value, unit, bare)?))
        }
        Get::Time(_) => {
            let order = ordered("times")?;
            let at = value
                .parse()
                .map_err(|_| wrong(value, "a time such as 2026-01-31T08:00:00Z"))?;
            Ok(Test::Time(order, at))
        }
        Get::Flag(_) if !operator.is_equality() => Err(refused("true and false", "= !=")),
        Get::Flag(_) => match lower.as_str() {
            "true" | "yes" => Ok(Test::True(true)),
            "false" | "no" => Ok(Test::True(false)),
            _ => Err(wrong(value, "true or false")),
        },
    }
}

fn wrong(value: &str, wanted: &str) -> Problem {
    const SHOWN: usize = 40;
    Problem::Value {
        value: printable(&value.chars().take(SHOWN).collect::<String>()),
        wanted: wanted.to_owned(),
    }
}

/// A word of a list, or the empty text for fields that may be absent.
fn word(value: &str, lower: String, list: &[&str]) -> Result<Test, Problem> {
    if value.is_empty() || list.iter().any(|w| w.eq_ignore_ascii_case(value)) {
        return Ok(Test::Is(lower));
    }
    Err(wrong(value, &format!("one of {}", list.join(", "))))
}

/// Whether a destination must be meant as an address: no host name looks like this.
fn looks_numeric(value: &str) -> bool {
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    value.contains(['/', ':']) || (!value.is_empty() && value.chars().all(digits))
}

/// An address or a network. An IPv4 address in IPv6 clothes is the IPv4 address.
fn network(value: &str) -> Result<IpNet, Problem> {
    let address = value.parse::<IpAddr>().map(|a| a.to_canonical().into());
    let parsed = address.or_else(|_| value.parse::<IpNet>());
    parsed.map_err(|_| {
        wrong(
            value,
            "an address such as 192.0.2.1 or a network such as 10.0.0.0/8",
        )
    })
}

/// Factor of a decimal or binary prefix.
fn prefix(unit: &str) -> Option<u64> {
    Some(match unit {
        "" => 1,
        "k" => 1000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        _ => return None,
    })
}

fn size(value: &str) -> Result<u64, Problem> {
    let factor = |unit: &str| prefix(unit.strip_suffix('b').unwrap_or(unit));
    scaled(value, factor).ok_or_else(|| wrong(value, "a size such as 1000, 1k, 1.5M or 64KiB"))
}

fn count(value: &str) -> Result<u64, Problem> {
    scaled(value, prefix).ok_or_else(|| wrong(value, "a number such as 443 or 10k"))
}

/// A duration in units of `unit` nanoseconds.
fn span(value: &str, unit: u64, bare: Bare) -> Result<u64, Problem> {
    let factor = |name: &str| {
        Some(match name {
            "" if bare == Bare::Counts => unit,
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        })
    };
    let nanos = scaled(value, factor)
        .ok_or_else(|| wrong(value, "a duration with its unit, such as 250ms, 2s or 5m"))?;
    Ok(nanos / unit)
}

/// A decimal number with a unit behind it. Nothing when it is none or does not fit.
fn scaled(value: &str, factor: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    const FRACTION: usize = 9;
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = value.split_at(end.unwrap_or(value.len()));
    let factor = u128::from(factor(&unit.to_lowercase())?);
    let (whole, fraction) = match number.split_once('.') {
        Some((w, f)) if !f.is_empty() && f.len() <= FRACTION => (w, f),
        Some(_) => return None,
        None => (number, ""),
    };
    let mut total = u128::from(whole.parse::<u64>().ok()?) * factor;
    if !fraction.is_empty() {
        let digits = u128::from(fraction.parse::<u64>().ok()?);
        // At most nine digits.
        total += digits * factor / 10u128.pow(fraction.len() as u32);
    }
    u64::try_from(total).ok()
}
