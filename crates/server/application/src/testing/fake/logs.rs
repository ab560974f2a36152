//! Output.

use async_trait::async_trait;
use hodei_shared::ids::{AttemptKey, ObjectId};
use hodei_shared::offsets::Piece;

use super::{FakeLog, FakeStore, State};
use crate::ports::StoreError;
use crate::ports::jobs::FIRST_RANK;
use crate::ports::output::{
    AppendOutcome, BLOCK_MAX_AGE_MS, Block, Content, ENDED_TAIL_BYTES, LIVE_TAIL_BYTES, OutputAppend,
    OutputPage, OutputStore, Part,
};

impl FakeLog {
    fn tail(&self) -> impl Iterator<Item = &Piece> {
        self.parts.iter().filter_map(|part| match part {
            Part::Bytes(piece) => Some(piece),
            Part::Block(_) => None,
        })
    }

    fn tail_bytes(&self) -> u64 {
        self.tail().map(|piece| piece.data.len() as u64).sum()
    }

    /// Puts a block in the place of the pieces that it stands for; false if it stands for others.
    fn move_tail(&mut self, block: &Block) -> bool {
        let within = |part: &Part| (block.start..block.end()).contains(&part.start());
        let Some(first) = self.parts.iter().position(within) else {
            return false;
        };
        let count = self.parts.iter().filter(|part| within(part)).count();
        let replaced = &self.parts[first..first + count];
        let whole = replaced[0].start() == block.start
            && replaced[count - 1].end() == block.end()
            && replaced.iter().all(|part| matches!(part, Part::Bytes(_)));
        if whole {
            self.parts.splice(first..first + count, [Part::Block(*block)]);
        }
        whole
    }
}

impl State {
    pub(super) fn taken_end(&self, key: AttemptKey) -> u64 {
        self.logs.get(&key).map_or(0, |log| log.taken)
    }

    /// Bytes of a log from this position on are taken and not kept.
    fn room_end(&self, key: AttemptKey, job_limit: u64) -> u64 {
        let log = self.logs.get(&key);
        if let Some(log) = log.filter(|log| log.taken > log.kept) {
            return log.kept;
        }
        let of_job = self.logs.iter().filter(|(other, _)| other.job == key.job);
        let others = of_job.filter(|(other, _)| **other != key);
        let kept: u64 = others.map(|(_, log)| log.kept).sum();
        job_limit.saturating_sub(kept)
    }

    fn append_one(&mut self, batch: OutputAppend) -> AppendOutcome {
        let job = self.jobs.get(&batch.key.job);
        let attempt = job.and_then(|job| job.attempts.iter().find(|a| a.record.lease == batch.key.lease));
        let placed = attempt.filter(|_| batch.key.rank == FIRST_RANK);
        let Some(attempt) = placed.filter(|attempt| attempt.record.worker == batch.worker) else {
            return AppendOutcome::NotHolder;
        };
        let taken = self.taken_end(batch.key);
        let limit = match (&attempt.record.end, attempt.record.output.declared_end) {
            (None, _) => u64::MAX,
            (Some(_), declared_end) => declared_end.unwrap_or(0),
        };
        let room_end = self.room_end(batch.key, batch.job_limit);
        let expired = self.jobs[&batch.key.job].output_expired && self.logs.contains_key(&batch.key);
        if taken >= limit || expired {
            return AppendOutcome::Stale;
        }
        match batch.content {
            Content::Bytes(piece) => {
                assert!(piece.is_consistent(), "a piece whose runs and data differ");
                if piece.start <= taken
                    && let Some(fresh) = piece.from_position(taken)
                    && let Some(fresh) = fresh.until_position(limit)
                {
                    let log = self.logs.entry(batch.key).or_default();
                    log.messages += 1;
                    log.taken = fresh.end();
                    if let Some(kept) = fresh.until_position(room_end) {
                        log.lines += crate::output::block::newlines(&kept.data);
                        log.kept = kept.end();
                        log.parts.push(Part::Bytes(kept));
                    }
                }
            }
            Content::Block(block) => {
                assert!(block.len > 0, "an empty block");
                let end = limit.min(room_end);
                if block.start != taken || block.end() > end || !self.is_young(&block) {
                    return AppendOutcome::Moved;
                }
                let log = self.logs.entry(batch.key).or_default();
                log.messages += block.messages;
                log.taken = block.end();
                log.kept = block.end();
                log.lines += block.lines;
                log.parts.push(Part::Block(block));
                *self.objects.entry(block.object).or_default() += 1;
            }
        }
        AppendOutcome::Stored(self.taken_end(batch.key))
    }

