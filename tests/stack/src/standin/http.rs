//! As much of HTTP as the stand-in needs: one request a connection, to answer or to pass on.

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use std::{
    io::{self, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
};

/// What can be read from and written to.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A request.
#[derive(Debug)]
pub struct Request {
    /// GET, PUT, ….
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The target without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query
            .split('&')
            .map(|p| p.split_once('=').unwrap_or((p, "")));
        pairs.into_iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// A header by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value, (u16, String)> {
        serde_json::from_slice(&self.body).map_err(|e| super::bad(format!("no JSON: {e}")))
    }
}

/// An answer, as it goes over the wire.
#[derive(Debug)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// An answer in JSON.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::of(status, "application/json; charset=UTF-8", &body.to_string())
    }

    /// An answer in words.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        Self::of(status, "text/plain", body)
    }

    fn of(status: u16, kind: &str, body: &str) -> Self {
        let head = format!(
            "HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body.as_bytes()].concat())
    }
}

/// Answers what comes in, each connection on a thread of its own.
pub fn serve(listener: TcpListener, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // Who goes away in between has no use for an answer.
            thread::spawn(move || drop(talk(stream, &*answer)));
        }
    });
}

fn talk(mut stream: TcpStream, answer: &dyn Fn(&Request) -> Reply) -> io::Result<()> {
    let request = read(&mut stream)?;
    stream.write_all(&answer(&request).0)?;
    stream.flush()
}

fn read(stream: &mut impl Stream) -> io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let (first, headers) = head(&mut reader)?;
    let mut words = first.split(' ');
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        headers,
        body: Vec::new(),
    };
    if request.header("expect").is_some() {
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        reader.get_mut().flush()?;
    }
    if request.header("transfer-encoding").is_some() {
        loop {
            let size = line(&mut reader)?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16);
            let size = size.map_err(io::Error::other)?;
            let from = request.body.len();
            request.body.resize(from + size, 0);
            reader.read_exact(&mut request.body[from..])?;
            line(&mut reader)?;
            if size == 0 {
                return Ok(request);
            }
        }
    }
    let length = request
        .header("content-length")
        .and_then(|l| l.parse().ok());
    request.body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut request.body)?;
    Ok(request)
}

fn line(reader: &mut impl io::BufRead) -> io::Result<String> {
    let mut text = String::new();
    if reader.read_line(&mut text)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text.trim_end().to_owned())
}

fn head(reader: &mut impl io::BufRead) -> io::Result<(String, Vec<(String, String)>)> {
    let first = line(reader)?;
    let mut headers = Vec::new();
    loop {
        let text = line(reader)?;
        let Some((name, value)) = text.split_once(':') else {
            return Ok((first, headers));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// The real OpenSearch behind.
#[derive(Clone)]
pub struct Upstream {
    /// `IP:PORT`.
    pub address: String,
    /// How it is spoken to where it has a certificate.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Upstream {
    /// One that speaks plainly.
    #[must_use]
    pub fn plain(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            tls: None,
        }
    }

    /// One with a certificate for `localhost` of the authority in a file.
    #[must_use]
    pub fn trusting(address: &str, ca: &Path) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        for one in CertificateDer::pem_file_iter(ca).expect("the authority's file is there") {
            let one = one.expect("a certificate");
            roots.add(one).expect("an authority");
        }
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address: address.to_owned(),
            tls: Some(Arc::new(config)),
        }
    }

    /// Passes a request on; its answer. That there is none is the answer of a gateway.
    #[must_use]
    pub fn forward(&self, request: &Request) -> Reply {
        self.pass(request)
            .unwrap_or_else(|e| Reply::text(502, &format!("{}: {e}", self.address)))
    }

    fn pass(&self, request: &Request) -> io::Result<Reply> {
        let stream = TcpStream::connect(&self.address)?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let session = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, stream))
            }
        };
        // What is about this connection and not about the request.
        let own = [
            "connection",
            "content-length",
            "transfer-encoding",
            "expect",
            "keep-alive",
        ];
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
        for (name, value) in request
            .headers
            .iter()
            .filter(|(n, _)| !own.contains(&n.as_str()))
        {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            request.body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&request.body)?;
        stream.flush()?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // Some end the connection without a word of farewell.
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof || answer.is_empty() => {
                return Err(e);
            }
            _ => {}
        }
        // The client must not think that this connection goes on.
        let end = answer
            .windows(2)
            .position(|w| w == b"\r\n")
            .map_or(0, |at| at + 2);
        answer.splice(end..end, *b"connection: close\r\n");
        Ok(Reply(answer))
    }
}
