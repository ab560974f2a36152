//! Draining workers and providers, and what is shown of the queue.

use hodei_jobs::v1;
use hodei_jobs::v1::JobState::Succeeded;
use tonic::Code;

use crate::client::{Client, assert_end, command, sh};
use crate::platform::Platform;

async fn queue_status(client: &Client) -> v1::GetQueueStatusResponse {
    let answer = client
        .scheduler()
        .get_queue_status(client.request(v1::GetQueueStatusRequest {}))
        .await;
    answer.expect("answered").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_ends_its_job_takes_no_other_and_leaves() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let gate = platform.path("gate");
    let waits = format!(
        "echo up; while ! test -e {}; do sleep 0.05; done; echo done",
        gate.display()
    );
    let job = client.queue(sh(&waits)).await;
    let first = client.running(&job).await.attempts[0].worker_id.clone();
    let worker = client.workers().await.into_iter().find(|w| w.id == first);
    let worker = worker.expect("it is listed");
    assert_eq!(
        (
            worker.used_cpu_millis,
            worker.used_memory_bytes,
            worker.used_slots
        ),
        (10, 16 << 20, 1)
    );
    let drain = v1::DrainWorkerRequest {
        worker_id: first.clone(),
        reason: "repairs".into(),
    };
    let drained = client
        .scheduler()
        .drain_worker(client.request(drain))
        .await
        .expect("drained");
    let drained = drained.into_inner().worker.expect("a worker");
    assert_eq!(drained.phase(), v1::WorkerPhase::Draining);
    let other = client.queue(command(["true"])).await;
    let other = client.ended(&other).await;
    assert_ne!(other.attempts[0].worker_id, first);
    std::fs::write(&gate, "").expect("written");
    assert_end(&client.ended(&job).await, (Succeeded, Some(0), None, "exit_code"));
    assert_eq!(client.output(&job, 1).await.text(), "up\ndone\n");
    client
        .until_workers("the drained worker is gone", |workers| {
            workers.iter().all(|worker| worker.id != first)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_provider_gets_no_work_until_it_is_resumed() {
    let mut platform = Platform::start().await;
    let client = platform.client().await;
    let first = client.queue(command(["true"])).await;
    client.ended(&first).await;
    let drain = v1::DrainProviderRequest {
        provider: "local".into(),
        reason: "moving house".into(),
    };
    let drained = client
        .scheduler()
        .drain_provider(client.request(drain))
        .await
        .expect("drained");
    assert_eq!(
        drained.into_inner().provider.expect("a provider").drained,
        "moving house"
    );
    client
        .until_workers("its workers leave", |workers| workers.is_empty())
        .await;
    let job = client.queue(command(["true"])).await;
    let why = v1::WhyJobRequest { job_id: job.clone() };
    let why = client
        .scheduler()
        .why_job(client.request(why))
        .await
        .expect("answered")
        .into_inner();
    let message = &why.providers[0].message;
    assert!(
        message.contains("moving house") && message.contains("provider resume local"),
        "{message}"
    );
    assert_eq!(queue_status(&client).await.ready, 1);

    // What a person asked for stays over a restart.
    platform.terminate_server().await;
    platform.start_server().await;
    let client = platform.client().await;
    assert_eq!(queue_status(&client).await.ready, 1);
    assert!(client.workers().await.is_empty());
    let resume = v1::ResumeProviderRequest {
        provider: "local".into(),
    };
    client
        .scheduler()
        .resume_provider(client.request(resume))
        .await
        .expect("resumed");
    assert_end(&client.ended(&job).await, (Succeeded, Some(0), None, "exit_code"));
    let status = queue_status(&client).await;
    assert_eq!((status.ready, status.running, status.workers), (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_named() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let drain = v1::DrainProviderRequest {
        provider: "moon".into(),
        reason: String::new(),
    };
    let status = client
        .scheduler()
        .drain_provider(client.request(drain))
        .await
        .expect_err("refused");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "there is no provider moon")
    );
    let drain = v1::DrainWorkerRequest {
        worker_id: "nobody".into(),
        reason: String::new(),
    };
    let status = client
        .scheduler()
        .drain_worker(client.request(drain))
        .await
        .expect_err("refused");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "there is no worker nobody")
    );
    let check = v1::CheckProviderRequest {
        provider: "local".into(),
    };
    let checked = client
        .scheduler()
        .check_provider(client.request(check))
        .await
        .expect("checked");
    assert!(checked.into_inner().provider.expect("a provider").healthy);
}
