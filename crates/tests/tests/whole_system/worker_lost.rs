//! A worker that is killed: its jobs are lost at once, on the provider's proof, and nothing of them is left.

use hodei_jobs::v1::{AttemptState, JobSpec, JobState};

use crate::client::{assert_end, sh};
use crate::platform::{Platform, Worker, cgroups, eventually, long_sleep};
use crate::processes;

/// Kills what `victims` names of each worker.
async fn lose_workers(victims: fn(&Worker) -> Vec<u32>) {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let first = client.queue(sh("true")).await;
    client.ended(&first).await;
    let enforced = client.workers().await.pop().expect("a worker").enforced;
    let contained = enforced
        .iter()
        .any(|what| what == "pid_namespace" || what == "cgroup_kill");
    // Where nothing contains a job, a process is found by its environment.
    let (child, clean) = (long_sleep(), if contained { "env -i" } else { "" });
    let again = JobSpec {
        retries: 1,
        ..sh(format!(
            "echo attempt $HODEI_ATTEMPT; test $HODEI_ATTEMPT = 2 || {{ setsid sleep {child} & sleep {child}; }}"
        ))
    };
    let again = client.queue(again).await;
    let never = client
        .queue(sh(format!(
            "setsid {clean} sleep {child} & echo up; sleep {child}"
        )))
        .await;
    client.running(&again).await;
    client.running(&never).await;
    eventually("four sleep", || processes::with_argument(&child).len() == 4).await;

    for pid in platform.workers().iter().flat_map(victims) {
        processes::kill(pid);
    }
    let lost = client.ended(&never).await;
    assert_eq!(processes::of_job(&never), [0; 0]);
    assert_end(&lost, (JobState::Failed, None, None, "lost"));
    // Its last word may be that it was told to end; else the provider has the proof.
    let worker = &lost.attempts[0].worker_id;
    let said = [
        format!("worker {worker} is gone"),
        "the worker stopped the process".to_owned(),
    ];
    assert!(
        said.iter().any(|said| lost.message.contains(said)),
        "{}",
        lost.message
    );
    assert_eq!(lost.attempts.len(), 1);
    assert_eq!(lost.attempts[0].state(), AttemptState::Lost);

    let repeated = client.ended(&again).await;
    assert_end(&repeated, (JobState::Succeeded, Some(0), None, "exit_code"));
    let states: Vec<_> = repeated.attempts.iter().map(|attempt| attempt.state()).collect();
    assert_eq!(states, [AttemptState::Lost, AttemptState::Succeeded]);
    assert_ne!(repeated.attempts[0].worker_id, repeated.attempts[1].worker_id);
    assert_eq!(client.output(&again, 2).await.text(), "attempt 2\n");
    assert_eq!(client.output(&again, 1).await.text(), "attempt 1\n");
    assert_eq!(processes::with_argument(&child), [0; 0]);
    eventually("nothing of the worker is left", || {
        platform
            .worker_folders()
            .iter()
            .all(|folder| !folder.ends_with(worker))
            && cgroups(worker).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_as_a_whole() {
    lose_workers(|worker| [Some(worker.stub), worker.init].into_iter().flatten().collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_outside_of_its_namespace_only() {
    lose_workers(|worker| vec![worker.stub]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_inside_of_its_namespace_only() {
    lose_workers(|worker| vec![worker.init.unwrap_or(worker.stub)]).await;
}
