//! Removing what is old.

use async_trait::async_trait;
use hodei_shared::ids::JobId;

use super::{FakeStore, State};
use crate::ports::StoreError;
use crate::ports::output::Part;
use crate::ports::retention::{Expiry, Retention};

impl State {
    fn expire(&mut self, expiry: Expiry, max_rows: usize) -> usize {
        let (before_ms, jobs) = match expiry {
            Expiry::Output { ended_before_ms } => (ended_before_ms, false),
            Expiry::Jobs { ended_before_ms } => (ended_before_ms, true),
            Expiry::Submissions { before_ms } => {
                let old = self.submissions.iter().filter(|(_, made)| made.at_ms < before_ms);
                let old: Vec<_> = old.map(|(key, _)| key.clone()).take(max_rows).collect();
                old.iter().for_each(|key| drop(self.submissions.remove(key)));
                return old.len();
            }
        };
        let old = self.jobs.iter().filter(|(_, job)| {
            job.ended_at_ms.is_some_and(|at| at < before_ms) && (jobs || !job.output_expired)
        });
        let mut old: Vec<(Option<i64>, JobId)> = old.map(|(id, job)| (job.ended_at_ms, *id)).collect();
        old.sort_unstable();
        let mut removed = 0;
        for (_, id) in old {
            while removed < max_rows && self.remove_part(id) {
                removed += 1;
            }
            if removed == max_rows {
                break;
            }
            removed += 1;
            if jobs {
                self.jobs.remove(&id);
                self.ended.remove(&id);
                self.inputs.remove(&id);
                self.logs.retain(|key, _| key.job != id);
                self.events.retain(|record| record.event.job() != Some(id));
            } else if let Some(job) = self.jobs.get_mut(&id) {
                job.output_expired = true;
            }
        }
        removed
    }

    /// Removes one part of a job's output; false if there is none.
    fn remove_part(&mut self, job: JobId) -> bool {
        let logs = self.logs.iter_mut().filter(|(key, _)| key.job == job);
        let part = logs.filter_map(|(_, log)| log.parts.pop()).next();
        if let Some(Part::Block(block)) = &part {
            *self
                .objects
                .get_mut(&block.object)
                .expect("a block's object is known") -= 1;
        }
        part.is_some()
    }
}

#[async_trait]
impl Retention for FakeStore {
    async fn expire(&self, expiry: Expiry, max_rows: usize) -> Result<usize, StoreError> {
        self.write(|state| state.expire(expiry, max_rows))
    }
}
