//! Domain events: what happened, committed in the transaction in which it happened.

use hodei_shared::ids::{JobId, Lease, ProviderId, WorkerId};
use hodei_shared::resources::Resources;
use serde::{Deserialize, Serialize};

use crate::worker::otp::OtpRefusal;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Event {
    /// A job was queued.
    JobCreated {
        /// The job.
        job: JobId,
    },
    /// A job came into another state.
    JobStatusChanged {
        /// The job.
        job: JobId,
        /// The state's word.
        state: String,
        /// The attempt's number; 0 before the first.
        attempt: u32,
        /// Why, a stable word; empty: no need.
        reason: String,
        /// Why, for people.
        message: String,
    },
    /// Somebody asked to cancel a job that a worker holds.
    JobCancelRequested {
        /// The job.
        job: JobId,
        /// Who or why, for people.
        message: String,
    },
    /// A result came for a lease whose recorded result is another one.
    ResultConflict {
        /// The job.
        job: JobId,
        /// The claim.
        lease: Lease,
        /// Who said it.
        worker: WorkerId,
    },
    /// A worker is intended.
    WorkerPlanned {
        /// The worker.
        worker: WorkerId,
        /// Where.
        provider: ProviderId,
    },
    /// A worker redeemed its password.
    WorkerRegistered {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker's session began.
    WorkerConnected {
        /// The worker.
        worker: WorkerId,
        /// The session's number.
        session: u64,
        /// Its room for jobs.
        room: Resources,
    },
    /// A worker takes no more jobs.
    WorkerDraining {
        /// The worker.
        worker: WorkerId,
        /// Why, for people.
        message: String,
    },
    /// A worker's machine is gone.
    WorkerGone {
        /// The worker.
        worker: WorkerId,
        /// Why, for people.
        message: String,
    },
    /// Somebody asked that a provider takes no new work.
    ProviderDrained {
        /// The provider.
        provider: ProviderId,
        /// Who or why, for people.
        message: String,
    },
    /// A provider takes work again.
    ProviderResumed {
        /// The provider.
        provider: ProviderId,
    },
    /// A one-time password was refused.
    OtpRefused {
        /// The password's public id, shortened; empty if it had none.
        otp_id: String,
        /// Why.
        why: OtpRefusal,
    },
    /// A redeemed password came again with another key: the worker's identity was revoked.
    OtpReused {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker's identity was revoked.
    IdentityRevoked {
        /// The worker.
        worker: WorkerId,
        /// Why, for people.
        message: String,
    },
}

impl Event {
    /// The name of the kind, such as `JobCreated`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::JobCreated { .. } => "JobCreated",
            Self::JobStatusChanged { .. } => "JobStatusChanged",
            Self::JobCancelRequested { .. } => "JobCancelRequested",
            Self::ResultConflict { .. } => "ResultConflict",
            Self::WorkerPlanned { .. } => "WorkerPlanned",
            Self::WorkerRegistered { .. } => "WorkerRegistered",
            Self::WorkerConnected { .. } => "WorkerConnected",
            Self::WorkerDraining { .. } => "WorkerDraining",
            Self::WorkerGone { .. } => "WorkerGone",
            Self::ProviderDrained { .. } => "ProviderDrained",
            Self::ProviderResumed { .. } => "ProviderResumed",
            Self::OtpRefused { .. } => "OtpRefused",
            Self::OtpReused { .. } => "otp_reused",
            Self::IdentityRevoked { .. } => "IdentityRevoked",
        }
    }

    /// The job it is about.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::JobCreated { job }
            | Self::JobStatusChanged { job, .. }
            | Self::JobCancelRequested { job, .. }
            | Self::ResultConflict { job, .. } => Some(*job),
            _ => None,
        }
    }

    /// The worker it is about.
    pub fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::ResultConflict { worker, .. }
            | Self::WorkerPlanned { worker, .. }
            | Self::WorkerRegistered { worker }
            | Self::WorkerConnected { worker, .. }
            | Self::WorkerDraining { worker, .. }
            | Self::WorkerGone { worker, .. }
            | Self::OtpReused { worker }
            | Self::IdentityRevoked { worker, .. } => Some(*worker),
            _ => None,
        }
    }

    /// A sentence for people.
    pub fn message(&self) -> String {
        match self {
            Self::JobCreated { .. } => "queued".to_owned(),
            Self::JobStatusChanged { state, message, .. } if message.is_empty() => state.clone(),
            Self::JobStatusChanged { state, message, .. } => format!("{state}: {message}"),
            Self::JobCancelRequested { message, .. } => format!("cancel requested: {message}"),
            Self::ResultConflict { lease, worker, .. } => {
                format!("worker {worker} reported another result for lease {lease}; the recorded one stands")
            }
            Self::WorkerPlanned { provider, .. } => format!("planned on provider {provider}"),
            Self::WorkerRegistered { .. } => "registered".to_owned(),
            Self::WorkerConnected { session, room, .. } => format!("connected, session {session}, {room}"),
            Self::WorkerDraining { message, .. } => format!("draining: {message}"),
            Self::ProviderDrained { provider, message } => format!("provider {provider} drained: {message}"),
            Self::ProviderResumed { provider } => format!("provider {provider} takes work again"),
            Self::WorkerGone { message, .. } => format!("gone: {message}"),
            Self::OtpRefused { otp_id, why } => format!("password {otp_id} refused: {why:?}"),
            Self::OtpReused { .. } => "its password came again with another key; revoked".to_owned(),
            Self::IdentityRevoked { message, .. } => format!("identity revoked: {message}"),
        }
    }
}
