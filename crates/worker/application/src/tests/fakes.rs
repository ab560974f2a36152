//! A fake network, fake processes and virtual time. What a test does not expect makes it fail or hang.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hodei_shared::ids::{AttemptKey, JobId, Lease, Rank};
use hodei_shared::offsets::Stream;
use hodei_shared::ports::{BoxFuture, Clock, Rng, Spawner};
use hodei_shared::secret::SecretString;
use hodei_worker_domain::assignment::{Assignment, Command};
use hodei_worker_domain::attempt::{AttemptResult, ProcessEnd};
use hodei_worker_domain::frame::{Hello, OutputAnswer, OutputBatch, OutputVerdict, ServerFrame, WorkerFrame};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ports::{
    CertificateLife, Chunk, Connector, DialError, Endpoint, Executor, Incoming, Input, InputSink, Link,
    Outgoing, OutputSource, Ports, Process, ProcessControl, Signal, StartFailure,
};
use crate::spool::MemorySpools;
use crate::worker::{Exit, Worker, WorkerConfig};

pub(crate) fn key(n: u8) -> AttemptKey {
    AttemptKey {
        job: JobId::from_bytes([n; 16]),
        lease: Lease(1),
        rank: Rank(0),
    }
}

pub(crate) fn assignment(n: u8) -> Assignment {
    Assignment::new(key(n), Command::Argv(vec!["job".into()]))
}

struct VirtualTime(Instant);

impl Clock for VirtualTime {
    fn now_ms(&self) -> i64 {
        self.0.elapsed().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep_until(&self, at: Duration) -> BoxFuture<()> {
        let at = self.0.checked_add(at);
        Box::pin(async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        })
    }
}

struct Tasks;

impl Spawner for Tasks {
    fn spawn(&self, _name: &'static str, task: BoxFuture<()>) {
        tokio::spawn(task);
    }
}

struct Zeros;

impl Rng for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

const UP: u8 = 0;
const CUT: u8 = 1;
const REFUSING: u8 = 2;

struct Network {
    state: AtomicU8,
    registrations: Mutex<VecDeque<Result<(), DialError>>>,
    renewals: AtomicUsize,
    /// What is answered to those who ask for input, by and by.
    input: Mutex<VecDeque<Result<Input, DialError>>>,
    /// From where it was asked for.
    asked: Mutex<Vec<u64>>,
    connections: mpsc::UnboundedSender<ServerEnd>,
}

impl Network {
    fn answer<T>(&self, value: T) -> Result<T, DialError> {
        match self.state.load(Ordering::SeqCst) {
            UP => Ok(value),
            CUT => Err(DialError::Unavailable("cut".into())),
            _ => Err(DialError::Refused("revoked".into())),
        }
    }
}

struct Out<T>(mpsc::UnboundedSender<T>);
struct In<T>(mpsc::UnboundedReceiver<T>);

#[async_trait]
impl<T: Send + 'static> Outgoing<T> for Out<T> {
    async fn send(&mut self, item: T) -> Result<(), DialError> {
        self.0
            .send(item)
            .map_err(|_| DialError::Unavailable("closed".into()))
    }
}

#[async_trait]
impl<T: Send + 'static> Incoming<T> for In<T> {
    async fn recv(&mut self) -> Result<Option<T>, DialError> {
        Ok(self.0.recv().await)
    }
}

#[async_trait]
impl Connector for Network {
    async fn register(&self, _: &Endpoint, _: &SecretString) -> Result<CertificateLife, DialError> {
        self.registrations.lock().unwrap().pop_front().unwrap_or(Ok(()))?;
        self.answer(CertificateLife {
            not_before_ms: 0,
            not_after_ms: 1_800_000,
        })
    }

    async fn renew(&self, _: &Endpoint) -> Result<CertificateLife, DialError> {
        let life = self.answer(CertificateLife {
            not_before_ms: 900_000,
            not_after_ms: 2_700_000,
        })?;
        self.renewals.fetch_add(1, Ordering::SeqCst);
        Ok(life)
    }

