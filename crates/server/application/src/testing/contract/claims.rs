//! Claims and their guards, claims that never started, cancels, and what can be claimed.

use std::collections::BTreeSet;

use futures::future::join_all;
use hodei_server_domain::job::end::{Outcome, Reason};
use hodei_server_domain::job::state::{JobEvent, Phase};
use hodei_server_domain::scheduling::snapshot::QueuedJob;
use hodei_shared::ids::{JobId, Lease};

use super::Fixture;
use super::kit::*;
use crate::ports::jobs::{ChangeOutcome, ClaimableLook};
use crate::ports::workers::WorkerChange;

/// A claim needs a queued job whose time has come, and a ready, connected worker of its namespace with a free slot.
pub async fn claims_are_guarded(store: Fixture) {
    let job = store.queued(1, |_| ()).await;
    let planned = store.planned(1, 1).await;
    let starting = store.starting(2, 1).await;
    let silent = store.registered(3, 1).await;
    let draining = store.ready(4, 1).await;
    assert!(
        store
            .change(WorkerChange::Drain {
                worker: draining,
                message: "d".into(),
                only_idle: false
            })
            .await
    );
    let revoked = store.ready(5, 1).await;
    assert!(
        store
            .change(WorkerChange::Revoke {
                worker: revoked,
                message: "r".into()
            })
            .await
    );
    let gone = store.ready(6, 1).await;
    assert!(
        store
            .change(WorkerChange::Gone {
                worker: gone,
                message: "g".into()
            })
            .await
    );
    let events = store.all_events().await.len();
    for worker in [planned, starting, silent, draining, revoked, gone, worker_id(99)] {
        let outcome = store.apply(by_server(job, claim(worker))).await;
        assert_eq!(
            outcome,
            ChangeOutcome::NotClaimable,
            "by {:?}",
            store.workers.get(worker).await
        );
    }
    let worker = store.ready(7, 1).await;
    let mut foreign = new_job(2, spec(|_| ()));
    foreign.namespace = namespace("other");
    store.jobs.queue(vec![foreign]).await.expect("stored");
    assert_eq!(
        store.apply(by_server(job_id(2), claim(worker))).await,
        ChangeOutcome::NotClaimable
    );
    assert_eq!(store.worker(worker).await.used_slots, 0);

    store.applied(by_server(job, claim(worker))).await;
    let other = store.ready(8, 1).await;
    let outcome = store.apply(by_server(job, claim(other))).await;
    assert_eq!(outcome, ChangeOutcome::NotClaimable, "it is held");
    assert_eq!(store.worker(other).await.used_slots, 0);
    let third = store.queued(3, |_| ()).await;
    let outcome = store.apply(by_server(third, claim(worker))).await;
    assert_eq!(outcome, ChangeOutcome::NotClaimable, "its only slot is in use");
    store.applied(says(worker, job, exited(1, 0))).await;
    let outcome = store.apply(by_server(job, claim(worker))).await;
    assert_eq!(outcome, ChangeOutcome::NotClaimable, "it has ended");
    store.applied(by_server(third, claim(worker))).await;
    assert!(store.all_events().await.len() > events);
    assert_eq!(
        store.job(third).await.attempts.len(),
        1,
        "refused claims leave no attempt"
    );
}

/// Of more claims than slots at one time, as many are applied as there are slots.
pub async fn concurrent_claims(store: Fixture) {
    let worker = store.ready(1, 3).await;
    for n in 1..=10 {
        store.queued(n, |_| ()).await;
    }
    let claims = (1..=10).map(|n| store.apply(by_server(job_id(n), claim(worker))));
    let outcomes = join_all(claims).await;
    let applied = outcomes
        .iter()
        .filter(|o| matches!(o, ChangeOutcome::Applied(_)))
        .count();
    let refused = outcomes
        .iter()
        .filter(|o| **o == ChangeOutcome::NotClaimable)
        .count();
    assert_eq!((applied, refused), (3, 7));
    assert_eq!(store.worker(worker).await.used_slots, 3);

    let worker = store.ready(2, 10).await;
    let job = store.queued(11, |_| ()).await;
    let outcomes = join_all((0..10).map(|_| store.apply(by_server(job, claim(worker))))).await;
    let applied = outcomes
        .iter()
        .filter(|o| matches!(o, ChangeOutcome::Applied(_)))
        .count();
    assert_eq!(
        (applied, store.worker(worker).await.used_slots),
        (1, 1),
        "one job has one live lease"
    );
}

