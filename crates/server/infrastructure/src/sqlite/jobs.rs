//! What changes jobs and attempts. Every rule is the domain's; here it is applied to the loaded row inside the
//! transaction, together with the attempt, the worker's slot and the events.

use hodei_server_application::ports::jobs::{
    ChangeOutcome, FIRST_RANK, Finish, JobChange, NewJob, QueueOutcome,
};
use hodei_server_domain::event::Event;
use hodei_server_domain::job::end::{AttemptOutcome, End, WorkerResult};
use hodei_server_domain::job::shape::{Shape, ShapeId};
use hodei_server_domain::job::state::{Job, JobEvent, Phase, Refusal, Transition};
use hodei_shared::ids::{AttemptKey, JobId, Lease, WorkerId};
use ring::digest::{SHA256, digest};
use rusqlite::{OptionalExtension, Result, params};

use super::core::Change;
use super::job_rows::{self, LoadedJob};
use super::output;
use super::value::{
    ASSIGNED, QUEUED, STATE_WORDS, attempt_outcome_from, attempt_outcome_number, int, job_id, retry_bits,
    state_of, to_json, worker_id,
};

pub(super) const TAKE_SLOT: &str = include_str!("sql/take_slot.sql");
const SUBMISSION: &str = "SELECT job, spec_hash FROM submission WHERE namespace = ?1 AND request_id = ?2";
const CLAIM_RECORDED: &str = "SELECT placement.worker, attempt.outcome, attempt.result, attempt.never_started
     FROM attempt
     JOIN placement ON placement.job = attempt.job AND placement.lease = attempt.lease AND placement.rank = 0
     WHERE attempt.job = ?1 AND attempt.lease = ?2";

/// What is recorded of a claim.
struct RecordedClaim {
    worker: WorkerId,
    outcome: Option<AttemptOutcome>,
    result: Option<String>,
    never_started: bool,
}

