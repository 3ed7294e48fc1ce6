//! What a `flow_id` says: `{boot}-{slot}-{a|d|b}{sequence}`, or `{boot}-{slot}-f{epoch}-{number}` on a
//! folded record.

/// The parts of a `flow_id` that somebody else than its maker needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId<'t> {
    /// Boot id without dashes.
    pub boot: &'t str,
    /// Slot of the kernel's maps.
    pub slot: u32,
    /// Whether the record stands for several flows.
    pub folded: bool,
}

/// Whether a text is a boot id without dashes.
#[must_use]
pub fn is_boot(text: &str) -> bool {
    text.len() == 32
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl<'t> FlowId<'t> {
    /// Reads one; nothing if it is none.
    #[must_use]
    pub fn parse(text: &'t str) -> Option<Self> {
        let mut parts = text.split('-');
        let (boot, slot, flow) = (parts.next()?, parts.next()?, parts.next()?);
        let (row, more) = (parts.next(), parts.next());
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let letter = flow.chars().next()?;
        let folded = letter == 'f';
        let whole = digits(flow.get(1..)?)
            && match letter {
                'a' | 'd' | 'b' => row.is_none(),
                'f' => row.is_some_and(hex) && more.is_none(),
                _ => false,
            };
        // Slot 0 is "not enrolled".
        let slot = slot.parse().ok().filter(|n| *n != 0 && digits(slot))?;
        (whole && is_boot(boot)).then_some(Self { boot, slot, folded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: &str = "0123456789abcdef0123456789abcdef";

    proptest! {
        #[test]
        fn what_the_loader_writes_is_read(
            slot in 1u32.., letter in "[adb]", seq: u64, row: u64, folded: bool,
        ) {
            let text = if folded {
                format!("{BOOT}-{slot}-f{seq}-{row:x}")
            } else {
                format!("{BOOT}-{slot}-{letter}{seq}")
            };
            let wanted = FlowId { boot: BOOT, slot, folded };
            prop_assert_eq!(FlowId::parse(&text), Some(wanted));
        }

        #[test]
        fn any_text_is_read_or_not(text in ".{0,80}") {
            let _ = FlowId::parse(&text);
        }
    }

    #[test]
    fn what_is_no_flow_id_is_none() {
        for text in [
            "",
            "-",
            "7-a1",
            "boot-7-a1",
            &format!("{BOOT}-7"),
            &format!("{BOOT}-7-"),
            &format!("{BOOT}-7-a"),
            &format!("{BOOT}-0-a1"),
            &format!("{BOOT}-+7-a1"),
            &format!("{BOOT}-7-x1"),
            &format!("{BOOT}-7-a1-0"),
            &format!("{BOOT}-7-f1"),
            &format!("{BOOT}-7-f1-"),
            &format!("{BOOT}-7-f1-0-0"),
            &format!("{BOOT}-7-é1"),
            &format!("{BOOT}-4294967296-a1"),
            &format!("{}-7-a1", BOOT.to_uppercase()),
        ] {
            assert_eq!(FlowId::parse(text), None, "{text}");
        }
    }
}
