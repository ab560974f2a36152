//! The JSON is a promise: these tests name every key.

use serde_json::{Value, json};

use super::*;

fn value(view: impl Serialize) -> Value {
    serde_json::to_value(view).expect("views are plain data")
}

#[test]
fn an_empty_job_has_every_field() {
    assert_eq!(
        value(Job::from(v1::Job::default())),
        json!({
            "id": "", "name": null, "namespace": "", "state": "unknown", "exit_code": null, "signal": null,
            "reason": null, "message": null, "attempts": [], "labels": {}, "counts": null, "retry_of": null,
            "created_at": null, "ended_at": null, "cancel_requested": false, "command": null, "script": null,
            "interpreter": null, "image": null, "env": {}, "workdir": null,
            "resources": {"cpus": null, "memory": null}, "timeout": null, "retries": 0, "retry_on": [],
            "constraints": [], "provider": null, "isolation": null, "priority": 0, "lost_after": null,
            "grace": null,
            "stdin": null,
            "merge": false,
        })
    );
}

#[test]
fn an_ended_job_is_shown_with_numbers_and_times() {
    let job = v1::Job {
        id: "06ehd7q0".into(),
        state: v1::JobState::TimedOut.into(),
        exit_code: Some(0),
        reason: "timeout".into(),
        created_at_ms: 1_700_000_000_000,
        spec: Some(v1::JobSpec {
            name: "hello".into(),
            command: vec!["sleep".into(), "60".into()],
            cpu_millis: 1_500,
            memory_bytes: 1 << 30,
            timeout_ms: 500,
            lost_after_ms: 300_000,
            grace_ms: Some(0),
            labels: BTreeMap::from([("team".into(), "a".into())]),
            ..Default::default()
        }),
        attempts: vec![v1::Attempt {
            number: 1,
            state: v1::AttemptState::Lost.into(),
            started_at_ms: 1_700_000_000_250,
            output_bytes: 7,
            output_lines: 2,
            output_messages: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let shown = value(Job::from(job));
    assert_eq!(shown["state"], "timed_out");
    assert_eq!(shown["exit_code"], 0);
    assert_eq!(shown["created_at"], "2023-11-14T22:13:20Z");
    assert_eq!(shown["resources"], json!({"cpus": 1.5, "memory": 1_073_741_824}));
    assert_eq!(
        (&shown["timeout"], &shown["lost_after"], &shown["grace"]),
        (&json!(0.5), &json!(300), &json!(0))
    );
    assert_eq!(shown["labels"], json!({"team": "a"}));
    assert_eq!(
        shown["attempts"],
        json!([{
            "number": 1, "state": "lost", "provider": null, "worker_id": null, "machine": null,
            "image_digest": null, "exit_code": null, "signal": null, "reason": null, "message": null,
            "started_at": "2023-11-14T22:13:20.25Z", "ended_at": null,
            "output": {"bytes": 7, "lines": 2, "messages": 1, "truncated": false, "expired": false},
        }])
    );
}

#[test]
fn lists_say_whether_there_is_more() {
    let page = v1::ListJobsResponse {
        jobs: vec![v1::Job::default()],
        next_page_token: "next".into(),
    };
    let shown = value(Jobs::from(page));
    assert_eq!(
        (shown["jobs"].as_array().map(Vec::len), &shown["next_page_token"]),
        (Some(1), &json!("next"))
    );
    for (shown, key) in [
        (
            value(Workers::from(v1::ListWorkersResponse::default())),
            "workers",
        ),
        (
            value(Providers::from(v1::ListProvidersResponse::default())),
            "providers",
        ),
        (
            value(Events::from(v1::ListJobEventsResponse::default())),
            "events",
        ),
    ] {
        assert_eq!(shown, json!({key: [], "next_page_token": ""}));
    }
}

#[test]
fn workers_providers_and_reasons_have_every_field() {
    let worker = v1::Worker {
        id: "w".into(),
        phase: v1::WorkerPhase::Draining.into(),
        cpu_millis: 2_000,
        slots: 4,
        ..Default::default()
    };
    assert_eq!(
        value(Worker::from(worker)),
        json!({
            "id": "w", "namespace": "", "provider": "", "state": "draining", "connected": false, "machine": null,
            "capacity": {"cpus": 2, "memory": 0, "slots": 4}, "used": {"cpus": 0, "memory": 0, "slots": 0},
            "created_at": null, "ended_at": null, "message": null, "labels": {}, "enforced": [],
        })
    );
    let provider = v1::Provider {
        id: "local".into(),
        kind: "process".into(),
        cpu_millis: 500,
        ..Default::default()
    };
    assert_eq!(
        value(Provider::from(provider)),
        json!({
            "id": "local", "kind": "process", "healthy": false, "message": null, "labels": {}, "isolation": "",
            "capacity": {"cpus": 0.5, "memory": null, "workers": null},
            "used": {"cpus": 0, "memory": 0, "workers": 0}, "drained": null,
        })
    );
    let why = v1::WhyJobResponse {
        state: v1::JobState::Queued.into(),
        summary: "no provider has room".into(),
        providers: vec![v1::ProviderVerdict {
            provider: "local".into(),
            ruled_out_by: "memory".into(),
            ..Default::default()
        }],
    };
    assert_eq!(
        value(Why::from(why)),
        json!({
            "state": "queued", "summary": "no provider has room",
            "providers": [{"provider": "local", "fits": false, "ruled_out_by": "memory", "message": null}],
        })
    );
}
