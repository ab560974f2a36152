//! Standard input over the whole path.

use hodei_jobs::v1;
use hodei_jobs::v1::JobState::Succeeded;
use hodei_jobs::v1::StdinMode;
use tonic::Code;

use crate::client::{Client, assert_end, command, sh};
use crate::platform::Platform;
use crate::processes;

const PART: usize = 700_000;

fn fed(mode: StdinMode, spec: v1::JobSpec) -> v1::JobSpec {
    v1::JobSpec {
        stdin: mode.into(),
        ..spec
    }
}

fn any_bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 7)) as u8).collect()
}

async fn send(client: &Client, job: &str, offset: usize, data: &[u8], eof: bool) -> v1::SendInputResponse {
    let request = v1::SendInputRequest {
        job_id: job.to_owned(),
        offset: offset as u64,
        data: data.to_vec(),
        eof,
    };
    let answer = client.jobs().send_input(client.request(request)).await;
    answer.expect("the input is stored").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_reads_any_bytes_and_its_retry_reads_them_again() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let bytes = any_bytes(3 << 20);
    let job = client.queue(fed(StdinMode::Stream, command(["cat"]))).await;
    for (n, part) in bytes.chunks(PART).enumerate() {
        let last = (n + 1) * PART >= bytes.len();
        // Each part twice, as a client does that has lost the answer.
        send(&client, &job, n * PART, part, last).await;
        let answer = send(&client, &job, n * PART, part, last).await;
        assert_eq!(
            (answer.end, answer.complete),
            ((n * PART + part.len()) as u64, last)
        );
    }
    assert_end(&client.ended(&job).await, (Succeeded, Some(0), None, "exit_code"));
    assert!(client.output(&job, 1).await.stdout == bytes);
    let retry = v1::RetryJobRequest {
        job_id: job.clone(),
        request_id: "again".into(),
    };
    let again = client
        .jobs()
        .retry_job(client.request(retry))
        .await
        .expect("queued")
        .into_inner();
    let again = again.job.expect("a job").id;
    client.ended(&again).await;
    assert!(client.output(&again, 1).await.stdout == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_held_until_its_whole_input_is_stored_and_a_lost_attempt_reads_it_again() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let script = "cat; test \"$HODEI_ATTEMPT\" = 2 || { echo first >&2; sleep 1000; }";
    let spec = v1::JobSpec {
        retries: 1,
        ..fed(StdinMode::Whole, sh(script))
    };
    let job = client.queue(spec).await;
    let held = send(&client, &job, 0, b"one\n", false).await;
    assert!(!held.complete);
    let job_now = client.get(&job).await;
    assert_eq!(
        (job_now.state(), job_now.reason.as_str()),
        (v1::JobState::Queued, "held")
    );
    send(&client, &job, 4, b"two\n", true).await;
    let read = client.until(&job, "it has read its input", |job| {
        job.attempts
            .first()
            .is_some_and(|attempt| attempt.output_bytes >= 14)
    });
    read.await;
    platform
        .workers()
        .iter()
        .for_each(|worker| processes::kill(worker.stub));
    assert_end(&client.ended(&job).await, (Succeeded, Some(0), None, "exit_code"));
    assert_eq!(client.output(&job, 2).await.text(), "one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_nobody_takes_is_refused_with_the_reason() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let refused = async |job: &str| {
        let request = v1::SendInputRequest {
            job_id: job.to_owned(),
            data: b"x".to_vec(),
            ..v1::SendInputRequest::default()
        };
        let status = client
            .jobs()
            .send_input(client.request(request))
            .await
            .expect_err("refused");
        (status.code(), status.message().to_owned())
    };
    let deaf = client.queue(command(["true"])).await;
    let (code, message) = refused(&deaf).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("takes no input"), "{message}");
    let ended = client.queue(fed(StdinMode::Stream, command(["true"]))).await;
    client.ended(&ended).await;
    let (code, message) = refused(&ended).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("has ended"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_streams_come_in_the_order_in_which_they_were_written() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let script = "for n in 1 2 3 4 5 6 7 8 9; do echo out $n; echo err $n >&2; done";
    let spec = v1::JobSpec {
        merge: true,
        ..sh(script)
    };
    let job = client.queue(spec).await;
    client.ended(&job).await;
    let expected: String = (1..=9).map(|n| format!("out {n}\nerr {n}\n")).collect();
    assert_eq!(client.output(&job, 1).await.text(), expected);
}
