//! TLS clients that greet as they are told: with any server name or none, with Encrypted Client Hello, believing
//! whom they like.

mod ech;
mod trusting;

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::{EchConfig, EchMode},
    pki_types::{CertificateDer, EchConfigListBytes, ServerName, pem::PemObject as _},
};
use std::{net::TcpStream, path::Path, sync::Arc};

/// A connection over TLS.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// How a client greets.
#[derive(Clone, Debug)]
pub struct Greeting<'a> {
    /// The server name; with [`Greeting::ech`] the one that is hidden. None: the handshake has none.
    pub name: Option<&'a str>,
    /// The name that stands in the clear while the other is hidden.
    pub ech: Option<&'a str>,
    /// Protocols above TLS.
    pub alpn: &'a [&'a str],
    /// Whose certificates are believed, a PEM file; none: everybody's.
    pub ca: Option<&'a Path>,
}

impl Greeting<'_> {
    pub(crate) fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = match self.ech {
            Some(cover) => {
                let list = EchConfigListBytes::from(ech::configs(cover));
                let ech = EchConfig::new(list, &[ech::SUITE]).expect("a configuration");
                builder.with_ech(EchMode::Enable(ech))
            }
            None => builder.with_safe_default_protocol_versions(),
        };
        let builder = builder.expect("versions");
        let mut config = match self.ca {
            Some(file) => builder.with_root_certificates(roots(file)),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(trusting::Everybody(provider))),
        }
        .with_no_client_auth();
        config.alpn_protocols = self
            .alpn
            .iter()
            .map(|one| one.as_bytes().to_vec())
            .collect();
        config.enable_sni = self.name.is_some();
        config
    }

    /// Greets, and waits for the end of the handshake; else what went wrong.
    pub fn over(&self, mut stream: TcpStream) -> Result<Tls, String> {
        let name = self.name.unwrap_or("nobody.example").to_owned();
        let name = ServerName::try_from(name).expect("a name");
        let config = Arc::new(self.config());
        let mut tls = ClientConnection::new(config, name).expect("a configuration");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).map_err(|e| e.to_string())?;
        }
        Ok(StreamOwned::new(tls, stream))
    }
}

fn roots(file: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for one in CertificateDer::pem_file_iter(file).expect("the authority's file is there") {
        roots
            .add(one.expect("a certificate"))
            .expect("an authority");
    }
    roots
}
