//! Runs jobs as processes of this machine, each killed whole.
//!
//! Invariants: a slot has its own spawning thread, so a start never blocks the runtime; its next job starts only when
//! nothing of the last one is left; a job sees descriptors 0, 1 and 2, its own environment and nothing of the worker's.

mod command;
mod folders;
mod pipes;
pub mod spawn;
mod tree;
mod walk;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use hodei_worker_application::ports::{Executor, Process, StartFailure};
use hodei_worker_domain::assignment::Assignment;
use hodei_worker_domain::attempt::ProcessEnd;
use rustix::process::{Rlimit, WaitIdStatus, child_subreaper};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::folders::AttemptFolders;
use self::pipes::{Ends, Opened};
use self::spawn::namespaces::{self, OwnNamespace, block_all_signals, is_stdio};
use self::spawn::{Child, Spawn, Stack, Stage, spawn};
use self::tree::{Means, Tree};
use self::walk::Scope;
use crate::cgroup::{Cgroups, SlotCgroup};
use crate::descriptors::Descriptors;

/// How often a process is looked at that can not be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where and how jobs run.
#[derive(Debug, Default)]
pub struct ExecutorConfig {
    /// The folder for the attempts' folders; it exists.
    pub attempts: PathBuf,
    /// The worker's id, for HODEI_WORKER_ID.
    pub worker_id: String,
    /// How many jobs at once, if each can have a cgroup; otherwise one.
    pub slots: u32,
    /// The limits of descriptors; fewer slots where they are not enough. None: as it is, and enough.
    pub descriptors: Option<Descriptors>,
    /// The worker's cgroups.
    pub cgroups: Option<Cgroups>,
    /// Set if this process is PID 1 of its own namespace.
    pub namespace: Option<OwnNamespace>,
    /// Whether jobs have no capabilities.
    pub no_capabilities: bool,
    /// Whether the server's data folder is hidden from jobs.
    pub covered: bool,
    /// Whether jobs can write nowhere in the worker's folder but below `attempts`.
    pub protected: bool,
}

/// Runs jobs as processes.
pub struct ProcessExecutor {
    config: ExecutorConfig,
    /// The threads of all slots that were made, also of those in use.
    threads: Mutex<Vec<mpsc::Sender<Work>>>,
    has_cgroups: bool,
    reaps_orphans: bool,
    room: Arc<Semaphore>,
    free: Arc<Mutex<Vec<Slot>>>,
    folders: Arc<AttemptFolders>,
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
}

impl ProcessExecutor {
    /// Makes the first slot and its thread; the others are made when they are used first. Whatever the threads must
    /// not have is to be given up before. Without a usable cgroup there is only one slot: two jobs could not be told
    /// apart for certain.
    ///
    /// # Errors
    /// [`io::Error`] if a thread can not be started or a stack not be made.
    pub fn new(mut config: ExecutorConfig) -> io::Result<Self> {
        let wanted = config.slots.max(1);
        let mut first = make_slot(0, config.cgroups.as_ref())?;
        let has_cgroups = probe(&first);
        if has_cgroups {
            let fit = config
                .descriptors
                .map_or(u32::MAX, |descriptors| descriptors.slots());
            config.slots = wanted.min(fit);
            if config.slots < wanted {
                tracing::info!(
                    wanted,
                    slots = config.slots,
                    "there are descriptors for fewer jobs at once"
                );
            }
        } else {
            first.cgroup = None;
            config.cgroups = None;
            config.slots = 1;
            if wanted > 1 {
                tracing::warn!(wanted, "one job at a time: jobs can not have cgroups");
            }
        }
        Ok(Self {
            room: Arc::new(Semaphore::new(config.slots as usize)),
            threads: Mutex::new(vec![first.work.clone()]),
            free: Arc::new(Mutex::new(vec![first])),
            folders: Arc::new(AttemptFolders::new(config.attempts.clone())),
            null: Arc::new(File::open("/dev/null")?),
            has_cgroups,
            reaps_orphans: config.namespace.is_none() && child_subreaper().is_ok_and(|is| is.is_some()),
            config,
        })
    }

    /// How many jobs run at once.
    pub fn slots(&self) -> u32 {
        self.config.slots
    }

    /// Waits until all signals that jobs were to get have been sent, for `at_most` at most. Blocks the calling thread.
    pub fn settle(&self, at_most: Duration) {
        let (done, all) = mpsc::channel::<()>();
        for thread in lock(&self.threads).iter() {
            let done = done.clone();
            // A thread that has ended has nothing to send.
            let _ended = thread.send(Box::new(move |_| drop(done)));
        }
        drop(done);
        // Either way the worker goes on to its end.
        let _all_or_late = all.recv_timeout(at_most);
    }

