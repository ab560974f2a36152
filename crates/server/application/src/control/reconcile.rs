//! Compares the workers that are recorded with the machines that providers list, and mends what differs. This is
//! all the clean-up there is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{ProviderId, WorkerId};

use super::Pass;
use super::provision::{destroy, give_up, gone, handle_of, pause};
use crate::platform::Platform;
use crate::ports::provider::{WorkerHandle, WorkerProvider, WorkerState};
use crate::ports::workers::{WorkerChange, WorkerRecord};
use crate::refused::Refused;
use crate::scheduler::ask_health;

/// How long a draining worker without jobs may take to end by itself.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How often a provider is asked how it is.
const HEALTH_PERIOD: Duration = Duration::from_secs(5);

/// The reconcile controller.
#[derive(Debug, Default)]
pub(super) struct Reconcile {
    health_asked: BTreeMap<ProviderId, Duration>,
}

impl Pass for Reconcile {
    async fn pass(&mut self, platform: &Arc<Platform>) -> Result<Option<Duration>, Refused> {
        let providers: Vec<_> = platform
            .providers
            .iter()
            .map(|(id, p)| (id.clone(), Arc::clone(p)))
            .collect();
        for (id, provider) in providers {
            self.ask_health(platform, &id, provider.as_ref()).await;
            reconcile(platform, &id, provider.as_ref()).await?;
        }
        let workers = platform.workers.live().await?;
        forget_unconfigured(platform, &workers).await?;
        drain_idle(platform, &workers).await?;
        drain_with_provider(platform, &workers).await?;
        Ok(None)
    }
}

impl Reconcile {
    async fn ask_health(&mut self, platform: &Platform, id: &ProviderId, provider: &dyn WorkerProvider) {
        let now = platform.clock.monotonic();
        if self
            .health_asked
            .get(id)
            .is_some_and(|asked| now - *asked < HEALTH_PERIOD)
        {
            return;
        }
        self.health_asked.insert(id.clone(), now);
        ask_health(platform, id, provider).await;
    }
}

async fn reconcile(
    platform: &Platform,
    id: &ProviderId,
    provider: &dyn WorkerProvider,
) -> Result<(), Refused> {
    // Rows first, then machines: a machine that was recorded before the list was made must be in it.
    let rows: BTreeMap<WorkerId, WorkerRecord> = platform
        .workers
        .live()
        .await?
        .into_iter()
        .filter(|w| w.provider == *id)
        .map(|w| (w.id, w))
        .collect();
    let machines = match provider.list_workers().await {
        Ok(machines) => machines,
        Err(error) => {
            tracing::warn!(provider = %id, %error, "machines could not be listed");
            return Ok(());
        }
    };
    let states: BTreeMap<WorkerId, WorkerState> =
        machines.iter().map(|(h, state)| (h.worker, *state)).collect();
    // Side by side: a machine that is slow to go holds up no other.
    let mends: Vec<_> = rows
        .values()
        .map(|worker| {
            let state = states.get(&worker.id).copied().unwrap_or(WorkerState::Gone);
            mend(platform, provider, worker, state)
        })
        .collect();
    let unknown = machines
        .iter()
        .filter(|(handle, _)| !rows.contains_key(&handle.worker));
    let removals: Vec<_> = unknown
        .map(|(handle, _)| remove_unknown(platform, provider, handle))
        .collect();
    let mended = join_all(mends).await;
    let removed = join_all(removals).await;
    mended.into_iter().chain(removed).collect()
}

