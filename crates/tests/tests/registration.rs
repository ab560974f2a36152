//! How a machine becomes a worker, on real parts: the store, the authority and the doors of the server over TLS, the
//! worker's own connector and process executor, and hand-made clients for what an honest worker never does.
#![forbid(unsafe_code)]

#[path = "registration/client.rs"]
mod client;
#[path = "registration/passwords.rs"]
mod passwords;
#[path = "registration/provider.rs"]
mod provider;
#[path = "registration/sessions.rs"]
mod sessions;
#[path = "registration/trust.rs"]
mod trust;
#[path = "registration/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use hodei_server_application::output;
use hodei_server_application::ports::jobs::FIRST_RANK;
use hodei_server_domain::event::Event;
use hodei_server_domain::job::end::{AttemptOutcome, Outcome};
use hodei_server_domain::job::state::Phase;
use hodei_shared::ids::{AttemptKey, JobId};
use hodei_shared::ports::Clock;
use hodei_shared::secret::SecretString;
use hodei_worker_application::ports::Ports;
use hodei_worker_application::spool::MemorySpools;
use hodei_worker_application::worker::{Exit, Worker, WorkerConfig};
use hodei_worker_infrastructure::executor::{ExecutorConfig, ProcessExecutor};
use hodei_worker_infrastructure::link::GrpcConnector;
use hodei_worker_infrastructure::system::{SystemRng, Tasks};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::provider::Machine;
use crate::world::{PATIENCE, TestClock, World, eventually};

/// The whole worker, on a machine of the test's provider.
struct Running {
    cancel: CancellationToken,
    ended: JoinHandle<Exit>,
    clock: Arc<TestClock>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(world: &World, machine: &Machine) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = TestClock::new(Duration::ZERO);
        let name = world.authority.server_name();
        let connector = GrpcConnector::new(world.authority.root_pem(), &name, None).expect("made");
        let executor = ProcessExecutor::new(ExecutorConfig {
            attempts: folder.path().to_owned(),
            worker_id: machine.worker.to_string(),
            slots: 1,
            ..ExecutorConfig::default()
        });
        let ports = Ports {
            connector: Arc::new(connector),
            executor: Arc::new(executor.expect("made")),
            spools: Arc::new(MemorySpools),
            clock: clock.clone(),
            spawner: Arc::new(Tasks::default()),
            rng: Arc::new(SystemRng),
        };
        let config = WorkerConfig {
            otp: SecretString::new(machine.otp.clone()),
            socket: None,
            addresses: vec![world.address.to_string()],
            cpu_millis: 1_000,
            memory_bytes: 1 << 30,
            slots: 1,
            leave_after: Duration::from_secs(300),
            jobs_end_with_server: false,
            server_now_ms: clock.now_ms(),
            version: "test".to_owned(),
            output_limit: 1 << 30,
        };
        let cancel = CancellationToken::new();
        let ended = tokio::spawn(Worker::new(config, ports).run(cancel.clone()));
        Self {
            cancel,
            ended,
            clock,
            _folder: folder,
        }
    }

    async fn stop(self) -> Exit {
        self.cancel.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.ended).await;
        ended.expect("in time").expect("no panic")
    }
}

async fn succeeded(world: &World, job: JobId) {
    let outcome = eventually("the job's end", async || match world.job(job).await.job.phase {
        Phase::Ended { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert_eq!(outcome.await, Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_worker_registration_with_otp() {
    let world = World::new().await;
    world.provider.hold_starts();
    let job = world.queue(&["/bin/sh", "-c", "echo registered"]).await;
    // As with real providers the worker may be there before its start is confirmed.
    let machine = world.asked_for().await;
    let running = Running::start(&world, &machine);
    world.provider.let_start();
    succeeded(&world, job).await;

    let record = world.job(job).await;
    let [attempt] = record.attempts.as_slice() else {
        panic!("{} attempts", record.attempts.len());
    };
    let (outcome, end) = attempt.end.clone().expect("ended");
    assert_eq!((outcome, end.exit_code), (AttemptOutcome::Succeeded, Some(0)));
    assert_eq!((attempt.worker, attempt.number), (machine.worker, 1));
    let key = AttemptKey {
        job,
        lease: attempt.lease,
        rank: FIRST_RANK,
    };
    let platform = &world.platform;
    let pieces = output::pieces(&*platform.output, &*platform.objects, key, 0, 1_024).await;
    let output: Vec<u8> = pieces
        .expect("read")
        .into_iter()
        .flat_map(|piece| piece.data)
        .collect();
    assert_eq!(output, b"registered\n");

    let identity = world.platform.workers.identity(machine.worker).await;
    let identity = identity.expect("read").expect("registered");
    assert_eq!((identity.generation, identity.revoked), (1, false));
    let events = world.events().await;
    let of_worker: Vec<_> = events
        .iter()
        .filter(|event| event.worker() == Some(machine.worker))
        .map(Event::kind)
        .collect();
    assert_eq!(
        of_worker,
        ["WorkerPlanned", "WorkerRegistered", "WorkerConnected"]
    );
    assert_eq!(running.stop().await, Exit::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_worker_registration_with_otp_is_renewed_at_half_life() {
    let world = World::new().await;
    let job = world.queue(&["true"]).await;
    let machine = world.asked_for().await;
    let running = Running::start(&world, &machine);
    succeeded(&world, job).await;
    let at = async || {
        let record = world.platform.workers.get(machine.worker).await.expect("read");
        let identity = world
            .platform
            .workers
            .identity(machine.worker)
            .await
            .expect("read");
        let (record, identity) = (record.expect("there"), identity.expect("there"));
        (identity.generation, record.session, record.beat)
    };
    let (generation, session, beat) = at().await;
    assert_eq!((generation, session), (1, 1));

    // The certificate is good for 30 minutes, so at 14 the worker only beats.
    running.clock.pass(Duration::from_secs(14 * 60));
    eventually("two more beats", async || {
        (at().await.2 >= beat + 2).then_some(())
    })
    .await;
    assert_eq!(at().await.0, 1);
    running.clock.pass(Duration::from_secs(2 * 60));
    eventually("the renewal and its session", async || {
        let (generation, session, _) = at().await;
        (generation == 2 && session > 1).then_some(())
    })
    .await;
    // And it works on as before.
    succeeded(&world, world.queue(&["true"]).await).await;
    assert_eq!(running.stop().await, Exit::Stopped);
}
