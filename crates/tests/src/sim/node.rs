//! Nodes that can crash, and the server among them.
//!
//! A crash cuts the node off first and aborts its tasks after, so that no destructor reaches anybody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hodei_server_application::control;
use hodei_server_application::platform::{Platform, PlatformParts, PlatformSettings};
use hodei_server_infrastructure::sqlite::SqliteStore;
use hodei_shared::ports::{BoxFuture, Spawner};
use tokio::task::AbortHandle;

use super::authority::SimAuthority;
use super::objects::{OBJECT_BYTES, SimObjects};
use super::provider::SimProvider;
use super::world::World;

/// The tasks of one node.
pub(super) struct Scope {
    alive: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Scope {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            alive: AtomicBool::new(true),
            tasks: Mutex::default(),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Cuts the node off, then ends all of its tasks.
    pub(super) fn crash(&self) {
        self.alive.store(false, Ordering::Relaxed);
        let tasks: Vec<AbortHandle> =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Spawner for Scope {
    fn spawn(&self, _name: &'static str, task: BoxFuture<()>) {
        if !self.is_alive() {
            return;
        }
        let handle = tokio::spawn(task).abort_handle();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle);
    }
}

/// A server that runs.
#[derive(Clone)]
pub(super) struct RunningServer {
    pub(super) platform: Arc<Platform>,
    pub(super) scope: Arc<Scope>,
}

/// The server: it comes and goes, its store and the machines stay.
pub(super) struct Servers {
    world: Arc<World>,
    pub(super) store: SqliteStore,
    pub(super) objects: Arc<SimObjects>,
    pub(super) provider: Arc<SimProvider>,
    running: Mutex<Option<RunningServer>>,
}

impl Servers {
    pub(super) fn new(world: &Arc<World>) -> Arc<Self> {
        let store = SqliteStore::inline(world.clock(0));
        Arc::new_cyclic(|servers: &Weak<Self>| Self {
            world: Arc::clone(world),
            store,
            objects: SimObjects::new(world),
            provider: SimProvider::new(world, servers.clone()),
            running: Mutex::default(),
        })
    }

    /// The server that runs now.
    pub(super) fn running(&self) -> Option<RunningServer> {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Starts a server, if none runs.
    pub(super) fn start(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return;
        }
        self.world.note("server starts");
        let scope = Scope::new();
        let store = Arc::new(self.store.clone());
        let clock = self.world.clock(0);
        let platform = Arc::new(Platform::new(PlatformParts {
            jobs: store.clone(),
            workers: store.clone(),
            output: store.clone(),
            objects: self.objects.clone(),
            retention: store.clone(),
            input: store.clone(),
            drains: store.clone(),
            events: store.clone(),
            tokens: store,
            authority: Arc::new(SimAuthority),
            providers: vec![Arc::clone(&self.provider) as _],
            clock,
            spawner: Arc::clone(&scope) as _,
            rng: Arc::clone(&self.world.rng) as _,
            settings: PlatformSettings {
                addresses: vec!["sim".to_owned()],
                worker_idle: Duration::from_secs(30),
                object_bytes: OBJECT_BYTES,
                ..PlatformSettings::default()
            },
        }));
        control::start(&platform);
        *running = Some(RunningServer { platform, scope });
    }

    fn crash(&self) {
        let server = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            self.world.note("server crashes");
            server.scope.crash();
        }
    }

    /// Crashes and restarts the server and crashes workers, at the rates of the run.
    pub(super) fn start_chaos(self: &Arc<Self>) -> AbortHandle {
        let servers = Arc::clone(self);
        let chaos = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(10)).await;
                if servers.world.happens(servers.world.faults.crash_worker) {
                    servers.provider.crash_one();
                }
                if servers.world.happens(servers.world.faults.crash_server) {
                    servers.crash();
                    tokio::time::sleep(servers.world.some_ms(20_000)).await;
                    servers.start();
                }
            }
        });
        chaos.abort_handle()
    }
}
