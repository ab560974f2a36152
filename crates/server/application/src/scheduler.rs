//! Use cases over decisions, workers and providers.

use std::collections::BTreeMap;

use hodei_server_domain::access::{Permission, Principal};
use hodei_server_domain::job::shape::Shape;
use hodei_server_domain::job::state::Phase;
use hodei_server_domain::provider::{Capabilities, Health};
use hodei_server_domain::scheduling::explain::{Verdict, judge, waits_for};
use hodei_server_domain::scheduling::snapshot::ProviderRoom;
use hodei_shared::ids::{JobId, ProviderId, WorkerId};
use hodei_shared::resources::Resources;

use crate::access::permit;
use crate::jobs::{queued_reason, visible};
use crate::platform::Platform;
use crate::ports::jobs::{JobRecord, QueueCounts};
use crate::ports::provider::WorkerProvider;
use crate::ports::workers::{WorkerChange, WorkerRecord};
use crate::refused::Refused;

/// How many workers a list shows.
const LISTED_WORKERS: usize = 500;

/// Why a job is where it is.
#[derive(Debug, Clone)]
pub struct Why {
    /// The job.
    pub record: JobRecord,
    /// A sentence.
    pub summary: String,
    /// What each provider says.
    pub providers: Vec<ProviderVerdict>,
}

/// What one provider says to a job.
#[derive(Debug, Clone)]
pub struct ProviderVerdict {
    /// The provider.
    pub provider: ProviderId,
    /// Whether it could hold the job.
    pub fits: bool,
    /// The filter that ruled it out; empty if it fits.
    pub ruled_out_by: &'static str,
    /// For people.
    pub message: String,
}

/// A provider as people see it.
#[derive(Debug, Clone)]
pub struct ProviderView {
    /// Its id.
    pub id: ProviderId,
    /// What it can hold.
    pub capabilities: Capabilities,
    /// How it is.
    pub health: Health,
    /// Why it takes no new work, if somebody said so.
    pub drained: Option<String>,
    /// What its attempts use.
    pub used: Resources,
    /// Workers there that are not gone.
    pub workers: u32,
}

/// A worker as people see it.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// What is stored.
    pub record: WorkerRecord,
    /// It has a session at this server.
    pub connected: bool,
    /// What its attempts use.
    pub used: Resources,
}

/// How many jobs wait and run, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStatus {
    /// Jobs that have not ended.
    pub jobs: QueueCounts,
    /// Workers that are not gone.
    pub workers: u32,
    /// Those of them that are connected.
    pub connected: u32,
    /// How many jobs the connected ones can run at once.
    pub slots: u32,
    /// How many they hold.
    pub used_slots: u32,
}

/// Explains where a job stands.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn why(platform: &Platform, principal: &Principal, id: JobId) -> Result<Why, Refused> {
    let record = visible(platform, principal, Permission::ReadJobs, id).await?;
    let shape = Shape::of(&record.namespace, &record.spec);
    let rooms = provider_rooms(platform).await?;
    let providers: Vec<ProviderVerdict> = rooms
        .iter()
        .map(|room| match judge(&shape, room) {
            Verdict::Fits => ProviderVerdict {
                provider: room.id.clone(),
                fits: true,
                ruled_out_by: "",
                message: waits_for(&shape, room),
            },
            Verdict::RuledOut { by, message } => ProviderVerdict {
                provider: room.id.clone(),
                fits: false,
                ruled_out_by: by,
                message,
            },
        })
        .collect();
    let summary = summary(platform, &record, &providers);
    Ok(Why {
        record,
        summary,
        providers,
    })
}

fn summary(platform: &Platform, record: &JobRecord, providers: &[ProviderVerdict]) -> String {
    match &record.job.phase {
        Phase::Queued { .. } => {
            let (word, sentence) = queued_reason(record, platform.clock.now_ms());
            if word != "waiting_for_room" {
                return sentence;
            }
            if providers.is_empty() {
                return "no provider is configured, so nothing can run".to_owned();
            }
            if providers.iter().all(|verdict| !verdict.fits) {
                return "no provider can ever run this job as it is".to_owned();
            }
            sentence
        }
        Phase::Assigned { worker } => format!("given to worker {worker}, which has not started it yet"),
        Phase::Running { worker } => format!("runs on worker {worker}"),
        Phase::Ended { end, .. } => format!("ended: {}", end.message),
    }
}

/// The providers with their room, by id.
pub(crate) async fn provider_rooms(platform: &Platform) -> Result<Vec<ProviderRoom>, Refused> {
    let workers = platform.workers.live().await?;
    let used = platform.jobs.used().await?;
    let drains = platform.drains.drains().await?;
    Ok(rooms(platform, &workers, &used, &drains))
}

/// The providers with their room, from what was read before.
pub(crate) fn rooms(
    platform: &Platform,
    workers: &[WorkerRecord],
    used: &BTreeMap<WorkerId, Resources>,
    drains: &BTreeMap<ProviderId, String>,
) -> Vec<ProviderRoom> {
    let mut rooms: BTreeMap<&ProviderId, ProviderRoom> = BTreeMap::new();
    for (id, provider) in &platform.providers {
        let room = ProviderRoom {
            id: id.clone(),
            capabilities: provider.capabilities(),
            health: platform.health_of(id),
            drained: drains.get(id).cloned(),
            used: Resources::default(),
            workers: 0,
        };
        rooms.insert(id, room);
    }
    for worker in workers {
        if let Some(room) = rooms.get_mut(&worker.provider) {
            room.workers += 1;
            room.used = room.used.plus(&used.get(&worker.id).copied().unwrap_or_default());
        }
    }
    rooms.into_values().collect()
}