    async fn place(&self) -> Result<Place, StartFailure> {
        let permit = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(|_| broken("the worker ends"))?;
        let free = lock(&self.free).pop();
        let slot = match free {
            Some(slot) => slot,
            None => self
                .another_slot()
                .map_err(|error| broken(&format!("a slot can not be made: {error}")))?,
        };
        Ok(Place {
            slot: Some(slot),
            free: Arc::clone(&self.free),
            _permit: permit,
        })
    }
}

impl ProcessExecutor {
    /// One more slot; there is room for it.
    fn another_slot(&self) -> io::Result<Slot> {
        let mut threads = lock(&self.threads);
        let slot = make_slot(threads.len(), self.config.cgroups.as_ref())?;
        if slot.cgroup.is_none() {
            return Err(io::Error::other("it has no cgroup"));
        }
        threads.push(slot.work.clone());
        Ok(slot)
    }
}

fn make_slot(n: usize, cgroups: Option<&Cgroups>) -> io::Result<Slot> {
    let cgroup = cgroups.and_then(|cgroups| cgroups.slot(n));
    Ok(Slot {
        work: start_spawner(n)?,
        cgroup: cgroup.map(|cgroup| Arc::new(Mutex::new(cgroup))),
    })
}

fn broken(what: &str) -> StartFailure {
    StartFailure {
        exit_code: None,
        message: what.to_owned(),
        worker_is_broken: true,
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

impl ProcessExecutor {
    /// Starts a process whose pipes `open` makes. All that can fail comes before the process or ends it.
    async fn start_with(
        &self,
        assignment: Arc<Assignment>,
        open: impl FnOnce(&Assignment) -> io::Result<Opened> + Send,
    ) -> Result<Process, StartFailure> {
        let place = self.place().await?;
        let Some(slot) = &place.slot else {
            return Err(broken("no slot is free"));
        };
        let Opened { output, input, ends } =
            open(&assignment).map_err(|error| broken(&format!("pipes can not be made: {error}")))?;
        let folders = Arc::clone(&self.folders);
        let folder = folders.take();
        let (answer, started) = oneshot::channel();
        let to_start = ToStart {
            assignment: Arc::clone(&assignment),
            folder: folder.clone(),
            worker: self.config.worker_id.clone(),
            null: Arc::clone(&self.null),
            ends,
            cgroup: slot.cgroup.clone(),
            needs_cgroup: self.config.slots > 1,
            descriptors: self
                .config
                .descriptors
                .and_then(|descriptors| descriptors.of_jobs()),
        };
        let work: Work = Box::new(move |stack| {
            let started = to_start.start(stack);
            if started.is_err() {
                folders.give_back(to_start.folder.clone());
            }
            // The pipes end with the process.
            drop(to_start);
            // Without a listener the runtime is gone, and the worker with it.
            let _unheard = answer.send(started);
        });
        let gone = |()| broken("a spawning thread has ended");
        slot.work.send(work).map_err(|_| gone(()))?;
        let started = started.await.map_err(|_| gone(()))??;
        let pidfd = Arc::new(started.child.pidfd);
        let means = self.means(&assignment, slot.cgroup.clone().filter(|_| started.in_cgroup));
        let tree = Tree::new(started.child.pid, Arc::clone(&pidfd), means, slot.work.clone());
        let tree = Arc::new(tree);
        Ok(Process {
            output: Box::new(output),
            input,
            exit: Box::pin(tend(
                pidfd,
                Arc::clone(&tree),
                place,
                Arc::clone(&self.folders),
                folder,
            )),
            control: tree,
        })
    }

    /// By what the processes of a job can be found.
    fn means(&self, assignment: &Assignment, cgroup: Option<Arc<Mutex<SlotCgroup>>>) -> Means {
        let single = self.config.slots <= 1;
        let alone = self.config.namespace.filter(|_| single);
        let scope = if alone.is_some() {
            Scope::Namespace
        } else if single && self.reaps_orphans {
            Scope::Descendants
        } else {
            Scope::Marked(command::marks(assignment, &self.config.worker_id))
        };
        Means { cgroup, alone, scope }
    }
}

/// Follows a process to the end of its tree, also when nobody waits for it.
fn tend(
    pidfd: Arc<OwnedFd>,
    tree: Arc<Tree>,
    place: Place,
    folders: Arc<AttemptFolders>,
    folder: PathBuf,
) -> impl Future<Output = ProcessEnd> + Send {
    let (ended, exit) = oneshot::channel();
    tokio::spawn(async move {
        let end = wait_for_end(&pidfd, spawn::watch(Arc::clone(&pidfd))).await;
        tree.finish().await;
        give_back(&place, folders, folder);
        drop(place);
        // Without a listener nobody waits for it.
        let _unheard = ended.send(end);
    });
    async move { exit.await.unwrap_or(ProcessEnd::Signalled(9)) }
}

#[async_trait]
impl Executor for ProcessExecutor {
    async fn start(&self, assignment: Arc<Assignment>) -> Result<Process, StartFailure> {
        self.start_with(assignment, Opened::new).await
    }

    fn enforced(&self) -> Vec<String> {
        let namespace = self.config.namespace.is_some();
        [
            ("pid_namespace", namespace),
            ("mount_namespace", namespace),
            ("ipc_namespace", namespace),
            ("subreaper", !namespace),
            ("cgroup_kill", self.has_cgroups),
            ("no_capabilities", self.config.no_capabilities),
            ("data_folder_hidden", self.config.covered),
            ("worker_folder_read_only", self.config.protected),
            ("no_new_privs", true),
        ]
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name.to_owned())
        .collect()
    }
}

fn give_back(place: &Place, folders: Arc<AttemptFolders>, folder: PathBuf) {
    if let Some(slot) = &place.slot {
        // On the slot's own thread, before its next job. Without it the folder goes with the worker's.
        let _ended = slot.work.send(Box::new(move |_| folders.give_back(folder)));
    }
}

/// What the spawning thread is handed.
struct ToStart {
    assignment: Arc<Assignment>,
    folder: PathBuf,
    worker: String,
    null: Arc<File>,
    ends: Ends,
    cgroup: Option<Arc<Mutex<SlotCgroup>>>,
    /// Set if other jobs run beside this one.
    needs_cgroup: bool,
    /// The limit of descriptors to set.
    descriptors: Option<Rlimit>,
}

impl ToStart {
    fn start(&self, stack: &mut Stack) -> Result<Started, StartFailure> {
        let prepared = command::prepare(&self.assignment, &self.folder, &self.worker)?;
        let stdin = self.ends.stdin.as_ref().map_or(self.null.as_fd(), AsFd::as_fd);
        let stdout = self.ends.stdout.as_fd();
        let stderr = self.ends.stderr.as_ref().map_or(stdout, AsFd::as_fd);
        let stdio = [stdin, stdout, stderr];
        if stdio.iter().any(is_stdio) {
            return Err(broken("the worker was started without standard streams"));
        }
        let cgroup = self.cgroup.as_deref().map(lock);
        let mut what = Spawn {
            program: prepared.program.clone(),
            argv: prepared.argv.clone(),
            env: prepared.env.clone(),
            workdir: prepared.workdir.as_fd(),
            stdio,
            cgroup: cgroup.as_ref().map(|cgroup| cgroup.descriptor()),
            descriptors: self.descriptors,
        };
        let mut child = spawn(stack, &what);
        let refused = matches!(&child, Err(error) if error.stage == Stage::Clone);
        if refused && !self.needs_cgroup && what.cgroup.take().is_some() {
            tracing::debug!("a process could not be started in its cgroup");
            child = spawn(stack, &what);
        }
        let child = child.map_err(|error| command::explain(error, &prepared, &self.assignment))?;
        // After the exec; a job that has ended meanwhile has no file to write.
        let _ended = std::fs::write(format!("/proc/{}/oom_score_adj", child.pid), "1000");
        Ok(Started {
            child,
            in_cgroup: what.cgroup.is_some(),
        })
    }
}

/// Whether the kernel starts processes in the slot's cgroup; tried out with one that ends before it is a program.
fn probe(slot: &Slot) -> bool {
    let Some(cgroup) = slot.cgroup.clone() else {
        return false;
    };
    let (answer, accepted) = mpsc::channel();
    let work: Work = Box::new(move |stack| {
        // Without a listener nobody needs to know.
        let _unheard = answer.send(accepts(stack, &lock(&cgroup)).unwrap_or(false));
    });
    slot.work.send(work).is_ok() && accepted.recv().unwrap_or(false)
}

fn accepts(stack: &mut Stack, cgroup: &SlotCgroup) -> io::Result<bool> {
    let (null, root) = (File::open("/dev/null")?, File::open("/")?);
    let nothing = Spawn {
        program: CString::default(),
        argv: Vec::new(),
        env: Vec::new(),
        workdir: root.as_fd(),
        stdio: [null.as_fd(); 3],
        cgroup: Some(cgroup.descriptor()),
        descriptors: None,
    };
    Ok(matches!(spawn(stack, &nothing), Err(error) if error.stage != Stage::Clone))
}

/// Waits for the end of the process by `watched`, or by looking again and again where that is not to be had.
async fn wait_for_end(pidfd: &Arc<OwnedFd>, watched: io::Result<AsyncFd<Arc<OwnedFd>>>) -> ProcessEnd {
    match watched {
        // An error shows below.
        Ok(ready) => drop(ready.readable().await),
        Err(error) => tracing::warn!(%error, "a process can not be watched"),
    }
    while !namespaces::has_ended(pidfd) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    describe(namespaces::reap(pidfd).as_ref())
}

fn describe(status: Option<&WaitIdStatus>) -> ProcessEnd {
    let code = status.and_then(WaitIdStatus::exit_status);
    let signal = || status.and_then(WaitIdStatus::terminating_signal).unwrap_or(9);
    code.map_or_else(|| ProcessEnd::Signalled(signal()), ProcessEnd::Exited)
}

#[cfg(test)]
mod tests;
