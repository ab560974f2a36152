//! What can be typed, and what is said about the rest.

use std::os::unix::ffi::OsStringExt as _;

use crate::args::Command;
use crate::args::jobs::JobCommand;
use crate::args::machines::WorkerCommand;
use crate::args::run::RunArgs;
use crate::output::Format;

use super::*;

fn cli(words: &[&str]) -> Result<Cli, String> {
    let arguments: Vec<OsString> = ["hodei"].iter().chain(words).map(OsString::from).collect();
    Cli::try_parse_from(&arguments).map_err(|error| suggest(error, &arguments).to_string())
}

fn run(words: &[&str]) -> RunArgs {
    match cli(&[&["run"], words].concat()).expect("valid").command {
        Command::Run(args) => *args,
        other => panic!("not run: {other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn arguments_are_an_argv() {
    let words = [
        "printf",
        r"%s\0",
        "a b",
        "",
        "'\"$HOME`id`",
        "new\nline",
        "é",
        "-x",
        "--",
        "--local",
        "-o",
        "json",
    ];
    let args = run(&[&["--local", "--"], &words[..]].concat());
    assert!(args.local);
    assert_eq!(args.job.command, words);
    let args = run(&["--name", "n", "sh", "-c", "echo", "--", "--detach"]);
    assert_eq!((args.job.name.as_deref(), args.detach), (Some("n"), false));
    assert_eq!(args.job.command, ["sh", "-c", "echo", "--", "--detach"]);
}

#[test]
fn job_flags_are_read() {
    let args = run(&[
        "--cpus",
        "0.5",
        "--memory",
        "2GiB",
        "--timeout",
        "1h30m",
        "--retries",
        "3",
        "--retry-on",
        "exit,lost",
        "--label",
        "a=b",
        "--label",
        "c=d",
        "--constraint",
        "zone in (a,b)",
        "--provider",
        "local",
        "--isolation",
        "container",
        "--priority",
        "-5",
        "--lost-after",
        "1m",
        "--env",
        "A=1",
        "--env",
        "B=",
        "--workdir",
        "/srv",
        "--image",
        "alpine",
        "--idempotency-key",
        "k",
        "--",
        "true",
    ]);
    let base = crate::spec::Base {
        env: vec![("A".into(), "0".into())],
        folder: None,
    };
    let spec = crate::spec::one(&args.job, &base).expect("valid");
    assert_eq!(
        (spec.cpu_millis, spec.memory_bytes, spec.timeout_ms),
        (500, 2 << 30, 5_400_000)
    );
    assert_eq!((spec.retries, spec.priority, spec.lost_after_ms), (3, -5, 60_000));
    assert_eq!(spec.retry_on, ["exit", "lost"]);
    assert_eq!(spec.env["A"], "1", "--env wins");
    assert_eq!(spec.labels.len(), 2);
    assert_eq!(spec.constraints, ["zone in (a,b)"]);
    assert_eq!(
        (
            spec.provider.as_str(),
            spec.isolation.as_str(),
            spec.image.as_str()
        ),
        ("local", "container", "alpine")
    );
}

#[test]
fn an_image_needs_no_command() {
    assert!(cli(&["job", "submit", "--image", "alpine"]).is_ok());
    assert!(cli(&["job", "submit"]).is_err());
}

#[test]
fn bad_values_are_refused_with_the_flag_and_the_rule() {
    for (words, said) in [
        (&["--memory", "-5"][..], &["--memory", "`-5`", "write 512MiB"][..]),
        (&["--cpus", "many"], &["--cpus", "`many`", "0.5"]),
        (&["--timeout", "soon"], &["--timeout", "`soon`", "10m"]),
        (
            &["--label", "no spaces allowed=x y\n"],
            &["--label", "no spaces allowed", "label key"],
        ),
        (&["--retries", "-1"], &["--retries", "`-1`", "0 or more"]),
        (&["--isolation", "castle"], &["--isolation", "castle", "microvm"]),
        (&["--constraint", "zone ~ a"], &["--constraint", "zone in (a,b)"]),
        (&["--env", "HODEI_X=1"], &["--env", "HODEI_X", "refused"]),
        (&["--lost-after", "1s"], &["--lost-after", "1m"]),
        (&["--provider", "A_B"], &["--provider", "A_B"]),
        (&["--retry-on", "never"], &["--retry-on", "never", "oom"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
    ] {
        let error = cli(&[&["job", "submit"], words, &["--", "true"]].concat()).expect_err("bad");
        assert!(said.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
    let error = cli(&["job", "get", "../../etc/passwd"]).expect_err("bad");
    assert!(error.contains("26 characters"), "{error}");
    assert!(cli(&["job", "list", "--limit", "0"]).is_err());
    assert!(
        cli(&["run", "-o", "json", "--", "true"]).is_err(),
        "output is the job's"
    );
    assert!(
        cli(&["run", "--inherit-env", "--", "true"]).is_err(),
        "only with --local"
    );
}

#[test]
fn the_format_may_come_last_or_before_the_command() {
    match cli(&["job", "list", "--label", "team=a", "-o", "json"])
        .expect("valid")
        .command
    {
        Command::Job(JobCommand::List(args)) => assert_eq!(args.output.format, Format::Json),
        other => panic!("{other:?}"),
    }
    match cli(&["job", "submit", "-o", "yaml", "--", "true"])
        .expect("valid")
        .command
    {
        Command::Job(JobCommand::Submit(args)) => assert_eq!(args.result.format, Some(Format::Yaml)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn worker_is_a_program_with_a_folder_or_a_noun_with_verbs() {
    match cli(&["worker", "--folder", "/x"]).expect("valid").command {
        Command::Worker(WorkerCommand {
            folder: Some(folder),
            command: None,
        }) => assert_eq!(folder.as_os_str(), "/x"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        cli(&["worker", "list", "--all"]).expect("valid").command,
        Command::Worker(WorkerCommand { command: Some(_), .. })
    ));
    assert!(cli(&["worker"]).is_err());
}

#[test]
fn a_wrong_verb_suggests_the_right_one() {
    for (typed, right) in [
        (&["logs", "x"][..], "'job logs'"),
        (&["submit", "x"], "'job submit'"),
        (&["list"], "'job list'"),
        (&["ps"], "'job list'"),
        (&["ls", "-a"], "'job list'"),
        (&["kill", "x"], "'job cancel'"),
        (&["exec", "x"], "'run'"),
        (&["up"], "'dev'"),
        (&["job", "cancle", "x"], "'cancel'"),
        (&["job", "kill", "x"], "'cancel'"),
        (&["job", "ps"], "'list'"),
        (&["job", "status", "x"], "'get'"),
        (&["worker", "ps"], "'list'"),
        (&["provider", "show", "x"], "'get'"),
    ] {
        let error = cli(typed).expect_err("no such command");
        assert!(
            error.contains(&format!("similar subcommand exists: {right}")),
            "{typed:?}: {error}"
        );
    }
    assert!(cli(&["job", "ls"]).is_ok(), "an alias");
}

#[test]
fn errors_look_as_they_did() {
    let wrong: [&[&str]; 8] = [
        &["ps"],
        &["job", "kill", "x"],
        &["run", "--detatch", "--", "true"],
        &["job", "submit"],
        &["job", "submit", "--memory", "much", "--", "true"],
        &["job", "get", "short"],
        &["job", "cancel"],
        &["job", "wait", "--label", "nothing"],
    ];
    let said = wrong.iter().map(|words| {
        let error = cli(words).expect_err("wrong");
        format!("$ hodei {}\n{}", words.join(" "), error.trim_end())
    });
    insta::assert_snapshot!("usage_errors", said.collect::<Vec<_>>().join("\n\n"));
}

/// What people read first. A change of it is meant to be seen in review.
#[test]
fn help_texts_are_as_they_were() {
    let mut all = String::new();
    let mut cli = Cli::command().term_width(100);
    cli.build();
    help("hodei", &mut cli, &mut all);
    insta::assert_snapshot!("help", all);
}

fn help(path: &str, command: &mut clap::Command, all: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    *all += &format!(
        "$ {path} --help\n{}\n\n",
        command.render_long_help().to_string().trim_end()
    );
    for sub in command.get_subcommands_mut() {
        let path = format!("{path} {}", sub.get_name());
        help(&path, sub, all);
    }
}

#[test]
fn every_command_has_an_example() {
    let cli = Cli::command();
    let jobs = cli.find_subcommand("job").expect("there").get_subcommands();
    for command in cli
        .get_subcommands()
        .chain(jobs)
        .filter(|command| !command.is_hide_set())
    {
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            after.contains("Examples:\n  "),
            "{} has no example",
            command.get_name()
        );
    }
}

#[test]
fn statuses_of_run_and_wait_stay_apart() {
    let status = |words: &[&str]| {
        let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
        let failed = failure_status(&arguments);
        (failed.usage, failed.other)
    };
    assert_eq!(status(&["hodei", "run", "--bad"]), (125, 125));
    assert_eq!(status(&["hodei", "job", "wait"]), (125, 125));
    assert_eq!(status(&["hodei", "job", "get"]), (2, 1));
    assert_eq!(status(&["hodei"]), (2, 1));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let bad = OsString::from_vec(vec![b'a', 0xff]);
    assert!(not_text(3, &bad).starts_with("argument 3 is not UTF-8: `a\u{fffd}`"));
    let arguments = ["hodei", "run", "--", "printf"].map(OsString::from);
    let status = parse(arguments.into_iter().chain([bad]).collect()).map(drop);
    assert_eq!(status, Err(125));
}
