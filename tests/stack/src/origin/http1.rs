//! HTTP/1.1.

use super::{Io, Origin, down};
use std::io::{Error, Result};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy, copy_buf, sink,
};

/// What a request says of itself.
#[derive(Default)]
struct Head {
    line: String,
    host: String,
    length: u64,
    chunked: bool,
    websocket: bool,
}

async fn head(io: &mut BufReader<impl Io>) -> Result<Option<Head>> {
    let mut head = Head::default();
    io.read_line(&mut head.line).await?;
    if head.line.is_empty() {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        io.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(head));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => value.clone_into(&mut head.host),
            "content-length" => head.length = value.parse().map_err(Error::other)?,
            "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
            "upgrade" => head.websocket = value.eq_ignore_ascii_case("websocket"),
            _ => {}
        }
    }
}

async fn skip(io: &mut BufReader<impl Io>, bytes: u64) -> Result<u64> {
    copy(&mut io.take(bytes), &mut sink()).await
}

async fn body(io: &mut BufReader<impl Io>, head: &Head) -> Result<u64> {
    if !head.chunked {
        return skip(io, head.length).await;
    }
    let mut all = 0;
    loop {
        let mut line = String::new();
        io.read_line(&mut line).await?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(Error::other)?;
        all += skip(io, size).await?;
        // The end of the chunk, or of the trailers, of which nobody sends any.
        io.read_line(&mut line).await?;
        if size == 0 {
            return Ok(all);
        }
    }
}

pub(super) async fn serve(io: impl Io, origin: &Origin) -> Result<()> {
    let mut io = BufReader::new(io);
    while let Some(head) = head(&mut io).await? {
        let mut words = head.line.split(' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        origin.note(format!("{method} {target} {}", head.host));
        if head.websocket {
            io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n")
                .await?;
            let (mut from, mut to) = tokio::io::split(io);
            copy(&mut from, &mut to).await?;
            return to.shutdown().await;
        }
        let had = body(&mut io, &head).await?;
        let length = down(target);
        let line = format!("{method} {target} {} {had}", head.host);
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            length.unwrap_or(line.len())
        );
        if length.is_none() {
            answer.push_str(&line);
        }
        io.write_all(answer.as_bytes()).await?;
        if let Some(length) = length {
            let zeros = tokio::io::repeat(0).take(length as u64);
            copy_buf(&mut BufReader::with_capacity(1 << 18, zeros), &mut io).await?;
        }
        io.flush().await?;
    }
    Ok(())
}
