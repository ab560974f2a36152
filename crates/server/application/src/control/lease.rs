//! Takes attempts away from workers that are gone or silent.
//!
//! Expiry is by observation: an attempt is given away only after this process has itself seen the same
//! (session, beat) for the job's `lost_after` on its own monotonic clock. A restart starts from zero, so time in
//! which no server ran costs nobody a job. No wall clock enters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_server_domain::job::state::JobEvent;
use hodei_shared::ids::WorkerId;

use super::Pass;
use crate::platform::Platform;
use crate::ports::jobs::{Holding, JobChange};
use crate::ports::workers::WorkerRecord;
use crate::refused::Refused;

/// The lease controller: what it has seen, and since when.
#[derive(Debug, Default)]
pub(super) struct LeaseKeeper {
    seen: BTreeMap<WorkerId, Sign>,
}

/// The last sign of life of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sign {
    session: u64,
    beat: u64,
    since: Duration,
}

impl Pass for LeaseKeeper {
    async fn pass(&mut self, platform: &Arc<Platform>) -> Result<Option<Duration>, Refused> {
        let holdings = platform.jobs.holdings().await?;
        if holdings.is_empty() {
            self.seen.clear();
            return Ok(None);
        }
        let live = platform.workers.live().await?;
        let live: BTreeMap<WorkerId, &WorkerRecord> = live.iter().map(|w| (w.id, w)).collect();
        let now = platform.clock.monotonic();
        self.observe(&live, now);
        let losses: Vec<JobChange> = holdings
            .iter()
            .filter_map(|holding| self.loss(platform, holding, live.get(&holding.worker).copied(), now))
            .collect();
        if !losses.is_empty() {
            let workers: Vec<WorkerId> = holdings.iter().map(|h| h.worker).collect();
            // A store that can not be written takes no beats either: nobody was silent for that long.
            let outcomes = platform
                .jobs
                .apply(losses)
                .await
                .inspect_err(|_| self.seen.clear())?;
            tracing::info!(attempts = outcomes.len(), "attempts lost");
            platform.wake.dispatch.notify_one();
            workers
                .into_iter()
                .for_each(|worker| platform.sessions.wake(worker));
        }
        Ok(None)
    }
}

impl LeaseKeeper {
    fn observe(&mut self, live: &BTreeMap<WorkerId, &WorkerRecord>, now: Duration) {
        self.seen.retain(|worker, _| live.contains_key(worker));
        for (id, worker) in live {
            let sign = Sign {
                session: worker.session,
                beat: worker.beat,
                since: now,
            };
            let seen = self.seen.entry(*id).or_insert(sign);
            if (seen.session, seen.beat) != (sign.session, sign.beat) {
                *seen = sign;
            }
        }
    }

    /// The loss of an attempt, if there is proof that its worker is gone or has been silent for too long.
    fn loss(
        &self,
        platform: &Platform,
        holding: &Holding,
        worker: Option<&WorkerRecord>,
        now: Duration,
    ) -> Option<JobChange> {
        let lease = holding.key.lease;
        let message = match (worker, self.seen.get(&holding.worker)) {
            (None, _) => format!("worker {} is gone", holding.worker),
            (Some(_), Some(sign)) => {
                let silent = now.saturating_sub(sign.since);
                if silent < Duration::from_millis(holding.lost_after_ms) {
                    return None;
                }
                format!("worker {} was silent for {} s", holding.worker, silent.as_secs())
            }
            (Some(_), None) => return None,
        };
        let event = if platform.sessions.never_sent(holding.key) {
            JobEvent::NeverStarted { lease, message }
        } else {
            JobEvent::Lost { lease, message }
        };
        Some(JobChange {
            job: holding.key.job,
            event,
            from_worker: None,
            finish: None,
        })
    }
}