impl Change<'_> {
    pub(super) fn queue(&mut self, jobs: &[NewJob]) -> Result<Vec<QueueOutcome>> {
        jobs.iter().map(|job| self.queue_one(job)).collect()
    }

    fn queue_one(&mut self, new: &NewJob) -> Result<QueueOutcome> {
        let spec = to_json(&new.spec)?;
        let spec_hash = spec_hash(&spec, new.retry_of);
        let known = self
            .connection
            .prepare_cached(SUBMISSION)?
            .query_row(params![new.namespace.as_str(), new.request_id], |row| {
                Ok((job_id(row, 0)?, row.get::<_, [u8; 32]>(1)?))
            })
            .optional()?;
        if let Some((job, known_hash)) = known {
            return Ok(match known_hash == spec_hash {
                true => QueueOutcome::Same(job),
                false => QueueOutcome::OtherSpec(job),
            });
        }
        let shape = Shape::of(&new.namespace, &new.spec);
        let shape_id = shape.id();
        self.connection
            .prepare_cached("INSERT INTO shape (id, json) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![shape_id.0, to_json(&shape)?])?;
        self.insert_job(new, &spec, shape_id)?;
        self.open_input(new)?;
        self.insert_live(new, shape_id)?;
        self.connection
            .prepare_cached(
                "INSERT INTO submission (namespace, request_id, spec_hash, job, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                new.namespace.as_str(),
                new.request_id,
                spec_hash,
                new.id.as_bytes(),
                self.now_ms
            ])?;
        self.event(new.namespace.as_str(), Event::JobCreated { job: new.id });
        Ok(QueueOutcome::Queued(new.id))
    }

    fn insert_job(&self, new: &NewJob, spec: &str, shape: ShapeId) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO job (id, namespace, spec, name, shape, priority, owner, retry_of, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                new.id.as_bytes(),
                new.namespace.as_str(),
                spec,
                new.spec.name,
                shape.0,
                new.spec.priority,
                new.owner,
                new.retry_of.as_ref().map(JobId::as_bytes),
                self.now_ms
            ])?;
        let mut label = self
            .connection
            .prepare_cached("INSERT INTO job_label (namespace, key, value, job) VALUES (?1, ?2, ?3, ?4)")?;
        for (key, value) in new.spec.labels.iter() {
            label.execute(params![new.namespace.as_str(), key, value, new.id.as_bytes()])?;
        }
        Ok(())
    }

    fn insert_live(&self, new: &NewJob, shape: ShapeId) -> Result<()> {
        let ready_at_ms = Job::first_ready_ms(&new.spec, new.retry_of.is_some(), self.now_ms);
        self.connection
            .prepare_cached(
                "INSERT INTO job_live (id, namespace, shape, state, ready_at, worker, lease, attempt, same_attempt,
                     repetitions, uncounted, cancel_requested, retries, retry_on, cpu_millis, memory_bytes,
                     lost_after_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, NULL, 0, 0, 0, 0, 0, 0, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                new.id.as_bytes(),
                new.namespace.as_str(),
                shape.0,
                QUEUED,
                ready_at_ms,
                new.spec.retry.retries(),
                retry_bits(&new.spec.retry),
                int(new.spec.resources.cpu_millis),
                int(new.spec.resources.memory_bytes),
                int(u64::try_from(new.spec.lost_after.as_millis()).unwrap_or(u64::MAX))
            ])?;
        Ok(())
    }

    pub(super) fn apply(&mut self, changes: &[JobChange]) -> Result<Vec<ChangeOutcome>> {
        changes.iter().map(|change| self.apply_one(change)).collect()
    }

    fn apply_one(&mut self, change: &JobChange) -> Result<ChangeOutcome> {
        let Some(loaded) = job_rows::load(self.connection, change.job)? else {
            return Ok(ChangeOutcome::NoSuchJob);
        };
        let mut missing = None;
        if let Some(lease) = lease_of(&change.event) {
            if let Some(answer) = self.answer_by_record(change, lease, &loaded.namespace)? {
                return Ok(answer);
            }
            missing = self.missing_output(change, lease, &loaded.job)?;
        }
        if let Some(stored) = missing.filter(|_| !allows_missing_output(change)) {
            return Ok(ChangeOutcome::OutputMissing(stored));
        }
        match loaded
            .job
            .apply(change.event.clone(), &loaded.policy, self.now_ms)
        {
            Ok(mut transition) => {
                if missing.is_some() {
                    transition.mark_output_incomplete();
                }
                self.record(change, loaded, transition)
            }
            Err(Refusal::Stale) => Ok(ChangeOutcome::Stale),
            Err(Refusal::Same) => Ok(ChangeOutcome::Same),
            Err(Refusal::NotClaimable) => Ok(ChangeOutcome::NotClaimable),
        }
    }

    /// The answer to what is said of a claim that never was this worker's, or that is over; `None` while it lives.
    fn answer_by_record(
        &mut self,
        change: &JobChange,
        lease: Lease,
        namespace: &str,
    ) -> Result<Option<ChangeOutcome>> {
        let Some(recorded) = self.recorded_claim(change.job, lease)? else {
            return Ok(change.from_worker.map(|_| ChangeOutcome::NotHolder));
        };
        if change.from_worker.is_some_and(|worker| worker != recorded.worker) {
            return Ok(Some(ChangeOutcome::NotHolder));
        }
        let Some(outcome) = recorded.outcome else {
            return Ok(None);
        };
        Ok(Some(match &change.event {
            JobEvent::Finished { result, .. } => {
                if recorded.result == Some(to_json(result)?) {
                    ChangeOutcome::Same
                } else if outcome == AttemptOutcome::Lost {
                    ChangeOutcome::Stale
                } else {
                    let event = Event::ResultConflict {
                        job: change.job,
                        lease,
                        worker: recorded.worker,
                    };
                    self.event(namespace, event);
                    ChangeOutcome::Conflict
                }
            }
            JobEvent::NeverStarted { .. } if recorded.never_started => ChangeOutcome::Same,
            _ => ChangeOutcome::Stale,
        }))
    }

    fn recorded_claim(&self, job: JobId, lease: Lease) -> Result<Option<RecordedClaim>> {
        let mut select = self.connection.prepare_cached(CLAIM_RECORDED)?;
        let found = select.query_row(params![job.as_bytes(), int(lease.0)], |row| {
            let outcome: Option<i64> = row.get(1)?;
            Ok(RecordedClaim {
                worker: worker_id(row, 0)?,
                outcome: outcome
                    .map(|number| attempt_outcome_from(number, 1))
                    .transpose()?,
                result: row.get(2)?,
                never_started: row.get(3)?,
            })
        });
        found.optional()
    }

    /// The stored end, if a result of the live claim came before its output.
    fn missing_output(&self, change: &JobChange, lease: Lease, job: &Job) -> Result<Option<u64>> {
        let Some(finish) = change.finish else {
            return Ok(None);
        };
        let finishes = matches!(change.event, JobEvent::Finished { .. });
        if !finishes || job.lease != lease || job.holder().is_none() {
            return Ok(None);
        }
        let stored = output::taken_end(self.connection, first_rank(change.job, lease))?;
        Ok((stored < finish.output_end).then_some(stored))
    }

    fn record(
        &mut self,
        change: &JobChange,
        loaded: LoadedJob,
        transition: Transition,
    ) -> Result<ChangeOutcome> {
        let Transition { job, attempt_end } = transition;
        if let JobEvent::Claim { worker } = &change.event
            && !self.claim(change.job, &loaded.namespace, &job, *worker)?
        {
            return Ok(ChangeOutcome::NotClaimable);
        }
        if let JobEvent::Started { lease } = &change.event {
            self.mark_started(change.job, *lease)?;
        }
        if let Some((outcome, end)) = &attempt_end {
            self.end_attempt(change, loaded.job.lease, *outcome, end)?;
            if let Some(worker) = loaded.job.holder() {
                self.give_slot_back(worker)?;
            }
        }
        match &job.phase {
            Phase::Ended { end, .. } => {
                job_rows::end(
                    self.connection,
                    change.job,
                    &loaded.namespace,
                    &job,
                    end,
                    self.now_ms,
                )?;
            }
            _ => job_rows::update(self.connection, change.job, &job)?,
        }
        self.tell(change, &loaded, &job, attempt_end.as_ref().map(|(_, end)| end));
        Ok(ChangeOutcome::Applied(job))
    }

    /// Takes a slot and records the claim; false if the worker can not take the job.
    fn claim(&self, id: JobId, namespace: &str, job: &Job, worker: WorkerId) -> Result<bool> {
        let place = self
            .connection
            .prepare_cached(TAKE_SLOT)?
            .query_row(params![worker.as_bytes(), namespace], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        let Some((provider, machine)) = place else {
            return Ok(false);
        };
        let lease = int(job.lease.0);
        self.connection
            .prepare_cached("INSERT INTO attempt (job, lease, number) VALUES (?1, ?2, ?3)")?
            .execute(params![id.as_bytes(), lease, job.attempt])?;
        self.connection
            .prepare_cached(
                "INSERT INTO placement (job, lease, rank, worker, provider, machine)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                id.as_bytes(),
                lease,
                FIRST_RANK.0,
                worker.as_bytes(),
                provider,
                machine
            ])?;
        Ok(true)
    }

    fn mark_started(&self, job: JobId, lease: Lease) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE attempt SET started_at = ?3 WHERE job = ?1 AND lease = ?2")?
            .execute(params![job.as_bytes(), int(lease.0), self.now_ms])?;
        Ok(())
    }

    fn end_attempt(
        &self,
        change: &JobChange,
        lease: Lease,
        outcome: AttemptOutcome,
        end: &End,
    ) -> Result<()> {
        let result: Option<&WorkerResult> = match &change.event {
            JobEvent::Finished { result, .. } => Some(result),
            _ => None,
        };
        let finish: Option<Finish> = change.finish.filter(|_| result.is_some());
        self.connection
            .prepare_cached(
                "UPDATE attempt
                 SET started_at = coalesce(?3, started_at), ended_at = ?4, outcome = ?5, exit_code = ?6,
                     signal = ?7, reason = ?8, message = ?9, result = ?10, never_started = ?11,
                     declared_end = ?12
                 WHERE job = ?1 AND lease = ?2",
            )?
            .execute(params![
                change.job.as_bytes(),
                int(lease.0),
                finish.and_then(|finish| finish.started_at_ms),
                finish.map_or(self.now_ms, |finish| finish.ended_at_ms),
                attempt_outcome_number(outcome),
                end.exit_code,
                end.signal,
                end.reason.as_str(),
                end.message,
                result.map(to_json).transpose()?,
                matches!(change.event, JobEvent::NeverStarted { .. }),
                finish.map(|finish| int(finish.output_end))
            ])?;
        Ok(())
    }

    fn give_slot_back(&self, worker: WorkerId) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE worker SET used_slots = used_slots - 1, idle_since = ?2 WHERE id = ?1")?
            .execute(params![worker.as_bytes(), self.now_ms])?;
        Ok(())
    }

    /// The event of a change that was recorded.
    fn tell(&mut self, change: &JobChange, before: &LoadedJob, job: &Job, attempt_end: Option<&End>) {
        let event = match &change.event {
            JobEvent::Cancel { message } if !job.is_ended() => Event::JobCancelRequested {
                job: change.job,
                message: message.clone(),
            },
            event => {
                let (reason, message) = match (&job.phase, attempt_end, event) {
                    (Phase::Ended { end, .. }, _, _) => (end.reason.as_str(), end.message.clone()),
                    (_, Some(end), _) => (end.reason.as_str(), end.message.clone()),
                    (_, None, JobEvent::ProvisionFailed { message }) => ("provider_error", message.clone()),
                    (_, None, _) => ("", String::new()),
                };
                Event::JobStatusChanged {
                    job: change.job,
                    state: state_word(&job.phase).to_owned(),
                    attempt: job.attempt,
                    reason: reason.to_owned(),
                    message,
                }
            }
        };
        self.event(&before.namespace, event);
    }
}

/// SHA-256 of the spec's JSON and of what it repeats.
fn spec_hash(spec: &str, retry_of: Option<JobId>) -> [u8; 32] {
    let mut bytes = spec.as_bytes().to_vec();
    if let Some(job) = retry_of {
        bytes.extend_from_slice(job.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    hash
}

fn state_word(phase: &Phase) -> &'static str {
    let index = usize::try_from(state_of(phase)).unwrap_or(0);
    STATE_WORDS
        .get(index)
        .copied()
        .unwrap_or(STATE_WORDS[ASSIGNED as usize])
}

fn first_rank(job: JobId, lease: Lease) -> AttemptKey {
    AttemptKey {
        job,
        lease,
        rank: FIRST_RANK,
    }
}

fn allows_missing_output(change: &JobChange) -> bool {
    change.finish.is_some_and(|finish| finish.allow_missing_output)
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
