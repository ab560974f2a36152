//! Requests: bad ones are refused before anything is stored, repeated ones answer the same job.

use std::collections::BTreeSet;

use hodei_jobs::v1::{JobSpec, JobState, QueueJobRequest};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::client::{assert_end, command, request, sh};
use crate::platform::Platform;

fn pair(key: &str, value: &str) -> std::collections::BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

/// Specifications with one thing that is wrong: the field that is to be named, and the value.
fn broken() -> Vec<(&'static str, &'static str, JobSpec)> {
    let good = || sh("true");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    vec![
        (
            "name",
            "two\\nlines",
            JobSpec {
                name: "two\nlines".into(),
                ..good()
            },
        ),
        ("command", "", command::<&str>([])),
        (
            "command",
            "sh -c true",
            JobSpec {
                script: "true".into(),
                ..good()
            },
        ),
        ("command", "", command([""])),
        ("command", "a\\u{0}b", command(["a\0b"])),
        (
            "env",
            "A=B",
            JobSpec {
                env: pair("A=B", "x"),
                ..good()
            },
        ),
        (
            "env",
            "HODEI_TOKEN",
            JobSpec {
                env: pair("HODEI_TOKEN", "x"),
                ..good()
            },
        ),
        (
            "workdir",
            "relative",
            JobSpec {
                workdir: "relative".into(),
                ..good()
            },
        ),
        (
            "cpus",
            "1000001",
            JobSpec {
                cpu_millis: 1_000_001,
                ..good()
            },
        ),
        (
            "memory",
            "18446744073709551615",
            JobSpec {
                memory_bytes: u64::MAX,
                ..good()
            },
        ),
        (
            "timeout",
            "18446744073709551s",
            JobSpec {
                timeout_ms: u64::MAX,
                ..good()
            },
        ),
        (
            "retries",
            "4294967295",
            JobSpec {
                retries: u32::MAX,
                ..good()
            },
        ),
        (
            "retry-on",
            "luck",
            JobSpec {
                retry_on: words(&["luck"]),
                ..good()
            },
        ),
        (
            "label",
            "no spaces",
            JobSpec {
                labels: pair("no spaces", "x"),
                ..good()
            },
        ),
        (
            "label",
            "team=x\\ny",
            JobSpec {
                labels: pair("team", "x\ny"),
                ..good()
            },
        ),
        (
            "constraint",
            "zone ~ a",
            JobSpec {
                constraints: words(&["zone ~ a"]),
                ..good()
            },
        ),
        (
            "provider",
            "No Such",
            JobSpec {
                provider: "No Such".into(),
                ..good()
            },
        ),
        (
            "isolation",
            "castle",
            JobSpec {
                isolation: "castle".into(),
                ..good()
            },
        ),
        (
            "priority",
            "-2147483648",
            JobSpec {
                priority: i32::MIN,
                ..good()
            },
        ),
        (
            "lost-after",
            "1ms",
            JobSpec {
                lost_after_ms: 1,
                ..good()
            },
        ),
        (
            "grace",
            "18446744073709551s",
            JobSpec {
                grace_ms: Some(u64::MAX),
                ..good()
            },
        ),
        (
            "image",
            "a\\u{1b}b",
            JobSpec {
                image: "a\u{1b}b".into(),
                ..good()
            },
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_a_rule_is_refused_with_field_value_and_rule() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let named = |field, value, spec| (field, value, request(spec));
    let mut requests: Vec<_> = broken()
        .into_iter()
        .map(|(field, value, spec)| named(field, value, spec))
        .collect();
    let whole = |request_id: &str, namespace: &str, spec| QueueJobRequest {
        request_id: request_id.to_owned(),
        namespace: namespace.to_owned(),
        spec,
    };
    requests.push(("spec", "", whole("r", "", None)));
    requests.push(("idempotency-key", "", whole("", "", Some(sh("true")))));
    requests.push(("idempotency-key", "a\\nb", whole("a\nb", "", Some(sh("true")))));
    requests.push(("namespace", "../etc", whole("r", "../etc", Some(sh("true")))));
    for (field, value, request) in requests {
        let refused = client.send(request).await.expect_err(field);
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused:?}");
        let details = refused.get_details_bad_request().expect("details");
        let [violation] = &details.field_violations[..] else {
            panic!("{field}: {details:?}")
        };
        assert_eq!(violation.field, field, "{violation:?}");
        let rule = violation
            .description
            .strip_prefix(&format!("`{value}` "))
            .unwrap_or_default();
        assert!(
            rule.len() >= 10,
            "{violation:?} does not name `{value}` and a rule"
        );
        assert!(
            refused.message().contains(field) && refused.message().contains(rule),
            "{refused:?}"
        );
        assert!(!refused.message().contains(char::is_control), "{refused:?}");
    }
    // All at once, all are named.
    let several = JobSpec {
        name: "a\nb".into(),
        workdir: "x".into(),
        ..command::<&str>([])
    };
    let refused = client.send(request(several)).await.expect_err("three rules");
    let details = refused.get_details_bad_request().expect("details");
    let fields: BTreeSet<_> = details
        .field_violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, BTreeSet::from(["command", "name", "workdir"]));
    assert_eq!(client.list().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_specification_that_is_too_large_is_refused_clearly() {
    let platform = Platform::start().await;
    let client = platform.client().await;
    let script = |bytes: usize| {
        request(JobSpec {
            script: "x".repeat(bytes),
            ..command::<&str>([])
        })
    };
    let refused = client.send(script((1 << 20) + 1)).await.expect_err("too large");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("1MiB"), "{refused:?}");
    let details = refused.get_details_bad_request().expect("details");
    assert_eq!(details.field_violations[0].field, "spec");
    // Not even read.
    let refused = client.send(script(5 << 20)).await.expect_err("far too large");
    assert!(
        [Code::OutOfRange, Code::ResourceExhausted].contains(&refused.code()),
        "{refused:?}"
    );
    assert!(!refused.message().is_empty());
    assert_eq!(client.list().await, []);
    // Large, but not too large.
    let text = format!("{}\necho \"done\"\n", "# a comment\n".repeat(80_000));
    let job = client
        .queue(JobSpec {
            script: text,
            ..command::<&str>([])
        })
        .await;
    assert_end(
        &client.ended(&job).await,
        (JobState::Succeeded, Some(0), None, "exit_code"),
    );
    assert_eq!(client.output(&job, 1).await.text(), "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_is_the_same_job() {
    let mut platform = Platform::start().await;
    let client = platform.client().await;
    let ran = platform.path("ran");
    let line = format!("echo ran >> {}", ran.display());
    let request = QueueJobRequest {
        request_id: "once".into(),
        spec: Some(sh(&line)),
        namespace: String::new(),
    };
    let answers = futures::future::join_all((0..10).map(|_| client.send(request.clone()))).await;
    let ids: BTreeSet<_> = answers
        .into_iter()
        .map(|answer| answer.expect("queued").id)
        .collect();
    let [id] = &Vec::from_iter(ids)[..] else {
        panic!("several jobs")
    };
    client.ended(id).await;
    assert_eq!(client.send(request.clone()).await.expect("the same").id, *id);
    platform.kill_server();
    platform.start_server().await;
    let client = platform.client().await;
    let again = client.send(request.clone()).await.expect("the same");
    assert_eq!(
        (again.id.as_str(), again.state()),
        (id.as_str(), JobState::Succeeded)
    );

    let other = QueueJobRequest {
        spec: Some(JobSpec {
            priority: 1,
            ..sh(&line)
        }),
        ..request
    };
    let refused = client.send(other).await.expect_err("another spec");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    assert!(refused.message().contains("`once`"), "{refused:?}");
    assert_eq!(client.list().await.len(), 1);
    assert_eq!(std::fs::read_to_string(&ran).expect("it ran"), "ran\n");
}