/// Workers, newest first; with `all` also those that are gone.
///
/// # Errors
/// A store error as such.
pub async fn workers(
    platform: &Platform,
    principal: &Principal,
    all: bool,
) -> Result<Vec<WorkerView>, Refused> {
    permit(principal, Permission::ReadPlatform, &principal.namespace)?;
    let records = if all {
        platform.workers.list(LISTED_WORKERS).await?
    } else {
        let mut live = platform.workers.live().await?;
        live.reverse();
        live
    };
    let used = platform.jobs.used().await?;
    let view = |record: WorkerRecord| WorkerView {
        connected: platform.is_connected(record.id),
        used: used.get(&record.id).copied().unwrap_or_default(),
        record,
    };
    Ok(records.into_iter().map(view).collect())
}

/// One worker.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn worker(platform: &Platform, principal: &Principal, id: WorkerId) -> Result<WorkerView, Refused> {
    permit(principal, Permission::ReadPlatform, &principal.namespace)?;
    let found = platform.workers.get(id).await?;
    let record = found.ok_or_else(|| Refused::NotFound {
        kind: "worker",
        id: id.to_string(),
    })?;
    let used = platform.jobs.used().await?;
    Ok(WorkerView {
        connected: platform.is_connected(id),
        used: used.get(&id).copied().unwrap_or_default(),
        record,
    })
}

/// Lets a worker take no more jobs: it leaves when its last one has ended. Of one that is draining or gone nothing
/// changes.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn drain_worker(
    platform: &Platform,
    principal: &Principal,
    id: WorkerId,
    reason: String,
) -> Result<WorkerView, Refused> {
    permit(principal, Permission::ManagePlatform, &principal.namespace)?;
    worker(platform, principal, id).await?;
    let drain = WorkerChange::Drain {
        worker: id,
        message: on_request(reason),
        only_idle: false,
    };
    platform.workers.change(vec![drain]).await?;
    platform.sessions.wake(id);
    worker(platform, principal, id).await
}

fn on_request(reason: String) -> String {
    if reason.is_empty() {
        "drained on request".to_owned()
    } else {
        reason
    }
}

/// Lets a provider take no new work. Its workers are drained by the reconciliation.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn drain_provider(
    platform: &Platform,
    principal: &Principal,
    id: &ProviderId,
    reason: String,
) -> Result<ProviderView, Refused> {
    permit(principal, Permission::ManagePlatform, &principal.namespace)?;
    provider(platform, principal, id).await?;
    platform
        .drains
        .drain_provider(id.clone(), on_request(reason))
        .await?;
    platform.wake.reconcile.notify_one();
    provider(platform, principal, id).await
}

/// Lets a provider take work again.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn resume_provider(
    platform: &Platform,
    principal: &Principal,
    id: &ProviderId,
) -> Result<ProviderView, Refused> {
    permit(principal, Permission::ManagePlatform, &principal.namespace)?;
    provider(platform, principal, id).await?;
    platform.drains.resume_provider(id.clone()).await?;
    platform.wake.dispatch.notify_one();
    provider(platform, principal, id).await
}

/// Asks a provider how it is, now.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn check_provider(
    platform: &Platform,
    principal: &Principal,
    id: &ProviderId,
) -> Result<ProviderView, Refused> {
    permit(principal, Permission::ReadPlatform, &principal.namespace)?;
    if let Some(asked) = platform.providers.get(id) {
        ask_health(platform, id, asked.as_ref()).await;
    }
    provider(platform, principal, id).await
}

/// Asks a provider how it is and remembers it; what changed wakes the planner.
pub(crate) async fn ask_health(platform: &Platform, id: &ProviderId, provider: &dyn WorkerProvider) {
    let health = match provider.health_check().await {
        Ok(health) => health,
        Err(error) => Health {
            healthy: false,
            message: error.to_string(),
        },
    };
    if platform.set_health(id, health.clone()) {
        tracing::info!(provider = %id, healthy = health.healthy, message = health.message, "provider health");
        platform.wake.dispatch.notify_one();
    }
}

/// How many jobs wait and run.
///
/// # Errors
/// A store error as such.
pub async fn queue_status(platform: &Platform, principal: &Principal) -> Result<QueueStatus, Refused> {
    permit(principal, Permission::ReadPlatform, &principal.namespace)?;
    let mut status = QueueStatus {
        jobs: platform.jobs.counts().await?,
        ..QueueStatus::default()
    };
    for worker in platform.workers.live().await? {
        status.workers += 1;
        if platform.is_connected(worker.id) {
            status.connected += 1;
            status.slots += worker.slots;
            status.used_slots += worker.used_slots;
        }
    }
    Ok(status)
}

/// All providers, by id.
///
/// # Errors
/// A store error as such.
pub async fn providers(platform: &Platform, principal: &Principal) -> Result<Vec<ProviderView>, Refused> {
    permit(principal, Permission::ReadPlatform, &principal.namespace)?;
    let view = |room: ProviderRoom| ProviderView {
        id: room.id,
        capabilities: room.capabilities,
        health: room.health,
        drained: room.drained,
        used: room.used,
        workers: room.workers,
    };
    Ok(provider_rooms(platform).await?.into_iter().map(view).collect())
}

/// One provider.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn provider(
    platform: &Platform,
    principal: &Principal,
    id: &ProviderId,
) -> Result<ProviderView, Refused> {
    let all = providers(platform, principal).await?;
    let found = all.into_iter().find(|view| view.id == *id);
    found.ok_or_else(|| Refused::NotFound {
        kind: "provider",
        id: id.to_string(),
    })
}
