//! A panic is an error like others, with the exit status of those. The run time panics where it can start no thread.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use anyhow::{Result, anyhow};

/// How the run time says that it has no threads.
const NO_THREAD: &str = "OS can't spawn worker thread";

/// Whether `count` threads can be started at once. The run time hangs where some of its own can not.
///
/// # Errors
/// Why not.
pub(crate) fn can_start_threads(count: usize) -> std::io::Result<()> {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let wait = || drop(held.lock().map(|held| held.recv()));
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, wait).map(drop);
        let started = (0..count).try_for_each(start);
        // Now they end, and are waited for.
        drop(hold);
        started
    })
}

/// Runs `work`; a panic in it becomes an error. One for want of threads is said in one line, others as ever.
///
/// # Errors
/// Those of `work`, and a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if !said.starts_with(NO_THREAD) {
            before(panic);
        }
    }));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let said = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(match said.strip_prefix(NO_THREAD) {
            Some(reason) => anyhow!(
                "can not start threads{reason}; look at `ulimit -u` and at how many processes there are"
            ),
            None => anyhow!("this is a defect of hodei: {said}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_threads_can_be_started() {
        can_start_threads(8).expect("this machine has room");
    }

    #[test]
    fn a_panic_is_an_error() {
        assert_eq!(caught(|| Ok(3)).expect("no panic"), 3);
        let no_thread = caught::<()>(|| panic!("{NO_THREAD}: {}", "try again"));
        let said = no_thread.expect_err("it panicked").to_string();
        assert!(said.starts_with("can not start threads: try again; "), "{said}");
        let other = caught::<()>(|| panic!("odd")).expect_err("it panicked");
        assert!(other.to_string().contains("odd"));
    }
}
