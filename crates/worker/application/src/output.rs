//! Output on its way to the server: one log per attempt, cut into batches.
//!
//! Invariants: `acked ≤ sent ≤ end`; at most [`CREDIT`] bytes of an attempt are out without an answer; nothing is
//! forgotten before it is acknowledged or its lease is stale; a full log stops its own job's pipes and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hodei_shared::ids::AttemptKey;
use hodei_shared::ports::Clock;
use hodei_worker_domain::frame::{OutputAnswer, OutputBatch, OutputVerdict};
use tokio::sync::Notify;

use crate::ports::{Chunk, Spool};

/// The most bytes in a batch.
pub(crate) const BATCH: u64 = 256 << 10;
/// The most bytes of one attempt that are out without an answer.
pub(crate) const CREDIT: u64 = 1 << 20;
const SHORT_LINGER: Duration = Duration::from_millis(20);
const LONG_LINGER: Duration = Duration::from_millis(200);
/// A job that was silent for this long is not chatty any more.
const CALM: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The output of one attempt.
pub(crate) struct Log {
    key: AttemptKey,
    spool: Arc<dyn Spool>,
    limit: u64,
    state: Mutex<State>,
    room: Notify,
}

struct State {
    end: u64,
    sent: u64,
    acked: u64,
    closed: bool,
    stale: bool,
    last_sent: Option<Duration>,
    linger: Duration,
    not_before: Duration,
    retry: Duration,
}

/// When a log has something to send.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Now { from: u64, max: u64 },
    At(Duration),
    Later,
}

impl State {
    fn due(&self, now: Duration) -> Due {
        let (available, out) = (self.end - self.sent, self.sent - self.acked);
        if self.stale || available == 0 || out >= CREDIT {
            return Due::Later;
        }
        if now < self.not_before {
            return Due::At(self.not_before);
        }
        let batch = available.min(BATCH);
        if out + batch > CREDIT {
            return Due::Later;
        }
        let send = Due::Now {
            from: self.sent,
            max: batch,
        };
        if self.closed || available >= BATCH {
            return send;
        }
        if out > 0 {
            return Due::Later;
        }
        match self.last_sent.map(|last| last + self.linger) {
            Some(at) if now < at => Due::At(at),
            _ => send,
        }
    }

    fn sent(&mut self, end: u64, now: Duration) {
        self.sent = self.sent.max(end);
        if let Some(last) = self.last_sent {
            let gap = now.saturating_sub(last);
            if gap > CALM {
                self.linger = SHORT_LINGER;
            } else if gap <= self.linger * 2 {
                self.linger = (self.linger * 2).min(LONG_LINGER);
            }
        }
        self.last_sent = Some(now);
    }

    fn is_done(&self) -> bool {
        self.stale || (self.closed && self.acked == self.end)
    }
}

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Position after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.state().end
    }

    /// Whether no more may be read before the server has taken some.
    pub(crate) fn is_full(&self) -> bool {
        let state = self.state();
        !state.stale && state.end - state.acked >= self.limit
    }

    /// Ends when the log is perhaps no longer full. Cancel-safe.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }
}

/// The output of all attempts.
pub(crate) struct Outputs {
    logs: Mutex<BTreeMap<AttemptKey, Arc<Log>>>,
    wake: Notify,
    emptied: Notify,
    clock: Arc<dyn Clock>,
}

