//! What is removed when it is old, and what stays.

use std::sync::Arc;
use std::time::Duration;

use hodei_shared::ids::{AttemptKey, JobId, ObjectId, WorkerId};

use super::Fixture;
use super::kit::*;
use super::platform::{admin, platform};
use crate::control::{Collect, Pass as _, Retain};
use crate::output::{self, Read};
use crate::platform::PlatformSettings;
use crate::ports::jobs::{Finish, JobChange, JobFilter, QueueOutcome};
use crate::ports::output::{AppendOutcome, Block, Content, OutputPage};
use crate::ports::retention::Expiry;

const DAY_MS: u64 = 86_400_000;

impl Fixture {
    /// A job that printed a few pieces and a block, and ended.
    async fn printed(&self, n: u32, worker: WorkerId, object: ObjectId) -> AttemptKey {
        let job = self.queued(n, |input| {
            input.labels.insert("team".to_owned(), "a".to_owned());
        });
        let job = job.await;
        self.applied(by_server(job, claim(worker))).await;
        let log = key(job, 1);
        for start in 0..5 {
            self.append(worker, log, piece(start, "x")).await;
        }
        let block = Block {
            start: 5,
            len: 5,
            lines: 0,
            messages: 1,
            object,
            offset: 0,
            runs_len: 1,
        };
        let content = Content::Block(block);
        let stored = self.append_within(u64::MAX, worker, log, content).await;
        assert_eq!(stored, AppendOutcome::Stored(10));
        let given_up = Finish {
            allow_missing_output: true,
            ..finish(12)
        };
        let ended = says(worker, job, exited(1, 0));
        self.applied(JobChange {
            finish: Some(given_up),
            ..ended
        })
        .await;
        log
    }

    /// Expires until nothing is left, a few rows at a time.
    async fn expire_all(&self, expiry: Expiry) -> usize {
        let mut rounds = 0;
        loop {
            let removed = self.retention.expire(expiry, 3).await.expect("stored");
            assert!(removed <= 3 + 8, "{removed} rows at once");
            if removed == 0 {
                return rounds;
            }
            rounds += 1;
        }
    }

    async fn listed(&self) -> Vec<JobId> {
        let mut ids = Vec::new();
        for labels in [Vec::new(), vec![("team".to_owned(), "a".to_owned())]] {
            let filter = JobFilter {
                labels: labels.into_iter().collect(),
                limit: 99,
                ..JobFilter::default()
            };
            let jobs = self.jobs.list(filter).await.expect("read");
            ids.extend(jobs.iter().map(|job| job.id));
        }
        ids
    }

    fn young_object(&self, n: u8) -> ObjectId {
        let mut bytes = [n; 16];
        bytes[..6].copy_from_slice(&self.now().to_be_bytes()[2..]);
        ObjectId::from_bytes(bytes)
    }
}

/// Old output goes, and with its last block the object; the job stays and says how much it was.
pub async fn expired_output(store: Fixture) {
    let worker = store.ready(1, 9).await;
    let object = store.young_object(1);
    let old = store.printed(1, worker, object).await;
    store.advance_ms(10);
    let young = store.printed(2, worker, object).await;
    let before = store.job(old.job).await;
    let expiry = Expiry::Output {
        ended_before_ms: store.now(),
    };
    assert!(store.expire_all(expiry).await >= 2, "in small steps");
    let mut want = before.clone();
    want.attempts[0].output.expired = true;
    assert_eq!(store.job(old.job).await, want, "but for its output");
    let page = OutputPage {
        parts: Vec::new(),
        stored_end: 10,
    };
    assert_eq!(store.output.read(old, 0, 99).await.expect("read"), page);
    let late = store.append(worker, old, piece(10, "ab")).await;
    assert_eq!(late, AppendOutcome::Stale);
    assert_eq!(
        store.output.read(young, 0, 99).await.expect("read").parts.len(),
        6,
        "the young one stays"
    );
    assert_eq!(store.output.unused_objects(9).await.expect("read"), []);

    store.advance_ms(1);
    let expiry = Expiry::Output {
        ended_before_ms: store.now(),
    };
    store.expire_all(expiry).await;
    assert_eq!(store.output.unused_objects(9).await.expect("read"), [object]);
    store.output.forget_objects(vec![object]).await.expect("stored");
    assert_eq!(store.output.unused_objects(9).await.expect("read"), []);
    assert_eq!(store.output.large_tails(9).await.expect("read"), []);
}

