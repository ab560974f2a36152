//! The network between workers and the server: calls that get lost, connections that break.
//!
//! Inside a connection frames keep their order but for the faults of the run: a lost frame is followed by the
//! connection's end, as on a real one; frames come twice or overtake each other. A cut may be silent in one
//! direction for a while. What a crashed node had on its way still arrives or not, but nothing is added.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_server_application::ports::link::{FromWorker, ToWorker, WorkerIdentity, WorkerLink};
use hodei_server_application::{input, output, session, workers};
use hodei_server_domain::worker::otp::SpkiHash;
use hodei_shared::ids::AttemptKey;
use hodei_shared::ports::Spawner;
use hodei_shared::secret::SecretString;
use hodei_worker_application::ports::{
    CertificateLife, Connector, DialError, Endpoint, Incoming, Input, Link, Outgoing,
};
use hodei_worker_domain::frame::{Hello, OutputAnswer, OutputBatch, ServerFrame, WorkerFrame};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::authority::{identity, not_before_ms};
use super::node::{RunningServer, Scope, Servers};
use super::{convert, world::World};

/// How long the ends of a connection take to notice that the other is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One worker's way to the server.
pub(super) struct SimConnector {
    pub(super) world: Arc<World>,
    pub(super) servers: Arc<Servers>,
    pub(super) scope: Arc<Scope>,
    pub(super) key: [u8; 32],
    pub(super) certificate: Mutex<Option<WorkerIdentity>>,
}

fn unavailable(why: &str) -> DialError {
    DialError::Unavailable(why.to_owned())
}

impl SimConnector {
    /// Calls the server: the way there, the work in the server's scope, the way back.
    async fn call<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        server: &RunningServer,
    ) -> Result<T, DialError> {
        tokio::time::sleep(self.world.latency()).await;
        if self.world.happens(self.world.faults.lose_call) {
            return Err(unavailable("the call was lost"));
        }
        let (reply, answer) = oneshot::channel();
        let task = async move {
            // The caller may be gone.
            let _unheard = reply.send(work.await);
        };
        server.scope.spawn("call", Box::pin(task));
        let answer = answer.await.map_err(|_| unavailable("the server crashed"))?;
        tokio::time::sleep(self.world.latency()).await;
        if self.world.happens(self.world.faults.lose_reply) {
            return Err(unavailable("the reply was lost"));
        }
        Ok(answer)
    }

    fn server(&self) -> Result<RunningServer, DialError> {
        self.servers.running().ok_or_else(|| unavailable("no server"))
    }

    fn keep(&self, chain: &[Vec<u8>]) -> Result<CertificateLife, DialError> {
        let shown = identity(chain).ok_or_else(|| DialError::Refused("no certificate".to_owned()))?;
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Ok(CertificateLife {
            not_before_ms: not_before_ms(&shown),
            not_after_ms: shown.not_after_ms,
        })
    }

    fn shown(&self) -> Result<WorkerIdentity, DialError> {
        let certificate = *self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        certificate.ok_or_else(|| DialError::Refused("no certificate".to_owned()))
    }
}

#[async_trait]
impl Connector for SimConnector {
    async fn register(&self, _: &Endpoint, otp: &SecretString) -> Result<CertificateLife, DialError> {
        let server = self.server()?;
        let (platform, otp, key) = (Arc::clone(&server.platform), otp.clone(), self.key);
        let work = async move { workers::register(&platform, otp.expose(), &key).await };
        match self.call(work, &server).await? {
            Ok(chain) => self.keep(&chain),
            Err(workers::RegisterError::Refused) => Err(DialError::Refused("the password".to_owned())),
            Err(error) => Err(unavailable(&error.to_string())),
        }
    }

    async fn renew(&self, _: &Endpoint) -> Result<CertificateLife, DialError> {
        let server = self.server()?;
        let shown = workers::Shown {
            identity: self.shown()?,
            spki: SpkiHash(self.key),
        };
        let (platform, key) = (Arc::clone(&server.platform), self.key);
        let work = async move { workers::renew(&platform, shown, &key).await };
        match self.call(work, &server).await? {
            Ok(chain) => self.keep(&chain),
            Err(workers::RenewError::Refused) => Err(DialError::Refused("the renewal".to_owned())),
            Err(error) => Err(unavailable(&error.to_string())),
        }
    }

