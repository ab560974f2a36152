//! Readers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hodei_server_domain::access::{Permission, Principal};
use hodei_shared::ids::{AttemptKey, JobId};
use hodei_shared::offsets::Piece;
use tokio::sync::watch as hint;

use super::block;
use crate::jobs::{changed, record, visible};
use crate::platform::Platform;
use crate::ports::StoreError;
use crate::ports::jobs::{AttemptRecord, FIRST_RANK, JobRecord};
use crate::ports::objects::OutputObjects;
use crate::ports::output::{OutputStore, Part};
use crate::refused::Refused;

/// How much a reader takes from the store at once.
const PAGE_BYTES: usize = 256 << 10;
/// How long a reader waits for output that was announced and has not come.
const LATE_OUTPUT: Duration = Duration::from_secs(5);

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The next bytes.
    Piece(Piece),
    /// There is no more; the last one.
    End {
        /// Position after the last byte.
        position: u64,
        /// Nothing is missing and nothing will follow.
        complete: bool,
        /// The attempt has ended.
        attempt_ended: bool,
    },
}

/// Opens the output of one attempt (0: the last there is) at `position`. With `follow` the reader goes on until
/// the attempt has ended; a job without an attempt is waited for.
///
/// # Errors
/// [`Refused::NotFound`] if there is no such job or attempt.
pub async fn open(
    platform: Arc<Platform>,
    principal: &Principal,
    job: JobId,
    attempt: u32,
    position: u64,
    follow: bool,
) -> Result<Reader, Refused> {
    let mut hints = platform.events.changes_of(job);
    hints.mark_unchanged();
    let mut found = visible(&platform, principal, Permission::ReadOutput, job).await?;
    loop {
        let chosen = choose(&found, attempt).map(|a| (a.number, a.lease));
        let may_come = follow && !found.job.is_ended() && attempt <= found.job.attempt + 1;
        if chosen.is_none() && attempt > 0 && !may_come {
            return Err(Refused::NotFound {
                kind: "attempt",
                id: format!("{attempt} of job {job}"),
            });
        }
        if chosen.is_some() || !may_come {
            let key = chosen.map(|(_, lease)| AttemptKey {
                job,
                lease,
                rank: FIRST_RANK,
            });
            let number = chosen.map_or(0, |(number, _)| number);
            let parts = VecDeque::new();
            return Ok(Reader {
                platform,
                hints,
                key,
                number,
                position,
                follow,
                parts,
                late_since: None,
            });
        }
        if !changed(&platform, &mut hints).await {
            return Err(Refused::Unavailable("the server is stopping".to_owned()));
        }
        found = record(&platform, job).await?;
    }
}

fn choose(job: &JobRecord, attempt: u32) -> Option<&AttemptRecord> {
    let seen = |a: &&AttemptRecord| !a.never_started && (attempt == 0 || a.number == attempt);
    job.attempts.iter().rev().find(seen)
}

/// How an attempt stands for a reader.
struct AttemptState {
    ended: bool,
    declared_end: Option<u64>,
    /// What is missing will not come.
    cut: bool,
}

/// The output of one attempt from a position on.
pub struct Reader {
    platform: Arc<Platform>,
    hints: hint::Receiver<u64>,
    key: Option<AttemptKey>,
    number: u32,
    position: u64,
    follow: bool,
    parts: VecDeque<Part>,
    late_since: Option<Duration>,
}

impl Reader {
    /// The attempt's number; 0 if the job has none.
    pub fn attempt(&self) -> u32 {
        self.number
    }

