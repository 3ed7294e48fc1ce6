//! An origin server: HTTP/1.1, HTTP/2, WebSocket and gRPC, in the clear or over TLS. It tells what it was asked.
//!
//! | target | answer |
//! |---|---|
//! | `…/down/N` | so many bytes |
//! | a WebSocket | every byte back |
//! | gRPC | every message back; the status is the digits at the end of the path, `…/Open` ends never |
//! | else | one line: method, target, host, and how many bytes the request had |

mod http1;
mod http2;

use ebpf_manager::ca::Authority;
use jiff::Zoned;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::ResolvesServerCertUsingSni,
    sign::CertifiedKey,
};
use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// A server of the test's namespace, which lives as long as the test's process.
#[derive(Clone)]
pub struct Origin(Arc<Mutex<Vec<String>>>);

/// Bytes in and out, with or without TLS.
trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

impl Origin {
    /// One in the clear; HTTP/2 by prior knowledge.
    #[must_use]
    pub fn plain(at: &str) -> Self {
        Self::start(at, None)
    }

    /// One over TLS, with a certificate for each of some names.
    #[must_use]
    pub fn tls(at: &str, authority: &Authority, names: &[&str]) -> Self {
        Self::speaking(at, authority, names, &["h2", "http/1.1"])
    }

    /// The same, which speaks HTTP/1.1 alone.
    #[must_use]
    pub fn tls_http1(at: &str, authority: &Authority, names: &[&str]) -> Self {
        Self::speaking(at, authority, names, &["http/1.1"])
    }

    fn speaking(at: &str, authority: &Authority, names: &[&str], alpn: &[&str]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut by_name = ResolvesServerCertUsingSni::new();
        for name in names {
            let issued = authority.issue(name, &Zoned::now()).expect("a certificate");
            let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes());
            let chain = chain.map(|one| one.expect("a certificate")).collect();
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
            let pair = CertifiedKey::from_der(chain, key, &provider).expect("they fit");
            by_name.add(name, pair).expect("a name");
        }
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        Self::start(at, Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start(at: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(at).expect("an address of the namespace");
        listener.set_nonblocking(true).expect("a socket");
        let origin = Self(Arc::default());
        let own = origin.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).expect("a socket");
                    tokio::spawn(own.clone().serve(stream, tls.clone()));
                }
            });
        });
        origin
    }

    async fn serve(self, stream: tokio::net::TcpStream, tls: Option<TlsAcceptor>) {
        let Some(tls) = tls else {
            let mut first = [0; 3];
            let two = matches!(stream.peek(&mut first).await, Ok(3)) && &first == b"PRI";
            return self.talk(stream, two).await;
        };
        // A handshake that fails is the client's matter.
        if let Ok(stream) = tls.accept(stream).await {
            let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            self.talk(stream, two).await;
        }
    }

    async fn talk(self, io: impl Io, two: bool) {
        if two {
            http2::serve(io, &self).await;
        } else {
            // Whoever asked may be gone.
            let _ = http1::serve(io, &self).await;
        }
    }

    fn note(&self, line: String) {
        self.0.lock().expect("no panic").push(line);
    }

    /// What it was asked, in order: method, target and host.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

/// How many bytes a target asks for.
fn down(target: &str) -> Option<usize> {
    target.rsplit_once("/down/")?.1.parse().ok()
}
