//! Jobs and attempts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hodei_server_domain::event::Event;
use hodei_server_domain::job::end::{AttemptOutcome, End, Outcome};
use hodei_server_domain::job::shape::{Shape, ShapeId};
use hodei_server_domain::job::spec::JobSpec;
use hodei_server_domain::job::state::{HELD, Job, JobEvent, Phase, Refusal, Transition};
use hodei_server_domain::scheduling::snapshot::{QueuedJob, ShapeQueue};
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{AttemptKey, JobId, Lease, Namespace, WorkerId};
use hodei_shared::resources::Resources;

use super::{FakeAttempt, FakeJob, FakeStore, FakeSubmission, State};
use crate::ports::StoreError;
use crate::ports::jobs::{
    AttemptRecord, ChangeOutcome, Claimable, ClaimableLook, FIRST_RANK, Holding, JobChange, JobFilter,
    JobRecord, JobRepository, LiveAttempt, NewJob, OutputCounts, QueueCounts, QueueOutcome,
};

impl State {
    fn queue_one(&mut self, new: NewJob) -> QueueOutcome {
        assert!(
            (1..=255).contains(&new.request_id.len()),
            "a request id has 1 to 255 bytes"
        );
        let submission = (new.namespace.clone(), new.request_id.clone());
        if let Some(known) = self.submissions.get(&submission) {
            return match known.spec == new.spec && known.retry_of == new.retry_of {
                true => QueueOutcome::Same(known.job),
                false => QueueOutcome::OtherSpec(known.job),
            };
        }
        assert!(!self.jobs.contains_key(&new.id), "id {} is used twice", new.id);
        let made = FakeSubmission {
            job: new.id,
            spec: new.spec.clone(),
            retry_of: new.retry_of,
            at_ms: self.now_ms,
        };
        self.submissions.insert(submission, made);
        self.open_input(&new);
        let job = FakeJob {
            job: Job::queued(Job::first_ready_ms(
                &new.spec,
                new.retry_of.is_some(),
                self.now_ms,
            )),
            namespace: new.namespace,
            spec: new.spec,
            retry_of: new.retry_of,
            created_at_ms: self.now_ms,
            ended_at_ms: None,
            output_expired: false,
            attempts: Vec::new(),
        };
        self.jobs.insert(new.id, job);
        self.event(Event::JobCreated { job: new.id });
        QueueOutcome::Queued(new.id)
    }

    fn apply_one(&mut self, change: JobChange) -> ChangeOutcome {
        let Some(job) = self.jobs.get(&change.job) else {
            return ChangeOutcome::NoSuchJob;
        };
        let mut missing = None;
        if let Some(lease) = lease_of(&change.event) {
            let recorded = job.attempts.iter().find(|attempt| attempt.record.lease == lease);
            match (recorded, change.from_worker) {
                (None, Some(_)) => return ChangeOutcome::NotHolder,
                (Some(attempt), Some(worker)) if attempt.record.worker != worker => {
                    return ChangeOutcome::NotHolder;
                }
                (Some(attempt), _) if attempt.record.end.is_some() => {
                    let (answer, worker) = (answer_by_record(attempt, &change.event), attempt.record.worker);
                    if answer == ChangeOutcome::Conflict {
                        let job = change.job;
                        self.event(Event::ResultConflict { job, lease, worker });
                    }
                    return answer;
                }
                _ => {}
            }
            missing = self.missing_output(&change, lease);
        }
        let allowed = change.finish.is_some_and(|finish| finish.allow_missing_output);
        if let Some(stored) = missing.filter(|_| !allowed) {
            return ChangeOutcome::OutputMissing(stored);
        }
        let job = &self.jobs[&change.job];
        match job.job.apply(change.event.clone(), &job.spec.retry, self.now_ms) {
            Ok(mut transition) => {
                if missing.is_some() {
                    transition.mark_output_incomplete();
                }
                self.record(&change, transition)
            }
            Err(Refusal::Stale) => ChangeOutcome::Stale,
            Err(Refusal::Same) => ChangeOutcome::Same,
            Err(Refusal::NotClaimable) => ChangeOutcome::NotClaimable,
        }
    }

    fn missing_output(&self, change: &JobChange, lease: Lease) -> Option<u64> {
        let finish = change.finish?;
        let job = &self.jobs[&change.job].job;
        let finishes = matches!(change.event, JobEvent::Finished { .. });
        if !finishes || job.holder().is_none() || job.lease != lease {
            return None;
        }
        let stored = self.taken_end(first_rank(change.job, lease));
        (stored < finish.output_end).then_some(stored)
    }