    async fn read_input(&self, _: AttemptKey, offset: u64) -> Result<Input, DialError> {
        self.asked.lock().unwrap().push(offset);
        let next = self.input.lock().unwrap().pop_front();
        match next {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn connect(&self, _: &Endpoint, hello: Hello) -> Result<Link, DialError> {
        self.answer(())?;
        let (frames_out, frames) = mpsc::unbounded_channel();
        let (to_worker, frames_in) = mpsc::unbounded_channel();
        let (output_out, output) = mpsc::unbounded_channel();
        let (answers, output_in) = mpsc::unbounded_channel();
        let end = ServerEnd {
            hello,
            frames,
            to_worker,
            output,
            answers,
        };
        self.connections
            .send(end)
            .map_err(|_| DialError::Unavailable("over".into()))?;
        Ok(Link {
            frames_out: Box::new(Out(frames_out)),
            frames_in: Box::new(In(frames_in)),
            output_out: Box::new(Out(output_out)),
            output_in: Box::new(In(output_in)),
        })
    }
}

/// The server's end of one connection. Dropped: the connection is cut.
pub(crate) struct ServerEnd {
    pub(crate) hello: Hello,
    frames: mpsc::UnboundedReceiver<WorkerFrame>,
    to_worker: mpsc::UnboundedSender<ServerFrame>,
    pub(crate) output: mpsc::UnboundedReceiver<OutputBatch>,
    pub(crate) answers: mpsc::UnboundedSender<OutputAnswer>,
}

impl ServerEnd {
    pub(crate) fn send(&self, frame: ServerFrame) {
        self.to_worker.send(frame).expect("the worker is connected");
    }

    pub(crate) fn welcome(&self) {
        self.send(ServerFrame::Welcome {
            session: 1,
            beat_interval: Duration::from_secs(10),
            addresses: vec!["127.0.0.1:1".into()],
            now_ms: 0,
        });
    }

    /// The next frame that is not a beat.
    pub(crate) async fn frame(&mut self) -> WorkerFrame {
        loop {
            match self.frames.recv().await.expect("the worker is connected") {
                WorkerFrame::Beat(_) => {}
                frame => return frame,
            }
        }
    }

    pub(crate) async fn result(&mut self) -> AttemptResult {
        loop {
            if let WorkerFrame::Result(result) = self.frame().await {
                return result;
            }
        }
    }

    /// Answers the next beat; ends at once if the connection is cut.
    pub(crate) async fn answer_beat(&mut self) {
        while let Some(frame) = self.frames.recv().await {
            if let WorkerFrame::Beat(n) = frame {
                // The worker may have closed the connection meanwhile.
                let _cut = self.to_worker.send(ServerFrame::BeatAnswer(n));
                return;
            }
        }
    }

    pub(crate) fn answer_output(&self, end: u64, verdict: OutputVerdict) {
        let answer = OutputAnswer {
            key: key(1),
            end,
            verdict,
        };
        self.answers.send(answer).expect("the worker is connected");
    }
}

/// A process in the test's hands.
pub(crate) struct FakeProcess {
    pub(crate) output: Option<mpsc::Sender<Chunk>>,
    /// What it reads on its standard input; ends with the input.
    pub(crate) input: Option<mpsc::Receiver<Vec<u8>>>,
    exit: Mutex<Option<oneshot::Sender<ProcessEnd>>>,
    signals: watch::Receiver<Vec<Signal>>,
    /// Whether the process has ended while others of its tree are left.
    pub(crate) main_ended: Arc<AtomicBool>,
}

impl FakeProcess {
    pub(crate) async fn print(&self, stream: Stream, bytes: &[u8]) {
        let chunk = Chunk {
            stream,
            bytes: bytes.to_vec(),
            at_ms: 0,
        };
        let output = self.output.as_ref().expect("the process runs");
        output.send(chunk).await.expect("the worker reads");
    }

    pub(crate) fn end_with_open_pipe(&self, end: ProcessEnd) {
        let exit = self.exit.lock().unwrap().take().expect("it ends once");
        exit.send(end).expect("the worker waits");
    }

    pub(crate) fn end(mut self, end: ProcessEnd) {
        self.end_with_open_pipe(end);
        self.output = None;
    }

    pub(crate) fn signals(&self) -> Vec<Signal> {
        self.signals.borrow().clone()
    }

    pub(crate) async fn signalled(&self, times: usize) {
        let mut signals = self.signals.clone();
        signals
            .wait_for(|signals| signals.len() >= times)
            .await
            .expect("the process is held");
    }
}

struct Source(mpsc::Receiver<Chunk>);

#[async_trait]
impl OutputSource for Source {
    async fn read(&mut self) -> Option<Chunk> {
        self.0.recv().await
    }
}

struct Feed(mpsc::Sender<Vec<u8>>);

#[async_trait]
impl InputSink for Feed {
    async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.send(bytes.to_vec()).await.is_ok()
    }
}

struct Control {
    signals: watch::Sender<Vec<Signal>>,
    main_ended: Arc<AtomicBool>,
}

impl ProcessControl for Control {
    fn signal(&self, signal: Signal) {
        self.signals.send_modify(|signals| signals.push(signal));
    }

    fn ended_by_itself(&self) -> bool {
        self.main_ended.load(Ordering::SeqCst)
    }
}

struct Processes {
    started: mpsc::UnboundedSender<FakeProcess>,
    broken: Arc<AtomicBool>,
}

#[async_trait]
impl Executor for Processes {
    async fn start(&self, assignment: Arc<Assignment>) -> Result<Process, StartFailure> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StartFailure {
                exit_code: None,
                message: "the folder is gone".into(),
                worker_is_broken: true,
            });
        }
        let (print, output) = mpsc::channel(1);
        let (feed, input) = mpsc::channel(1);
        let fed = assignment.input;
        let (exit, exited) = oneshot::channel();
        let (to_process, signals) = watch::channel(Vec::new());
        let main_ended = Arc::new(AtomicBool::new(false));
        let process = FakeProcess {
            output: Some(print),
            input: fed.then_some(input),
            exit: Mutex::new(Some(exit)),
            signals,
            main_ended: Arc::clone(&main_ended),
        };
        self.started.send(process).map_err(|_| StartFailure {
            exit_code: None,
            message: "the test is over".into(),
            worker_is_broken: false,
        })?;
        let exit = async move {
            match exited.await {
                Ok(end) => end,
                Err(_) => std::future::pending().await,
            }
        };
        Ok(Process {
            output: Box::new(Source(output)),
            input: fed.then(|| Box::new(Feed(feed)) as Box<dyn InputSink>),
            exit: Box::pin(exit),
            control: Arc::new(Control {
                signals: to_process,
                main_ended,
            }),
        })
    }

    fn enforced(&self) -> Vec<String> {
        vec!["nothing".into()]
    }
}

