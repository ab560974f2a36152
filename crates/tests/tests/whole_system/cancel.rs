//! A cancel at each moment of a job's life: one well-defined end, and no process is left.

use hodei_jobs::v1::JobState::{Assigned, Cancelled, Queued, Running, Succeeded};
use hodei_jobs::v1::{AttemptState, JobSpec};

use crate::client::{End, assert_end, sh};
use crate::platform::{Platform, eventually, long_sleep};
use crate::processes;

const CANCELLED: End = (Cancelled, None, None, "cancelled");

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_waits() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let nowhere = JobSpec {
        constraints: vec!["zone in (nowhere)".to_owned()],
        ..sh("true")
    };
    let queued = client.queue(nowhere).await;
    assert_eq!(client.get(&queued).await.state(), Queued);
    let answer = client.cancel(&queued).await;
    assert_end(&answer, CANCELLED);
    let ended = client.ended(&queued).await;
    assert_eq!(ended, answer);
    assert!(
        ended.attempts.is_empty() && ended.message.contains("a test wants it"),
        "{ended:?}"
    );
    // Once more changes nothing.
    assert_eq!(client.cancel(&queued).await, ended);

    let fails = client
        .queue(JobSpec {
            retries: 9,
            ..sh("exit 1")
        })
        .await;
    let waits = client
        .until(&fails, "it is to be repeated", |job| job.reason == "backing_off")
        .await;
    assert_end(&client.cancel(&fails).await, CANCELLED);
    let ended = client.ended(&fails).await;
    assert!(ended.attempts.len() >= waits.attempts.len());
    assert!(
        ended
            .attempts
            .iter()
            .all(|attempt| attempt.state() == AttemptState::Failed),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_whose_worker_is_planned() {
    without_a_worker(|_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_whose_worker_is_being_made() {
    without_a_worker(|platform| !platform.workers().is_empty()).await;
}

/// Cancels the first job of a platform once `now` holds.
async fn without_a_worker(now: impl Fn(&Platform) -> bool) {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let child = long_sleep();
    let job = client
        .queue(sh(format!("setsid sleep {child} & sleep {child}")))
        .await;
    eventually("its worker is so far", || now(&platform)).await;
    client.cancel(&job).await;
    let ended = client.ended(&job).await;
    assert_eq!(processes::with_argument(&child), [0; 0]);
    assert_end(&ended, CANCELLED);
    assert!(
        ended
            .attempts
            .iter()
            .all(|attempt| attempt.state() == AttemptState::Cancelled),
        "{ended:?}"
    );
    // The platform is as good as before.
    let next = client.ended(&client.queue(sh("true")).await).await;
    assert_end(&next, (Succeeded, Some(0), None, "exit_code"));
}

/// The worker can not stop it any more; that it is gone is enough.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_whose_worker_is_lost_meanwhile() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let spec = sh("trap '' TERM; echo up; while :; do sleep 0.05; done");
    let job = client
        .queue(JobSpec {
            grace_ms: Some(3_600_000),
            retries: 5,
            ..spec
        })
        .await;
    client.running(&job).await;
    client.cancel(&job).await;
    platform
        .workers()
        .iter()
        .for_each(|worker| processes::kill(worker.stub));
    let ended = client.ended(&job).await;
    assert_eq!(processes::of_job(&job), [0; 0]);
    assert_end(&ended, CANCELLED);
    assert_eq!(ended.attempts.len(), 1);
}

/// Queued, claimed, sent, starting, running: each a little later than the one before, on a warm platform.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_is_about_to_start() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let warm = client.queue(sh("true")).await;
    client.ended(&warm).await;
    let child = long_sleep();
    let mut seen = Vec::new();
    for looks in (0..8).chain(0..8).chain(0..8) {
        let spec = JobSpec {
            grace_ms: Some(2_000),
            ..sh(format!("setsid sleep {child} & sleep {child}"))
        };
        let job = client.queue(spec).await;
        let mut state = Queued;
        for _ in 0..looks {
            state = client.get(&job).await.state();
        }
        assert!([Queued, Assigned, Running].contains(&state), "{state:?}");
        seen.push(state);
        client.cancel(&job).await;
        let ended = client.ended(&job).await;
        assert_eq!(processes::of_job(&job), [0; 0], "cancelled when {state:?}");
        assert_end(&ended, CANCELLED);
        let states: Vec<_> = ended.attempts.iter().map(|attempt| attempt.state()).collect();
        assert!(
            states.is_empty() || states == [AttemptState::Cancelled],
            "cancelled when {state:?}: {states:?}"
        );
    }
    assert_eq!(processes::with_argument(&child), [0; 0], "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_runs() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let child = long_sleep();
    let obeys = client
        .queue(sh(format!("echo up; setsid sleep {child} & sleep {child}")))
        .await;
    let spec = sh(format!(
        "trap '' TERM; echo up; setsid sleep {child} & sleep {child}"
    ));
    let ignores = client
        .queue(JobSpec {
            grace_ms: Some(300),
            retries: 5,
            ..spec
        })
        .await;
    for job in [&obeys, &ignores] {
        client.running(job).await;
        eventually("its tree is seen", || processes::of_job(job).len() >= 3).await;
        let answer = client.cancel(job).await;
        assert!(answer.cancel_requested);
    }
    for job in [&obeys, &ignores] {
        let ended = client.ended(job).await;
        assert_eq!(processes::of_job(job), [0; 0]);
        assert_end(&ended, CANCELLED);
        assert_eq!(ended.attempts.len(), 1);
        assert_eq!(ended.attempts[0].state(), AttemptState::Cancelled);
    }
    assert_eq!(processes::with_argument(&child), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_is_ending() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let line = "trap 'echo tidying; sleep 1; echo tidy; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let tidies = client.queue(sh(line)).await;
    client.running(&tidies).await;
    client.cancel(&tidies).await;
    client
        .until(&tidies, "it tidies up", |job| job.attempts[0].output_bytes > 3)
        .await;
    client.cancel(&tidies).await;
    let ended = client.ended(&tidies).await;
    assert_eq!(processes::of_job(&tidies), [0; 0]);
    assert_end(&ended, CANCELLED);
    assert_eq!(client.output(&tidies, 1).await.text(), "up\ntidying\ntidy\n");

    let ended = client.ended(&client.queue(sh("true")).await).await;
    assert_eq!(client.cancel(&ended.id).await, ended, "an end never changes");
}

/// A cancel that meets the end: whichever comes first, and only one of them.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_ends_at_that_moment() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    client.ended(&client.queue(sh("true")).await).await;
    for looks in (0..10).chain(0..10) {
        let job = client.queue(sh("echo done")).await;
        for _ in 0..looks {
            client.get(&job).await;
        }
        let answer = client.cancel(&job).await;
        let ended = client.ended(&job).await;
        match ended.state() {
            Succeeded => {
                assert_end(&ended, (Succeeded, Some(0), None, "exit_code"));
                assert_eq!(client.output(&job, 1).await.text(), "done\n");
            }
            _ => assert_end(&ended, CANCELLED),
        }
        assert!(
            answer.ended_at_ms == 0 || answer == ended,
            "{answer:?} became {ended:?}"
        );
        assert_eq!(processes::of_job(&job), [0; 0]);
    }
}

/// Where there are cgroups, a job of root could move a child into the hierarchy's root and let it outlive itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_not_leave_its_cgroup() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let seconds = long_sleep();
    let script = format!(
        "for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/unified/cgroup.procs; do \
         sh -c \"echo \\$\\$ > $procs && exec setsid sleep {seconds}\" >/dev/null 2>&1 & done; sleep 0.3; exit 0"
    );
    let job = client.queue(sh(&script)).await;
    client.ended(&job).await;
    eventually("nothing of the job is left", || {
        processes::with_argument(&seconds).is_empty()
    })
    .await;
}
