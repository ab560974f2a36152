//! What the worker does because time has passed, and when that is next.

use std::sync::Arc;
use std::time::Duration;

use hodei_shared::ids::AttemptKey;
use hodei_worker_domain::attempt::Why;
use hodei_worker_domain::frame::WorkerFrame;
use hodei_worker_domain::lease::{self, Deadlines};

use super::core::{Active, Core};
use super::{Event, Exit};
use crate::dial::first_answer;
use crate::ports::{CertificateLife, DialError, Signal};

/// How many beat intervals a server may keep silent.
const SILENT_BEATS: u32 = 3;
/// The least time that a server has for its Welcome.
const WELCOME_LIMIT: Duration = Duration::from_secs(10);
/// How long a stopped worker waits for the answers to its last results.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long a drained worker waits for the acknowledgement of its last output.
const LAST_OUTPUT: Duration = Duration::from_secs(60);
const RENEW_AGAIN: Duration = Duration::from_secs(5);
/// After so many refusals in a row the worker gives up.
const REFUSALS: u32 = 5;

impl Core {
    /// Does all that is due.
    pub(super) fn tick(&mut self) {
        let now = self.now();
        self.check_attempts(now);
        if self
            .session
            .waiting_since()
            .is_some_and(|since| since + self.silence() <= now)
            && self.dial_at.is_none()
        {
            self.lose_link("the server keeps silent");
        }
        if self.session.is_welcomed() && self.beat_at <= now {
            if let Some(beat) = self.session.beat(now) {
                self.send(WorkerFrame::Beat(beat.n));
            }
            self.beat_at = now + self.beat_interval;
        }
        if self.renew_at.is_some_and(|at| at <= now) && !self.renewing {
            self.renew();
        }
        if self.dial_at.is_some_and(|at| at <= now) {
            self.dial();
        }
        let nothing_to_run = !self.ledger.has_work() && self.active.is_empty();
        if nothing_to_run && (self.stopping || self.ledger.is_draining()) {
            self.stop_by
                .get_or_insert(now + if self.stopping { LAST_ANSWERS } else { LAST_OUTPUT });
        }
    }

    fn silence(&self) -> Duration {
        (self.beat_interval * SILENT_BEATS).max(WELCOME_LIMIT)
    }

    /// When [`Core::tick`] has something to do next.
    pub(super) fn next_deadline(&self) -> Duration {
        let base = self.session.lease_base();
        let attempts = self.active.values().flat_map(|active| {
            let live = active.control.is_some() && !active.killed;
            let lease = live.then(|| lease_of(active, base)).flatten();
            let lease = lease.map(|at| {
                if active.kill_at.is_some() {
                    at.kill
                } else {
                    at.term
                }
            });
            let timeout = active.timeout_at.filter(|_| active.kill_at.is_none());
            [lease, timeout.filter(|_| live), active.kill_at.filter(|_| live)]
        });
        let waiting = self
            .ledger
            .waiting()
            .filter_map(|assignment| base.map(|base| Some(lease::deadlines(base, assignment).term)));
        let beat = self.session.is_welcomed().then_some(self.beat_at);
        let silent = self.session.waiting_since().map(|since| since + self.silence());
        let silent = silent.filter(|_| self.dial_at.is_none());
        let renew = self.renew_at.filter(|_| !self.renewing);
        [beat, silent, renew, self.dial_at, self.leave_at(), self.stop_by]
            .into_iter()
            .chain(attempts)
            .chain(waiting)
            .flatten()
            .min()
            .unwrap_or(self.now() + Duration::from_secs(3600))
    }

