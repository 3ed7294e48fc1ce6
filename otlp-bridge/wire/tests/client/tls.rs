//! TLS in both directions, with certificates made for the test.

use crate::{
    client, failure, options,
    receiver::{Receiver, payload},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use wire::{Failure, Options, Outcome};

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// Files of one test.
struct Files(TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn server(authority: &Authority, name: &str) -> ServerTlsConfig {
    let (certificate, key) = authority.sign(name);
    ServerTlsConfig::new().identity(Identity::from_pem(certificate, key))
}

fn trusting(files: &Files, authority: &Authority) -> Options {
    Options {
        ca: Some(files.write("ca.pem", &authority.pem())),
        ..options()
    }
}

#[tokio::test]
async fn a_receiver_with_the_right_certificate_gets_the_records() {
    let (files, authority) = (Files(TempDir::new().unwrap()), Authority::new());
    let receiver = Receiver::default();
    let url = receiver.tls(server(&authority, "localhost")).await;
    let outcome = client(&url, &trusting(&files, &authority))
        .send(&payload(3))
        .await;
    assert_eq!(outcome, Outcome::Delivered);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn another_authority_another_name_and_no_encryption_get_nothing() {
    let (files, authority) = (Files(TempDir::new().unwrap()), Authority::new());
    let trusting = trusting(&files, &authority);
    let receiver = Receiver::default();
    for url in [
        receiver.tls(server(&Authority::new(), "localhost")).await,
        receiver.tls(server(&authority, "elsewhere")).await,
        receiver.tcp().await.replace("http:", "https:"),
    ] {
        let outcome = client(&url, &trusting).send(&payload(1)).await;
        assert!(
            matches!(failure(&outcome), Failure::Connect(_)),
            "{outcome:?}"
        );
    }
    // The machine's authorities do not know ours.
    let url = receiver.tls(server(&authority, "localhost")).await;
    let outcome = client(&url, &options()).send(&payload(1)).await;
    assert!(
        matches!(failure(&outcome), Failure::Connect(_)),
        "{outcome:?}"
    );
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn a_receiver_that_asks_for_our_certificate_gets_it() {
    let (files, authority) = (Files(TempDir::new().unwrap()), Authority::new());
    let receiver = Receiver::default();
    let asking =
        server(&authority, "localhost").client_ca_root(Certificate::from_pem(authority.pem()));
    let url = receiver.tls(asking).await;
    let anonymous = trusting(&files, &authority);
    let outcome = client(&url, &anonymous).send(&payload(1)).await;
    assert!(!matches!(outcome, Outcome::Delivered), "{outcome:?}");
    let (certificate, key) = authority.sign("loader");
    let known = Options {
        identity: Some((
            files.write("cert.pem", &certificate),
            files.write("key.pem", &key),
        )),
        ..anonymous
    };
    assert_eq!(
        client(&url, &known).send(&payload(1)).await,
        Outcome::Delivered
    );
    assert_eq!(receiver.count(), 1);
}
