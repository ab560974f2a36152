//! One server for each test: the real store, authority, doors and controllers, on ports and in a folder of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hodei_server_application::control;
use hodei_server_application::jobs::{self, QueueRequest};
use hodei_server_application::platform::{Platform, PlatformParts, PlatformSettings};
use hodei_server_application::ports::jobs::JobRecord;
use hodei_server_application::ports::{BoxFuture, Clock};
use hodei_server_domain::access::{Principal, Role};
use hodei_server_domain::event::Event;
use hodei_server_domain::job::spec::{JobSpec, SpecInput};
use hodei_server_infrastructure::authority::keys::ClusterKeys;
use hodei_server_infrastructure::authority::{LocalAuthority, WORKER_CERTIFICATE_LIFE};
use hodei_server_infrastructure::output_store::FileObjects;
use hodei_server_infrastructure::sqlite::SqliteStore;
use hodei_server_infrastructure::system::{SystemClock, SystemRng, TaskSpawner};
use hodei_server_interface::auth::HostNames;
use hodei_server_interface::door::{client_router, worker_router};
use hodei_server_interface::listener::{Door, Limits, Listener};
use hodei_shared::ids::{JobId, Namespace};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::provider::{Machine, TestProvider};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a revoked worker's streams may still live.
pub(crate) const CUT_OFF: Duration = Duration::from_secs(2);

/// Looks until there is something to see.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come"))
}

/// The machine's clocks, which a test can set.
pub(crate) struct TestClock {
    shift: watch::Sender<Shift>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Shift {
    wall_ms: i64,
    monotonic: Duration,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).expect("in range")
}

impl TestClock {
    pub(crate) fn new(wall_behind: Duration) -> Arc<Self> {
        let shift = Shift {
            wall_ms: -millis(wall_behind),
            ..Shift::default()
        };
        Arc::new(Self {
            shift: watch::Sender::new(shift),
        })
    }

    /// Sets the wall alone. Nothing that counts durations notices: no session falls silent, no lease runs out.
    pub(crate) fn set_wall_on(&self, by: Duration) {
        self.shift.send_modify(|shift| shift.wall_ms += millis(by));
    }

    /// Lets time pass.
    pub(crate) fn pass(&self, by: Duration) {
        self.shift.send_modify(|shift| {
            shift.wall_ms += millis(by);
            shift.monotonic += by;
        });
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        SystemClock.now_ms() + self.shift.borrow().wall_ms
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + self.shift.borrow().monotonic
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        let mut shift = self.shift.subscribe();
        Box::pin(async move {
            loop {
                let until = at.saturating_sub(shift.borrow_and_update().monotonic);
                tokio::select! {
                    biased;
                    () = SystemClock.sleep_until(until) => return,
                    Ok(()) = shift.changed() => {}
                }
            }
        })
    }
}

/// Makes the authority of a cluster, over a store of its own.
pub(crate) async fn authority(store: &SqliteStore, folder: &Path, now_ms: i64) -> LocalAuthority {
    let keys = ClusterKeys::read_or_make(&folder.join("cluster.key")).expect("made");
    LocalAuthority::open(store, &keys, WORKER_CERTIFICATE_LIFE, now_ms)
        .await
        .expect("made")
}

/// Another cluster's authority.
pub(crate) async fn another_authority() -> LocalAuthority {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(SystemClock);
    let store = SqliteStore::open(&folder.path().join("db"), clock).expect("opened");
    authority(&store, folder.path(), SystemClock.now_ms()).await
}

