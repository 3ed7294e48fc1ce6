//! Words of a record on their way back from JSON: each becomes the one of its list.

use super::{CLOSE_REASONS, DIRECTIONS, FOLDED, REASONS, VERDICTS, Word};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::borrow::Cow;

/// What a word is called that a later version knows and this one does not.
const UNKNOWN: Word = "unknown";

/// A text that is taken out of the JSON without a copy where it can be.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn find(list: &[Word], word: &str) -> Option<Word> {
    list.iter().copied().find(|w| *w == word)
}

/// A word that must be known: nothing sensible can be shown without it.
fn known<'de, D: Deserializer<'de>>(d: D, list: &'static [Word]) -> Result<Word, D::Error> {
    let Text(word) = Text::deserialize(d)?;
    find(list, &word).ok_or_else(|| D::Error::unknown_variant(&word, list))
}

pub(super) fn verdict<'de, D: Deserializer<'de>>(d: D) -> Result<Word, D::Error> {
    known(d, &VERDICTS)
}

pub(super) fn direction<'de, D: Deserializer<'de>>(d: D) -> Result<Word, D::Error> {
    known(d, &DIRECTIONS)
}

pub(super) fn reason<'de, D: Deserializer<'de>>(d: D) -> Result<Word, D::Error> {
    let Text(word) = Text::deserialize(d)?;
    let folded = (word == FOLDED).then_some(FOLDED);
    Ok(find(&REASONS, &word).or(folded).unwrap_or(UNKNOWN))
}

pub(super) fn close_reason<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Word>, D::Error> {
    let word = Option::<Text>::deserialize(d)?;
    Ok(word.map(|Text(w)| find(&CLOSE_REASONS, &w).unwrap_or(UNKNOWN)))
}

/// The kernel names no application protocol, so there is one word so far.
pub(super) fn l7_proto<'de, D: Deserializer<'de>>(d: D) -> Result<Word, D::Error> {
    Text::deserialize(d).map(|_| UNKNOWN)
}
