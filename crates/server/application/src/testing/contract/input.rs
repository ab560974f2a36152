//! Input: what is stored, who may read it, and what a repeated job reads.

use hodei_server_domain::job::spec::Stdin;
use hodei_server_domain::job::state::{HELD, JobEvent, Phase};
use hodei_shared::ids::{JobId, WorkerId};

use super::Fixture;
use super::kit::*;
use crate::ports::input::{InputAppend, InputOutcome, InputPage, InputRead};
use crate::ports::jobs::{ChangeOutcome, NewJob};
use crate::ports::retention::Expiry;

const LIMIT: u64 = 20;

fn stored(end: u64, complete: bool) -> InputOutcome {
    InputOutcome::Stored { end, complete }
}

fn page(text: &str, last: bool) -> InputPage {
    let data = text.as_bytes().to_vec();
    InputPage::Data { data, last }
}

impl Fixture {
    async fn feed(&self, job: JobId, offset: u64, text: &str, eof: bool) -> InputOutcome {
        let part = InputAppend {
            job,
            offset,
            data: text.as_bytes().to_vec(),
            eof,
            limit: LIMIT,
        };
        let outcomes = self.input.append_input(vec![part]).await.expect("stored");
        assert_eq!(outcomes.len(), 1, "one outcome for each part");
        outcomes[0]
    }

    async fn pull(&self, worker: WorkerId, job: JobId, lease: u64, offset: u64, max: usize) -> InputPage {
        let read = InputRead {
            key: key(job, lease),
            worker,
            offset,
            max_bytes: max,
        };
        self.input.read_input(read).await.expect("read")
    }
}

/// Overlaps are stored once, gaps change nothing, the end and the limit hold.
pub async fn input_parts(store: Fixture) {
    let job = store.queued(1, |input| input.stdin = Stdin::Stream).await;
    assert_eq!(store.feed(job, 0, "one ", false).await, stored(4, false));
    assert_eq!(
        store.feed(job, 0, "one ", false).await,
        stored(4, false),
        "the same again"
    );
    assert_eq!(store.feed(job, 2, "e two ", false).await, stored(8, false));
    assert_eq!(store.feed(job, 9, "gap", true).await, stored(8, false));
    assert_eq!(
        store.feed(job, 8, "thirteen bytes", false).await,
        InputOutcome::TooLarge
    );
    assert_eq!(
        store.feed(job, 3, "", true).await,
        stored(8, false),
        "not the end"
    );
    assert_eq!(store.feed(job, 8, "three", true).await, stored(13, true));
    assert_eq!(store.feed(job, 8, "three", true).await, stored(13, true));
    assert_eq!(store.feed(job, 13, "", false).await, stored(13, true));
    assert_eq!(store.feed(job, 13, "x", false).await, InputOutcome::AfterEnd);

    let without = store.queued(2, |_| ()).await;
    assert_eq!(store.feed(without, 0, "x", true).await, InputOutcome::NotFed);
    assert_eq!(store.feed(job_id(9), 0, "x", true).await, InputOutcome::NoSuchJob);
    let ended = store.queued(3, |input| input.stdin = Stdin::Stream).await;
    store.applied(by_server(ended, cancel())).await;
    assert_eq!(store.feed(ended, 0, "x", true).await, InputOutcome::JobEnded);
}

/// A job that waits for its whole input is held; then each attempt reads the same bytes, and nobody else does.
pub async fn input_is_replayed(store: Fixture) {
    let worker = store.ready(1, 2).await;
    let thief = store.ready(2, 2).await;
    let change = |input: &mut hodei_server_domain::job::spec::SpecInput| {
        input.stdin = Stdin::Whole;
        input.retries = 1;
    };
    let job = store.queued(1, change).await;
    assert_eq!(
        store.job(job).await.job.phase,
        Phase::Queued { ready_at_ms: HELD }
    );
    assert_eq!(
        store.apply(by_server(job, claim(worker))).await,
        ChangeOutcome::NotClaimable
    );
    assert_eq!(
        store.jobs.next_ready_at().await.expect("read"),
        None,
        "no time comes"
    );
    assert_eq!(store.feed(job, 0, "abc", false).await, stored(3, false));
    assert_eq!(store.feed(job, 3, "def", true).await, stored(6, true));
    store.applied(by_server(job, JobEvent::InputComplete)).await;
    assert_eq!(
        store.apply(by_server(job, JobEvent::InputComplete)).await,
        ChangeOutcome::Same
    );
    store.applied(by_server(job, claim(worker))).await;
    assert_eq!(store.pull(worker, job, 1, 0, 4).await, page("abcd", false));
    assert_eq!(store.pull(worker, job, 1, 4, 4).await, page("ef", true));
    assert_eq!(store.pull(worker, job, 1, 6, 4).await, page("", true));
    assert_eq!(store.pull(worker, job, 1, 60, 4).await, page("", true));
    assert_eq!(store.pull(thief, job, 1, 0, 4).await, InputPage::NotHolder);
    assert_eq!(store.pull(worker, job, 2, 0, 4).await, InputPage::NotHolder);
    store.applied(says(worker, job, started(1))).await;
    store.applied(by_server(job, lost(1))).await;
    assert_eq!(store.pull(worker, job, 1, 0, 4).await, InputPage::Stale);
    store.advance_ms(1_000);
    store.applied(by_server(job, claim(worker))).await;
    assert_eq!(store.pull(worker, job, 2, 0, 9).await, page("abcdef", true));

    let running = store.running(2, worker).await;
    assert_eq!(
        store.pull(worker, running, 1, 0, 4).await,
        page("", true),
        "it has none"
    );
}

/// A job that repeats another reads that one's input as it was at its end, and takes no more.
pub async fn input_of_a_repeated_job(store: Fixture) {
    let worker = store.ready(1, 2).await;
    let first = store.queued(1, |input| input.stdin = Stdin::Stream).await;
    assert_eq!(store.feed(first, 0, "half", false).await, stored(4, false));
    store.applied(by_server(first, cancel())).await;
    let mut repeated = first;
    for n in [2, 3] {
        let again = NewJob {
            retry_of: Some(repeated),
            ..new_job(n, store.job(first).await.spec)
        };
        store.jobs.queue(vec![again]).await.expect("stored");
        repeated = job_id(n);
        assert_eq!(store.feed(repeated, 4, "x", true).await, InputOutcome::AfterEnd);
        assert_eq!(store.feed(repeated, 4, "", true).await, stored(4, true));
        store.applied(by_server(repeated, claim(worker))).await;
        assert_eq!(store.pull(worker, repeated, 1, 0, 9).await, page("half", true));
        store.applied(by_server(repeated, cancel())).await;
    }
    let expiry = Expiry::Jobs {
        ended_before_ms: store.now() + 1,
    };
    while store.retention.expire(expiry, 9).await.expect("stored") > 0 {}
    assert_eq!(store.jobs.get(first).await.expect("read"), None);
    let kept = store.pull(worker, repeated, 1, 0, 9).await;
    assert_eq!(kept, page("half", true), "a repeated job keeps what it reads");
}
