//! When work that somebody else may repeat has to be over.
//!
//! The worker counts from the SENDING of its last answered beat, so its deadline always lies before the moment at
//! which the server, which counts from having seen that beat, gives the attempt away.

use std::time::Duration;

use crate::assignment::Assignment;

/// How long before `lost_after` the last process of a repeatable attempt must be dead: 5 s for the kill itself and
/// 1/500 for clocks that run at different speeds.
pub fn margin(lost_after: Duration) -> Duration {
    Duration::from_secs(5) + lost_after / 500
}

/// When an attempt's processes are sent TERM and KILL, on the worker's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// TERM, and the last moment at which the attempt may start.
    pub term: Duration,
    /// KILL.
    pub kill: Duration,
}

/// The deadlines of `assignment` when the last answered beat was sent at `base`.
///
/// A grace of more than half of the time is shortened to that half, so that no attempt is stopped at once.
pub fn deadlines(base: Duration, assignment: &Assignment) -> Deadlines {
    let time = assignment
        .lost_after
        .saturating_sub(margin(assignment.lost_after));
    let kill = base + time;
    Deadlines {
        term: kill - assignment.grace.min(time / 2),
        kill,
    }
}

#[cfg(test)]
mod tests {
    use hodei_shared::ids::{AttemptKey, JobId, Lease, Rank};

    use super::*;
    use crate::assignment::Command;

    #[test]
    fn deadlines_lie_before_the_loss() {
        let key = AttemptKey {
            job: JobId::from_bytes([0; 16]),
            lease: Lease(1),
            rank: Rank(0),
        };
        let mut assignment = Assignment::new(key, Command::Argv(vec!["true".into()]));
        let secs = Duration::from_secs;
        for (lost_after, grace, term, kill) in [
            (
                secs(300),
                secs(10),
                secs(1284) + Duration::from_millis(400),
                secs(1294) + Duration::from_millis(400),
            ),
            (secs(500), secs(0), secs(1494), secs(1494)),
            (
                secs(1000),
                secs(4000),
                secs(1000) + Duration::from_millis(496_500),
                secs(1993),
            ),
            (secs(3), secs(1), secs(1000), secs(1000)),
        ] {
            assignment.lost_after = lost_after;
            assignment.grace = grace;
            assert_eq!(
                deadlines(secs(1000), &assignment),
                Deadlines { term, kill },
                "{lost_after:?} {grace:?}"
            );
        }
    }
}
