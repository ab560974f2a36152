//! Runs jobs as processes of this machine, each killed whole.
//!
//! Invariants: a slot has its own spawning thread, so a start never blocks the runtime; its next job starts only when
//! nothing of the last one is left; a job sees descriptors 0, 1 and 2, its own environment and nothing of the worker's.

mod command;
mod pipes;
pub mod spawn;
mod tree;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use async_trait::async_trait;
use hodei_worker_application::ports::{Executor, Process, StartFailure};
use hodei_worker_domain::assignment::Assignment;
use hodei_worker_domain::attempt::ProcessEnd;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::WaitIdStatus;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::pipes::Pipes;
use self::spawn::namespaces::{self, OwnNamespace, block_all_signals, is_stdio};
use self::spawn::{Child, Spawn, Stack, Stage, spawn};
use self::tree::Tree;
use crate::cgroup::{Cgroups, SlotCgroup};
use crate::folder::remove_tree;

/// Where and how jobs run.
#[derive(Debug, Default)]
pub struct ExecutorConfig {
    /// The folder for the attempts' folders; it exists.
    pub attempts: PathBuf,
    /// The worker's id, for HODEI_WORKER_ID.
    pub worker_id: String,
    /// How many jobs at once.
    pub slots: u32,
    /// The worker's cgroups.
    pub cgroups: Option<Cgroups>,
    /// Set if this process is PID 1 of its own namespace.
    pub namespace: Option<OwnNamespace>,
    /// Whether jobs have no capabilities.
    pub no_capabilities: bool,
    /// Whether the server's data folder is hidden from jobs.
    pub covered: bool,
}

/// Runs jobs as processes.
pub struct ProcessExecutor {
    config: ExecutorConfig,
    room: Arc<Semaphore>,
    free: Arc<Mutex<Vec<Slot>>>,
    next_folder: AtomicU64,
    null: Arc<File>,
}

type Work = Box<dyn FnOnce(&mut Stack) + Send>;

/// A place for one job: its spawning thread and its cgroup.
struct Slot {
    work: mpsc::Sender<Work>,
    cgroup: Option<Arc<Mutex<SlotCgroup>>>,
}

/// A slot in use; it is free again when this is dropped.
struct Place {
    slot: Option<Slot>,
    free: Arc<Mutex<Vec<Slot>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.free).extend(self.slot.take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the spawning thread hands back.
struct Started {
    child: Child,
    in_cgroup: bool,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl ProcessExecutor {
    /// Makes the slots and their threads. Whatever the threads must not have is to be given up before.
    ///
    /// # Errors
    /// [`io::Error`] if a thread can not be started or a stack not be made.
    pub fn new(config: ExecutorConfig) -> io::Result<Self> {
        let slots = config.slots.max(1) as usize;
        let make = |n| {
            let cgroup = config.cgroups.as_ref().and_then(|cgroups| cgroups.slot(n));
            Ok(Slot {
                work: start_spawner(n)?,
                cgroup: cgroup.map(|cgroup| Arc::new(Mutex::new(cgroup))),
            })
        };
        let free = (0..slots).map(make).collect::<io::Result<Vec<Slot>>>()?;
        Ok(Self {
            room: Arc::new(Semaphore::new(slots)),
            free: Arc::new(Mutex::new(free)),
            next_folder: AtomicU64::new(0),
            null: Arc::new(File::open("/dev/null")?),
            config,
        })
    }

    async fn place(&self) -> Result<Place, StartFailure> {
        let permit = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|_| broken("the worker ends"))?;
        let slot = lock(&self.free).pop();
        Ok(Place {
            slot,
            free: Arc::clone(&self.free),
            _permit: permit,
        })
    }
}

fn broken(what: &str) -> StartFailure {
    StartFailure {
        exit_code: None,
        message: what.to_owned(),
    }
}

fn start_spawner(n: usize) -> io::Result<mpsc::Sender<Work>> {
    let (sender, work) = mpsc::channel::<Work>();
    let mut stack = Stack::new()?;
    thread::Builder::new().name(format!("slot-{n}")).spawn(move || {
        block_all_signals();
        while let Ok(work) = work.recv() {
            work(&mut stack);
        }
    })?;
    Ok(sender)
}

#[async_trait]
impl Executor for ProcessExecutor {
    async fn start(&self, assignment: Arc<Assignment>) -> Result<Process, StartFailure> {
        let place = self.place().await?;
        let Some(slot) = &place.slot else {
            return Err(broken("no slot is free"));
        };
        let folder = self
            .config
            .attempts
            .join(self.next_folder.fetch_add(1, Ordering::Relaxed).to_string());
        let (answer, started) = oneshot::channel();
        let (null, cgroup) = (Arc::clone(&self.null), slot.cgroup.clone());
        let (to_start, worker) = (Arc::clone(&assignment), self.config.worker_id.clone());
        let into = folder.clone();
        let work: Work = Box::new(move |stack| {
            let started = start_process(stack, &to_start, &into, &worker, &null, cgroup.as_deref());
            if started.is_err() {
                remove_tree(&into);
            }
            // Without a listener the runtime is gone, and the worker with it.
            let _unheard = answer.send(started);
        });
        slot.work
            .send(work)
            .map_err(|_| broken("a spawning thread has ended"))?;
        let started = started
            .await
            .map_err(|_| broken("a spawning thread has ended"))??;
        let marks = command::marks(&assignment, &self.config.worker_id);
        let alone = self.config.namespace.filter(|_| self.config.slots <= 1);
        let pidfd = Arc::new(started.child.pidfd);
        let cgroup = slot.cgroup.clone().filter(|_| started.in_cgroup);
        let tree = Arc::new(Tree::new(
            started.child.pid,
            Arc::clone(&pidfd),
            cgroup,
            alone,
            marks,
        ));
        let output = Pipes::new(started.stdout, started.stderr);
        let output = output.map_err(|error| broken(&format!("pipes can not be read: {error}")));
        let (ended, exit) = oneshot::channel();
        let following = Arc::clone(&tree);
        tokio::spawn(async move {
            let end = wait_for_end(&pidfd).await;
            following.finish().await;
            remove_folder(&place, folder);
            drop(place);
            // Without a listener nobody waits for it.
            let _unheard = ended.send(end);
        });
        Ok(Process {
            output: Box::new(output?),
            exit: Box::pin(async move { exit.await.unwrap_or(ProcessEnd::Signalled(9)) }),
            control: tree,
        })
    }

    fn enforced(&self) -> Vec<String> {
        let has_cgroups =
            lock(&self.free).iter().any(|slot| slot.cgroup.is_some()) || self.config.cgroups.is_some();
        let namespace = self.config.namespace.is_some();
        [
            ("pid_namespace", namespace),
            ("mount_namespace", namespace),
            ("ipc_namespace", namespace),
            ("subreaper", !namespace),
            ("cgroup_kill", has_cgroups),
            ("no_capabilities", self.config.no_capabilities),
            ("data_folder_hidden", self.config.covered),
            ("no_new_privs", true),
        ]
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name.to_owned())
        .collect()
    }
}

