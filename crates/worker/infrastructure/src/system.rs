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

/// Lets a panic anywhere end this process, with `status` and a last line in the log. A task that is gone, such as the
/// one that sends output, would leave its jobs running for ever; the end of the worker is seen, and they are repeated.
pub fn end_on_panic(status: i32) {
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "the worker panicked: {said}");
        std::process::exit(status);
    }));
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

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: &str = "system::tests::a_task_that_panics_ends_the_process";
    /// Set where the test panics.
    const INSIDE: &str = "HODEI_TEST_PANICS";

    #[test]
    fn a_task_that_panics_ends_the_process() {
        if std::env::var_os(INSIDE).is_some() {
            end_on_panic(42);
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            return runtime.expect("a run time").block_on(async {
                Tasks::default().spawn("one that panics", Box::pin(async { panic!("as it should") }));
                std::future::pending().await
            });
        }
        let this = std::env::current_exe().expect("a test has a file");
        let ended = std::process::Command::new(this)
            .args([THIS, "--exact"])
            .env(INSIDE, "1")
            .output()
            .expect("it starts");
        assert_eq!(ended.status.code(), Some(42), "{ended:?}");
    }
}
