//! A worker's session at the server: what it says is checked and recorded, what it should do is told.
//!
//! Invariants: the identity is the transport's, never a message's · an Assign leaves only after its claim's
//! commit, once a session · a beat and a result are answered after their commit · what the worker should know is
//! re-read from the store at each wake-up, so a lost wake-up costs at most one poll.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hodei_server_domain::job::state::JobEvent;
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{AttemptKey, WorkerId};

use crate::platform::Platform;
use crate::ports::StoreError;
use crate::ports::jobs::{ChangeOutcome, Finish, JobChange, LiveAttempt};
use crate::ports::link::{
    Assignment, AttemptResult, FromWorker, HeldAttempt, HeldState, HeldVerdict, Hello, ResultVerdict,
    StopKind, ToWorker, WorkerIdentity, WorkerLink,
};
use crate::ports::workers::{BeatRecord, SessionOutcome, SessionStart, WorkerChange};
use crate::sessions::Open;
use crate::workers::cast_out;

/// How long a worker may take to say Hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// The door ends the stream with its certificate and tells the worker why; a session whose door does not, ends this
/// much later.
const DOOR_FIRST: Duration = Duration::from_secs(1);
/// How many frames are recorded in one transaction.
const MAX_BATCH: usize = 256;

/// Why a session ends.
enum Over {
    /// The link closed, a newer session began, the certificate ended or the server stops.
    Closed,
    /// The store failed; the worker comes back and says all again.
    Store(StoreError),
    /// The worker said something that its identity does not allow.
    Offence(String),
}

impl From<StoreError> for Over {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Serves one session until it is over.
pub async fn serve(platform: Arc<Platform>, identity: WorkerIdentity, mut link: WorkerLink) {
    let worker = identity.worker;
    let Some((hello, number)) = begin(&platform, &identity, &mut link).await else {
        return;
    };
    let open = platform.sessions.open(worker, number, &platform.stopped);
    tracing::info!(worker_id = %worker, session = number, "worker connected");
    let mut session = Session {
        platform: Arc::clone(&platform),
        identity,
        open: Arc::clone(&open),
        link,
        known: BTreeMap::new(),
        waiting: BTreeMap::new(),
        drain_sent: false,
        leaving: false,
    };
    let over = session.run(hello).await;
    platform
        .sessions
        .close(worker, number, platform.clock.monotonic());
    match over {
        Over::Closed => tracing::info!(worker_id = %worker, session = number, "session closed"),
        Over::Store(error) => tracing::warn!(worker_id = %worker, %error, "session ended by the store"),
        Over::Offence(message) => revoke(&platform, worker, message).await,
    }
    platform.wake.dispatch.notify_one();
    platform.wake.reconcile.notify_one();
}

async fn begin(
    platform: &Platform,
    identity: &WorkerIdentity,
    link: &mut WorkerLink,
) -> Option<(Hello, u64)> {
    let first = tokio::select! {
        biased;
        () = platform.stopped.cancelled() => return None,
        first = link.incoming.recv() => first,
        () = platform.clock.sleep(HELLO_DEADLINE) => return None,
    };
    let Some(FromWorker::Hello(hello)) = first else {
        return None;
    };
    let start = SessionStart {
        worker: identity.worker,
        generation: identity.generation,
        room: hello.room,
        slots: hello.slots,
        enforced: hello.enforced.clone(),
    };
    match platform.workers.begin_session(start).await {
        Ok(SessionOutcome::Began(number)) => Some((hello, number)),
        Ok(SessionOutcome::Refused) => {
            tracing::warn!(worker_id = %identity.worker, "session refused");
            let message = "the worker is gone, revoked, or its certificate is too old".to_owned();
            // One that has hung up meanwhile asks again.
            let _gone = link.outgoing.send(ToWorker::Refused { message }).await;
            None
        }
        Err(error) => {
            tracing::warn!(worker_id = %identity.worker, %error, "session could not begin");
            None
        }
    }
}

/// Revokes the identity of a worker that said what it may not.
pub(crate) async fn revoke(platform: &Platform, worker: WorkerId, message: String) {
    tracing::warn!(worker_id = %worker, message, "worker revoked");
    let change = WorkerChange::Revoke { worker, message };
    if let Err(error) = platform.workers.change(vec![change]).await {
        tracing::error!(worker_id = %worker, %error, "worker could not be revoked");
    }
    cast_out(platform, worker);
}

/// What this session knows of an attempt.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// It was told to stop.
    stop_sent: bool,
}

