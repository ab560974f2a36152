//! Processes that only pass time: each says what it was told to say, and ends as it was told to end.
//!
//! A job's command is `sim DURATION_MS CODE LINES`. The book keeps who ran what and when, on every node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::Stream;
use hodei_shared::ports::Clock;
use hodei_worker_application::ports::{
    Chunk, Executor, InputSink, OutputSource, Process, ProcessControl, Signal, StartFailure,
};
use hodei_worker_domain::assignment::{Assignment, Command};
use hodei_worker_domain::attempt::ProcessEnd;
use tokio::sync::{mpsc, watch};

use super::node::Scope;
use super::world::{SimClock, World};

/// The variable that tells a process what it should read on its standard input.
pub(super) const INPUT: &str = "SIM_INPUT";

/// One run of a process.
#[derive(Debug, Clone)]
pub(super) struct Execution {
    pub(super) ended: Option<Duration>,
    pub(super) output: Vec<u8>,
    pub(super) repeatable: bool,
    /// It saw another input than it should have, or the end of it too early.
    pub(super) misfed: bool,
}

/// Everything that ever ran.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<BTreeMap<AttemptKey, Execution>>);

impl Book {
    pub(super) fn all(&self) -> BTreeMap<AttemptKey, Execution> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn with<T>(&self, key: AttemptKey, change: impl FnOnce(&mut Execution) -> T) -> Option<T> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(&key)
            .map(change)
    }

    /// Everything on a crashed node ends with it.
    pub(super) fn end(&self, key: AttemptKey, at: Duration) {
        self.with(key, |run| {
            run.ended.get_or_insert(at);
        });
    }
}

/// Runs processes on one node.
pub(super) struct SimExecutor {
    pub(super) world: Arc<World>,
    pub(super) clock: Arc<SimClock>,
    pub(super) scope: Arc<Scope>,
    pub(super) book: Arc<Book>,
    pub(super) here: Arc<Mutex<Vec<AttemptKey>>>,
}

impl SimExecutor {
    fn enter(&self, assignment: &Assignment) {
        let key = assignment.key;
        let mut book = self.book.0.lock().unwrap_or_else(PoisonError::into_inner);
        if book.contains_key(&key) {
            self.world.broke(format!("{key} was started twice"));
        }
        let mut others = book
            .iter()
            .filter(|(other, run)| other.job == key.job && run.ended.is_none() && run.repeatable);
        if let Some((other, _)) = others.next() {
            self.world.broke(format!("{key} starts while {other} runs"));
        }
        let run = Execution {
            ended: None,
            output: Vec::new(),
            repeatable: assignment.repeatable,
            misfed: false,
        };
        book.insert(key, run);
        self.here.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        self.world
            .note(format!("process of {key} starts, attempt {}", assignment.attempt));
    }
}

fn numbers(assignment: &Assignment) -> Option<(Duration, i32, u32)> {
    let Command::Argv(argv) = &assignment.command else {
        return None;
    };
    let [program, duration, code, lines] = argv.as_slice() else {
        return None;
    };
    let (duration, code, lines) = (duration.parse().ok()?, code.parse().ok()?, lines.parse().ok()?);
    (program == "sim").then_some((Duration::from_millis(duration), code, lines))
}

#[async_trait]
impl Executor for SimExecutor {
    async fn start(&self, assignment: Arc<Assignment>) -> Result<Process, StartFailure> {
        let missing = || StartFailure {
            exit_code: Some(127),
            message: "no such program".to_owned(),
            worker_is_broken: false,
        };
        let (duration, code, lines) = numbers(&assignment).ok_or_else(missing)?;
        self.clock.sleep(self.world.some_ms(20)).await;
        self.enter(&assignment);
        let (output, source) = mpsc::channel(4);
        let (feed, input) = mpsc::channel(1);
        let (signal, signals) = watch::channel(None);
        let (done, exit) = tokio::sync::oneshot::channel();
        let run = Run {
            key: assignment.key,
            world: Arc::clone(&self.world),
            clock: Arc::clone(&self.clock),
            book: Arc::clone(&self.book),
            duration,
            lines,
            input: assignment
                .env
                .get(INPUT)
                .cloned()
                .unwrap_or_default()
                .into_bytes(),
        };
        let fed = assignment.input;
        let life = async move {
            let mut signals = signals;
            let end = match run.read(input, &mut signals).await {
                Some(end) if fed => end,
                _ => run.live(code, output, signals).await,
            };
            let at = run.world.elapsed();
            run.book.end(run.key, at);
            run.world.note(format!("process of {} ends: {end:?}", run.key));
            // Nobody listens if the worker has ended.
            let _gone = done.send(end);
        };
        hodei_shared::ports::Spawner::spawn(self.scope.as_ref(), "process", Box::pin(life));
        Ok(Process {
            output: Box::new(SimOutput(source)),
            input: fed.then(|| Box::new(SimInput(feed)) as Box<dyn InputSink>),
            exit: Box::pin(async move {
                match exit.await {
                    Ok(end) => end,
                    Err(_) => std::future::pending().await,
                }
            }),
            control: Arc::new(SimControl(signal)),
        })
    }

