//! Output from the worker to the reader, through the use cases and the loops that move it.

use std::sync::Arc;
use std::time::Duration;

use hodei_shared::ids::{AttemptKey, WorkerId};
use hodei_shared::offsets::{Piece, Run, Stream};

use super::Fixture;
use super::kit::*;
use super::platform::{admin, identity, platform};
use crate::control::{Collect, Compact, Pass as _};
use crate::output::{self, Ingested, Read};
use crate::platform::{Platform, PlatformSettings};
use crate::ports::Rng as _;
use crate::ports::jobs::JobChange;
use crate::ports::output::{BLOCK_MAX_AGE_MS, ENDED_TAIL_BYTES};
use crate::testing::rng::SeededRng;

/// What one job printed: each byte with its stream and time.
struct Printed {
    worker: WorkerId,
    log: AttemptKey,
    bytes: Vec<(u8, Stream, i64)>,
    /// How much of it is acknowledged.
    stored: usize,
}

impl Printed {
    /// Prints up to `max` bytes in runs of all sizes.
    fn print(&mut self, rng: &SeededRng, max: u64) {
        let mut left = rng.below(max + 1);
        while left > 0 {
            let len = (1 + rng.below([3, 500, 100_000][rng.below(3) as usize])).min(left);
            let stream = match rng.below(2) {
                0 => Stream::Stdout,
                _ => Stream::Stderr,
            };
            let at_ms = 1_800_000_000_000 + rng.below(1_000) as i64;
            self.bytes.extend((0..len).map(|n| {
                let byte = if n % 50 == 49 {
                    b'\n'
                } else {
                    b'a' + (n % 20) as u8
                };
                (byte, stream, at_ms)
            }));
            left -= len;
        }
    }

    fn piece(&self, start: usize, end: usize) -> Piece {
        let mut piece = Piece {
            start: start as u64,
            ..Piece::default()
        };
        for (byte, stream, at_ms) in &self.bytes[start..end] {
            piece.data.push(*byte);
            match piece.runs.last_mut() {
                Some(run) if (run.stream, run.at_ms) == (*stream, *at_ms) => run.len += 1,
                _ => piece.runs.push(Run {
                    stream: *stream,
                    len: 1,
                    at_ms: *at_ms,
                }),
            }
        }
        piece
    }

    /// Sends what is not acknowledged and some of what is, in pieces of all sizes.
    async fn send(&mut self, platform: &Platform, rng: &SeededRng) {
        let again = if rng.below(3) == 0 { rng.below(200) } else { 0 };
        let mut start = self.stored - (again as usize).min(self.stored);
        let mut batches = Vec::new();
        while start < self.bytes.len() {
            let size = 1 + rng.below([100, 5_000, 60_000][rng.below(3) as usize]) as usize;
            let end = (start + size).min(self.bytes.len());
            batches.push((self.log, self.piece(start, end)));
            start = end;
        }
        let answers = output::ingest(platform, &identity(self.worker), batches).await;
        for (_, answer) in answers {
            assert!(matches!(answer, Ingested::Stored(_)), "{answer:?}");
        }
        self.stored = self.bytes.len();
    }

    /// Reads from `position` to the end of what is there.
    async fn check(&self, platform: &Arc<Platform>, position: usize) -> Read {
        let (job, at) = (self.log.job, position as u64);
        let opened = output::open(Arc::clone(platform), &admin(), job, 0, at, false).await;
        let mut reader = opened.expect("it is there");
        let mut next = position;
        loop {
            match reader.next().await.expect("read") {
                Read::Piece(piece) => {
                    assert!(piece.is_consistent());
                    assert_eq!(piece.start, next as u64, "no gap, nothing twice");
                    let runs = piece.runs.iter();
                    let of_runs =
                        runs.flat_map(|run| std::iter::repeat_n((run.stream, run.at_ms), run.len as usize));
                    for (byte, (stream, at_ms)) in piece.data.iter().zip(of_runs) {
                        assert_eq!(
                            self.bytes[next],
                            (*byte, stream, at_ms),
                            "at {next} of {}",
                            self.log
                        );
                        next += 1;
                    }
                }
                end @ Read::End { .. } => {
                    assert_eq!(next, self.stored, "all of it");
                    return end;
                }
            }
        }
    }
}

