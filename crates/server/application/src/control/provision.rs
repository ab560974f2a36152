//! Makes the machines of planned workers. A creation that was interrupted is destroyed and made anew, never
//! resumed: nobody knows any more what its password is.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use hodei_server_domain::access::credential::Credential;
use hodei_server_domain::job::state::JobEvent;
use hodei_server_domain::provider::Health;
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{JobId, WorkerId};
use hodei_shared::text;

use super::Pass;
use crate::platform::Platform;
use crate::ports::jobs::JobChange;
use crate::ports::provider::{WorkerHandle, WorkerProvider, WorkerSpec};
use crate::ports::workers::{WorkerChange, WorkerRecord};
use crate::refused::Refused;

/// How many machines are made at once.
const AT_ONCE: usize = 8;

/// The provision controller.
#[derive(Debug)]
pub(super) struct Provision;

impl Pass for Provision {
    async fn pass(&mut self, platform: &Arc<Platform>) -> Result<Option<Duration>, Refused> {
        let workers = platform.workers.live().await?;
        // A creation of this loop is awaited before the next pass: one without a machine was interrupted.
        for worker in workers
            .iter()
            .filter(|w| w.phase == WorkerPhase::Starting && w.machine.is_empty())
        {
            give_up(platform, worker, "its creation was interrupted").await?;
        }
        let planned = workers.into_iter().filter(|w| w.phase == WorkerPhase::Planned);
        let creations: Vec<_> = planned
            .map(|worker| create(Arc::clone(platform), worker))
            .collect();
        let mut made = stream::iter(creations).buffer_unordered(AT_ONCE);
        let mut first_error = Ok(None);
        while let Some(result) = made.next().await {
            if let (Err(error), Ok(_)) = (result, &first_error) {
                first_error = Err(error);
            }
        }
        first_error
    }
}

async fn create(platform: Arc<Platform>, worker: WorkerRecord) -> Result<(), Refused> {
    let platform = platform.as_ref();
    let Some(provider) = platform.providers.get(&worker.provider) else {
        return gone(
            platform,
            worker.id,
            "its provider is not configured any more".to_owned(),
        )
        .await;
    };
    let (mut id, mut secret) = ([0; 10], [0; 32]);
    platform.rng.fill(&mut id);
    platform.rng.fill(&mut secret);
    let credential = Credential::new_otp(id, secret);
    let creating = WorkerChange::Creating {
        worker: worker.id,
        otp_id: credential.id.clone(),
        secret_hash: platform.authority.otp_hash(credential.secret.expose()),
    };
    if platform.workers.change(vec![creating]).await? != [true] {
        return Ok(());
    }
    let capabilities = provider.capabilities();
    let spec = WorkerSpec {
        worker: worker.id,
        otp: credential.otp_text(),
        room: capabilities.capacity,
        slots: capabilities.slots_per_worker,
        now_ms: platform.clock.now_ms(),
    };
    match provider.create_worker(&spec).await {
        Ok(handle) => {
            tracing::info!(worker_id = %worker.id, provider = %worker.provider, machine = handle.machine, "worker created");
            let started = WorkerChange::Started {
                worker: worker.id,
                machine: handle.machine,
            };
            platform.workers.change(vec![started]).await?;
            Ok(())
        }
        Err(error) => {
            tracing::warn!(worker_id = %worker.id, provider = %worker.provider, %error, "worker could not be created");
            let message = format!("provider {} could not create a worker: {error}", worker.provider);
            pause(platform, &worker, &message);
            give_up(platform, &worker, &message).await
        }
    }
}

/// Makes no more workers there until the provider was asked again how it is.
pub(super) fn pause(platform: &Platform, worker: &WorkerRecord, message: &str) {
    platform.set_health(
        &worker.provider,
        Health {
            healthy: false,
            message: text::one_line(message),
        },
    );
}

/// Destroys what there is of a worker that did not come up, and tells the job that asked for it.
pub(super) async fn give_up(
    platform: &Platform,
    worker: &WorkerRecord,
    message: &str,
) -> Result<(), Refused> {
    let message = text::one_line(message);
    if let Some(provider) = platform.providers.get(&worker.provider)
        && !destroy(provider.as_ref(), worker).await
    {
        // Tried again at the next pass: the worker is not gone before its machine is.
        return Ok(());
    }
    gone(platform, worker.id, message.clone()).await?;
    provision_failed(platform, worker.first_job, message).await
}

/// The machine of a worker.
pub(super) fn handle_of(worker: &WorkerRecord) -> WorkerHandle {
    WorkerHandle {
        worker: worker.id,
        machine: worker.machine.clone(),
    }
}

/// Destroys a worker's machine; false if that did not succeed.
pub(super) async fn destroy(provider: &dyn WorkerProvider, worker: &WorkerRecord) -> bool {
    match provider.destroy_worker(&handle_of(worker)).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(worker_id = %worker.id, %error, "worker could not be destroyed");
            false
        }
    }
}

pub(super) async fn gone(platform: &Platform, worker: WorkerId, message: String) -> Result<(), Refused> {
    platform
        .workers
        .change(vec![WorkerChange::Gone { worker, message }])
        .await?;
    platform.sessions.end(worker);
    platform.sessions.forget_worker(worker);
    platform.wake.lease.notify_one();
    platform.wake.dispatch.notify_one();
    Ok(())
}

async fn provision_failed(platform: &Platform, job: JobId, message: String) -> Result<(), Refused> {
    let event = JobEvent::ProvisionFailed { message };
    platform
        .jobs
        .apply(vec![JobChange {
            job,
            event,
            from_worker: None,
            finish: None,
        }])
        .await?;
    Ok(())
}
