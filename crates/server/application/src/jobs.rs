//! Use cases over jobs: queue, read, watch, cancel, retry.

use std::sync::Arc;

use hodei_server_domain::access::{Permission, Principal};
use hodei_server_domain::job::spec::JobSpec;
use hodei_server_domain::job::state::{HELD, JobEvent, Phase};
use hodei_shared::Invalid;
use hodei_shared::ids::{JobId, Namespace};
use tokio::sync::watch as hint;

use crate::access::permit;
use crate::platform::Platform;
use crate::ports::events::EventRecord;
use crate::ports::jobs::{ChangeOutcome, JobChange, JobFilter, JobRecord, NewJob, QueueOutcome};
use crate::refused::Refused;

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct QueueRequest {
    /// The same id with the same spec answers the same job.
    pub request_id: String,
    /// Where; `None`: the namespace of the principal.
    pub namespace: Option<Namespace>,
    /// What to run.
    pub spec: JobSpec,
}

/// Stores a job. When it returns, the job and its event are durable.
///
/// # Errors
/// [`Refused::RequestIdReused`] if the request id stands for another spec; [`Refused::Invalid`] if it is no
/// request id.
pub async fn queue(
    platform: &Platform,
    principal: &Principal,
    request: QueueRequest,
) -> Result<JobRecord, Refused> {
    store(platform, principal, request, None).await
}

async fn store(
    platform: &Platform,
    principal: &Principal,
    request: QueueRequest,
    retry_of: Option<JobId>,
) -> Result<JobRecord, Refused> {
    let namespace = request.namespace.unwrap_or_else(|| principal.namespace.clone());
    permit(principal, Permission::SubmitJobs, &namespace)?;
    let request_id = request.request_id;
    if request_id.is_empty() || request_id.len() > 255 || request_id.chars().any(char::is_control) {
        let rule = "is not a request id of 1 to 255 bytes without control characters";
        return Err(Invalid::new("idempotency-key", request_id, rule).into());
    }
    let job = NewJob {
        id: platform.new_job_id(),
        namespace,
        spec: request.spec,
        request_id: request_id.clone(),
        owner: principal.token_id.clone(),
        retry_of,
    };
    let outcome = platform.jobs.queue(vec![job]).await?.pop();
    match outcome {
        Some(QueueOutcome::Queued(id) | QueueOutcome::Same(id)) => {
            platform.wake.dispatch.notify_one();
            record(platform, id).await
        }
        Some(QueueOutcome::OtherSpec(_)) => Err(Refused::RequestIdReused(request_id)),
        None => Err(Refused::Internal("the store gave no outcome".to_owned())),
    }
}

/// One job with its attempts.
///
/// # Errors
/// [`Refused::NotFound`], also for jobs that the principal may not see.
pub async fn get(platform: &Platform, principal: &Principal, id: JobId) -> Result<JobRecord, Refused> {
    visible(platform, principal, Permission::ReadJobs, id).await
}

/// Jobs with their attempts, newest first.
///
/// # Errors
/// A store error as such.
pub async fn list(
    platform: &Platform,
    principal: &Principal,
    filter: JobFilter,
) -> Result<Vec<JobRecord>, Refused> {
    let namespace = filter.namespace.as_ref().unwrap_or(&principal.namespace);
    permit(principal, Permission::ReadJobs, namespace)?;
    Ok(platform.jobs.list(filter).await?)
}

/// Records the request to cancel a job; of one that has ended, nothing changes. The reply does not mean that the
/// process is gone.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn cancel(
    platform: &Platform,
    principal: &Principal,
    id: JobId,
    reason: String,
) -> Result<JobRecord, Refused> {
    visible(platform, principal, Permission::CancelJobs, id).await?;
    let message = if reason.is_empty() {
        "cancelled on request".to_owned()
    } else {
        reason
    };
    cancel_as_server(platform, id, message).await?;
    record(platform, id).await
}

/// Cancels without asking who may.
pub(crate) async fn cancel_as_server(platform: &Platform, id: JobId, message: String) -> Result<(), Refused> {
    let change = JobChange {
        job: id,
        event: JobEvent::Cancel { message },
        from_worker: None,
        finish: None,
    };
    if let Some(ChangeOutcome::Applied(job)) = platform.jobs.apply(vec![change]).await?.pop()
        && let Some(worker) = job.holder()
    {
        platform.sessions.wake(worker);
    }
    Ok(())
}

