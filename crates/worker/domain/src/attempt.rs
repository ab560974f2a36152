//! The machine of one attempt that the worker holds.
//!
//! ```text
//! Accepted → Starting → Running → Stopping(why) → Draining → Ended → acknowledged
//! ```
//!
//! Invariants: a process is asked for at most once; once the process has ended its result never changes, so a result
//! that it reached by itself before a stop came wins over that stop; a stale attempt ends without a result. Nothing
//! here panics: an event that can not happen in a state is a typed [`Refusal`], one that changes nothing is a no-op.

use std::sync::Arc;

use hodei_shared::ids::AttemptKey;
use hodei_shared::text;
use thiserror::Error;

use crate::assignment::Assignment;
use crate::frame::HeldState;
use crate::ledger::Effect;

/// Why an attempt is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody cancelled the job.
    Cancel,
    /// Its time-out is over.
    Timeout,
    /// Its lease is about to run out.
    Lease,
    /// The worker itself has to go.
    Leaving,
    /// The lease is no longer the worker's: nobody waits for a result.
    Stale,
}

/// How a process came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It could not be started.
    StartFailed {
        /// 127: the program is missing; 126: it can not be executed; none: something else was missing.
        exit_code: Option<i32>,
        /// One line for people, naming what was missing.
        message: String,
    },
}

/// The kind of an attempt's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndKind {
    /// By itself; there is an exit code.
    Exited,
    /// By a signal that the worker did not send.
    Signalled,
    /// Stopped at its time-out.
    TimedOut,
    /// Stopped on request.
    Cancelled,
    /// Never ran: the process could not be started.
    StartFailed,
    /// Stopped because its lease was about to run out or the worker had to go.
    LeaseLost,
}

/// How an attempt ended. Sent until acknowledged; never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptResult {
    /// The attempt.
    pub key: AttemptKey,
    /// The kind of end.
    pub kind: EndKind,
    /// What the process returned, if it did.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// One line for people.
    pub message: String,
    /// When the process started, wall milliseconds; 0: never.
    pub started_at_ms: i64,
    /// When it ended, wall milliseconds.
    pub ended_at_ms: i64,
    /// Position after the last byte of output.
    pub output_end: u64,
}

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waits for a free slot.
    Accepted,
    /// Its process has been asked for; a stop that came meanwhile is remembered.
    Starting {
        /// The stop to carry out as soon as there is a process.
        stop: Option<Why>,
    },
    /// Its process runs.
    Running {
        /// When the process started.
        started_at_ms: i64,
    },
    /// Its process has been told to end.
    Stopping {
        /// When the process started.
        started_at_ms: i64,
        /// What the end will be put down to.
        why: Why,
    },
    /// The process is gone and its output is still being read; the slot is free.
    Draining(AttemptResult),
    /// Everything is known; the result waits for its answer.
    Ended(AttemptResult),
    /// Nothing is left to do: stale, or never to be started.
    Gone,
}

/// What can happen to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server assigned it once more.
    AssignedAgain,
    /// A slot is free for it.
    Start,
    /// Its process runs since this wall time.
    Spawned(i64),
    /// Its process ended, or could not be started, at this wall time, and nothing of it is left.
    Exited(ProcessEnd, i64),
    /// The same of a process that had ended by itself before a stop reached it, whatever was asked meanwhile.
    ExitedByItself(ProcessEnd, i64),
    /// The worker itself could not start it, and never will; why, for people.
    Unstartable(String),
    /// All of its output has been read; the position after the last byte.
    Drained(u64),
    /// It has to end.
    Stop(Why),
}

/// An event that can not happen in the state it met. The state is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("attempt {key}: {event} can not happen while {state}")]
pub struct Refusal {
    /// The attempt.
    pub key: AttemptKey,
    /// The event.
    pub event: &'static str,
    /// The state.
    pub state: &'static str,
}

/// One attempt held by the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    assignment: Arc<Assignment>,
    state: State,
}

