//! What the process does to itself before anything else.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use crate::settings::Mode;

/// Keeps other processes of the same user out of the memory, and the memory out of core files.
pub(crate) fn protect_memory() {
    let no_core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| setrlimit(Resource::Core, no_core));
    if let Err(error) = hidden {
        tracing::warn!(%error, "the memory of this process could not be protected");
    }
}

/// Raises the number of descriptors to what is allowed, at most to what is `useful`; how many there are then. Jobs
/// inherit it, so a server that lives in a command leaves it alone.
pub(crate) fn raise_descriptors(mode: Mode, useful: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current.unwrap_or(u64::MAX);
    let useful = u64::try_from(useful).unwrap_or(u64::MAX);
    let possible = limit.maximum.unwrap_or(u64::MAX).min(useful);
    let raised = Rlimit {
        current: Some(possible),
        ..limit
    };
    let count = match mode {
        Mode::Dev | Mode::Server if now < possible && setrlimit(Resource::Nofile, raised).is_ok() => possible,
        _ => now,
    };
    usize::try_from(count).unwrap_or(usize::MAX)
}
