//! Stops and what they leave time for; slots; the runtime's own threads.

use super::*;

#[tokio::test]
async fn a_tree_whose_main_process_dies_first_has_its_grace() {
    for bench in benches("grace") {
        let script =
            "(trap 'sleep 0.4; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.05; done) & wait";
        let mut process = bench.start(bench.shell(script)).await.unwrap();
        assert_eq!(line(&mut process).await, "ready\n");
        process.control.signal(Signal::Term);
        let control = Arc::clone(&process.control);
        let outcome = finish(process).await;
        assert_eq!(
            (outcome.end, outcome.stdout.as_slice()),
            (ProcessEnd::Signalled(15), &b"cleaned\n"[..])
        );
        assert!(!control.ended_by_itself());
    }
}

#[tokio::test]
async fn a_grace_ends_with_the_kill() {
    for bench in benches("over") {
        let script = "setsid sleep 600 & (trap '' TERM; echo ready; sleep 600; sleep 600) & sleep 600";
        let mut process = bench.start(bench.shell(script)).await.unwrap();
        assert_eq!(line(&mut process).await, "ready\n");
        process.control.signal(Signal::Term);
        let waited = tokio::time::timeout(Duration::from_millis(400), &mut process.exit).await;
        assert!(waited.is_err(), "what ignores TERM has its grace");
        process.control.signal(Signal::Kill);
        assert_eq!(finish(process).await.end, ProcessEnd::Signalled(15));
    }
}

#[tokio::test]
async fn a_stop_that_comes_after_the_main_process_is_too_late() {
    for bench in benches("late") {
        let file = bench.base.path().join("pid");
        let script = format!("sleep 600 & echo $$ > {}", file.display());
        let process = bench.start(bench.shell(&script)).await.unwrap();
        // Nothing else of this thread's runtime runs meanwhile, so the end is not followed yet.
        let start = Instant::now();
        while !fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n') && !is_alive(pid.trim())) {
            assert!(start.elapsed() < LIMIT, "the main process ends");
        }
        process.control.signal(Signal::Term);
        let control = Arc::clone(&process.control);
        assert_eq!(finish(process).await.end, ProcessEnd::Exited(0));
        assert!(control.ended_by_itself());
    }
}

#[tokio::test]
async fn term_reaches_the_cgroups_that_a_job_makes() {
    let bench = benches("inner").remove(0);
    if !bench.executor.enforced().contains(&"cgroup_kill".to_owned()) {
        return;
    }
    let script = "root=$(awk '$3 == \"cgroup2\" { print $2; exit }' /proc/self/mounts); \
                  inner=$root$(sed -n 's/^0:://p' /proc/self/cgroup)/inner; mkdir $inner || exit 9; \
                  sh -c 'echo $$ > '$inner'/cgroup.procs; trap \"echo told; exit\" TERM; echo ready; \
                  while :; do sleep 0.05; done' & trap 'wait; exit 5' TERM; wait";
    let mut process = bench.start(bench.shell(script)).await.unwrap();
    assert_eq!(line(&mut process).await, "ready\n");
    process.control.signal(Signal::Term);
    let outcome = finish(process).await;
    assert_eq!(
        (outcome.end, outcome.stdout.as_slice()),
        (ProcessEnd::Exited(5), &b"told\n"[..])
    );
}

/// The bytes that this thread has read and written; none where the kernel does not count them.
fn own_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/io").ok()?;
    let counted = text
        .lines()
        .filter(|line| line.starts_with("rchar") || line.starts_with("wchar"));
    Some(
        counted
            .filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok())
            .sum(),
    )
}

#[tokio::test]
async fn a_full_spool_does_not_use_the_runtimes_own_threads() {
    let Some(before) = own_bytes() else { return };
    let base = tempfile::tempdir().unwrap();
    let spool = FileSpools::new(open_folder(base.path())).open(AttemptKey {
        job: JobId::from_bytes([1; 16]),
        lease: Lease(1),
        rank: Rank(0),
    });
    for _ in 0..32 {
        let chunk = Chunk {
            stream: Stream::Stdout,
            bytes: vec![1; 1 << 20],
            at_ms: 0,
        };
        spool.append(chunk).await.unwrap();
    }
    assert_eq!(spool.read(0, 8 << 20).await.unwrap().data.len(), 8 << 20);
    let used = own_bytes().unwrap() - before;
    assert!(used < 1 << 20, "{used} bytes on the runtime's thread");
}

#[tokio::test]
async fn a_refused_cgroup_leaves_one_slot() {
    let Some(cgroups) = Cgroups::create(&format!("test-{}-threaded", std::process::id())) else {
        return;
    };
    let path = cgroups.path().to_owned();
    // Beside a threaded cgroup the others take no process.
    let other = path.join("other");
    fs::create_dir(&other).unwrap();
    if fs::write(other.join("cgroup.type"), "threaded").is_err() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let config = ExecutorConfig {
        attempts: base.path().to_owned(),
        slots: 3,
        cgroups: Some(cgroups),
        ..ExecutorConfig::default()
    };
    let executor = ProcessExecutor::new(config).unwrap();
    assert_eq!(executor.slots(), 1);
    assert!(!executor.enforced().contains(&"cgroup_kill".to_owned()));
    assert!(!path.exists(), "the folder of cgroups is gone");
}
