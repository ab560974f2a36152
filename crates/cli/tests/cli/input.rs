//! Standard input, `attach`, and what is taken out of service.

use std::process::Stdio;

use rustix::process::Signal;

use crate::world::{Dev, Folder, Running, wait_for};

const SMALL: [&str; 4] = ["--cpus", "0.01", "--memory", "16MiB"];

#[test]
fn stdin_is_passed_on_to_its_end() {
    let dev = Dev::start();
    let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let said = dev.with_stdin(&[&["run", "-i"], &SMALL[..], &["--", "cat"]].concat(), &text);
    assert!(said.ok() == text);
    let unasked = dev.with_stdin(&[&["run"], &SMALL[..], &["--", "cat"]].concat(), "not asked for");
    assert_eq!(unasked.ok(), "");
}

/// Whoever writes may go on for ever: the command ends with its job.
#[test]
fn a_job_that_reads_no_more_ends_the_command() {
    let folder = Folder::new();
    let mut endless = std::process::Command::new("yes")
        .stdout(Stdio::piped())
        .spawn()
        .expect("yes starts");
    let mut command = folder.command(&["run", "--local", "-i", "--", "head", "-c", "6"]);
    let pipe = endless.stdout.take().expect("piped");
    let run = Running::start(command.stdin(pipe));
    let said = run.end();
    drop(endless.kill());
    drop(endless.wait());
    assert_eq!(said.ok(), "y\ny\ny\n");
    assert!(folder.local().is_empty(), "{:?}", folder.local());
}

#[test]
fn submitted_input_is_stored_whole_and_replayed() {
    let dev = Dev::start();
    let submit = [&["job", "submit", "--stdin"], &SMALL[..], &["--", "sort"]].concat();
    let id = dev.with_stdin(&submit, "b\nc\na\n").ok().trim().to_owned();
    dev.hodei(&["job", "wait", &id]).ok();
    assert_eq!(dev.hodei(&["job", "logs", &id]).ok(), "a\nb\nc\n");
    let again = dev.hodei(&["job", "retry", &id]).ok().trim().to_owned();
    dev.hodei(&["job", "wait", &again]).ok();
    assert_eq!(dev.hodei(&["job", "logs", &again]).ok(), "a\nb\nc\n");
    let file = dev.file("job.yaml", "command: [cat]\n");
    dev.hodei(&["job", "submit", "--stdin", "-f", &file])
        .fails(2, &["--stdin"]);
}

#[test]
fn an_input_that_is_not_whole_leaves_no_job_behind() {
    let dev = Dev::start();
    let submit = [
        &["job", "submit", "--stdin", "--name", "half"],
        &SMALL[..],
        &["--", "cat"],
    ]
    .concat();
    let mut command = dev.folder.command(&submit);
    let run = Running::start(command.stdin(Stdio::piped()));
    let state = || dev.hodei(&["job", "list", "-o", "json"]).ok();
    wait_for("the job is held", || state().contains("\"reason\": \"held\""));
    run.signal(Signal::INT);
    run.end()
        .fails(1, &["before all of the input was stored", "is cancelled"]);
    assert!(state().contains("\"state\": \"cancelled\""));
}

#[test]
fn attach_shows_what_was_printed_and_ends_as_the_job_does() {
    let dev = Dev::start();
    let script = "echo one; echo two; read line; echo \"got $line\"; exit 5";
    let mut command = dev
        .folder
        .command(&[&["run", "-i"], &SMALL[..], &["--", "sh", "-c", script]].concat());
    let run = Running::start(command.stdin(Stdio::piped()));
    let list = || {
        dev.hodei(&["job", "list", "-o", "name", "--state", "running"])
            .ok()
    };
    wait_for("the job runs", || !list().is_empty());
    let id = list().trim().to_owned();
    wait_for("it has printed", || {
        dev.hodei(&["job", "logs", &id]).ok() == "one\ntwo\n"
    });
    // Leaves the job running.
    run.signal(Signal::HUP);
    assert_eq!(run.end().status, Some(129));
    let said = dev.with_stdin(&["job", "attach", "-i", "--tail", "1", &id], "hello\n");
    assert_eq!((said.status, said.stdout.as_str()), (Some(5), "two\ngot hello\n"));
    let said = dev.hodei(&["job", "attach", &id]);
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (Some(5), "one\ntwo\ngot hello\n")
    );

    let deaf = dev.hodei(&[&["job", "submit"], &SMALL[..], &["--", "true"]].concat());
    let deaf = deaf.ok().trim().to_owned();
    dev.hodei(&["job", "attach", "-i", &deaf])
        .fails(125, &["takes no input"]);
}

#[test]
fn a_provider_is_asked_drained_and_resumed() {
    let dev = Dev::start();
    assert!(dev.hodei(&["provider", "health", "local"]).ok().contains("yes"));
    let drained = dev.hodei(&["provider", "drain", "local", "--reason", "new disk"]);
    assert!(drained.ok().contains("new disk"));
    let list = dev.hodei(&["provider", "list"]).ok();
    assert!(list.contains("drained: new disk"), "{list}");
    let id = dev.hodei(&[&["job", "submit"], &SMALL[..], &["--", "true"]].concat());
    let id = id.ok().trim().to_owned();
    let why = dev.hodei(&["job", "why", &id]).ok();
    assert!(
        why.contains("new disk") && why.contains("provider resume local"),
        "{why}"
    );
    let status = dev.hodei(&["queue", "status"]).ok();
    assert!(status.contains("1 could run now"), "{status}");
    dev.hodei(&["provider", "resume", "local"]).ok();
    dev.hodei(&["job", "wait", &id]).ok();
    let worker = dev
        .hodei(&["worker", "list", "-o", "name"])
        .ok()
        .trim()
        .to_owned();
    let drained = dev
        .hodei(&["worker", "drain", &worker, "--reason", "enough"])
        .ok();
    assert!(drained.contains("draining"), "{drained}");
    wait_for("the worker leaves", || {
        dev.hodei(&["worker", "list", "-o", "name"]).ok().is_empty()
    });
    dev.hodei(&["provider", "drain", "moon"])
        .fails(1, &["there is no provider moon"]);
}