/// A claim that never started gives its slot back and does not count; the next has a new lease and its number.
pub async fn never_started_claims(store: Fixture) {
    let worker = store.ready(1, 1).await;
    let job = store.queued(1, |_| ()).await;
    store.applied(by_server(job, claim(worker))).await;
    let again = store.applied(says(worker, job, never_started(1))).await;
    assert_eq!(
        again.phase,
        Phase::Queued {
            ready_at_ms: store.now() + 1_000
        }
    );
    assert_eq!(store.worker(worker).await.used_slots, 0);
    assert_eq!(
        store.apply(says(worker, job, never_started(1))).await,
        ChangeOutcome::Same
    );
    assert_eq!(
        store.apply(says(worker, job, exited(1, 0))).await,
        ChangeOutcome::Stale
    );

    assert_eq!(
        store.apply(by_server(job, claim(worker))).await,
        ChangeOutcome::NotClaimable,
        "it waits"
    );
    store.advance_ms(1_000);
    let claimed = store.applied(by_server(job, claim(worker))).await;
    assert_eq!(
        (claimed.lease, claimed.attempt, claimed.repetitions),
        (Lease(2), 1, 0)
    );
    let record = store.job(job).await;
    let seen: Vec<_> = record
        .attempts
        .iter()
        .map(|a| (a.lease.0, a.number, a.never_started))
        .collect();
    assert_eq!(seen, [(1, 1, true), (2, 1, false)]);
    assert!(record.attempts[0].end.is_some() && record.attempts[0].ended_at_ms.is_some());

    store.applied(says(worker, job, started(2))).await;
    let outcome = store.apply(says(worker, job, never_started(2))).await;
    assert_eq!(outcome, ChangeOutcome::Stale, "what runs can not be taken back");
    assert_eq!(
        store.told(job).await,
        [
            "JobCreated",
            "assigned 1 ",
            "queued 1 lost",
            "assigned 1 ",
            "running 1 "
        ]
    );
}

/// A worker that could not be made puts the job back, later each time, until that has happened too often.
pub async fn failed_provisions(store: Fixture) {
    let job = store.queued(1, |_| ()).await;
    let failed = || {
        by_server(
            job,
            JobEvent::ProvisionFailed {
                message: "no room".into(),
            },
        )
    };
    let back = store.applied(failed()).await;
    assert_eq!(
        back.phase,
        Phase::Queued {
            ready_at_ms: store.now() + 1_000
        }
    );
    assert_eq!(
        store.jobs.next_ready_at().await.expect("read"),
        Some(store.now() + 1_000)
    );
    assert_eq!(
        store.apply(failed()).await,
        ChangeOutcome::Stale,
        "it waits already"
    );
    assert_eq!(store.told(job).await, ["JobCreated", "queued 0 provider_error"]);
    for _ in 0..4 {
        store.advance_ms(300_000);
        store.applied(failed()).await;
    }
    store.advance_ms(300_000);
    assert_eq!(store.jobs.next_ready_at().await.expect("read"), None);
    let ended = store.applied(failed()).await;
    assert!(
        matches!(&ended.phase, Phase::Ended { outcome: Outcome::Failed, end } if end.reason == Reason::ProviderError)
    );
    assert_eq!(store.job(job).await.attempts, []);
}

/// Before a claim at once; afterwards a request that the worker hears, and no attempt starts any more.
pub async fn cancels(store: Fixture) {
    let worker = store.ready(1, 4).await;
    let queued = store.queued(1, |_| ()).await;
    let job = store.applied(by_server(queued, cancel())).await;
    assert!(
        matches!(&job.phase, Phase::Ended { outcome: Outcome::Cancelled, end } if end.message == "asked")
    );
    assert_eq!(
        store.apply(by_server(queued, cancel())).await,
        ChangeOutcome::Same
    );
    assert_eq!(
        store.apply(by_server(queued, claim(worker))).await,
        ChangeOutcome::NotClaimable
    );
    assert_eq!(store.told(queued).await, ["JobCreated", "cancelled 0 cancelled"]);

    let assigned = store.queued(2, |input| input.retries = 3).await;
    store.applied(by_server(assigned, claim(worker))).await;
    let job = store.applied(by_server(assigned, cancel())).await;
    assert!(job.cancel_requested && job.phase == Phase::Assigned { worker });
    assert_eq!(
        store.apply(by_server(assigned, cancel())).await,
        ChangeOutcome::Same
    );
    let job = store.applied(says(worker, assigned, never_started(1))).await;
    assert!(
        matches!(
            job.phase,
            Phase::Ended {
                outcome: Outcome::Cancelled,
                ..
            }
        ),
        "no other attempt starts"
    );
    let told = [
        "JobCreated",
        "assigned 1 ",
        "JobCancelRequested",
        "cancelled 1 cancelled",
    ];
    assert_eq!(store.told(assigned).await, told);

    let running = store.running(3, worker).await;
    store.applied(by_server(running, cancel())).await;
    let job = store.applied(says(worker, running, exited(1, 0))).await;
    assert!(
        matches!(
            job.phase,
            Phase::Ended {
                outcome: Outcome::Succeeded,
                ..
            }
        ),
        "its own end wins"
    );
    assert!(store.job(running).await.job.cancel_requested);

    let silent = store.running(4, worker).await;
    store.applied(by_server(silent, cancel())).await;
    let job = store.applied(by_server(silent, lost(1))).await;
    assert!(matches!(
        job.phase,
        Phase::Ended {
            outcome: Outcome::Cancelled,
            ..
        }
    ));
    assert_eq!(store.worker(worker).await.used_slots, 0);
}

