//! Removes ended jobs, their output and request ids when they are old, in small transactions between which others
//! have their turn. Objects whose last block goes are left to the collector.

use std::sync::Arc;
use std::time::Duration;

use super::Pass;
use crate::platform::Platform;
use crate::ports::retention::Expiry;
use crate::refused::Refused;

/// How many rows go in one transaction.
const MAX_ROWS: usize = 500;
/// How long others have their turn between two transactions.
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is looked for what is old.
const PERIOD: Duration = Duration::from_secs(60);
/// How long a request id stands for its job.
const SUBMISSIONS: Duration = Duration::from_secs(7 * 86_400);

/// The retention controller.
#[derive(Debug, Default)]
pub(crate) struct Retain {
    /// When to look next, monotonic.
    rests_until: Duration,
}

impl Pass for Retain {
    async fn pass(&mut self, platform: &Arc<Platform>) -> Result<Option<Duration>, Refused> {
        let now = platform.clock.monotonic();
        if now < self.rests_until {
            return Ok(None);
        }
        let now_ms = platform.clock.now_ms();
        let before =
            |age: Duration| now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let settings = &platform.settings;
        let all = [
            Expiry::Output {
                ended_before_ms: before(settings.keep_output),
            },
            Expiry::Jobs {
                ended_before_ms: before(settings.keep_jobs),
            },
            Expiry::Submissions {
                before_ms: before(SUBMISSIONS),
            },
        ];
        let mut removed = 0;
        for expiry in all {
            removed += platform.retention.expire(expiry, MAX_ROWS).await?;
        }
        if removed > 0 {
            tracing::debug!(rows = removed, "old rows removed");
            return Ok(Some(PAUSE));
        }
        self.rests_until = now + PERIOD;
        Ok(None)
    }
}
