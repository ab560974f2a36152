//! Workers as processes of this machine.
//!
//! Each worker has a folder of its own, named by its id, with the lock that it holds for life and its log; beside
//! it is a record of its process and cgroup. So a server that lost its memory still finds every worker it ever started.
//! Invariants: nothing secret is in a command line, an environment or a file · a worker is gone only when its lock
//! is free and its tree was killed · its folder goes after that, so an interrupted clean-up is found and repeated.

mod cgroup;
mod folder;
mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_jobs::bootstrap::Bootstrap;
use hodei_server_application::ports::provider::{
    ProviderError, WorkerHandle, WorkerProvider, WorkerSpec, WorkerState,
};
use hodei_server_domain::provider::{Capabilities, Health, Isolation};
use hodei_shared::ids::{ProviderId, WorkerId};
use hodei_shared::labels::Labels;
use hodei_shared::resources::Resources;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use folder::{MachineRecord, WorkerFolder, last_line, last_lines};

/// How many jobs a worker runs at once where each can be killed as a whole by its cgroup.
const SLOTS_WITH_CGROUPS: u32 = 64;
/// How long a killed worker may take to let go of its lock.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// What a process provider is made of.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Its configured id.
    pub id: ProviderId,
    /// Where the workers' folders are.
    pub folder: PathBuf,
    /// The program that is started; it must know the arguments.
    pub program: PathBuf,
    /// What stands before `--folder DIR`, such as `worker`.
    pub arguments: Vec<String>,
    /// Configured labels.
    pub labels: Labels,
    /// What all its jobs together may use.
    pub capacity: Resources,
    /// How many workers at most.
    pub max_workers: u32,
    /// What every worker is handed.
    pub bootstrap: BootstrapBase,
}

/// The part of the bootstrap document that is the same for all workers.
#[derive(Debug, Clone)]
pub struct BootstrapBase {
    /// The only certificates that workers trust, PEM.
    pub root_certificates: String,
    /// The DNS name in every server's certificate.
    pub server_name: String,
    /// Server addresses by number.
    pub addresses: Vec<String>,
    /// The workers' socket on this machine.
    pub socket: Option<PathBuf>,
    /// How long a worker stays without a job and without contact.
    pub leave_after: Duration,
    /// Whether its jobs end then, too.
    pub jobs_end_with_server: bool,
    /// The folder that jobs must not see.
    pub cover: Option<PathBuf>,
}

/// Starts workers as processes of this machine.
pub struct ProcessProvider {
    config: ProcessConfig,
    capabilities: Capabilities,
    shared: Arc<Shared>,
}

/// What the tasks that wait for children share with the provider.
#[derive(Debug, Default)]
struct Shared {
    /// Children of this server that have not ended.
    children: Mutex<BTreeMap<WorkerId, u32>>,
    changed: Notify,
}

impl ProcessProvider {
    /// A provider over `config.folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`ProviderError::Misconfigured`] if the folder can not be made or a label is not valid.
    pub fn new(config: ProcessConfig) -> Result<Self, ProviderError> {
        std::fs::create_dir_all(&config.folder).map_err(|error| {
            let folder = config.folder.display();
            ProviderError::Misconfigured(format!("the folder {folder} can not be made: {error}"))
        })?;
        let labels =
            all_labels(&config).map_err(|invalid| ProviderError::Misconfigured(invalid.to_string()))?;
        let capabilities = Capabilities {
            kind: "process",
            isolation: Isolation::Process,
            images: false,
            labels,
            capacity: config.capacity,
            max_workers: config.max_workers,
            slots_per_worker: if cgroup::can_kill_by_cgroup() {
                SLOTS_WITH_CGROUPS
            } else {
                1
            },
        };
        Ok(Self {
            config,
            capabilities,
            shared: Arc::default(),
        })
    }

    fn worker_folder(&self, worker: WorkerId) -> WorkerFolder {
        WorkerFolder::new(self.config.folder.join(worker.to_string()))
    }

