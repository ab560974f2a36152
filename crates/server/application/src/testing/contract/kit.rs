//! Short ways to say what the rules need.

use std::time::Duration;

use hodei_server_domain::event::Event;
use hodei_server_domain::job::end::WorkerResult;
use hodei_server_domain::job::spec::{JobSpec, SpecInput};
use hodei_server_domain::job::state::{Job, JobEvent};
use hodei_server_domain::scheduling::snapshot::ShapeQueue;
use hodei_server_domain::worker::otp::SpkiHash;
use hodei_shared::ids::{AttemptKey, JobId, Lease, Namespace, ProviderId, WorkerId};
use hodei_shared::offsets::{Piece, Run, Stream};
use hodei_shared::resources::Resources;

use super::Fixture;
use crate::ports::Clock;
use crate::ports::jobs::{
    ChangeOutcome, ClaimableLook, FIRST_RANK, Finish, JobChange, JobRecord, NewJob, QueueOutcome,
};
use crate::ports::output::{AppendOutcome, Content, OutputAppend};
use crate::ports::workers::{
    Certificate, NewWorker, Redeem, RedeemOutcome, SessionOutcome, SessionStart, WorkerChange, WorkerRecord,
};

pub(super) const ROOM: Resources = Resources {
    cpu_millis: 8_000,
    memory_bytes: 8 << 30,
};

