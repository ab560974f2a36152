//! `hodei run --local`: ends as its job does and leaves nothing behind.

use crate::world::{Folder, Running};

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