impl Attempt {
    /// An attempt that waits for a slot.
    pub fn new(assignment: Assignment) -> Self {
        Self {
            assignment: Arc::new(assignment),
            state: State::Accepted,
        }
    }

    /// What is to be run.
    pub fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How a Hello names it; none if nothing is left of it.
    pub fn held(&self) -> Option<HeldState> {
        match self.state {
            State::Accepted => Some(HeldState::Accepted),
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. } | State::Draining(_) => {
                Some(HeldState::Running)
            }
            State::Ended(_) => Some(HeldState::Ended),
            State::Gone => None,
        }
    }

    /// Whether it occupies a slot.
    pub fn occupies_slot(&self) -> bool {
        matches!(
            self.state,
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. }
        )
    }

    /// Applies one event and says what is to be done.
    ///
    /// # Errors
    /// [`Refusal`] if the event can not happen now; nothing has changed then.
    pub fn on(&mut self, event: Event) -> Result<Vec<Effect>, Refusal> {
        match event {
            Event::AssignedAgain => Ok(self.answer()),
            Event::Start => self.start(),
            Event::Spawned(at_ms) => self.spawned(at_ms),
            Event::Exited(end, at_ms) => self.exited(end, at_ms, false),
            Event::ExitedByItself(end, at_ms) => self.exited(end, at_ms, true),
            Event::Unstartable(message) => self.unstartable(&message),
            Event::Drained(end) => self.drained(end),
            Event::Stop(why) => Ok(self.stop(why)),
        }
    }

    fn key(&self) -> AttemptKey {
        self.assignment.key
    }

    fn refuse(&self, event: &'static str) -> Result<Vec<Effect>, Refusal> {
        Err(Refusal {
            key: self.key(),
            event,
            state: self.state.name(),
        })
    }

    fn answer(&self) -> Vec<Effect> {
        let key = self.key();
        match &self.state {
            State::Running { started_at_ms } | State::Stopping { started_at_ms, .. } => {
                vec![Effect::ReportRunning(key, *started_at_ms)]
            }
            State::Ended(result) => vec![Effect::ReportResult(result.clone())],
            State::Accepted | State::Starting { .. } | State::Draining(_) | State::Gone => Vec::new(),
        }
    }

    fn start(&mut self) -> Result<Vec<Effect>, Refusal> {
        if self.state != State::Accepted {
            return self.refuse("a start");
        }
        self.state = State::Starting { stop: None };
        Ok(vec![Effect::Spawn(Arc::clone(&self.assignment))])
    }

    fn spawned(&mut self, started_at_ms: i64) -> Result<Vec<Effect>, Refusal> {
        let State::Starting { stop } = self.state else {
            return self.refuse("a started process");
        };
        let key = self.key();
        let running = Effect::ReportRunning(key, started_at_ms);
        Ok(match stop {
            None => {
                self.state = State::Running { started_at_ms };
                vec![running]
            }
            Some(Why::Stale) => {
                self.state = State::Stopping {
                    started_at_ms,
                    why: Why::Stale,
                };
                vec![Effect::Terminate(key)]
            }
            Some(why) => {
                self.state = State::Stopping { started_at_ms, why };
                vec![running, Effect::Terminate(key)]
            }
        })
    }

    fn exited(&mut self, end: ProcessEnd, ended_at_ms: i64, by_itself: bool) -> Result<Vec<Effect>, Refusal> {
        let (started_at_ms, why) = match self.state {
            State::Starting { stop } => (0, stop.filter(|why| *why == Why::Stale)),
            State::Running { started_at_ms } => (started_at_ms, None),
            State::Stopping { started_at_ms, why } => (started_at_ms, Some(why)),
            _ => return self.refuse("the end of the process"),
        };
        if why == Some(Why::Stale) {
            self.state = State::Gone;
            return Ok(vec![Effect::DropOutput(self.key())]);
        }
        let why = why.filter(|_| !by_itself);
        self.state = State::Draining(describe(self.key(), end, why, started_at_ms, ended_at_ms));
        Ok(Vec::new())
    }

    fn unstartable(&mut self, message: &str) -> Result<Vec<Effect>, Refusal> {
        let State::Starting { stop } = self.state else {
            return self.refuse("a start that failed");
        };
        self.state = State::Gone;
        Ok(match stop {
            Some(Why::Stale) => Vec::new(),
            _ => vec![Effect::ReportNeverStarted(self.key(), text::one_line(message))],
        })
    }

    fn drained(&mut self, output_end: u64) -> Result<Vec<Effect>, Refusal> {
        match &mut self.state {
            State::Draining(result) => {
                let mut result = result.clone();
                result.output_end = output_end;
                self.state = State::Ended(result.clone());
                Ok(vec![Effect::ReportResult(result)])
            }
            State::Gone => Ok(Vec::new()),
            _ => self.refuse("the end of the output"),
        }
    }

    fn stop(&mut self, why: Why) -> Vec<Effect> {
        let key = self.key();
        match &mut self.state {
            State::Accepted => {
                self.state = State::Gone;
                vec![Effect::ReportNeverStarted(key, never_started(why).to_owned())]
            }
            State::Starting { stop } => {
                if stop.is_none() || why == Why::Stale {
                    *stop = Some(why);
                }
                Vec::new()
            }
            State::Running { started_at_ms } => {
                self.state = State::Stopping {
                    started_at_ms: *started_at_ms,
                    why,
                };
                vec![Effect::Terminate(key)]
            }
            State::Stopping { why: first, .. } => {
                if why == Why::Stale {
                    *first = why;
                }
                Vec::new()
            }
            State::Draining(_) | State::Ended(_) if why == Why::Stale => {
                self.state = State::Gone;
                vec![Effect::DropOutput(key)]
            }
            State::Draining(_) | State::Ended(_) | State::Gone => Vec::new(),
        }
    }
}

