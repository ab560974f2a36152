//! The port over workers, their one-time passwords and identities.

use async_trait::async_trait;
use hodei_server_domain::worker::identity::{Identity, RenewalRefusal, RenewalRequest};
use hodei_server_domain::worker::otp::{Otp, OtpRefusal, SpkiHash};
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{JobId, Namespace, ProviderId, WorkerId};
use hodei_shared::resources::Resources;

use super::StoreError;

/// A worker that is intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorker {
    /// Its id.
    pub id: WorkerId,
    /// Whose jobs it will run.
    pub namespace: Namespace,
    /// Where.
    pub provider: ProviderId,
    /// How many jobs at once, until it says so itself.
    pub slots: u32,
    /// The job that asked for it first.
    pub first_job: JobId,
}

/// A worker as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// Whose jobs it runs.
    pub namespace: Namespace,
    /// Where it is.
    pub provider: ProviderId,
    /// Where it stands.
    pub phase: WorkerPhase,
    /// The job that asked for it first.
    pub first_job: JobId,
    /// What the provider calls the machine; empty before it has one.
    pub machine: String,
    /// Number of its last session; 0 before the first.
    pub session: u64,
    /// Number of the last beat of that session.
    pub beat: u64,
    /// Room for jobs, as it said.
    pub room: Resources,
    /// How many jobs at once.
    pub slots: u32,
    /// How many it holds.
    pub used_slots: u32,
    /// What the kernel enforces for its jobs, as it said.
    pub enforced: Vec<String>,
    /// Its identity was revoked.
    pub revoked: bool,
    /// When it was intended.
    pub created_at_ms: i64,
    /// When it came into its phase.
    pub phase_since_ms: i64,
    /// When its last attempt ended, or it came up; for idling.
    pub idle_since_ms: i64,
    /// When it was seen to be gone.
    pub ended_at_ms: Option<i64>,
    /// Why it drains or is gone, for people.
    pub message: String,
}

/// A certificate that was signed, to be stored or handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Hash of its public key.
    pub spki: SpkiHash,
    /// Its generation.
    pub generation: u64,
    /// End of its validity.
    pub not_after_ms: i64,
}

/// A redemption, with the certificate that is stored if it is accepted.
#[derive(Debug, Clone)]
pub struct Redeem {
    /// The password's public id.
    pub otp_id: String,
    /// Whether the secret's keyed hash is the stored one.
    pub secret_matches: bool,
    /// The signed candidate, generation 1.
    pub candidate: Certificate,
}

/// What became of a [`Redeem`]. The store appends the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedeemOutcome {
    /// The candidate was stored; the worker is ready.
    Issued(Vec<Vec<u8>>),
    /// The bytes that were stored before.
    Repeated(Vec<Vec<u8>>),
    /// The right secret before its machine is confirmed.
    TryAgain,
    /// Theft: the first certificate was revoked.
    Reused(WorkerId),
    /// Refused.
    Refused(OtpRefusal),
}

/// What became of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenewOutcome {
    /// The candidate was stored.
    Issued(Vec<Vec<u8>>),
    /// The bytes that were stored before.
    Repeated(Vec<Vec<u8>>),
    /// Theft: the identity was revoked.
    Stolen,
    /// Refused.
    Refused(RenewalRefusal),
    /// There is no such worker, or it is gone.
    NoSuchWorker,
}

/// What a worker says when its session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStart {
    /// The worker, from its certificate.
    pub worker: WorkerId,
    /// The generation in that certificate.
    pub generation: u64,
    /// Room for jobs.
    pub room: Resources,
    /// How many jobs at once; what is stored is never more than was planned.
    pub slots: u32,
    /// What the kernel enforces for its jobs.
    pub enforced: Vec<String>,
}

/// What became of a [`SessionStart`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionOutcome {
    /// The session with this number began; older ones are over.
    Began(u64),
    /// The identity was revoked, the worker is gone or unknown.
    Refused,
}

/// A beat of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatRecord {
    /// The worker.
    pub worker: WorkerId,
    /// Its session.
    pub session: u64,
    /// The beat's number.
    pub beat: u64,
}

/// A move of a worker to another phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerChange {
    /// Its machine is being asked for; the password can be redeemed once it is armed.
    Creating {
        /// The worker.
        worker: WorkerId,
        /// The password's public id.
        otp_id: String,
        /// Keyed hash of its secret.
        secret_hash: [u8; 32],
    },
    /// Its provider says that the machine starts: arms the password.
    Started {
        /// The worker.
        worker: WorkerId,
        /// What the provider calls the machine.
        machine: String,
    },
    /// It takes no more jobs. Only workers without jobs if `only_idle`.
    Drain {
        /// The worker.
        worker: WorkerId,
        /// Why, for people.
        message: String,
        /// Do nothing if it holds a job.
        only_idle: bool,
    },
    /// Its identity is revoked, and with it its password.
    Revoke {
        /// The worker.
        worker: WorkerId,
        /// Why, for people.
        message: String,
    },
    /// Its machine is gone; its password is void.
    Gone {
        /// The worker.
        worker: WorkerId,
        /// Why, for people.
        message: String,
    },
}

impl WorkerChange {
    /// The worker that it is about.
    pub fn worker(&self) -> WorkerId {
        match self {
            Self::Creating { worker, .. }
            | Self::Started { worker, .. }
            | Self::Drain { worker, .. }
            | Self::Revoke { worker, .. }
            | Self::Gone { worker, .. } => *worker,
        }
    }
}

/// Workers. Every change and its events are one transaction; concurrent calls share one.
#[async_trait]
pub trait WorkerRegistry: Send + Sync + 'static {
    /// Records intents, with the event `WorkerPlanned`.
    async fn plan(&self, workers: Vec<NewWorker>) -> Result<(), StoreError>;

    /// Applies changes in order; true where something changed.
    async fn change(&self, changes: Vec<WorkerChange>) -> Result<Vec<bool>, StoreError>;

    /// Workers that are not gone, by id.
    async fn live(&self) -> Result<Vec<WorkerRecord>, StoreError>;

    /// The newest workers, also those that are gone; at most `limit`.
    async fn list(&self, limit: usize) -> Result<Vec<WorkerRecord>, StoreError>;

    /// One worker.
    async fn get(&self, worker: WorkerId) -> Result<Option<WorkerRecord>, StoreError>;

    /// The password with this public id, and whose it is.
    async fn otp(&self, otp_id: &str) -> Result<Option<(WorkerId, Otp)>, StoreError>;

    /// Redeems a password by the rules of [`Otp::decide`]: one conditional update.
    async fn redeem(&self, redeem: Redeem) -> Result<RedeemOutcome, StoreError>;

    /// What is known of a worker's identity; `None` before it registered.
    async fn identity(&self, worker: WorkerId) -> Result<Option<Identity>, StoreError>;

    /// Renews a certificate by the rules of [`Identity::decide`]: one conditional update.
    async fn renew(
        &self,
        worker: WorkerId,
        request: RenewalRequest,
        candidate: Certificate,
    ) -> Result<RenewOutcome, StoreError>;

    /// Begins a session: raises its number, if the identity is of the current or the previous generation, not
    /// revoked, and the worker is ready or draining.
    async fn begin_session(&self, start: SessionStart) -> Result<SessionOutcome, StoreError>;

    /// Records beats; false where a newer session began or the worker is gone or revoked.
    async fn beat(&self, beats: Vec<BeatRecord>) -> Result<Vec<bool>, StoreError>;
}
