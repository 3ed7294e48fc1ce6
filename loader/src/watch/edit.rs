//! One line of text under a cursor.

/// Longest text, in characters.
const MOST: usize = 512;

/// A line that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    before: String,
    after: String,
}

/// What to do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// Put a character in.
    Insert(char),
    /// Take away the one before the cursor.
    Backspace,
    /// Take away the one behind it.
    Delete,
    /// Take away the word before it.
    Word,
    /// Take everything away.
    Clear,
    /// Go.
    Left,
    /// Go.
    Right,
    /// Go.
    Home,
    /// Go.
    End,
}

impl Edit {
    /// A text with the cursor behind it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            before: text.to_owned(),
            after: String::new(),
        }
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.before, self.after)
    }

    /// What stands before the cursor.
    #[must_use]
    pub fn before(&self) -> &str {
        &self.before
    }

    /// Does it.
    pub fn stroke(&mut self, stroke: Stroke) {
        match stroke {
            Stroke::Insert(c) if c.is_control() => {}
            Stroke::Insert(c) => {
                if self.before.chars().count() + self.after.chars().count() < MOST {
                    self.before.push(c);
                }
            }
            Stroke::Backspace => {
                self.before.pop();
            }
            Stroke::Delete if !self.after.is_empty() => {
                self.after.remove(0);
            }
            Stroke::Word => {
                let kept = self.before.trim_end();
                let at = kept.rfind(char::is_whitespace);
                let end = at.map_or(0, |i| {
                    i + kept[i..].chars().next().map_or(0, char::len_utf8)
                });
                self.before.truncate(end);
            }
            Stroke::Clear => *self = Self::default(),
            Stroke::Left => {
                if let Some(c) = self.before.pop() {
                    self.after.insert(0, c);
                }
            }
            Stroke::Right if !self.after.is_empty() => self.before.push(self.after.remove(0)),
            Stroke::Delete | Stroke::Right => {}
            Stroke::Home => self.after.insert_str(0, &std::mem::take(&mut self.before)),
            Stroke::End => self.before.push_str(&std::mem::take(&mut self.after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Stroke::{Backspace, Clear, Delete, End, Home, Insert, Left, Right, Word};
    use proptest::prelude::*;

    fn after(text: &str, strokes: &[Stroke]) -> (String, String) {
        let mut edit = Edit::new(text);
        strokes.iter().for_each(|s| edit.stroke(*s));
        (edit.before, edit.after)
    }

    #[test]
    fn the_cursor_goes_by_characters() {
        let is = |b: &str, a: &str| (b.to_owned(), a.to_owned());
        assert_eq!(after("dü", &[Left, Insert('x')]), is("dx", "ü"));
        assert_eq!(after("dü", &[Left, Delete, Backspace]), is("", ""));
        assert_eq!(after("a b  cö ", &[Word]), is("a b  ", ""));
        assert_eq!(after("a\u{3000}b", &[Word]), is("a\u{3000}", ""));
        assert_eq!(after("ab", &[Home, Right, Insert('\n')]), is("a", "b"));
        assert_eq!(after("ab", &[Home, End, Right, Delete]), is("ab", ""));
        assert_eq!(after("ab", &[Clear, Backspace, Left, Word]), is("", ""));
    }

    proptest! {
        #[test]
        fn no_strokes_bring_it_down(text in "\\PC{0,20}", strokes in prop::collection::vec(
                prop_oneof![any::<char>().prop_map(Insert), Just(Backspace), Just(Delete), Just(Word),
                    Just(Left), Just(Right), Just(Home), Just(End)], 0..700)) {
            let mut edit = Edit::new(&text);
            for s in strokes {
                edit.stroke(s);
                prop_assert!(edit.text().chars().count() <= MOST);
                prop_assert!(edit.text().starts_with(edit.before()));
            }
        }
    }
}
