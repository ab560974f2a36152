//! Output: what is stored, what is read, and until when it is accepted.

use hodei_shared::ids::{AttemptKey, Rank};
use hodei_shared::offsets::{Piece, Run, Stream};

use super::Fixture;
use super::kit::*;
use crate::ports::jobs::{Finish, JobChange, OutputCounts};
use crate::ports::output::{AppendOutcome, Content, OutputAppend, OutputPage, Part};

/// Overlaps are stored once, gaps change nothing, and only the holder is heard.
pub async fn output_appends(store: Fixture) {
    use AppendOutcome::{NotHolder, Stored};
    let worker = store.ready(1, 2).await;
    let thief = store.ready(2, 2).await;
    let job = store.running(1, worker).await;
    let log = key(job, 1);
    assert_eq!(store.append(worker, log, piece(0, "one\n")).await, Stored(4));
    assert_eq!(
        store.append(worker, log, piece(0, "one\n")).await,
        Stored(4),
        "the same again"
    );
    assert_eq!(
        store.append(worker, log, piece(2, "e\ntwo\n")).await,
        Stored(8),
        "an overlap"
    );
    assert_eq!(store.append(worker, log, piece(9, "gap")).await, Stored(8));
    assert_eq!(store.append(worker, log, piece(8, "")).await, Stored(8));
    let batch = |start, text| OutputAppend {
        key: log,
        worker,
        content: Content::Bytes(piece(start, text)),
        job_limit: u64::MAX,
    };
    let batches = vec![batch(8, "three"), batch(13, "\n"), batch(20, "x")];
    let outcomes = store.output.append(batches).await.expect("stored");
    assert_eq!(outcomes, [Stored(13), Stored(14), Stored(14)], "in order");

    assert_eq!(store.append(thief, log, piece(14, "x")).await, NotHolder);
    assert_eq!(store.append(worker, key(job, 2), piece(0, "x")).await, NotHolder);
    assert_eq!(
        store.append(worker, key(job_id(9), 1), piece(0, "x")).await,
        NotHolder
    );
    let second_rank = AttemptKey { rank: Rank(1), ..log };
    assert_eq!(store.append(worker, second_rank, piece(0, "x")).await, NotHolder);

    let page = store.output.read(log, 0, 1 << 20).await.expect("read");
    assert_eq!(text(&page), "one\ntwo\nthree\n");
    let counts = OutputCounts {
        bytes: 14,
        lines: 3,
        messages: 4,
        ..OutputCounts::default()
    };
    assert_eq!(store.job(job).await.attempts[0].output, counts);
}

/// Any position can be read from; streams and times are kept.
pub async fn output_reads(store: Fixture) {
    let worker = store.ready(1, 2).await;
    let job = store.running(1, worker).await;
    let log = key(job, 1);
    let run = |stream, len, at_ms| Run { stream, len, at_ms };
    let mixed = Piece {
        start: 0,
        data: b"out\xff\0err".to_vec(),
        runs: vec![run(Stream::Stdout, 5, 1), run(Stream::Stderr, 3, 2)],
    };
    assert_eq!(
        store.append(worker, log, mixed.clone()).await,
        AppendOutcome::Stored(8)
    );
    assert_eq!(
        store.append(worker, log, piece(8, "more")).await,
        AppendOutcome::Stored(12)
    );
    let whole = store.output.read(log, 0, 100).await.expect("read");
    assert_eq!(
        whole.parts,
        [Part::Bytes(mixed.clone()), Part::Bytes(piece(8, "more"))]
    );
    for position in 0..12 {
        let page = store.output.read(log, position, 100).await.expect("read");
        let pieces = pieces(&page);
        assert_eq!(pieces[0].start, position);
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.clone()).collect();
        assert_eq!(bytes, b"out\xff\0errmore"[position as usize..], "from {position}");
        assert!(pieces.iter().all(Piece::is_consistent));
        assert_eq!(page.stored_end, 12);
    }
    let cut = store.output.read(log, 4, 100).await.expect("read");
    assert_eq!(
        pieces(&cut)[0].runs,
        [run(Stream::Stdout, 1, 1), run(Stream::Stderr, 3, 2)]
    );
    let small = store.output.read(log, 0, 1).await.expect("read");
    assert_eq!(pieces(&small), [mixed], "at least one piece");
    let end = store.output.read(log, 12, 100).await.expect("read");
    assert_eq!(
        end,
        OutputPage {
            parts: Vec::new(),
            stored_end: 12
        }
    );
    let beyond = store.output.read(log, 99, 100).await.expect("read");
    assert_eq!(
        beyond,
        OutputPage {
            parts: Vec::new(),
            stored_end: 12
        }
    );
    assert_eq!(
        store.output.read(key(job_id(9), 1), 0, 9).await.expect("read"),
        OutputPage::default()
    );
}

