//! Output in objects: blocks that are appended, tails that become blocks, and objects that nobody refers to.

use hodei_server_domain::job::end::Reason;
use hodei_server_domain::job::state::Phase;
use hodei_shared::ids::{AttemptKey, ObjectId, WorkerId};

use super::Fixture;
use super::kit::*;
use crate::ports::jobs::{ChangeOutcome, Finish, JobChange, OutputCounts};
use crate::ports::output::{
    AppendOutcome, BLOCK_MAX_AGE_MS, Block, Content, ENDED_TAIL_BYTES, LIVE_TAIL_BYTES, OutputAppend, Part,
};

/// An object that was made `age_ms` ago.
fn object(store: &Fixture, n: u8, age_ms: i64) -> ObjectId {
    let made_at_ms = (store.now() - age_ms).to_be_bytes();
    let mut bytes = [n; 16];
    bytes[..6].copy_from_slice(&made_at_ms[2..]);
    ObjectId::from_bytes(bytes)
}

fn block(start: u64, len: u64, object: ObjectId) -> Block {
    Block {
        start,
        len,
        lines: 2,
        messages: 3,
        object,
        offset: 1_000 + start,
        runs_len: 4,
    }
}

impl Fixture {
    async fn append_blocks(&self, worker: WorkerId, key: AttemptKey, blocks: &[Block]) -> Vec<AppendOutcome> {
        let append = |block: &Block| OutputAppend {
            key,
            worker,
            content: Content::Block(*block),
            job_limit: u64::MAX,
        };
        let appends = blocks.iter().map(append).collect();
        self.output.append(appends).await.expect("stored")
    }

    async fn parts(&self, key: AttemptKey, position: u64, max_bytes: usize) -> Vec<Part> {
        let page = self.output.read(key, position, max_bytes).await.expect("read");
        page.parts
    }

    async fn moves(&self, key: AttemptKey, block: Block) -> bool {
        let moved = self.output.move_tails(vec![(key, block)]).await.expect("stored");
        assert_eq!(moved.len(), 1, "one answer for each block");
        moved[0]
    }
}

/// A block is stored exactly at the end of the log, whole, while its object is young; reads show bytes and blocks
/// in order.
pub async fn output_blocks(store: Fixture) {
    use AppendOutcome::{Moved, NotHolder, Stale, Stored};
    let worker = store.ready(1, 2).await;
    let thief = store.ready(2, 2).await;
    let job = store.running(1, worker).await;
    let log = key(job, 1);
    let young = object(&store, 1, BLOCK_MAX_AGE_MS);
    let old = object(&store, 2, BLOCK_MAX_AGE_MS + 1);
    assert_eq!(store.append(worker, log, piece(0, "one\n")).await, Stored(4));
    let outcomes = store
        .append_blocks(
            worker,
            log,
            &[
                block(3, 5, young),
                block(5, 5, young),
                block(4, 5, old),
                block(4, 6, young),
                block(10, 10, young),
            ],
        )
        .await;
    assert_eq!(outcomes, [Moved, Moved, Moved, Stored(10), Stored(20)]);
    assert_eq!(
        store.append_blocks(thief, log, &[block(20, 1, young)]).await,
        [NotHolder]
    );
    assert_eq!(
        store.append(worker, log, piece(18, "..tail")).await,
        Stored(24),
        "bytes are cut"
    );

    let all = [
        Part::Bytes(piece(0, "one\n")),
        Part::Block(block(4, 6, young)),
        Part::Block(block(10, 10, young)),
        Part::Bytes(piece(20, "tail")),
    ];
    assert_eq!(store.parts(log, 0, 1 << 20).await, all);
    assert_eq!(store.parts(log, 3, 7).await[1..], all[1..2], "bounded");
    assert_eq!(
        store.parts(log, 9, 1 << 20).await,
        all[1..],
        "a block holds the position"
    );
    assert_eq!(store.parts(log, 10, 1).await, all[2..3], "at least one part");
    assert_eq!(
        store.parts(log, 22, 9).await,
        [Part::Bytes(piece(22, "il"))],
        "bytes begin at the position"
    );
    assert_eq!(store.parts(log, 24, 9).await, []);
    let counts = OutputCounts {
        bytes: 24,
        lines: 1 + 2 + 2,
        messages: 1 + 3 + 3 + 1,
        ..OutputCounts::default()
    };
    assert_eq!(store.job(job).await.attempts[0].output, counts);

    let given_up = Finish {
        allow_missing_output: true,
        ..finish(30)
    };
    let ended = says(worker, job, exited(1, 0));
    store
        .applied(JobChange {
            finish: Some(given_up),
            ..ended
        })
        .await;
    let late = [block(24, 7, young), block(24, 6, young), block(30, 1, young)];
    assert_eq!(
        store.append_blocks(worker, log, &late).await,
        [Moved, Stored(30), Stale],
        "not beyond the declared end"
    );
}