    async fn read_input(&self, key: AttemptKey, offset: u64) -> Result<Input, DialError> {
        let server = self.server()?;
        let (platform, shown) = (Arc::clone(&server.platform), self.shown()?);
        let work = async move { input::pull(&platform, &shown, key, offset).await };
        match self.call(work, &server).await? {
            Ok(pulled) => Ok(convert::input(pulled)),
            Err(refused) => Err(unavailable(&refused.to_string())),
        }
    }

    async fn connect(&self, _: &Endpoint, hello: Hello) -> Result<Link, DialError> {
        let server = self.server()?;
        let shown = self.shown()?;
        tokio::time::sleep(self.world.latency()).await;
        if self.world.happens(self.world.faults.lose_call) {
            return Err(unavailable("the call was lost"));
        }
        if shown.not_after_ms < server.platform.clock.now_ms() {
            return Err(unavailable("the certificate has ended"));
        }
        Ok(Connection::new(&self.world, &server, &self.scope, shown)
            .open(hello)
            .await)
    }
}

/// One connection and how it will break.
struct Connection {
    world: Arc<World>,
    server: RunningServer,
    worker: Arc<Scope>,
    identity: WorkerIdentity,
    /// Both directions are over.
    cut: CancellationToken,
    /// Nothing more gets to the server.
    up_silent: CancellationToken,
    /// Nothing more gets to the worker.
    down_silent: CancellationToken,
}

impl Connection {
    fn new(
        world: &Arc<World>,
        server: &RunningServer,
        worker: &Arc<Scope>,
        identity: WorkerIdentity,
    ) -> Arc<Self> {
        let connection = Arc::new(Self {
            world: Arc::clone(world),
            server: server.clone(),
            worker: Arc::clone(worker),
            identity,
            cut: CancellationToken::new(),
            up_silent: CancellationToken::new(),
            down_silent: CancellationToken::new(),
        });
        tokio::spawn(Arc::clone(&connection).fate());
        connection
    }