/// Queues a new job with the spec of one that has ended.
///
/// # Errors
/// [`Refused::WrongState`] if the job has not ended.
pub async fn retry(
    platform: &Platform,
    principal: &Principal,
    id: JobId,
    request_id: String,
) -> Result<JobRecord, Refused> {
    let old = visible(platform, principal, Permission::ReadJobs, id).await?;
    if !old.job.is_ended() {
        let message = format!("job {id} has not ended; cancel it first, or wait for it");
        return Err(Refused::WrongState(message));
    }
    let request = QueueRequest {
        request_id,
        namespace: Some(old.namespace),
        spec: old.spec,
    };
    store(platform, principal, request, Some(id)).await
}

/// The events of one job, oldest first.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn events(
    platform: &Platform,
    principal: &Principal,
    id: JobId,
) -> Result<Vec<EventRecord>, Refused> {
    visible(platform, principal, Permission::ReadJobs, id).await?;
    Ok(platform.events.of_job(id).await?)
}

/// Follows one job: its state now, after each change, and last its end.
///
/// # Errors
/// [`Refused::NotFound`].
pub async fn watch(platform: Arc<Platform>, principal: Principal, id: JobId) -> Result<Watch, Refused> {
    let mut hints = platform.events.changes_of(id);
    hints.mark_unchanged();
    let first = visible(&platform, &principal, Permission::ReadJobs, id).await?;
    Ok(Watch {
        platform,
        hints,
        id,
        next: Some(first),
        last: None,
        done: false,
    })
}

/// A job that is followed. Level-triggered: states between two looks are skipped, the last one never.
pub struct Watch {
    platform: Arc<Platform>,
    hints: hint::Receiver<u64>,
    id: JobId,
    next: Option<JobRecord>,
    last: Option<JobRecord>,
    done: bool,
}

impl Watch {
    /// The job after its next change; `None` after its end was given. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<JobRecord, Refused>> {
        if self.done {
            return None;
        }
        loop {
            let current = match self.next.take() {
                Some(record) => record,
                None => match record(&self.platform, self.id).await {
                    Ok(record) => record,
                    Err(refused) => {
                        self.done = true;
                        return Some(Err(refused));
                    }
                },
            };
            if self.last.as_ref() != Some(&current) {
                self.done = current.job.is_ended();
                self.last = Some(current.clone());
                return Some(Ok(current));
            }
            if !changed(&self.platform, &mut self.hints).await {
                self.done = true;
                return Some(Err(Refused::Unavailable("the server is stopping".to_owned())));
            }
        }
    }
}

/// Waits for a hint that something changed, or for the poll. False if the server stops.
pub(crate) async fn changed(platform: &Platform, hints: &mut hint::Receiver<u64>) -> bool {
    tokio::select! {
        biased;
        () = platform.stopped.cancelled() => false,
        _ = hints.changed() => true,
        () = platform.clock.sleep(platform.settings.poll) => true,
    }
}

/// Why a queued job does not run yet: a stable word and a sentence.
pub fn queued_reason(record: &JobRecord, now_ms: i64) -> (&'static str, String) {
    match record.job.phase {
        Phase::Queued { ready_at_ms: HELD } => ("held", "waits for the end of its input".to_owned()),
        Phase::Queued { ready_at_ms } if ready_at_ms > now_ms => {
            let seconds = (ready_at_ms - now_ms) as f64 / 1_000.0;
            match record.job.lease.0 + u64::from(record.job.uncounted) {
                0 => ("delayed", format!("starts in {seconds:.1} s at the earliest")),
                _ => ("backing_off", format!("is repeated in {seconds:.1} s")),
            }
        }
        Phase::Queued { .. } => ("waiting_for_room", "waits for a worker with room".to_owned()),
        Phase::Assigned { .. } | Phase::Running { .. } | Phase::Ended { .. } => ("", String::new()),
    }
}

pub(crate) async fn record(platform: &Platform, id: JobId) -> Result<JobRecord, Refused> {
    let found = platform.jobs.get(id).await?;
    found.ok_or_else(|| Refused::NotFound {
        kind: "job",
        id: id.to_string(),
    })
}

/// A job, if the principal may do this with it; else it is as if there were none.
pub(crate) async fn visible(
    platform: &Platform,
    principal: &Principal,
    permission: Permission,
    id: JobId,
) -> Result<JobRecord, Refused> {
    let found = record(platform, id).await?;
    permit(principal, permission, &found.namespace).map_err(|_| Refused::NotFound {
        kind: "job",
        id: id.to_string(),
    })?;
    Ok(found)
}
