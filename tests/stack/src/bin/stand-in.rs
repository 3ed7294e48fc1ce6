//! The stand-in as a program, for images that tests run: in front of an OpenSearch, and as Dashboards.

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use stack_tests::{
    opensearch::Asker,
    standin::{StandIn, Upstream, serve},
};
use std::{env, net::TcpListener, path::Path, sync::Arc};

const USAGE: &str = "Usage: stand-in [--store LISTEN UPSTREAM [--tls CERT KEY CA]] [--boards LISTEN URL [--ca CA]]

  --store   answers at LISTEN (IP:PORT) for the OpenSearch at UPSTREAM; with --tls it has a certificate, and
            checks that of UPSTREAM (for localhost) with CA
  --boards  answers at LISTEN as the Dashboards of the OpenSearch at URL

Example:
  stand-in --store 0.0.0.0:9200 127.0.0.1:9210 --tls opensearch.pem opensearch.key ca.pem
  stand-in --boards 0.0.0.0:5601 https://opensearch:9200 --ca ca.pem";

fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listen =
        |address: &str| TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    match words[..] {
        ["--store", at, upstream] => {
            StandIn::new(Asker::new(format!("http://{upstream}")))
                .serve_store(at, Upstream::plain(upstream));
        }
        ["--store", at, upstream, "--tls", certificate, key, ca] => {
            let port = upstream.rsplit(':').next().unwrap_or_default();
            let asker = Asker::new(format!("https://localhost:{port}")).with_ca(ca.into());
            let stand_in = StandIn::new(asker);
            let upstream = Upstream::trusting(upstream, Path::new(ca));
            let answer = move |request: &_| stand_in.store_reply(request, &upstream);
            serve(listen(at), Some(showing(certificate, key)), answer);
        }
        ["--boards", at, url] => StandIn::new(Asker::new(url)).serve_boards(at),
        ["--boards", at, url, "--ca", ca] => {
            StandIn::new(Asker::new(url).with_ca(ca.into())).serve_boards(at);
        }
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
    loop {
        std::thread::park();
    }
}

fn chain(file: &str) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_file_iter(file).unwrap_or_else(|e| panic!("{file}: {e}"));
    found
        .collect::<Result<_, _>>()
        .unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn showing(certificate: &str, key: &str) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::from_pem_file(key).unwrap_or_else(|e| panic!("{key}: {e}"));
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain(certificate), key);
    Arc::new(config.expect("the key is the certificate's"))
}