    /// Breaks the connection some day, if that is its fate; and when one of its ends has crashed.
    async fn fate(self: Arc<Self>) {
        let doomed = self.world.happens(self.world.faults.cut);
        let life = self.world.some_ms(60_000);
        let born = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if self.cut.is_cancelled() {
                return;
            }
            if !self.server.scope.is_alive() || !self.worker.is_alive() {
                tokio::time::sleep(self.world.some_ms(2_000)).await;
                return self.cut.cancel();
            }
            if doomed && born.elapsed() >= life {
                return self.break_up().await;
            }
        }
    }

    async fn break_up(&self) {
        if self.world.happens(self.world.faults.one_way) {
            let silent = if self.world.rng_bit() {
                &self.up_silent
            } else {
                &self.down_silent
            };
            silent.cancel();
            tokio::time::sleep(KEEP_ALIVE).await;
        }
        self.cut.cancel();
    }

    async fn open(self: Arc<Self>, hello: Hello) -> Link {
        let (frames_out, up) = mpsc::channel::<WorkerFrame>(64);
        let (to_server, incoming) = mpsc::channel::<FromWorker>(64);
        let (outgoing, down) = mpsc::channel::<ToWorker>(64);
        let (to_worker, frames_in) = mpsc::channel::<ServerFrame>(64);
        let (output_out, batches) = mpsc::channel::<OutputBatch>(64);
        let (batches_in, arrived) = mpsc::channel::<OutputBatch>(64);
        let (answers, answered) = mpsc::channel::<OutputAnswer>(64);
        let (answers_in, output_in) = mpsc::channel::<OutputAnswer>(64);

        let link = WorkerLink { incoming, outgoing };
        let serve = session::serve(Arc::clone(&self.server.platform), self.identity, link);
        self.server.scope.spawn("session", Box::pin(serve));
        let ingest = Arc::clone(&self).ingest(arrived, answers);
        self.server.scope.spawn("output", Box::pin(ingest));

        // The Hello goes ahead of everything and is neither lost nor doubled alone.
        let greeted = to_server.clone();
        let first = convert::to_server(WorkerFrame::Hello(hello));
        // The session may have ended already.
        let _ended = greeted.send(first).await;
        let up_silent = self.up_silent.clone();
        tokio::spawn(Arc::clone(&self).pump(up, to_server, up_silent.clone(), convert::to_server));
        tokio::spawn(Arc::clone(&self).pump(batches, batches_in, up_silent, |batch| batch));
        let down_silent = self.down_silent.clone();
        tokio::spawn(Arc::clone(&self).pump(down, to_worker, down_silent.clone(), convert::to_worker));
        tokio::spawn(Arc::clone(&self).pump(answered, answers_in, down_silent, |answer| answer));
        let cut = &self.cut;
        Link {
            frames_out: Box::new(SimOutgoing {
                sender: frames_out,
                cut: cut.clone(),
            }),
            frames_in: Box::new(SimIncoming {
                receiver: frames_in,
                cut: cut.clone(),
            }),
            output_out: Box::new(SimOutgoing {
                sender: output_out,
                cut: cut.clone(),
            }),
            output_in: Box::new(SimIncoming {
                receiver: output_in,
                cut: cut.clone(),
            }),
        }
    }

    /// Moves frames from one end to the other, with the faults of the run, until the connection is cut.
    async fn pump<A: Clone + Send, B: Send>(
        self: Arc<Self>,
        mut from: mpsc::Receiver<A>,
        to: mpsc::Sender<B>,
        silent: CancellationToken,
        convert: impl Fn(A) -> B + Send,
    ) {
        let mut overtaken: Option<A> = None;
        let faults = self.world.faults;
        let mut first = true;
        loop {
            let frame = tokio::select! {
                biased;
                () = self.cut.cancelled() => return,
                frame = from.recv() => frame,
                () = tokio::time::sleep(Duration::from_millis(50)), if overtaken.is_some() => overtaken.take(),
            };
            let Some(frame) = frame else {
                // The end closed its side in order.
                tokio::time::sleep(self.world.latency()).await;
                return self.cut.cancel();
            };
            tokio::time::sleep(self.world.latency()).await;
            if silent.is_cancelled() {
                continue;
            }
            if self.world.happens(faults.lose_frame) {
                self.world.note("a frame is lost");
                silent.cancel();
                tokio::spawn(Arc::clone(&self).cut_later());
                continue;
            }
            if !first && overtaken.is_none() && self.world.happens(faults.reorder_frame) {
                overtaken = Some(frame);
                continue;
            }
            let copies = if !first && self.world.happens(faults.duplicate_frame) {
                2
            } else {
                1
            };
            first = false;
            let frames = std::iter::repeat_n(frame, copies).chain(overtaken.take());
            for frame in frames {
                if self.cut.is_cancelled() || to.send(convert(frame)).await.is_err() {
                    return self.cut.cancel();
                }
            }
        }
    }

    async fn cut_later(self: Arc<Self>) {
        tokio::time::sleep(self.world.some_ms(15_000)).await;
        self.cut.cancel();
    }

    /// The server's end of the output stream.
    async fn ingest(
        self: Arc<Self>,
        mut batches: mpsc::Receiver<OutputBatch>,
        answers: mpsc::Sender<OutputAnswer>,
    ) {
        while let Some(batch) = batches.recv().await {
            let start = batch.piece.start;
            let batch = vec![convert::output_batch(batch)];
            for (key, ingested) in output::ingest(&self.server.platform, &self.identity, batch).await {
                let Some(answer) = convert::output_answer(key, ingested, start) else {
                    self.world
                        .broke(format!("an honest worker's output of {key} was an offence"));
                    return self.cut.cancel();
                };
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        }
    }
}

struct SimOutgoing<T> {
    sender: mpsc::Sender<T>,
    cut: CancellationToken,
}

#[async_trait]
impl<T: Send + 'static> Outgoing<T> for SimOutgoing<T> {
    async fn send(&mut self, item: T) -> Result<(), DialError> {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => Err(unavailable("the connection broke")),
            sent = self.sender.send(item) => sent.map_err(|_| unavailable("the connection broke")),
        }
    }
}

struct SimIncoming<T> {
    receiver: mpsc::Receiver<T>,
    cut: CancellationToken,
}

#[async_trait]
impl<T: Send + 'static> Incoming<T> for SimIncoming<T> {
    async fn recv(&mut self) -> Result<Option<T>, DialError> {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => Err(unavailable("the connection broke")),
            item = self.receiver.recv() => Ok(item),
        }
    }
}