/// A worker and all that surrounds it.
pub(crate) struct World {
    pub(crate) cancel: CancellationToken,
    network: Arc<Network>,
    connections: mpsc::UnboundedReceiver<ServerEnd>,
    processes: mpsc::UnboundedReceiver<FakeProcess>,
    broken: Arc<AtomicBool>,
    exit: Option<oneshot::Receiver<Exit>>,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::new(4, Vec::new())
    }

    pub(crate) fn with_slots(slots: u32) -> Self {
        Self::new(slots, Vec::new())
    }

    pub(crate) fn registering(answers: Vec<Result<(), DialError>>) -> Self {
        Self::new(4, answers)
    }

    /// The worker of a server that lives as long as one command.
    pub(crate) fn of_one_command() -> Self {
        Self::built(4, Vec::new(), |config| {
            config.leave_after = Duration::from_secs(5);
            config.jobs_end_with_server = true;
        })
    }

    fn new(slots: u32, registrations: Vec<Result<(), DialError>>) -> Self {
        Self::built(slots, registrations, |_| {})
    }

    fn built(
        slots: u32,
        registrations: Vec<Result<(), DialError>>,
        change: impl FnOnce(&mut WorkerConfig),
    ) -> Self {
        let (to_connections, connections) = mpsc::unbounded_channel();
        let (to_processes, processes) = mpsc::unbounded_channel();
        let broken = Arc::new(AtomicBool::new(false));
        let network = Arc::new(Network {
            state: AtomicU8::new(UP),
            registrations: Mutex::new(registrations.into()),
            renewals: AtomicUsize::new(0),
            input: Mutex::default(),
            asked: Mutex::default(),
            connections: to_connections,
        });
        let ports = Ports {
            connector: Arc::clone(&network) as Arc<dyn Connector>,
            executor: Arc::new(Processes {
                started: to_processes,
                broken: Arc::clone(&broken),
            }),
            spools: Arc::new(MemorySpools),
            clock: Arc::new(VirtualTime(Instant::now())),
            spawner: Arc::new(Tasks),
            rng: Arc::new(Zeros),
        };
        let mut config = WorkerConfig {
            otp: SecretString::new("otp".into()),
            socket: Some("/run/worker.sock".into()),
            addresses: Vec::new(),
            cpu_millis: 4_000,
            memory_bytes: 4 << 30,
            slots,
            leave_after: Duration::from_secs(300),
            jobs_end_with_server: false,
            server_now_ms: 0,
            version: "0".into(),
            output_limit: 2 << 20,
        };
        change(&mut config);
        let cancel = CancellationToken::new();
        let (done, exit) = oneshot::channel();
        let run = Worker::new(config, ports).run(cancel.clone());
        tokio::spawn(async move { done.send(run.await) });
        Self {
            cancel,
            network,
            connections,
            processes,
            broken,
            exit: Some(exit),
        }
    }

    pub(crate) async fn connected(&mut self) -> ServerEnd {
        self.connections.recv().await.expect("the worker lives")
    }

    pub(crate) async fn welcomed(&mut self) -> ServerEnd {
        let server = self.connected().await;
        server.welcome();
        server
    }

    pub(crate) async fn started(&mut self) -> FakeProcess {
        self.processes.recv().await.expect("the worker lives")
    }

    pub(crate) fn nothing_started(&mut self) -> bool {
        self.processes.try_recv().is_err()
    }

    /// No process can be started from now on.
    pub(crate) fn break_worker(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    pub(crate) fn cut(&self) {
        self.network.state.store(CUT, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.network.state.store(UP, Ordering::SeqCst);
    }

    pub(crate) fn refuse(&self) {
        self.network.state.store(REFUSING, Ordering::SeqCst);
    }

    /// What those who ask for input are answered, one after the other.
    pub(crate) fn input(&self, answers: impl IntoIterator<Item = Result<Input, DialError>>) {
        self.network.input.lock().unwrap().extend(answers);
    }

    /// From where input was asked for.
    pub(crate) fn asked_from(&self) -> Vec<u64> {
        self.network.asked.lock().unwrap().clone()
    }

    pub(crate) fn renewals(&self) -> usize {
        self.network.renewals.load(Ordering::SeqCst)
    }

    pub(crate) async fn exit(&mut self) -> Exit {
        self.exit
            .take()
            .expect("asked once")
            .await
            .expect("the worker does not panic")
    }
}
