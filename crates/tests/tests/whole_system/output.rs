//! Output: every byte, for every reader, in few messages.

use hodei_jobs::v1::{JobState, ReadOutputRequest};

use crate::client::{assert_end, command, read, sh};
use crate::platform::Platform;

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_reach_every_reader_unchanged() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let out: Vec<u8> = (0..=255).cycle().take(3_000).chain([b'x']).collect();
    let err: Vec<u8> = (0..=255).rev().cycle().take(2_000).chain([0xff]).collect();
    let path = |name: &str| platform.path(name).display().to_string();
    std::fs::write(path("out"), &out).expect("written");
    std::fs::write(path("err"), &err).expect("written");
    let line = format!(
        "cat {out}; while ! test -e {go}; do sleep 0.02; done; cat {err} >&2",
        out = path("out"),
        err = path("err"),
        go = path("go")
    );
    let job = client.queue(sh(line)).await;
    client.running(&job).await;
    let early = {
        let (client, job) = (client.clone(), job.clone());
        tokio::spawn(async move { client.output(&job, 1).await })
    };
    // It is let go once somebody reads: the first reader is a live one.
    std::fs::write(path("go"), "").expect("written");
    let early = early.await.expect("read");
    assert_eq!((early.attempt, early.complete), (1, true));
    assert!(early.stdout == out && early.stderr == err);
    assert_eq!(early.both, [&out[..], &err].concat());

    let ended = client.ended(&job).await;
    assert_end(&ended, (JobState::Succeeded, Some(0), None, "exit_code"));
    assert_eq!(ended.attempts[0].output_bytes, 5_002);
    for _ in 0..2 {
        assert_eq!(client.output(&job, 1).await, early);
    }
    assert_eq!(client.output(&job, 0).await, early, "the last attempt");
    for position in [1, 2_999, 3_001, 3_002, 5_001, 5_002] {
        let rest = client.output_from(&job, 1, position).await;
        let position = usize::try_from(position).expect("small");
        assert_eq!(rest.both, early.both[position..], "from {position}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_holds_up_nobody() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let go = platform.path("go").display().to_string();
    // 13.8 MB, far more than all windows and buffers on the way.
    let job = client
        .queue(sh(format!(
            "echo up; while ! test -e {go}; do sleep 0.02; done; seq 1 2000000"
        )))
        .await;
    client.running(&job).await;
    let request = ReadOutputRequest {
        job_id: job.clone(),
        attempt: 1,
        position: 0,
        follow: true,
    };
    let stalled = platform.client().await.open(request).await;
    std::fs::write(&go, "").expect("written");
    let live = client.output(&job, 1).await;
    let ended = client.ended(&job).await;
    assert_end(&ended, (JobState::Succeeded, Some(0), None, "exit_code"));
    let want: String = std::iter::once("up\n".to_owned())
        .chain((1..=2_000_000).map(|n| format!("{n}\n")))
        .collect();
    assert!(
        live.complete && live.text() == want,
        "{} of {} bytes",
        live.both.len(),
        want.len()
    );
    // And when it reads on, it has missed nothing.
    let late = read(stalled, 0).await;
    assert!(late == live, "{} of {} bytes", late.both.len(), want.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_lines_travel_in_a_hundred_messages() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let job = client.queue(command(["seq", "1", "10000"])).await;
    let attempt = client.ended(&job).await.attempts.pop().expect("an attempt");
    assert_eq!(attempt.output_lines, 10_000);
    assert!((1..=100).contains(&attempt.output_messages), "{attempt:?}");
    let want: String = (1..=10_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(client.output(&job, 1).await.text(), want);
    // Also from a program that writes each line by itself.
    let slow = client
        .queue(sh("i=0; while test $i -lt 10000; do i=$((i+1)); echo $i; done"))
        .await;
    let attempt = client.ended(&slow).await.attempts.pop().expect("an attempt");
    assert_eq!(attempt.output_lines, 10_000);
    assert!((1..=100).contains(&attempt.output_messages), "{attempt:?}");
    assert_eq!(client.output(&slow, 1).await.text(), want);
}
