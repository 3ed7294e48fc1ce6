//! Where the fields of pinned values are, for a set of programs of any ABI version: the kernel keeps the
//! type information that each map was made with. Names and meanings of fields hold for all versions
//! (`bpf/abi`), so values are carried over field by field.

use super::{
    KernelError,
    btf::{BtfError, Words, extra, text},
    sys,
};
use std::path::Path;
use zerocopy::FromBytes;

const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_ENUM: u32 = 6;
/// Typedef, volatile, const, restrict: another name for a type.
const KINDS_ALIAS: [u32; 4] = [8, 9, 10, 11];

/// Types nested deeper than this are not ours.
const DEPTH: u32 = 16;

#[derive(Clone, Debug)]
enum Kind {
    Plain(usize),
    Struct {
        name: String,
        size: usize,
        members: Vec<(String, u32, usize)>,
    },
    Array {
        of: u32,
        len: usize,
    },
    Alias(u32),
    Other,
}

/// The type information of one set of programs.
#[derive(Debug)]
pub(super) struct Types(Vec<Kind>);

impl Types {
    /// Those that a pinned map was made with.
    pub(super) fn of_pin(path: &Path) -> Result<Self, KernelError> {
        let read = || {
            let id = sys::map_info(path)?.btf_id;
            sys::btf(id)
        };
        let data = read().map_err(|e| KernelError::pin("read the types of", path, e))?;
        Self::parse(&data).map_err(|_| KernelError::Layout {
            name: "its types",
            path: path.to_owned(),
        })
    }

    /// Reads type information (`Documentation/bpf/btf.rst`).
    fn parse(data: &[u8]) -> Result<Self, BtfError> {
        let head = Words(data);
        if head.at(0)? & 0xffff != 0xeb9f {
            return Err(BtfError::Malformed);
        }
        let hdr_len = head.at(4)? as usize;
        let (type_off, type_len) = (head.at(8)? as usize + hdr_len, head.at(12)? as usize);
        let strings = data
            .get(head.at(16)? as usize + hdr_len..)
            .ok_or(BtfError::Malformed)?;
        let types = data
            .get(type_off..type_off + type_len)
            .ok_or(BtfError::Malformed)?;
        let types = Words(types);
        let mut all = vec![Kind::Other];
        let mut at = 0;
        while at < types.0.len() {
            let (name, info, size) = (types.at(at)?, types.at(at + 4)?, types.at(at + 8)?);
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let body = at + 12;
            all.push(match kind {
                KIND_INT | KIND_ENUM => Kind::Plain(size as usize),
                KIND_ARRAY => Kind::Array {
                    of: types.at(body)?,
                    len: types.at(body + 8)? as usize,
                },
                KIND_STRUCT => Kind::Struct {
                    name: text(strings, name).ok_or(BtfError::Malformed)?.to_owned(),
                    size: size as usize,
                    members: members(&types, strings, body, count, info >> 31 == 1)?,
                },
                k if KINDS_ALIAS.contains(&k) => Kind::Alias(size),
                _ => Kind::Other,
            });
            at = body + extra(kind, count).ok_or(BtfError::Malformed)?;
        }
        Ok(Self(all))
    }

    fn get(&self, id: u32) -> &Kind {
        let mut kind = self.0.get(id as usize);
        for _ in 0..DEPTH {
            match kind {
                Some(Kind::Alias(of)) => kind = self.0.get(*of as usize),
                Some(other) => return other,
                None => break,
            }
        }
        &Kind::Other
    }

    fn size(&self, id: u32) -> usize {
        match self.get(id) {
            Kind::Plain(size) | Kind::Struct { size, .. } => *size,
            Kind::Array { of, len } => self.size(*of) * len,
            Kind::Alias(_) | Kind::Other => 0,
        }
    }

    fn named(&self, wanted: &str) -> Option<u32> {
        let found = (0..).zip(&self.0).find(|(_, k)| match k {
            Kind::Struct { name, .. } => name == wanted,
            _ => false,
        });
        found.map(|(id, _)| id)
    }

