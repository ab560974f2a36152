//! The invariants that span several records.

use hodei_shared::ids::JobId;

use super::{FakeJob, State};
use crate::ports::output::Part;

impl State {
    pub(super) fn check(&self) {
        for (id, job) in &self.jobs {
            check_job(*id, job);
        }
        for (id, ended) in &self.ended {
            assert_eq!(
                self.jobs.get(id).map(|job| &job.job),
                Some(ended),
                "the end of job {id} changed"
            );
        }
        for (id, worker) in &self.workers {
            let held = self
                .jobs
                .values()
                .filter(|job| job.job.holder() == Some(*id))
                .count();
            assert_eq!(
                worker.record.used_slots as usize, held,
                "used slots of worker {id}"
            );
        }
        let mut position = 0;
        for record in &self.events {
            assert!(record.position > position, "events are not in order");
            position = record.position;
        }
        assert!(position <= self.position, "an event is newer than the newest");
        for (key, log) in &self.logs {
            let job = self.jobs.get(&key.job);
            let known = job.is_some_and(|job| job.attempts.iter().any(|a| a.record.lease == key.lease));
            assert!(known, "output of {key}, which never was an attempt");
            let mut end = 0;
            for part in &log.parts {
                assert_eq!(part.start(), end, "the log of {key} has a gap or an overlap");
                assert!(part.end() > end, "a part of {key} is empty");
                end = part.end();
            }
            let expired = job.is_some_and(|job| job.ended_at_ms.is_some());
            assert!(end == log.kept || expired, "{key} has lost a part");
            assert!(log.taken >= log.kept, "{key} has more than was taken");
        }
        for (id, blocks) in &self.objects {
            let parts = self.logs.values().flat_map(|log| &log.parts);
            let refers = |part: &&Part| matches!(part, Part::Block(block) if block.object == *id);
            assert_eq!(
                parts.filter(refers).count() as u64,
                *blocks,
                "blocks of object {id}"
            );
        }
        for (id, otp) in &self.otps {
            let worker = self.workers.get(&otp.worker);
            let registered = worker.is_some_and(|worker| worker.certificate.is_some());
            assert_eq!(
                otp.otp.redeemed.is_some(),
                registered,
                "password {id} and its worker's identity"
            );
        }
    }
}

fn check_job(id: JobId, job: &FakeJob) {
    let live: Vec<_> = job
        .attempts
        .iter()
        .filter(|attempt| attempt.record.end.is_none())
        .collect();
    assert!(live.len() <= 1, "job {id} has two live leases");
    let holder = live.first().map(|attempt| attempt.record.worker);
    assert_eq!(job.job.holder(), holder, "the holder of job {id}");
    if let Some(attempt) = live.first() {
        assert_eq!(attempt.record.lease, job.job.lease, "the live lease of job {id}");
        assert_eq!(
            attempt.record.number, job.job.attempt,
            "the live attempt of job {id}"
        );
    }
    for pair in job.attempts.windows(2) {
        assert!(
            pair[0].record.lease < pair[1].record.lease,
            "the leases of job {id} grow"
        );
        let step = pair[1].record.number - pair[0].record.number;
        let want = u32::from(!pair[0].record.never_started);
        assert_eq!(step, want, "attempts of job {id} are counted once");
    }
    assert_eq!(
        job.job.is_ended(),
        job.ended_at_ms.is_some(),
        "the end of job {id}"
    );
}
