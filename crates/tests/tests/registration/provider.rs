//! A strict provider: its machines start when the test says so, and it writes down what it must not be asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use hodei_server_application::ports::provider::{
    ProviderError, WorkerHandle, WorkerProvider, WorkerSpec, WorkerState,
};
use hodei_server_domain::provider::{Capabilities, Health, Isolation};
use hodei_shared::ids::{ProviderId, WorkerId};
use hodei_shared::labels::Labels;
use hodei_shared::resources::Resources;
use tokio::sync::{mpsc, watch};

/// A machine that was asked for, with the password that it is handed.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) worker: WorkerId,
    pub(crate) otp: String,
}

/// What the provider says of a machine.
#[derive(Debug, Clone, Copy)]
struct Said {
    in_lists: WorkerState,
    when_asked: WorkerState,
}

/// A provider whose machines are the tests themselves.
pub(crate) struct TestProvider {
    id: ProviderId,
    machines: Mutex<BTreeMap<WorkerId, Said>>,
    asked_for: mpsc::UnboundedSender<Machine>,
    starts: watch::Sender<bool>,
    destroyed: watch::Sender<Vec<WorkerId>>,
    broken: Mutex<Vec<String>>,
}

impl TestProvider {
    /// A provider, and the machines that it is asked for.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Machine>) {
        let (asked_for, machines) = mpsc::unbounded_channel();
        let provider = Self {
            id: ProviderId::new("test").expect("a name"),
            machines: Mutex::default(),
            asked_for,
            starts: watch::Sender::new(true),
            destroyed: watch::Sender::default(),
            broken: Mutex::default(),
        };
        (provider, machines)
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Said>> {
        self.machines.lock().expect("not poisoned")
    }

    /// From now on no machine starts.
    pub(crate) fn hold_starts(&self) {
        self.starts.send_replace(false);
    }

    /// All machines start.
    pub(crate) fn let_start(&self) {
        self.starts.send_replace(true);
    }

    /// The machine has ended, but the next list does not say so yet: who wants to know must ask.
    pub(crate) fn exit_unseen(&self, worker: WorkerId) {
        let mut machines = self.machines();
        let said = machines.get_mut(&worker).expect("there");
        said.in_lists = WorkerState::Unknown;
        said.when_asked = WorkerState::Exited;
    }

    /// Waits until a machine is destroyed.
    pub(crate) async fn destroyed(&self, worker: WorkerId) {
        let mut destroyed = self.destroyed.subscribe();
        destroyed
            .wait_for(|all| all.contains(&worker))
            .await
            .expect("the provider is there");
    }

    /// What it was asked that it must not be asked.
    pub(crate) fn broken(&self) -> Vec<String> {
        self.broken.lock().expect("not poisoned").clone()
    }

    fn breaks(&self, rule: String) {
        self.broken.lock().expect("not poisoned").push(rule);
    }
}

#[async_trait]
impl WorkerProvider for TestProvider {
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
                memory_bytes: 8 << 30,
            },
            max_workers: 4,
            slots_per_worker: 1,
        }
    }

    async fn create_worker(&self, spec: &WorkerSpec) -> Result<WorkerHandle, ProviderError> {
        let creating = Said {
            in_lists: WorkerState::Creating,
            when_asked: WorkerState::Creating,
        };
        if self.machines().insert(spec.worker, creating).is_some() {
            self.breaks(format!("machine {} is made twice", spec.worker));
        }
        let asked_for = Machine {
            worker: spec.worker,
            otp: spec.otp.expose().to_owned(),
        };
        // Nobody listens any more when the test ends.
        let _over = self.asked_for.send(asked_for);
        let mut starts = self.starts.subscribe();
        starts
            .wait_for(|starts| *starts)
            .await
            .expect("the provider is there");
        let runs = Said {
            in_lists: WorkerState::Running,
            when_asked: WorkerState::Running,
        };
        self.machines().insert(spec.worker, runs);
        Ok(WorkerHandle {
            worker: spec.worker,
            machine: format!("machine-{}", spec.worker),
        })
    }

    async fn get_worker_status(&self, handle: &WorkerHandle) -> Result<WorkerState, ProviderError> {
        let machines = self.machines();
        Ok(machines
            .get(&handle.worker)
            .map_or(WorkerState::Gone, |said| said.when_asked))
    }

    async fn destroy_worker(&self, handle: &WorkerHandle) -> Result<(), ProviderError> {
        if handle.machine != format!("machine-{}", handle.worker) {
            self.breaks(format!("{} of {} is destroyed", handle.machine, handle.worker));
        }
        self.machines().remove(&handle.worker);
        self.destroyed.send_modify(|all| all.push(handle.worker));
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
        let listed = machines.iter().map(|(worker, said)| {
            let handle = WorkerHandle {
                worker: *worker,
                machine: format!("machine-{worker}"),
            };
            (handle, said.in_lists)
        });
        Ok(listed.collect())
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}