    /// Bytes of a structure, and where a field of it begins.
    pub(super) fn field(&self, of: &str, field: &str) -> Option<usize> {
        let Kind::Struct { members, .. } = self.get(self.named(of)?) else {
            return None;
        };
        let found = members.iter().find(|(name, _, _)| name == field);
        found.map(|(_, _, offset)| *offset)
    }
}

fn members(
    types: &Words<'_>,
    strings: &[u8],
    body: usize,
    count: usize,
    bit_fields: bool,
) -> Result<Vec<(String, u32, usize)>, BtfError> {
    // With bit fields about, an offset shares its word with a size.
    let mask = if bit_fields { 0x00ff_ffff } else { u32::MAX };
    (0..count)
        .map(|i| {
            let member = body + i * 12;
            let name = text(strings, types.at(member)?).ok_or(BtfError::Malformed)?;
            let offset = (types.at(member + 8)? & mask) as usize / 8;
            Ok((name.to_owned(), types.at(member + 4)?, offset))
        })
        .collect()
}

/// How a structure of one set is carried over to another's layout. Fields that the other one does not
/// have are left out; fields that it has alone are zero.
#[derive(Debug)]
pub(super) struct Translation {
    /// Bytes of it there.
    pub(super) from: usize,
    to: usize,
    /// From where, to where, how many bytes.
    moves: Vec<(usize, usize, usize)>,
}

impl Translation {
    /// For the structure of this name; nothing when one of the sets does not have it.
    pub(super) fn new(from: &Types, to: &Types, name: &str) -> Option<Self> {
        let (a, b) = (from.named(name)?, to.named(name)?);
        let mut all = Self {
            from: from.size(a),
            to: to.size(b),
            moves: Vec::new(),
        };
        all.add((from, a, 0), (to, b, 0), DEPTH);
        Some(all)
    }

    fn add(&mut self, from: (&Types, u32, usize), to: (&Types, u32, usize), depth: u32) {
        if depth == 0 {
            return;
        }
        match (from.0.get(from.1), to.0.get(to.1)) {
            // All our numbers are unsigned and little-endian: one that grew is filled up with zeroes.
            (Kind::Plain(a), Kind::Plain(b)) => self.push(from.2, to.2, *a.min(b)),
            (Kind::Struct { members: a, .. }, Kind::Struct { members: b, .. }) => {
                for (name, of, offset) in b {
                    if let Some((_, was, at)) = a.iter().find(|(n, _, _)| n == name) {
                        let (from, to) = ((from.0, *was, from.2 + at), (to.0, *of, to.2 + offset));
                        self.add(from, to, depth - 1);
                    }
                }
            }
            (Kind::Array { of: a, len: n }, Kind::Array { of: b, len: m }) => {
                let (each_a, each_b) = (from.0.size(*a), to.0.size(*b));
                for i in 0..*n.min(m) {
                    let (from, to) = (
                        (from.0, *a, from.2 + i * each_a),
                        (to.0, *b, to.2 + i * each_b),
                    );
                    self.add(from, to, depth - 1);
                }
            }
            _ => {}
        }
    }

    /// Neighbours that stay neighbours move together.
    fn push(&mut self, from: usize, to: usize, len: usize) {
        match self.moves.last_mut() {
            Some((a, b, n)) if *a + *n == from && *b + *n == to => *n += len,
            _ => self.moves.push((from, to, len)),
        }
    }

    /// The bytes in the other layout; nothing when they are too few.
    pub(super) fn bytes(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; self.to];
        for (from, to, len) in &self.moves {
            let part = value.get(*from..from + len)?;
            out.get_mut(*to..to + len)?.copy_from_slice(part);
        }
        Some(out)
    }

    /// The value in our layout; nothing when it is not whole.
    pub(super) fn read<T: FromBytes>(&self, value: &[u8]) -> Option<T> {
        T::read_from_bytes(&self.bytes(value)?).ok()
    }
}

#[cfg(test)]
mod tests;
