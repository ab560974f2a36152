//! The end of `dev`: what runs ends, what waits is kept, and no worker is left.

use hodei_jobs::v1::{AttemptState, JobSpec, JobState};

use crate::client::{assert_end, sh};
use crate::platform::{Platform, cgroups, long_sleep};
use crate::processes;

#[tokio::test(flavor = "multi_thread")]
async fn running_jobs_end_and_queued_ones_are_kept() {
    let mut platform = Platform::start().await;
    let client = platform.client().await;
    let child = long_sleep();
    let running = client
        .queue(sh(format!("echo up; setsid sleep {child} & sleep {child}")))
        .await;
    let tidies = client
        .queue(sh(
            "trap 'echo tidy; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        ))
        .await;
    let nowhere = JobSpec {
        constraints: vec!["zone in (nowhere)".to_owned()],
        ..sh("true")
    };
    let queued = client.queue(nowhere).await;
    client.running(&running).await;
    client.running(&tidies).await;
    let workers = platform.workers();
    assert!(!workers.is_empty());
    let by_cgroup =
        |worker: &hodei_jobs::v1::Worker| worker.enforced.iter().any(|what| what == "cgroup_kill");
    if client.workers().await.iter().any(by_cgroup) {
        assert!(
            workers.iter().any(|worker| !cgroups(&worker.id).is_empty()),
            "the cgroups are elsewhere"
        );
    }

    let status = platform.terminate_server().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(processes::below(&platform.data()), [0; 0]);
    assert_eq!(processes::with_argument(&child), [0; 0]);
    assert!(
        platform.worker_folders().is_empty(),
        "{:?}",
        platform.worker_folders()
    );
    for worker in &workers {
        assert!(cgroups(&worker.id).is_empty(), "{:?}", cgroups(&worker.id));
    }

    platform.start_server().await;
    let client = platform.client().await;
    for job in [&running, &tidies] {
        let ended = client.ended(job).await;
        assert_end(&ended, (JobState::Cancelled, None, None, "cancelled"));
        assert_eq!(ended.attempts.len(), 1);
        assert_eq!(ended.attempts[0].state(), AttemptState::Cancelled);
    }
    assert_eq!(client.output(&tidies, 1).await.text(), "up\ntidy\n");
    let kept = client.get(&queued).await;
    assert_eq!(
        (kept.state(), kept.attempts.len(), kept.cancel_requested),
        (JobState::Queued, 0, false)
    );
    let next = client.ended(&client.queue(sh("true")).await).await;
    assert_end(&next, (JobState::Succeeded, Some(0), None, "exit_code"));
}

/// What every other test relies on when it fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_fails_leaves_nothing() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let child = long_sleep();
    let job = client
        .queue(sh(format!(
            "trap '' TERM; echo up; setsid sleep {child} & sleep {child}"
        )))
        .await;
    client.running(&job).await;
    let (data, workers) = (platform.data(), platform.workers());
    assert!(processes::below(&data).len() >= 3 && !workers.is_empty());
    tokio::task::spawn_blocking(move || drop(platform))
        .await
        .expect("dropped");
    assert_eq!(processes::below(&data), [0; 0]);
    assert_eq!(processes::with_argument(&child), [0; 0]);
    assert!(!data.exists() && workers.iter().all(|worker| cgroups(&worker.id).is_empty()));
}
