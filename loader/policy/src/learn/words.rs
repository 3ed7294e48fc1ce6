//! What comments say: names of processes and destinations, sorted, few, and harmless.

use std::collections::BTreeSet;
use std::fmt;

/// Words of one kind that a comment has; the rest is dots.
const MAX_WORDS: usize = 8;

/// Words in a comment: sorted, and only the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    kept: BTreeSet<String>,
    more: bool,
}

impl Words {
    pub(super) fn extend(&mut self, other: Self) {
        self.more |= other.more;
        self.kept.extend(other.kept);
        while self.kept.len() > MAX_WORDS {
            self.kept.pop_last();
            self.more = true;
        }
    }

    pub(super) fn read(text: &str) -> Self {
        let (text, more) = match text.strip_suffix(", …") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let kept = text.split(", ").map(str::to_owned).collect();
        Self { kept, more }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl FromIterator<String> for Words {
    fn from_iter<I: IntoIterator<Item = String>>(words: I) -> Self {
        let mut all = Self::default();
        all.extend(Self {
            kept: words.into_iter().collect(),
            more: false,
        });
        all
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.kept.iter().enumerate() {
            write!(f, "{}{word}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str(if self.more { ", …" } else { "" })
    }
}

/// The name of a process as a comment can have it. A process chooses its name itself: nothing in it
/// may end the comment or pass for another part of it. Numbers behind a separator tell threads of a
/// pool apart and differ from run to run.
pub(super) fn process(comm: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = comm.chars().peekable();
    while let Some(c) = rest.next() {
        let fits =
            c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '+' | '@');
        let separator = matches!(c, '-' | '_' | ':' | '/' | ' ' | '#');
        out.push(if fits { c } else { '_' });
        if separator && rest.peek().is_some_and(char::is_ascii_digit) {
            while rest.next_if(char::is_ascii_digit).is_some() {}
            out.push('N');
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_cannot_write_into_the_file() {
        for (comm, shown) in [
            ("curl", Some("curl")),
            ("\ndefault: allow", Some("_default:_allow")),
            ("x # y; for z, …", Some("x___y__for_z___")),
            ("\u{2028}- {dst: a}", Some("_-__dst:_a_")),
            ("python3.13", Some("python3.13")),
            ("pool-12-thread-3", Some("pool-N-thread-N")),
            ("kworker/0:1", Some("kworker/N:N")),
            ("Thread #4", Some("Thread__N")),
            ("", None),
        ] {
            assert_eq!(process(comm).as_deref(), shown, "{comm:?}");
        }
    }

    #[test]
    fn few_words_are_kept_whatever_their_order() {
        let words: Vec<String> = (0..20).map(|i| format!("w{i:02}")).collect();
        let all: Words = words.iter().cloned().collect();
        let mut bit_by_bit = Words::default();
        for word in words.into_iter().rev() {
            bit_by_bit.extend([word].into_iter().collect());
        }
        assert_eq!(all, bit_by_bit);
        assert_eq!(all.to_string(), "w00, w01, w02, w03, w04, w05, w06, w07, …");
        assert_eq!(Words::read(&all.to_string()), all);
    }
}
