//! What the worker needs from the outside beside time, tasks and randomness.

use std::sync::Arc;

use async_trait::async_trait;
use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::{Piece, Stream};
use hodei_shared::ports::{BoxFuture, Clock, Rng, Spawner};
use hodei_shared::secret::SecretString;
use hodei_worker_domain::assignment::Assignment;
use hodei_worker_domain::attempt::ProcessEnd;
use hodei_worker_domain::frame::{Hello, OutputAnswer, OutputBatch, ServerFrame, WorkerFrame};
use thiserror::Error;

/// Everything that a worker is built on.
#[derive(Clone)]
pub struct Ports {
    /// Reaches servers.
    pub connector: Arc<dyn Connector>,
    /// Runs processes.
    pub executor: Arc<dyn Executor>,
    /// Keeps output that is not acknowledged.
    pub spools: Arc<dyn Spools>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tasks.
    pub spawner: Arc<dyn Spawner>,
    /// Randomness, for jitter.
    pub rng: Arc<dyn Rng>,
}

/// Where a server may be reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// A socket on this machine, by its path.
    Socket(String),
    /// `IP:PORT`.
    Address(String),
}

/// Why a server could not be reached or a stream broke.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DialError {
    /// Try again, here or elsewhere: nobody answered, the stream broke, or the server is not ready yet.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The server has refused this worker; asking again with the same words is of no use.
    #[error("refused: {0}")]
    Refused(String),
}

/// From when until when a certificate is valid, wall milliseconds of the server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateLife {
    /// Valid from.
    pub not_before_ms: i64,
    /// Valid until.
    pub not_after_ms: i64,
}

/// Reaches servers, and holds the worker's key and certificate.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Redeems the one-time password for a certificate of the connector's key. Idempotent with the same key.
    ///
    /// # Errors
    /// [`DialError::Unavailable`]: try again. [`DialError::Refused`]: the password is of no use.
    async fn register(&self, endpoint: &Endpoint, otp: &SecretString) -> Result<CertificateLife, DialError>;

    /// Exchanges the certificate for a fresh one of the same key.
    ///
    /// # Errors
    /// [`DialError::Unavailable`]: try again. [`DialError::Refused`]: the worker is not wanted any more.
    async fn renew(&self, endpoint: &Endpoint) -> Result<CertificateLife, DialError>;

    /// The next bytes of an attempt's standard input, from the server of the newest session; waits a while for some.
    ///
    /// # Errors
    /// [`DialError`]: try again, perhaps in another session.
    async fn read_input(&self, key: AttemptKey, offset: u64) -> Result<Input, DialError>;

    /// Opens a session, whose first frame is `hello`, and the output stream beside it.
    ///
    /// # Errors
    /// [`DialError`]; a refusal may also come from the first [`Incoming::recv`].
    async fn connect(&self, endpoint: &Endpoint, hello: Hello) -> Result<Link, DialError>;
}

/// A part of an attempt's standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The next bytes; empty if none have come yet.
    More(Vec<u8>),
    /// The last bytes.
    Last(Vec<u8>),
    /// The attempt is over for the server.
    Stale,
}

/// A session with a server and the output stream that belongs to it. Dropping it ends both.
pub struct Link {
    /// The worker's frames, after the Hello.
    pub frames_out: Box<dyn Outgoing<WorkerFrame>>,
    /// The server's frames.
    pub frames_in: Box<dyn Incoming<ServerFrame>>,
    /// Output.
    pub output_out: Box<dyn Outgoing<OutputBatch>>,
    /// Answers to output.
    pub output_in: Box<dyn Incoming<OutputAnswer>>,
}

/// The sending half of a stream.
#[async_trait]
pub trait Outgoing<T: Send + 'static>: Send {
    /// Hands `item` to the stream; waits while the other side does not read. Handed over is not delivered.
    ///
    /// # Errors
    /// [`DialError`] if the stream is broken.
    async fn send(&mut self, item: T) -> Result<(), DialError>;
}