/// Brings one recorded worker and its machine together.
async fn mend(
    platform: &Platform,
    provider: &dyn WorkerProvider,
    worker: &WorkerRecord,
    state: WorkerState,
) -> Result<(), Refused> {
    // The provision loop has not made its machine yet, or is just doing so.
    if worker.machine.is_empty() {
        return Ok(());
    }
    let since_ms = platform.clock.now_ms() - worker.phase_since_ms;
    let in_phase = Duration::from_millis(u64::try_from(since_ms).unwrap_or(0));
    let ended = matches!(state, WorkerState::Exited | WorkerState::Gone);
    if ended && worker.phase == WorkerPhase::Starting {
        let said = provider.last_words(&handle_of(worker)).await;
        let said = if said.is_empty() {
            said
        } else {
            format!(": {said}")
        };
        let message = format!("the worker ended before it registered{said}");
        pause(platform, worker, &message);
        return give_up(platform, worker, &message).await;
    }
    if worker.phase == WorkerPhase::Starting && in_phase > platform.settings.registration_deadline {
        let message = "the worker did not register in time";
        pause(platform, worker, message);
        return give_up(platform, worker, message).await;
    }
    let leaves = worker.phase == WorkerPhase::Draining && worker.used_slots == 0 && in_phase > DRAIN_PATIENCE;
    if !ended && !leaves && !worker.revoked {
        return Ok(());
    }
    if !destroy(provider, worker).await {
        return Ok(());
    }
    let message = match (ended, worker.revoked) {
        (_, true) => "its identity was revoked".to_owned(),
        (true, false) if worker.phase == WorkerPhase::Draining => worker.message.clone(),
        (true, false) => "its machine ended".to_owned(),
        (false, false) => worker.message.clone(),
    };
    tracing::info!(worker_id = %worker.id, message, "worker gone");
    gone(platform, worker.id, message).await
}

/// Removes a machine that no row stands for. The row is looked for again first: it may be newer than the list.
async fn remove_unknown(
    platform: &Platform,
    provider: &dyn WorkerProvider,
    handle: &WorkerHandle,
) -> Result<(), Refused> {
    let row = platform.workers.get(handle.worker).await?;
    if row.is_some_and(|row| row.phase != WorkerPhase::Gone) {
        return Ok(());
    }
    match provider.destroy_worker(handle).await {
        Ok(()) => tracing::info!(worker_id = %handle.worker, "unknown machine removed"),
        Err(error) => {
            tracing::warn!(worker_id = %handle.worker, %error, "unknown machine could not be removed")
        }
    }
    Ok(())
}

/// Workers of a provider that is not configured any more: nobody can look after their machines, which end by
/// themselves without contact. The row goes when the worker has neither a session nor a job.
async fn forget_unconfigured(platform: &Platform, workers: &[WorkerRecord]) -> Result<(), Refused> {
    for worker in workers
        .iter()
        .filter(|worker| !platform.providers.contains_key(&worker.provider))
    {
        if worker.used_slots == 0 && !platform.is_connected(worker.id) {
            gone(
                platform,
                worker.id,
                "its provider is not configured any more".to_owned(),
            )
            .await?;
        }
    }
    Ok(())
}

/// Lets workers go that have had no job for a while.
async fn drain_idle(platform: &Platform, workers: &[WorkerRecord]) -> Result<(), Refused> {
    let now_ms = platform.clock.now_ms();
    let idle_ms = i64::try_from(platform.settings.worker_idle.as_millis()).unwrap_or(i64::MAX);
    let idle = workers.iter().filter(|worker| {
        worker.phase == WorkerPhase::Ready
            && worker.used_slots == 0
            && now_ms - worker.idle_since_ms > idle_ms
    });
    let drains = idle.map(|worker| WorkerChange::Drain {
        worker: worker.id,
        message: "had no job for a while".to_owned(),
        only_idle: true,
    });
    drain(platform, drains.collect()).await
}

/// Lets the workers of drained providers go, those with jobs when these have ended.
async fn drain_with_provider(platform: &Platform, workers: &[WorkerRecord]) -> Result<(), Refused> {
    let drained = platform.drains.drains().await?;
    let theirs = workers.iter().filter_map(|worker| {
        let reason = drained.get(&worker.provider)?;
        (worker.phase == WorkerPhase::Ready).then(|| WorkerChange::Drain {
            worker: worker.id,
            message: format!("its provider is drained: {reason}"),
            only_idle: false,
        })
    });
    drain(platform, theirs.collect()).await
}

async fn drain(platform: &Platform, drains: Vec<WorkerChange>) -> Result<(), Refused> {
    if drains.is_empty() {
        return Ok(());
    }
    let workers: Vec<WorkerId> = drains.iter().map(WorkerChange::worker).collect();
    platform.workers.change(drains).await?;
    workers
        .into_iter()
        .for_each(|worker| platform.sessions.wake(worker));
    Ok(())
}