    fn is_young(&self, block: &Block) -> bool {
        self.now_ms - block.object.made_at_ms() <= BLOCK_MAX_AGE_MS
    }

    fn move_tail(&mut self, key: AttemptKey, block: Block) -> bool {
        let young = self.is_young(&block);
        let log = self.logs.get_mut(&key).filter(|_| young);
        let moved = log.is_some_and(|log| log.move_tail(&block));
        if moved {
            *self.objects.entry(block.object).or_default() += 1;
        }
        moved
    }

    fn page(&self, key: AttemptKey, position: u64, max_bytes: usize) -> OutputPage {
        let mut page = OutputPage {
            parts: Vec::new(),
            stored_end: self.logs.get(&key).map_or(0, |log| log.kept),
        };
        let mut bytes = 0;
        for part in self.logs.get(&key).map_or(&[][..], |log| &log.parts) {
            if bytes >= max_bytes.max(1) as u64 {
                break;
            }
            if part.end() > position {
                bytes += part.end() - part.start().max(position);
                page.parts.extend(match part.clone() {
                    Part::Bytes(piece) => piece.from_position(position).map(Part::Bytes),
                    block @ Part::Block(_) => Some(block),
                });
            }
        }
        page
    }

    fn large_tails(&self) -> Vec<AttemptKey> {
        let ended = |key: &AttemptKey| {
            let attempts = self.jobs.get(&key.job).map(|job| &job.attempts);
            let attempt = attempts.and_then(|all| all.iter().find(|a| a.record.lease == key.lease));
            attempt.is_some_and(|attempt| attempt.record.end.is_some())
        };
        let mut large: Vec<(u64, AttemptKey)> = self
            .logs
            .iter()
            .map(|(key, log)| (log.tail_bytes(), *key))
            .filter(|(bytes, key)| *bytes >= LIVE_TAIL_BYTES || (*bytes > ENDED_TAIL_BYTES && ended(key)))
            .collect();
        large.sort_by(|a, b| b.cmp(a));
        large.into_iter().map(|(_, key)| key).collect()
    }
}

#[async_trait]
impl OutputStore for FakeStore {
    async fn append(&self, batches: Vec<OutputAppend>) -> Result<Vec<AppendOutcome>, StoreError> {
        self.write(|state| batches.into_iter().map(|batch| state.append_one(batch)).collect())
    }

    async fn read(&self, key: AttemptKey, position: u64, max_bytes: usize) -> Result<OutputPage, StoreError> {
        Ok(FakeStore::read(self, |state| {
            state.page(key, position, max_bytes)
        }))
    }

    async fn large_tails(&self, limit: usize) -> Result<Vec<AttemptKey>, StoreError> {
        let mut large = FakeStore::read(self, State::large_tails);
        large.truncate(limit);
        Ok(large)
    }

    async fn tail(
        &self,
        key: AttemptKey,
        max_bytes: usize,
        max_pieces: usize,
    ) -> Result<Vec<Piece>, StoreError> {
        Ok(FakeStore::read(self, |state| {
            let mut bytes = 0;
            let mut pieces = Vec::new();
            for piece in state.logs.get(&key).into_iter().flat_map(FakeLog::tail) {
                if bytes >= max_bytes || pieces.len() == max_pieces {
                    break;
                }
                bytes += piece.data.len();
                pieces.push(piece.clone());
            }
            pieces
        }))
    }

    async fn move_tails(&self, blocks: Vec<(AttemptKey, Block)>) -> Result<Vec<bool>, StoreError> {
        self.write(|state| {
            let moved = |(key, block)| state.move_tail(key, block);
            blocks.into_iter().map(moved).collect()
        })
    }

    async fn unused_objects(&self, limit: usize) -> Result<Vec<ObjectId>, StoreError> {
        Ok(FakeStore::read(self, |state| {
            let unused = state.objects.iter().filter(|(_, blocks)| **blocks == 0);
            unused.map(|(id, _)| *id).take(limit).collect()
        }))
    }

    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<(), StoreError> {
        self.write(|state| {
            for id in ids {
                if state.objects.get(&id) == Some(&0) {
                    state.objects.remove(&id);
                }
            }
        })
    }

    async fn unknown_objects(&self, ids: Vec<ObjectId>) -> Result<Vec<ObjectId>, StoreError> {
        Ok(FakeStore::read(self, |state| {
            let unknown = ids.into_iter().filter(|id| !state.objects.contains_key(id));
            unknown.collect()
        }))
    }
}
