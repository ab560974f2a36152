//! Files as people write them, and what is said about the wrong ones.

use super::*;
use crate::convert;

const FULL: &str = r#"# a job
name: nightly
command: [./nightly.sh, --full, "a b"]
image: alpine:3.22
env: {MODE: "fast", N: '1'}
workdir: /srv
resources: {cpus: 0.5, memory: 4GiB}
constraints: ["zone in (a, b)"]
timeout: 10m
retry: {max: 3, on: [lost, oom]}
labels: {team: a}
provider: local
isolation: process
priority: -5
lost_after: 90
grace: 1.5
merge: true
"#;

fn parsed(text: &str, name: &str) -> Result<Vec<JobDocument>> {
    parse(text, Path::new(name))
}

fn spec(document: JobDocument) -> hodei_jobs::v1::JobSpec {
    convert::tests_spec(document)
}

#[test]
fn every_key_is_read() {
    let [document]: [_; 1] = parsed(FULL, "job.yaml").expect("valid").try_into().expect("one");
    let spec = spec(document);
    assert_eq!(spec.command, ["./nightly.sh", "--full", "a b"]);
    assert_eq!((spec.cpu_millis, spec.memory_bytes), (500, 4 << 30));
    assert_eq!(
        (spec.timeout_ms, spec.lost_after_ms, spec.grace_ms),
        (600_000, 90_000, Some(1_500))
    );
    assert_eq!((spec.retries, spec.priority), (3, -5));
    assert_eq!(spec.retry_on, ["lost", "oom"]);
    assert!(spec.merge);
    assert_eq!(spec.constraints, ["zone in (a,b)"]);
    assert_eq!((spec.env["MODE"].as_str(), spec.env["N"].as_str()), ("fast", "1"));
    assert_eq!(
        (spec.labels["team"].as_str(), spec.workdir.as_str()),
        ("a", "/srv")
    );
}

#[test]
fn what_is_printed_is_read_as_the_same() {
    let script = "script: |\n  set -e\n  echo \"hi\"\ninterpreter: [bash, -x]\nresources: {memory: 1500001}\n\
                  timeout: 90061001ms\nenv: {YES: \"yes\", EMPTY: \"\", LINES: \"a\\nb\"}\n---\ncommand: [\"true\"]\n";
    for text in [FULL, script] {
        let specs = |documents: Vec<JobDocument>| documents.into_iter().map(spec).collect::<Vec<_>>();
        let first = specs(parsed(text, "job.yaml").expect("valid"));
        let documents: Vec<_> = first.iter().cloned().map(JobDocument::from).collect();
        for (printed, name) in [
            (yaml(&documents).expect("printed"), "again.yaml"),
            (json(&documents).expect("printed"), "again.json"),
            (json(&documents).expect("printed"), "-"),
        ] {
            assert_eq!(specs(parsed(&printed, name).expect(&printed)), first, "{printed}");
        }
    }
}

#[test]
fn a_file_has_one_job_or_many() {
    let count = |text: &str, name: &str| parsed(text, name).map(|documents| documents.len());
    let many = "---\ncommand: [a]\n---\ncommand: [b]\n---\n";
    assert_eq!(count(many, "x.yaml").expect("valid"), 2);
    assert_eq!(count("{command: [a]}", "-").expect("YAML in one line"), 1);
    assert_eq!(
        count("{\"command\": [\"a\"]}{\"command\": [\"\\ud83d\\ude00\"]}", "-").expect("JSON"),
        2
    );
    for empty in ["", "---\n", "# nothing\n"] {
        let error = count(empty, "x.yaml").expect_err("no job").to_string();
        assert_eq!(error, "x.yaml holds no job");
    }
}

#[test]
fn errors_name_file_line_and_column() {
    let cases = [
        ("name: a\ncomand: [x]\n", "unknown field `comand`"),
        ("command: ls\n", "command: invalid type: string \"ls\""),
        ("name: 7\n", "name: invalid type: integer `7`"),
        ("command: [a, 7]\n", "command[1]: invalid type"),
        ("env: {A: 1}\n", "env.A: invalid type: integer `1`"),
        ("env:\n  A: \"1\"\n  A: \"2\"\n", "`A` comes twice"),
        ("name: a\nname: b\n", "duplicate field `name`"),
        ("resources: {cpus: many}\n", "resources.cpus: `many` is not"),
        (
            "resources:\n  memory: 4Gb\n",
            "resources.memory: `4Gb` is not a size",
        ),
        ("resources: {gpus: 1}\n", "unknown field `gpus`"),
        ("timeout: soon\n", "timeout: `soon` is not a duration"),
        ("timeout: 0\n", "timeout: `0` is no time"),
        ("timeout: -1\n", "timeout: `-1` is not"),
        ("retry: {max: 1, on: [never]}\n", "`never` is no end to repeat"),
        ("retry: {max: -1}\n", "retry.max: `-1` is not a number of retries"),
        ("constraints: [\"zone ~ a\"]\n", "constraints[0]: `zone ~ a`"),
        ("name: \"\"\n", "name: `` is no name"),
        ("image: \"a b\"\n", "image: `a b` is not an image"),
        ("merge: 1\n", "merge: invalid type: integer `1`"),
        ("- command: [x]\n", "invalid type: sequence"),
        ("command: [a\n", "did not find expected"),
        ("command: [a]\n---\ncommand: [a]\nbad: 1\n", "unknown field `bad`"),
    ];
    let said = |text: &str, name: &str| parsed(text, name).map(drop).expect_err(text).to_string();
    let all: Vec<String> = cases.iter().map(|(text, _)| said(text, "j.yaml")).collect();
    for ((text, want), error) in cases.iter().zip(&all) {
        let place = error
            .strip_prefix("j.yaml:")
            .and_then(|rest| rest.split_once(": "));
        let place = place
            .and_then(|(place, _)| place.split_once(':'))
            .unwrap_or_default();
        assert!(
            place.0.parse::<u32>().is_ok() && place.1.parse::<u32>().is_ok(),
            "{error}"
        );
        assert!(error.contains(want), "{text}: {error}");
    }
    insta::assert_snapshot!("file_errors", all.join("\n"));
    let json = said("{\n  \"command\": [\"a\"],\n  \"comand\": 1\n}\n", "j.json");
    assert!(json.starts_with("j.json:3:10: unknown field `comand`"), "{json}");
}
