//! `hodei job logs`.

use crate::world::Dev;

#[test]
fn merged_streams_keep_their_order() {
    let dev = Dev::start();
    let script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done";
    let said = dev.hodei(&["run", "--merge", "--", "sh", "-c", script]);
    let want: String = (1..=5).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(said.ok(), want);
}

#[test]
fn the_part_that_is_asked_for_is_printed() {
    let dev = Dev::start();
    let script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo out $i; done; echo err 1 >&2; sleep 0.05; \
                  echo err 2 >&2; exit 4";
    let id = dev
        .hodei(&["job", "submit", "--retries", "1", "--", "sh", "-c", script])
        .ok();
    let id = id.trim();
    dev.hodei(&["job", "wait", id]).fails(4, &[]);
    let logs = |more: &[&str]| {
        let said = dev.hodei(&[&["job", "logs", id], more].concat());
        assert_eq!(said.status, Some(0), "{said:?}");
        said
    };
    assert_eq!(
        logs(&["--tail", "2", "--stream", "stdout"]).stdout,
        "out 1999\nout 2000\n"
    );
    let said = logs(&["--tail", "1", "--stream", "stderr"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", "err 2\n"));
    assert_eq!(logs(&["--tail", "0"]).stdout, "");
    assert_eq!(
        logs(&["-f", "--tail", "1", "--stream", "stdout"]).stdout,
        "out 2000\n"
    );
    let all = logs(&["--attempt", "all"]);
    assert_eq!(all.stdout.lines().count(), 4_000);
    assert!(
        all.stderr
            .contains("attempt 1 failed with exit code 4; attempt 2 follows"),
        "{}",
        all.stderr
    );
    assert_eq!(logs(&["--attempt", "1"]).stdout.lines().count(), 2_000);
    assert_eq!(logs(&["--since", "1h"]).stdout.lines().count(), 2_000);
    assert_eq!(logs(&["--since", "2999-01-01T00:00:00Z"]).stdout, "");
    let stamped = logs(&["--tail", "1", "--timestamps", "--stream", "stdout"]).stdout;
    let (at, line) = stamped.split_once(' ').expect("a time");
    assert!(
        at.parse::<jiff::Timestamp>().is_ok() && line == "out 2000\n",
        "{stamped}"
    );
    dev.hodei(&["job", "logs", "--attempt", "3", id])
        .fails(1, &["has no attempt 3"]);
    dev.hodei(&["job", "logs", "--since", "yesterday", id])
        .fails(2, &["--since", "10m"]);
}