fn remove_folder(place: &Place, folder: PathBuf) {
    if let Some(slot) = &place.slot {
        // On the slot's own thread, before its next job. Without it the folder goes with the worker's.
        let _ended = slot.work.send(Box::new(move |_| remove_tree(&folder)));
    }
}

fn start_process(
    stack: &mut Stack,
    assignment: &Assignment,
    folder: &Path,
    worker: &str,
    null: &File,
    cgroup: Option<&Mutex<SlotCgroup>>,
) -> Result<Started, StartFailure> {
    let no_pipe = |error| broken(&format!("pipes can not be made: {error}"));
    let prepared = command::prepare(assignment, folder, worker)?;
    let (stdout, out) = pipe_with(PipeFlags::CLOEXEC).map_err(no_pipe)?;
    let (stderr, err) = pipe_with(PipeFlags::CLOEXEC).map_err(no_pipe)?;
    if is_stdio(&out) || is_stdio(&err) || is_stdio(null) {
        return Err(broken("the worker was started without standard streams"));
    }
    let cgroup = cgroup.map(lock);
    let mut what = Spawn {
        program: prepared.program.clone(),
        argv: prepared.argv.clone(),
        env: prepared.env.clone(),
        workdir: prepared.workdir.as_fd(),
        stdio: [null.as_fd(), out.as_fd(), err.as_fd()],
        cgroup: cgroup.as_ref().map(|cgroup| cgroup.descriptor()),
    };
    let mut child = spawn(stack, &what);
    if matches!(&child, Err(error) if error.stage == Stage::Clone) && what.cgroup.take().is_some() {
        tracing::debug!("a process could not be started in its cgroup");
        child = spawn(stack, &what);
    }
    let child = child.map_err(|error| command::explain(error, &prepared, assignment))?;
    // After the exec; a job that has ended meanwhile has no file to write.
    let _ended = std::fs::write(format!("/proc/{}/oom_score_adj", child.pid), "1000");
    Ok(Started {
        child,
        in_cgroup: what.cgroup.is_some(),
        stdout,
        stderr,
    })
}

async fn wait_for_end(pidfd: &Arc<OwnedFd>) -> ProcessEnd {
    match spawn::watch(Arc::clone(pidfd)) {
        // An error shows when it is waited for.
        Ok(ready) => drop(ready.readable().await),
        Err(error) => tracing::warn!(%error, "a process can not be watched"),
    }
    describe(namespaces::reap(pidfd).as_ref())
}

fn describe(status: Option<&WaitIdStatus>) -> ProcessEnd {
    let code = status.and_then(WaitIdStatus::exit_status);
    let signal = || status.and_then(WaitIdStatus::terminating_signal).unwrap_or(9);
    code.map_or_else(|| ProcessEnd::Signalled(signal()), ProcessEnd::Exited)
}
