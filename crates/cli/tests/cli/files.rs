//! Jobs from files, and files from jobs.

use crate::world::{Dev, Folder};

#[test]
fn a_file_of_several_jobs_is_queued_in_its_order() {
    let dev = Dev::start();
    let file = dev.file(
        "jobs.yaml",
        "name: one\nscript: |\n  echo $MODE $0\n  exit 3\ninterpreter: [/bin/sh, -e]\nenv: {MODE: fast}\n---\n\
         name: two\ncommand: [sh, -c, 'echo $A $B']\nenv: {A: file, B: file}\nlabels: {team: a}\n",
    );
    let ids = dev
        .hodei(&[
            "job", "submit", "-f", &file, "--env", "B=flag", "--label", "set=x",
        ])
        .ok();
    let ids: Vec<&str> = ids.lines().collect();
    let [one, two] = ids[..] else {
        panic!("two ids: {ids:?}")
    };
    dev.hodei(&["job", "wait", one]).fails(3, &[]);
    assert!(dev.hodei(&["job", "logs", one]).ok().starts_with("fast /"));
    dev.hodei(&["job", "wait", two]).ok();
    assert_eq!(dev.hodei(&["job", "logs", two]).ok(), "file flag\n");
    let shown = dev.hodei(&["job", "get", two, "-o", "json"]).ok();
    assert!(
        shown.contains("\"team\": \"a\"") && shown.contains("\"set\": \"x\""),
        "{shown}"
    );
    // The same key for the same jobs answers the same ids.
    let with_key = ["job", "submit", "-f", &file, "--idempotency-key", "k"];
    assert_eq!(dev.hodei(&with_key).ok(), dev.hodei(&with_key).ok());
    let piped = dev.with_stdin(&["run", "-f", "-"], "{\"command\": [\"echo\", \"hi\"]}");
    assert_eq!(piped.ok(), "hi\n");
    dev.hodei(&["run", "-f", &file]).fails(125, &["holds 2 jobs"]);
}

#[test]
fn a_mistake_in_the_last_job_queues_none() {
    let dev = Dev::start();
    for (last, words) in [
        ("comand: [b]\n", &["jobs.yaml:3:1", "unknown field `comand`"][..]),
        (
            "command: [b]\nworkdir: sub\n",
            &["job 2 of 2", "workdir", "`sub`"],
        ),
        ("command: [b]\nlabels: {'x y': '1'}\n", &["job 2 of 2", "`x y`"]),
        (
            "command: [b]\nscript: b\n",
            &["job 2 of 2", "give a command or a script"],
        ),
    ] {
        let file = dev.file("jobs.yaml", &format!("command: [a]\n---\n{last}"));
        dev.hodei(&["job", "submit", "-f", &file]).fails(2, words);
    }
    assert_eq!(dev.hodei(&["job", "list", "-o", "name"]).ok(), "");
    dev.hodei(&["job", "submit", "-f", "/nowhere.yaml"])
        .fails(2, &["/nowhere.yaml can not be read"]);
}

#[test]
fn what_a_dry_run_prints_is_read_as_the_same_job() {
    let folder = Folder::new();
    let flags = [
        "--name",
        "n",
        "--cpus",
        "0.25",
        "--memory",
        "3GiB",
        "--timeout",
        "90m",
        "--retries",
        "2",
        "--retry-on",
        "lost,oom",
        "--label",
        "a=b",
        "--constraint",
        "zone in (a, b)",
        "--priority",
        "-3",
        "--lost-after",
        "2m",
        "--env",
        "YES=yes",
        "--env",
        "EMPTY=",
        "--workdir",
        "/srv",
        "--isolation",
        "process",
        "--",
        "echo",
        "a b",
        "7",
    ];
    // No server is asked.
    let first = folder
        .hodei(&[&["job", "submit", "--dry-run"], &flags[..]].concat())
        .ok();
    assert!(
        first.starts_with("name: n\ncommand:\n- echo\n- a b\n- '7'\n"),
        "{first}"
    );
    let path = folder.path().join("job.yaml");
    std::fs::write(&path, &first).expect("written");
    let path = path.to_string_lossy();
    assert_eq!(
        folder.hodei(&["job", "submit", "--dry-run", "-f", &path]).ok(),
        first
    );
    let json = folder
        .hodei(&["job", "submit", "--dry-run", "-o", "json", "-f", &path])
        .ok();
    let json_path = folder.path().join("job.json");
    std::fs::write(&json_path, &json).expect("written");
    let again = [
        "run",
        "--dry-run",
        "-o",
        "yaml",
        "-f",
        &json_path.to_string_lossy(),
    ];
    assert_eq!(folder.hodei(&again).ok(), first);
    let bad = ["job", "submit", "--dry-run", "--retries", "5000", "--", "true"];
    folder.hodei(&bad).fails(2, &["retries", "5000", "1000"]);
    folder
        .hodei(&["job", "submit", "--dry-run", "-o", "wide", "--", "true"])
        .fails(2, &["-o yaml"]);
}

#[test]
fn variables_come_from_files_and_flags_win() {
    let dev = Dev::start();
    let file = dev.file("vars.env", "# c\nA=file\nexport B='two words'\n");
    let script = "echo \"$A|$B|$C\"";
    let said = dev.hodei(&[
        "run",
        "--env-file",
        &file,
        "--env",
        "A=flag",
        "--env",
        "C=3",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(said.ok(), "flag|two words|3\n");
    let file = dev.file("bad.env", "A=1\nB=\"x\n");
    dev.hodei(&["run", "--env-file", &file, "--", "true"])
        .fails(125, &["bad.env:2:", "double quote"]);
}
