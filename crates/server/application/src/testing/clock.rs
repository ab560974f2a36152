//! A clock that is turned by hand.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::ports::{BoxFuture, Clock};

/// Time stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    time: watch::Sender<Time>,
}

#[derive(Debug, Clone, Copy)]
struct Time {
    wall_ms: i64,
    monotonic: Duration,
}

impl ManualClock {
    /// A clock whose wall shows `now_ms`.
    pub fn at(now_ms: i64) -> Arc<Self> {
        let time = Time {
            wall_ms: now_ms,
            monotonic: Duration::ZERO,
        };
        Arc::new(Self {
            time: watch::Sender::new(time),
        })
    }

    /// Moves both times on; sleepers whose time has come wake up.
    pub fn advance(&self, by: Duration) {
        self.time.send_modify(|time| {
            time.wall_ms += i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            time.monotonic += by;
        });
    }

    /// Sets the wall alone, as an administrator would.
    pub fn set_wall(&self, now_ms: i64) {
        self.time.send_modify(|time| time.wall_ms = now_ms);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.time.borrow().wall_ms
    }

    fn monotonic(&self) -> Duration {
        self.time.borrow().monotonic
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        let mut time = self.time.subscribe();
        Box::pin(async move {
            if time.wait_for(|time| time.monotonic >= at).await.is_err() {
                // The clock is gone: its time never comes.
                pending::<()>().await;
            }
        })
    }
}
