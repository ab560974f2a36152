//! The worker as a program: sandbox first, then the bootstrap document, then one run time.
//!
//! Invariants: nothing secret is read before the process is unreadable for jobs; no thread exists before all
//! namespaces and privileges are settled; the main thread only reaps orphans and never spawns.
#![forbid(unsafe_code)]

use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use hodei_worker_application::ports::{Executor, Ports};
use hodei_worker_application::worker::{Exit, Worker};
use hodei_worker_infrastructure::bootstrap::{self, Bootstrap};
use hodei_worker_infrastructure::cgroup::Cgroups;
use hodei_worker_infrastructure::cover::{CoverError, cover};
use hodei_worker_infrastructure::descriptors::Descriptors;
use hodei_worker_infrastructure::executor::spawn::namespaces::{self, Entered, Sandbox};
use hodei_worker_infrastructure::executor::{ExecutorConfig, ProcessExecutor};
use hodei_worker_infrastructure::folder::Folder;
use hodei_worker_infrastructure::link::GrpcConnector;
use hodei_worker_infrastructure::spool::FileSpools;
use hodei_worker_infrastructure::system::{SystemClock, SystemRng, Tasks, end_on_panic};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

/// How long the last signals to jobs are waited for.
const LAST_SIGNALS: Duration = Duration::from_secs(2);

/// Runs a worker in `folder` to its end. Must be called before any thread exists; reads the bootstrap document from
/// standard input and logs to standard error.
///
/// Exit codes: 0 left, drained or stopped; 3 refused by its servers; 1 could not work at all.
pub fn run(folder: &Path) -> ExitCode {
    tracing_subscriber::fmt()
        // A log that can not be written, on a full disk, must end no job: the default is a panic.
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_max_level(LevelFilter::INFO)
        .init();
    end_on_panic(1);
    match enter_and_work(folder) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the worker can not work");
            ExitCode::from(1)
        }
    }
}

fn enter_and_work(path: &Path) -> anyhow::Result<ExitCode> {
    let mut folder = Folder::lock(path).with_context(|| format!("folder {}", path.display()))?;
    let sandbox = match namespaces::enter().context("namespaces")? {
        Entered::Stub(code) => return Ok(ExitCode::from(code)),
        Entered::Worker(sandbox) => sandbox,
    };
    namespaces::harden().context("PR_SET_DUMPABLE")?;
    let document = bootstrap::take().context("standard input")?;
    let exit = work(&mut folder, &sandbox, &document);
    folder.clear();
    Ok(match exit? {
        Exit::Refused(_) => ExitCode::from(3),
        Exit::Left | Exit::Drained | Exit::Stopped => ExitCode::SUCCESS,
    })
}

fn work(folder: &mut Folder, sandbox: &Sandbox, document: &Bootstrap) -> anyhow::Result<Exit> {
    let covered = hide(folder, sandbox, document)?;
    let protected = sandbox.namespace().is_some() && protect(folder);
    let cgroups = Cgroups::create(&document.worker_id);
    if let Some(cgroups) = &cgroups {
        sandbox.remove_afterwards(cgroups.path());
    }
    if let Some(cgroups) = cgroups.as_ref().filter(|_| sandbox.namespace().is_some())
        && let Err(error) = cgroups.seal()
    {
        tracing::warn!(%error, "jobs can leave their cgroup");
    }
    let descriptors = Descriptors::raise();
    let no_capabilities = namespaces::drop_privileges();
    let config = ExecutorConfig {
        attempts: folder.attempts(),
        worker_id: document.worker_id.clone(),
        slots: document.slots.max(1),
        descriptors: Some(descriptors),
        cgroups,
        namespace: sandbox.namespace(),
        no_capabilities,
        covered,
        protected,
    };
    let socket = document.socket.as_deref();
    let connector = GrpcConnector::new(&document.root_certificates, &document.server_name, socket)
        .context("the bootstrap document's trust")?;
    let executor = Arc::new(ProcessExecutor::new(config).context("spawning threads")?);
    let ports = Ports {
        connector: Arc::new(connector),
        executor: Arc::clone(&executor) as Arc<dyn Executor>,
        spools: Arc::new(FileSpools::new(
            folder.descriptor().context("the worker's folder")?,
        )),
        clock: Arc::new(SystemClock),
        spawner: Arc::new(Tasks::default()),
        rng: Arc::new(SystemRng),
    };
    let mut config = bootstrap::config(document);
    // What the kernel allows may be less than what the worker was told.
    config.slots = executor.slots();
    let worker = Worker::new(config, ports);
    let cancel = CancellationToken::new();
    let (done, running) = io::pipe().context("pipe")?;
    let stop = cancel.clone();
    let thread = thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || run_time(worker, cancel, running))
        .context("thread")?;
    namespaces::supervise(sandbox, done.as_fd(), || stop.cancel()).context("waiting for signals")?;
    let exit = thread
        .join()
        .map_err(|_| anyhow::anyhow!("the worker panicked"))?;
    executor.settle(LAST_SIGNALS);
    exit
}

/// Hides the server's data folder from jobs, where there is a mount namespace to do it in. Answers whether it is
/// hidden; fails if the worker could not reach its own folder any more.
fn hide(folder: &Folder, sandbox: &Sandbox, document: &Bootstrap) -> anyhow::Result<bool> {
    let Some(hidden) = document
        .cover
        .as_deref()
        .filter(|_| sandbox.namespace().is_some())
    else {
        return Ok(false);
    };
    let socket = document
        .socket
        .as_deref()
        .and_then(|socket| Path::new(socket).parent());
    let hidden = || {
        let mut keep = vec![folder.path().to_owned()];
        if let Some(socket) = socket {
            keep.push(socket.canonicalize().map_err(CoverError::Uncovered)?);
        }
        let hidden = Path::new(hidden).canonicalize().map_err(CoverError::Uncovered)?;
        cover(&hidden, &keep)
    };
    match hidden() {
        Ok(()) => Ok(true),
        Err(CoverError::Uncovered(error)) => {
            tracing::warn!(%error, "the data folder could not be hidden from jobs");
            Ok(false)
        }
        Err(error @ CoverError::Half { .. }) => Err(error).context("the server's data folder"),
    }
}

/// Keeps jobs from removing what the worker needs; answers whether they can not.
fn protect(folder: &mut Folder) -> bool {
    let protected = folder.protect();
    if let Err(error) = &protected {
        tracing::warn!(%error, "jobs can write in the worker's folder");
    }
    protected.is_ok()
}

/// Runs the worker on threads of its own; `running` is closed when it has ended, which wakes the main thread.
fn run_time(worker: Worker, cancel: CancellationToken, running: PipeWriter) -> anyhow::Result<Exit> {
    let run_time = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("run time")?;
    let exit = run_time.block_on(worker.run(cancel));
    run_time.shutdown_background();
    drop(running);
    Ok(exit)
}
