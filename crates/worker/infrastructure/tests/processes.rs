//! Real processes: what a job gets, how its end is told, and that nothing of it is left. Each test runs with cgroups
//! where there are any and without.
#![allow(clippy::unwrap_used)]

#[path = "processes/input.rs"]
mod input;
#[path = "processes/stops.rs"]
mod stops;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hodei_shared::ids::{AttemptKey, JobId, Lease, Rank};
use hodei_shared::offsets::Stream;
use hodei_worker_application::ports::{Chunk, Executor, Process, Signal, Spools, StartFailure};
use hodei_worker_domain::assignment::{Assignment, Command};
use hodei_worker_domain::attempt::ProcessEnd;
use hodei_worker_infrastructure::cgroup::Cgroups;
use hodei_worker_infrastructure::executor::{ExecutorConfig, ProcessExecutor};
use hodei_worker_infrastructure::folder::Folder;
use hodei_worker_infrastructure::spool::FileSpools;

const LIMIT: Duration = Duration::from_secs(30);

struct Bench {
    executor: ProcessExecutor,
    folder: Folder,
    base: tempfile::TempDir,
    job: JobId,
}

/// Removes the cgroups of test processes that ended without doing so.
fn sweep_cgroups(own: &Cgroups) {
    for entry in fs::read_dir(own.path().parent().unwrap()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let pid = name
            .strip_prefix("hodei-test-")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            hodei_worker_infrastructure::cgroup::remove(&entry.path());
        }
    }
}

/// The executor with cgroups, where the kernel gives them, and without.
fn benches(name: &str) -> Vec<Bench> {
    let id = format!("test-{}-{name}", std::process::id());
    let cgroups = Cgroups::create(&id);
    cgroups.iter().for_each(sweep_cgroups);
    [cgroups, None]
        .into_iter()
        .enumerate()
        .map(|(n, cgroups)| {
            let base = tempfile::tempdir().unwrap();
            let folder = Folder::lock(&base.path().join("worker")).unwrap();
            let mut job = [0; 16];
            job[..4].copy_from_slice(&std::process::id().to_le_bytes());
            job[4] = n as u8;
            job[5..]
                .iter_mut()
                .zip(name.bytes())
                .for_each(|(to, from)| *to = from);
            let config = ExecutorConfig {
                attempts: folder.attempts(),
                worker_id: id.clone(),
                slots: 2,
                cgroups,
                ..ExecutorConfig::default()
            };
            Bench {
                executor: ProcessExecutor::new(config).unwrap(),
                folder,
                base,
                job: JobId::from_bytes(job),
            }
        })
        .collect()
}

struct Outcome {
    end: ProcessEnd,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Bench {
    fn assignment(&self, command: Command) -> Assignment {
        let key = AttemptKey {
            job: self.job,
            lease: Lease(1),
            rank: Rank(0),
        };
        Assignment::new(key, command)
    }

    fn argv(&self, argv: &[&str]) -> Assignment {
        self.assignment(Command::Argv(argv.iter().map(|arg| (*arg).to_owned()).collect()))
    }

    fn shell(&self, script: &str) -> Assignment {
        self.argv(&["/bin/sh", "-c", script])
    }

    async fn start(&self, assignment: Assignment) -> Result<Process, StartFailure> {
        self.executor.start(Arc::new(assignment)).await
    }

    async fn run(&self, assignment: Assignment) -> Outcome {
        finish(self.start(assignment).await.unwrap()).await
    }

    async fn failure(&self, assignment: Assignment) -> StartFailure {
        match self.start(assignment).await {
            Ok(_) => panic!("it must not start"),
            Err(failure) => failure,
        }
    }

    /// Whether nothing of any attempt is left: its empty folders may serve the next one.
    fn is_clean(&self) -> bool {
        let below = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let parts: Vec<_> = below(&self.folder.attempts())
            .flat_map(|attempt| below(&attempt))
            .collect();
        parts
            .iter()
            .all(|part| part.is_dir() && below(part).next().is_none())
    }
}

async fn finish(mut process: Process) -> Outcome {
    let mut outcome = Outcome {
        end: ProcessEnd::Exited(-1),
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    let reading = async {
        while let Some(Chunk { stream, bytes, .. }) = process.output.read().await {
            match stream {
                Stream::Stdout => outcome.stdout.extend(bytes),
                Stream::Stderr => outcome.stderr.extend(bytes),
            }
        }
    };
    let both = async { tokio::join!(reading, process.exit).1 };
    outcome.end = tokio::time::timeout(LIMIT, both).await.expect("it ends in time");
    outcome
}

fn open_folder(path: &Path) -> std::os::fd::OwnedFd {
    fs::File::open(path).unwrap().into()
}

/// Waits until `condition` holds.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn line(process: &mut Process) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\n") {
        let chunk = tokio::time::timeout(LIMIT, process.output.read()).await.unwrap();
        text.extend(chunk.expect("the process prints").bytes);
    }
    String::from_utf8(text).unwrap()
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z')
}

