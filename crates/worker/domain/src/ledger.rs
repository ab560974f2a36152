//! Everything that the worker remembers about attempts: held ones, acknowledged ones, and those it will never start.
//!
//! Invariants: at most `slots` attempts have a process; a repeated Assign never starts a second one; an attempt whose
//! result is not acknowledged is never forgotten (a stale one has no result); an acknowledged one is remembered until
//! a beat that was sent later is answered; the last [`REFUSED_KEPT`] never-started ones are remembered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hodei_shared::ids::AttemptKey;

use crate::assignment::Assignment;
use crate::attempt::{Attempt, AttemptResult, Event, ProcessEnd, Refusal, State, Why};
use crate::frame::{HeldState, HeldVerdict, StopKind};
use crate::session::BeatId;

/// How many never-started attempts are remembered, so that a late Assign does not start one of them.
pub const REFUSED_KEPT: usize = 4096;

/// What is to be done after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start the process.
    Spawn(Arc<Assignment>),
    /// Tell the attempt's processes to end, and kill them after its grace.
    Terminate(AttemptKey),
    /// Tell the server that the process runs since this wall time.
    ReportRunning(AttemptKey, i64),
    /// Tell the server how the attempt ended.
    ReportResult(AttemptResult),
    /// Tell the server that the attempt was not started and never will be.
    ReportNeverStarted(AttemptKey, String),
    /// Nobody waits for the attempt's output.
    DropOutput(AttemptKey),
}

#[derive(Debug, Clone)]
struct Acknowledged {
    result: AttemptResult,
    /// The last beat that was sent before the acknowledgement came.
    after: Option<BeatId>,
}

/// The worker's memory of attempts.
#[derive(Debug, Clone)]
pub struct Ledger {
    slots: usize,
    draining: bool,
    live: BTreeMap<AttemptKey, Attempt>,
    waiting: VecDeque<AttemptKey>,
    busy: usize,
    acknowledged: BTreeMap<AttemptKey, Acknowledged>,
    refused: BTreeMap<AttemptKey, String>,
    refused_order: VecDeque<AttemptKey>,
}

impl Ledger {
    /// An empty ledger of a worker with room for `slots` jobs at once.
    pub fn new(slots: u32) -> Self {
        Self {
            slots: slots.max(1) as usize,
            draining: false,
            live: BTreeMap::new(),
            waiting: VecDeque::new(),
            busy: 0,
            acknowledged: BTreeMap::new(),
            refused: BTreeMap::new(),
            refused_order: VecDeque::new(),
        }
    }

    /// Takes no more attempts from now on; those it holds go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether it takes no more attempts.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether no attempt is held whose result is not acknowledged.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether an attempt waits for a slot or has a process.
    pub fn has_work(&self) -> bool {
        self.busy > 0 || !self.waiting.is_empty()
    }

    /// A held attempt.
    pub fn get(&self, key: AttemptKey) -> Option<&Attempt> {
        self.live.get(&key)
    }

    /// Held attempts in the order of their keys, for a Hello.
    pub fn held(&self) -> impl Iterator<Item = (AttemptKey, HeldState)> {
        self.live
            .iter()
            .filter_map(|(key, attempt)| Some((*key, attempt.held()?)))
    }

