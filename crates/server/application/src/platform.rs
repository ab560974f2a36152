//! One server's application: its ports, its connected workers and the wake-ups between its loops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hodei_server_domain::provider::Health;
use hodei_shared::ids::{JobId, ObjectId, ProviderId, WorkerId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ports::authority::Authority;
use crate::ports::drains::ProviderDrains;
use crate::ports::events::EventBus;
use crate::ports::input::InputStore;
use crate::ports::jobs::JobRepository;
use crate::ports::objects::OutputObjects;
use crate::ports::output::OutputStore;
use crate::ports::provider::WorkerProvider;
use crate::ports::retention::Retention;
use crate::ports::tokens::TokenStore;
use crate::ports::workers::WorkerRegistry;
use crate::ports::{Clock, Rng, Spawner};
use crate::sessions::Sessions;

/// What a platform is made of.
pub struct PlatformParts {
    /// Jobs and attempts.
    pub jobs: Arc<dyn JobRepository>,
    /// Workers and their identities.
    pub workers: Arc<dyn WorkerRegistry>,
    /// What jobs print.
    pub output: Arc<dyn OutputStore>,
    /// Where the bulk of that lies.
    pub objects: Arc<dyn OutputObjects>,
    /// What is removed when it is old.
    pub retention: Arc<dyn Retention>,
    /// What jobs read.
    pub input: Arc<dyn InputStore>,
    /// Providers that take no new work.
    pub drains: Arc<dyn ProviderDrains>,
    /// The event log.
    pub events: Arc<dyn EventBus>,
    /// Client tokens.
    pub tokens: Arc<dyn TokenStore>,
    /// Certificates and keyed hashes.
    pub authority: Arc<dyn Authority>,
    /// Configured providers.
    pub providers: Vec<Arc<dyn WorkerProvider>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawner: Arc<dyn Spawner>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Figures.
    pub settings: PlatformSettings,
}

/// The figures that an application runs by.
#[derive(Debug, Clone)]
pub struct PlatformSettings {
    /// How often workers beat.
    pub beat_interval: Duration,
    /// Where servers are, as workers are told.
    pub addresses: Vec<String>,
    /// How long a machine may take to register.
    pub registration_deadline: Duration,
    /// How long a worker without jobs is kept.
    pub worker_idle: Duration,
    /// How often loops look without being woken, and the longest delay of what they do.
    pub poll: Duration,
    /// How long a result waits for the output before its end.
    pub output_patience: Duration,
    /// From how many bytes on output goes straight into an object.
    pub object_bytes: usize,
    /// How much of a job's output is kept; it may print more.
    pub output_limit: u64,
    /// How long ended jobs are kept.
    pub keep_jobs: Duration,
    /// How long the output of ended jobs is kept; not longer than they are.
    pub keep_output: Duration,
    /// How much input a job may have, in bytes.
    pub input_limit: u64,
}

impl Default for PlatformSettings {
    fn default() -> Self {
        Self {
            beat_interval: Duration::from_secs(10),
            addresses: Vec::new(),
            registration_deadline: Duration::from_secs(120),
            worker_idle: Duration::from_secs(300),
            poll: Duration::from_secs(1),
            output_patience: Duration::from_secs(60),
            object_bytes: 256 << 10,
            output_limit: 10 << 30,
            keep_jobs: Duration::from_secs(90 * 86_400),
            keep_output: Duration::from_secs(30 * 86_400),
            input_limit: 1 << 30,
        }
    }
}

/// One server's application.
pub struct Platform {
    /// Jobs and attempts.
    pub jobs: Arc<dyn JobRepository>,
    /// Workers and their identities.
    pub workers: Arc<dyn WorkerRegistry>,
    /// What jobs print.
    pub output: Arc<dyn OutputStore>,
    /// Where the bulk of that lies.
    pub objects: Arc<dyn OutputObjects>,
    /// What is removed when it is old.
    pub retention: Arc<dyn Retention>,
    /// What jobs read.
    pub input: Arc<dyn InputStore>,
    /// Providers that take no new work.
    pub drains: Arc<dyn ProviderDrains>,
    /// The event log.
    pub events: Arc<dyn EventBus>,
    /// Client tokens.
    pub tokens: Arc<dyn TokenStore>,
    /// Certificates and keyed hashes.
    pub authority: Arc<dyn Authority>,
    /// Configured providers, by id.
    pub providers: BTreeMap<ProviderId, Arc<dyn WorkerProvider>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawner: Arc<dyn Spawner>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Figures.
    pub settings: PlatformSettings,
    pub(crate) sessions: Sessions,
    pub(crate) wake: Wake,
    /// When this server began, monotonic.
    pub(crate) started_at: Duration,
    /// No new work is planned from here on.
    pub(crate) draining: CancellationToken,
    /// Everything ends from here on.
    pub(crate) stopped: CancellationToken,
    health: Mutex<BTreeMap<ProviderId, Health>>,
    pub(crate) refusals: Mutex<RefusalBudget>,
}

/// Wake-ups of the loops. A lost one costs at most [`PlatformSettings::poll`].
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pub(crate) dispatch: Notify,
    pub(crate) provision: Notify,
    pub(crate) lease: Notify,
    pub(crate) reconcile: Notify,
    /// Nobody waits for what these loops do, so that they are only polled.
    pub(crate) housekeeping: Notify,
}