/// A result that waits for the output before its end.
struct Waiting {
    result: AttemptResult,
    until: Duration,
}

struct Session {
    platform: Arc<Platform>,
    identity: WorkerIdentity,
    open: Arc<Open>,
    link: WorkerLink,
    /// Attempts that the worker has, by its Hello or by our Assign, and whose result is not answered.
    known: BTreeMap<AttemptKey, Known>,
    waiting: BTreeMap<AttemptKey, Waiting>,
    drain_sent: bool,
    leaving: bool,
}

impl Session {
    async fn run(&mut self, hello: Hello) -> Over {
        match self.serve(hello).await {
            Ok(()) => Over::Closed,
            Err(over) => over,
        }
    }

    async fn serve(&mut self, hello: Hello) -> Result<(), Over> {
        let clock = Arc::clone(&self.platform.clock);
        self.send(ToWorker::Welcome {
            session: self.open.session,
            beat_interval_ms: u64::try_from(self.platform.settings.beat_interval.as_millis())
                .unwrap_or(10_000),
            addresses: self.platform.settings.addresses.clone(),
            now_ms: clock.now_ms(),
        })
        .await?;
        self.answer_hello(&hello.held).await?;
        self.platform.wake.dispatch.notify_one();
        let life_ms = u64::try_from(self.identity.not_after_ms - clock.now_ms()).unwrap_or(0);
        let certificate_ends = clock.monotonic() + Duration::from_millis(life_ms) + DOOR_FIRST;
        self.deliver().await?;
        loop {
            let poll = clock.sleep(self.platform.settings.poll);
            let first = tokio::select! {
                biased;
                () = self.open.ended.cancelled() => return Ok(()),
                () = clock.sleep_until(certificate_ends) => return Ok(()),
                first = self.link.incoming.recv() => Some(Some(first.ok_or(Over::Closed)?)),
                () = self.open.output.notified(), if !self.waiting.is_empty() => Some(None),
                () = self.open.wake.notified() => None,
                () = poll => None,
            };
            if let Some(first) = first {
                let mut frames: Vec<FromWorker> = first.into_iter().collect();
                while frames.len() < MAX_BATCH
                    && let Ok(next) = self.link.incoming.try_recv()
                {
                    frames.push(next);
                }
                self.record(frames).await?;
            } else {
                self.deliver().await?;
            }
            self.record_waiting().await?;
        }
    }

    async fn send(&self, frame: ToWorker) -> Result<(), Over> {
        tokio::select! {
            biased;
            () = self.open.ended.cancelled() => Err(Over::Closed),
            sent = self.link.outgoing.send(frame) => sent.map_err(|_| Over::Closed),
        }
    }

    /// Answers each attempt of the Hello, and finds what the worker has forgotten.
    async fn answer_hello(&mut self, held: &[HeldAttempt]) -> Result<(), Over> {
        let live = self.live().await?;
        for attempt in held {
            let verdict = if live.contains_key(&attempt.key) {
                self.known.insert(attempt.key, Known::default());
                HeldVerdict::Continue
            } else if self.was_held(attempt.key).await? && attempt.state == HeldState::Ended {
                HeldVerdict::Recorded
            } else {
                HeldVerdict::Stop
            };
            self.platform.sessions.settled(attempt.key);
            self.send(ToWorker::Held {
                key: attempt.key,
                verdict,
            })
            .await?;
        }
        let forgotten = live
            .values()
            .filter(|attempt| attempt.running && !self.known.contains_key(&attempt.key));
        let lost = forgotten.map(|attempt| JobChange {
            job: attempt.key.job,
            event: JobEvent::Lost {
                lease: attempt.key.lease,
                message: "the worker no longer knows the attempt".to_owned(),
            },
            from_worker: None,
            finish: None,
        });
        let lost: Vec<JobChange> = lost.collect();
        if !lost.is_empty() {
            self.platform.jobs.apply(lost).await?;
        }
        Ok(())
    }