/// Shapes by their head, jobs by time and id, both bounded; nothing that is held, ended or waits for its time.
pub async fn claimable_order_and_bounds(store: Fixture) {
    let worker = store.ready(1, 9).await;
    for n in 1..=4 {
        store.queued(n, |input| input.cpu_millis = Some(100)).await;
        store.advance_ms(1);
        store.queued(10 + n, |input| input.cpu_millis = Some(200)).await;
        store.advance_ms(1);
    }
    store.queued(21, |input| input.cpu_millis = Some(300)).await;
    let queues = store.claimable(10, 10).await;
    let seen: Vec<_> = queues
        .iter()
        .map(|q| (q.shape.resources.cpu_millis, q.heads.len()))
        .collect();
    assert_eq!(seen, [(100, 4), (200, 4), (300, 1)]);
    let ids: Vec<_> = queues[0].heads.iter().map(|head| head.id).collect();
    assert_eq!(ids, [job_id(1), job_id(2), job_id(3), job_id(4)]);
    assert_eq!(
        queues[0].heads[0].ready_at_ms,
        store.job(job_id(1)).await.created_at_ms
    );

    let queues = store.claimable(2, 3).await;
    assert_eq!(queues.iter().map(|q| q.heads.len()).collect::<Vec<_>>(), [3, 3]);

    store.applied(by_server(job_id(1), claim(worker))).await;
    store.applied(by_server(job_id(2), cancel())).await;
    store
        .applied(by_server(
            job_id(3),
            JobEvent::ProvisionFailed { message: "no".into() },
        ))
        .await;
    let queues = store.claimable(10, 10).await;
    let heads: Vec<_> = queues
        .iter()
        .map(|q| (q.shape.resources.cpu_millis, q.heads[0].id))
        .collect();
    assert_eq!(
        heads,
        [(200, job_id(11)), (100, job_id(4)), (300, job_id(21))],
        "the oldest head comes first"
    );
    store.advance_ms(1_000);
    let queues = store.claimable(10, 10).await;
    let ids: Vec<_> = queues[1].heads.iter().map(|head| head.id).collect();
    assert_eq!(ids, [job_id(4), job_id(3)], "a repeated job goes by its new time");
}

/// With more shapes than a look shows, the oldest are in each look and every other one has its turn.
pub async fn claimable_rotation(store: Fixture) {
    const SHAPES: u32 = 23;
    for n in 1..=SHAPES {
        store
            .queued(n, |input| input.cpu_millis = Some(u64::from(n) * 100))
            .await;
        store.advance_ms(1);
    }
    let mut after = None;
    let mut rounds = 0;
    for _ in 0..2 {
        let mut seen = BTreeSet::new();
        loop {
            let look = ClaimableLook {
                after,
                shapes: 8,
                per_shape: 3,
            };
            let found = store.jobs.claimable(look).await.expect("read");
            let heads: Vec<JobId> = found.queues.iter().map(|queue| queue.heads[0].id).collect();
            assert!(heads.len() <= 8, "{heads:?}");
            assert!(heads.is_sorted(), "by head: {heads:?}");
            assert_eq!(
                heads[..4],
                [job_id(1), job_id(2), job_id(3), job_id(4)],
                "the oldest"
            );
            seen.extend(heads);
            rounds += 1;
            after = found.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(
            seen,
            (1..=SHAPES).map(job_id).collect(),
            "every shape was looked at"
        );
    }
    assert_eq!(rounds, 2 * 5, "19 others, 4 at a time");

    let look = ClaimableLook {
        after: Some(QueuedJob {
            id: job_id(SHAPES),
            ready_at_ms: store.now(),
        }),
        shapes: 8,
        per_shape: 3,
    };
    let found = store.jobs.claimable(look).await.expect("read");
    assert_eq!(
        (found.queues.len(), found.next),
        (4, None),
        "nothing is behind the last"
    );
    let all = ClaimableLook { shapes: 23, ..look };
    let found = store.jobs.claimable(all).await.expect("read");
    assert_eq!((found.queues.len(), found.next), (23, None), "all fit");
}
