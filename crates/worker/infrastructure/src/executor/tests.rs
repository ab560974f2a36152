#![allow(clippy::unwrap_used)]

use std::time::Instant;

use hodei_shared::ids::{AttemptKey, JobId, Lease, Rank};
use hodei_worker_domain::assignment::Command;

use super::*;

fn shell(script: &str) -> Arc<Assignment> {
    let key = AttemptKey {
        job: JobId::from_bytes([42; 16]),
        lease: Lease(1),
        rank: Rank(0),
    };
    let argv = ["/bin/sh", "-c", script].map(str::to_owned);
    Arc::new(Assignment::new(key, Command::Argv(argv.into())))
}

fn executor(attempts: &std::path::Path, slots: u32) -> ProcessExecutor {
    ProcessExecutor::new(ExecutorConfig {
        attempts: attempts.to_owned(),
        worker_id: format!("unit-{}", std::process::id()),
        slots,
        ..ExecutorConfig::default()
    })
    .unwrap()
}

#[tokio::test]
async fn without_pipes_nothing_is_started_and_the_slot_stays_free() {
    let base = tempfile::tempdir().unwrap();
    let executor = executor(base.path(), 1);
    let trace = base.path().join("trace");
    let script = format!("touch {}", trace.display());
    let no_pipes = |_: &_| Err(io::Error::other("no room to watch them"));
    let failure = executor.start_with(shell(&script), no_pipes).await.err().unwrap();
    assert!(failure.message.contains("no room to watch them"), "{failure}");
    executor.settle(Duration::from_secs(10));
    assert!(!trace.exists());
    let end = executor.start(shell("exit 4")).await.unwrap().exit.await;
    assert_eq!(end, ProcessEnd::Exited(4));
}

#[tokio::test]
async fn a_process_that_can_not_be_watched_holds_up_nobody() {
    let base = tempfile::tempdir().unwrap();
    let mut stack = Stack::new().unwrap();
    let (null, root) = (File::open("/dev/null").unwrap(), File::open(base.path()).unwrap());
    let text = |text: &str| CString::new(text).unwrap();
    let child = spawn(
        &mut stack,
        &Spawn {
            program: text("/bin/sh"),
            argv: ["sh", "-c", "sleep 1; exit 6"].map(text).into(),
            env: vec![text("PATH=/usr/bin:/bin")],
            workdir: root.as_fd(),
            stdio: [null.as_fd(); 3],
            cgroup: None,
            descriptors: None,
        },
    )
    .unwrap();
    let start = Instant::now();
    let pidfd = Arc::new(child.pidfd);
    let waiting = wait_for_end(&pidfd, Err(io::Error::other("not here")));
    // On the same thread.
    let other = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        start.elapsed()
    };
    let (end, other) = tokio::join!(waiting, other);
    assert_eq!(end, ProcessEnd::Exited(6));
    assert!(other < Duration::from_millis(900), "{other:?}");
}

#[tokio::test]
async fn without_cgroups_there_is_one_slot() {
    let base = tempfile::tempdir().unwrap();
    let executor = executor(base.path(), 3);
    assert_eq!(executor.slots(), 1);
    let first = executor.start(shell("sleep 0.3")).await.unwrap();
    let second = executor.start(shell("exit 2"));
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(early.is_err(), "one job at a time");
    first.exit.await;
    assert_eq!(second.await.unwrap().exit.await, ProcessEnd::Exited(2));
}
