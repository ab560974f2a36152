//! The loop: takes one event at a time, asks the domain, performs what it says. Never waits for anything but the
//! next event or deadline, so that a slow server or job holds up nobody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hodei_shared::ids::AttemptKey;
use hodei_worker_domain::assignment::Assignment;
use hodei_worker_domain::attempt::{Refusal, State, Why};
use hodei_worker_domain::frame::{Held, HeldState, Hello, ResultVerdict, ServerFrame, WorkerFrame};
use hodei_worker_domain::ledger::{Effect, Ledger};
use hodei_worker_domain::session::{Session, StreamId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Event, Exit, WorkerConfig};
use crate::dial::{Backoff, Servers, first_answer};
use crate::job::Job;
use crate::link::OpenLink;
use crate::output::{Log, Outputs};
use crate::ports::{CertificateLife, DialError, Link, Ports, ProcessControl, Signal};

/// Events that may wait for the loop.
const WAITING_EVENTS: usize = 1024;
/// A bound on what a server may ask for.
const BEATS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// An attempt whose process is being started, runs, or whose output is still being read.
pub(super) struct Active {
    pub(super) assignment: Arc<Assignment>,
    pub(super) log: Arc<Log>,
    /// None until the process runs, and after it has ended.
    pub(super) control: Option<Arc<dyn ProcessControl>>,
    pub(super) timeout_at: Option<Duration>,
    pub(super) kill_at: Option<Duration>,
    pub(super) killed: bool,
}

pub(super) struct Core {
    pub(super) config: WorkerConfig,
    pub(super) ports: Ports,
    pub(super) servers: Servers,
    pub(super) ledger: Ledger,
    pub(super) session: Session,
    pub(super) link: Option<OpenLink>,
    pub(super) outputs: Arc<Outputs>,
    pub(super) active: BTreeMap<AttemptKey, Active>,
    /// Words about never-started attempts that no session has taken yet.
    unsaid: VecDeque<WorkerFrame>,
    events: mpsc::Sender<Event>,
    incoming: Option<mpsc::Receiver<Event>>,
    backoff: Backoff,
    pub(super) dial_at: Option<Duration>,
    pub(super) beat_interval: Duration,
    pub(super) beat_at: Duration,
    pub(super) renew_at: Option<Duration>,
    pub(super) renewing: bool,
    pub(super) server_ahead_ms: i64,
    pub(super) refusals: u32,
    pub(super) last_refusal: String,
    /// When a server was last heard, or the last job ended if that is later.
    pub(super) last_contact: Duration,
    /// Set when the worker was told to end from outside.
    pub(super) stopping: bool,
    /// Set when the worker can not start jobs any more: it takes none and goes.
    pub(super) broken: bool,
    /// When a worker that has nothing to run any more stops to wait for answers.
    pub(super) stop_by: Option<Duration>,
}

impl Core {
    pub(super) fn new(config: WorkerConfig, ports: Ports, servers: Servers, life: CertificateLife) -> Self {
        let (events, incoming) = mpsc::channel(WAITING_EVENTS);
        let now = ports.clock.monotonic();
        let mut core = Self {
            ledger: Ledger::new(config.slots),
            session: Session::new(),
            link: None,
            outputs: Arc::new(Outputs::new(Arc::clone(&ports.clock))),
            active: BTreeMap::new(),
            unsaid: VecDeque::new(),
            events,
            incoming: Some(incoming),
            backoff: Backoff::default(),
            dial_at: Some(now),
            beat_interval: Duration::from_secs(10),
            beat_at: now,
            renew_at: None,
            renewing: false,
            server_ahead_ms: config.server_now_ms - ports.clock.now_ms(),
            refusals: 0,
            last_refusal: String::new(),
            last_contact: now,
            stopping: false,
            broken: false,
            stop_by: None,
            config,
            ports,
            servers,
        };
        core.plan_renewal(life);
        core
    }