/// Readers see the same bytes, streams and times from any position, whether output lies in rows, in objects of its
/// own or in shared ones, while it moves, and after the end.
pub async fn much_output(store: Fixture) {
    let settings = PlatformSettings {
        object_bytes: 40_000,
        ..PlatformSettings::default()
    };
    let platform = platform(&store, settings);
    let rng = SeededRng::new(7);
    let worker = store.ready(1, 4).await;
    let mut logs = Vec::new();
    for n in 1..=3 {
        logs.push(Printed {
            worker,
            log: key(store.running(n, worker).await, 1),
            bytes: Vec::new(),
            stored: 0,
        });
    }
    for round in 0..12 {
        for log in &mut logs {
            log.print(&rng, if round % 3 == 0 { 300_000 } else { 30_000 });
            log.send(&platform, &rng).await;
            let position = rng.below(log.bytes.len() as u64 + 1) as usize;
            let end = log.check(&platform, position).await;
            assert!(matches!(
                end,
                Read::End {
                    attempt_ended: false,
                    ..
                }
            ));
        }
        Compact.pass(&platform).await.expect("stored");
    }
    for log in &logs {
        let ended = says(worker, log.log.job, exited(1, 0));
        let finish = Some(finish(log.bytes.len() as u64));
        store.applied(JobChange { finish, ..ended }).await;
    }
    let before = store.job(logs[0].log.job).await.attempts[0].output;
    while Compact.pass(&platform).await.expect("stored").is_some() {}
    assert_eq!(store.output.large_tails(9).await.expect("read"), []);
    assert_eq!(
        store.job(logs[0].log.job).await.attempts[0].output,
        before,
        "moving prints nothing"
    );
    for log in &logs {
        for position in [0, 1, log.bytes.len() / 2, log.bytes.len()] {
            let end = log.check(&platform, position).await;
            assert!(matches!(end, Read::End { complete: true, .. }), "{end:?}");
        }
        let newlines = log.bytes.iter().filter(|(byte, _, _)| *byte == b'\n').count();
        assert_eq!(
            store.job(log.log.job).await.attempts[0].output.lines,
            newlines as u64
        );
    }
    let objects = store.objects.list(None, 1_000).await.expect("listed").len();
    assert!(objects > 5, "{objects} objects");
}

/// What a crash leaves between an object and its blocks is removed when it is old; what is used stays.
pub async fn left_objects(store: Fixture) {
    let platform = platform(&store, PlatformSettings::default());
    let rng = SeededRng::new(8);
    let worker = store.ready(1, 1).await;
    let mut log = Printed {
        worker,
        log: key(store.running(1, worker).await, 1),
        bytes: Vec::new(),
        stored: 0,
    };
    while (log.bytes.len() as u64) < 4 * ENDED_TAIL_BYTES {
        log.print(&rng, 300_000);
    }
    log.send(&platform, &rng).await;
    let used = store.objects.list(None, 9).await.expect("listed");
    assert_eq!(used.len(), 1, "it was much");
    store.advance_ms(1);
    let left = platform.new_object_id();
    store
        .objects
        .put(left, b"a crash".to_vec())
        .await
        .expect("written");

    let mut collect = Collect::default();
    let mut pass = async || while collect.pass(&platform).await.expect("done").is_some() {};
    let all = [used[0], left];
    pass().await;
    assert_eq!(store.objects.list(None, 9).await.expect("listed"), all, "young");
    store
        .clock
        .advance(Duration::from_millis(BLOCK_MAX_AGE_MS as u64));
    pass().await;
    assert_eq!(
        store.objects.list(None, 9).await.expect("listed"),
        all,
        "it may still be used"
    );
    store
        .clock
        .advance(Duration::from_millis(2 * BLOCK_MAX_AGE_MS as u64));
    pass().await;
    assert_eq!(store.objects.list(None, 9).await.expect("listed"), used);
    log.check(&platform, 0).await;
}

/// A job that prints more than is kept runs on and ends as it does; its readers see the beginning, and that
/// something is missing, at once.
pub async fn cut_output(store: Fixture) {
    const LIMIT: u64 = 100_000;
    let settings = PlatformSettings {
        output_limit: LIMIT,
        object_bytes: 40_000,
        ..PlatformSettings::default()
    };
    let platform = platform(&store, settings);
    let rng = SeededRng::new(9);
    let worker = store.ready(1, 1).await;
    let mut log = Printed {
        worker,
        log: key(store.running(1, worker).await, 1),
        bytes: Vec::new(),
        stored: 0,
    };
    while log.bytes.len() < 300_000 {
        log.print(&rng, 60_000);
        log.send(&platform, &rng).await;
        Compact.pass(&platform).await.expect("stored");
    }
    let finish = Some(finish(log.bytes.len() as u64));
    let ended = says(worker, log.log.job, exited(1, 0));
    store.applied(JobChange { finish, ..ended }).await;
    let output = store.job(log.log.job).await.attempts[0].output;
    assert_eq!((output.bytes, output.truncated), (LIMIT, true));

    log.stored = LIMIT as usize;
    let position = 50_000;
    let end = log.check(&platform, position).await;
    let cut = Read::End {
        position: LIMIT,
        complete: false,
        attempt_ended: true,
    };
    assert_eq!(end, cut);
    let opened = output::open(Arc::clone(&platform), &admin(), log.log.job, 1, LIMIT, true).await;
    let mut follower = opened.expect("it is there");
    assert_eq!(follower.next().await.expect("read"), cut, "it waits for nothing");
}
