//! The worker's life: register, then one loop over frames, processes and deadlines until it has to go.

mod core;
mod timers;

use std::sync::Arc;
use std::time::Duration;

use hodei_shared::ids::AttemptKey;
use hodei_shared::secret::SecretString;
use hodei_worker_domain::attempt::ProcessEnd;
use hodei_worker_domain::frame::ServerFrame;
use hodei_worker_domain::session::StreamId;
use tokio_util::sync::CancellationToken;

use crate::dial::{Backoff, Servers, first_answer};
use crate::ports::{CertificateLife, DialError, Link, Ports, ProcessControl};
use core::Core;

/// What a worker is told when it starts.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The one-time password.
    pub otp: SecretString,
    /// A server's socket on this machine, tried first.
    pub socket: Option<String>,
    /// Server addresses, `IP:PORT`.
    pub addresses: Vec<String>,
    /// Room for jobs: thousandths of a processor.
    pub cpu_millis: u64,
    /// Room for jobs: bytes.
    pub memory_bytes: u64,
    /// How many jobs at once; at least 1.
    pub slots: u32,
    /// How long the worker stays without a job and without contact. With results that nobody has acknowledged it
    /// stays twelve times as long.
    pub leave_after: Duration,
    /// Whether the worker leaves after that time also with jobs, which it then kills.
    pub jobs_end_with_server: bool,
    /// The server's wall time when the worker was made, milliseconds.
    pub server_now_ms: i64,
    /// The worker's version, for the Hello.
    pub version: String,
    /// How many bytes of output without acknowledgement stop an attempt's pipes; at least 1 MiB.
    pub output_limit: u64,
}

/// Why a worker has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It had no job and no contact for too long.
    Left,
    /// A server drained it, and everything it held is acknowledged.
    Drained,
    /// It was told to end from outside.
    Stopped,
    /// The servers refuse it, with their reason. Its jobs are killed.
    Refused(String),
}

/// What the loop is told by the worker's tasks.
pub(crate) enum Event {
    /// A server was reached, or none.
    Dialled {
        stream: StreamId,
        outcome: Result<Link, DialError>,
    },
    /// A frame came.
    Frame { stream: StreamId, frame: ServerFrame },
    /// A link broke.
    LinkLost { stream: StreamId, error: DialError },
    /// A certificate was renewed, or not.
    Renewed(Result<CertificateLife, DialError>),
    /// A process runs.
    Spawned {
        key: AttemptKey,
        control: Arc<dyn ProcessControl>,
        at: Duration,
        at_ms: i64,
    },
    /// A process ended or could not be started.
    Exited {
        key: AttemptKey,
        end: ProcessEnd,
        /// Whether the process had ended before a stop reached it.
        by_itself: bool,
        at_ms: i64,
    },
    /// A process could not be started, and no other could be.
    Unstartable { key: AttemptKey, message: String },
    /// The output of an attempt ended.
    Drained { key: AttemptKey, output_end: u64 },
}

/// A worker.
pub struct Worker {
    config: WorkerConfig,
    ports: Ports,
}

impl Worker {
    /// A worker that has not done anything yet.
    pub fn new(config: WorkerConfig, ports: Ports) -> Self {
        Self { config, ports }
    }

    /// Registers and works until the worker has to go. `cancel` ends its jobs (they count as lost, and are repeated
    /// elsewhere where they may be), and then the worker.
    ///
    /// Dropped: its tasks are left to the spawner's scope, its processes to the executor.
    pub async fn run(self, cancel: CancellationToken) -> Exit {
        let servers = Servers::new(self.config.socket.clone(), self.config.addresses.clone());
        match self.register(&servers, &cancel).await {
            Ok(life) => {
                Core::new(self.config, self.ports, servers, life)
                    .run(cancel)
                    .await
            }
            Err(exit) => exit,
        }
    }

    async fn register(&self, servers: &Servers, cancel: &CancellationToken) -> Result<CertificateLife, Exit> {
        let (clock, rng) = (&*self.ports.clock, &*self.ports.rng);
        let give_up = clock.monotonic() + self.config.leave_after.max(Duration::from_secs(30));
        let mut backoff = Backoff::default();
        loop {
            let attempt = first_answer(clock, servers.in_order(rng), |endpoint| async move {
                self.ports.connector.register(&endpoint, &self.config.otp).await
            });
            let outcome = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Exit::Stopped),
                outcome = attempt => outcome,
            };
            match outcome {
                Ok(life) => return Ok(life),
                Err(DialError::Refused(reason)) => {
                    tracing::error!(reason, "registration refused");
                    return Err(Exit::Refused(reason));
                }
                Err(error) if clock.monotonic() >= give_up => {
                    tracing::error!(%error, "nobody to register with");
                    return Err(Exit::Left);
                }
                Err(error) => tracing::info!(%error, "registration is tried again"),
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Exit::Stopped),
                () = clock.sleep(backoff.next(rng)) => {}
            }
        }
    }
}