    fn record(&mut self, change: &JobChange, transition: Transition) -> ChangeOutcome {
        let Transition { job, attempt_end } = transition;
        if let JobEvent::Claim { worker } = change.event
            && !self.claim(change.job, &job, worker)
        {
            return ChangeOutcome::NotClaimable;
        }
        let now_ms = self.now_ms;
        let stored = self.jobs.get_mut(&change.job).expect("it was looked up before");
        assert!(!stored.job.is_ended(), "an ended job changes");
        if let JobEvent::Started { .. } = change.event {
            let attempt = stored.attempts.last_mut().expect("a held job has an attempt");
            attempt.record.started_at_ms = Some(now_ms);
        }
        if let Some((outcome, end)) = &attempt_end {
            let attempt = stored.attempts.last_mut().expect("a held job has an attempt");
            end_attempt(attempt, change, *outcome, end, now_ms);
            let worker = self
                .workers
                .get_mut(&attempt.record.worker)
                .expect("a holder is known");
            worker.record.used_slots -= 1;
            worker.record.idle_since_ms = now_ms;
        }
        stored.job = job.clone();
        if job.is_ended() {
            stored.ended_at_ms = Some(now_ms);
            self.ended.insert(change.job, job.clone());
        }
        self.event(event_of(change, &job, attempt_end.as_ref().map(|(_, end)| end)));
        ChangeOutcome::Applied(job)
    }

    fn claim(&mut self, id: JobId, job: &Job, worker: WorkerId) -> bool {
        let stored = self.jobs.get_mut(&id).expect("it was looked up before");
        let Some(worker) = self.workers.get_mut(&worker).map(|worker| &mut worker.record) else {
            return false;
        };
        let takes = worker.phase == WorkerPhase::Ready
            && worker.namespace == stored.namespace
            && !worker.revoked
            && worker.session > 0
            && worker.used_slots < worker.slots;
        if takes {
            worker.used_slots += 1;
            let record = AttemptRecord {
                lease: job.lease,
                number: job.attempt,
                worker: worker.id,
                provider: worker.provider.clone(),
                machine: worker.machine.clone(),
                started_at_ms: None,
                ended_at_ms: None,
                end: None,
                never_started: false,
                output: OutputCounts::default(),
            };
            stored.attempts.push(FakeAttempt { record, result: None });
        }
        takes
    }

    fn job_record(&self, id: JobId) -> Option<JobRecord> {
        let job = self.jobs.get(&id)?;
        let attempts = job.attempts.iter().map(|attempt| {
            let mut record = attempt.record.clone();
            let log = self.logs.get(&first_rank(id, record.lease));
            record.output.bytes = log.map_or(0, |log| log.kept);
            record.output.truncated = log.is_some_and(|log| log.taken > log.kept);
            record.output.expired = job.output_expired && log.is_some();
            record.output.messages = log.map_or(0, |log| log.messages);
            record.output.lines = log.map_or(0, |log| log.lines);
            record
        });
        Some(JobRecord {
            id,
            namespace: job.namespace.clone(),
            spec: job.spec.clone(),
            job: job.job.clone(),
            attempts: attempts.collect(),
            retry_of: job.retry_of,
            created_at_ms: job.created_at_ms,
            ended_at_ms: job.ended_at_ms,
        })
    }

