//! `hodei run --local`: ends as its job does and leaves nothing behind.

use rustix::process::Signal;

use crate::world::{Folder, Running, wait_for};

#[test]
fn it_ends_with_the_jobs_exit_code_and_leaves_nothing() {
    let folder = Folder::new();
    let said = folder.hodei(&[
        "run",
        "--local",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 7",
    ]);
    assert_eq!(said.status, Some(7), "{said:?}");
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
    assert!(folder.local().is_empty(), "{:?}", folder.local());
    assert!(folder.processes().is_empty(), "{:?}", folder.processes());
}

/// A terminal sends Ctrl-C to the whole process group: workers must not be in it.
#[test]
fn ctrl_c_cancels_the_job_whoever_is_in_the_process_group() {
    let folder = Folder::new();
    let mut run = Running::start(&mut folder.command(&[
        "run",
        "--local",
        "--",
        "sh",
        "-c",
        "echo up >&2; exec sleep 600",
    ]));
    run.until("up");
    run.ctrl_c();
    let said = run.end();
    assert!(said.stderr.contains("cancelled"), "{said:?}");
    assert_eq!(said.status, Some(130), "{said:?}");
    assert!(
        folder.local().is_empty() && folder.processes().is_empty(),
        "{:?}",
        folder.local()
    );
}

#[test]
fn however_often_ctrl_c_comes_nothing_is_left() {
    let folder = Folder::new();
    let stubborn = "trap '' INT TERM; echo up >&2; while :; do sleep 0.1; done";
    let mut run = Running::start(&mut folder.command(&["run", "--local", "--", "sh", "-c", stubborn]));
    run.until("up");
    run.ctrl_c();
    run.until("cancelling job");
    run.ctrl_c();
    run.until("left; job");
    run.ctrl_c();
    run.ctrl_c();
    let said = run.end();
    assert_eq!(said.status, Some(130), "{said:?}");
    assert!(folder.local().is_empty(), "{:?}", folder.local());
    assert!(folder.processes().is_empty(), "{:?}", folder.processes());
}

#[test]
fn after_a_kill_its_job_and_worker_end_by_themselves() {
    let folder = Folder::new();
    // The folder's name in the arguments lets the processes be found.
    let name = folder.path().to_string_lossy().into_owned();
    let script = "setsid sh -c 'sleep 600; : \"$0\"' \"$0\" & echo up >&2; sleep 600; :";
    let job = ["run", "--local", "--", "sh", "-c", script, &name];
    let mut run = Running::start(&mut folder.command(&job));
    run.until("up");
    run.signal(Signal::KILL);
    assert_eq!(run.end().status, None);
    wait_for("the end of its worker and job", || folder.processes().is_empty());
    folder.hodei(&["run", "--local", "--", "true"]).ok();
    assert!(folder.local().is_empty(), "{:?}", folder.local());
}

#[test]
fn it_takes_the_providers_of_the_configuration_that_is_named() {
    let folder = Folder::new();
    let path = folder.path().join("mine.toml");
    let text = "listen = \"127.0.0.1:1\"\n[[provider]]\nid = \"small\"\nkind = \"process\"\nlabels = { zone = \"b\" }\n";
    std::fs::write(&path, text).expect("written");
    let path = path.to_string_lossy().into_owned();
    let job = ["--constraint", "zone = b", "--provider", "small", "--", "true"];
    folder
        .hodei(&[&["run", "--local", "--config", &path], &job[..]].concat())
        .ok();
    let mut by_variable = folder.command(&[&["run", "--local"], &job[..]].concat());
    by_variable.env("HODEI_CONFIG", &path);
    assert!(by_variable.status().expect("started").success());
    std::fs::write(&path, "lisen = 1\n").expect("written");
    let said = folder.hodei(&["run", "--local", "--config", &path, "--", "true"]);
    said.fails(125, &["mine.toml:1:1", "lisen"]);
}
