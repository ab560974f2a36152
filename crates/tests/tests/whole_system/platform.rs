//! A server process with its data folder, and the workers that it starts.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::processes;

/// How long anything may take before a test fails; far below the five minutes after which a silent worker is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// The life of workers' certificates where a test does not care.
const LIFE: Duration = Duration::from_secs(1_800);

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A number that no other process on this machine has as an argument: a time to sleep that can be looked for.
pub(crate) fn long_sleep() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(10);
    format!(
        "9{:07}{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A platform on this machine. Dropped, it kills all that belongs to it.
pub(crate) struct Platform {
    folder: TempDir,
    life: Duration,
    server: Option<Server>,
}

struct Server {
    child: Child,
    // Its end ends the server.
    _stdin: Option<ChildStdin>,
    log: Arc<Mutex<String>>,
    address: String,
}

/// The processes of one worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worker {
    pub(crate) id: String,
    /// The process that the provider started.
    pub(crate) stub: u32,
    /// The first process of the worker's namespace, where it has one.
    pub(crate) init: Option<u32>,
}

impl Platform {
    /// A new one.
    pub(crate) async fn start() -> Self {
        Self::with_certificate_life(LIFE).await
    }

    /// A new one whose workers' certificates live for `life`.
    pub(crate) async fn with_certificate_life(life: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut platform = Self {
            folder,
            life,
            server: None,
        };
        platform.start_server().await;
        platform
    }

    /// Starts a server on the data folder.
    pub(crate) async fn start_server(&mut self) {
        let mut child = self
            .server_command()
            .spawn()
            .expect("the server's program starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (tell, told) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("ready ") {
                    // A test that has failed meanwhile does not listen.
                    let _gone = tell.send(address.to_owned());
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let stdin = child.stdin.take();
        self.server = Some(Server {
            child,
            _stdin: stdin,
            log,
            address: String::new(),
        });
        let ready = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE)).await;
        let address = ready
            .expect("not cancelled")
            .expect("the server is ready in time");
        self.server_mut().address = address;
    }

    /// The command that starts a server on this data folder.
    pub(crate) fn server_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command
            .arg("server")
            .arg(self.data())
            .arg(self.life.as_secs().to_string());
        command.env_remove("HODEI_CONFIG").env_remove("HODEI_DATA_DIR");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn server_mut(&mut self) -> &mut Server {
        self.server.as_mut().expect("the server runs")
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A path outside of the data folder, for what jobs leave.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The token of the data folder's first user.
    pub(crate) fn token(&self) -> String {
        let text = std::fs::read_to_string(self.data().join("admin.token")).expect("a token");
        text.trim_end().to_owned()
    }

    /// Where clients connect: a URL.
    pub(crate) fn address(&self) -> &str {
        &self.server.as_ref().expect("the server runs").address
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address(), self.token()).await
    }

    /// Kills the server with no chance to do anything.
    pub(crate) fn kill_server(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.child.kill().expect("killed");
        server.child.wait().expect("waited for");
    }

    /// Ends the server in order.
    pub(crate) async fn terminate_server(&mut self) -> ExitStatus {
        let server = self.server_mut();
        processes::send(server.child.id(), Signal::TERM);
        let began = Instant::now();
        loop {
            if let Some(status) = self.server_mut().child.try_wait().expect("waited for") {
                self.server = None;
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not end");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The folders of all workers.
    pub(crate) fn worker_folders(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("workers/local"))
            .into_iter()
            .flatten();
        entries.flatten().map(|entry| entry.path()).collect()
    }

    /// All workers that are started and not yet removed.
    pub(crate) fn workers(&self) -> Vec<Worker> {
        let mut workers: Vec<_> = self
            .worker_folders()
            .iter()
            .filter_map(|folder| worker(folder))
            .collect();
        workers.sort();
        workers
    }

    fn kill_all(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Both fail only for one that has ended.
            let _ended = server.child.kill();
            let _ended = server.child.wait();
            if std::thread::panicking() {
                let log = server.log.lock().unwrap_or_else(PoisonError::into_inner);
                eprintln!("the server's log:\n{log}");
            }
        }
        let workers: Vec<_> = self.workers().into_iter().map(|worker| worker.id).collect();
        let began = Instant::now();
        loop {
            let left = processes::below(self.folder.path());
            if left.is_empty() || began.elapsed() > PATIENCE {
                break;
            }
            left.into_iter().for_each(processes::kill);
            std::thread::sleep(POLL);
        }
        // A process that is ending is no longer seen above, but holds its cgroup for a moment.
        for worker in &workers {
            while let Some(cgroup) = cgroups(worker).first()
                && began.elapsed() < PATIENCE
            {
                remove_cgroup(cgroup);
                std::thread::sleep(POLL);
            }
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn worker(folder: &Path) -> Option<Worker> {
    let record = std::fs::read(folder.with_extension("json")).ok()?;
    let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
    let stub = u32::try_from(record["pid"].as_u64()?).ok()?;
    let init = processes::children(stub);
    // A worker without a namespace is the parent of its jobs.
    let folder_text = folder.to_str()?;
    let init = init
        .into_iter()
        .find(|pid| processes::with_argument(folder_text).contains(pid));
    Some(Worker {
        id: folder.file_name()?.to_str()?.to_owned(),
        stub,
        init,
    })
}

/// The folders of cgroups that belong to a worker.
pub(crate) fn cgroups(worker: &str) -> Vec<PathBuf> {
    let name = format!("hodei-{worker}");
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name() == name.as_str() {
                found.push(entry.path());
            } else if depth < 8 {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

fn remove_cgroup(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // One that is busy stays for now.
    let _busy = std::fs::remove_dir(cgroup);
}
