//! The port to a provider of machines. A provider creates, describes, lists and destroys labelled machines that
//! start a worker; it never knows jobs.

use async_trait::async_trait;
use hodei_server_domain::provider::{Capabilities, Health};
use hodei_shared::ids::{ProviderId, WorkerId};
use hodei_shared::resources::Resources;
use hodei_shared::secret::SecretString;
use thiserror::Error;

/// What a worker's machine needs to be.
#[derive(Debug, Clone)]
pub struct WorkerSpec {
    /// The worker; names the machine, so that creating it twice makes one.
    pub worker: WorkerId,
    /// The one-time password to hand over.
    pub otp: SecretString,
    /// Room for jobs.
    pub room: Resources,
    /// How many jobs at once.
    pub slots: u32,
    /// Server time.
    pub now_ms: i64,
}

/// A machine that a provider made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerHandle {
    /// The worker.
    pub worker: WorkerId,
    /// What the provider calls the machine.
    pub machine: String,
}

/// What a provider sees of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It is being made.
    Creating,
    /// It runs.
    Running,
    /// It and everything it started has ended; something of it is still to be removed.
    Exited,
    /// There is nothing of it.
    Gone,
    /// The provider can not say now.
    Unknown,
}

/// Why a provider could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProviderError {
    /// May work later.
    #[error("{0}")]
    Unavailable(String),
    /// Will not work until somebody changes something.
    #[error("{0}")]
    Misconfigured(String),
}

impl ProviderError {
    /// Whether the same call may succeed later without a person.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A provider of machines.
#[async_trait]
pub trait WorkerProvider: Send + Sync + 'static {
    /// Its configured id.
    fn provider_id(&self) -> &ProviderId;

    /// What it can hold.
    fn capabilities(&self) -> Capabilities;

    /// Makes a machine and starts the worker in it. Idempotent by worker: a machine that is there is an error of
    /// an interrupted creation and is destroyed first. When it returns, the machine starts or runs.
    async fn create_worker(&self, spec: &WorkerSpec) -> Result<WorkerHandle, ProviderError>;

    /// What it sees of a machine. `Exited` and `Gone` are proof that nothing of it runs.
    async fn get_worker_status(&self, handle: &WorkerHandle) -> Result<WorkerState, ProviderError>;

    /// What a machine whose worker has ended said last, for people: one line, empty if that is not known. To be asked
    /// before it is destroyed.
    async fn last_words(&self, _handle: &WorkerHandle) -> String {
        String::new()
    }

    /// Ends a machine and removes everything of it. Idempotent; returned means that nothing of it is left.
    async fn destroy_worker(&self, handle: &WorkerHandle) -> Result<(), ProviderError>;

    /// How it is.
    async fn health_check(&self) -> Result<Health, ProviderError>;

    /// Every machine of this platform that is there, whether the store knows it or not.
    async fn list_workers(&self) -> Result<Vec<(WorkerHandle, WorkerState)>, ProviderError>;

    /// Ends when a machine may have changed. Only a hint: whoever waits for it also polls.
    async fn changed(&self);
}