#[tokio::test]
async fn arguments_arrive_unchanged() {
    for bench in benches("argv") {
        let odd = [
            "a b",
            "",
            "'quoted' \"twice\"",
            "new\nline",
            "$HOME `id` \\",
            "*",
            "-n",
            "é",
        ];
        let argv: Vec<&str> = ["/usr/bin/printf", "%s\\0"].into_iter().chain(odd).collect();
        let outcome = bench.run(bench.argv(&argv)).await;
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert_eq!(text.split_terminator('\0').collect::<Vec<_>>(), odd);
    }
}

#[tokio::test]
async fn the_environment_is_exactly_what_is_promised() {
    for bench in benches("env") {
        let mut assignment = bench.argv(&["/usr/bin/env", "-0"]);
        assignment.env.insert("LANG".into(), "de_DE.UTF-8".into());
        assignment.env.insert("MINE".into(), "a=b\nc".into());
        assignment.env.insert("HODEI_WORKER_ID".into(), "forged".into());
        assignment.attempt = 3;
        let outcome = bench.run(assignment).await;
        let text = String::from_utf8(outcome.stdout).unwrap();
        let env: BTreeMap<&str, &str> = text
            .split_terminator('\0')
            .map(|p| p.split_once('=').unwrap())
            .collect();
        let job = bench.job.to_string();
        for (name, value) in [
            ("HODEI_JOB_ID", job.as_str()),
            ("HODEI_ATTEMPT", "3"),
            ("HODEI_NAMESPACE", "default"),
            ("LANG", "de_DE.UTF-8"),
            ("MINE", "a=b\nc"),
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
        ] {
            assert_eq!(env.get(name), Some(&value), "{name}");
        }
        assert!(env["HODEI_WORKER_ID"].starts_with("test-"));
        assert_ne!(env["HOME"], env["TMPDIR"]);
        let mut names: Vec<&str> = env.keys().copied().collect();
        names.retain(|name| !["HOME", "TMPDIR"].contains(name));
        assert_eq!(names.len(), 7, "{names:?}");
    }
}

#[tokio::test]
async fn a_job_has_private_folders_and_only_three_descriptors() {
    for bench in benches("folders") {
        let script = "pwd; ls -A . \"$HOME\" \"$TMPDIR\"; touch x $HOME/x $TMPDIR/x && echo ok; chmod 0 $HOME; \
                      cat; ls /proc/self/fd | wc -l";
        let outcome = bench.run(bench.shell(script)).await;
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert_eq!(outcome.end, ProcessEnd::Exited(0));
        assert!(
            text.starts_with(&*bench.folder.attempts().to_string_lossy()),
            "{text}"
        );
        assert!(text.contains("\nok\n"), "{text}");
        assert!(text.ends_with("\n4\n"), "0, 1, 2 and that of ls: {text}");
        until("the folders are removed", || bench.is_clean()).await;
    }
}

#[tokio::test]
async fn ends_are_told_as_they_are() {
    for bench in benches("ends") {
        for (script, end) in [
            ("exit 0", ProcessEnd::Exited(0)),
            ("exit 42", ProcessEnd::Exited(42)),
            ("kill -SEGV $$", ProcessEnd::Signalled(11)),
            ("kill -PIPE $$", ProcessEnd::Signalled(13)),
        ] {
            assert_eq!(bench.run(bench.shell(script)).await.end, end, "{script}");
        }
    }
}

