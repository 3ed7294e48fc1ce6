//! Offsets of kernel structure members, from the running kernel's type information.
//!
//! The iterators have no helper that reads TCP counters, so they read the fields of `struct tcp_sock`
//! at offsets that this module finds in `/sys/kernel/btf/vmlinux`.

use std::{fs, path::Path};

/// Type information of the running kernel.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Members of `struct tcp_sock`, in the order of [`abi::TcpCounts`].
const TCP_MEMBERS: [&str; 9] = [
    "bytes_acked",
    "bytes_received",
    "segs_in",
    "segs_out",
    "snd_nxt",
    "snd_una",
    "rcv_nxt",
    "srtt_us",
    "total_retrans",
];

const KIND_STRUCT: u32 = 4;

/// What is wrong with the kernel's type information.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read {VMLINUX} ({0}): the kernel needs CONFIG_DEBUG_INFO_BTF=y")]
    Read(#[from] std::io::Error),
    /// The bytes end in the middle of something.
    #[error(
        "{VMLINUX} is not whole type information of a kernel: the kernel needs CONFIG_DEBUG_INFO_BTF=y, and nothing may be mounted over that file"
    )]
    Malformed,
    /// The kernel has no such member.
    #[error("the sockets of this kernel have no member {0}")]
    Missing(&'static str),
}

/// Byte offsets that the programs need.
pub(super) struct Offsets {
    /// Counters in `struct tcp_sock`.
    pub(super) tcp: [u32; 9],
    /// `sk_err` in `struct sock`.
    pub(super) error: u32,
    /// `sk_kern_sock` in `struct sock`, which is a bit: the byte it is in, and its mask there.
    pub(super) kern: [u32; 2],
    /// `skc_state` in `struct sock_common`, with which `struct sock` begins.
    pub(super) state: u32,
}

/// Reads the offsets of the running kernel.
pub(super) fn offsets() -> Result<Offsets, BtfError> {
    let data = fs::read(Path::new(VMLINUX))?;
    let members = struct_members(&data, "tcp_sock")?;
    let mut tcp = [0; 9];
    for (slot, name) in tcp.iter_mut().zip(TCP_MEMBERS) {
        *slot = member(&members, name)?;
    }
    let sock = struct_members(&data, "sock")?;
    let error = member(&sock, "sk_err")?;
    let kern = bit(&sock, "sk_kern_sock")?;
    let state = member(&struct_members(&data, "sock_common")?, "skc_state")?;
    Ok(Offsets {
        tcp,
        error,
        kern,
        state,
    })
}

fn bits(members: &[(&str, u32)], name: &'static str) -> Result<u32, BtfError> {
    let found = members.iter().find(|(n, _)| *n == name);
    found.map(|(_, bits)| *bits).ok_or(BtfError::Missing(name))
}

fn member(members: &[(&str, u32)], name: &'static str) -> Result<u32, BtfError> {
    bits(members, name).map(|bits| bits / 8)
}

/// A member of one bit. Bits are counted from the lowest: these machines are little-endian.
fn bit(members: &[(&str, u32)], name: &'static str) -> Result<[u32; 2], BtfError> {
    bits(members, name).map(|bits| [bits / 8, 1 << (bits % 8)])
}

/// Reader over little-endian words.
pub(super) struct Words<'a>(pub(super) &'a [u8]);

impl Words<'_> {
    /// The word at a byte offset.
    pub(super) fn at(&self, off: usize) -> Result<u32, BtfError> {
        let bytes = self.0.get(off..off + 4).and_then(|b| b.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(BtfError::Malformed)
    }
}

/// A name out of the string section.
pub(super) fn text(strings: &[u8], off: u32) -> Option<&str> {
    let rest = strings.get(off as usize..)?;
    let end = rest.iter().position(|b| *b == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// Names and bit offsets of the direct members of a structure (`Documentation/bpf/btf.rst`).
fn struct_members<'a>(data: &'a [u8], name: &str) -> Result<Vec<(&'a str, u32)>, BtfError> {
    let head = Words(data);
    if head.at(0)? & 0xffff != 0xeb9f {
        return Err(BtfError::Malformed);
    }
    let hdr_len = head.at(4)? as usize;
    let (type_off, type_len) = (head.at(8)? as usize + hdr_len, head.at(12)? as usize);
    let str_off = head.at(16)? as usize + hdr_len;
    let strings = data.get(str_off..).ok_or(BtfError::Malformed)?;
    let types = Words(
        data.get(type_off..type_off + type_len)
            .ok_or(BtfError::Malformed)?,
    );
    let mut at = 0;
    while at < types.0.len() {
        let (name_off, info) = (types.at(at)?, types.at(at + 4)?);
        let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
        let body = at + 12;
        if kind == KIND_STRUCT && text(strings, name_off) == Some(name) {
            // With the kind flag set the offset shares its word with a bit-field size.
            let mask = if info >> 31 == 1 {
                0x00ff_ffff
            } else {
                u32::MAX
            };
            return (0..count)
                .map(|i| {
                    let member = body + i * 12;
                    let name = text(strings, types.at(member)?).ok_or(BtfError::Malformed)?;
                    Ok((name, types.at(member + 8)? & mask))
                })
                .collect();
        }
        at = body + extra(kind, count).ok_or(BtfError::Malformed)?;
    }
    Err(BtfError::Malformed)
}

/// Bytes that follow the common part of a type, by kind.
pub(super) fn extra(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => count * 12,
        6 | 13 => count * 8,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One integer, then `struct tcp_sock { int a; int b; }` with `b` at byte 4.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0tcp_sock\0a\0b\0";
        let types: Vec<u32> = vec![
            1,
            1 << 24,
            4,
            32, // int
            5,
            4 << 24 | 2,
            8, // struct with two members
            14,
            1,
            0, //
            16,
            1,
            32,
        ];
        let mut out: Vec<u8> = vec![0x9f, 0xeb, 1, 0];
        for word in [
            24,
            0,
            types.len() as u32 * 4,
            types.len() as u32 * 4,
            strings.len() as u32,
        ] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(types.iter().flat_map(|w| w.to_ne_bytes()));
        out.extend(strings);
        out
    }

    #[test]
    fn members_of_a_struct_are_found_behind_other_types() {
        assert_eq!(
            struct_members(&sample(), "tcp_sock").unwrap(),
            [("a", 0), ("b", 32)]
        );
    }

    #[test]
    fn a_bit_is_found_in_its_byte() {
        assert_eq!(bit(&[("a", 0), ("b", 1013)], "b").unwrap(), [126, 32]);
        assert!(bit(&[("a", 0)], "b").is_err());
    }

    #[test]
    fn damage_is_reported_and_never_panics() {
        let whole = sample();
        assert!(struct_members(&whole, "sock").is_err());
        for n in 0..whole.len() - 8 {
            assert!(
                struct_members(&whole[..n], "tcp_sock").is_err(),
                "{n} bytes"
            );
        }
    }
}
