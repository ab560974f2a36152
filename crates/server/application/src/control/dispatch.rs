//! Gives claimable jobs to workers, and asks for workers where jobs have none.

use std::sync::Arc;
use std::time::Duration;

use hodei_server_domain::job::state::JobEvent;
use hodei_server_domain::scheduling::plan::{Claim, MAX_CLAIMS, Plan, WantedWorker, plan};
use hodei_server_domain::scheduling::snapshot::{QueuedJob, Snapshot, WorkerReadiness, WorkerRoom};
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::AttemptKey;

use super::Pass;
use crate::platform::Platform;
use crate::ports::jobs::{ChangeOutcome, ClaimableLook, FIRST_RANK, JobChange};
use crate::ports::workers::{NewWorker, WorkerRecord};
use crate::refused::Refused;
use crate::scheduler::rooms;

/// The most shapes of one pass.
const MAX_SHAPES: usize = 2_000;
/// The most jobs of one shape in one pass.
const MAX_PER_SHAPE: usize = 1_000;
/// How many jobs of a shape are looked at although no worker has a slot for them: workers are made for those.
const MIN_PER_SHAPE: usize = 64;

/// How long a worker that has lost its session is waited for.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// The dispatch controller.
#[derive(Debug, Default)]
pub(super) struct Dispatch {
    /// Where the last pass stopped, if there were more shapes than it looked at.
    rotation: Option<QueuedJob>,
}

impl Pass for Dispatch {
    async fn pass(&mut self, platform: &Arc<Platform>) -> Result<Option<Duration>, Refused> {
        let snapshot = self.snapshot(platform).await?;
        if !snapshot.shapes.is_empty() {
            let plan = plan(&snapshot);
            let claimed = !plan.claims.is_empty();
            perform(platform, &snapshot, plan).await?;
            // There is room, and shapes that were not looked at may have jobs for it.
            if claimed && self.rotation.is_some() {
                platform.wake.dispatch.notify_one();
            }
        }
        let now_ms = platform.clock.now_ms();
        let next = platform.jobs.next_ready_at().await?;
        Ok(next.map(|at| Duration::from_millis(u64::try_from(at - now_ms).unwrap_or(0))))
    }
}

impl Dispatch {
    async fn snapshot(&mut self, platform: &Platform) -> Result<Snapshot, Refused> {
        let workers = platform.workers.live().await?;
        let rooms_of_workers: Vec<WorkerRoom> = workers
            .iter()
            .filter_map(|worker| worker_room(platform, worker))
            .collect();
        let free_slots: usize = rooms_of_workers.iter().map(|room| room.free_slots as usize).sum();
        let look = ClaimableLook {
            after: self.rotation.take(),
            shapes: MAX_SHAPES,
            per_shape: free_slots.clamp(MIN_PER_SHAPE, MAX_PER_SHAPE),
        };
        let found = platform.jobs.claimable(look).await?;
        self.rotation = found.next;
        if found.queues.is_empty() {
            return Ok(Snapshot::default());
        }
        let used = platform.jobs.used().await?;
        let drains = platform.drains.drains().await?;
        let providers = rooms(platform, &workers, &used, &drains);
        Ok(Snapshot {
            shapes: found.queues,
            workers: rooms_of_workers,
            providers,
        })
    }
}

fn worker_room(platform: &Platform, worker: &WorkerRecord) -> Option<WorkerRoom> {
    let readiness = match worker.phase {
        WorkerPhase::Ready if platform.is_connected(worker.id) => WorkerReadiness::Ready,
        WorkerPhase::Planned | WorkerPhase::Starting => WorkerReadiness::Coming,
        WorkerPhase::Ready if is_expected_back(platform, worker) => WorkerReadiness::Coming,
        // A worker that hangs or is cut off is no capacity: others are made in its place.
        WorkerPhase::Ready | WorkerPhase::Draining => WorkerReadiness::Draining,
        WorkerPhase::Gone => return None,
    };
    Some(WorkerRoom {
        id: worker.id,
        namespace: worker.namespace.clone(),
        provider: worker.provider.clone(),
        readiness,
        free_slots: worker.slots.saturating_sub(worker.used_slots),
    })
}

/// Whether a worker without a session has been without one, here, for a short time only.
fn is_expected_back(platform: &Platform, worker: &WorkerRecord) -> bool {
    let since = platform
        .sessions
        .closed_at(worker.id)
        .unwrap_or(platform.started_at);
    platform.clock.monotonic().saturating_sub(since) < RETURN_PATIENCE
}

async fn perform(platform: &Platform, snapshot: &Snapshot, plan: Plan) -> Result<(), Refused> {
    if !plan.workers.is_empty() {
        let workers = plan
            .workers
            .iter()
            .map(|wanted| new_worker(platform, snapshot, wanted))
            .collect();
        platform.workers.plan(workers).await?;
        platform.wake.provision.notify_one();
    }
    if plan.claims.is_empty() {
        return Ok(());
    }
    let changes = plan.claims.iter().map(claim).collect();
    let outcomes = platform.jobs.apply(changes).await?;
    for (claim, outcome) in plan.claims.iter().zip(outcomes) {
        if let ChangeOutcome::Applied(job) = outcome {
            platform.sessions.claimed(AttemptKey {
                job: claim.job,
                lease: job.lease,
                rank: FIRST_RANK,
            });
            platform.sessions.wake(claim.worker);
        }
    }
    // What stood behind the last one that was looked at has its turn.
    let cut_short = snapshot
        .shapes
        .iter()
        .any(|queue| queue.heads.len() >= MIN_PER_SHAPE);
    if plan.claims.len() == MAX_CLAIMS || cut_short {
        platform.wake.dispatch.notify_one();
    }
    Ok(())
}

fn claim(claim: &Claim) -> JobChange {
    let event = JobEvent::Claim { worker: claim.worker };
    JobChange {
        job: claim.job,
        event,
        from_worker: None,
        finish: None,
    }
}

fn new_worker(platform: &Platform, snapshot: &Snapshot, wanted: &WantedWorker) -> NewWorker {
    let provider = snapshot.providers.iter().find(|room| room.id == wanted.provider);
    NewWorker {
        id: platform.new_worker_id(),
        namespace: wanted.namespace.clone(),
        provider: wanted.provider.clone(),
        slots: provider.map_or(1, |room| room.capabilities.slots_per_worker),
        first_job: wanted.first_job,
    }
}