    /// Whether an attempt that is over was this worker's.
    async fn was_held(&self, key: AttemptKey) -> Result<bool, Over> {
        let job = self.platform.jobs.get(key.job).await?;
        let attempts = job.map(|job| job.attempts).unwrap_or_default();
        Ok(attempts
            .iter()
            .any(|a| a.lease == key.lease && a.worker == self.identity.worker))
    }

    async fn live(&self) -> Result<BTreeMap<AttemptKey, LiveAttempt>, Over> {
        let live = self.platform.jobs.held_by(self.identity.worker).await?;
        Ok(live.into_iter().map(|attempt| (attempt.key, attempt)).collect())
    }

    /// Tells the worker what differs between what it should do and what it was told.
    async fn deliver(&mut self) -> Result<(), Over> {
        let worker = self.identity.worker;
        let record = self.platform.workers.get(worker).await?.ok_or(Over::Closed)?;
        if record.revoked || record.phase == WorkerPhase::Gone || record.session != self.open.session {
            return Err(Over::Closed);
        }
        let live = self.live().await?;
        let mut fresh = Vec::new();
        for attempt in live.values() {
            match self.known.get(&attempt.key).copied() {
                None if attempt.cancel_requested || self.leaving => {
                    self.give_back(attempt.key).await?;
                }
                None => fresh.push(*attempt),
                Some(known) if attempt.cancel_requested && !known.stop_sent => {
                    self.stop(attempt.key, StopKind::Cancel).await?;
                }
                Some(_) => {}
            }
        }
        self.assign(fresh).await?;
        let over: Vec<AttemptKey> = self
            .known
            .iter()
            .filter(|(key, known)| {
                !live.contains_key(key) && !known.stop_sent && !self.waiting.contains_key(key)
            })
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            self.stop(key, StopKind::Stale).await?;
        }
        if record.phase == WorkerPhase::Draining && !self.drain_sent {
            self.drain_sent = true;
            self.send(ToWorker::Drain).await?;
        }
        Ok(())
    }

    /// Sends what was claimed since the last look.
    async fn assign(&mut self, fresh: Vec<LiveAttempt>) -> Result<(), Over> {
        if fresh.is_empty() {
            return Ok(());
        }
        let jobs = fresh.iter().map(|attempt| attempt.key.job).collect();
        let mut specs = self.platform.jobs.specs(jobs).await?;
        for attempt in fresh {
            let Some((namespace, spec)) = specs.remove(&attempt.key.job) else {
                continue;
            };
            self.platform.sessions.sent(attempt.key);
            self.known.insert(attempt.key, Known::default());
            let assignment = Assignment {
                key: attempt.key,
                spec,
                namespace,
                attempt: attempt.number,
                repeatable: attempt.repeatable,
            };
            self.send(ToWorker::Assign(Box::new(assignment))).await?;
        }
        Ok(())
    }

    async fn stop(&mut self, key: AttemptKey, kind: StopKind) -> Result<(), Over> {
        self.known.insert(key, Known { stop_sent: true });
        self.send(ToWorker::Stop { key, kind }).await
    }

    /// Puts back a claim whose Assign did not leave in this session and is not in the worker's Hello.
    async fn give_back(&mut self, key: AttemptKey) -> Result<(), Over> {
        let change = JobChange {
            job: key.job,
            event: JobEvent::NeverStarted {
                lease: key.lease,
                message: "was not sent to the worker".to_owned(),
            },
            from_worker: None,
            finish: None,
        };
        self.platform.jobs.apply(vec![change]).await?;
        self.platform.sessions.settled(key);
        self.platform.wake.dispatch.notify_one();
        Ok(())
    }

    /// Records what the worker said, in one transaction, and answers it.
    async fn record(&mut self, frames: Vec<FromWorker>) -> Result<(), Over> {
        let mut beat = None;
        let mut changes = Vec::new();
        let mut results = Vec::new();
        for frame in frames {
            match frame {
                FromWorker::Hello(_) => {
                    return Err(Over::Offence("a second Hello in one session".to_owned()));
                }
                FromWorker::Beat { n } => beat = Some(n),
                FromWorker::Running { key, .. } => {
                    changes.push(self.change(key, JobEvent::Started { lease: key.lease }, None));
                    results.push(None);
                }
                FromWorker::NeverStarted { key, message } => {
                    self.known.remove(&key);
                    let message = hodei_shared::text::one_line(&message);
                    changes.push(self.change(
                        key,
                        JobEvent::NeverStarted {
                            lease: key.lease,
                            message,
                        },
                        None,
                    ));
                    results.push(None);
                }
                FromWorker::Result(result) => {
                    changes.push(self.result_change(&result, false));
                    results.push(Some(result));
                }
                FromWorker::Leaving => {
                    self.leaving = true;
                    let message = "the worker leaves".to_owned();
                    let drain = WorkerChange::Drain {
                        worker: self.identity.worker,
                        message,
                        only_idle: false,
                    };
                    self.platform.workers.change(vec![drain]).await?;
                }
            }
        }
        if let Some(n) = beat {
            self.beat(n).await?;
        }
        if !changes.is_empty() {
            let outcomes = self.platform.jobs.apply(changes).await?;
            for (outcome, result) in outcomes.into_iter().zip(results) {
                self.answer(outcome, result).await?;
            }
            self.platform.wake.dispatch.notify_one();
        }
        Ok(())
    }

    async fn beat(&mut self, n: u64) -> Result<(), Over> {
        let beat = BeatRecord {
            worker: self.identity.worker,
            session: self.open.session,
            beat: n,
        };
        match self.platform.workers.beat(vec![beat]).await?.first() {
            Some(true) => self.send(ToWorker::Beat { n }).await,
            _ => Err(Over::Closed),
        }
    }

    fn change(&self, key: AttemptKey, event: JobEvent, finish: Option<Finish>) -> JobChange {
        JobChange {
            job: key.job,
            event,
            from_worker: Some(self.identity.worker),
            finish,
        }
    }

    fn result_change(&self, result: &AttemptResult, allow_missing_output: bool) -> JobChange {
        let finish = Finish {
            started_at_ms: result.started_at_ms,
            ended_at_ms: result.ended_at_ms,
            output_end: result.output_end,
            allow_missing_output,
        };
        let event = JobEvent::Finished {
            lease: result.key.lease,
            result: result.result.clone(),
        };
        self.change(result.key, event, Some(finish))
    }

    async fn answer(&mut self, outcome: ChangeOutcome, result: Option<AttemptResult>) -> Result<(), Over> {
        let verdict = match outcome {
            ChangeOutcome::NotHolder | ChangeOutcome::NoSuchJob => {
                return Err(Over::Offence(
                    "it spoke for an attempt that never was its own".to_owned(),
                ));
            }
            ChangeOutcome::OutputMissing(_) => {
                if let Some(result) = result {
                    let until = self.platform.clock.monotonic() + self.platform.settings.output_patience;
                    self.waiting
                        .entry(result.key)
                        .or_insert(Waiting { result, until });
                }
                return Ok(());
            }
            ChangeOutcome::Applied(_) => ResultVerdict::Applied,
            ChangeOutcome::Same => ResultVerdict::Same,
            ChangeOutcome::Stale | ChangeOutcome::Conflict | ChangeOutcome::NotClaimable => {
                ResultVerdict::Stale
            }
        };
        if let Some(result) = result {
            self.known.remove(&result.key);
            self.waiting.remove(&result.key);
            self.platform.sessions.settled(result.key);
            self.send(ToWorker::Result {
                key: result.key,
                verdict,
            })
            .await?;
        }
        Ok(())
    }

    /// Tries results again that waited for their output; after a while they are recorded without it.
    async fn record_waiting(&mut self) -> Result<(), Over> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let now = self.platform.clock.monotonic();
        let waiting = self.waiting.values();
        let changes = waiting
            .map(|w| self.result_change(&w.result, now >= w.until))
            .collect();
        let results: Vec<AttemptResult> = self.waiting.values().map(|w| w.result.clone()).collect();
        let outcomes = self.platform.jobs.apply(changes).await?;
        for (outcome, result) in outcomes.into_iter().zip(results) {
            self.answer(outcome, Some(result)).await?;
        }
        self.platform.wake.dispatch.notify_one();
        Ok(())
    }
}
