//! Time, tasks, randomness and files of a real machine.

pub mod files;

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hodei_server_application::ports::{BoxFuture, Clock, Rng, Spawner};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long one sleep of the run time is at most: it does not count while the machine is suspended, so the rest
/// is looked at again.
const MAX_NAP: Duration = Duration::from_secs(5);

/// The machine's clocks: the wall, and CLOCK_BOOTTIME, which goes on during suspend.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanos)
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        let clock = *self;
        Box::pin(async move {
            loop {
                let left = at.saturating_sub(clock.monotonic());
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(MAX_NAP)).await;
            }
        })
    }
}

/// Starts tasks on the current run time and ends all of them together.
#[derive(Debug, Clone, Default)]
pub struct TaskSpawner {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl TaskSpawner {
    /// Ends every task at its next await, and waits until they are gone or `deadline` has passed. Tasks that are
    /// started afterwards end at once.
    pub async fn shutdown(&self, deadline: Duration) {
        self.stop.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(deadline, self.tracker.wait()).await;
    }

    /// Starts a task that ends with the others; for the doors, which need no port.
    pub fn start(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = tokio::spawn(async move {
            stop.run_until_cancelled(task).await;
        });
        self.tracker.spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(task = name, %error, "task failed");
            }
        });
    }
}

impl Spawner for TaskSpawner {
    fn spawn(&self, name: &'static str, task: BoxFuture<()>) {
        self.start(name, task);
    }
}

/// Randomness of the operating system.
#[derive(Debug, Clone)]
pub struct SystemRng {
    source: SystemRandom,
}

impl SystemRng {
    /// The operating system's source.
    pub fn new() -> Self {
        Self {
            source: SystemRandom::new(),
        }
    }
}

impl Default for SystemRng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng for SystemRng {
    fn fill(&self, bytes: &mut [u8]) {
        self.source
            .fill(bytes)
            .expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct SetWhenDropped(Arc<AtomicBool>);

    impl Drop for SetWhenDropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_shutdown_ends_every_task() {
        let spawner = TaskSpawner::default();
        let gone = Arc::new(AtomicBool::new(false));
        let guard = SetWhenDropped(Arc::clone(&gone));
        spawner.spawn(
            "endless",
            Box::pin(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }),
        );
        spawner.shutdown(Duration::from_secs(10)).await;
        assert!(gone.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn the_clock_reaches_what_is_slept_until() {
        let clock = SystemClock;
        let at = clock.monotonic() + Duration::from_millis(20);
        clock.sleep_until(at).await;
        assert!(clock.monotonic() >= at);
        assert!(clock.now_ms() > 1_700_000_000_000);
    }
}
