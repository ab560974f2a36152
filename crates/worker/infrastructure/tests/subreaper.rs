//! A worker without a namespace and without cgroups, alone in its process: orphans come back to it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use hodei_shared::ids::{AttemptKey, JobId, Lease, Rank};
use hodei_worker_application::ports::Executor;
use hodei_worker_domain::assignment::{Assignment, Command};
use hodei_worker_infrastructure::executor::{ExecutorConfig, ProcessExecutor};

#[tokio::test]
async fn what_has_wiped_its_environment_and_lost_its_parent_is_killed_too() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let base = tempfile::tempdir().unwrap();
    let config = ExecutorConfig {
        attempts: base.path().to_owned(),
        slots: 1,
        ..ExecutorConfig::default()
    };
    let executor = ProcessExecutor::new(config).unwrap();
    let file = base.path().join("pid");
    let script = format!(
        "(env -i setsid /bin/sh -c '(echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600) &' &) ; \
         while ! test -e {0}; do sleep 0.01; done; sleep 0.1",
        file.display()
    )
    .replace("echo $$", "exec 3</proc/self/stat; read -r own _ <&3; echo $own");
    let key = AttemptKey {
        job: JobId::from_bytes([3; 16]),
        lease: Lease(1),
        rank: Rank(0),
    };
    let argv = ["/bin/sh", "-c", &script].map(str::to_owned);
    let assignment = Assignment::new(key, Command::Argv(argv.into()));
    executor.start(Arc::new(assignment)).await.unwrap().exit.await;
    let pid = std::fs::read_to_string(&file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    assert!(state.is_empty() || state.starts_with('Z'), "it lives: {stat}");
}
