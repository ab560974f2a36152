//! The port to the certificate authority and the keyed hashes.

use hodei_server_domain::worker::otp::SpkiHash;
use hodei_shared::ids::WorkerId;
use thiserror::Error;

use super::workers::Certificate;

/// A certificate request whose own signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRequest {
    /// DER of the request.
    pub der: Vec<u8>,
    /// Hash of its public key.
    pub spki: SpkiHash,
}

/// Why a certificate was not signed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthorityError {
    /// The request is damaged, its signature is wrong or its key is not P-256 or Ed25519.
    #[error("the certificate request is not acceptable: {0}")]
    BadRequest(String),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Failed(String),
}

/// Signs worker certificates and hashes secrets. Synchronous: signing takes well under a millisecond.
pub trait Authority: Send + Sync + 'static {
    /// Verifies a PKCS #10 request (DER) and its own signature; the key must be P-256 or Ed25519.
    fn verify_request(&self, der: &[u8]) -> Result<VerifiedRequest, AuthorityError>;

    /// Signs a certificate for `worker` with the key of `request`: URI SAN `spiffe://CLUSTER/worker/ID`,
    /// extended key usage clientAuth, validity from five minutes before `now_ms`.
    fn issue_worker(
        &self,
        request: &VerifiedRequest,
        worker: WorkerId,
        generation: u64,
        now_ms: i64,
    ) -> Result<Certificate, AuthorityError>;

    /// The keyed hash of a one-time password's secret.
    fn otp_hash(&self, secret: &str) -> [u8; 32];

    /// The keyed hash of a token's secret.
    fn token_hash(&self, secret: &str) -> [u8; 32];
}
