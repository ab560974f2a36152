//! What `run` says about a job that waits.

use crate::world::{Dev, Folder, Running};

#[test]
fn a_job_that_nothing_can_hold_is_explained_and_waits_on() {
    let dev = Dev::start();
    let mut run = Running::start(&mut dev.folder.command(&["run", "--cpus", "900", "--", "true"]));
    let said = run.until("waiting: ");
    for word in [
        "no provider can hold it",
        "local: the job needs 900 cpus",
        "hodei job why",
    ] {
        assert!(said.contains(word), "{said}");
    }
    run.ctrl_c();
    assert_eq!(run.end().status, Some(130));
}

#[test]
fn where_nothing_can_change_it_ends_at_once() {
    let folder = Folder::new();
    let said = folder.hodei(&["run", "--local", "--cpus", "900", "--", "true"]);
    said.fails(125, &["can not run", "local: the job needs 900 cpus"]);
    assert!(folder.local().is_empty(), "{:?}", folder.local());
}