/// How many refused passwords are still written to the event log this second, so that strangers can not fill it.
#[derive(Debug, Default)]
pub(crate) struct RefusalBudget {
    second: u64,
    used: u32,
}

impl RefusalBudget {
    const PER_SECOND: u32 = 10;

    /// Takes one from the budget of this second; false if it is used up.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            *self = Self {
                second: now.as_secs(),
                used: 0,
            };
        }
        self.used += 1;
        self.used <= Self::PER_SECOND
    }
}

impl Platform {
    /// Puts the parts together. Nothing runs before [`crate::control::start`].
    pub fn new(parts: PlatformParts) -> Self {
        let started_at = parts.clock.monotonic();
        let providers = parts
            .providers
            .into_iter()
            .map(|p| (p.provider_id().clone(), p))
            .collect();
        Self {
            jobs: parts.jobs,
            workers: parts.workers,
            output: parts.output,
            objects: parts.objects,
            retention: parts.retention,
            input: parts.input,
            drains: parts.drains,
            events: parts.events,
            tokens: parts.tokens,
            authority: parts.authority,
            providers,
            clock: parts.clock,
            spawner: parts.spawner,
            rng: parts.rng,
            settings: parts.settings,
            sessions: Sessions::default(),
            wake: Wake::default(),
            started_at,
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            health: Mutex::default(),
            refusals: Mutex::default(),
        }
    }

    /// Whether a session of this worker is open at this server.
    pub fn is_connected(&self, worker: WorkerId) -> bool {
        self.sessions.is_open(worker)
    }

    /// How a provider was when it was last asked; unhealthy before that.
    pub fn health_of(&self, provider: &ProviderId) -> Health {
        let unknown = || Health {
            healthy: false,
            message: "not asked yet".to_owned(),
        };
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.get(provider).cloned().unwrap_or_else(unknown)
    }

    /// Remembers how a provider is; true if that changed.
    pub(crate) fn set_health(&self, provider: &ProviderId, health: Health) -> bool {
        let mut known = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(provider.clone(), health.clone()) != Some(health)
    }

    /// A new job id: a UUIDv7 (RFC 9562) of this time.
    pub fn new_job_id(&self) -> JobId {
        JobId::from_bytes(self.new_id())
    }

    /// A new worker id: a UUIDv7 (RFC 9562) of this time.
    pub fn new_worker_id(&self) -> WorkerId {
        WorkerId::from_bytes(self.new_id())
    }

    /// A new id of an object: a UUIDv7 (RFC 9562) of this time.
    pub(crate) fn new_object_id(&self) -> ObjectId {
        ObjectId::from_bytes(self.new_id())
    }

    fn new_id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.fill(&mut bytes);
        let now_ms = u64::try_from(self.clock.now_ms()).unwrap_or(0);
        bytes[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        bytes
    }
}
