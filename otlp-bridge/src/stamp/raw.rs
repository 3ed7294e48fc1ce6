//! The wire format of protobuf, field by field: without trust, without copies, and without building
//! anything. A sender can write a million empty messages into two megabytes; what is built of them is
//! for the caller to decide, one at a time.

use prost::bytes::BufMut;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request is no OTLP: {0}")]
pub struct Malformed(pub &'static str);

/// A field's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// A text, bytes or another message.
    Bytes(&'b [u8]),
}

/// The fields of a message, in their order. Ends at the first error.
pub(crate) struct Parts<'b> {
    rest: &'b [u8],
    broken: bool,
}

impl<'b> Parts<'b> {
    pub(crate) fn new(message: &'b [u8]) -> Self {
        Self {
            rest: message,
            broken: false,
        }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self
                .rest
                .split_first()
                .ok_or(Malformed("a number is cut"))?;
            self.rest = rest;
            // The tenth byte has room for one bit.
            if shift == 63 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    fn take(&mut self, len: u64) -> Result<&'b [u8], Malformed> {
        let len = usize::try_from(len).ok().filter(|n| *n <= self.rest.len());
        let (taken, rest) = self.rest.split_at(len.ok_or(Malformed("a field is cut"))?);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(Malformed("a field is cut"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn field(&mut self) -> Result<(u32, Part<'b>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed("a field has no number"))?;
        if number == 0 {
            return Err(Malformed("a field has no number"));
        }
        let part = match key & 7 {
            0 => Part::Varint(self.varint()?),
            1 => Part::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                Part::Bytes(self.take(len)?)
            }
            5 => Part::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed("a field has a type that OTLP does not use")),
        };
        Ok((number, part))
    }
}

impl<'b> Iterator for Parts<'b> {
    type Item = Result<(u32, Part<'b>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.broken {
            return None;
        }
        let field = self.field();
        self.broken = field.is_err();
        Some(field)
    }
}

/// The contents of every field of a number that is a message, a text or bytes.
pub(crate) fn all(message: &[u8], number: u32) -> Result<Vec<&[u8]>, Malformed> {
    let mut found = Vec::new();
    for field in Parts::new(message) {
        if let (n, Part::Bytes(bytes)) = field?
            && n == number
        {
            found.push(bytes);
        }
    }
    Ok(found)
}

/// Writes a message, a text or bytes as the field of another message.
pub(crate) fn put(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(content.len() as u64, out);
    out.put_slice(content);
}
