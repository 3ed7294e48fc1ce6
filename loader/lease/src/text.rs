//! What texts may hold, and how to show those that hold something else.

/// Longest agent, project or container name, in bytes.
pub const MAX_TEXT: usize = 1024;
/// Characters of a bad text that an error message shows.
const SHOWN: usize = 60;

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Longer than [`MAX_TEXT`] bytes.
    #[error("is {0} bytes long, more than {MAX_TEXT}")]
    TooLong(usize),
    /// A character that terminals and line-based tools act upon.
    #[error("has a control character at byte {0}")]
    Control(usize),
}

/// Whether a text may stand in a lease. Nothing is trimmed or replaced: it may, or it may not.
pub(crate) fn check(text: &str) -> Result<(), TextError> {
    if text.len() > MAX_TEXT {
        return Err(TextError::TooLong(text.len()));
    }
    match text.find(char::is_control) {
        Some(at) => Err(TextError::Control(at)),
        None => Ok(()),
    }
}

/// A text of unknown origin for an error message: quoted, escaped, cut.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A message that may quote a text of unknown origin: escaped, cut, without more quotes.
pub(crate) fn harmless(message: &str) -> String {
    let mut text = String::new();
    for c in message.chars().take(2 * SHOWN) {
        match c {
            '"' | '\'' | '\\' => text.push(c),
            _ => text.extend(c.escape_debug()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_texts_are_kept_and_control_characters_refused() {
        for good in [
            "",
            " ",
            "a b",
            "ümläut",
            "\"'\\{}",
            "日本語",
            "a/b:c",
            "🦀",
            "\u{a0}",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        assert_eq!(check("a\nb"), Err(TextError::Control(1)));
        for bad in ["\0", "\u{1b}[31m", "\u{7f}", "\u{9b}"] {
            assert_eq!(check(bad), Err(TextError::Control(0)), "{bad:?}");
        }
        assert_eq!(check(&"x".repeat(MAX_TEXT)), Ok(()));
        assert_eq!(
            check(&"x".repeat(MAX_TEXT + 1)),
            Err(TextError::TooLong(MAX_TEXT + 1))
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shown("a\u{1b}"), r#""a\u{1b}""#);
        assert_eq!(
            shown(&"é".repeat(SHOWN)),
            format!("{:?}", "é".repeat(SHOWN))
        );
        assert!(shown(&"é".repeat(SHOWN + 1)).ends_with('…'));
    }
}