impl Outputs {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            logs: Mutex::new(BTreeMap::new()),
            wake: Notify::new(),
            emptied: Notify::new(),
            clock,
        }
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<AttemptKey, Arc<Log>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A log for a new attempt, of which at most `limit` bytes are kept.
    pub(crate) fn open(&self, key: AttemptKey, spool: Arc<dyn Spool>, limit: u64) -> Arc<Log> {
        let log = Arc::new(Log {
            key,
            spool,
            limit: limit.max(CREDIT),
            state: Mutex::new(State {
                end: 0,
                sent: 0,
                acked: 0,
                closed: false,
                stale: false,
                last_sent: None,
                linger: SHORT_LINGER,
                not_before: Duration::ZERO,
                retry: FIRST_RETRY,
            }),
            room: Notify::new(),
        });
        self.logs().insert(key, Arc::clone(&log));
        log
    }

    /// Whether everything that was written is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.logs().is_empty()
    }

    /// Ends when the last log has gone since the last call. Cancel-safe.
    pub(crate) async fn emptied(&self) {
        self.emptied.notified().await;
    }

    fn forget(&self, key: AttemptKey) -> Option<Arc<Log>> {
        let mut logs = self.logs();
        let log = logs.remove(&key);
        if logs.is_empty() {
            self.emptied.notify_one();
        }
        log
    }

    /// Keeps a chunk, trying again while the spool can not: the job waits meanwhile.
    pub(crate) async fn append(&self, log: &Log, chunk: Chunk) {
        let len = chunk.bytes.len() as u64;
        let mut wait = FIRST_RETRY;
        loop {
            if log.state().stale {
                log.state().end += len;
                return;
            }
            match log.spool.append(chunk.clone()).await {
                Ok(end) => {
                    log.state().end = end;
                    self.wake.notify_one();
                    return;
                }
                Err(error) => {
                    tracing::warn!(attempt = %log.key, %error, "output waits for room");
                    self.clock.sleep(wait).await;
                    wait = (wait * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// No more output comes; answers the position after its last byte.
    pub(crate) fn close(&self, log: &Log) -> u64 {
        let (end, done) = {
            let mut state = log.state();
            state.closed = true;
            (state.end, state.is_done())
        };
        if done {
            self.forget(log.key);
        }
        self.wake.notify_one();
        end
    }

    /// Nobody waits for the output of `key`.
    pub(crate) async fn drop_log(&self, key: AttemptKey) {
        if let Some(log) = self.forget(key) {
            let end = {
                let mut state = log.state();
                state.stale = true;
                state.end
            };
            log.spool.trim(end).await;
            log.room.notify_one();
        }
    }

    /// A new stream: what is not acknowledged is sent again.
    pub(crate) fn restart(&self) {
        for log in self.logs().values() {
            let mut state = log.state();
            state.sent = state.acked;
            state.not_before = Duration::ZERO;
        }
        self.wake.notify_one();
    }

    /// The server's answer to a batch.
    pub(crate) async fn on_answer(&self, answer: OutputAnswer) {
        let log = self.logs().get(&answer.key).cloned();
        let Some(log) = log else { return };
        if answer.verdict == OutputVerdict::Stale {
            self.drop_log(answer.key).await;
            return;
        }
        let now = self.clock.monotonic();
        let (acked, done) = {
            let mut state = log.state();
            state.acked = state.acked.max(answer.end.min(state.end));
            state.sent = state.sent.max(state.acked);
            if answer.verdict == OutputVerdict::Stored {
                state.retry = FIRST_RETRY;
            } else if now >= state.not_before {
                state.sent = state.acked;
                state.not_before = now + state.retry;
                state.retry = (state.retry * 2).min(LAST_RETRY);
            }
            (state.acked, state.is_done())
        };
        log.spool.trim(acked).await;
        log.room.notify_one();
        if done {
            self.forget(answer.key);
        }
        self.wake.notify_one();
    }

    /// The batches that are due, at most one per attempt, and when to look again.
    pub(crate) async fn due(&self) -> (Vec<OutputBatch>, Option<Duration>) {
        let now = self.clock.monotonic();
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        for log in self.logs().values() {
            match log.state().due(now) {
                Due::Now { from, max } => due.push((Arc::clone(log), from, max)),
                Due::At(at) => next = Some(next.map_or(at, |next| next.min(at))),
                Due::Later => {}
            }
        }
        let mut batches = Vec::new();
        for (log, from, max) in due {
            match log.spool.read(from, max as usize).await {
                Ok(piece) if !piece.data.is_empty() => {
                    log.state().sent(piece.end(), now);
                    batches.push(OutputBatch { key: log.key, piece });
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(attempt = %log.key, %error, "output can not be read now");
                    let at = now + LAST_RETRY;
                    log.state().not_before = at;
                    next = Some(next.map_or(at, |next| next.min(at)));
                }
            }
        }
        (batches, next)
    }

    /// Ends when there may be something new to send. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }
}