    pub(super) fn now(&self) -> Duration {
        self.ports.clock.monotonic()
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) -> Exit {
        let Some(mut incoming) = self.incoming.take() else {
            return Exit::Stopped;
        };
        let (clock, outputs) = (Arc::clone(&self.ports.clock), Arc::clone(&self.outputs));
        loop {
            self.tick();
            if let Some(exit) = self.exit() {
                return self.leave(exit).await;
            }
            let next = self.next_deadline();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !self.stopping => self.stop_all(),
                Some(event) = incoming.recv() => self.on_event(event),
                () = outputs.emptied(), if self.ledger.is_draining() => {}
                () = clock.sleep_until(next) => {}
            }
        }
    }

    async fn leave(mut self, exit: Exit) -> Exit {
        for active in self.active.values() {
            if let Some(control) = &active.control {
                control.signal(Signal::Kill);
            }
        }
        if let Some(link) = self.link.take()
            && self.session.is_welcomed()
            && !matches!(exit, Exit::Refused(_))
            && link.send(WorkerFrame::Leaving)
        {
            tokio::select! {
                biased;
                () = link.finish() => {}
                () = self.ports.clock.sleep(Duration::from_secs(2)) => {}
            }
        }
        tracing::info!(?exit, "the worker ends");
        exit
    }

    fn stop_all(&mut self) {
        self.stopping = true;
        self.ledger.drain();
        let keys: Vec<AttemptKey> = self.ledger.held().map(|(key, _)| key).collect();
        for key in keys {
            let effects = self.ledger.stop_held(key, Why::Leaving);
            self.perform(effects);
        }
    }

    /// Takes no more jobs, gives back those that wait and says so, before the server hears of the first one that was
    /// not started: it must not come back here.
    fn break_down(&mut self, reason: &str) {
        if self.broken {
            return;
        }
        tracing::error!(reason, "the worker can start no more jobs");
        self.broken = true;
        self.ledger.drain();
        self.send(WorkerFrame::Leaving);
        let waiting: Vec<AttemptKey> = self.ledger.waiting().map(|assignment| assignment.key).collect();
        for key in waiting {
            let effects = self.ledger.stop_held(key, Why::Leaving);
            self.perform(effects);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Dialled { stream, outcome } => self.on_dialled(stream, outcome),
            Event::LinkLost { stream, error } => self.on_link_lost(stream, error),
            Event::Frame { stream, frame } => self.on_frame(stream, frame),
            Event::Renewed(outcome) => self.on_renewed(outcome),
            Event::Spawned {
                key,
                control,
                at,
                at_ms,
            } => {
                if let Some(active) = self.active.get_mut(&key) {
                    active.control = Some(control);
                    active.timeout_at = active.assignment.timeout.map(|timeout| at + timeout);
                }
                let effects = self.ledger.spawned(key, at_ms);
                self.perform_checked(effects);
            }
            Event::Exited {
                key,
                end,
                by_itself,
                at_ms,
            } => {
                if let Some(active) = self.active.get_mut(&key) {
                    active.control = None;
                }
                let effects = if by_itself {
                    self.ledger.exited_by_itself(key, end, at_ms)
                } else {
                    self.ledger.exited(key, end, at_ms)
                };
                self.perform_checked(effects);
            }
            Event::Unstartable { key, message } => {
                self.break_down(&message);
                let effects = self.ledger.unstartable(key, message);
                self.perform_checked(effects);
            }
            Event::Drained { key, output_end } => {
                self.active.remove(&key);
                self.last_contact = self.now();
                let effects = self.ledger.drained(key, output_end);
                self.perform_checked(effects);
            }
        }
    }

    fn on_frame(&mut self, stream: StreamId, frame: ServerFrame) {
        if let ServerFrame::Welcome {
            session,
            beat_interval,
            addresses,
            now_ms,
        } = frame
        {
            match self.session.welcome(stream) {
                Ok(()) => {
                    tracing::info!(session, "session open");
                    self.servers.update(addresses);
                    self.server_ahead_ms = now_ms - self.ports.clock.now_ms();
                    self.beat_interval = beat_interval.clamp(*BEATS.start(), *BEATS.end());
                    self.on_welcome();
                }
                Err(dropped) => tracing::debug!(%dropped, "welcome dropped"),
            }
            return;
        }
        if let ServerFrame::Refused(reason) = frame {
            return self.on_link_lost(stream, DialError::Refused(reason));
        }
        if let Err(dropped) = self.session.admits(stream) {
            tracing::debug!(%dropped, "frame dropped");
            return;
        }
        self.last_contact = self.now();
        let last_beat = self.session.last_beat();
        let effects = match frame {
            ServerFrame::Welcome { .. } | ServerFrame::Refused(_) => Vec::new(),
            ServerFrame::BeatAnswer(n) => {
                match self.session.answered(stream, n) {
                    Ok(beat) => self.ledger.beat_answered(beat),
                    Err(dropped) => tracing::debug!(%dropped, "answer dropped"),
                }
                Vec::new()
            }
            ServerFrame::Assign(assignment) => self.ledger.assign(assignment),
            ServerFrame::Stop { key, kind } => self.ledger.stop(key, kind),
            ServerFrame::ResultAnswer { key, verdict } => {
                self.ledger.answered(key, last_beat);
                if verdict == ResultVerdict::Stale {
                    vec![Effect::DropOutput(key)]
                } else {
                    Vec::new()
                }
            }
            ServerFrame::HelloAnswer { key, verdict } => self.ledger.hello_answered(key, verdict, last_beat),
            ServerFrame::Drain => {
                self.ledger.drain();
                Vec::new()
            }
            ServerFrame::Addresses(addresses) => {
                self.servers.update(addresses);
                Vec::new()
            }
        };
        self.perform(effects);
    }

    fn on_welcome(&mut self) {
        self.backoff.reset();
        self.refusals = 0;
        let now = self.now();
        self.last_contact = now;
        self.beat_at = now;
        if self.broken {
            self.send(WorkerFrame::Leaving);
        }
        while let Some(frame) = self.unsaid.pop_front() {
            self.send(frame);
        }
        let running = self
            .active
            .keys()
            .filter_map(|key| match self.ledger.get(*key)?.state() {
                State::Running { started_at_ms } | State::Stopping { started_at_ms, .. } => {
                    Some(WorkerFrame::Running {
                        key: *key,
                        started_at_ms: *started_at_ms,
                    })
                }
                _ => None,
            });
        let results = self.ledger.unacknowledged().cloned().map(WorkerFrame::Result);
        let frames: Vec<WorkerFrame> = running.chain(results).collect();
        for frame in frames {
            self.send(frame);
        }
        if let Some(link) = &mut self.link {
            let events = self.events.clone();
            link.start_output(&self.outputs, &self.ports.clock, &*self.ports.spawner, events);
        }
    }

    fn perform_checked(&mut self, effects: Result<Vec<Effect>, Refusal>) {
        match effects {
            Ok(effects) => self.perform(effects),
            Err(refusal) => tracing::warn!(%refusal, "event refused"),
        }
    }

    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Spawn(assignment) => self.spawn(assignment),
                Effect::Terminate(key) => self.terminate(key),
                Effect::ReportRunning(key, started_at_ms) => {
                    self.send(WorkerFrame::Running { key, started_at_ms });
                }
                Effect::ReportResult(result) => self.send(WorkerFrame::Result(result)),
                Effect::ReportNeverStarted(key, message) => {
                    let frame = WorkerFrame::NeverStarted { key, message };
                    if self.session.is_welcomed() {
                        self.send(frame);
                    } else {
                        self.unsaid.push_back(frame);
                    }
                }
                Effect::DropOutput(key) => self.drop_output(key),
            }
        }
    }

    /// Hands a frame to the session. Without one it is not kept: whatever matters is said again after the Welcome.
    pub(super) fn send(&mut self, frame: WorkerFrame) {
        if !self.session.is_welcomed() {
            return;
        }
        let taken = self.link.as_ref().is_some_and(|link| link.send(frame));
        if !taken {
            self.lose_link("the server does not read");
        }
    }

    fn spawn(&mut self, assignment: Arc<Assignment>) {
        let key = assignment.key;
        let spool = self.ports.spools.open(key);
        let log = self.outputs.open(key, spool, self.config.output_limit);
        self.active.insert(
            key,
            Active {
                assignment: Arc::clone(&assignment),
                log: Arc::clone(&log),
                control: None,
                timeout_at: None,
                kill_at: None,
                killed: false,
            },
        );
        let job = Job {
            assignment,
            executor: Arc::clone(&self.ports.executor),
            connector: Arc::clone(&self.ports.connector),
            outputs: Arc::clone(&self.outputs),
            log,
            clock: Arc::clone(&self.ports.clock),
            events: self.events.clone(),
        };
        self.ports.spawner.spawn("job", Box::pin(job.run()));
    }

    fn terminate(&mut self, key: AttemptKey) {
        let now = self.now();
        if let Some(active) = self.active.get_mut(&key)
            && let Some(control) = &active.control
        {
            control.signal(Signal::Term);
            active.kill_at = Some(now + active.assignment.grace);
        }
    }

    fn drop_output(&mut self, key: AttemptKey) {
        let outputs = Arc::clone(&self.outputs);
        self.ports.spawner.spawn(
            "drop output",
            Box::pin(async move { outputs.drop_log(key).await }),
        );
    }

    fn hello(&self) -> Hello {
        let held = self.ledger.held().map(|(key, state)| {
            let ended = match self.ledger.get(key).map(|attempt| attempt.state()) {
                Some(State::Ended(result)) => Some(result.output_end),
                _ => None,
            };
            let read = || self.active.get(&key).map_or(0, |active| active.log.end());
            Held {
                key,
                state,
                output_end: if state == HeldState::Accepted {
                    0
                } else {
                    ended.unwrap_or_else(read)
                },
            }
        });
        Hello {
            cpu_millis: self.config.cpu_millis,
            memory_bytes: self.config.memory_bytes,
            slots: self.config.slots,
            enforced: self.ports.executor.enforced(),
            held: held.collect(),
            version: self.config.version.clone(),
        }
    }

    pub(super) fn dial(&mut self) {
        self.dial_at = None;
        let stream = self.session.open(self.now());
        let hello = self.hello();
        let endpoints = self.servers.in_order(&*self.ports.rng);
        let (clock, connector) = (Arc::clone(&self.ports.clock), Arc::clone(&self.ports.connector));
        let events = self.events.clone();
        let task = async move {
            let outcome = first_answer(&*clock, endpoints, |endpoint| {
                let (connector, hello) = (Arc::clone(&connector), hello.clone());
                async move { connector.connect(&endpoint, hello).await }
            })
            .await;
            // Fails only when the worker is gone.
            let _gone = events.send(Event::Dialled { stream, outcome }).await;
        };
        self.ports.spawner.spawn("dial", Box::pin(task));
    }

    fn on_dialled(&mut self, stream: StreamId, outcome: Result<Link, DialError>) {
        if !self.session.is_newest(stream) {
            return;
        }
        match outcome {
            Ok(link) => {
                let events = self.events.clone();
                self.link = Some(OpenLink::open(link, stream, &*self.ports.spawner, events));
            }
            Err(error) => self.on_link_lost(stream, error),
        }
    }

    fn on_link_lost(&mut self, stream: StreamId, error: DialError) {
        if !self.session.is_newest(stream) {
            return;
        }
        if let DialError::Refused(reason) = &error {
            self.on_refused(reason.clone());
        }
        self.lose_link(&error.to_string());
    }

    /// Ends the link, if there is one, and plans the next.
    pub(super) fn lose_link(&mut self, reason: &str) {
        let now = self.now();
        if self.session.is_welcomed() {
            self.last_contact = now;
        }
        tracing::info!(reason, "no session");
        if let Some(stream) = self.session.last_beat().map(|beat| beat.stream) {
            self.session.close(stream);
        }
        self.link = None;
        if self.dial_at.is_none() {
            self.dial_at = Some(now + self.backoff.next(&*self.ports.rng));
        }
    }

    pub(super) fn events(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }
}
