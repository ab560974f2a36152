//! An application over the ports of a fixture, in which no loop runs: a rule runs the passes that it is about.

use std::sync::Arc;

use hodei_server_domain::access::{Principal, Role};
use hodei_shared::ids::{Namespace, WorkerId};

use super::Fixture;
use crate::platform::{Platform, PlatformParts, PlatformSettings};
use crate::ports::authority::{Authority, AuthorityError, VerifiedRequest};
use crate::ports::link::WorkerIdentity;
use crate::ports::workers::Certificate;
use crate::ports::{BoxFuture, Spawner};
use crate::testing::rng::SeededRng;

/// Nobody registers in these rules.
struct NoAuthority;

impl Authority for NoAuthority {
    fn verify_request(&self, _der: &[u8]) -> Result<VerifiedRequest, AuthorityError> {
        Err(AuthorityError::BadRequest("there is no authority".to_owned()))
    }

    fn issue_worker(
        &self,
        _request: &VerifiedRequest,
        _worker: WorkerId,
        _generation: u64,
        _now_ms: i64,
    ) -> Result<Certificate, AuthorityError> {
        Err(AuthorityError::Failed("there is no authority".to_owned()))
    }

    fn otp_hash(&self, _secret: &str) -> [u8; 32] {
        [0; 32]
    }

    fn token_hash(&self, _secret: &str) -> [u8; 32] {
        [0; 32]
    }
}

/// No task is started in these rules.
struct NoSpawner;

impl Spawner for NoSpawner {
    fn spawn(&self, name: &'static str, _task: BoxFuture<()>) {
        panic!("task {name} is started");
    }
}

pub(super) fn platform(store: &Fixture, settings: PlatformSettings) -> Arc<Platform> {
    Arc::new(Platform::new(PlatformParts {
        jobs: Arc::clone(&store.jobs),
        workers: Arc::clone(&store.workers),
        output: Arc::clone(&store.output),
        objects: Arc::clone(&store.objects),
        retention: Arc::clone(&store.retention),
        input: Arc::clone(&store.input),
        drains: Arc::clone(&store.drains),
        events: Arc::clone(&store.events),
        tokens: Arc::clone(&store.tokens),
        authority: Arc::new(NoAuthority),
        providers: Vec::new(),
        clock: Arc::clone(&store.clock) as _,
        spawner: Arc::new(NoSpawner),
        rng: Arc::new(SeededRng::new(1)),
        settings,
    }))
}

/// Somebody who may do anything.
pub(super) fn admin() -> Principal {
    Principal {
        token_id: "token".to_owned(),
        role: Role::ClusterAdmin,
        namespace: Namespace::default_namespace(),
    }
}

/// A worker as its certificate says.
pub(super) fn identity(worker: WorkerId) -> WorkerIdentity {
    WorkerIdentity {
        worker,
        generation: 1,
        not_after_ms: i64::MAX,
    }
}
