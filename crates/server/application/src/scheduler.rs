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
use crate::ports::jobs::JobRecord;
use crate::ports::workers::WorkerRecord;
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
    /// What its attempts use.
    pub used: Resources,
    /// Workers there that are not gone.
    pub workers: u32,
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
    Ok(rooms(platform, &workers, &used))
}

/// The providers with their room, from what was read before.
pub(crate) fn rooms(
    platform: &Platform,
    workers: &[WorkerRecord],
    used: &BTreeMap<ProviderId, Resources>,
) -> Vec<ProviderRoom> {
    let room = |(id, provider): (
        &ProviderId,
        &std::sync::Arc<dyn crate::ports::provider::WorkerProvider>,
    )| {
        let count = workers.iter().filter(|worker| worker.provider == *id).count();
        ProviderRoom {
            id: id.clone(),
            capabilities: provider.capabilities(),
            health: platform.health_of(id),
            used: used.get(id).copied().unwrap_or_default(),
            workers: u32::try_from(count).unwrap_or(u32::MAX),
        }
    };
    platform.providers.iter().map(room).collect()
}

/// Workers, newest first, and whether each is connected; with `all` also those that are gone.
///
/// # Errors
/// A store error as such.
pub async fn workers(
    platform: &Platform,
    principal: &Principal,
    all: bool,
) -> Result<Vec<(WorkerRecord, bool)>, Refused> {
    permit(principal, Permission::ReadPlatform, &principal.namespace)?;
    let records = if all {
        platform.workers.list(LISTED_WORKERS).await?
    } else {
        let mut live = platform.workers.live().await?;
        live.reverse();
        live
    };
    Ok(records
        .into_iter()
        .map(|record| with_connection(platform, record))
        .collect())
}

/// One worker, and whether it is connected.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn worker(
    platform: &Platform,
    principal: &Principal,
    id: WorkerId,
) -> Result<(WorkerRecord, bool), Refused> {
    permit(principal, Permission::ReadPlatform, &principal.namespace)?;
    let found = platform.workers.get(id).await?;
    let record = found.ok_or_else(|| Refused::NotFound {
        kind: "worker",
        id: id.to_string(),
    })?;
    Ok(with_connection(platform, record))
}

fn with_connection(platform: &Platform, record: WorkerRecord) -> (WorkerRecord, bool) {
    let connected = platform.is_connected(record.id);
    (record, connected)
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
