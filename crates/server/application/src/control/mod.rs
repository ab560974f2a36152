//! The controllers: loops of one shape. Each can be woken, takes no input, re-reads state and is idempotent, so a
//! lost wake-up, a crash and a restart are one code path.

mod collect;
mod compact;
mod dispatch;
mod lease;
mod provision;
mod reconcile;
mod retention;
mod shutdown;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::platform::{Platform, Wake};
use crate::refused::Refused;

pub use shutdown::{Shutdown, shutdown};

#[cfg(feature = "testing")]
pub(crate) use self::{collect::Collect, compact::Compact, retention::Retain};

/// Starts all loops. They end when the platform is shut down.
pub fn start(platform: &Arc<Platform>) {
    let planning = &platform.draining;
    let all = &platform.stopped;
    supervise(
        platform,
        "dispatch",
        planning,
        |wake| &wake.dispatch,
        dispatch::Dispatch::default(),
    );
    supervise(
        platform,
        "provision",
        planning,
        |wake| &wake.provision,
        provision::Provision,
    );
    supervise(
        platform,
        "lease",
        all,
        |wake| &wake.lease,
        lease::LeaseKeeper::default(),
    );
    supervise(
        platform,
        "reconcile",
        all,
        |wake| &wake.reconcile,
        reconcile::Reconcile::default(),
    );
    supervise(
        platform,
        "compact",
        all,
        |wake| &wake.housekeeping,
        compact::Compact,
    );
    supervise(
        platform,
        "collect",
        all,
        |wake| &wake.housekeeping,
        collect::Collect::default(),
    );
    supervise(
        platform,
        "retention",
        all,
        |wake| &wake.housekeeping,
        retention::Retain::default(),
    );
    watch_providers(platform);
}

/// One look at the world.
pub(crate) trait Pass: Send + 'static {
    /// Does what is due. Returns when to look again at the latest; `None`: at the next poll.
    fn pass(
        &mut self,
        platform: &Arc<Platform>,
    ) -> impl Future<Output = Result<Option<Duration>, Refused>> + Send;
}

/// Runs a pass at each wake-up and at least once a poll, until `until` is cancelled. A pass that fails is logged
/// and tried again at the next poll.
fn supervise(
    platform: &Arc<Platform>,
    name: &'static str,
    until: &CancellationToken,
    wake: impl Fn(&Wake) -> &Notify + Send + 'static,
    mut controller: impl Pass,
) {
    let platform = Arc::clone(platform);
    let until = until.clone();
    let spawner = Arc::clone(&platform.spawner);
    let task = async move {
        let poll = platform.settings.poll;
        loop {
            let next = tokio::select! {
                biased;
                () = until.cancelled() => return,
                // A pass holds no lock across an await and re-reads all it needs, so the next one can go on.
                result = AssertUnwindSafe(controller.pass(&platform)).catch_unwind() => match result {
                    Ok(Ok(next)) => next.unwrap_or(poll).min(poll),
                    Ok(Err(error)) => {
                        tracing::warn!(controller = name, %error, "pass failed");
                        poll
                    }
                    Err(_) => {
                        tracing::error!(controller = name, "pass panicked; it is tried again");
                        poll
                    }
                },
            };
            tokio::select! {
                biased;
                () = until.cancelled() => return,
                () = wake(&platform.wake).notified() => {}
                () = platform.clock.sleep(next) => {}
            }
        }
    };
    spawner.spawn(name, Box::pin(task));
}

/// Wakes the reconciliation when a provider says that a machine may have changed.
fn watch_providers(platform: &Arc<Platform>) {
    for provider in platform.providers.values() {
        let provider = Arc::clone(provider);
        let platform = Arc::clone(platform);
        let spawner = Arc::clone(&platform.spawner);
        let task = async move {
            loop {
                tokio::select! {
                    biased;
                    () = platform.stopped.cancelled() => return,
                    () = provider.changed() => platform.wake.reconcile.notify_one(),
                }
            }
        };
        spawner.spawn("watch provider", Box::pin(task));
    }
}
