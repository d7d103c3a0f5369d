//! Files of certificates and keys (PEM): read within bounds, and every mistake in them as one line. Who trusts them, and for
//! what, never enters.

use std::path::{Path, PathBuf};

use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::limits::CERTIFICATE_BYTES_MAX;
use crate::settings::{At, Mistakes, io_reason, plain, read_bounded};

/// A certificate with its chain, and the private key that fits it.
pub fn certified_key(
    certificate: &At<PathBuf>,
    key: &At<PathBuf>,
    provider: &CryptoProvider,
    mistakes: &mut Mistakes,
) -> Option<CertifiedKey> {
    let (key_file, place) = (shown(&key.value), key.place);
    let chain = certificates(certificate, mistakes);
    let key = private_key(key, mistakes);
    let (chain, key) = (chain?, key?);
    let key = match provider.key_provider.load_private_key(key) {
        Ok(key) => key,
        Err(error) => {
            let what = format!("{key_file}: the key cannot be used: {error}");
            mistakes.error(place, what, "use an ECDSA (P-256, P-384), Ed25519 or RSA key (2048 to 8192 bits)");
            return None;
        }
    };
    let key = CertifiedKey::new(chain, key);
    match key.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Some(key),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let what = format!("{key_file}: the key does not fit the certificate in {}", shown(&certificate.value));
            mistakes.error(
                place,
                what,
                "name the key that the certificate was made for; the server's certificate comes first in its file",
            );
            None
        }
        Err(error) => {
            let what = format!("{}: the certificate cannot be used: {error}", shown(&certificate.value));
            mistakes.error(certificate.place, what, "write it anew from its authority's answer");
            None
        }
    }
}

/// All certificates of a PEM file, at least one.
pub fn certificates(path: &At<PathBuf>, mistakes: &mut Mistakes) -> Option<Vec<CertificateDer<'static>>> {
    let text = read(path, mistakes)?;
    let file = shown(&path.value);
    let mend = "it has to hold -----BEGIN CERTIFICATE----- blocks, the server's own first, then its authorities'";
    match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if chain.is_empty() => {
            mistakes.error(path.place, format_args!("{file}: no certificate in it"), mend);
            None
        }
        Ok(chain) => Some(chain),
        Err(error) => {
            mistakes.error(path.place, format_args!("{file}: not a PEM file: {error}"), mend);
            None
        }
    }
}

fn private_key(path: &At<PathBuf>, mistakes: &mut Mistakes) -> Option<PrivateKeyDer<'static>> {
    let text = read(path, mistakes)?;
    let file = shown(&path.value);
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Some(key),
        Err(error) => {
            let what = match error {
                rustls::pki_types::pem::Error::NoItemsFound => format!("{file}: no private key in it"),
                error => format!("{file}: not a PEM file: {error}"),
            };
            let mend = "it has to hold one -----BEGIN PRIVATE KEY----- block (or RSA, or EC), not encrypted";
            mistakes.error(path.place, what, mend);
            None
        }
    }
}

fn read(path: &At<PathBuf>, mistakes: &mut Mistakes) -> Option<Vec<u8>> {
    let file = shown(&path.value);
    match read_bounded(&path.value, CERTIFICATE_BYTES_MAX) {
        Ok(Some(text)) => Some(text),
        Ok(None) => {
            let what = format!("{file} is larger than {CERTIFICATE_BYTES_MAX} bytes");
            mistakes.error(path.place, what, "name a PEM file");
            None
        }
        Err(error) => {
            let what = format!("{file} cannot be read: {}", io_reason(&error));
            mistakes.error(path.place, what, "name a file that this user may read");
            None
        }
    }
}

/// A path as messages name it.
#[must_use]
pub fn shown(path: &Path) -> String {
    plain(&path.display().to_string(), 200)
}
