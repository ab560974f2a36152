//! What can happen to a job and to its attempts.
//!
//! A job is queued, held by one attempt, or ended. Each claim gets a [`Lease`] that only grows; what a holder of
//! an older one says is [`Refusal::Stale`]. Invariants, each a property test:
//! a terminal state never changes · leases only grow · an attempt is counted once · at most one lease is live.

use hodei_shared::ids::{Lease, WorkerId};

use super::end::{AttemptOutcome, End, Outcome, Reason, WorkerResult};
use super::retry::{MAX_UNCOUNTED, RetryOn, RetryPolicy, back_off};
use super::spec::{JobSpec, Stdin};

/// The time from which a held job may run: none that comes.
pub const HELD: i64 = i64::MAX;

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waits until `ready_at_ms` and for room.
    Queued {
        /// Not before this time; [`HELD`]: not before it is released.
        ready_at_ms: i64,
    },
    /// Given to a worker that has not said that it runs.
    Assigned {
        /// The worker.
        worker: WorkerId,
    },
    /// Its process runs.
    Running {
        /// The worker.
        worker: WorkerId,
    },
    /// Ended; never changes again.
    Ended {
        /// How.
        outcome: Outcome,
        /// Why.
        end: End,
    },
}

/// The part of a job that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Where it stands.
    pub phase: Phase,
    /// The last lease that was given; 0 before the first claim. In `Assigned` and `Running` it is live.
    pub lease: Lease,
    /// The number of the last attempt; 0 before the first.
    pub attempt: u32,
    /// Whether the next claim keeps the attempt's number, since the last one never started.
    pub same_attempt: bool,
    /// Repetitions that count against the retries.
    pub repetitions: u32,
    /// Repetitions in a row that do not count.
    pub uncounted: u32,
    /// Somebody asked to cancel it.
    pub cancel_requested: bool,
}

/// What happens to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// The planner gives it to a worker.
    Claim {
        /// The worker.
        worker: WorkerId,
    },
    /// The worker says that the process runs.
    Started {
        /// The claim.
        lease: Lease,
    },
    /// The worker reports the process's end.
    Finished {
        /// The claim.
        lease: Lease,
        /// How it ended.
        result: WorkerResult,
    },
    /// Proof that the attempt was not started and never will be.
    NeverStarted {
        /// The claim.
        lease: Lease,
        /// Why, for people.
        message: String,
    },
    /// The worker is gone, or silent for too long.
    Lost {
        /// The claim.
        lease: Lease,
        /// Why, for people.
        message: String,
    },
    /// A worker that was made for it did not come up, before any claim.
    ProvisionFailed {
        /// Why, for people.
        message: String,
    },
    /// All of the input that it was held for is stored.
    InputComplete,
    /// A person asks to cancel it.
    Cancel {
        /// Who or why, for people.
        message: String,
    },
}

/// Why an event changes nothing. None of these is an error: lost races are outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It comes from the holder of an older lease, or of none.
    Stale,
    /// It is already so.
    Same,
    /// A claim of a job that can not be claimed now.
    NotClaimable,
}

/// What an event changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The job afterwards.
    pub job: Job,
    /// What becomes of the attempt that held the job, if it ended.
    pub attempt_end: Option<(AttemptOutcome, End)>,
}

impl Transition {
    /// Says in what is recorded that a part of the output is missing. How a process ended stays as it was.
    pub fn mark_output_incomplete(&mut self) {
        let mark = |end: &mut End| {
            if end.reason == Reason::ExitCode {
                end.reason = Reason::OutputIncomplete;
            }
            end.message
                .push_str("; a part of its output could not be stored in time");
        };
        if let Some((_, end)) = &mut self.attempt_end {
            mark(end);
        }
        if let Phase::Ended { end, .. } = &mut self.job.phase {
            mark(end);
        }
    }
}

impl Job {
    /// From when on a new job may run. One that waits for its whole input is held; one that repeats another has
    /// that one's input.
    pub fn first_ready_ms(spec: &JobSpec, repeats_another: bool, now_ms: i64) -> i64 {
        let held = spec.stdin == Stdin::Whole && !repeats_another;
        if held { HELD } else { now_ms }
    }

