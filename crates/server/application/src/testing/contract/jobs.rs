//! Queueing, the plain way of a job, and what is held.

use hodei_server_domain::job::end::{AttemptOutcome, Outcome};
use hodei_server_domain::job::spec::Stdin;

use hodei_server_domain::job::state::Phase;
use hodei_shared::ids::{JobId, Lease};
use hodei_shared::resources::Resources;

use super::Fixture;
use super::kit::*;
use crate::ports::jobs::{ChangeOutcome, Holding, JobChange, QueueCounts, QueueOutcome};

/// A request id stands for one spec in one namespace, for ever the same job.
pub async fn queueing(store: Fixture) {
    let job = new_job(1, spec(|input| input.name = "one".into()));
    let again = crate::ports::jobs::NewJob {
        id: job_id(2),
        ..job.clone()
    };
    let outcomes = store
        .jobs
        .queue(vec![job.clone(), again.clone()])
        .await
        .expect("stored");
    assert_eq!(
        outcomes,
        [QueueOutcome::Queued(job_id(1)), QueueOutcome::Same(job_id(1))]
    );
    assert_eq!(
        store.jobs.queue(vec![again.clone()]).await.expect("stored"),
        [QueueOutcome::Same(job_id(1))]
    );

    let mut other_spec = again.clone();
    other_spec.spec = spec(|input| input.name = "two".into());
    let mut other_origin = again.clone();
    other_origin.retry_of = Some(job_id(9));
    let mut other_namespace = again;
    other_namespace.namespace = namespace("other");
    let outcomes = store
        .jobs
        .queue(vec![other_spec, other_origin, other_namespace])
        .await
        .expect("stored");
    let other = QueueOutcome::OtherSpec(job_id(1));
    assert_eq!(outcomes, [other.clone(), other, QueueOutcome::Queued(job_id(2))]);

    let mut retry = new_job(3, job.spec.clone());
    retry.retry_of = Some(job_id(1));
    store.jobs.queue(vec![retry]).await.expect("stored");

    let record = store.job(job_id(1)).await;
    assert_eq!(record.spec, job.spec);
    assert_eq!(record.namespace, job.namespace);
    assert_eq!(
        record.job.phase,
        Phase::Queued {
            ready_at_ms: store.now()
        }
    );
    assert_eq!((record.created_at_ms, record.ended_at_ms), (store.now(), None));
    assert_eq!((record.attempts.len(), record.retry_of), (0, None));
    assert_eq!(store.job(job_id(3)).await.retry_of, Some(job_id(1)));
    assert_eq!(store.jobs.get(job_id(7)).await.expect("read"), None);
    assert_eq!(store.kinds().await, ["JobCreated"; 3]);
}

/// Queued, assigned, running, succeeded: with its attempt, the worker's slot and the events.
pub async fn a_job_runs_to_its_end(store: Fixture) {
    let worker = store.ready(1, 1).await;
    let job = store.queued(1, |_| ()).await;
    store.advance_ms(10);
    let claimed = store.applied(by_server(job, claim(worker))).await;
    assert_eq!(claimed.phase, Phase::Assigned { worker });
    assert_eq!((claimed.lease, claimed.attempt), (Lease(1), 1));
    assert_eq!(store.worker(worker).await.used_slots, 1);
    assert_eq!(store.job(job).await.attempts[0].started_at_ms, None);

    store.advance_ms(10);
    store.applied(says(worker, job, started(1))).await;
    let record = store.job(job).await;
    assert_eq!(record.job.phase, Phase::Running { worker });
    assert_eq!(record.attempts[0].started_at_ms, Some(store.now()));

    store.advance_ms(10);
    let end = JobChange {
        finish: Some(finish(0)),
        ..says(worker, job, exited(1, 0))
    };
    let ended = store.applied(end).await;
    let record = store.job(job).await;
    assert_eq!(record.job, ended);
    assert!(
        matches!(&ended.phase, Phase::Ended { outcome: Outcome::Succeeded, end } if end.exit_code == Some(0))
    );
    assert_eq!(record.ended_at_ms, Some(store.now()));
    let attempt = &record.attempts[0];
    assert_eq!(
        (attempt.lease, attempt.number, attempt.worker),
        (Lease(1), 1, worker)
    );
    assert_eq!(
        (attempt.provider.as_str(), attempt.machine.as_str()),
        ("local", "machine-1")
    );
    assert_eq!(
        (attempt.started_at_ms, attempt.ended_at_ms),
        (Some(11), Some(22)),
        "by the worker's clock"
    );
    assert!(matches!(&attempt.end, Some((AttemptOutcome::Succeeded, end)) if end.exit_code == Some(0)));
    assert!(!attempt.never_started);
    let freed = store.worker(worker).await;
    assert_eq!((freed.used_slots, freed.idle_since_ms), (0, store.now()));
    let told = ["JobCreated", "assigned 1 ", "running 1 ", "succeeded 1 exit_code"];
    assert_eq!(store.told(job).await, told);

    let unknown = store.apply(by_server(job_id(9), cancel())).await;
    assert_eq!(unknown, ChangeOutcome::NoSuchJob);
}

