//! Input.

use async_trait::async_trait;

use super::{FakeInput, FakeStore, State};
use crate::ports::StoreError;
use crate::ports::input::{InputAppend, InputOutcome, InputPage, InputRead, InputStore};
use crate::ports::jobs::{FIRST_RANK, NewJob};

impl State {
    /// Makes room for the input of a job that takes some.
    pub(super) fn open_input(&mut self, new: &NewJob) {
        if !new.spec.stdin.is_fed() {
            return;
        }
        let repeated = new.retry_of.and_then(|job| self.inputs.get(&job));
        let input = FakeInput {
            data: repeated.map(|input| input.data.clone()).unwrap_or_default(),
            complete: repeated.is_some(),
        };
        self.inputs.insert(new.id, input);
    }

    fn append_input(&mut self, part: InputAppend) -> InputOutcome {
        let Some(job) = self.jobs.get(&part.job) else {
            return InputOutcome::NoSuchJob;
        };
        let Some(input) = self.inputs.get_mut(&part.job) else {
            return InputOutcome::NotFed;
        };
        if job.job.is_ended() {
            return InputOutcome::JobEnded;
        }
        let end = input.data.len() as u64;
        let part_end = part.offset + part.data.len() as u64;
        if input.complete && part_end > end {
            return InputOutcome::AfterEnd;
        }
        if part.offset <= end {
            if part_end > part.limit {
                return InputOutcome::TooLarge;
            }
            let known = usize::try_from(end - part.offset).expect("an offset in memory");
            input.data.extend(part.data.get(known..).unwrap_or_default());
            input.complete |= part.eof && part_end >= end;
        }
        InputOutcome::Stored {
            end: input.data.len() as u64,
            complete: input.complete,
        }
    }

    fn read_input(&self, read: InputRead) -> InputPage {
        let job = self.jobs.get(&read.key.job);
        let attempt = job.and_then(|job| job.attempts.iter().find(|a| a.record.lease == read.key.lease));
        let placed = attempt.filter(|_| read.key.rank == FIRST_RANK);
        let Some(attempt) = placed.filter(|attempt| attempt.record.worker == read.worker) else {
            return InputPage::NotHolder;
        };
        if attempt.record.end.is_some() {
            return InputPage::Stale;
        }
        let Some(input) = self.inputs.get(&read.key.job) else {
            return InputPage::Data {
                data: Vec::new(),
                last: true,
            };
        };
        let rest = usize::try_from(read.offset)
            .ok()
            .and_then(|from| input.data.get(from..));
        let rest = rest.unwrap_or_default();
        let page = &rest[..rest.len().min(read.max_bytes)];
        InputPage::Data {
            data: page.to_vec(),
            last: input.complete && page.len() == rest.len(),
        }
    }
}

#[async_trait]
impl InputStore for FakeStore {
    async fn append_input(&self, parts: Vec<InputAppend>) -> Result<Vec<InputOutcome>, StoreError> {
        self.write(|state| parts.into_iter().map(|part| state.append_input(part)).collect())
    }

    async fn read_input(&self, read: InputRead) -> Result<InputPage, StoreError> {
        Ok(FakeStore::read(self, |state| state.read_input(read)))
    }
}