/// After the end only what the result declared is still accepted; each lease has a log of its own.
pub async fn output_after_the_end(store: Fixture) {
    use AppendOutcome::{Stale, Stored};
    let worker = store.ready(1, 3).await;
    let job = store.running(1, worker).await;
    let log = key(job, 1);
    assert_eq!(store.append(worker, log, piece(0, "abc")).await, Stored(3));
    let given_up = Finish {
        allow_missing_output: true,
        ..finish(6)
    };
    store
        .applied(JobChange {
            finish: Some(given_up),
            ..says(worker, job, exited(1, 0))
        })
        .await;
    assert_eq!(store.append(worker, log, piece(3, "de")).await, Stored(5));
    assert_eq!(
        store
            .append(worker, log, piece(4, "ef, and what was never declared"))
            .await,
        Stored(6),
        "cut at the declared end"
    );
    assert_eq!(store.append(worker, log, piece(6, "g")).await, Stale);
    assert_eq!(store.append(worker, log, piece(0, "abc")).await, Stale);
    assert_eq!(
        text(&store.output.read(log, 0, 99).await.expect("read")),
        "abcdef"
    );
    let counts = store.job(job).await.attempts[0].output;
    assert_eq!((counts.bytes, counts.declared_end), (6, Some(6)));

    let job = store.queued(2, |input| input.retries = 1).await;
    store.applied(by_server(job, claim(worker))).await;
    assert_eq!(
        store.append(worker, key(job, 1), piece(0, "first")).await,
        Stored(5)
    );
    store.applied(by_server(job, lost(1))).await;
    assert_eq!(
        store.append(worker, key(job, 1), piece(5, "!")).await,
        Stale,
        "a lost attempt declared no end"
    );
    store.advance_ms(1_000);
    store.applied(by_server(job, claim(worker))).await;
    assert_eq!(store.append(worker, key(job, 1), piece(5, "!")).await, Stale);
    assert_eq!(
        store.append(worker, key(job, 2), piece(0, "second")).await,
        Stored(6)
    );
    assert_eq!(
        text(&store.output.read(key(job, 1), 0, 99).await.expect("read")),
        "first"
    );
    assert_eq!(
        text(&store.output.read(key(job, 2), 0, 99).await.expect("read")),
        "second"
    );
    let bytes: Vec<_> = store
        .job(job)
        .await
        .attempts
        .iter()
        .map(|a| a.output.bytes)
        .collect();
    assert_eq!(bytes, [5, 6]);
}

/// The pieces of a page that has no blocks.
fn pieces(page: &OutputPage) -> Vec<Piece> {
    let piece = |part: &Part| match part {
        Part::Bytes(piece) => piece.clone(),
        Part::Block(block) => panic!("{block:?} among bytes"),
    };
    page.parts.iter().map(piece).collect()
}

fn text(page: &OutputPage) -> String {
    let bytes: Vec<u8> = pieces(page).into_iter().flat_map(|piece| piece.data).collect();
    String::from_utf8(bytes).expect("the test writes text")
}