/// Ids that grow with `n`.
pub(super) fn job_id(n: u32) -> JobId {
    let mut bytes = [1; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    JobId::from_bytes(bytes)
}

pub(super) fn worker_id(n: u32) -> WorkerId {
    let mut bytes = [2; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    WorkerId::from_bytes(bytes)
}

pub(super) fn namespace(name: &str) -> Namespace {
    Namespace::new(name).expect("a valid name")
}

pub(super) fn spec(change: impl FnOnce(&mut SpecInput)) -> JobSpec {
    let mut input = SpecInput {
        command: vec!["true".to_owned()],
        ..SpecInput::default()
    };
    change(&mut input);
    JobSpec::new(input).expect("a valid spec")
}

/// A new job `n` with request id `rN`.
pub(super) fn new_job(n: u32, spec: JobSpec) -> NewJob {
    NewJob {
        id: job_id(n),
        namespace: Namespace::default_namespace(),
        spec,
        request_id: format!("r{n}"),
        owner: "token".to_owned(),
        retry_of: None,
    }
}

pub(super) fn key(job: JobId, lease: u64) -> AttemptKey {
    AttemptKey {
        job,
        lease: Lease(lease),
        rank: FIRST_RANK,
    }
}

pub(super) fn otp_id(n: u32) -> String {
    format!("otp{n}")
}

/// A certificate whose bytes tell its key and generation.
pub(super) fn certificate(spki: u8, generation: u64, not_after_ms: i64) -> Certificate {
    Certificate {
        chain: vec![vec![spki, generation as u8], vec![0xca; 300]],
        spki: SpkiHash([spki; 32]),
        generation,
        not_after_ms,
    }
}

/// One piece of standard output.
pub(super) fn piece(start: u64, text: &str) -> Piece {
    let run = Run {
        stream: Stream::Stdout,
        len: text.len() as u64,
        at_ms: 7,
    };
    Piece {
        start,
        data: text.as_bytes().to_vec(),
        runs: if text.is_empty() { Vec::new() } else { vec![run] },
    }
}

pub(super) fn claim(worker: WorkerId) -> JobEvent {
    JobEvent::Claim { worker }
}

pub(super) fn started(lease: u64) -> JobEvent {
    JobEvent::Started { lease: Lease(lease) }
}

pub(super) fn exited(lease: u64, code: i32) -> JobEvent {
    JobEvent::Finished {
        lease: Lease(lease),
        result: WorkerResult::Exited(code),
    }
}

pub(super) fn never_started(lease: u64) -> JobEvent {
    let message = "not sent".to_owned();
    JobEvent::NeverStarted {
        lease: Lease(lease),
        message,
    }
}

pub(super) fn lost(lease: u64) -> JobEvent {
    let message = "silent".to_owned();
    JobEvent::Lost {
        lease: Lease(lease),
        message,
    }
}

pub(super) fn cancel() -> JobEvent {
    JobEvent::Cancel {
        message: "asked".to_owned(),
    }
}

/// A change by the server itself.
pub(super) fn by_server(job: JobId, event: JobEvent) -> JobChange {
    JobChange {
        job,
        event,
        from_worker: None,
        finish: None,
    }
}

/// What a worker says.
pub(super) fn says(worker: WorkerId, job: JobId, event: JobEvent) -> JobChange {
    JobChange {
        from_worker: Some(worker),
        ..by_server(job, event)
    }
}

/// What a worker says of an end, with its output's end.
pub(super) fn finish(output_end: u64) -> Finish {
    Finish {
        started_at_ms: Some(11),
        ended_at_ms: 22,
        output_end,
        allow_missing_output: false,
    }
}

impl Fixture {
    pub(super) fn now(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(super) fn advance_ms(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    /// Queues job `n`.
    pub(super) async fn queued(&self, n: u32, change: impl FnOnce(&mut SpecInput)) -> JobId {
        let outcomes = self
            .jobs
            .queue(vec![new_job(n, spec(change))])
            .await
            .expect("stored");
        assert_eq!(outcomes, [QueueOutcome::Queued(job_id(n))]);
        job_id(n)
    }

    pub(super) async fn apply(&self, change: JobChange) -> ChangeOutcome {
        let mut outcomes = self.jobs.apply(vec![change]).await.expect("stored");
        assert_eq!(outcomes.len(), 1, "one outcome for each change");
        outcomes.pop().expect("there is one")
    }

    /// Applies what must be applied.
    pub(super) async fn applied(&self, change: JobChange) -> Job {
        match self.apply(change.clone()).await {
            ChangeOutcome::Applied(job) => job,
            other => panic!("{change:?} became {other:?}"),
        }
    }

    /// The claimable jobs from the start.
    pub(super) async fn claimable(&self, shapes: usize, per_shape: usize) -> Vec<ShapeQueue> {
        let look = ClaimableLook {
            after: None,
            shapes,
            per_shape,
        };
        self.jobs.claimable(look).await.expect("read").queues
    }

    pub(super) async fn job(&self, job: JobId) -> JobRecord {
        self.jobs.get(job).await.expect("read").expect("the job is there")
    }

    pub(super) async fn worker(&self, worker: WorkerId) -> WorkerRecord {
        self.workers
            .get(worker)
            .await
            .expect("read")
            .expect("the worker is there")
    }

    pub(super) async fn change(&self, change: WorkerChange) -> bool {
        let changed = self.workers.change(vec![change]).await.expect("stored");
        assert_eq!(changed.len(), 1, "one answer for each change");
        changed[0]
    }

    /// A worker whose machine is intended.
    pub(super) async fn planned(&self, n: u32, slots: u32) -> WorkerId {
        let new = NewWorker {
            id: worker_id(n),
            namespace: Namespace::default_namespace(),
            provider: ProviderId::new("local").expect("a valid name"),
            slots,
            first_job: job_id(1),
        };
        self.workers.plan(vec![new]).await.expect("stored");
        worker_id(n)
    }

    /// A worker whose password is armed.
    pub(super) async fn starting(&self, n: u32, slots: u32) -> WorkerId {
        let worker = self.planned(n, slots).await;
        let secret_hash = [n as u8; 32];
        let creating = WorkerChange::Creating {
            worker,
            otp_id: otp_id(n),
            secret_hash,
        };
        assert!(self.change(creating).await);
        assert!(
            self.change(WorkerChange::Started {
                worker,
                machine: format!("machine-{n}")
            })
            .await
        );
        worker
    }

    /// A worker that redeemed its password with key `n`; its certificate ends in half an hour.
    pub(super) async fn registered(&self, n: u32, slots: u32) -> WorkerId {
        let worker = self.starting(n, slots).await;
        let outcome = self.redeem(n, n as u8, true).await;
        assert!(matches!(outcome, RedeemOutcome::Issued(_)), "{outcome:?}");
        worker
    }

    pub(super) async fn redeem(&self, n: u32, spki: u8, secret_matches: bool) -> RedeemOutcome {
        let candidate = certificate(spki, 1, self.now() + 1_800_000);
        let redeem = Redeem {
            otp_id: otp_id(n),
            secret_matches,
            candidate,
        };
        self.workers.redeem(redeem).await.expect("stored")
    }

    pub(super) async fn begin(&self, worker: WorkerId, generation: u64, slots: u32) -> SessionOutcome {
        let enforced = vec!["memory".to_owned()];
        let start = SessionStart {
            worker,
            generation,
            room: ROOM,
            slots,
            enforced,
        };
        self.workers.begin_session(start).await.expect("stored")
    }

    /// A worker that takes jobs.
    pub(super) async fn ready(&self, n: u32, slots: u32) -> WorkerId {
        let worker = self.registered(n, slots).await;
        assert_eq!(self.begin(worker, 1, slots).await, SessionOutcome::Began(1));
        worker
    }

    /// A running job `n` on `worker`.
    pub(super) async fn running(&self, n: u32, worker: WorkerId) -> JobId {
        let job = self.queued(n, |_| ()).await;
        self.applied(by_server(job, claim(worker))).await;
        self.applied(says(worker, job, started(1))).await;
        job
    }

    pub(super) async fn append(&self, worker: WorkerId, key: AttemptKey, piece: Piece) -> AppendOutcome {
        self.append_within(u64::MAX, worker, key, Content::Bytes(piece))
            .await
    }

    /// Appends to a job of which `job_limit` bytes are kept.
    pub(super) async fn append_within(
        &self,
        job_limit: u64,
        worker: WorkerId,
        key: AttemptKey,
        content: Content,
    ) -> AppendOutcome {
        let batch = OutputAppend {
            key,
            worker,
            content,
            job_limit,
        };
        let outcomes = self.output.append(vec![batch]).await.expect("stored");
        assert_eq!(outcomes.len(), 1, "one outcome for each batch");
        outcomes[0]
    }

    /// All events, whose positions must be gap-free.
    pub(super) async fn all_events(&self) -> Vec<Event> {
        let records = self.events.after(0, 10_000).await.expect("read");
        let positions: Vec<u64> = records.iter().map(|record| record.position).collect();
        let want: Vec<u64> = (1..=records.len() as u64).collect();
        assert_eq!(positions, want, "positions are gap-free");
        records.into_iter().map(|record| record.event).collect()
    }

    pub(super) async fn kinds(&self) -> Vec<&'static str> {
        self.all_events().await.iter().map(Event::kind).collect()
    }

    /// The states that the events of a job tell, with their reasons.
    pub(super) async fn told(&self, job: JobId) -> Vec<String> {
        let records = self.events.of_job(job).await.expect("read");
        let told = records.into_iter().map(|record| match record.event {
            Event::JobStatusChanged {
                state,
                attempt,
                reason,
                ..
            } => format!("{state} {attempt} {reason}"),
            other => other.kind().to_owned(),
        });
        told.collect()
    }
}
