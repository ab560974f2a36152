//! Somebody who queues jobs, cancels some, and remembers what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hodei_server_application::input::{self, Part, Sent};
use hodei_server_application::jobs::{self, QueueRequest};
use hodei_server_application::refused::Refused;
use hodei_server_domain::access::{Principal, Role};
use hodei_server_domain::job::spec::{JobSpec, SpecInput, Stdin};
use hodei_shared::ids::{JobId, Namespace};
use hodei_shared::ports::{Rng, Spawner};
use tokio::sync::oneshot;

use super::executor::INPUT;
use super::node::{RunningServer, Servers};
use super::world::World;

/// What the client knows of a job that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Acknowledged {
    /// A cancel was acknowledged before the job ended.
    pub(super) cancel_acknowledged: bool,
}

/// The client.
pub(super) struct Client {
    world: Arc<World>,
    servers: Arc<Servers>,
    jobs: Mutex<BTreeMap<JobId, Acknowledged>>,
    asked: Mutex<u64>,
}

impl Client {
    pub(super) fn new(world: &Arc<World>, servers: &Arc<Servers>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            servers: Arc::clone(servers),
            jobs: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// The jobs that were acknowledged.
    pub(super) fn acknowledged(&self) -> BTreeMap<JobId, Acknowledged> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Queues the run's jobs at random moments of the storm.
    pub(super) fn start(self: &Arc<Self>) {
        for number in 0..self.world.faults.jobs {
            let at = self.world.some_ms(180_000);
            let spec = self.spec();
            let cancel = self.world.rng.below(1_000) < self.world.faults.cancel;
            let cancel_after = self.world.some_ms(40_000);
            let client = Arc::clone(self);
            tokio::spawn(async move {
                tokio::time::sleep(at).await;
                let input = spec.stdin.is_fed().then(|| spec.env[INPUT].clone().into_bytes());
                let id = client.queue(number, spec).await;
                if let Some(input) = input {
                    tokio::spawn(Arc::clone(&client).feed(id, input));
                }
                client.jobs().insert(
                    id,
                    Acknowledged {
                        cancel_acknowledged: false,
                    },
                );
                *client.asked.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                if cancel {
                    tokio::time::sleep(cancel_after).await;
                    client.cancel(id).await;
                }
            });
        }
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, BTreeMap<JobId, Acknowledged>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spec(&self) -> JobSpec {
        let rng = &self.world.rng;
        let duration = [0, 50, 3_000, 30_000, 200_000][rng.below(5) as usize];
        let code = if rng.below(4) == 0 { 3 } else { 0 };
        let lines = rng.below(6);
        let timeout = (rng.below(6) == 0).then(|| Duration::from_millis(2_000));
        let stdin = [Stdin::Null, Stdin::Null, Stdin::Stream, Stdin::Whole][rng.below(4) as usize];
        let read = "what a job reads, ".repeat(rng.below(5) as usize);
        let env = stdin.is_fed().then(|| (INPUT.to_owned(), read));
        let input = SpecInput {
            stdin,
            env: env.into_iter().collect(),
            command: vec![
                "sim".into(),
                duration.to_string(),
                code.to_string(),
                lines.to_string(),
            ],
            timeout,
            retries: rng.below(3) as u32,
            lost_after: Some(Duration::from_secs(60)),
            ..SpecInput::default()
        };
        JobSpec::new(input).expect("a valid spec")
    }

    fn principal() -> Principal {
        Principal {
            token_id: "sim".to_owned(),
            role: Role::ClusterAdmin,
            namespace: Namespace::default_namespace(),
        }
    }

    /// One call; `None` if it or its reply was lost.
    async fn call<T: Send + 'static, F>(&self, work: impl FnOnce(RunningServer) -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        tokio::time::sleep(self.world.latency()).await;
        let server = self.servers.running()?;
        if self.world.happens(self.world.faults.lose_call) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let work = work(server.clone());
        let task = async move {
            // The caller waits until the server crashes.
            let _unheard = reply.send(work.await);
        };
        server.scope.spawn("client call", Box::pin(task));
        let answer = answer.await.ok()?;
        (!self.world.happens(self.world.faults.lose_reply)).then_some(answer)
    }

    async fn queue(&self, number: u64, spec: JobSpec) -> JobId {
        loop {
            let spec = spec.clone();
            let answer = self
                .call(move |server| async move {
                    let request = QueueRequest {
                        request_id: format!("request {number}"),
                        namespace: None,
                        spec,
                    };
                    jobs::queue(&server.platform, &Self::principal(), request).await
                })
                .await;
            match answer {
                Some(Ok(record)) => {
                    self.world.note(format!(
                        "job {} is acknowledged: {:?}",
                        record.id, record.spec.command
                    ));
                    return record.id;
                }
                Some(Err(refused)) => self
                    .world
                    .note(format!("queueing {number} is refused: {refused}")),
                None => {}
            }
            tokio::time::sleep(self.world.some_ms(2_000)).await;
        }
    }

    /// Sends a job's input in parts until all of it is stored, or the job takes no more.
    async fn feed(self: Arc<Self>, id: JobId, input: Vec<u8>) {
        let mut sent = 0;
        loop {
            let until = input.len().min(sent + self.world.rng.below(20) as usize);
            let part = Part {
                offset: sent as u64,
                data: input[sent..until].to_vec(),
                eof: until == input.len(),
            };
            let answer = self
                .call(move |server| async move {
                    input::send(&server.platform, &Self::principal(), id, part).await
                })
                .await;
            match answer {
                Some(Ok(Sent { complete: true, .. })) => return,
                Some(Ok(Sent { end, .. })) => sent = usize::try_from(end).expect("a position in memory"),
                Some(Err(Refused::WrongState(_))) => return,
                Some(Err(_)) | None => {}
            }
            tokio::time::sleep(self.world.some_ms(2_000)).await;
        }
    }

    async fn cancel(&self, id: JobId) {
        loop {
            let answer = self
                .call(move |server| async move {
                    jobs::cancel(&server.platform, &Self::principal(), id, String::new()).await
                })
                .await;
            if let Some(Ok(record)) = answer {
                self.world.note(format!("cancel of {id} is acknowledged"));
                if let Some(job) = self.jobs().get_mut(&id) {
                    job.cancel_acknowledged = !record.job.is_ended();
                }
                return;
            }
            tokio::time::sleep(self.world.some_ms(2_000)).await;
        }
    }

    /// Waits until every job has ended.
    pub(super) async fn finished(&self, patience: Duration) -> Result<(), String> {
        use hodei_server_application::ports::jobs::JobRepository;
        let until = tokio::time::Instant::now() + patience;
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let mut open = Vec::new();
            for id in self.acknowledged().into_keys() {
                let record = self.servers.store.get(id).await.map_err(|e| e.to_string())?;
                let record = record.ok_or_else(|| format!("job {id} was acknowledged and is lost"))?;
                if !record.job.is_ended() {
                    open.push((id, record.job));
                }
            }
            let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if open.is_empty() && asked == self.world.faults.jobs {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                return Err(format!(
                    "{asked} jobs were queued, and these have not ended: {open:?}"
                ));
            }
        }
    }
}