    fn enforced(&self) -> Vec<String> {
        vec!["simulated".to_owned()]
    }
}

struct Run {
    key: AttemptKey,
    world: Arc<World>,
    clock: Arc<SimClock>,
    book: Arc<Book>,
    duration: Duration,
    lines: u32,
    /// What it should read on its standard input.
    input: Vec<u8>,
}

impl Run {
    /// Reads its input to the end; or dies of a signal.
    async fn read(
        &self,
        mut input: mpsc::Receiver<Vec<u8>>,
        signals: &mut watch::Receiver<Option<Signal>>,
    ) -> Option<ProcessEnd> {
        let mut read = Vec::new();
        loop {
            tokio::select! {
                biased;
                Ok(()) = signals.changed() => {
                    return Some(ProcessEnd::Signalled(signal_number(*signals.borrow())));
                }
                bytes = input.recv() => match bytes {
                    Some(bytes) => read.extend(bytes),
                    None => break,
                }
            }
        }
        self.book.with(self.key, |run| run.misfed = read != self.input);
        None
    }

    /// Passes its time, prints its lines evenly, and dies of any signal.
    async fn live(
        &self,
        code: i32,
        output: mpsc::Sender<Chunk>,
        mut signals: watch::Receiver<Option<Signal>>,
    ) -> ProcessEnd {
        let start = self.clock.monotonic();
        let parts = self.lines + 1;
        for part in 1..=parts {
            let until = start + self.duration * part / parts;
            let printing = async {
                self.clock.sleep_until(until).await;
                if part <= self.lines {
                    self.print(part, &output).await;
                }
            };
            tokio::select! {
                biased;
                Ok(()) = signals.changed() => return ProcessEnd::Signalled(signal_number(*signals.borrow())),
                () = printing => {}
            }
        }
        ProcessEnd::Exited(code)
    }

    async fn print(&self, line: u32, output: &mpsc::Sender<Chunk>) {
        let stream = if line.is_multiple_of(3) {
            Stream::Stderr
        } else {
            Stream::Stdout
        };
        let mut bytes = format!("{} line {line}\n", self.key).into_bytes();
        // Some jobs print much, so that their output comes into objects at once or later.
        let salt = self.key.job.as_bytes()[15];
        if salt.is_multiple_of(4) {
            bytes = bytes.repeat([380, 380, 500][line as usize % 3]);
        }
        let Ok(permit) = output.reserve().await else {
            return;
        };
        self.book.with(self.key, |run| run.output.extend(&bytes));
        permit.send(Chunk {
            stream,
            bytes,
            at_ms: self.clock.now_ms(),
        });
    }
}

fn signal_number(signal: Option<Signal>) -> i32 {
    match signal {
        Some(Signal::Term) => 15,
        Some(Signal::Kill) | None => 9,
    }
}

struct SimOutput(mpsc::Receiver<Chunk>);

#[async_trait]
impl OutputSource for SimOutput {
    async fn read(&mut self) -> Option<Chunk> {
        self.0.recv().await
    }
}

struct SimInput(mpsc::Sender<Vec<u8>>);

#[async_trait]
impl InputSink for SimInput {
    async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.send(bytes.to_vec()).await.is_ok()
    }
}

struct SimControl(watch::Sender<Option<Signal>>);

impl ProcessControl for SimControl {
    fn signal(&self, signal: Signal) {
        // Nobody listens once the process has ended.
        let _ended = self.0.send(Some(signal));
    }
}