/// Old jobs go with all that belongs to them; queued, running and young ones stay.
pub async fn expired_jobs(store: Fixture) {
    let worker = store.ready(1, 9).await;
    let object = store.young_object(1);
    let old = store.printed(1, worker, object).await;
    let queued = store.queued(2, |_| ()).await;
    let running = store.running(3, worker).await;
    store.advance_ms(10);
    let young = store.printed(4, worker, object).await;
    let events = store.events.after(0, 99).await.expect("read");
    let expiry = Expiry::Jobs {
        ended_before_ms: store.now(),
    };
    assert!(store.expire_all(expiry).await >= 3, "in small steps");
    assert_eq!(store.jobs.get(old.job).await.expect("read"), None);
    assert_eq!(
        store.listed().await,
        [young.job, running, queued, young.job],
        "all, then those of a team"
    );
    assert_eq!(
        store.output.read(old, 0, 99).await.expect("read"),
        OutputPage::default()
    );
    assert_eq!(store.events.of_job(old.job).await.expect("read"), []);
    let kept: Vec<_> = events
        .into_iter()
        .filter(|record| record.event.job() != Some(old.job))
        .collect();
    assert_eq!(
        store.events.after(0, 99).await.expect("read"),
        kept,
        "positions stay"
    );
    let last = kept.last().expect("there are some").position;
    store.queued(5, |_| ()).await;
    let next = store.events.after(last, 9).await.expect("read");
    assert_eq!(next[0].position, last + 1, "no position is given twice");

    // The request is still known, so that the job is not run again.
    let again = new_job(
        1,
        spec(|input| {
            input.labels.insert("team".to_owned(), "a".to_owned());
        }),
    );
    let outcomes = store.jobs.queue(vec![again]).await.expect("stored");
    assert_eq!(outcomes, [QueueOutcome::Same(old.job)]);
}

/// Old request ids are forgotten.
pub async fn expired_submissions(store: Fixture) {
    for n in 1..=5 {
        store.queued(n, |_| ()).await;
    }
    store.advance_ms(10);
    store.queued(6, |_| ()).await;
    let expiry = Expiry::Submissions {
        before_ms: store.now(),
    };
    assert_eq!(store.expire_all(expiry).await, 2, "three, then two");
    let mut again = new_job(6, spec(|_| ()));
    again.id = job_id(16);
    let mut anew = new_job(1, spec(|_| ()));
    anew.id = job_id(11);
    let outcomes = store.jobs.queue(vec![again, anew]).await.expect("stored");
    assert_eq!(
        outcomes,
        [QueueOutcome::Same(job_id(6)), QueueOutcome::Queued(job_id(11))]
    );
}

/// The loops remove output, objects and jobs when their time has come, and readers hear that output is gone.
pub async fn retention_loop(store: Fixture) {
    let settings = PlatformSettings {
        keep_output: Duration::from_millis(DAY_MS),
        keep_jobs: Duration::from_millis(3 * DAY_MS),
        ..PlatformSettings::default()
    };
    let platform = platform(&store, settings);
    let worker = store.ready(1, 9).await;
    let object = store.young_object(1);
    store.objects.put(object, vec![0; 6]).await.expect("written");
    let log = store.printed(1, worker, object).await;
    let (mut retain, mut collect) = (Retain::default(), Collect::default());
    let mut later = async |days: u64| {
        store.advance_ms(days * DAY_MS);
        while retain.pass(&platform).await.expect("stored").is_some() {}
        while collect.pass(&platform).await.expect("stored").is_some() {}
    };
    later(1).await;
    assert!(
        !store.job(log.job).await.attempts[0].output.expired,
        "a day is not over"
    );
    store.advance_ms(1);
    later(1).await;
    assert!(store.job(log.job).await.attempts[0].output.expired);
    assert_eq!(store.objects.list(None, 9).await.expect("listed"), []);
    let opened = output::open(Arc::clone(&platform), &admin(), log.job, 0, 0, true).await;
    let end = opened.expect("it is there").next().await.expect("read");
    let gone = Read::End {
        position: 0,
        complete: false,
        attempt_ended: true,
    };
    assert_eq!(end, gone, "it waits for nothing");
    later(1).await;
    assert_eq!(store.jobs.get(log.job).await.expect("read"), None);
}
