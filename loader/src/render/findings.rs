//! What `doctor` found, for people.

use crate::doctor::{Finding, State};
use anstyle::{AnsiColor, Style};
use std::fmt::Write as _;

/// Marks in front of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// As UTF-8 terminals show them.
    Signs,
    /// Letters alone.
    Ascii,
}

impl Marks {
    /// Those that a locale can show: the first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set decides
    /// (`locale(7)`).
    #[must_use]
    pub fn for_locale(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| variable(name).filter(|v| !v.is_empty()));
        let name = set.unwrap_or_default().to_ascii_lowercase();
        if name.ends_with("utf-8") || name.ends_with("utf8") {
            Self::Signs
        } else {
            Self::Ascii
        }
    }

    fn of(self, state: State) -> &'static str {
        match (self, state) {
            (Self::Signs, State::Ok) => "✔",
            (Self::Signs, State::Note) => "•",
            (Self::Signs, State::Problem) => "✘",
            (Self::Ascii, State::Ok) => "ok     ",
            (Self::Ascii, State::Note) => "note   ",
            (Self::Ascii, State::Problem) => "PROBLEM",
        }
    }
}

fn style(state: State) -> Style {
    let color = match state {
        State::Ok => AnsiColor::Green,
        State::Note => AnsiColor::Yellow,
        State::Problem => AnsiColor::Red,
    };
    Style::new().fg_color(Some(color.into()))
}

/// One finding: a line, and two more for what it costs and what to do. Whether colours show is decided
/// where it is printed.
#[must_use]
pub fn finding(f: &Finding, marks: Marks) -> String {
    let (mark, color) = (marks.of(f.state), style(f.state));
    let whose = f
        .instance
        .as_ref()
        .map_or(String::new(), |id| format!("{id}: "));
    let mut text = format!("{color}{mark}{color:#} {whose}{}\n", f.what);
    let indent = " ".repeat(mark.chars().count() + 3);
    // Writing to a string does not fail.
    if !f.cost.is_empty() {
        let _ = writeln!(text, "{indent}{}", f.cost);
    }
    if !f.mend.is_empty() {
        let _ = writeln!(text, "{indent}-> {}", f.mend);
    }
    text
}

/// The last line: how many problems and notes there are.
#[must_use]
pub fn total(findings: &[Finding]) -> String {
    let of = |state| findings.iter().filter(|f| f.state == state).count();
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    match (of(State::Problem), of(State::Note)) {
        (0, 0) => "no problem".to_owned(),
        (0, notes) => format!("no problem, {}", count(notes, "note")),
        (problems, 0) => count(problems, "problem"),
        (problems, notes) => format!("{}, {}", count(problems, "problem"), count(notes, "note")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn findings_say_what_it_costs_and_what_to_do() {
        let all = [
            Finding::ok("btf", "BTF"),
            Finding::problem(
                "hooks",
                "link egress is detached",
                "packets pass",
                "run it again",
            )
            .of("run-7"),
            Finding::note("clock", "nothing keeps it", "times drift", ""),
        ];
        let text: String = all
            .iter()
            .map(|f| plain(&finding(f, Marks::Signs)))
            .collect();
        assert_eq!(
            text,
            "✔ BTF\n\
             ✘ run-7: link egress is detached\n    packets pass\n    -> run it again\n\
             • nothing keeps it\n    times drift\n"
        );
        assert_eq!(total(&all), "1 problem, 1 note");
        assert_eq!(total(&all[..2]), "1 problem");
        assert_eq!(total(&all[..1]), "no problem");
        assert_eq!(
            total(&[all[2].clone(), all[2].clone()]),
            "no problem, 2 notes"
        );
    }

    #[test]
    fn only_terminals_that_can_show_them_get_signs() {
        let with = |name: &'static str, value: &'static str| {
            Marks::for_locale(move |n| (n == name).then(|| value.to_owned()))
        };
        for (name, value) in [
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "C.utf8"),
            ("LC_CTYPE", "en_US.UTF-8"),
        ] {
            assert_eq!(with(name, value), Marks::Signs, "{name}={value}");
        }
        for (name, value) in [("LANG", "C"), ("LANG", ""), ("HOME", "UTF-8")] {
            assert_eq!(with(name, value), Marks::Ascii, "{name}={value}");
        }
        let both = |n: &str| match n {
            "LC_ALL" => Some("C".to_owned()),
            _ => Some("C.UTF-8".to_owned()),
        };
        assert_eq!(Marks::for_locale(both), Marks::Ascii);
        let text = finding(&Finding::problem("a", "b", "c", "d"), Marks::Ascii);
        assert!(plain(&text).is_ascii() && plain(&text).starts_with("PROBLEM b\n"));
    }
}