#[tokio::test]
async fn scripts_run_by_their_interpreter_in_the_given_folder() {
    for bench in benches("scripts") {
        let mut assignment = bench.assignment(Command::Script {
            text: "echo \"$1\" >&2\npwd".into(),
            interpreter: vec!["sh".into(), "-e".into()],
        });
        assignment.workdir = Some("/usr".into());
        let outcome = bench.run(assignment).await;
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.stderr.as_slice()),
            (&b"/usr\n"[..], &b"\n"[..])
        );
    }
}

#[tokio::test]
async fn output_is_bytes() {
    for bench in benches("bytes") {
        let outcome = bench
            .run(bench.shell("printf '\\377\\000\\376'; printf '\\200' >&2"))
            .await;
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.stderr.as_slice()),
            (&b"\xff\0\xfe"[..], &b"\x80"[..])
        );
        let outcome = bench.run(bench.shell("head -c 3000000 /dev/zero")).await;
        assert_eq!(outcome.stdout.len(), 3_000_000);
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn what_can_not_start_says_why() {
    for bench in benches("failures") {
        let base = bench.base.path();
        write(&base.join("plain"), "echo hello\n", 0o755);
        write(&base.join("denied"), "#!/bin/sh\n", 0o644);
        write(&base.join("lost"), "#!/no/such/interpreter -x\n", 0o755);
        let path = |name: &str| base.join(name).to_string_lossy().into_owned();
        for (program, code, words) in [
            (
                "no-such-program".to_owned(),
                127,
                "no-such-program: command not found",
            ),
            (path("absent"), 127, "absent: no such file"),
            (path("denied"), 126, "denied"),
            (path("plain"), 126, "plain: is neither a program nor"),
            (path("lost"), 126, "bad interpreter: /no/such/interpreter"),
            ("/usr".to_owned(), 126, "/usr: is a folder"),
            (String::new(), 127, "command not found"),
        ] {
            let failure = bench.failure(bench.argv(&[&program])).await;
            assert_eq!(failure.exit_code, Some(code), "{program}: {failure}");
            assert!(failure.message.contains(words), "{program}: {failure}");
        }
        for (workdir, words) in [
            ("/no/such/folder", "no such folder"),
            ("/etc/passwd", "not a folder"),
        ] {
            let mut assignment = bench.argv(&["/bin/true"]);
            assignment.workdir = Some(workdir.into());
            let failure = bench.failure(assignment).await;
            assert_eq!(failure.exit_code, None);
            assert!(
                failure.message.contains(workdir) && failure.message.contains(words),
                "{failure}"
            );
        }
        until("the folders are removed", || bench.is_clean()).await;
    }
}

#[tokio::test]
async fn programs_are_looked_for_in_the_jobs_own_path_and_folder() {
    for bench in benches("path") {
        write(&bench.base.path().join("tool"), "#!/bin/sh\necho mine\n", 0o755);
        let folder = bench.base.path().to_string_lossy().into_owned();
        let mut by_path = bench.argv(&["tool"]);
        by_path
            .env
            .insert("PATH".into(), format!("/no/such:{folder}:/bin"));
        assert_eq!(bench.run(by_path).await.stdout, b"mine\n");
        let mut relative = bench.argv(&["./tool"]);
        relative.workdir = Some(folder);
        assert_eq!(bench.run(relative).await.stdout, b"mine\n");
    }
}

#[tokio::test]
async fn a_stubborn_tree_is_killed_whole() {
    for bench in benches("stubborn") {
        let script = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & \
                      while :; do sleep 1; done";
        let mut process = bench.start(bench.shell(script)).await.unwrap();
        let grandchild = line(&mut process).await.trim().to_owned();
        process.control.signal(Signal::Term);
        assert!(is_alive(&grandchild), "TERM is ignored");
        process.control.signal(Signal::Kill);
        assert_eq!(finish(process).await.end, ProcessEnd::Signalled(9));
        assert!(!is_alive(&grandchild));
        // And the slot's next job lives.
        for _ in 0..4 {
            assert_eq!(
                bench.run(bench.shell("sleep 0; exit 7")).await.end,
                ProcessEnd::Exited(7)
            );
        }
    }
}

