//! How many descriptors the worker may have open, what its jobs get of that, and how many jobs it is enough for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the worker itself needs: its streams, its run time, its connections to servers, its folders.
const OWN: u64 = 36;
/// What one job needs of the worker: three of its cgroup, three pipes, its process, its spool, and what is open while
/// it is being started.
const PER_SLOT: u64 = 11;

/// The limits of the worker and of its jobs.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors {
    own: u64,
    /// What jobs get, if that is not the worker's own.
    jobs: Option<Rlimit>,
}

impl Descriptors {
    /// Raises this process's limit as far as it may; its jobs keep what it was.
    pub fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        let wanted = Rlimit {
            current: before.maximum,
            ..before
        };
        let raised = before.current != before.maximum && setrlimit(Resource::Nofile, wanted).is_ok();
        let now = if raised { wanted } else { before };
        Self {
            own: now.current.unwrap_or(u64::MAX),
            jobs: raised.then_some(before),
        }
    }

    /// For how many jobs at once there are descriptors; at least one.
    pub fn slots(&self) -> u32 {
        let fit = self.own.saturating_sub(OWN) / PER_SLOT;
        u32::try_from(fit).unwrap_or(u32::MAX).max(1)
    }

    /// What a job's process has to set; none where it has it already.
    pub(crate) fn of_jobs(&self) -> Option<Rlimit> {
        self.jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_are_enough_for_few_jobs() {
        for (own, slots) in [(64, 2), (256, 20), (1_024, 89), (u64::MAX, u32::MAX)] {
            assert_eq!(Descriptors { own, jobs: None }.slots(), slots, "{own}");
        }
    }
}
