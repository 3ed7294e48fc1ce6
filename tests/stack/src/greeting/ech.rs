//! Models a server's keys of Encrypted Client Hello. Nobody has the private half, as nobody between an agent and such
//! a server has: what is hidden is noise to whoever reads it, so it may as well be no cipher at all.

use rustls::{
    Error,
    crypto::hpke::{
        EncapsulatedSecret, Hpke, HpkeOpener, HpkePrivateKey, HpkePublicKey, HpkeSealer, HpkeSuite,
    },
    internal::msgs::{
        enums::{HpkeAead, HpkeKdf, HpkeKem},
        handshake::HpkeSymmetricCipherSuite,
    },
};

pub(super) const SUITE: &dyn Hpke = &Opaque;

/// Bytes that AES-GCM adds.
const TAG: usize = 16;
/// Bytes of an X25519 key.
const KEY: usize = 32;

/// A list with one configuration, whose public name is `cover` (RFC 9849 §4).
pub(super) fn configs(cover: &str) -> Vec<u8> {
    let mut contents = vec![7, 0, 0x20, 0, KEY as u8];
    contents.extend([9; KEY]);
    // One suite: HKDF-SHA256 with AES-128-GCM; then the longest name, and the public one.
    contents.extend([0, 4, 0, 1, 0, 1, 64, cover.len() as u8]);
    contents.extend(cover.as_bytes());
    contents.extend([0, 0]);
    let mut config = vec![0xfe, 0x0d, 0, contents.len() as u8];
    config.extend(contents);
    let mut list = vec![0, config.len() as u8];
    list.extend(config);
    list
}

#[derive(Debug)]
struct Opaque;

fn no<T>() -> Result<T, Error> {
    Err(Error::General("nobody has the key".to_owned()))
}

impl Hpke for Opaque {
    fn seal(
        &self,
        _: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        _: &HpkePublicKey,
    ) -> Result<(EncapsulatedSecret, Vec<u8>), Error> {
        Ok((
            EncapsulatedSecret(vec![5; KEY]),
            HpkeSealer::seal(&mut Opaque, aad, plaintext)?,
        ))
    }

    fn setup_sealer(
        &self,
        _: &[u8],
        _: &HpkePublicKey,
    ) -> Result<(EncapsulatedSecret, Box<dyn HpkeSealer + 'static>), Error> {
        Ok((EncapsulatedSecret(vec![5; KEY]), Box::new(Opaque)))
    }

    fn open(
        &self,
        _: &EncapsulatedSecret,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: &HpkePrivateKey,
    ) -> Result<Vec<u8>, Error> {
        no()
    }

    fn setup_opener(
        &self,
        _: &EncapsulatedSecret,
        _: &[u8],
        _: &HpkePrivateKey,
    ) -> Result<Box<dyn HpkeOpener + 'static>, Error> {
        no()
    }

    fn generate_key_pair(&self) -> Result<(HpkePublicKey, HpkePrivateKey), Error> {
        no()
    }

    fn suite(&self) -> HpkeSuite {
        HpkeSuite {
            kem: HpkeKem::DHKEM_X25519_HKDF_SHA256,
            sym: HpkeSymmetricCipherSuite {
                kdf_id: HpkeKdf::HKDF_SHA256,
                aead_id: HpkeAead::AES_128_GCM,
            },
        }
    }
}

impl HpkeSealer for Opaque {
    fn seal(&mut self, _: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![3; plaintext.len() + TAG])
    }
}
