//! What is read in a receiver's text: which records the store behind it has already. Only a short cut:
//! without it they would be sent again, and refused again, until they are alone.

/// OpenSearch's name for it.
const KNOWN: &str = "version_conflict_engine_exception";
/// What it says about each such document, after its id in brackets.
const ALREADY: &str = ": version conflict, document already exists";
/// Where it begins to quote a value of a document, which may say anything.
const QUOTE: &str = "Preview of field's value";

/// A text without what it quotes of a document.
fn unquoted(text: &str) -> &str {
    text.split(QUOTE).next().unwrap_or_default().trim_end()
}

/// Whether a text says that the document with this id is stored already.
pub(super) fn says_stored(text: &str, id: &str) -> bool {
    let text = unquoted(text);
    !id.is_empty() && text.contains(KNOWN) && text.contains(&format!("[{id}]{ALREADY}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Permanent error: flush: [version_conflict_engine_exception] [a-7-d1]: version conflict, document already exists (current version [1])";

    #[test]
    fn a_document_is_known_by_its_whole_id() {
        assert!(says_stored(TEXT, "a-7-d1"));
        for other in ["a-7-d", "7-d1", "a-7-d11", "", "1"] {
            assert!(!says_stored(TEXT, other), "{other}");
        }
    }

    #[test]
    fn other_failures_that_name_an_id_are_none() {
        let text = "mapper_parsing_exception: failed to parse document [a-7-d1]";
        assert!(!says_stored(text, "a-7-d1"));
    }

    #[test]
    fn what_a_document_says_itself_does_not_count() {
        let text = format!("mapper_parsing_exception: Preview of field's value: '{TEXT}'");
        assert!(!says_stored(&text, "a-7-d1"));
    }
}