    fn matches(&self, id: JobId, job: &FakeJob, filter: &JobFilter) -> bool {
        let labelled = |(key, value): (&String, &String)| job.spec.labels.get(key) == Some(value);
        filter
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == job.namespace)
            && filter.labels.iter().all(labelled)
            && (filter.states.is_empty() || filter.states.contains(&word(&job.job.phase)))
            && filter.before.is_none_or(|before| id < before)
    }

    fn claimable(&self, look: &ClaimableLook) -> Claimable {
        let mut queues: BTreeMap<ShapeId, ShapeQueue> = BTreeMap::new();
        for (id, job) in &self.jobs {
            let Phase::Queued { ready_at_ms } = job.job.phase else {
                continue;
            };
            if ready_at_ms <= self.now_ms {
                let shape = Shape::of(&job.namespace, &job.spec);
                let queue = queues.entry(shape.id()).or_insert_with(|| ShapeQueue {
                    shape,
                    heads: Vec::new(),
                });
                queue.heads.push(QueuedJob { id: *id, ready_at_ms });
            }
        }
        let mut queues: Vec<ShapeQueue> = queues.into_values().collect();
        for queue in &mut queues {
            queue.heads.sort_by_key(|head| (head.ready_at_ms, head.id));
        }
        let head = |queue: &ShapeQueue| (queue.heads[0].ready_at_ms, queue.heads[0].id);
        queues.sort_by_key(head);
        let mut next = None;
        if queues.len() > look.shapes {
            let mut rest = queues.split_off(look.oldest());
            rest.retain(|queue| {
                look.after
                    .is_none_or(|after| head(queue) > (after.ready_at_ms, after.id))
            });
            let wanted = look.shapes - look.oldest();
            if rest.len() > wanted {
                rest.truncate(wanted);
                next = rest.last().map(|queue| queue.heads[0]);
            }
            queues.append(&mut rest);
        }
        queues
            .iter_mut()
            .for_each(|queue| queue.heads.truncate(look.per_shape));
        Claimable { queues, next }
    }

    fn held(&self) -> impl Iterator<Item = (WorkerId, JobId, &FakeJob)> {
        self.jobs
            .iter()
            .filter_map(|(id, job)| Some((job.job.holder()?, *id, job)))
    }
}

fn answer_by_record(attempt: &FakeAttempt, event: &JobEvent) -> ChangeOutcome {
    let lost = matches!(attempt.record.end, Some((AttemptOutcome::Lost, _)));
    match event {
        JobEvent::Finished { result, .. } if attempt.result.as_ref() == Some(result) => ChangeOutcome::Same,
        JobEvent::Finished { .. } if !lost => ChangeOutcome::Conflict,
        JobEvent::NeverStarted { .. } if attempt.record.never_started => ChangeOutcome::Same,
        _ => ChangeOutcome::Stale,
    }
}

fn end_attempt(
    attempt: &mut FakeAttempt,
    change: &JobChange,
    outcome: AttemptOutcome,
    end: &End,
    now_ms: i64,
) {
    assert!(attempt.record.end.is_none(), "a recorded result changes");
    if let JobEvent::Finished { result, .. } = &change.event {
        attempt.result = Some(result.clone());
    }
    let finish = change.finish.filter(|_| attempt.result.is_some());
    attempt.record.end = Some((outcome, end.clone()));
    attempt.record.ended_at_ms = Some(finish.map_or(now_ms, |finish| finish.ended_at_ms));
    attempt.record.never_started = matches!(change.event, JobEvent::NeverStarted { .. });
    attempt.record.output.declared_end = finish.map(|finish| finish.output_end);
    if let Some(started) = finish.and_then(|finish| finish.started_at_ms) {
        attempt.record.started_at_ms = Some(started);
    }
}

fn event_of(change: &JobChange, job: &Job, attempt_end: Option<&End>) -> Event {
    let (reason, message) = match (&job.phase, attempt_end, &change.event) {
        (Phase::Ended { end, .. }, _, _) => (end.reason.as_str(), end.message.clone()),
        (_, Some(end), _) => (end.reason.as_str(), end.message.clone()),
        (_, None, JobEvent::ProvisionFailed { message }) => ("provider_error", message.clone()),
        (_, None, JobEvent::Cancel { message }) => {
            let message = message.clone();
            return Event::JobCancelRequested {
                job: change.job,
                message,
            };
        }
        (_, None, _) => ("", String::new()),
    };
    Event::JobStatusChanged {
        job: change.job,
        state: word(&job.phase).to_owned(),
        attempt: job.attempt,
        reason: reason.to_owned(),
        message,
    }
}

fn word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Queued { .. } => "queued",
        Phase::Assigned { .. } => "assigned",
        Phase::Running { .. } => "running",
        Phase::Ended { outcome, .. } => match outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::TimedOut => "timed_out",
        },
    }
}

fn lease_of(event: &JobEvent) -> Option<Lease> {
    match event {
        JobEvent::Started { lease }
        | JobEvent::Finished { lease, .. }
        | JobEvent::NeverStarted { lease, .. }
        | JobEvent::Lost { lease, .. } => Some(*lease),
        JobEvent::Claim { .. }
        | JobEvent::ProvisionFailed { .. }
        | JobEvent::InputComplete
        | JobEvent::Cancel { .. } => None,
    }
}

