//! A server that is killed and comes back: its workers and their jobs go on.

use std::path::Path;
use std::time::Duration;

use hodei_jobs::v1::{JobSpec, JobState};

use crate::client::{assert_end, sh};
use crate::platform::{Platform, eventually};
use crate::processes;

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_runs_twice_and_no_line_is_lost_or_doubled() {
    const JOBS: usize = 8;
    const LINES: usize = 25;
    let mut platform = Platform::start().await;
    let client = platform.client().await;
    let ran = |n: usize| platform.path(&format!("ran.{n}"));
    let mut jobs = Vec::new();
    for n in 0..JOBS {
        let line = format!(
            "echo started >> {ran}; i=0; while test $i -lt {LINES}; do i=$((i+1)); echo {n}-$i; echo {n}-$i >&2; echo $i >> {ran}.lines; sleep 0.1; done",
            ran = ran(n).display()
        );
        jobs.push(client.queue(sh(line)).await);
    }
    for job in &jobs {
        client.running(job).await;
    }
    let printed: Vec<_> = (0..JOBS)
        .map(|n| platform.path(&format!("ran.{n}.lines")))
        .collect();
    let workers = platform.workers();
    platform.kill_server();
    let before: Vec<_> = printed.iter().map(|path| lines(path)).collect();
    assert!(
        before.iter().any(|lines| *lines < LINES),
        "all had ended: {before:?}"
    );
    // Some end while no server is there, with a result that is to be kept.
    eventually("some end without a server", || {
        printed.iter().any(|path| lines(path) == LINES)
    })
    .await;
    let late = lines(&printed[0]);
    platform.start_server().await;
    let client = platform.client().await;
    for (n, job) in jobs.iter().enumerate() {
        let ended = client.ended(job).await;
        assert_end(&ended, (JobState::Succeeded, Some(0), None, "exit_code"));
        assert_eq!(
            (ended.attempts.len(), ended.attempts[0].lease),
            (1, 1),
            "{ended:?}"
        );
        let ran = std::fs::read_to_string(platform.path(&format!("ran.{n}"))).expect("it ran");
        assert_eq!(ran, "started\n", "job {n}");
        let want: String = (1..=LINES).map(|i| format!("{n}-{i}\n")).collect();
        let output = client.output(job, 1).await;
        assert_eq!(output.text(), want, "{late} lines when the server came back");
        assert_eq!(output.stderr, want.as_bytes());
        assert!(output.complete);
    }
    assert_eq!(platform.workers(), workers, "the same workers");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absence_of_two_certificate_lives_costs_no_attempt() {
    const LIFE: Duration = Duration::from_secs(4);
    let mut platform = Platform::with_certificate_life(LIFE).await;
    let client = platform.client().await;
    let (ticks, stop, go) = (platform.path("ticks"), platform.path("stop"), platform.path("go"));
    let goes_on = client
        .queue(sh(format!(
            "i=0; while test $i -lt 2000 && ! test -e {}; do echo tick $i; echo >> {}; i=$((i+1)); sleep 0.2; done; echo end",
            stop.display(),
            ticks.display()
        )))
        .await;
    let ends_meanwhile = client
        .queue(sh(format!(
            "echo early; while ! test -e {}; do sleep 0.1; done; echo late; exit 3",
            go.display()
        )))
        .await;
    client.running(&goes_on).await;
    client.running(&ends_meanwhile).await;
    let workers = platform.workers();
    platform.kill_server();

    std::fs::write(&go, "").expect("written");
    let ticks_away = 2 * usize::try_from(LIFE.as_millis() / 200).expect("few");
    let before = lines(&ticks);
    eventually("two lives have passed", || lines(&ticks) > before + ticks_away).await;
    platform.start_server().await;
    let client = platform.client().await;
    let ended = client.ended(&ends_meanwhile).await;
    assert_end(&ended, (JobState::Failed, Some(3), None, "exit_code"));
    assert_eq!(client.output(&ends_meanwhile, 1).await.text(), "early\nlate\n");

    std::fs::write(&stop, "").expect("written");
    let same = client.ended(&goes_on).await;
    assert_end(&same, (JobState::Succeeded, Some(0), None, "exit_code"));
    for job in [&ended, &same] {
        let attempt = &job.attempts[0];
        assert_eq!(
            (job.attempts.len(), attempt.number, attempt.lease),
            (1, 1, 1),
            "{job:?}"
        );
    }
    let want: String = (0..lines(&ticks))
        .map(|n| format!("tick {n}\n"))
        .chain(["end\n".to_owned()])
        .collect();
    let output = client.output(&goes_on, 1).await;
    assert_eq!(output.text(), want);
    assert!(output.complete);
    // The worker is as good as before.
    let next = client.ended(&client.queue(sh("true")).await).await;
    assert_end(&next, (JobState::Succeeded, Some(0), None, "exit_code"));
    assert!(
        workers
            .iter()
            .any(|worker| worker.id == next.attempts[0].worker_id),
        "{next:?}"
    );
}

/// Again and again, at moments of a job's way that are a little later each time.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_its_way_runs_once() {
    let mut platform = Platform::start().await;
    let mut jobs = Vec::new();
    for looks in 0..6 {
        let client = platform.client().await;
        let ran = platform.path(&format!("ran.{looks}"));
        let line = format!("echo $HODEI_ATTEMPT >> {}; echo out", ran.display());
        let job = client.queue(sh(line)).await;
        for _ in 0..looks {
            client.get(&job).await;
        }
        platform.kill_server();
        platform.start_server().await;
        jobs.push((job, ran));
    }
    let client = platform.client().await;
    for (job, ran) in jobs {
        let ended = client.ended(&job).await;
        assert_end(&ended, (JobState::Succeeded, Some(0), None, "exit_code"));
        assert_eq!(std::fs::read_to_string(&ran).expect("it ran"), "1\n", "{ended:?}");
        assert_eq!(client.output(&job, 1).await.text(), "out\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_being_made_is_made_anew() {
    let mut platform = Platform::start().await;
    let client = platform.client().await;
    let job = client.queue(sh("echo done")).await;
    eventually("its process is there", || !platform.worker_folders().is_empty()).await;
    platform.kill_server();
    platform.start_server().await;
    let client = platform.client().await;
    let ended = client.ended(&job).await;
    assert_end(&ended, (JobState::Succeeded, Some(0), None, "exit_code"));
    assert_eq!(
        (ended.attempts.len(), client.output(&job, 1).await.text()),
        (1, "done\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_meanwhile_is_found_lost() {
    let mut platform = Platform::start().await;
    let client = platform.client().await;
    let line = "echo attempt $HODEI_ATTEMPT; test $HODEI_ATTEMPT = 2 || sleep 600";
    let again = client
        .queue(JobSpec {
            retries: 1,
            ..sh(line)
        })
        .await;
    let never = client.queue(sh("echo up; sleep 600")).await;
    client.running(&again).await;
    client.running(&never).await;
    platform.kill_server();
    platform
        .workers()
        .iter()
        .for_each(|worker| processes::kill(worker.stub));
    platform.start_server().await;
    let client = platform.client().await;
    let lost = client.ended(&never).await;
    assert_eq!(processes::of_job(&never), [0; 0]);
    assert_end(&lost, (JobState::Failed, None, None, "lost"));
    let repeated = client.ended(&again).await;
    assert_end(&repeated, (JobState::Succeeded, Some(0), None, "exit_code"));
    assert_eq!(repeated.attempts.len(), 2);
    assert_eq!(client.output(&again, 2).await.text(), "attempt 2\n");
}
