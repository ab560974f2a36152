//! How workers come in: a one-time password becomes a certificate, a certificate the next one.
//!
//! Invariant: the caller of a refused redemption hears one vague reason; the event log has the distinct one.

use std::sync::PoisonError;

use hodei_server_domain::access::credential::{Credential, same_hash};
use hodei_server_domain::event::Event;
use hodei_server_domain::worker::identity::RenewalRequest;
use hodei_server_domain::worker::otp::{Attempted, OtpDecision, OtpRefusal, SpkiHash};
use hodei_shared::ids::WorkerId;
use hodei_shared::text;
use thiserror::Error;

use crate::platform::Platform;
use crate::ports::StoreError;
use crate::ports::link::WorkerIdentity;
use crate::ports::provider::{WorkerHandle, WorkerState};
use crate::ports::workers::{Redeem, RedeemOutcome, RenewOutcome};
use crate::refused::Refused;

/// Why a worker was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// The right password before its machine is confirmed.
    #[error("the machine is not confirmed yet; try again")]
    TryAgain,
    /// Everything else that is wrong with the request.
    #[error("the one-time password is not accepted")]
    Refused,
    /// The store does not answer.
    #[error("the server can not do this now")]
    Unavailable,
}

/// Why a certificate was not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RenewError {
    /// It can not be renewed.
    #[error("the certificate can not be renewed")]
    Refused,
    /// The store does not answer.
    #[error("the server can not do this now")]
    Unavailable,
}

/// The certificate that a worker shows, as the door verified it.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Who it says the worker is.
    pub identity: WorkerIdentity,
    /// Hash of its public key.
    pub spki: SpkiHash,
}

/// Redeems a one-time password: verifies the request's own signature, signs, then one conditional update.
///
/// # Errors
/// See [`RegisterError`].
pub async fn register(platform: &Platform, otp: &str, csr_der: &[u8]) -> Result<Vec<Vec<u8>>, RegisterError> {
    let Some(credential) = Credential::parse_otp(otp) else {
        return Err(refuse(platform, "", OtpRefusal::Unknown).await);
    };
    let id = credential.id.as_str();
    let Some((worker, known)) = platform.workers.otp(id).await.map_err(unavailable)? else {
        return Err(refuse(platform, id, OtpRefusal::Unknown).await);
    };
    let hash = platform.authority.otp_hash(credential.secret.expose());
    if !same_hash(&hash, &known.secret_hash) {
        return Err(refuse(platform, id, OtpRefusal::WrongSecret).await);
    }
    let Ok(request) = platform.authority.verify_request(csr_der) else {
        return Err(refuse(platform, id, OtpRefusal::BadRequest).await);
    };
    let now_ms = platform.clock.now_ms();
    let attempted = Attempted {
        secret_matches: true,
        spki: request.spki,
        now_ms,
    };
    if known.decide(attempted) == OtpDecision::Issue && machine_has_ended(platform, worker).await {
        return Err(refuse(platform, id, OtpRefusal::Expired).await);
    }
    let candidate = platform
        .authority
        .issue_worker(&request, worker, 1, now_ms)
        .map_err(|error| {
            tracing::error!(worker_id = %worker, %error, "certificate could not be signed");
            RegisterError::Unavailable
        })?;
    let redeem = Redeem {
        otp_id: credential.id,
        secret_matches: true,
        candidate,
    };
    match platform.workers.redeem(redeem).await.map_err(unavailable)? {
        RedeemOutcome::Issued(chain) => {
            tracing::info!(worker_id = %worker, "worker registered");
            Ok(chain)
        }
        RedeemOutcome::Repeated(chain) => Ok(chain),
        RedeemOutcome::TryAgain => Err(RegisterError::TryAgain),
        RedeemOutcome::Reused(worker) => {
            tracing::warn!(worker_id = %worker, "one-time password came again with another key");
            cast_out(platform, worker);
            Err(RegisterError::Refused)
        }
        RedeemOutcome::Refused(_) => Err(RegisterError::Refused),
    }
}