    /// A job as it is queued.
    pub fn queued(ready_at_ms: i64) -> Self {
        Self {
            phase: Phase::Queued { ready_at_ms },
            lease: Lease(0),
            attempt: 0,
            same_attempt: false,
            repetitions: 0,
            uncounted: 0,
            cancel_requested: false,
        }
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// The worker that holds it.
    pub fn holder(&self) -> Option<WorkerId> {
        match self.phase {
            Phase::Assigned { worker } | Phase::Running { worker } => Some(worker),
            Phase::Queued { .. } | Phase::Ended { .. } => None,
        }
    }

    /// Whether an attempt that is lost now would be repeated.
    pub fn repeatable(&self, policy: &RetryPolicy) -> bool {
        !self.cancel_requested && policy.repeats(RetryOn::Lost, self.repetitions)
    }

    /// Applies one event.
    ///
    /// # Errors
    /// A [`Refusal`] if the event changes nothing.
    pub fn apply(&self, event: JobEvent, policy: &RetryPolicy, now_ms: i64) -> Result<Transition, Refusal> {
        match event {
            JobEvent::Claim { worker } => self.claim(worker, now_ms),
            JobEvent::Started { lease } => self.started(lease),
            JobEvent::Finished { lease, result } => self.finished(lease, &result, policy, now_ms),
            JobEvent::NeverStarted { lease, message } => self.never_started(lease, message, now_ms),
            JobEvent::Lost { lease, message } => {
                self.held(lease)?;
                Ok(self.lost(End::new(Reason::Lost, message), policy, now_ms))
            }
            JobEvent::ProvisionFailed { message } => self.provision_failed(message, now_ms),
            JobEvent::InputComplete => self.released(now_ms),
            JobEvent::Cancel { message } => self.cancel(message),
        }
    }

    fn claim(&self, worker: WorkerId, now_ms: i64) -> Result<Transition, Refusal> {
        match self.phase {
            Phase::Queued { ready_at_ms } if ready_at_ms <= now_ms => {}
            _ => return Err(Refusal::NotClaimable),
        }
        let mut job = self.clone();
        job.phase = Phase::Assigned { worker };
        job.lease = self.lease.next();
        if !self.same_attempt {
            job.attempt += 1;
        }
        job.same_attempt = false;
        Ok(Transition {
            job,
            attempt_end: None,
        })
    }

    fn started(&self, lease: Lease) -> Result<Transition, Refusal> {
        match self.phase {
            Phase::Assigned { worker } if lease == self.lease => {
                let mut job = self.clone();
                job.phase = Phase::Running { worker };
                job.uncounted = 0;
                Ok(Transition {
                    job,
                    attempt_end: None,
                })
            }
            Phase::Running { .. } if lease == self.lease => Err(Refusal::Same),
            _ => Err(Refusal::Stale),
        }
    }

    fn finished(
        &self,
        lease: Lease,
        result: &WorkerResult,
        policy: &RetryPolicy,
        now_ms: i64,
    ) -> Result<Transition, Refusal> {
        self.held(lease)?;
        let end = result.end();
        let outcome = match result {
            WorkerResult::LeaseLost => return Ok(self.lost(end, policy, now_ms)),
            // A worker that stops a job nobody cancelled has lost it, whatever it calls that.
            WorkerResult::Cancelled if !self.cancel_requested => {
                let end = End::new(Reason::Lost, "the worker stopped the process on its own account");
                return Ok(self.lost(end, policy, now_ms));
            }
            WorkerResult::Exited(0) => Outcome::Succeeded,
            WorkerResult::TimedOut => Outcome::TimedOut,
            WorkerResult::Cancelled => Outcome::Cancelled,
            WorkerResult::Exited(_) | WorkerResult::Signalled(_) | WorkerResult::StartFailed { .. } => {
                if policy.repeats(RetryOn::Exit, self.repetitions) {
                    return Ok(self.repeat(result.outcome(), end, now_ms));
                }
                Outcome::Failed
            }
        };
        Ok(self.ended(outcome, end.clone(), Some((result.outcome(), end))))
    }

    fn never_started(&self, lease: Lease, message: String, now_ms: i64) -> Result<Transition, Refusal> {
        self.held(lease)?;
        // A worker that said "running" can not take it back.
        if matches!(self.phase, Phase::Running { .. }) {
            return Err(Refusal::Stale);
        }
        let end = End::new(Reason::Lost, message);
        Ok(self.uncounted_repeat(end, true, now_ms))
    }

    fn provision_failed(&self, message: String, now_ms: i64) -> Result<Transition, Refusal> {
        match self.phase {
            Phase::Queued { ready_at_ms } if ready_at_ms <= now_ms => {
                Ok(self.uncounted_repeat(End::new(Reason::ProviderError, message), false, now_ms))
            }
            _ => Err(Refusal::Stale),
        }
    }

    fn released(&self, now_ms: i64) -> Result<Transition, Refusal> {
        match self.phase {
            Phase::Queued { ready_at_ms: HELD } => {
                let mut job = self.clone();
                job.phase = Phase::Queued { ready_at_ms: now_ms };
                Ok(Transition {
                    job,
                    attempt_end: None,
                })
            }
            _ => Err(Refusal::Same),
        }
    }

    fn cancel(&self, message: String) -> Result<Transition, Refusal> {
        match self.phase {
            Phase::Queued { .. } => {
                let mut transition =
                    self.ended(Outcome::Cancelled, End::new(Reason::Cancelled, message), None);
                transition.job.cancel_requested = true;
                Ok(transition)
            }
            Phase::Assigned { .. } | Phase::Running { .. } if !self.cancel_requested => {
                let mut job = self.clone();
                job.cancel_requested = true;
                Ok(Transition {
                    job,
                    attempt_end: None,
                })
            }
            Phase::Assigned { .. } | Phase::Running { .. } | Phase::Ended { .. } => Err(Refusal::Same),
        }
    }

    /// Only the holder of the live lease goes on.
    fn held(&self, lease: Lease) -> Result<(), Refusal> {
        if self.holder().is_some() && lease == self.lease {
            Ok(())
        } else {
            Err(Refusal::Stale)
        }
    }

    fn lost(&self, end: End, policy: &RetryPolicy, now_ms: i64) -> Transition {
        if policy.repeats(RetryOn::Lost, self.repetitions) || self.cancel_requested {
            return self.repeat(AttemptOutcome::Lost, end, now_ms);
        }
        self.ended(Outcome::Failed, end.clone(), Some((AttemptOutcome::Lost, end)))
    }

    /// Queues the job again, counted; or ends it if a cancel waits.
    fn repeat(&self, outcome: AttemptOutcome, end: End, now_ms: i64) -> Transition {
        if self.cancel_requested {
            return self.cancelled_instead(Some((outcome, end)));
        }
        let mut job = self.clone();
        job.repetitions += 1;
        job.phase = Phase::Queued {
            ready_at_ms: ready_after(now_ms, job.repetitions),
        };
        Transition {
            job,
            attempt_end: Some((outcome, end)),
        }
    }

    /// Queues the job again, uncounted and with the attempt's number; or ends it if a cancel waits or this has
    /// happened too often.
    fn uncounted_repeat(&self, end: End, was_claimed: bool, now_ms: i64) -> Transition {
        let attempt_end = was_claimed.then(|| (AttemptOutcome::Lost, end.clone()));
        if self.cancel_requested {
            return self.cancelled_instead(attempt_end);
        }
        if self.uncounted >= MAX_UNCOUNTED {
            let end = End {
                reason: Reason::ProviderError,
                ..end
            };
            return self.ended(Outcome::Failed, end, attempt_end);
        }
        let mut job = self.clone();
        job.uncounted += 1;
        job.same_attempt = self.same_attempt || was_claimed;
        job.phase = Phase::Queued {
            ready_at_ms: ready_after(now_ms, job.uncounted),
        };
        Transition { job, attempt_end }
    }

    fn cancelled_instead(&self, attempt_end: Option<(AttemptOutcome, End)>) -> Transition {
        let end = End::new(Reason::Cancelled, "cancelled before another attempt");
        self.ended(Outcome::Cancelled, end, attempt_end)
    }

    fn ended(&self, outcome: Outcome, end: End, attempt_end: Option<(AttemptOutcome, End)>) -> Transition {
        let mut job = self.clone();
        job.phase = Phase::Ended { outcome, end };
        Transition { job, attempt_end }
    }
}

fn ready_after(now_ms: i64, repetition: u32) -> i64 {
    let pause = i64::try_from(back_off(repetition).as_millis()).unwrap_or(i64::MAX);
    now_ms.saturating_add(pause)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
