//! What shells and other programs rely on.

use std::io::Read as _;
use std::process::Stdio;

use crate::world::{Dev, Folder, Said};

#[test]
fn shells_complete_flags_and_the_ids_of_jobs() {
    let dev = Dev::start();
    let id = dev
        .hodei(&["job", "submit", "--name", "named", "--", "true"])
        .ok();
    for shell in ["bash", "zsh", "fish"] {
        let script = dev.hodei(&["completions", shell]).ok();
        assert!(
            script.contains("HODEI_COMPLETE") && script.contains("hodei"),
            "{script}"
        );
    }
    let ask = |words: &[&str]| {
        let mut command = dev.folder.command(&[&["--", "hodei"], words].concat());
        command
            .env("HODEI_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        Said::of(command.output().expect("started")).ok()
    };
    assert!(ask(&["job", "canc"]).contains("cancel"));
    assert!(ask(&["job", "logs", ""]).contains(id.trim()));
    assert!(ask(&["job", "get", &id[..8]]).contains(id.trim()));
    assert!(ask(&["run", "--loc"]).contains("--local"));
    // Without a server there are no ids, and no error either.
    let folder = Folder::new();
    let mut command = folder.command(&["--", "hodei", "job", "get", ""]);
    command
        .env("HODEI_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "3");
    let said = Said::of(command.output().expect("started"));
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""), "{said:?}");
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = Folder::new();
    let man = folder.path().join("man");
    folder.hodei(&["__man", &man.to_string_lossy()]).ok();
    for page in ["hodei.1", "hodei-run.1", "hodei-job-submit.1", "hodei-doctor.1"] {
        let text = std::fs::read_to_string(man.join(page)).expect(page);
        assert!(text.contains(".TH"), "{page}");
    }
}

#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let folder = Folder::new();
    let mut command = folder.command(&["completions", "bash"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("text");
    assert!(child.wait().expect("ended").success());
    assert_eq!(said, "");
}

#[test]
fn the_doctor_tells_programs_what_holds() {
    let folder = Folder::new();
    let said = folder.hodei(&["doctor", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!(
        said.status,
        Some(if report["ok"] == true { 0 } else { 1 }),
        "{said:?}"
    );
    let checks = report["checks"].as_array().expect("a list");
    for name in [
        "kernel",
        "cgroups",
        "landlock",
        "clock",
        "disk",
        "fsync",
        "client address",
        "trial job",
    ] {
        let check = checks.iter().find(|check| check["name"] == name).expect(name);
        let standing = check["standing"].as_str().expect("a word");
        assert_eq!(check["advice"].is_null(), standing == "ok", "{check}");
    }
    assert!(
        std::fs::read_dir(folder.path()).expect("there").next().is_none(),
        "nothing stays behind"
    );
    folder
        .hodei(&["doctor", "--data-dir", "/proc/nowhere"])
        .fails(1, &["missing"]);
}