    fn is_child(&self, worker: WorkerId) -> bool {
        self.shared
            .children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&worker)
    }

    fn bootstrap(&self, spec: &WorkerSpec) -> Bootstrap {
        let base = &self.config.bootstrap;
        Bootstrap {
            otp: spec.otp.clone(),
            root_certificates: base.root_certificates.clone(),
            server_name: base.server_name.clone(),
            addresses: base.addresses.clone(),
            socket: base
                .socket
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
            now_ms: spec.now_ms,
            worker_id: spec.worker.to_string(),
            cpu_millis: spec.room.cpu_millis,
            memory_bytes: spec.room.memory_bytes,
            slots: spec.slots,
            leave_after_ms: u64::try_from(base.leave_after.as_millis()).unwrap_or(u64::MAX),
            jobs_end_with_server: base.jobs_end_with_server,
            cover: base
                .cover
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
        }
    }

    fn spawn(&self, folder: &WorkerFolder, log: &File) -> std::io::Result<Child> {
        Command::new(&self.config.program)
            .args(&self.config.arguments)
            .arg("--folder")
            .arg(folder.path())
            .env_clear()
            .current_dir("/")
            // Ctrl-C in the server's terminal is for the server alone.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log.try_clone()?))
            .spawn()
    }

    /// Waits for the child's end in a task of its own, so that it never stays a zombie. What a worker that failed
    /// said last is told: its folder goes soon.
    fn reap(&self, worker: WorkerId, pid: u32, mut child: Child, log: File) {
        let shared = Arc::clone(&self.shared);
        shared
            .children
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(worker, pid);
        tokio::spawn(async move {
            let status = child.wait().await;
            match status.as_ref().ok().and_then(ExitStatus::code) {
                Some(exit_code @ 1..) => {
                    let last = last_lines(&log).unwrap_or_default();
                    tracing::warn!(worker_id = %worker, exit_code, log = %last, "worker process failed");
                }
                _ => tracing::debug!(worker_id = %worker, ?status, "worker process ended"),
            }
            drop(log);
            shared
                .children
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&worker);
            shared.changed.notify_waiters();
            shared.changed.notify_one();
        });
    }

    /// Removes the record, or the beginning of one, of a worker whose folder is gone.
    fn remove_if_orphaned(&self, name: &str, path: &Path) {
        let first = name.trim_start_matches('.').split('.').next().unwrap_or_default();
        let Ok(worker) = first.parse::<WorkerId>() else {
            return;
        };
        // A worker's folder is there before its record is, and goes before it.
        if !self.worker_folder(worker).exists()
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a record without a worker could not be removed");
        }
    }

    fn state(&self, worker: WorkerId) -> WorkerState {
        let folder = self.worker_folder(worker);
        if !folder.exists() {
            return WorkerState::Gone;
        }
        if self.is_child(worker) {
            return WorkerState::Running;
        }
        match folder.is_free(folder.read_record().as_ref()) {
            Ok(true) => WorkerState::Exited,
            Ok(false) => WorkerState::Running,
            Err(error) => {
                tracing::warn!(worker_id = %worker, %error, "worker's lock could not be looked at");
                WorkerState::Unknown
            }
        }
    }
}

fn all_labels(config: &ProcessConfig) -> Result<Labels, hodei_shared::Invalid> {
    let own = [
        ("provider", config.id.as_str()),
        ("kind", "process"),
        ("arch", std::env::consts::ARCH),
        ("isolation", Isolation::Process.as_str()),
    ];
    let configured = config
        .labels
        .iter()
        .filter(|(key, _)| own.iter().all(|(name, _)| name != key));
    let pairs = configured
        .chain(own)
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    Labels::new(pairs)
}

fn unavailable(what: &str, path: &Path, error: &std::io::Error) -> ProviderError {
    ProviderError::Unavailable(format!("{what} {}: {error}", path.display()))
}