    /// Results that nobody has acknowledged, for a new session.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &AttemptResult> {
        self.live.values().filter_map(|attempt| match attempt.state() {
            State::Ended(result) => Some(result),
            _ => None,
        })
    }

    /// Attempts that wait for a slot, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Assignment>> {
        self.waiting
            .iter()
            .filter_map(|key| self.live.get(key))
            .map(Attempt::assignment)
    }

    /// The server assigned an attempt, perhaps once more.
    pub fn assign(&mut self, assignment: Assignment) -> Vec<Effect> {
        let key = assignment.key;
        if let Some(attempt) = self.live.get_mut(&key) {
            return attempt.on(Event::AssignedAgain).unwrap_or_default();
        }
        if let Some(acknowledged) = self.acknowledged.get(&key) {
            return vec![Effect::ReportResult(acknowledged.result.clone())];
        }
        if let Some(message) = self.refused.get(&key) {
            return vec![Effect::ReportNeverStarted(key, message.clone())];
        }
        if self.draining {
            return vec![self.refuse(key, "the worker takes no more jobs")];
        }
        self.live.insert(key, Attempt::new(assignment));
        self.waiting.push_back(key);
        self.fill_slots()
    }

    /// The process of `key` runs since the wall time `at_ms`.
    ///
    /// # Errors
    /// [`Refusal`] if it was not being started.
    pub fn spawned(&mut self, key: AttemptKey, at_ms: i64) -> Result<Vec<Effect>, Refusal> {
        self.apply(key, Event::Spawned(at_ms))
    }

    /// The process of `key` ended, or could not be started; its slot is free.
    ///
    /// # Errors
    /// [`Refusal`] if it had no process.
    pub fn exited(&mut self, key: AttemptKey, end: ProcessEnd, at_ms: i64) -> Result<Vec<Effect>, Refusal> {
        self.apply(key, Event::Exited(end, at_ms))
    }

    /// The worker itself could not start `key`, and never will.
    ///
    /// # Errors
    /// [`Refusal`] if it was not being started.
    pub fn unstartable(&mut self, key: AttemptKey, message: String) -> Result<Vec<Effect>, Refusal> {
        self.apply(key, Event::Unstartable(message))
    }

    /// The process of `key` had ended by itself before a stop reached it; its slot is free.
    ///
    /// # Errors
    /// [`Refusal`] if it had no process.
    pub fn exited_by_itself(
        &mut self,
        key: AttemptKey,
        end: ProcessEnd,
        at_ms: i64,
    ) -> Result<Vec<Effect>, Refusal> {
        self.apply(key, Event::ExitedByItself(end, at_ms))
    }

    /// All output of `key` has been read, up to `output_end`.
    ///
    /// # Errors
    /// [`Refusal`] if its process has not ended.
    pub fn drained(&mut self, key: AttemptKey, output_end: u64) -> Result<Vec<Effect>, Refusal> {
        self.apply(key, Event::Drained(output_end))
    }

    /// The server wants `key` to end. An unknown one is remembered, so that an Assign that comes later starts nothing.
    pub fn stop(&mut self, key: AttemptKey, kind: StopKind) -> Vec<Effect> {
        let why = match kind {
            StopKind::Cancel => Why::Cancel,
            StopKind::Stale => Why::Stale,
        };
        if self.live.contains_key(&key) {
            return self.stop_held(key, why);
        }
        if let Some(acknowledged) = self.acknowledged.get(&key) {
            return match kind {
                StopKind::Cancel => vec![Effect::ReportResult(acknowledged.result.clone())],
                StopKind::Stale => vec![Effect::DropOutput(key)],
            };
        }
        if let Some(message) = self.refused.get(&key) {
            return vec![Effect::ReportNeverStarted(key, message.clone())];
        }
        vec![self.refuse(key, "stopped before it was assigned")]
    }

    /// A held attempt has to end for a reason of the worker's own. Unknown ones: nothing.
    pub fn stop_held(&mut self, key: AttemptKey, why: Why) -> Vec<Effect> {
        self.apply(key, Event::Stop(why)).unwrap_or_default()
    }

    /// The server answered the result of `key`; `last_beat` is the last beat that was sent. Idempotent.
    pub fn answered(&mut self, key: AttemptKey, last_beat: Option<BeatId>) {
        let ended = matches!(self.live.get(&key).map(Attempt::state), Some(State::Ended(_)));
        if !ended {
            return;
        }
        if let Some(attempt) = self.live.remove(&key)
            && let State::Ended(result) = attempt.state()
        {
            let acknowledged = Acknowledged {
                result: result.clone(),
                after: last_beat,
            };
            self.acknowledged.insert(key, acknowledged);
        }
    }

    /// A beat was answered: what was acknowledged before it was sent is forgotten.
    pub fn beat_answered(&mut self, beat: BeatId) {
        self.acknowledged
            .retain(|_, acknowledged| acknowledged.after >= Some(beat));
    }

    /// The server's word on a held attempt of the Hello.
    pub fn hello_answered(
        &mut self,
        key: AttemptKey,
        verdict: HeldVerdict,
        last_beat: Option<BeatId>,
    ) -> Vec<Effect> {
        match verdict {
            HeldVerdict::Continue => Vec::new(),
            HeldVerdict::Stop => self.stop_held(key, Why::Cancel),
            HeldVerdict::Recorded => {
                self.answered(key, last_beat);
                self.stop_held(key, Why::Stale)
            }
        }
    }

    /// Checks the invariants that span attempts.
    ///
    /// # Errors
    /// A sentence about the first one that does not hold.
    pub fn check(&self) -> Result<(), String> {
        let busy = self
            .live
            .values()
            .filter(|attempt| attempt.occupies_slot())
            .count();
        if busy != self.busy || busy > self.slots {
            return Err(format!(
                "{busy} attempts have a process, {} are counted, {} fit",
                self.busy, self.slots
            ));
        }
        let waiting = self
            .live
            .values()
            .filter(|a| *a.state() == State::Accepted)
            .count();
        if waiting != self.waiting.len() {
            return Err(format!(
                "{waiting} attempts wait, {} are queued",
                self.waiting.len()
            ));
        }
        let twice = self
            .live
            .keys()
            .find(|key| self.acknowledged.contains_key(key) || self.refused.contains_key(key));
        match twice {
            Some(key) => Err(format!("attempt {key} is held and over")),
            None => Ok(()),
        }
    }

    fn apply(&mut self, key: AttemptKey, event: Event) -> Result<Vec<Effect>, Refusal> {
        let Some(attempt) = self.live.get_mut(&key) else {
            return Ok(Vec::new());
        };
        let was_busy = attempt.occupies_slot();
        let was_waiting = *attempt.state() == State::Accepted;
        let mut effects = attempt.on(event)?;
        if was_busy && !attempt.occupies_slot() {
            self.busy -= 1;
        }
        let gone = *attempt.state() == State::Gone;
        if gone {
            self.live.remove(&key);
        }
        if was_waiting && gone {
            self.waiting.retain(|waiting| *waiting != key);
        }
        for effect in &effects {
            if let Effect::ReportNeverStarted(key, message) = effect {
                remember(&mut self.refused, &mut self.refused_order, *key, message);
            }
        }
        effects.extend(self.fill_slots());
        Ok(effects)
    }

    fn fill_slots(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while self.busy < self.slots {
            let Some(key) = self.waiting.pop_front() else {
                break;
            };
            if let Some(attempt) = self.live.get_mut(&key)
                && let Ok(started) = attempt.on(Event::Start)
            {
                self.busy += 1;
                effects.extend(started);
            }
        }
        effects
    }

    fn refuse(&mut self, key: AttemptKey, message: &str) -> Effect {
        remember(&mut self.refused, &mut self.refused_order, key, message);
        Effect::ReportNeverStarted(key, message.to_owned())
    }
}

fn remember(
    refused: &mut BTreeMap<AttemptKey, String>,
    order: &mut VecDeque<AttemptKey>,
    key: AttemptKey,
    message: &str,
) {
    if refused.insert(key, message.to_owned()).is_none() {
        order.push_back(key);
    }
    if order.len() > REFUSED_KEPT
        && let Some(oldest) = order.pop_front()
    {
        refused.remove(&oldest);
    }
}

#[cfg(test)]
mod tests;
