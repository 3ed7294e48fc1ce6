//! Where records go and how: a URL, headers and certificates, checked before anything is sent.

use crate::{
    client::{Address, Connector, Tls},
    outcome::clean,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

/// Why there is nowhere to send to.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A URL that is none of the four forms.
    #[error(
        "{url:?} {why}: write http://HOST:PORT or https://HOST:PORT for gRPC, the same with /v1/logs for OTLP over HTTP, or unix:///PATH"
    )]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A header that cannot be sent.
    #[error("header {name:?} {why}")]
    Header {
        /// Its name; values may be secrets.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that cannot be read.
    #[error("cannot read {what} {}: {source}", path.display())]
    Read {
        /// What it should be.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{} holds no {what} in PEM form: {why}", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificates for a connection that has no TLS.
    #[error("{0:?} is not encrypted, certificates are of no use there: write https://")]
    Plain(String),
    /// TLS cannot be set up with these certificates.
    #[error("cannot set up TLS: {0}")]
    Tls(rustls::Error),
    /// No certificate authority to check the receiver with.
    #[error("this machine has no certificate authorities ({0}): name a file with the receiver's")]
    NoRoots(String),
}

/// How records go, besides where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Headers (metadata of gRPC) of every request.
    pub headers: Vec<(String, String)>,
    /// Authorities that the receiver's certificate is checked with (PEM); without it the machine's.
    pub ca: Option<PathBuf>,
    /// Our own certificate chain and its key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How long a connection may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a request may take, connection included.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            headers: Vec::new(),
            ca: None,
            identity: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

/// A receiver, and all it takes to talk to it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(crate) url: String,
    pub(crate) protocol: Protocol,
    pub(crate) signal: Signal,
    /// Scheme and host for the requests themselves.
    pub(crate) origin: Uri,
    pub(crate) connector: Connector,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Logs,
    Metrics,
}

/// What is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    /// OTLP/HTTP, with the path to post to.
    Http(PathAndQuery),
}

/// What a URL says.
#[derive(Debug)]
struct Parsed {
    protocol: Protocol,
    origin: Uri,
    address: Address,
    tls: bool,
}

impl Endpoint {
    /// Checks everything that can be checked without a connection, and reads the certificates.
    pub fn new(url: &str, options: &Options) -> Result<Self, EndpointError> {
        let parsed = parse(url).map_err(|why| EndpointError::Url {
            url: clean(url),
            why,
        })?;
        let headers = headers(&options.headers)?;
        let tls = match (&parsed.address, parsed.tls) {
            (Address::Tcp { host, .. }, true) => Some(tls(host, &parsed.protocol, options)?),
            _ if options.ca.is_some() || options.identity.is_some() => {
                return Err(EndpointError::Plain(url.to_owned()));
            }
            _ => None,
        };
        Ok(Self {
            url: url.to_owned(),
            protocol: parsed.protocol,
            signal: Signal::Logs,
            origin: parsed.origin,
            connector: Connector {
                address: parsed.address,
                tls,
                patience: options.connect_timeout,
            },
            headers,
            timeout: options.timeout,
        })
    }

    /// The same receiver for metrics instead of logs. Over HTTP that is the path `/v1/metrics` where logs
    /// go to `/v1/logs`; nothing for another path, which does not say where metrics would go.
    #[must_use]
    pub fn for_metrics(&self) -> Option<Self> {
        let protocol = match &self.protocol {
            Protocol::Grpc => Protocol::Grpc,
            Protocol::Http(path) => {
                let base = path.path().strip_suffix("/v1/logs")?;
                Protocol::Http(format!("{base}/v1/metrics").parse().ok()?)
            }
        };
        Some(Self {
            protocol,
            signal: Signal::Metrics,
            ..self.clone()
        })
    }

    /// The URL as given.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn parse(url: &str) -> Result<Parsed, &'static str> {
    if let Some(path) = url.strip_prefix("unix://") {
        let path = Path::new(path);
        if !path.is_absolute() || path.file_name().is_none() {
            return Err("names no socket by an absolute path");
        }
        return Ok(Parsed {
            protocol: Protocol::Grpc,
            origin: Uri::from_static("http://localhost"),
            address: Address::Unix(path.to_owned()),
            tls: false,
        });
    }
    if url.contains(['?', '#', '@']) {
        return Err("has a query, a fragment or a user in it");
    }
    let uri: Uri = url.parse().map_err(|_| "is not a URL")?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("has no scheme that is known here"),
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err("names no host");
    }
    let port = uri.port_u16().filter(|p| *p != 0).ok_or("names no port")?;
    let protocol = match uri.path_and_query() {
        Some(path) if path.path() != "/" => Protocol::Http(path.clone()),
        _ => Protocol::Grpc,
    };
    let address = Address::Tcp {
        host: host.to_owned(),
        port,
    };
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Ok(Parsed {
        protocol,
        origin: Uri::from_parts(parts).map_err(|_| "is not a URL")?,
        address,
        tls,
    })
}

/// Headers that are the protocol's own business.
const RESERVED: [&str; 9] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn headers(given: &[(String, String)]) -> Result<HeaderMap, EndpointError> {
    let mut map = HeaderMap::new();
    for (name, value) in given {
        let wrong = |why| EndpointError::Header {
            name: clean(name),
            why,
        };
        let key: HeaderName = name.parse().map_err(|_| wrong("is not a header's name"))?;
        let text = key.as_str();
        if RESERVED.contains(&text) || text.starts_with("grpc-") || text.ends_with("-bin") {
            return Err(wrong("belongs to the protocol"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| wrong("has a value with characters that headers cannot carry"))?;
        value.set_sensitive(true);
        map.append(key, value);
    }
    Ok(map)
}

fn tls(host: &str, protocol: &Protocol, options: &Options) -> Result<Tls, EndpointError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(EndpointError::Tls)?
        .with_root_certificates(roots(options.ca.as_deref())?);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates("certificate", chain)?;
            let key = private_key(key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(EndpointError::Tls)?
        }
    };
    config.alpn_protocols = match protocol {
        Protocol::Grpc => vec![b"h2".to_vec()],
        Protocol::Http(_) => vec![b"http/1.1".to_vec()],
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|_| EndpointError::Url {
        url: host.to_owned(),
        why: "is not a name that a certificate could have",
    })?;
    Ok(Tls {
        config: Arc::new(config),
        name,
    })
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, EndpointError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates("certificate", path)? {
            store.add(certificate).map_err(|e| EndpointError::Pem {
                what: "usable certificate",
                path: path.to_owned(),
                why: e.to_string(),
            })?;
        }
        return Ok(store);
    }
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(EndpointError::NoRoots(if why.is_empty() {
            "none found".to_owned()
        } else {
            why.join("; ")
        }));
    }
    Ok(store)
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, EndpointError> {
    fs::read(path).map_err(|source| EndpointError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let text = read(what, path)?;
    let wrong = |why| EndpointError::Pem {
        what,
        path: path.to_owned(),
        why,
    };
    let all: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|e| wrong(e.to_string()))?;
    if all.is_empty() {
        return Err(wrong("there is none in it".to_owned()));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, EndpointError> {
    const WHAT: &str = "private key";
    let text = read(WHAT, path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| EndpointError::Pem {
        what: WHAT,
        path: path.to_owned(),
        why: e.to_string(),
    })
}

#[cfg(test)]
mod tests;
