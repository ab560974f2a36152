//! What is sealed in the store: the cluster's id, the three certificates with their keys, the root of the hashes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::BASE32_DNSSEC;
use rcgen::{CertifiedIssuer, ExtendedKeyUsagePurpose, KeyPair};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::OpenError;
use super::issue::{authority_params, make_error};
use super::keys::{KEY_BYTES, Key, random_key};

/// A certificate with its key.
pub(super) struct Pair {
    /// DER.
    pub(super) certificate: Vec<u8>,
    /// PKCS #8, DER.
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// The authority as it is stored.
pub(super) struct Stored {
    /// The cluster's id.
    pub(super) cluster: String,
    /// Signs the two intermediates.
    pub(super) root: Pair,
    /// Signs servers.
    pub(super) servers: Pair,
    /// Signs workers.
    pub(super) workers: Pair,
    /// What the keyed hashes hang on.
    pub(super) hash_root: Key,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    version: u32,
    cluster: String,
    root: (String, String),
    servers: (String, String),
    workers: (String, String),
    hash_root: String,
}

impl Drop for Row {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.root.1.zeroize();
        self.servers.1.zeroize();
        self.workers.1.zeroize();
        self.hash_root.zeroize();
    }
}

const VERSION: u32 = 1;

impl Stored {
    /// Makes a new authority with a random cluster id.
    pub(super) fn make(now_ms: i64) -> Result<Self, OpenError> {
        let cluster = random_id();
        let key = || KeyPair::generate().map_err(make_error);
        let root_params = authority_params(&format!("Hodei root {cluster}"), None, 1, now_ms);
        let root = CertifiedIssuer::self_signed(root_params, key()?).map_err(make_error)?;
        let intermediate = |kind: &str, usage| -> Result<Pair, OpenError> {
            let params = authority_params(&format!("Hodei {kind} {cluster}"), Some(usage), 0, now_ms);
            let made = CertifiedIssuer::signed_by(params, key()?, &root).map_err(make_error)?;
            Ok(pair(&made))
        };
        Ok(Self {
            servers: intermediate("servers", ExtendedKeyUsagePurpose::ServerAuth)?,
            workers: intermediate("workers", ExtendedKeyUsagePurpose::ClientAuth)?,
            root: pair(&root),
            cluster,
            hash_root: random_key(),
        })
    }

    /// As bytes, to be sealed.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let encode = |pair: &Pair| {
            (
                STANDARD.encode(&pair.certificate),
                STANDARD.encode(pair.key.as_slice()),
            )
        };
        let row = Row {
            version: VERSION,
            cluster: self.cluster.clone(),
            root: encode(&self.root),
            servers: encode(&self.servers),
            workers: encode(&self.workers),
            hash_root: STANDARD.encode(self.hash_root.as_slice()),
        };
        let bytes = serde_json::to_vec(&row).map_err(|error| OpenError::Make(error.to_string()))?;
        Ok(Zeroizing::new(bytes))
    }

    /// From opened bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, OpenError> {
        let damaged = |error: &dyn std::fmt::Display| OpenError::Damaged(error.to_string());
        let row: Row = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
        if row.version != VERSION {
            return Err(damaged(&format!("version {} is not known", row.version)));
        }
        let bytes = |text: &str| STANDARD.decode(text).map_err(|error| damaged(&error));
        let decode = |(certificate, key): &(String, String)| -> Result<Pair, OpenError> {
            Ok(Pair {
                certificate: bytes(certificate)?,
                key: Zeroizing::new(bytes(key)?),
            })
        };
        let hash_root = Zeroizing::new(bytes(&row.hash_root)?);
        let hash_root = <[u8; KEY_BYTES]>::try_from(hash_root.as_slice()).map_err(|error| damaged(&error))?;
        Ok(Self {
            cluster: row.cluster.clone(),
            root: decode(&row.root)?,
            servers: decode(&row.servers)?,
            workers: decode(&row.workers)?,
            hash_root: Zeroizing::new(hash_root),
        })
    }
}

fn pair(issuer: &CertifiedIssuer<'_, KeyPair>) -> Pair {
    Pair {
        certificate: issuer.der().to_vec(),
        key: Zeroizing::new(issuer.key().serialize_der()),
    }
}

/// A random id: 26 characters of `0-9a-v`.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    BASE32_DNSSEC.encode(&bytes)
}
