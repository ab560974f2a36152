//! Time, tasks and randomness of a real machine.

use std::time::Duration;

use hodei_shared::ports::{BoxFuture, Clock, Rng, Spawner};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::task::TaskTracker;

/// Sleeps are cut into pieces of this length, since tokio's clock stands still while the machine is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// CLOCK_REALTIME and CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        read(ClockId::Realtime).as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        read(ClockId::Boottime)
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        let clock = *self;
        Box::pin(async move {
            loop {
                let left = at.saturating_sub(clock.monotonic());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
            }
        })
    }
}

/// Tasks of the current tokio runtime, which end with it.
#[derive(Debug, Clone, Default)]
pub struct Tasks(TaskTracker);

impl Spawner for Tasks {
    fn spawn(&self, _name: &'static str, task: BoxFuture<()>) {
        self.0.spawn(task);
    }
}

/// The kernel's random bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn fill(&self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            // Interrupted calls are repeated; others can not fail once the pool is initialised.
            if let Ok(filled) = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
                bytes = &mut bytes[filled..];
            }
        }
    }
}
