//! A client of HTTP/2 that sends what it is told, where libraries refuse: doubled and missing pseudo headers, targets
//! that are no URI, headers that HTTP/2 forbids.

use std::io::{Read, Write};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection, over TLS or not.
pub struct Http2<S> {
    io: S,
    next: u32,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A status and the body.
    Status(u16, String),
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection was given up.
    Closed,
}

impl Answer {
    /// The status; 0 without one.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Status(status, _) => *status,
            _ => 0,
        }
    }
}

impl<S: Read + Write> Http2<S> {
    /// Greets. Answers are to come without a table of headers, so that each is read by itself.
    pub fn start(io: S) -> Self {
        let mut client = Self { io, next: 1 };
        client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        client
    }

    /// Sends what can be sent: a connection that is given up is an answer, too.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.io.write_all(bytes).and_then(|()| self.io.flush());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a small frame");
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.write(&frame);
    }

    /// Sends header fields exactly as they are given, and a body where there is one.
    pub fn request(&mut self, fields: &[(&str, &str)], body: Option<&[u8]>) -> u32 {
        let stream = self.next;
        self.next += 2;
        let block: Vec<u8> = fields.iter().flat_map(|field| literal(*field)).collect();
        let end = if body.is_none() { END_STREAM } else { 0 };
        self.frame(HEADERS, END_HEADERS | end, stream, &block);
        if let Some(body) = body {
            self.frame(DATA, END_STREAM, stream, body);
        }
        stream
    }

    /// Waits for what becomes of a request.
    pub fn answer(&mut self, wanted: u32) -> Answer {
        let (mut status, mut body) = (None, Vec::new());
        while let Some((kind, flags, stream, payload)) = self.read() {
            match kind {
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload),
                RST_STREAM if stream == wanted => return Answer::Reset(number(&payload)),
                HEADERS if stream == wanted && status.is_none() => status = status_of(&payload),
                DATA if stream == wanted => body.extend(payload),
                _ => {}
            }
            if stream == wanted && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                let status = status.expect("an answer begins with a status");
                return Answer::Status(status, String::from_utf8_lossy(&body).into_owned());
            }
        }
        Answer::Closed
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, fields: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let stream = self.request(fields, body);
        self.answer(stream)
    }

    fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).ok()?;
        let length = number(&[0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], number(&head[5..9]), payload))
    }
}

fn number(bytes: &[u8]) -> u32 {
    let four = bytes.get(..4).and_then(|bytes| bytes.try_into().ok());
    u32::from_be_bytes(four.expect("four bytes"))
}

/// A field that no table has a part in (RFC 7541 §6.2.2).
fn literal((name, value): (&str, &str)) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(text.len(), &mut bytes);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A number with seven bits in its first byte (RFC 7541 §5.1).
fn length(n: usize, to: &mut Vec<u8>) {
    let Some(mut rest) = n.checked_sub(0x7f) else {
        to.push(n as u8);
        return;
    };
    to.push(0x7f);
    while rest >= 0x80 {
        to.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

/// The status, which is the first field, behind any change of the table's size.
fn status_of(block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let first = block[at];
    if let Some(index) = first.checked_sub(0x88) {
        return INDEXED.get(usize::from(index)).copied();
    }
    // A literal with the name from the table: `:status` is its eighth.
    (first & 0x0f == 8).then_some(())?;
    let length = usize::from(block[at + 1] & 0x7f);
    let text = &block[at + 2..at + 2 + length];
    if block[at + 1] & 0x80 == 0 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    Some(digits(text))
}

/// Three digits in Huffman's code (RFC 7541, appendix B): five bits for 0 to 2, six for the others.
fn digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| u16::from(byte >> n & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut code = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | bit);
        if code > 2 {
            code = (code << 1 | bits.next().unwrap_or(1)) - 0b01_1001 + 3;
        }
        number = number * 10 + code;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_in_every_spelling() {
        // Huffman's 403 and 302, and 307 in plain digits.
        assert_eq!(status_of(&[0x20, 0x48, 0x83, 0x68, 0x0c, 0xff]), Some(403));
        assert_eq!(status_of(&[0x08, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status_of(b"\x48\x03307"), Some(307));
        assert_eq!(status_of(&[0x88]), Some(200));
        assert_eq!(status_of(&[0x8c]), Some(400));
    }

    #[test]
    fn a_length_of_more_than_a_byte_is_written_in_groups_of_seven_bits() {
        let mut to = Vec::new();
        length(1337, &mut to);
        assert_eq!(to, [0x7f, 0xba, 0x09]);
    }
}