    fn check_attempts(&mut self, now: Duration) {
        let base = self.session.lease_base();
        let mut stops: Vec<(AttemptKey, Why)> = Vec::new();
        for (key, active) in &mut self.active {
            let Some(control) = &active.control else { continue };
            let lease = lease_of(active, base);
            if active.kill_at.is_none() {
                if active.timeout_at.is_some_and(|at| at <= now) {
                    stops.push((*key, Why::Timeout));
                } else if lease.is_some_and(|lease| lease.term <= now) {
                    stops.push((*key, Why::Lease));
                }
            }
            let over = active.kill_at.is_some_and(|at| at <= now);
            if !active.killed && (over || lease.is_some_and(|lease| lease.kill <= now)) {
                active.killed = true;
                control.signal(Signal::Kill);
            }
        }
        let waiting = self
            .ledger
            .waiting()
            .filter(|assignment| base.is_some_and(|base| lease::deadlines(base, assignment).term <= now));
        stops.extend(waiting.map(|assignment| (assignment.key, Why::Lease)));
        for (key, why) in stops {
            let effects = self.ledger.stop_held(key, why);
            self.perform(effects);
        }
    }

    /// Why the worker ends now, if it does.
    pub(super) fn exit(&self) -> Option<Exit> {
        let now = self.now();
        if self.refusals >= REFUSALS {
            return Some(Exit::Refused(self.last_refusal.clone()));
        }
        let quiet = self.ledger.is_empty() && self.active.is_empty();
        let over = self.stop_by.is_some_and(|at| at <= now);
        let done = quiet && (self.outputs.is_empty() || over);
        if self.stopping && (done || over) {
            return Some(Exit::Stopped);
        }
        if self.ledger.is_draining() && done {
            return Some(Exit::Drained);
        }
        self.leave_at().is_some_and(|at| at <= now).then_some(Exit::Left)
    }

    fn leave_at(&self) -> Option<Duration> {
        if self.session.is_welcomed() {
            return None;
        }
        if self.config.jobs_end_with_server {
            return Some(self.last_contact + self.config.leave_after);
        }
        if self.ledger.has_work() || !self.active.is_empty() {
            return None;
        }
        let stay = if self.ledger.is_empty() { 1 } else { 12 };
        Some(self.last_contact + self.config.leave_after * stay)
    }

    /// Renewal at half of the certificate's life, or at half of what is left if that is sooner.
    pub(super) fn plan_renewal(&mut self, life: CertificateLife) {
        let whole = (life.not_after_ms - life.not_before_ms).max(0);
        let server_now = self.ports.clock.now_ms() + self.server_ahead_ms;
        let left = (life.not_after_ms - server_now).clamp(whole / 4, whole);
        let wait = Duration::from_millis((left / 2).unsigned_abs()).max(Duration::from_secs(1));
        self.renew_at = Some(self.now() + wait);
    }

    fn renew(&mut self) {
        self.renewing = true;
        let endpoints = self.servers.in_order(&*self.ports.rng);
        let (clock, connector) = (Arc::clone(&self.ports.clock), Arc::clone(&self.ports.connector));
        let events = self.events();
        let task = async move {
            let outcome = first_answer(&*clock, endpoints, |endpoint| {
                let connector = Arc::clone(&connector);
                async move { connector.renew(&endpoint).await }
            })
            .await;
            // Fails only when the worker is gone.
            let _gone = events.send(Event::Renewed(outcome)).await;
        };
        self.ports.spawner.spawn("renew", Box::pin(task));
    }

    pub(super) fn on_renewed(&mut self, outcome: Result<CertificateLife, DialError>) {
        self.renewing = false;
        let now = self.now();
        match outcome {
            Ok(life) => {
                self.plan_renewal(life);
                self.lose_link("the certificate is renewed");
                self.dial_at = Some(now);
            }
            Err(error) => {
                tracing::warn!(%error, "renewal failed");
                if let DialError::Refused(reason) = error {
                    self.on_refused(reason);
                }
                self.renew_at = Some(now + RENEW_AGAIN);
            }
        }
    }

    /// A server refused the worker: perhaps its certificate is too old, so it is renewed at once.
    pub(super) fn on_refused(&mut self, reason: String) {
        self.refusals += 1;
        self.last_refusal = reason;
        self.renew_at = Some(self.now());
    }
}

fn lease_of(active: &Active, base: Option<Duration>) -> Option<Deadlines> {
    let base = base.filter(|_| active.assignment.repeatable)?;
    Some(lease::deadlines(base, &active.assignment))
}
