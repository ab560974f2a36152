//! The outside that server and worker both need: time, tasks and randomness.
//!
//! Production code of the application crates reaches them only through these traits, so that the simulation can
//! run it in one thread on virtual time from one seed.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// A boxed future that owns what it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Time. Durations come from a monotonic clock that goes on during suspend (CLOCK_BOOTTIME).
pub trait Clock: Send + Sync + 'static {
    /// Wall time in milliseconds since the Unix epoch. Only for records and people, never to decide a lease.
    fn now_ms(&self) -> i64;

    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;

    /// Ends when [`Clock::monotonic`] has reached `at`. Cancel-safe.
    fn sleep_until(&self, at: Duration) -> BoxFuture<()>;

    /// Ends after `duration`. Cancel-safe.
    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        self.sleep_until(self.monotonic() + duration)
    }
}

/// Starts tasks in one node's scope: all of them are aborted when the node goes.
pub trait Spawner: Send + Sync + 'static {
    /// Starts `task`; `name` is for logs and traces.
    fn spawn(&self, name: &'static str, task: BoxFuture<()>);
}

/// Randomness: from the operating system in production, from a seed in the simulation.
pub trait Rng: Send + Sync + 'static {
    /// Fills `bytes` with random bytes fit for keys.
    fn fill(&self, bytes: &mut [u8]);

    /// A number in `0..bound`; 0 if `bound` is 0. Slightly biased for huge bounds: for jitter, not for keys.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound.max(1)
    }
}
