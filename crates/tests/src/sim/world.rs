//! Time, randomness, faults and the trace of one run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hodei_shared::ports::{BoxFuture, Clock, Rng};
use tokio::time::Instant;

/// Wall time at the start of every run.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// What one run gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Who did what when, a line each.
    pub trace: Vec<String>,
    /// Simulated time.
    pub elapsed: Duration,
}

/// The rates of faults of one run, each in thousandths, and what the client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// A frame is lost, and its connection breaks some time later.
    pub lose_frame: u64,
    /// A frame comes twice.
    pub duplicate_frame: u64,
    /// A frame overtakes the one before it.
    pub reorder_frame: u64,
    /// The longest delay of a frame, in milliseconds.
    pub max_delay_ms: u64,
    /// A connection is cut within a minute.
    pub cut: u64,
    /// A cut connection is silent in one direction first.
    pub one_way: u64,
    /// A call is lost on its way.
    pub lose_call: u64,
    /// A call is done, and its reply is lost.
    pub lose_reply: u64,
    /// The server crashes within ten seconds.
    pub crash_server: u64,
    /// A worker crashes within ten seconds.
    pub crash_worker: u64,
    /// A provider fails to make a machine.
    pub fail_create: u64,
    /// A job is cancelled at some moment.
    pub cancel: u64,
    /// How many jobs are queued.
    pub jobs: u64,
}

impl Faults {
    /// No faults at all.
    pub const NONE: Self = Self {
        lose_frame: 0,
        duplicate_frame: 0,
        reorder_frame: 0,
        max_delay_ms: 5,
        cut: 0,
        one_way: 0,
        lose_call: 0,
        lose_reply: 0,
        crash_server: 0,
        crash_worker: 0,
        fail_create: 0,
        cancel: 0,
        jobs: 50,
    };

    /// The rates that belong to a seed: each fault is absent in some runs and frequent in others.
    pub fn drawn(seed: u64) -> Self {
        let rng = SimRng::new(seed ^ 0x5eed_fa17);
        let rate = |max: u64| if rng.below(3) == 0 { 0 } else { rng.below(max + 1) };
        Self {
            lose_frame: rate(20),
            duplicate_frame: rate(60),
            reorder_frame: rate(60),
            max_delay_ms: [2, 20, 200, 2_000][rng.below(4) as usize],
            cut: rate(600),
            one_way: rate(500),
            lose_call: rate(200),
            lose_reply: rate(200),
            crash_server: rate(300),
            crash_worker: rate(300),
            fail_create: rate(300),
            cancel: rate(300),
            jobs: 50,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast and the same everywhere.
#[derive(Debug)]
pub(super) struct SimRng(Mutex<u64>);

impl SimRng {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Rng for SimRng {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Virtual time; each node has its own idea of the wall.
#[derive(Debug)]
pub(super) struct SimClock {
    start: Instant,
    skew_ms: i64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        EPOCH_MS + self.skew_ms + i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        match self.start.checked_add(at) {
            Some(deadline) => Box::pin(tokio::time::sleep_until(deadline)),
            None => Box::pin(std::future::pending()),
        }
    }
}

/// What all nodes of a run share.
pub(super) struct World {
    pub(super) faults: Faults,
    pub(super) rng: Arc<SimRng>,
    start: Instant,
    healed: AtomicBool,
    trace: Mutex<Vec<String>>,
    broken: Mutex<Option<String>>,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> Arc<Self> {
        Arc::new(Self {
            faults,
            rng: Arc::new(SimRng::new(seed)),
            start: Instant::now(),
            healed: AtomicBool::new(false),
            trace: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    /// A clock whose wall is off by `skew_ms`.
    pub(super) fn clock(&self, skew_ms: i64) -> Arc<SimClock> {
        Arc::new(SimClock {
            start: self.start,
            skew_ms,
        })
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// From here on there are no faults.
    pub(super) fn heal(&self) {
        self.healed.store(true, Ordering::Relaxed);
        self.note("the storm is over");
    }

    /// Whether a fault of this rate (in thousandths) happens now.
    pub(super) fn happens(&self, rate: u64) -> bool {
        !self.healed.load(Ordering::Relaxed) && rate > 0 && self.rng.below(1_000) < rate
    }

    /// A time up to `max_ms`, of this run's randomness.
    pub(super) fn some_ms(&self, max_ms: u64) -> Duration {
        Duration::from_millis(self.rng.below(max_ms + 1))
    }

    /// One of two, evenly.
    pub(super) fn rng_bit(&self) -> bool {
        self.rng.below(2) == 0
    }

    /// The delay of one frame or call.
    pub(super) fn latency(&self) -> Duration {
        let max = if self.healed.load(Ordering::Relaxed) {
            5
        } else {
            self.faults.max_delay_ms
        };
        self.some_ms(max)
    }

    /// Writes a line of the trace.
    pub(super) fn note(&self, what: impl AsRef<str>) {
        let line = format!("{:>9.3} {}", self.elapsed().as_secs_f64(), what.as_ref());
        self.trace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers the first thing that must not happen.
    pub(super) fn broke(&self, what: String) {
        self.note(format!("BROKEN: {what}"));
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(what);
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