/// The tails of ended attempts above one bound and of live ones from another are moved; reads show the same.
pub async fn output_tails(store: Fixture) {
    let worker = store.ready(1, 4).await;
    let fill = async |n: u32, bytes: u64| {
        let log = key(store.running(n, worker).await, 1);
        let (first, rest) = ("x".repeat(1_000), "y".repeat(bytes as usize - 1_000));
        store.append(worker, log, piece(0, &first)).await;
        store.append(worker, log, piece(1_000, &rest)).await;
        log
    };
    let live = fill(1, LIVE_TAIL_BYTES - 1).await;
    let ended = fill(2, ENDED_TAIL_BYTES + 1).await;
    let small = fill(3, ENDED_TAIL_BYTES).await;
    let large = async || store.output.large_tails(9).await.expect("read");
    assert_eq!(large().await, [], "they live");
    for log in [ended, small] {
        store.applied(says(worker, log.job, exited(1, 0))).await;
    }
    assert_eq!(large().await, [ended], "a small log stays");
    store.append(worker, live, piece(LIVE_TAIL_BYTES - 1, ".")).await;
    assert_eq!(large().await, [live, ended], "the largest first");
    assert_eq!(store.output.large_tails(1).await.expect("read"), [live]);

    let tail = async |max_bytes, max_pieces| {
        let pieces = store.output.tail(live, max_bytes, max_pieces).await;
        pieces
            .expect("read")
            .iter()
            .map(|piece| (piece.start, piece.end()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        tail(1 << 30, 9).await,
        [
            (0, 1_000),
            (1_000, LIVE_TAIL_BYTES - 1),
            (LIVE_TAIL_BYTES - 1, LIVE_TAIL_BYTES)
        ]
    );
    assert_eq!(tail(1_000, 9).await, [(0, 1_000)]);
    assert_eq!(tail(1 << 30, 1).await, [(0, 1_000)]);

    let shared = object(&store, 1, 0);
    assert!(
        !store.moves(live, block(0, 999, shared)).await,
        "not a whole piece"
    );
    assert!(!store.moves(live, block(1, 999, shared)).await);
    assert!(!store.moves(live, block(0, 1_001, shared)).await);
    let old = object(&store, 2, BLOCK_MAX_AGE_MS + 1);
    assert!(!store.moves(live, block(0, 1_000, old)).await);
    assert!(!store.moves(key(job_id(9), 1), block(0, 1_000, shared)).await);
    let (first, rest) = (
        block(1_000, LIVE_TAIL_BYTES - 1_000, shared),
        block(0, 1_000, shared),
    );
    let before = store.job(live.job).await.attempts[0].output;
    for moved in [first, rest] {
        assert!(store.moves(live, moved).await);
        assert!(!store.moves(live, moved).await, "it is gone");
    }
    assert_eq!(
        store.parts(live, 0, usize::MAX).await,
        [Part::Block(rest), Part::Block(first)]
    );
    assert_eq!(
        store.job(live.job).await.attempts[0].output,
        before,
        "nothing was printed"
    );
    assert_eq!(large().await, [ended]);
    assert_eq!(tail(1 << 30, 9).await, []);
    store.append(worker, live, piece(LIVE_TAIL_BYTES, "more")).await;
    assert_eq!(tail(1 << 30, 9).await, [(LIVE_TAIL_BYTES, LIVE_TAIL_BYTES + 4)]);
    let both = vec![
        (ended, block(0, 1_000, shared)),
        (ended, block(0, 1_000, shared)),
        (ended, block(1_000, ENDED_TAIL_BYTES + 1 - 1_000, shared)),
    ];
    assert_eq!(
        store.output.move_tails(both).await.expect("stored"),
        [true, false, true]
    );
    assert_eq!(large().await, []);
}

/// What a crash leaves is unknown; what a block refers to is known.
pub async fn output_objects(store: Fixture) {
    let worker = store.ready(1, 2).await;
    let log = key(store.running(1, worker).await, 1);
    let (known, unknown) = (object(&store, 1, 0), object(&store, 2, 0));
    store.append_blocks(worker, log, &[block(0, 5, known)]).await;
    let ids = vec![unknown, known];
    assert_eq!(store.output.unknown_objects(ids).await.expect("read"), [unknown]);
    assert_eq!(store.output.unused_objects(9).await.expect("read"), []);
    store
        .output
        .forget_objects(vec![known, unknown])
        .await
        .expect("stored");
    assert_eq!(
        store.output.unknown_objects(vec![known]).await.expect("read"),
        [],
        "it is used"
    );
}

/// What a job prints beyond its limit is taken and not kept, in all attempts together; its result needs no more.
pub async fn output_limit(store: Fixture) {
    use AppendOutcome::{Moved, Stored};
    const LIMIT: u64 = 10;
    let worker = store.ready(1, 2).await;
    let job = store.queued(1, |input| input.retries = 1).await;
    store.applied(by_server(job, claim(worker))).await;
    let object = object(&store, 1, 0);
    let append = async |lease, start, text: &str| {
        let content = Content::Bytes(piece(start, text));
        store.append_within(LIMIT, worker, key(job, lease), content).await
    };
    let append_block = async |lease, block| {
        let content = Content::Block(block);
        store.append_within(LIMIT, worker, key(job, lease), content).await
    };
    assert_eq!(append(1, 0, "one\n").await, Stored(4));
    store.applied(by_server(job, lost(1))).await;
    store.advance_ms(1_000);
    store.applied(by_server(job, claim(worker))).await;

    let log = key(job, 2);
    assert_eq!(append_block(2, block(0, 7, object)).await, Moved, "6 are left");
    assert_eq!(append_block(2, block(0, 4, object)).await, Stored(4));
    assert!(!store.job(job).await.attempts[1].output.truncated);
    assert_eq!(append(2, 4, "x\ny\nz\n").await, Stored(10), "it is told to go on");
    assert_eq!(append_block(2, block(10, 4, object)).await, Moved);
    assert_eq!(append(2, 9, "\nmore").await, Stored(14));
    let content = Content::Bytes(piece(14, "!"));
    let raised = store.append_within(u64::MAX, worker, log, content).await;
    assert_eq!(raised, Stored(15));
    let counts = OutputCounts {
        bytes: 6,
        lines: 2 + 1,
        messages: 3 + 3,
        truncated: true,
        ..OutputCounts::default()
    };
    assert_eq!(
        store.job(job).await.attempts[1].output,
        counts,
        "a log that was cut has no holes"
    );
    let page = store.output.read(log, 0, 99).await.expect("read");
    assert_eq!(page.stored_end, 6);
    assert_eq!(
        page.parts,
        [Part::Block(block(0, 4, object)), Part::Bytes(piece(4, "x\n"))]
    );

    let ended = says(worker, job, exited(2, 0));
    let missing = JobChange {
        finish: Some(finish(16)),
        ..ended.clone()
    };
    assert_eq!(
        store.apply(missing).await,
        ChangeOutcome::OutputMissing(15),
        "what was not sent is missing"
    );
    let complete = JobChange {
        finish: Some(finish(15)),
        ..ended
    };
    let job_after = store.applied(complete).await;
    assert!(
        matches!(&job_after.phase, Phase::Ended { end, .. } if end.reason == Reason::ExitCode),
        "{job_after:?}"
    );
}
