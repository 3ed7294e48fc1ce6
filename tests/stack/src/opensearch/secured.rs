//! The security plugin's files for a test: an authority, the node's certificate, and one user.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Who may everything.
pub const ADMIN: &str = "admin";
/// The administrator's password.
pub const ADMIN_PASSWORD: &str = "Correct-horse-7-battery";
/// Its bcrypt hash.
const ADMIN_HASH: &str = "$2y$12$xlSEMJEEUbC0VZdQoqhuLOspc5w8k9kWqr./6PFr8G9ad6X4LA05W";

/// What goes into opensearch.yml.
pub(super) const SETTINGS: &str = "plugins.security.ssl.transport.pemcert_filepath: node.pem
plugins.security.ssl.transport.pemkey_filepath: node.key
plugins.security.ssl.transport.pemtrustedcas_filepath: ca.pem
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.ssl.http.enabled: true
plugins.security.ssl.http.pemcert_filepath: node.pem
plugins.security.ssl.http.pemkey_filepath: node.key
plugins.security.ssl.http.pemtrustedcas_filepath: ca.pem
plugins.security.allow_default_init_securityindex: true
plugins.security.nodes_dn: ['CN=node']
plugins.security.restapi.roles_enabled: [all_access]
";

/// Writes the plugin's files into the configuration; the authority's certificate.
pub(super) fn configure(config: &Path, home: &Path) -> PathBuf {
    let write = |name: &str, text: &str| {
        let path = config.join(name);
        fs::write(&path, text).expect("a file is written");
        path
    };
    let own = config.join("opensearch-security");
    fs::create_dir(&own).expect("a directory");
    let stock = home.join("plugins/opensearch-security/config");
    for file in fs::read_dir(stock).expect("the plugin is there") {
        let file = file.expect("it can be listed");
        fs::copy(file.path(), own.join(file.file_name())).expect("it can be copied");
    }
    // Without the plugin's well-known users.
    write(
        "opensearch-security/internal_users.yml",
        &format!(
            "_meta: {{type: internalusers, config_version: 2}}\n\
             {ADMIN}: {{hash: '{ADMIN_HASH}', reserved: true, backend_roles: [admin]}}\n"
        ),
    );
    write(
        "opensearch-security/roles_mapping.yml",
        "_meta: {type: rolesmapping, config_version: 2}\nall_access: {backend_roles: [admin]}\n",
    );

    let mut params = named("clawker test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let mut params = named("node");
    params.subject_alt_names = CertificateParams::new(["localhost".into(), "127.0.0.1".into()])
        .expect("names")
        .subject_alt_names;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().expect("a key");
    let node = params.signed_by(&key, &ca).expect("a certificate");
    write("node.pem", &node.pem());
    write("node.key", &key.serialize_pem());
    write("ca.pem", &ca.pem())
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
