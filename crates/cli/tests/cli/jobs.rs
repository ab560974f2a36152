//! Lists, and what is done to many jobs.

use crate::world::{Dev, wait_for};

fn submit(dev: &Dev, label: &str, command: &[&str]) -> String {
    let id = dev.hodei(
        &[
            &["job", "submit", "--cpus", "0.01", "--label", label, "--"],
            command,
        ]
        .concat(),
    );
    id.ok().trim().to_owned()
}

#[test]
fn lists_are_newest_first_filtered_and_paged() {
    let dev = Dev::start();
    let mut ids: Vec<String> = (0..5)
        .map(|n| submit(&dev, &format!("n={n}"), &["true"]))
        .collect();
    ids.reverse();
    let names = |more: &[&str]| dev.hodei(&[&["job", "list", "-o", "name"], more].concat()).ok();
    assert_eq!(names(&[]).lines().collect::<Vec<_>>(), ids);
    assert_eq!(names(&["--label", "n=3"]).trim(), ids[1]);
    let first = dev.hodei(&["job", "list", "-o", "name", "--limit", "2"]);
    let token = first
        .stderr
        .split("--page-token ")
        .nth(1)
        .expect("a token")
        .trim()
        .to_owned();
    let rest = names(&["--page-token", &token, "--limit", "5000"]);
    assert_eq!(rest.lines().collect::<Vec<_>>(), ids[2..]);
    assert_eq!(names(&["--state", "timed_out"]), "");
    dev.hodei(&["job", "list", "--limit", "0"]).fails(2, &["--limit"]);
}

#[test]
fn many_are_cancelled_and_queued_anew_by_a_filter() {
    let dev = Dev::start();
    let kept = submit(&dev, "team=b", &["sleep", "600"]);
    let ended: Vec<String> = (0..12)
        .map(|_| submit(&dev, "team=a", &["sleep", "600"]))
        .collect();
    let said = dev.hodei(&["job", "cancel", "--label", "team=a"]);
    said.fails(2, &["ID", "… and 2 more", "--yes to cancel these 12 jobs"]);
    dev.hodei(&["job", "cancel"]).fails(2, &["<ID"]);
    let said = dev.hodei(&["job", "cancel", "--label", "team=a", "--yes"]);
    assert!(said.stderr.contains("0 had ended before"), "{said:?}");
    said.ok();
    dev.hodei(&["job", "wait", "--label", "team=a"])
        .fails(1, &["cancelled"]);
    let state = |id: &str| dev.hodei(&["job", "get", id, "-o", "json"]).ok();
    wait_for("the start of the other job", || {
        state(&kept).contains("\"state\": \"running\"")
    });
    let said = dev.hodei(&["job", "cancel", "--label", "team=a", "--yes"]);
    assert!(said.stderr.contains("no job to cancel"), "{said:?}");
    let anew = dev
        .hodei(&["job", "retry", "--label", "team=a", "--state", "cancelled", "-y"])
        .ok();
    assert_eq!(anew.lines().count(), ended.len());
    let all = dev.hodei(&["job", "cancel", "--all", "--yes", "-o", "name"]).ok();
    assert_eq!(all.lines().count(), ended.len() + 1);
    dev.hodei(&["job", "cancel", &kept, "00000000000000000000000000"])
        .fails(1, &[&kept, "no job"]);
}

#[test]
fn several_are_waited_for() {
    let dev = Dev::start();
    let good = submit(&dev, "x=1", &["true"]);
    let bad = submit(&dev, "x=1", &["sh", "-c", "exit 9"]);
    let long = submit(&dev, "x=2", &["sleep", "600"]);
    dev.hodei(&["job", "wait", &good]).ok();
    dev.hodei(&["job", "wait", &bad]).fails(9, &[]);
    dev.hodei(&["job", "wait", &good, &bad])
        .fails(1, &["succeeded", "failed"]);
    dev.hodei(&["job", "wait", "--label", "x=1"]).fails(1, &[]);
    assert_eq!(
        dev.hodei(&["job", "wait", "--any", &long, &good]).ok().trim(),
        good
    );
    dev.hodei(&["job", "wait", "--timeout", "300ms", &long, &good])
        .fails(124, &["1 of 2 jobs have not ended in time"]);
    dev.hodei(&["job", "wait", &good, "--label", "x=1"])
        .fails(125, &["--label"]);
    dev.hodei(&["job", "wait", "--label", "x=nothing"]).ok();
}
