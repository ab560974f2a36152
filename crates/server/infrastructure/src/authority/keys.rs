//! The cluster's keys: the file that holds them, and what is derived from them.
//!
//! The file has lines `hodei-key-1:BASE64URL` of 32 bytes each. The first seals, all of them open. One key per
//! use is derived by HKDF-SHA256 (RFC 5869), so that no two uses share one. The keyed hashes hang on a root of
//! their own that is sealed in the store: a new first line changes no hash, and every token stays valid.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hkdf, hmac};
use thiserror::Error;
use zeroize::Zeroizing;

use super::seal::Sealer;
use crate::system::files::sync_parent;

const LINE_PREFIX: &str = "hodei-key-1:";
/// Length of a key.
pub(super) const KEY_BYTES: usize = 32;

/// A key, wiped when it is dropped.
pub(super) type Key = Zeroizing<[u8; KEY_BYTES]>;

/// Why the cluster key file can not be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It can not be read or made.
    #[error("the cluster key file {path} can not be used")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("the cluster key file {0} can be read by others; run `chmod 600` on it")]
    Open(PathBuf),
    /// A line is not a key.
    #[error("{path}:{line}: this is not a key; write `hodei-key-1:` and 32 bytes in base64url")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// It holds no key.
    #[error("the cluster key file {0} holds no key")]
    Empty(PathBuf),
}

/// The keys of the cluster key file.
pub struct ClusterKeys {
    keys: Vec<Key>,
}

impl ClusterKeys {
    /// Reads the file, or makes it with one fresh key (mode 0600) if it is absent. Of several processes that
    /// make it at once, all read the same key.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read_or_make(path: &Path) -> Result<Self, KeyFileError> {
        let wrap = |source| KeyFileError::Io {
            path: path.to_owned(),
            source,
        };
        if !path.exists() {
            make(path).map_err(wrap)?;
        }
        let mode = std::fs::metadata(path).map_err(wrap)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Open(path.to_owned()));
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).map_err(wrap)?);
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.strip_prefix(LINE_PREFIX).and_then(|encoded| {
                let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).ok()?);
                Some(Zeroizing::new(
                    <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).ok()?,
                ))
            });
            keys.push(key.ok_or_else(|| KeyFileError::Line {
                path: path.to_owned(),
                line: index + 1,
            })?);
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty(path.to_owned()));
        }
        Ok(Self { keys })
    }

    /// What seals and opens the authority.
    pub(super) fn sealer(&self) -> Sealer {
        Sealer::new(self.keys.iter().map(|key| derive(key, "ca")).collect())
    }
}

/// A fresh line for the cluster key file, without its line end.
pub fn fresh_line() -> Zeroizing<String> {
    let key = random_key();
    Zeroizing::new(format!("{LINE_PREFIX}{}", URL_SAFE_NO_PAD.encode(key.as_slice())))
}

/// A fresh random key.
pub(super) fn random_key() -> Key {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    SystemRandom::new()
        .fill(key.as_mut_slice())
        .expect("the operating system gives random bytes");
    key
}

/// Writes a fresh key beside the file and links it in place, so that a half-written file is never seen and the
/// first of several wins.
fn make(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(format!("{}\n", fresh_line().as_str()).as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    sync_parent(path)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// Derives the key of one use.
fn derive(key: &Key, purpose: &str) -> Key {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"hodei-key-1");
    let mut derived = Zeroizing::new([0; KEY_BYTES]);
    salt.extract(key.as_slice())
        .expand(&[purpose.as_bytes()], KeyLength)
        .and_then(|okm| okm.fill(derived.as_mut_slice()))
        .expect("32 bytes are within the limit of HKDF-SHA256");
    derived
}

/// The keys of the hashes under which secrets are stored.
pub(super) struct HashKeys {
    otp: hmac::Key,
    token: hmac::Key,
}

impl HashKeys {
    /// Derives one key per use.
    pub(super) fn derive(root: &Key) -> Self {
        let key = |purpose| hmac::Key::new(hmac::HMAC_SHA256, derive(root, purpose).as_slice());
        Self {
            otp: key("otp"),
            token: key("token"),
        }
    }

    /// HMAC-SHA256 of a one-time password's secret.
    pub(super) fn otp(&self, secret: &str) -> [u8; 32] {
        tag(&self.otp, secret)
    }

    /// HMAC-SHA256 of a token's secret.
    pub(super) fn token(&self, secret: &str) -> [u8; 32] {
        tag(&self.token, secret)
    }
}

fn tag(key: &hmac::Key, secret: &str) -> [u8; 32] {
    hmac::sign(key, secret.as_bytes())
        .as_ref()
        .try_into()
        .expect("HMAC-SHA256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_are_read_strictly() {
        let path = Path::new("keys");
        let line = fresh_line();
        let two = format!("# old and new\n\n{}\n{}\n", line.as_str(), fresh_line().as_str());
        assert_eq!(ClusterKeys::parse(&two, path).expect("valid").keys.len(), 2);
        for (text, want) in [
            ("", "the cluster key file keys holds no key"),
            ("hodei-key-1:AAAA\n", "keys:1: this is not a key"),
            ("\nhodei-key-2:abc\n", "keys:2: this is not a key"),
        ] {
            let error = ClusterKeys::parse(text, path).err().expect("refused").to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }

    #[test]
    fn every_use_has_a_key_of_its_own() {
        let root = random_key();
        let hashes = HashKeys::derive(&root);
        assert_ne!(hashes.otp("same"), hashes.token("same"));
        assert_eq!(hashes.otp("same"), HashKeys::derive(&root).otp("same"));
        assert_ne!(hashes.otp("same"), HashKeys::derive(&random_key()).otp("same"));
    }
}