#[async_trait]
impl WorkerProvider for ProcessProvider {
    fn provider_id(&self) -> &ProviderId {
        &self.config.id
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn create_worker(&self, spec: &WorkerSpec) -> Result<WorkerHandle, ProviderError> {
        let folder = self.worker_folder(spec.worker);
        if folder.exists() {
            let handle = WorkerHandle {
                worker: spec.worker,
                machine: String::new(),
            };
            self.destroy_worker(&handle).await?;
        }
        folder
            .create()
            .map_err(|error| unavailable("can not make", folder.path(), &error))?;
        let log = folder
            .open_log()
            .map_err(|error| unavailable("can not write into", folder.path(), &error))?;
        let mut child = self
            .spawn(&folder, &log)
            .map_err(|error| unavailable("can not start", &self.config.program, &error))?;
        let pid = child.id().unwrap_or(0);
        let stdin = child.stdin.take();
        let record = MachineRecord::of(pid, cgroup::worker_cgroup(spec.worker));
        self.reap(spec.worker, pid, child, log);
        folder
            .write_record(&record)
            .map_err(|error| unavailable("can not write into", folder.path(), &error))?;
        let mut document =
            zeroize::Zeroizing::new(serde_json::to_vec(&self.bootstrap(spec)).map_err(|error| {
                ProviderError::Unavailable(format!("the bootstrap document can not be written: {error}"))
            })?);
        document.push(b'\n');
        if let Some(mut stdin) = stdin {
            stdin.write_all(&document).await.map_err(|error| {
                ProviderError::Unavailable(format!("the worker ended before it was told what to do: {error}"))
            })?;
        }
        Ok(WorkerHandle {
            worker: spec.worker,
            machine: format!("pid {pid}"),
        })
    }

    async fn get_worker_status(&self, handle: &WorkerHandle) -> Result<WorkerState, ProviderError> {
        Ok(self.state(handle.worker))
    }

    async fn last_words(&self, handle: &WorkerHandle) -> String {
        let log = self.worker_folder(handle.worker).read_log();
        log.and_then(|log| last_line(&log)).unwrap_or_default()
    }

    async fn destroy_worker(&self, handle: &WorkerHandle) -> Result<(), ProviderError> {
        let folder = self.worker_folder(handle.worker);
        let record = folder.read_record();
        let worker = handle.worker;
        // Reads of /proc and of cgroup files block shortly; they are kept off the event loop.
        let killed = tokio::task::spawn_blocking(move || {
            tree::kill_all(worker, record.as_ref(), &folder, KILL_PATIENCE)
        });
        match killed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ProviderError::Unavailable(format!(
                "worker {worker} can not be removed: {error}"
            ))),
            Err(error) => Err(ProviderError::Unavailable(format!(
                "worker {worker} can not be removed: {error}"
            ))),
        }
    }

    async fn health_check(&self) -> Result<Health, ProviderError> {
        let program = &self.config.program;
        let executable = match rustix::fs::access(program, rustix::fs::Access::EXEC_OK) {
            Ok(()) if program.is_dir() => Err(rustix::io::Errno::ISDIR),
            executable => executable,
        };
        if let Err(error) = executable {
            let message = format!(
                "the worker program {} can not be executed: {error}; install it there, or name it in \
                 HODEI_WORKER_BINARY",
                program.display()
            );
            return Ok(Health {
                healthy: false,
                message,
            });
        }
        if let Err(error) = rustix::fs::access(&self.config.folder, rustix::fs::Access::WRITE_OK) {
            let message = format!(
                "the folder {} can not be written: {error}",
                self.config.folder.display()
            );
            return Ok(Health {
                healthy: false,
                message,
            });
        }
        Ok(Health {
            healthy: true,
            message: String::new(),
        })
    }

    async fn list_workers(&self) -> Result<Vec<(WorkerHandle, WorkerState)>, ProviderError> {
        let entries = std::fs::read_dir(&self.config.folder)
            .map_err(|error| unavailable("can not list", &self.config.folder, &error))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unavailable("can not list", &self.config.folder, &error))?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let Ok(worker) = name.parse::<WorkerId>() else {
                self.remove_if_orphaned(name, &entry.path());
                continue;
            };
            let machine = self
                .worker_folder(worker)
                .read_record()
                .map_or(String::new(), |r| format!("pid {}", r.pid));
            found.push((WorkerHandle { worker, machine }, self.state(worker)));
        }
        found.sort_by_key(|(handle, _)| handle.worker);
        Ok(found)
    }

    async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(temp: &tempfile::TempDir, program: &str) -> ProcessProvider {
        let config = ProcessConfig {
            id: ProviderId::new("local").expect("a name"),
            folder: temp.path().to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            labels: Labels::default(),
            capacity: Resources::default(),
            max_workers: 1,
            bootstrap: BootstrapBase {
                root_certificates: String::new(),
                server_name: String::new(),
                addresses: Vec::new(),
                socket: None,
                leave_after: Duration::ZERO,
                jobs_end_with_server: false,
                cover: None,
            },
        };
        ProcessProvider::new(config).expect("made")
    }

    #[tokio::test]
    async fn only_workers_are_listed_and_orphaned_records_go() {
        let temp = tempfile::tempdir().expect("a folder");
        let provider = provider(&temp, "/bin/true");
        let (there, gone) = (WorkerId::from_bytes([1; 16]), WorkerId::from_bytes([2; 16]));
        let record = MachineRecord::of(1 << 30, None);
        let folder = provider.worker_folder(there);
        folder.create().expect("made");
        folder.write_record(&record).expect("written");
        provider
            .worker_folder(gone)
            .write_record(&record)
            .expect("written");
        std::fs::write(temp.path().join(format!(".{gone}.json.1")), "half").expect("written");
        std::fs::write(temp.path().join("note.txt"), "a person's").expect("written");
        let listed = provider.list_workers().await.expect("listed");
        let handle = WorkerHandle {
            worker: there,
            machine: format!("pid {}", 1 << 30),
        };
        assert_eq!(listed, [(handle.clone(), WorkerState::Exited)]);
        let names = || std::fs::read_dir(temp.path()).expect("read").count();
        assert_eq!(names(), 3);
        provider.destroy_worker(&handle).await.expect("removed");
        assert_eq!(names(), 1);
    }

    #[tokio::test]
    async fn a_missing_worker_program_is_named() {
        let temp = tempfile::tempdir().expect("a folder");
        let health = provider(&temp, "/nowhere/hodei-worker").health_check().await;
        let health = health.expect("looked at");
        assert!(
            !health.healthy && health.message.contains("/nowhere/hodei-worker"),
            "{health:?}"
        );
        let health = provider(&temp, "/bin").health_check().await.expect("looked at");
        assert!(!health.healthy, "a folder is no program");
        assert!(
            provider(&temp, "/bin/true")
                .health_check()
                .await
                .expect("looked at")
                .healthy
        );
    }
}