/// Whether the provider says for certain that the worker's machine does not run.
async fn machine_has_ended(platform: &Platform, worker: WorkerId) -> bool {
    let Ok(Some(record)) = platform.workers.get(worker).await else {
        return true;
    };
    let Some(provider) = platform.providers.get(&record.provider) else {
        return true;
    };
    let handle = WorkerHandle {
        worker,
        machine: record.machine,
    };
    matches!(
        provider.get_worker_status(&handle).await,
        Ok(WorkerState::Exited | WorkerState::Gone)
    )
}

async fn refuse(platform: &Platform, otp_id: &str, why: OtpRefusal) -> RegisterError {
    let now = platform.clock.monotonic();
    if !platform
        .refusals
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take(now)
    {
        return RegisterError::Refused;
    }
    let event = Event::OtpRefused {
        otp_id: text::shorten(otp_id, 40),
        why,
    };
    if let Err(error) = platform.events.append(vec![event]).await {
        tracing::warn!(%error, "refused password could not be recorded");
    }
    RegisterError::Refused
}

fn unavailable(error: StoreError) -> RegisterError {
    tracing::warn!(%error, "worker could not be registered");
    RegisterError::Unavailable
}

/// Ends the worker's session; its machine is destroyed by the reconciliation.
pub(crate) fn cast_out(platform: &Platform, worker: WorkerId) {
    platform.sessions.end(worker);
    platform.wake.reconcile.notify_one();
}

/// Exchanges a certificate for the next generation.
///
/// # Errors
/// See [`RenewError`].
pub async fn renew(platform: &Platform, shown: Shown, csr_der: &[u8]) -> Result<Vec<Vec<u8>>, RenewError> {
    let worker = shown.identity.worker;
    let request = platform.authority.verify_request(csr_der).map_err(|error| {
        tracing::warn!(worker_id = %worker, %error, "renewal refused");
        RenewError::Refused
    })?;
    let now_ms = platform.clock.now_ms();
    let generation = shown.identity.generation + 1;
    let candidate = platform
        .authority
        .issue_worker(&request, worker, generation, now_ms)
        .map_err(|error| {
            tracing::error!(worker_id = %worker, %error, "certificate could not be signed");
            RenewError::Unavailable
        })?;
    let asked = RenewalRequest {
        shown_generation: shown.identity.generation,
        shown_spki: shown.spki,
        new_spki: request.spki,
        shown_not_after_ms: shown.identity.not_after_ms,
        now_ms,
    };
    let outcome = platform
        .workers
        .renew(worker, asked, candidate)
        .await
        .map_err(|error| {
            tracing::warn!(worker_id = %worker, %error, "certificate could not be renewed");
            RenewError::Unavailable
        })?;
    match outcome {
        RenewOutcome::Issued(chain) | RenewOutcome::Repeated(chain) => Ok(chain),
        RenewOutcome::Stolen => {
            tracing::warn!(worker_id = %worker, "renewal from an older generation; identity revoked");
            cast_out(platform, worker);
            Err(RenewError::Refused)
        }
        RenewOutcome::Refused(why) => {
            tracing::warn!(worker_id = %worker, ?why, "renewal refused");
            Err(RenewError::Refused)
        }
        RenewOutcome::NoSuchWorker => Err(RenewError::Refused),
    }
}

/// Whether a worker's identity still stands.
///
/// # Errors
/// [`Refused::Unauthenticated`] if it is revoked, unknown or its certificate has ended.
pub async fn check(platform: &Platform, identity: &WorkerIdentity) -> Result<(), Refused> {
    let known = platform.workers.identity(identity.worker).await?;
    let stands = known.is_some_and(|known| !known.revoked && identity.generation <= known.generation);
    if stands && platform.clock.now_ms() <= identity.not_after_ms {
        Ok(())
    } else {
        Err(Refused::Unauthenticated)
    }
}