#[tokio::test]
async fn term_reaches_the_whole_tree() {
    for bench in benches("term") {
        let script = "sh -c 'trap \"echo child; exit 0\" TERM; echo ready; while :; do sleep 0.05; done' & \
                      trap 'wait; exit 5' TERM; wait";
        let mut process = bench.start(bench.shell(script)).await.unwrap();
        assert_eq!(line(&mut process).await, "ready\n");
        process.control.signal(Signal::Term);
        let outcome = finish(process).await;
        assert_eq!(
            (outcome.end, outcome.stdout.as_slice()),
            (ProcessEnd::Exited(5), &b"child\n"[..])
        );
    }
}

#[tokio::test]
async fn a_background_child_with_the_pipe_does_not_hold_up_the_end() {
    for bench in benches("background") {
        let start = Instant::now();
        let outcome = bench
            .run(bench.shell("(sleep 600; echo late) & setsid sleep 600 & echo early"))
            .await;
        assert_eq!(
            (outcome.end, outcome.stdout.as_slice()),
            (ProcessEnd::Exited(0), &b"early\n"[..])
        );
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn many_jobs_share_the_slots() {
    for bench in benches("many") {
        let runs = (0..40).map(|n| {
            let bench = &bench;
            let mut assignment = bench.shell(&format!("exit {n}"));
            // Without cgroups two attempts of one job are told apart by their number.
            assignment.attempt = n as u32 + 1;
            async move { bench.run(assignment).await.end }
        });
        let ends = futures::future::join_all(runs).await;
        assert_eq!(ends, (0..40).map(ProcessEnd::Exited).collect::<Vec<_>>());
        until("the folders are removed", || bench.is_clean()).await;
    }
}

#[tokio::test]
async fn a_spool_overflows_into_a_file_that_nobody_sees() {
    let base = tempfile::tempdir().unwrap();
    let spool = FileSpools::new(open_folder(base.path())).open(AttemptKey {
        job: JobId::from_bytes([0; 16]),
        lease: Lease(1),
        rank: Rank(0),
    });
    let byte = |position: u64| (position % 251) as u8;
    let mut end = 0;
    for n in 0..300u64 {
        let bytes: Vec<u8> = (end..end + 65_536).map(byte).collect();
        let stream = if n % 2 == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        end = spool
            .append(Chunk {
                stream,
                bytes,
                at_ms: 0,
            })
            .await
            .unwrap();
    }
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    let mut at = 0;
    while at < end {
        let piece = spool.read(at, 100_000).await.unwrap();
        assert!(piece.is_consistent() && piece.start == at && !piece.data.is_empty());
        assert!(
            piece
                .data
                .iter()
                .zip(at..)
                .all(|(got, position)| *got == byte(position))
        );
        at = piece.end();
        spool.trim(at).await;
        assert!(spool.read(at - 1, 1).await.is_err(), "what is trimmed is gone");
    }
    let last = Chunk {
        stream: Stream::Stdout,
        bytes: b"after".to_vec(),
        at_ms: 0,
    };
    spool.append(last).await.unwrap();
    assert_eq!(spool.read(end, 10).await.unwrap().data, b"after");
}

#[tokio::test]
async fn a_job_that_removes_the_attempts_folder_breaks_the_worker_and_no_other_job() {
    for bench in benches("gone") {
        let script = "cd \"$HOME\" && rm -rf ../../../attempts";
        let outcome = bench.run(bench.shell(script)).await;
        assert_eq!(outcome.end, ProcessEnd::Exited(0));
        let failure = bench.failure(bench.shell("true")).await;
        assert!(failure.worker_is_broken, "{failure:?}");
        let missing = bench.failure(bench.argv(&["/nowhere"])).await;
        assert!(missing.worker_is_broken, "{missing:?}");
    }
}

#[tokio::test]
async fn what_a_job_puts_in_the_place_of_the_next_ones_folder_is_removed() {
    for bench in benches("place") {
        let script = "cd \"$HOME\"/../.. && mkdir -p 1/work/deep && : > 2 && ln -s / 3";
        assert_eq!(bench.run(bench.shell(script)).await.end, ProcessEnd::Exited(0));
        for _ in 0..3 {
            let outcome = bench.run(bench.shell("test -z \"$(ls -A)\"")).await;
            assert_eq!(outcome.end, ProcessEnd::Exited(0));
        }
    }
}