/// The receiving half of a stream.
#[async_trait]
pub trait Incoming<T: Send + 'static>: Send {
    /// The next item; none at the regular end. Cancel-safe.
    ///
    /// # Errors
    /// [`DialError`] if the stream is broken.
    async fn recv(&mut self) -> Result<Option<T>, DialError>;
}

/// Runs processes.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Starts the process of `assignment`. At most as many run at once as the worker has slots.
    ///
    /// # Errors
    /// [`StartFailure`] if nothing was started.
    async fn start(&self, assignment: Arc<Assignment>) -> Result<Process, StartFailure>;

    /// What the kernel enforces for jobs, in words for people, such as `pid_namespace`.
    fn enforced(&self) -> Vec<String>;
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct StartFailure {
    /// 127: the program is missing; 126: it can not be executed; none: something else was missing.
    pub exit_code: Option<i32>,
    /// One line that names what was missing.
    pub message: String,
    /// Whether the worker is to blame, not the job: what it needs to start any job is broken. The attempt counts as
    /// never started then, and the worker goes.
    pub worker_is_broken: bool,
}

/// A running process.
pub struct Process {
    /// Its output; backpressure is not to read it.
    pub output: Box<dyn OutputSource>,
    /// Its standard input, if the assignment has one.
    pub input: Option<Box<dyn InputSink>>,
    /// Ends when the process has ended AND nothing that it started is left. Its slot is free then.
    pub exit: BoxFuture<ProcessEnd>,
    /// Signals it.
    pub control: Arc<dyn ProcessControl>,
}

/// A part of a process's output, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where the bytes came from.
    pub stream: Stream,
    /// The bytes; not empty.
    pub bytes: Vec<u8>,
    /// When they were read, wall milliseconds.
    pub at_ms: i64,
}

/// The output of a process.
#[async_trait]
pub trait OutputSource: Send {
    /// The next chunk of at most 64 KiB; none when both streams have ended. Cancel-safe.
    async fn read(&mut self) -> Option<Chunk>;
}

/// The standard input of a process. Dropping it tells the process that nothing follows.
#[async_trait]
pub trait InputSink: Send {
    /// Hands over all of `bytes`, as fast as the process reads them; false if it reads no more. Not cancel-safe.
    async fn write(&mut self, bytes: &[u8]) -> bool;
}

/// What a process and everything that it started is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Term,
    /// End.
    Kill,
}

/// Signals a process and everything that it started.
pub trait ProcessControl: Send + Sync {
    /// Sends `signal` to the whole tree; nothing if it has ended. Does not wait.
    fn signal(&self, signal: Signal);

    /// Whether the process itself had ended before the first signal came, though others of its tree may have been
    /// left. To be asked after its exit; false where that is not known.
    fn ended_by_itself(&self) -> bool {
        false
    }
}

/// Makes room for the output of attempts.
pub trait Spools: Send + Sync + 'static {
    /// An empty spool, which goes when it is dropped.
    fn open(&self, key: AttemptKey) -> Arc<dyn Spool>;
}

/// Why a spool could not keep or give output.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("output can not be kept: {0}")]
pub struct SpoolError(pub String);

/// Output of one attempt that is not acknowledged yet, by its position in the attempt's combined log.
///
/// Overflow memory, not durability: it goes with the worker.
#[async_trait]
pub trait Spool: Send + Sync {
    /// Appends a chunk; answers the position after its last byte.
    ///
    /// # Errors
    /// [`SpoolError`] if it could not be kept; nothing was appended then.
    async fn append(&self, chunk: Chunk) -> Result<u64, SpoolError>;

    /// At most `max` bytes from position `from` on; fewer only at the end of what is kept.
    ///
    /// # Errors
    /// [`SpoolError`] if `from` was trimmed away or could not be read.
    async fn read(&self, from: u64, max: usize) -> Result<Piece, SpoolError>;

    /// Forgets what lies before position `below`.
    async fn trim(&self, below: u64);
}