/// What sessions, the lease loop and the planner see of live attempts.
pub async fn what_is_held(store: Fixture) {
    let first = store.ready(1, 2).await;
    let second = store.ready(2, 2).await;
    let mut jobs: Vec<JobId> = Vec::new();
    for n in 1..=3 {
        let retries = u32::from(n == 1);
        jobs.push(store.queued(n, |input| input.retries = retries).await);
    }
    store.applied(by_server(jobs[2], claim(first))).await;
    store.applied(by_server(jobs[0], claim(first))).await;
    store.applied(by_server(jobs[1], claim(second))).await;
    store.applied(says(first, jobs[0], started(1))).await;
    store.applied(by_server(jobs[2], cancel())).await;

    let held = store.jobs.held_by(first).await.expect("read");
    let seen: Vec<_> = held
        .iter()
        .map(|h| (h.key, h.running, h.cancel_requested, h.repeatable))
        .collect();
    assert_eq!(
        seen,
        [
            (key(jobs[0], 1), true, false, true),
            (key(jobs[2], 1), false, true, false)
        ]
    );
    assert_eq!(held[0].number, 1);
    let specs = store.jobs.specs(vec![jobs[0], job_id(99)]).await.expect("read");
    let first_job = store.job(jobs[0]).await;
    assert_eq!(specs, [(jobs[0], (first_job.namespace, first_job.spec))].into());

    let holding = |worker, job| Holding {
        worker,
        key: key(job, 1),
        lost_after_ms: 300_000,
    };
    let want = [
        holding(first, jobs[0]),
        holding(first, jobs[2]),
        holding(second, jobs[1]),
    ];
    assert_eq!(store.jobs.holdings().await.expect("read"), want);

    let used = store.jobs.used().await.expect("read");
    let need = Resources::JOB_DEFAULT;
    assert_eq!(used, [(first, need.plus(&need)), (second, need)].into());

    store.applied(says(first, jobs[0], exited(1, 0))).await;
    assert_eq!(store.jobs.held_by(first).await.expect("read").len(), 1);
    assert_eq!(store.jobs.holdings().await.expect("read"), want[1..]);
}

/// Jobs that have not ended are counted by how they stand.
pub async fn queue_counts(store: Fixture) {
    let count = async || store.jobs.counts().await.expect("read");
    assert_eq!(count().await, QueueCounts::default());
    let worker = store.ready(1, 8).await;
    let first_at = store.now();
    store.running(1, worker).await;
    let delayed = store.running(2, worker).await;
    let assigned = store.queued(3, |_| ()).await;
    store.applied(by_server(assigned, claim(worker))).await;
    store.queued(4, |_| ()).await;
    store.advance_ms(5);
    store.queued(5, |_| ()).await;
    store.queued(6, |input| input.stdin = Stdin::Whole).await;
    let retried = store.queued(7, |input| input.retries = 1).await;
    store.applied(by_server(retried, claim(worker))).await;
    store.applied(by_server(retried, lost(1))).await;
    store.applied(by_server(delayed, lost(1))).await;
    let want = QueueCounts {
        ready: 2,
        delayed: 1,
        held: 1,
        assigned: 1,
        running: 1,
        oldest_ready_at_ms: Some(first_at),
    };
    assert_eq!(count().await, want);
}
