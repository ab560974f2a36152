//! Results: who may report them, which one stands, and what a loss leads to.

use hodei_server_domain::job::end::{AttemptOutcome, Outcome, Reason, WorkerResult};
use hodei_server_domain::job::state::{JobEvent, Phase};
use hodei_shared::ids::Lease;

use super::Fixture;
use super::kit::*;
use crate::ports::jobs::{ChangeOutcome, Finish, JobChange};
use crate::ports::output::AppendOutcome;

/// Certificate, worker, attempt, lease are checked in this order; a recorded result stands.
pub async fn what_a_worker_says(store: Fixture) {
    let worker = store.ready(1, 1).await;
    let thief = store.ready(2, 1).await;
    let job = store.queued(1, |_| ()).await;
    assert_eq!(
        store.apply(says(worker, job, started(1))).await,
        ChangeOutcome::NotHolder,
        "nobody claimed it"
    );
    store.applied(by_server(job, claim(worker))).await;
    for event in [started(1), exited(1, 0), never_started(1)] {
        assert_eq!(
            store.apply(says(thief, job, event)).await,
            ChangeOutcome::NotHolder
        );
    }
    assert_eq!(
        store.apply(says(worker, job, started(2))).await,
        ChangeOutcome::NotHolder,
        "no such claim"
    );
    assert_eq!(
        store.apply(says(worker, job_id(9), started(1))).await,
        ChangeOutcome::NoSuchJob
    );
    store.applied(says(worker, job, started(1))).await;
    assert_eq!(
        store.apply(says(worker, job, started(1))).await,
        ChangeOutcome::Same
    );
    assert_eq!(
        store.worker(worker).await.used_slots,
        1,
        "refusals change nothing"
    );

    let ended = store.applied(says(worker, job, exited(1, 3))).await;
    assert_eq!(
        store.apply(says(worker, job, exited(1, 3))).await,
        ChangeOutcome::Same
    );
    assert!(!store.kinds().await.contains(&"ResultConflict"));
    assert_eq!(
        store.apply(says(worker, job, exited(1, 0))).await,
        ChangeOutcome::Conflict
    );
    assert_eq!(store.kinds().await.last(), Some(&"ResultConflict"));
    assert_eq!(
        store.apply(says(worker, job, started(1))).await,
        ChangeOutcome::Stale
    );
    assert_eq!(
        store.apply(says(worker, job, never_started(1))).await,
        ChangeOutcome::Stale
    );
    assert_eq!(store.apply(by_server(job, lost(1))).await, ChangeOutcome::Stale);
    assert_eq!(
        store.apply(says(thief, job, exited(1, 3))).await,
        ChangeOutcome::NotHolder
    );
    assert_eq!(store.job(job).await.job, ended, "a recorded end never changes");
    assert_eq!(store.worker(worker).await.used_slots, 0);
}

/// A lost attempt counts and is repeated while retries are left; its late result is stale.
pub async fn lost_attempts(store: Fixture) {
    let first = store.ready(1, 1).await;
    let second = store.ready(2, 2).await;
    let job = store.queued(1, |input| input.retries = 1).await;
    store.applied(by_server(job, claim(first))).await;
    store.applied(says(first, job, started(1))).await;
    let back = store.applied(by_server(job, lost(1))).await;
    let ready_at_ms = store.now() + 1_000;
    assert_eq!((back.phase, back.repetitions), (Phase::Queued { ready_at_ms }, 1));
    assert_eq!(store.worker(first).await.used_slots, 0);
    assert_eq!(store.jobs.next_ready_at().await.expect("read"), Some(ready_at_ms));
    assert_eq!(store.claimable(9, 9).await.len(), 0);
    assert_eq!(
        store.apply(by_server(job, claim(second))).await,
        ChangeOutcome::NotClaimable
    );
    store.advance_ms(1_000);
    assert_eq!(store.jobs.next_ready_at().await.expect("read"), None);
    let claimed = store.applied(by_server(job, claim(second))).await;
    assert_eq!((claimed.lease, claimed.attempt), (Lease(2), 2));
    assert_eq!(
        store.apply(says(first, job, exited(1, 0))).await,
        ChangeOutcome::Stale
    );
    assert_eq!(
        store.apply(says(first, job, exited(2, 0))).await,
        ChangeOutcome::NotHolder
    );

    // A worker that stopped in time says so, and says it again when the answer is lost.
    let stopped = JobEvent::Finished {
        lease: Lease(2),
        result: WorkerResult::LeaseLost,
    };
    let ended = store.applied(says(second, job, stopped.clone())).await;
    assert!(
        matches!(&ended.phase, Phase::Ended { outcome: Outcome::Failed, end } if end.reason == Reason::Lost)
    );
    assert_eq!(store.apply(says(second, job, stopped)).await, ChangeOutcome::Same);
    assert_eq!(
        store.apply(says(second, job, exited(2, 0))).await,
        ChangeOutcome::Stale
    );
    let record = store.job(job).await;
    let seen: Vec<_> = record
        .attempts
        .iter()
        .map(|a| (a.lease.0, a.number, a.worker))
        .collect();
    assert_eq!(seen, [(1, 1, first), (2, 2, second)]);
    assert!(
        record
            .attempts
            .iter()
            .all(|a| matches!(a.end, Some((AttemptOutcome::Lost, _))))
    );
    let told = [
        "JobCreated",
        "assigned 1 ",
        "running 1 ",
        "queued 1 lost",
        "assigned 2 ",
        "failed 2 lost",
    ];
    assert_eq!(store.told(job).await, told);
    assert_eq!(store.worker(second).await.used_slots, 0);
}

/// A result comes after its output, unless the missing output is given up.
pub async fn finish_waits_for_output(store: Fixture) {
    let worker = store.ready(1, 2).await;
    let job = store.running(1, worker).await;
    let end = |finish: Finish| JobChange {
        finish: Some(finish),
        ..says(worker, job, exited(1, 0))
    };
    assert_eq!(store.apply(end(finish(5))).await, ChangeOutcome::OutputMissing(0));
    assert_eq!(
        store.append(worker, key(job, 1), piece(0, "abc")).await,
        AppendOutcome::Stored(3)
    );
    assert_eq!(store.apply(end(finish(5))).await, ChangeOutcome::OutputMissing(3));
    assert_eq!(store.worker(worker).await.used_slots, 1, "nothing is recorded");
    let given_up = Finish {
        allow_missing_output: true,
        ..finish(5)
    };
    store.applied(end(given_up)).await;
    assert_eq!(
        store.apply(end(finish(5))).await,
        ChangeOutcome::Same,
        "a recorded result asks for no output"
    );
    let record = store.job(job).await;
    let output = record.attempts[0].output;
    assert_eq!((output.bytes, output.declared_end), (3, Some(5)));
    let Phase::Ended { outcome, end } = &record.job.phase else {
        panic!("it has ended")
    };
    assert_eq!(
        (*outcome, end.reason),
        (Outcome::Succeeded, Reason::OutputIncomplete)
    );

    let job = store.running(2, worker).await;
    assert_eq!(
        store.append(worker, key(job, 1), piece(0, "abcde")).await,
        AppendOutcome::Stored(5)
    );
    let end = JobChange {
        finish: Some(finish(5)),
        ..says(worker, job, exited(1, 0))
    };
    store.applied(end).await;
    assert_eq!(store.job(job).await.attempts[0].output.declared_end, Some(5));
}