impl State {
    /// The state's name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Draining(_) => "draining",
            Self::Ended(_) => "ended",
            Self::Gone => "gone",
        }
    }
}

fn never_started(why: Why) -> &'static str {
    match why {
        Why::Cancel | Why::Timeout => "cancelled before it started",
        Why::Lease => "the worker lost contact before it started",
        Why::Leaving => "the worker leaves",
        Why::Stale => "the attempt belongs to another worker",
    }
}

fn describe(
    key: AttemptKey,
    end: ProcessEnd,
    why: Option<Why>,
    started_at_ms: i64,
    ended_at_ms: i64,
) -> AttemptResult {
    let (own_kind, exit_code, signal, own_message) = match end {
        ProcessEnd::Exited(0) => (EndKind::Exited, Some(0), None, "the process succeeded".to_owned()),
        ProcessEnd::Exited(code) => (
            EndKind::Exited,
            Some(code),
            None,
            format!("the process returned {code}"),
        ),
        ProcessEnd::Signalled(signal) => (
            EndKind::Signalled,
            None,
            Some(signal),
            format!("signal {signal} ended the process"),
        ),
        ProcessEnd::StartFailed { exit_code, message } => {
            (EndKind::StartFailed, exit_code, None, text::one_line(&message))
        }
    };
    let (kind, message) = match why {
        None | Some(Why::Stale) => (own_kind, own_message),
        Some(Why::Cancel) => (EndKind::Cancelled, "stopped on request".to_owned()),
        Some(Why::Timeout) => (EndKind::TimedOut, "stopped at its time-out".to_owned()),
        Some(Why::Lease) => (
            EndKind::LeaseLost,
            "stopped because the worker lost contact".to_owned(),
        ),
        Some(Why::Leaving) => (
            EndKind::LeaseLost,
            "stopped because the worker was told to end".to_owned(),
        ),
    };
    AttemptResult {
        key,
        kind,
        exit_code,
        signal,
        message,
        started_at_ms,
        ended_at_ms,
        output_end: 0,
    }
}

#[cfg(test)]
mod tests;