/// A server.
pub(crate) struct World {
    pub(crate) platform: Arc<Platform>,
    pub(crate) authority: LocalAuthority,
    pub(crate) provider: Arc<TestProvider>,
    pub(crate) clock: Arc<TestClock>,
    /// The worker door.
    pub(crate) address: SocketAddr,
    /// The client door, with TLS.
    pub(crate) client_address: SocketAddr,
    machines: Mutex<mpsc::UnboundedReceiver<Machine>>,
    _closes: DropGuard,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::behind(Duration::ZERO).await
    }

    /// A server whose wall clock is behind, so that it can be set on without making certificates of the future.
    pub(crate) async fn behind(wall_behind: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = TestClock::new(wall_behind);
        let store = Arc::new(SqliteStore::open(&folder.path().join("db"), clock.clone()).expect("opened"));
        let authority = authority(&store, folder.path(), clock.now_ms()).await;
        let (provider, machines) = TestProvider::new();
        let provider = Arc::new(provider);
        let never = Duration::from_secs(100 * 86_400);
        let platform = Arc::new(Platform::new(PlatformParts {
            jobs: store.clone(),
            workers: store.clone(),
            output: store.clone(),
            objects: Arc::new(FileObjects::open(&folder.path().join("output")).expect("made")),
            retention: store.clone(),
            input: store.clone(),
            drains: store.clone(),
            events: store.clone(),
            tokens: store,
            authority: Arc::new(authority.clone()),
            providers: vec![provider.clone()],
            clock: clock.clone(),
            spawner: Arc::new(TaskSpawner::default()),
            rng: Arc::new(SystemRng::new()),
            settings: PlatformSettings {
                poll: Duration::from_millis(50),
                beat_interval: Duration::from_secs(1),
                registration_deadline: never,
                worker_idle: never,
                ..PlatformSettings::default()
            },
        }));
        control::start(&platform);
        let closing = CancellationToken::new();
        let listen = async || {
            let any = "127.0.0.1:0".parse().expect("an address");
            let listener = Listener::tcp(any).await.expect("bound");
            let address = listener.address().expect("bound").expect("TCP");
            (listener, address)
        };
        let (worker, address) = listen().await;
        let (client, client_address) = listen().await;
        let names = HostNames::new([authority.server_name()]);
        let worker_tls = authority.worker_door().expect("made");
        let client_tls = authority.client_door(&[], &[]).expect("made");
        let clients = client_router(&platform, names, Limits::default().call, &closing).expect("made");
        let workers = worker_router(&platform, &closing);
        for (name, listener, tls, router) in [
            ("worker", worker, worker_tls, workers),
            ("client", client, client_tls, clients),
        ] {
            let limits = Limits {
                drain: Duration::ZERO,
                ..Limits::default()
            };
            let door = Door {
                name,
                listener,
                tls: Some(tls),
                router,
                limits,
            };
            tokio::spawn(door.serve(closing.clone()));
        }
        Self {
            platform,
            authority,
            provider,
            clock,
            address,
            client_address,
            machines: Mutex::new(machines),
            _closes: closing.drop_guard(),
            _folder: folder,
        }
    }

    /// Queues a job that may be repeated once.
    pub(crate) async fn queue(&self, command: &[&str]) -> JobId {
        let input = SpecInput {
            command: command.iter().map(|part| (*part).to_owned()).collect(),
            retries: 1,
            ..SpecInput::default()
        };
        let request = QueueRequest {
            request_id: self.platform.new_job_id().to_string(),
            namespace: None,
            spec: JobSpec::new(input).expect("valid"),
        };
        let queued = jobs::queue(&self.platform, &admin(), request).await;
        queued.expect("queued").id
    }

    pub(crate) async fn job(&self, job: JobId) -> JobRecord {
        jobs::get(&self.platform, &admin(), job).await.expect("there")
    }

    /// The next machine that the provider is asked for; it has a password, but need not have started.
    pub(crate) async fn asked_for(&self) -> Machine {
        let mut machines = self.machines.lock().await;
        let next = tokio::time::timeout(PATIENCE, machines.recv()).await;
        next.expect("in time").expect("a machine")
    }

    /// The machine for a new job, started: its password is armed.
    pub(crate) async fn machine(&self) -> Machine {
        self.queue(&["true"]).await;
        let machine = self.asked_for().await;
        let id = public_id(&machine.otp);
        eventually("the armed password", async || {
            let known = self.platform.workers.otp(id).await.expect("read");
            known.filter(|(_, otp)| otp.armed_at_ms.is_some())
        })
        .await;
        machine
    }

    /// Everything that happened.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let records = self.platform.events.after(0, 10_000).await.expect("read");
        records.into_iter().map(|record| record.event).collect()
    }

    /// Waits until something has happened.
    pub(crate) async fn happened(&self, what: &str, is: impl Fn(&Event) -> bool) -> Event {
        eventually(what, async || {
            self.events().await.into_iter().find(|event| is(event))
        })
        .await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.provider.broken(), Vec::<String>::new());
        }
    }
}

/// The public part of a password.
pub(crate) fn public_id(otp: &str) -> &str {
    otp.split('_').nth(2).expect("a password")
}

pub(crate) fn admin() -> Principal {
    Principal {
        token_id: "test".to_owned(),
        role: Role::ClusterAdmin,
        namespace: Namespace::default_namespace(),
    }
}
