//! Starts `hodei` in a folder of its own, with an environment that has nothing of the caller's.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A data folder.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// `hodei` with this data folder, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hodei"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HODEI_DATA_DIR", self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `hodei` to its end.
    pub(crate) fn hodei(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().expect("hodei starts"))
    }

    /// Folders of `run --local` that are there.
    pub(crate) fn local(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("local"));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Command lines of live processes that name this folder.
    pub(crate) fn processes(&self) -> Vec<String> {
        let wanted = self.path().to_string_lossy().into_owned();
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&wanted))
            .collect()
    }
}

/// How a command ended and what it printed.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What was printed, of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.stdout
    }

    /// Fails unless the command ended with `status` and said all `words` on stderr.
    #[track_caller]
    pub(crate) fn fails(self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word} is missing: {self:?}");
        }
    }
}

/// A command that runs in a process group of its own, as in a terminal, with its stderr read line by line.
pub(crate) struct Running {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hodei starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        Self {
            child,
            stderr,
            said: String::new(),
        }
    }

    /// Reads stderr until a line contains `word`, and answers that line.
    #[track_caller]
    pub(crate) fn until(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.stderr.read_line(&mut line).expect("readable");
            assert!(length > 0, "stderr ended without `{word}`:\n{}", self.said);
            self.said.push_str(&line);
            if line.contains(word) {
                return line;
            }
        }
    }

    /// Ctrl-C of a terminal: every process of the group gets the signal.
    pub(crate) fn ctrl_c(&self) {
        kill_process_group(self.pid(), Signal::INT).expect("it runs");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Said {
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().expect("piped");
        pipe.read_to_string(&mut stdout).expect("text");
        self.stderr.read_to_string(&mut self.said).expect("text");
        let status = self.child.wait().expect("a child").code();
        Said {
            status,
            stdout,
            stderr: std::mem::take(&mut self.said),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Most have ended; what has not must not outlive its test.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill_process(self.pid(), Signal::TERM);
            drop(self.child.wait());
        }
    }
}

/// A `hodei dev` in a folder of its own.
pub(crate) struct Dev {
    pub(crate) folder: Folder,
    server: Option<Running>,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let free = ["dev", "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0"];
        let mut command = folder.command(&free);
        command.env("HODEI_LOG", "off");
        let mut server = Running::start(&mut command);
        server.until("ready ");
        Self {
            folder,
            server: Some(server),
        }
    }

    pub(crate) fn hodei(&self, arguments: &[&str]) -> Said {
        self.folder.hodei(arguments)
    }

    /// Runs `hodei` with a text on its stdin.
    pub(crate) fn with_stdin(&self, arguments: &[&str], stdin: &str) -> Said {
        let mut command = self.folder.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("hodei starts");
        let mut pipe = child.stdin.take().expect("piped");
        pipe.write_all(stdin.as_bytes()).expect("read");
        drop(pipe);
        Said::of(child.wait_with_output().expect("hodei ends"))
    }

    /// Writes a file beside the data and answers its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::TERM);
            server.end();
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