    /// The next bytes, or the end. Cancel-safe.
    ///
    /// # Errors
    /// A store error as such; the reader can go on after it.
    pub async fn next(&mut self) -> Result<Read, Refused> {
        if self.key.is_none() {
            return Ok(Read::End {
                position: 0,
                complete: true,
                attempt_ended: true,
            });
        }
        loop {
            if let Some(piece) = self.take().await? {
                self.position = piece.end();
                return Ok(Read::Piece(piece));
            }
            if self.fill().await? {
                continue;
            }
            let state = self.attempt_state().await?;
            // What came between the two looks: an attempt's last output is stored before its end is.
            if self.fill().await? {
                continue;
            }
            let complete = state.ended && state.declared_end.is_some_and(|end| self.position >= end);
            let waits = !state.ended || !state.cut && self.waits_for_late_output(state.declared_end);
            if !self.follow || complete || !waits {
                return Ok(Read::End {
                    position: self.position,
                    complete,
                    attempt_ended: state.ended,
                });
            }
            if !changed(&self.platform, &mut self.hints).await {
                return Err(Refused::Unavailable("the server is stopping".to_owned()));
            }
        }
    }

    /// Takes the next page from the store; false if there is nothing.
    async fn fill(&mut self) -> Result<bool, Refused> {
        let Some(key) = self.key else { return Ok(false) };
        self.parts = self
            .platform
            .output
            .read(key, self.position, PAGE_BYTES)
            .await?
            .parts
            .into();
        Ok(!self.parts.is_empty())
    }

    /// The next piece of the page that was taken.
    async fn take(&mut self) -> Result<Option<Piece>, Refused> {
        while let Some(part) = self.parts.front() {
            let loaded = load(&*self.platform.objects, part, self.position).await;
            // What can not be read is asked for again; it may have been moved or removed meanwhile.
            let piece = loaded.inspect_err(|_| self.parts.clear())?;
            self.parts.pop_front();
            if piece.is_some() {
                return Ok(piece);
            }
        }
        Ok(None)
    }

    /// How the attempt stands. A claim that never started is replaced by the next one with its number.
    async fn attempt_state(&mut self) -> Result<AttemptState, Refused> {
        let Some(key) = self.key else {
            return Ok(AttemptState {
                ended: true,
                declared_end: Some(0),
                cut: false,
            });
        };
        let job = record(&self.platform, key.job).await?;
        let held = job
            .attempts
            .iter()
            .find(|a| a.lease == key.lease && !a.never_started);
        match held.or_else(|| choose(&job, self.number)) {
            Some(attempt) => {
                self.key = Some(AttemptKey {
                    lease: attempt.lease,
                    ..key
                });
                let declared_end = attempt.output.declared_end;
                Ok(AttemptState {
                    ended: attempt.end.is_some(),
                    declared_end,
                    cut: attempt.output.truncated || attempt.output.expired,
                })
            }
            None => Ok(AttemptState {
                ended: job.job.is_ended(),
                declared_end: Some(0),
                cut: false,
            }),
        }
    }

    fn waits_for_late_output(&mut self, declared_end: Option<u64>) -> bool {
        if declared_end.is_none() {
            return false;
        }
        let now = self.platform.clock.monotonic();
        now - *self.late_since.get_or_insert(now) < LATE_OUTPUT
    }
}

/// The pieces of a log from `position` on, about `max_bytes` of them; empty at its end.
///
/// # Errors
/// A store error as such.
pub async fn pieces(
    store: &dyn OutputStore,
    objects: &dyn OutputObjects,
    key: AttemptKey,
    position: u64,
    max_bytes: usize,
) -> Result<Vec<Piece>, StoreError> {
    let mut pieces = Vec::new();
    for part in store.read(key, position, max_bytes).await?.parts {
        pieces.extend(load(objects, &part, position).await?);
    }
    Ok(pieces)
}

/// What a part has from `position` on.
async fn load(objects: &dyn OutputObjects, part: &Part, position: u64) -> Result<Option<Piece>, StoreError> {
    let piece = match part {
        Part::Bytes(piece) => piece.clone(),
        Part::Block(block) => block::load(objects, block).await?,
    };
    Ok(piece.from_position(position))
}
