//! The platform's own certificate authority and its keyed hashes.
//!
//! One root, and below it one intermediate for servers and one for workers, so that no certificate of one kind
//! is accepted for the other. Root, intermediates, the cluster's id and the root of the keyed hashes are made
//! once and stored as ONE sealed value: all replicas over one store share them. The cluster key file opens it.
//!
//! Invariants: no key leaves this module, and none is stored in clear · only keys of verified requests are
//! certified · a worker's name and generation are written by [`names`] alone · the door for workers accepts only
//! what the worker intermediate signed ([`verifier`]).

mod issue;
pub mod keys;
mod names;
mod seal;
mod stored;
mod tls;
mod verifier;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::authority::{Authority, AuthorityError, VerifiedRequest};
use hodei_server_application::ports::sealed::SealedStore;
use hodei_server_application::ports::workers::Certificate;
use hodei_shared::ids::WorkerId;
use rustls::ServerConfig;
use thiserror::Error;

use self::issue::Issuers;
use self::keys::{ClusterKeys, HashKeys};
use self::stored::Stored;

/// How long a worker's certificate is valid when nothing else is asked for.
pub const WORKER_CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 60);

/// The name under which the authority is sealed in the store.
const STORED_NAME: &str = "authority";

/// Why the authority could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The store does not answer.
    #[error("the authority could not be read from the store")]
    Store(#[from] StoreError),
    /// None of the cluster's keys opens what is stored.
    #[error("no key of the cluster key file opens the stored authority; was the file replaced?")]
    WrongKey,
    /// The stored value is damaged.
    #[error("the stored authority is damaged: {0}")]
    Damaged(String),
    /// A key or certificate could not be made.
    #[error("the authority could not be made: {0}")]
    Make(String),
}

/// The authority of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct LocalAuthority {
    inner: Arc<Inner>,
}

struct Inner {
    issuers: Issuers,
    hashes: HashKeys,
    worker_life: Duration,
}

impl LocalAuthority {
    /// Opens the authority of this store, or makes it if there is none. Of several servers that do so at once,
    /// all end with the same one.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed then.
    pub async fn open(
        store: &dyn SealedStore,
        keys: &ClusterKeys,
        worker_life: Duration,
        now_ms: i64,
    ) -> Result<Self, OpenError> {
        let sealed = match store.get_sealed(STORED_NAME).await? {
            Some(sealed) => sealed,
            None => {
                let made = Stored::make(now_ms)?;
                let sealed = keys.sealer().seal(STORED_NAME, &made.encode()?)?;
                store.put_sealed_first(STORED_NAME, sealed).await?
            }
        };
        let stored = Stored::decode(&keys.sealer().open(STORED_NAME, &sealed)?)?;
        let inner = Inner {
            hashes: HashKeys::derive(&stored.hash_root),
            issuers: Issuers::new(&stored)?,
            worker_life,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The cluster's id: 26 characters of `0-9a-v`.
    pub fn cluster(&self) -> &str {
        self.inner.issuers.cluster()
    }

    /// The one DNS name that stands in every server's certificate.
    pub fn server_name(&self) -> String {
        names::server_name(self.cluster())
    }

    /// The root certificate, PEM: all that workers and clients of this cluster trust.
    pub fn root_pem(&self) -> &str {
        self.inner.issuers.root_pem()
    }

    /// TLS for the worker door: 1.3 only, no resumption; a client certificate is optional in the handshake and,
    /// if there is one, must be a worker's. It may have ended at most seven days ago.
    ///
    /// # Errors
    /// [`OpenError::Make`] if no server certificate could be made.
    pub fn worker_door(&self) -> Result<Arc<ServerConfig>, OpenError> {
        tls::worker_door(&self.inner)
    }

    /// TLS for the client door with a certificate of this authority for `names`, the machine's loopback names and
    /// the cluster's name: 1.3 only, no resumption, no client certificates.
    ///
    /// # Errors
    /// [`OpenError::Make`] if no server certificate could be made.
    pub fn client_door(
        &self,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Arc<ServerConfig>, OpenError> {
        tls::client_door(&self.inner, names, addresses)
    }
}

pub use self::tls::client_door_from_pem;

impl Authority for LocalAuthority {
    fn verify_request(&self, der: &[u8]) -> Result<VerifiedRequest, AuthorityError> {
        issue::verify_request(der).map(|(verified, _)| verified)
    }

    fn issue_worker(
        &self,
        request: &VerifiedRequest,
        worker: WorkerId,
        generation: u64,
        now_ms: i64,
    ) -> Result<Certificate, AuthorityError> {
        let life = self.inner.worker_life;
        self.inner
            .issuers
            .issue_worker(request, worker, generation, now_ms, life)
    }

    fn otp_hash(&self, secret: &str) -> [u8; 32] {
        self.inner.hashes.otp(secret)
    }

    fn token_hash(&self, secret: &str) -> [u8; 32] {
        self.inner.hashes.token(secret)
    }
}
