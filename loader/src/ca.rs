//! The project's certificate authority: what agents are to believe, so that the proxy can read their TLS.
//!
//! A directory with `ca.key` (mode 0600) and `ca.pem`. The key leaves it for nowhere: certificates are
//! issued here and Envoy is given those.

use jiff::{Span, Zoned, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Name of every authority made here; they differ by their keys.
const NAME: &str = "clawker project CA";
const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.pem";
/// Years that agents believe the authority.
const CA_YEARS: i32 = 10;
/// Days that a server's certificate lasts. Rendering makes new ones.
const LEAF_DAYS: i32 = 90;
/// Clocks differ.
const BEFORE_DAYS: i32 = 2;

/// What can go wrong with the authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The kernel refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Making another would take away what agents believe.
    #[error("{} is there already: agents believe it; remove the directory to begin anew", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("{} has no {KEY}: make one with `ebpf-manager ca init --dir {}`", .0.display(), .0.display())]
    Absent(PathBuf),
    /// Whoever reads the key can pass for every server.
    #[error("{} can be read by others than its owner: chmod 600, and make another if somebody did", .0.display())]
    Open(PathBuf),
    /// It belongs to another user.
    #[error("{} belongs to user {owner}: it must be the caller's own", path.display())]
    Foreign {
        /// The key's file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// The file holds something else.
    #[error("{} is no key: {source}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        source: rcgen::Error,
    },
    /// A certificate that cannot be.
    #[error("cannot make a certificate for {name}: {source}")]
    Issue {
        /// For whom.
        name: String,
        /// Why not.
        source: rcgen::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::Io { what, path, source }
}

fn issue(name: &str) -> impl FnOnce(rcgen::Error) -> CaError {
    let name = name.to_owned();
    move |source| CaError::Issue { name, source }
}

/// An authority that can issue.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate with its chain, and its key; PEM.
pub struct Issued {
    /// The certificate, then the authority's.
    pub chain: String,
    /// The key.
    pub key: String,
}

/// Makes an authority in a directory that has none. The directory is made, with mode 0700.
pub fn init(dir: &Path, now: &Zoned) -> Result<(), CaError> {
    let (key_file, file) = (dir.join(KEY), dir.join(CERTIFICATE));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("make the directory", dir))?;
    if key_file.exists() {
        return Err(CaError::Exists(key_file));
    }
    let key = KeyPair::generate().map_err(issue(NAME))?;
    let mut params = params();
    let today = now.with_time_zone(TimeZone::UTC).date();
    lasts(&mut params, today, Span::new().years(CA_YEARS));
    let certificate = params.self_signed(&key).map_err(issue(NAME))?;
    // The key last: with it the authority is there. A certificate alone is what a making left that did not end.
    match fs::remove_file(&file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &file)(e)),
        _ => create(&file, 0o644, certificate.pem().as_bytes()).map_err(failed("write", &file)),
    }?;
    match create(&key_file, 0o600, key.serialize_pem().as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(CaError::Exists(key_file)),
        made => made.map_err(failed("write", &key_file)),
    }
}

/// The authority's certificate, PEM: what agents are given.
pub fn export(dir: &Path) -> Result<String, CaError> {
    let file = dir.join(CERTIFICATE);
    match fs::read_to_string(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(CaError::Absent(dir.to_owned())),
        read => read.map_err(failed("read", &file)),
    }
}

fn create(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// What every authority made here says of itself; the name and the key are what its certificates refer to.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn lasts(params: &mut CertificateParams, today: Date, span: Span) {
    let moment = |date: Date| {
        let part = |n: i8| u8::try_from(n).unwrap_or(1);
        date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = moment(today.saturating_sub(Span::new().days(BEFORE_DAYS)));
    params.not_after = moment(today.saturating_add(span));
}

impl Authority {
    /// Reads the authority of a directory. Its key must be the caller's alone.
    pub fn load(dir: &Path) -> Result<Self, CaError> {
        let path = dir.join(KEY);
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(CaError::Absent(dir.to_owned()));
            }
            opened => opened.map_err(failed("open", &path))?,
        };
        let meta = file.metadata().map_err(failed("look at", &path))?;
        if meta.mode() & 0o077 != 0 {
            return Err(CaError::Open(path));
        }
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(CaError::Foreign {
                path,
                owner: meta.uid(),
            });
        }
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(failed("read", &path))?;
        let key = KeyPair::from_pem(&text).map_err(|source| CaError::Key { path, source })?;
        Ok(Self {
            issuer: Issuer::new(params(), key),
            certificate: export(dir)?,
        })
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for one server: a name, `*.name`, or an address.
    pub fn issue(&self, name: &str, now: &Zoned) -> Result<Issued, CaError> {
        let key = KeyPair::generate().map_err(issue(name))?;
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(issue(name))?;
        // Names are in the extension; this field has room for 64 characters only.
        params.distinguished_name.remove(DnType::CommonName);
        params
            .distinguished_name
            .push(DnType::CommonName, "clawker proxy");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let today = now.with_time_zone(TimeZone::UTC).date();
        lasts(&mut params, today, Span::new().days(LEAF_DAYS));
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue(name))?;
        Ok(Issued {
            chain: format!("{}{}", certificate.pem(), self.certificate),
            key: key.serialize_pem(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_authority_is_made_once_and_its_key_is_the_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("ca");
        assert!(matches!(Authority::load(&dir), Err(CaError::Absent(_))));
        init(&dir, &Zoned::now()).unwrap();
        assert_eq!((mode(&dir), mode(&dir.join(KEY))), (0o700, 0o600));
        let first = export(&dir).unwrap();
        assert!(first.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!first.contains("PRIVATE"));
        assert!(matches!(init(&dir, &Zoned::now()), Err(CaError::Exists(_))));
        assert_eq!(export(&dir).unwrap(), first);
    }

    #[test]
    fn a_making_that_did_not_end_can_be_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &Zoned::now()).unwrap();
        let before = export(dir.path()).unwrap();
        fs::remove_file(dir.path().join(KEY)).unwrap();
        init(dir.path(), &Zoned::now()).unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        assert_ne!(authority.certificate(), before);
    }

    #[test]
    fn a_key_that_others_can_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &Zoned::now()).unwrap();
        let key = dir.path().join(KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Authority::load(dir.path()), Err(CaError::Open(_))));
    }
}
