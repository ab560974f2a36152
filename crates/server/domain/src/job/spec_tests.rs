//! What a specification is filled up with, and what is refused.

use super::*;

fn argv(words: &[&str]) -> SpecInput {
    SpecInput {
        command: words.iter().map(|w| (*w).to_owned()).collect(),
        ..SpecInput::default()
    }
}

#[test]
fn defaults_are_filled_in() {
    let spec = JobSpec::new(argv(&["true"])).expect("valid");
    assert_eq!(spec.resources, Resources::JOB_DEFAULT);
    assert_eq!(
        (spec.timeout, spec.grace, spec.lost_after),
        (None, DEFAULT_GRACE, DEFAULT_LOST_AFTER)
    );
    assert_eq!(spec.retry.retries(), 0);
}

#[test]
fn every_broken_rule_is_named() {
    let input = SpecInput {
        name: "a\nb".into(),
        memory_bytes: Some(0),
        isolation: "castle".into(),
        workdir: "relative".into(),
        retries: 5_000,
        constraints: vec!["zone ~ a".into()],
        lost_after: Some(Duration::from_secs(1)),
        env: [("HODEI_TOKEN".to_owned(), "x".to_owned())].into(),
        ..SpecInput::default()
    };
    let fields: Vec<_> = JobSpec::new(input)
        .expect_err("broken")
        .into_iter()
        .map(|i| i.field)
        .collect();
    let want = [
        "name",
        "command",
        "env",
        "workdir",
        "memory",
        "retries",
        "constraint",
        "isolation",
        "lost-after",
    ];
    assert_eq!(fields, want);
}

#[test]
fn what_is_empty_where_it_must_not_be_is_refused_and_named() {
    type Change = fn(&mut SpecInput);
    fn blank() -> String {
        " ".to_owned()
    }
    let broken = |change: Change| {
        let mut input = argv(&["true"]);
        change(&mut input);
        let broken = JobSpec::new(input).expect_err("refused");
        broken.into_iter().map(|i| i.field).collect::<Vec<_>>()
    };
    let cases: [(&str, Change); 13] = [
        ("name", |input| input.name = blank()),
        ("image", |input| input.image = blank()),
        ("image", |input| input.image = "two words".into()),
        ("workdir", |input| input.workdir = blank()),
        ("provider", |input| input.provider = blank()),
        ("isolation", |input| input.isolation = blank()),
        ("constraint", |input| input.constraints = vec![String::new()]),
        ("retry-on", |input| input.retry_on = vec![String::new()]),
        ("env", |input| {
            drop(input.env.insert(String::new(), String::new()))
        }),
        ("label", |input| {
            drop(input.labels.insert(String::new(), String::new()))
        }),
        ("command", |input| input.command = vec![String::new()]),
        ("timeout", |input| input.timeout = Some(Duration::ZERO)),
        ("cpus", |input| input.cpu_millis = Some(0)),
    ];
    for (field, change) in cases {
        assert_eq!(broken(change), [field]);
    }
}

#[test]
fn arguments_are_kept_as_they_are() {
    let words = ["a b", "", "'\"$HOME`id`", "new\nline", "é", "-x", "--"];
    let mut all = vec!["printf"];
    all.extend(words);
    let spec = JobSpec::new(argv(&all)).expect("valid");
    assert_eq!(
        spec.command,
        Command::Argv(all.iter().map(|w| (*w).to_owned()).collect())
    );
}
