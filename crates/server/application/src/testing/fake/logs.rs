//! Output.

use async_trait::async_trait;
use hodei_shared::ids::AttemptKey;

use super::{FakeStore, State};
use crate::ports::StoreError;
use crate::ports::jobs::FIRST_RANK;
use crate::ports::output::{AppendOutcome, OutputAppend, OutputPage, OutputStore};

impl State {
    pub(super) fn stored_end(&self, key: AttemptKey) -> u64 {
        let last = self.logs.get(&key).and_then(|log| log.pieces.last());
        last.map_or(0, hodei_shared::offsets::Piece::end)
    }

    fn append_one(&mut self, batch: OutputAppend) -> AppendOutcome {
        assert!(batch.piece.is_consistent(), "a piece whose runs and data differ");
        let job = self.jobs.get(&batch.key.job);
        let attempt = job.and_then(|job| job.attempts.iter().find(|a| a.record.lease == batch.key.lease));
        let placed = attempt.filter(|_| batch.key.rank == FIRST_RANK);
        let Some(attempt) = placed.filter(|attempt| attempt.record.worker == batch.worker) else {
            return AppendOutcome::NotHolder;
        };
        let stored = self.stored_end(batch.key);
        let limit = match (&attempt.record.end, attempt.record.output.declared_end) {
            (None, _) => u64::MAX,
            (Some(_), declared_end) => declared_end.unwrap_or(0),
        };
        if stored >= limit {
            return AppendOutcome::Stale;
        }
        if batch.piece.start <= stored
            && let Some(fresh) = batch.piece.from_position(stored)
            && let Some(fresh) = fresh.until_position(limit)
        {
            let log = self.logs.entry(batch.key).or_default();
            log.messages += 1;
            log.pieces.push(fresh);
        }
        AppendOutcome::Stored(self.stored_end(batch.key))
    }
}

#[async_trait]
impl OutputStore for FakeStore {
    async fn append(&self, batches: Vec<OutputAppend>) -> Result<Vec<AppendOutcome>, StoreError> {
        self.write(|state| batches.into_iter().map(|batch| state.append_one(batch)).collect())
    }

    async fn read(&self, key: AttemptKey, position: u64, max_bytes: usize) -> Result<OutputPage, StoreError> {
        Ok(FakeStore::read(self, |state| {
            let mut page = OutputPage {
                pieces: Vec::new(),
                stored_end: state.stored_end(key),
            };
            let stored = state.logs.get(&key).map_or(&[][..], |log| &log.pieces);
            let mut bytes = 0;
            for piece in stored {
                if bytes >= max_bytes.max(1) {
                    break;
                }
                if let Some(piece) = piece.clone().from_position(position) {
                    bytes += piece.data.len();
                    page.pieces.push(piece);
                }
            }
            page
        }))
    }
}
