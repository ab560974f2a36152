//! Tables as people see them. A change of a snapshot is meant to be seen in review.

use hodei_jobs::v1;
use hodei_jobs::view;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("in range")
}

fn job() -> v1::Job {
    v1::Job {
        id: "ID".into(),
        state: v1::JobState::Queued.into(),
        created_at_ms: 1_699_999_880_000,
        spec: Some(v1::JobSpec {
            name: "evil\nname\u{1b}[2J".into(),
            command: vec!["echo".into(), "hello".into()],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn a_list_is_one_line_per_job() {
    let page = v1::ListJobsResponse {
        jobs: vec![job()],
        next_page_token: String::new(),
    };
    let table = Jobs::from(page).table(false, now());
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].starts_with("ID  NAME"), "{table}");
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(words, ["ID", "evil\\nname\\u{1b}[2J", "queued", "2m", "-", "-"]);
    assert_eq!(
        Jobs {
            jobs: vec![],
            next_page_token: String::new()
        }
        .table(false, now()),
        ""
    );
}

#[test]
fn a_job_is_shown_with_its_attempts() {
    let mut job = job();
    job.attempts = vec![v1::Attempt {
        number: 1,
        state: v1::AttemptState::Failed.into(),
        signal: Some(9),
        output_bytes: 2048,
        ..Default::default()
    }];
    let table = Job::from(job).table(false, now());
    for word in ["Command:", "echo hello", "2m ago", "signal 9", "2KiB"] {
        assert!(table.contains(word), "{word} is missing:\n{table}");
    }
    assert!(
        !table.contains("Isolation") && !table.contains("was cut"),
        "{table}"
    );
}

#[test]
fn ages_use_their_largest_unit() {
    for (seconds, want) in [(5, "5s"), (60, "1m"), (7_200, "2h"), (172_800, "2d"), (-10, "0s")] {
        let at = Timestamp::from_second(1_700_000_000 - seconds)
            .expect("in range")
            .to_string();
        assert_eq!(age(Some(&at), now()), want);
    }
    assert_eq!(age(None, now()), "-");
}

fn full_job() -> v1::Job {
    let attempt = |number, state: v1::AttemptState, exit_code, signal, reason: &str| v1::Attempt {
        number,
        state: state.into(),
        provider: "local".into(),
        worker_id: "WORKER".into(),
        machine: "pid 7".into(),
        exit_code,
        signal,
        reason: reason.into(),
        message: "a sentence".into(),
        started_at_ms: 1_699_999_900_000,
        ended_at_ms: 1_699_999_990_000,
        output_bytes: 3 << 20,
        ..Default::default()
    };
    v1::Job {
        namespace: "default".into(),
        state: v1::JobState::Failed.into(),
        exit_code: Some(3),
        reason: "exit_code".into(),
        message: "it ended with exit code 3".into(),
        ended_at_ms: 1_699_999_990_000,
        retry_of: "OTHER".into(),
        attempts: vec![
            attempt(1, v1::AttemptState::Lost, None, Some(9), "lost"),
            attempt(2, v1::AttemptState::Failed, Some(3), None, "exit_code"),
        ],
        spec: Some(v1::JobSpec {
            name: "nightly".into(),
            command: vec!["./nightly.sh".into(), "--full".into()],
            cpu_millis: 500,
            memory_bytes: 4 << 30,
            timeout_ms: 600_000,
            retries: 3,
            priority: -5,
            labels: [("team".to_owned(), "a".to_owned())].into(),
            constraints: vec!["zone in (a,b)".into()],
            ..Default::default()
        }),
        ..job()
    }
}

#[test]
fn jobs_look_as_they_did() {
    let page = v1::ListJobsResponse {
        jobs: vec![job(), full_job()],
        next_page_token: String::new(),
    };
    let (jobs, job) = (Jobs::from(page), Job::from(full_job()));
    insta::assert_snapshot!("jobs", jobs.table(false, now()));
    insta::assert_snapshot!("jobs_wide", jobs.table(true, now()));
    insta::assert_snapshot!("job", job.table(false, now()));
    insta::assert_snapshot!("job_wide", job.table(true, now()));
    insta::assert_snapshot!("job_json", serde_json::to_string_pretty(&job).expect("JSON"));
    assert_eq!(jobs.names(), ["ID", "ID"]);
}

#[test]
fn machines_look_as_they_did() {
    let worker = v1::Worker {
        id: "WORKER".into(),
        namespace: "default".into(),
        provider: "local".into(),
        phase: v1::WorkerPhase::Ready.into(),
        connected: true,
        machine: "pid 7".into(),
        cpu_millis: 2_000,
        memory_bytes: 8 << 30,
        used_cpu_millis: 500,
        used_memory_bytes: 512 << 20,
        slots: 16,
        used_slots: 1,
        created_at_ms: 1_699_999_900_000,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        enforced: vec!["pid_namespace".into(), "cgroup_kill".into()],
        ..Default::default()
    };
    let provider = v1::Provider {
        id: "local".into(),
        kind: "process".into(),
        healthy: true,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        cpu_millis: 2_000,
        memory_bytes: 8 << 30,
        used_cpu_millis: 500,
        used_memory_bytes: 512 << 20,
        max_workers: 256,
        workers: 1,
        isolation: "process".into(),
        ..Default::default()
    };
    let workers = Workers::from(v1::ListWorkersResponse {
        workers: vec![worker],
    });
    let providers = Providers::from(v1::ListProvidersResponse {
        providers: vec![provider],
    });
    insta::assert_snapshot!("workers", workers.table(true, now()));
    insta::assert_snapshot!("worker", workers.workers[0].table(false, now()));
    insta::assert_snapshot!("providers", providers.table(true, now()));
    insta::assert_snapshot!("provider", providers.providers[0].table(false, now()));
}

#[test]
fn reasons_and_events_look_as_they_did() {
    let verdict = |provider: &str, fits, by: &str, message: &str| v1::ProviderVerdict {
        provider: provider.into(),
        fits,
        ruled_out_by: by.into(),
        message: message.into(),
    };
    let why = view::Why::from(v1::WhyJobResponse {
        state: v1::JobState::Queued.into(),
        summary: "waits for room".into(),
        providers: vec![
            verdict("big", true, "", "waits for room: free are 0 cpus"),
            verdict(
                "small",
                false,
                "cpus",
                "the job needs 64 cpus, the provider has 2",
            ),
        ],
    });
    insta::assert_snapshot!("why", why.table(false, now()));
    let event = v1::JobEvent {
        position: 42,
        at_ms: 1_699_999_900_000,
        kind: "JobCreated".into(),
        message: "the job was queued".into(),
    };
    let events = Events::from(v1::ListJobEventsResponse { events: vec![event] });
    insta::assert_snapshot!("events", events.table(true, now()));
}

#[test]
fn a_job_whose_output_was_cut_says_so() {
    let mut job = job();
    job.attempts = vec![v1::Attempt {
        number: 2,
        output_bytes: 10 << 30,
        output_truncated: true,
        output_expired: true,
        ..Default::default()
    }];
    let table = Job::from(job).table(false, now());
    let note = "The output of attempt 2 was cut after 10GiB";
    assert!(table.contains(note), "{table}");
    assert!(
        table.contains("The output of attempt 2 was old and is removed."),
        "{table}"
    );
}
