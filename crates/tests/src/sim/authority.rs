//! Certificates without cryptography: a request is a key's number, a certificate says whose it is.

use hodei_server_application::ports::authority::{Authority, AuthorityError, VerifiedRequest};
use hodei_server_application::ports::link::WorkerIdentity;
use hodei_server_application::ports::workers::Certificate;
use hodei_server_domain::worker::otp::SpkiHash;
use hodei_shared::ids::WorkerId;

/// How long a certificate lives: short, so that renewals meet faults.
const LIFE_MS: i64 = 120_000;

/// Signs by writing down.
pub(super) struct SimAuthority;

impl Authority for SimAuthority {
    fn verify_request(&self, der: &[u8]) -> Result<VerifiedRequest, AuthorityError> {
        let key: [u8; 32] = der
            .try_into()
            .map_err(|_| AuthorityError::BadRequest("no key".to_owned()))?;
        Ok(VerifiedRequest {
            der: der.to_vec(),
            spki: SpkiHash(key),
        })
    }

    fn issue_worker(
        &self,
        request: &VerifiedRequest,
        worker: WorkerId,
        generation: u64,
        now_ms: i64,
    ) -> Result<Certificate, AuthorityError> {
        let not_after_ms = now_ms + LIFE_MS;
        let mut leaf = worker.as_bytes().to_vec();
        leaf.extend(generation.to_be_bytes());
        leaf.extend(not_after_ms.to_be_bytes());
        Ok(Certificate {
            chain: vec![leaf],
            spki: request.spki,
            generation,
            not_after_ms,
        })
    }

    fn otp_hash(&self, secret: &str) -> [u8; 32] {
        hash(secret)
    }

    fn token_hash(&self, secret: &str) -> [u8; 32] {
        hash(secret)
    }
}

/// Who a certificate of [`SimAuthority`] says its holder is.
pub(super) fn identity(chain: &[Vec<u8>]) -> Option<WorkerIdentity> {
    let leaf = chain.first()?;
    let worker = WorkerId::from_bytes(leaf.get(..16)?.try_into().ok()?);
    let generation = u64::from_be_bytes(leaf.get(16..24)?.try_into().ok()?);
    let not_after_ms = i64::from_be_bytes(leaf.get(24..32)?.try_into().ok()?);
    Some(WorkerIdentity {
        worker,
        generation,
        not_after_ms,
    })
}

/// Certificates of [`SimAuthority`] begin where they are signed.
pub(super) fn not_before_ms(identity: &WorkerIdentity) -> i64 {
    identity.not_after_ms - LIFE_MS
}

fn hash(secret: &str) -> [u8; 32] {
    let mut out = [0_u8; 32];
    for (index, byte) in secret.bytes().enumerate() {
        out[index % 32] = out[index % 32].rotate_left(3) ^ byte;
    }
    out
}