fn first_rank(job: JobId, lease: Lease) -> AttemptKey {
    AttemptKey {
        job,
        lease,
        rank: FIRST_RANK,
    }
}

#[async_trait]
impl JobRepository for FakeStore {
    async fn queue(&self, jobs: Vec<NewJob>) -> Result<Vec<QueueOutcome>, StoreError> {
        self.write(|state| jobs.into_iter().map(|job| state.queue_one(job)).collect())
    }

    async fn apply(&self, changes: Vec<JobChange>) -> Result<Vec<ChangeOutcome>, StoreError> {
        self.write(|state| {
            changes
                .into_iter()
                .map(|change| state.apply_one(change))
                .collect()
        })
    }

    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.read(|state| state.job_record(id)))
    }

    async fn list(&self, filter: JobFilter) -> Result<Vec<JobRecord>, StoreError> {
        Ok(self.read(|state| {
            let newest_first = state.jobs.iter().rev();
            let found = newest_first.filter(|(id, job)| state.matches(**id, job, &filter));
            found
                .take(filter.limit)
                .filter_map(|(id, _)| state.job_record(*id))
                .collect()
        }))
    }

    async fn claimable(&self, look: ClaimableLook) -> Result<Claimable, StoreError> {
        Ok(self.read(|state| state.claimable(&look)))
    }

    async fn next_ready_at(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.read(|state| {
            let ready_at = |job: &FakeJob| match job.job.phase {
                Phase::Queued { ready_at_ms } => Some(ready_at_ms),
                _ => None,
            };
            state
                .jobs
                .values()
                .filter_map(ready_at)
                .filter(|at| *at > state.now_ms && *at < HELD)
                .min()
        }))
    }

    async fn held_by(&self, worker: WorkerId) -> Result<Vec<LiveAttempt>, StoreError> {
        Ok(self.read(|state| {
            let held = state.held().filter(|(holder, _, _)| *holder == worker);
            let live = held.map(|(_, id, job)| LiveAttempt {
                key: first_rank(id, job.job.lease),
                number: job.job.attempt,
                running: matches!(job.job.phase, Phase::Running { .. }),
                cancel_requested: job.job.cancel_requested,
                repeatable: job.job.repeatable(&job.spec.retry),
            });
            live.collect()
        }))
    }

    async fn specs(&self, jobs: Vec<JobId>) -> Result<BTreeMap<JobId, (Namespace, JobSpec)>, StoreError> {
        Ok(self.read(|state| {
            let of = |id: JobId| {
                let job = state.jobs.get(&id)?;
                Some((id, (job.namespace.clone(), job.spec.clone())))
            };
            jobs.into_iter().filter_map(of).collect()
        }))
    }

    async fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        Ok(self.read(|state| {
            let holding = |(worker, id, job): (WorkerId, JobId, &FakeJob)| Holding {
                worker,
                key: first_rank(id, job.job.lease),
                lost_after_ms: u64::try_from(job.spec.lost_after.as_millis()).unwrap_or(u64::MAX),
            };
            let mut holdings: Vec<Holding> = state.held().map(holding).collect();
            holdings.sort_by_key(|holding| (holding.worker, holding.key));
            holdings
        }))
    }

    async fn used(&self) -> Result<BTreeMap<WorkerId, Resources>, StoreError> {
        Ok(self.read(|state| {
            let mut used: BTreeMap<WorkerId, Resources> = BTreeMap::new();
            for (worker, _, job) in state.held() {
                let sum = used.entry(worker).or_default();
                *sum = sum.plus(&job.spec.resources);
            }
            used
        }))
    }

    async fn counts(&self) -> Result<QueueCounts, StoreError> {
        Ok(self.read(|state| {
            let mut counts = QueueCounts::default();
            for job in state.jobs.values() {
                match job.job.phase {
                    Phase::Queued { ready_at_ms: HELD } => counts.held += 1,
                    Phase::Queued { ready_at_ms } if ready_at_ms > state.now_ms => counts.delayed += 1,
                    Phase::Queued { ready_at_ms } => {
                        counts.ready += 1;
                        let oldest = counts.oldest_ready_at_ms.get_or_insert(ready_at_ms);
                        *oldest = ready_at_ms.min(*oldest);
                    }
                    Phase::Assigned { .. } => counts.assigned += 1,
                    Phase::Running { .. } => counts.running += 1,
                    Phase::Ended { .. } => {}
                }
            }
            counts
        }))
    }
}
