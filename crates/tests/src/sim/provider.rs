//! A provider whose machines are nodes of the simulation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use hodei_server_application::ports::provider::{
    ProviderError, WorkerHandle, WorkerProvider, WorkerSpec, WorkerState,
};
use hodei_server_domain::provider::{Capabilities, Health, Isolation};
use hodei_shared::ids::{AttemptKey, ProviderId, WorkerId};
use hodei_shared::labels::Labels;
use hodei_shared::ports::{Rng, Spawner};
use hodei_shared::resources::Resources;
use hodei_worker_application::ports::Ports;
use hodei_worker_application::spool::MemorySpools;
use hodei_worker_application::worker::{Worker, WorkerConfig};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::executor::{Book, SimExecutor};
use super::net::SimConnector;
use super::node::{Scope, Servers};
use super::world::World;

/// One machine.
struct Machine {
    scope: Arc<Scope>,
    here: Arc<Mutex<Vec<AttemptKey>>>,
}

/// Makes machines.
pub(super) struct SimProvider {
    world: Arc<World>,
    servers: Weak<Servers>,
    id: ProviderId,
    machines: Mutex<BTreeMap<WorkerId, Machine>>,
    changed: Arc<Notify>,
    pub(super) book: Arc<Book>,
}

impl SimProvider {
    pub(super) fn new(world: &Arc<World>, servers: Weak<Servers>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            servers,
            id: ProviderId::new("sim").expect("a valid name"),
            machines: Mutex::default(),
            changed: Arc::default(),
            book: Arc::default(),
        })
    }

    fn machines(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Machines that are there.
    pub(super) fn count(&self) -> usize {
        self.machines().len()
    }

    /// Crashes one of the machines that run.
    pub(super) fn crash_one(&self) {
        let machines = self.machines();
        let running: Vec<_> = machines
            .iter()
            .filter(|(_, machine)| machine.scope.is_alive())
            .collect();
        if running.is_empty() {
            return;
        }
        let (id, machine) = running[self.world.rng.below(running.len() as u64) as usize];
        self.world.note(format!("worker {id} crashes"));
        self.end(machine);
    }

    fn end(&self, machine: &Machine) {
        machine.scope.crash();
        for key in machine
            .here
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            self.book.end(key, self.world.elapsed());
        }
        self.changed.notify_one();
    }

    fn boot(&self, spec: &WorkerSpec, servers: Arc<Servers>) -> Machine {
        let scope = Scope::new();
        let here: Arc<Mutex<Vec<AttemptKey>>> = Arc::default();
        let clock = self.world.clock(self.world.rng.below(20_000) as i64 - 10_000);
        let mut key = [0; 32];
        self.world.rng.fill(&mut key);
        let ports = Ports {
            connector: Arc::new(SimConnector {
                world: Arc::clone(&self.world),
                servers,
                scope: Arc::clone(&scope),
                key,
                certificate: Mutex::default(),
            }),
            executor: Arc::new(SimExecutor {
                world: Arc::clone(&self.world),
                clock: Arc::clone(&clock),
                scope: Arc::clone(&scope),
                book: Arc::clone(&self.book),
                here: Arc::clone(&here),
            }),
            spools: Arc::new(MemorySpools),
            clock,
            spawner: Arc::clone(&scope) as _,
            rng: Arc::clone(&self.world.rng) as _,
        };
        let config = WorkerConfig {
            otp: spec.otp.clone(),
            socket: None,
            addresses: vec!["sim".to_owned()],
            cpu_millis: spec.room.cpu_millis,
            memory_bytes: spec.room.memory_bytes,
            slots: spec.slots,
            leave_after: Duration::from_secs(300),
            jobs_end_with_server: false,
            server_now_ms: spec.now_ms,
            version: "simulated".to_owned(),
            output_limit: 1 << 20,
        };
        let (world, id, changed) = (Arc::clone(&self.world), spec.worker, Arc::clone(&self.changed));
        let (own_scope, own_here, book) = (Arc::clone(&scope), Arc::clone(&here), Arc::clone(&self.book));
        let life = async move {
            let exit = Worker::new(config, ports).run(CancellationToken::new()).await;
            world.note(format!("worker {id} ends: {exit:?}"));
            for key in own_here.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                book.end(key, world.elapsed());
            }
            own_scope.crash();
            changed.notify_one();
        };
        scope.spawn("worker", Box::pin(life));
        Machine { scope, here }
    }
}

#[async_trait]
impl WorkerProvider for SimProvider {
    fn provider_id(&self) -> &ProviderId {
        &self.id
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: "process",
            isolation: Isolation::Process,
            images: false,
            labels: Labels::default(),
            capacity: Resources {
                cpu_millis: 8_000,
                memory_bytes: 64 << 30,
            },
            max_workers: 2,
            slots_per_worker: 4,
        }
    }

    async fn create_worker(&self, spec: &WorkerSpec) -> Result<WorkerHandle, ProviderError> {
        tokio::time::sleep(self.world.latency()).await;
        if self.world.happens(self.world.faults.fail_create) {
            return Err(ProviderError::Unavailable("no machine today".to_owned()));
        }
        let servers = self
            .servers
            .upgrade()
            .ok_or_else(|| ProviderError::Unavailable("over".to_owned()))?;
        self.world.note(format!("machine of {} is made", spec.worker));
        if self.machines().contains_key(&spec.worker) {
            self.world
                .broke(format!("two machines for worker {}", spec.worker));
        }
        let machine = self.boot(spec, servers);
        self.machines().insert(spec.worker, machine);
        // A machine that was made without telling.
        if self.world.happens(self.world.faults.fail_create) {
            return Err(ProviderError::Unavailable("the reply was lost".to_owned()));
        }
        tokio::time::sleep(self.world.latency()).await;
        Ok(WorkerHandle {
            worker: spec.worker,
            machine: "sim".to_owned(),
        })
    }

    async fn get_worker_status(&self, handle: &WorkerHandle) -> Result<WorkerState, ProviderError> {
        Ok(match self.machines().get(&handle.worker) {
            None => WorkerState::Gone,
            Some(machine) if machine.scope.is_alive() => WorkerState::Running,
            Some(_) => WorkerState::Exited,
        })
    }

    async fn destroy_worker(&self, handle: &WorkerHandle) -> Result<(), ProviderError> {
        tokio::time::sleep(self.world.latency()).await;
        if self.world.happens(self.world.faults.fail_create) {
            return Err(ProviderError::Unavailable("not now".to_owned()));
        }
        if let Some(machine) = self.machines().remove(&handle.worker) {
            self.world
                .note(format!("machine of {} is destroyed", handle.worker));
            self.end(&machine);
        }
        Ok(())
    }

    async fn health_check(&self) -> Result<Health, ProviderError> {
        Ok(Health {
            healthy: true,
            message: String::new(),
        })
    }

    async fn list_workers(&self) -> Result<Vec<(WorkerHandle, WorkerState)>, ProviderError> {
        let machines = self.machines();
        let listed = machines.iter().map(|(worker, machine)| {
            let state = if machine.scope.is_alive() {
                WorkerState::Running
            } else {
                WorkerState::Exited
            };
            (
                WorkerHandle {
                    worker: *worker,
                    machine: "sim".to_owned(),
                },
                state,
            )
        });
        Ok(listed.collect())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}
