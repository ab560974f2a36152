//! The end of a server: either everything it runs ends with it, or nothing does.

use std::sync::Arc;
use std::time::Duration;

use super::provision::{destroy, gone};
use crate::jobs::cancel_as_server;
use crate::platform::Platform;
use crate::refused::Refused;

/// What becomes of workers and running jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// They go on without this server.
    LeaveRunning,
    /// Running jobs end as cancelled, workers are removed; queued jobs are kept.
    EndAll,
}

/// Ends the loops and sessions. With [`Shutdown::EndAll`] running jobs get until `patience` or `hurry` to end as
/// they are asked to, then their workers are destroyed under them.
pub async fn shutdown(
    platform: &Arc<Platform>,
    what: Shutdown,
    patience: Duration,
    hurry: impl Future<Output = ()> + Send,
) {
    platform.draining.cancel();
    if what == Shutdown::EndAll {
        let ended = tokio::select! {
            biased;
            () = hurry => Ok(()),
            ended = end_jobs(platform, patience) => ended,
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "running jobs could not be cancelled");
        }
        if let Err(error) = end_workers(platform).await {
            tracing::warn!(%error, "workers could not be removed");
        }
    }
    platform.stopped.cancel();
}

async fn end_jobs(platform: &Platform, patience: Duration) -> Result<(), Refused> {
    let until = platform.clock.monotonic() + patience;
    let mut hints = platform.events.changes();
    loop {
        // Read anew each time: a claim may have been on its way when planning ended.
        let holdings = platform.jobs.holdings().await?;
        if holdings.is_empty() || platform.clock.monotonic() >= until {
            return Ok(());
        }
        for holding in holdings {
            cancel_as_server(platform, holding.key.job, "the server was stopped".to_owned()).await?;
        }
        crate::jobs::changed(platform, &mut hints).await;
    }
}

/// Destroys all machines, also where that can not be recorded: the next start finds them gone.
async fn end_workers(platform: &Platform) -> Result<(), Refused> {
    let mut recorded = Ok(());
    for worker in platform.workers.live().await? {
        let Some(provider) = platform.providers.get(&worker.provider) else {
            continue;
        };
        if destroy(provider.as_ref(), &worker).await {
            let gone = gone(platform, worker.id, "the server was stopped".to_owned()).await;
            recorded = recorded.and(gone);
        }
    }
    recorded?;
    lose_what_is_left(platform).await
}

/// Attempts whose worker was destroyed under them are lost, and a cancel waits for each.
async fn lose_what_is_left(platform: &Platform) -> Result<(), Refused> {
    let mut hints = platform.events.changes();
    let until = platform.clock.monotonic() + platform.settings.poll * 5;
    while !platform.jobs.holdings().await?.is_empty() && platform.clock.monotonic() < until {
        platform.wake.lease.notify_one();
        crate::jobs::changed(platform, &mut hints).await;
    }
    Ok(())
}
