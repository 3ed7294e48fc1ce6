//! Keys of the programs' tries, from patterns.

use abi::{
    ADDR_KEY_HEAD_BITS, AddrKey, ChainKey, FAMILY_V4, FAMILY_V6, NAME_BYTES, NAME_KEY_HEAD_BITS,
    NameKey, RULE_TEXT, RuleText, RuleTextKey,
};
use ipnet::IpNet;

/// Bits of a key with two words: all of both.
const EXACT_BITS: u32 = 64;

/// The byte behind a reversed name.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum End {
    /// Only the name itself.
    Name = 0,
    /// Everything below it.
    Below = b'.',
}

pub(crate) fn addr_key(policy: u32, net: &IpNet) -> AddrKey {
    let mut addr = [0; 16];
    let family = match net {
        IpNet::V4(v4) => {
            addr[..4].copy_from_slice(&v4.addr().octets());
            FAMILY_V4
        }
        IpNet::V6(v6) => {
            addr = v6.addr().octets();
            FAMILY_V6
        }
    };
    let prefix_len = ADDR_KEY_HEAD_BITS + u32::from(net.prefix_len());
    AddrKey {
        prefix_len,
        policy,
        family,
        addr,
    }
}

/// `end` is what stands behind the reversed name.
pub(crate) fn name_key(policy: u32, name: &str, end: End) -> NameKey {
    let mut reversed = [0; NAME_BYTES];
    let bytes = name.bytes().rev().chain([end as u8]);
    let mut used = 0;
    for (slot, byte) in reversed.iter_mut().zip(bytes) {
        *slot = byte;
        used += 8;
    }
    NameKey {
        prefix_len: NAME_KEY_HEAD_BITS + used,
        policy,
        name: reversed,
    }
}

pub(crate) fn chain_key(policy: u32, set: u32) -> ChainKey {
    ChainKey {
        prefix_len: EXACT_BITS,
        policy,
        set,
    }
}

pub(crate) fn text_key(policy: u32, rule: u32) -> RuleTextKey {
    RuleTextKey {
        prefix_len: EXACT_BITS,
        policy,
        rule,
    }
}

pub(crate) fn rule_text(name: &str, text: &str) -> RuleText {
    RuleText {
        name: cut(name),
        text: cut(text),
    }
}

/// As much of a text as fits, whole characters only.
fn cut(text: &str) -> [u8; RULE_TEXT] {
    let mut out = [0; RULE_TEXT];
    let end = text.floor_char_boundary(RULE_TEXT);
    out[..end].copy_from_slice(&text.as_bytes()[..end]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, end: End) -> (u32, Vec<u8>) {
        let key = name_key(7, name, end);
        assert_eq!(key.policy, 7);
        let used = (key.prefix_len - NAME_KEY_HEAD_BITS) as usize / 8;
        assert!(key.name[used..].iter().all(|byte| *byte == 0));
        (key.prefix_len, key.name[..used].to_vec())
    }

    #[test]
    fn names_are_reversed_and_end_in_nul_or_dot() {
        assert_eq!(name("a.io", End::Name), (32 + 8 * 5, b"oi.a\0".to_vec()));
        assert_eq!(name("a.io", End::Below), (32 + 8 * 5, b"oi.a.".to_vec()));
        let longest = "a".repeat(abi::MAX_NAME);
        assert_eq!(name(&longest, End::Name).0, 32 + 8 * 252);
    }

    #[test]
    fn families_do_not_mix() {
        let four = addr_key(7, &"192.0.2.0/24".parse().unwrap());
        assert_eq!(
            (four.prefix_len, four.policy, four.family),
            (88, 7, FAMILY_V4)
        );
        assert_eq!(
            four.addr,
            [192, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let six = addr_key(7, &"2001:db8::/32".parse().unwrap());
        assert_eq!((six.prefix_len, six.family), (96, FAMILY_V6));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let text = rule_text(&"é".repeat(60), "short");
        assert_eq!(std::str::from_utf8(&text.name).unwrap(), "é".repeat(48));
        let odd = rule_text(&format!("x{}", "é".repeat(60)), "");
        assert_eq!(odd.name[95], 0);
        assert_eq!(&odd.name[93..95], "é".as_bytes());
        assert_eq!(&text.text[..6], b"short\0");
    }
}
