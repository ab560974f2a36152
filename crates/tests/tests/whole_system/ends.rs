//! How jobs end by themselves and by their time-out.

use hodei_jobs::v1::JobSpec;
use hodei_jobs::v1::JobState::{Failed, Succeeded, TimedOut};

use crate::client::{assert_end, sh};
use crate::platform::{Platform, long_sleep};
use crate::processes;

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_those_of_the_process() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let child = long_sleep();
    let ends = [
        ("exit 0", (Succeeded, Some(0), None, "exit_code")),
        ("exit 1", (Failed, Some(1), None, "exit_code")),
        ("exit 7", (Failed, Some(7), None, "exit_code")),
        ("exit 255", (Failed, Some(255), None, "exit_code")),
        ("kill -KILL $$", (Failed, None, Some(9), "signal")),
        ("kill -TERM $$", (Failed, None, Some(15), "signal")),
        ("kill -ABRT $$", (Failed, None, Some(6), "signal")),
    ];
    let mut jobs = Vec::new();
    for (line, end) in ends {
        // What it leaves behind ends with it.
        let job = client
            .queue(sh(format!("setsid sleep {child} & echo up; {line}")))
            .await;
        jobs.push((job, end));
    }
    for (job, end) in jobs {
        let ended = client.ended(&job).await;
        assert_eq!(processes::of_job(&job), [0; 0], "{end:?}");
        assert_end(&ended, end);
        let attempt = &ended.attempts[0];
        assert_eq!(
            (attempt.exit_code, attempt.signal, attempt.reason.as_str()),
            (end.1, end.2, end.3)
        );
        assert_eq!(client.output(&job, 1).await.text(), "up\n");
    }
    assert_eq!(processes::with_argument(&child), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_out_ends_the_whole_tree_and_is_not_repeated() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let child = long_sleep();
    let lines = [
        format!("sleep {child}"),
        format!("trap '' TERM; setsid sleep {child} & sleep {child}"),
        format!("trap 'echo ending; exit 0' TERM; setsid sleep {child} & while :; do sleep 0.05; done"),
    ];
    let mut jobs = Vec::new();
    for line in &lines {
        let spec = JobSpec {
            timeout_ms: 700,
            grace_ms: Some(500),
            retries: 3,
            ..sh(line)
        };
        jobs.push(client.queue(spec).await);
    }
    for (job, line) in jobs.iter().zip(&lines) {
        let ended = client.ended(job).await;
        assert_eq!(processes::of_job(job), [0; 0], "{line}");
        assert_end(&ended, (TimedOut, None, None, "timeout"));
        assert_eq!(ended.attempts.len(), 1, "{line}");
        let attempt = &ended.attempts[0];
        assert!(attempt.ended_at_ms - attempt.started_at_ms >= 700, "{attempt:?}");
    }
    assert_eq!(client.output(&jobs[2], 1).await.text(), "ending\n");
    assert_eq!(processes::with_argument(&child), [0; 0]);
}
