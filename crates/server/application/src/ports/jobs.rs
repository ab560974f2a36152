//! The port over jobs and their attempts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hodei_server_domain::job::end::{AttemptOutcome, End};
use hodei_server_domain::job::spec::JobSpec;
use hodei_server_domain::job::state::{Job, JobEvent};
use hodei_server_domain::scheduling::snapshot::{QueuedJob, ShapeQueue};
use hodei_shared::ids::{AttemptKey, JobId, Lease, Namespace, ProviderId, Rank, WorkerId};
use hodei_shared::resources::Resources;

use super::StoreError;

/// A job to be stored.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id; only used if the request id is new.
    pub id: JobId,
    /// Whose it is.
    pub namespace: Namespace,
    /// What it is.
    pub spec: JobSpec,
    /// The caller's request id; 1 to 255 bytes.
    pub request_id: String,
    /// The public id of the caller's token.
    pub owner: String,
    /// The job that this one repeats.
    pub retry_of: Option<JobId>,
}

/// What became of a [`NewJob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueOutcome {
    /// Stored, with its event.
    Queued(JobId),
    /// The same request was stored before, as this job.
    Same(JobId),
    /// The request id was used before for another spec, for this job.
    OtherSpec(JobId),
}

/// One event for one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobChange {
    /// The job.
    pub job: JobId,
    /// What happens to it.
    pub event: JobEvent,
    /// The worker whose identity says so; `None` for the server's own decisions.
    pub from_worker: Option<WorkerId>,
    /// For `Finished`: what else is recorded.
    pub finish: Option<Finish>,
}

/// What is recorded with a `Finished` beside the result itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// When the process started, by the worker's clock; `None`: it never ran.
    pub started_at_ms: Option<i64>,
    /// When it ended, by the worker's clock.
    pub ended_at_ms: i64,
    /// Position after the last byte of output.
    pub output_end: u64,
    /// Record the result although output before `output_end` is missing.
    pub allow_missing_output: bool,
}

/// What became of a [`JobChange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// Recorded, with its events; the job afterwards.
    Applied(Job),
    /// It was already so.
    Same,
    /// Of an older lease, or of an attempt that is over.
    Stale,
    /// A claim, but the job can not be claimed now or the worker has no room.
    NotClaimable,
    /// Not recorded: output before `output_end` is missing; bytes below this are stored.
    OutputMissing(u64),
    /// Another result is recorded for this lease; the event `ResultConflict` was written.
    Conflict,
    /// The attempt never was this worker's.
    NotHolder,
    /// There is no such job.
    NoSuchJob,
}

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub namespace: Namespace,
    /// What it is.
    pub spec: JobSpec,
    /// Where it stands.
    pub job: Job,
    /// Its attempts, one for each claim, oldest first. Claims that never started share a number with the next.
    pub attempts: Vec<AttemptRecord>,
    /// The job that it repeats.
    pub retry_of: Option<JobId>,
    /// When it was queued.
    pub created_at_ms: i64,
    /// When it ended.
    pub ended_at_ms: Option<i64>,
}

/// An attempt as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRecord {
    /// The claim.
    pub lease: Lease,
    /// Its number, from 1.
    pub number: u32,
    /// Who held or holds it.
    pub worker: WorkerId,
    /// Where that is.
    pub provider: ProviderId,
    /// What the provider calls the machine.
    pub machine: String,
    /// The worker said that the process ran.
    pub started_at_ms: Option<i64>,
    /// When it ended, by the worker's clock, or by the store's if the worker did not say.
    pub ended_at_ms: Option<i64>,
    /// How it ended; `None`: it lives.
    pub end: Option<(AttemptOutcome, End)>,
    /// The claim never started: it does not count, and people do not see it.
    pub never_started: bool,
    /// Its output.
    pub output: OutputCounts,
}

/// How much output an attempt has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputCounts {
    /// Bytes of both streams that are stored.
    pub bytes: u64,
    /// Newlines in them.
    pub lines: u64,
    /// Messages in which they came.
    pub messages: u64,
    /// Position after the last byte as the worker reported it with the result.
    pub declared_end: Option<u64>,
    /// The job printed more than is kept; `bytes` is where its output was cut.
    pub truncated: bool,
    /// It was old and was removed; the figures say what it was.
    pub expired: bool,
}

/// Which jobs a list shows.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only of this namespace.
    pub namespace: Option<Namespace>,
    /// All pairs must be there.
    pub labels: BTreeMap<String, String>,
    /// Any of these states, by their words; empty: all.
    pub states: Vec<&'static str>,
    /// Only jobs older than this one.
    pub before: Option<JobId>,
    /// How many at most.
    pub limit: usize,
}

/// A live attempt, for the worker's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveAttempt {
    /// Job, lease, rank.
    pub key: AttemptKey,
    /// Its number, from 1.
    pub number: u32,
    /// The worker said that it runs.
    pub running: bool,
    /// Somebody asked to cancel it.
    pub cancel_requested: bool,
    /// Whether it would be repeated if it were lost.
    pub repeatable: bool,
}

/// Who holds a live attempt, for the lease loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// The worker.
    pub worker: WorkerId,
    /// Job, lease, rank.
    pub key: AttemptKey,
    /// How long the worker may be silent, in milliseconds.
    pub lost_after_ms: u64,
}

/// How many jobs have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Queued, and could run now.
    pub ready: u64,
    /// Queued, and wait for their time: delayed, or backing off.
    pub delayed: u64,
    /// Queued, and wait to be released.
    pub held: u64,
    /// Given to a worker.
    pub assigned: u64,
    /// Running.
    pub running: u64,
    /// Since when the oldest of those that are ready could run.
    pub oldest_ready_at_ms: Option<i64>,
}

/// What a look at the claimable jobs shows.
#[derive(Debug, Clone, Copy)]
pub struct ClaimableLook {
    /// Where the look before this one stopped; `None`: from the start.
    pub after: Option<QueuedJob>,
    /// How many shapes at most.
    pub shapes: usize,
    /// How many jobs of each, the first of them.
    pub per_shape: usize,
}

impl ClaimableLook {
    /// How many of the shapes are those with the oldest heads, if there are more than fit; the others rotate.
    pub fn oldest(&self) -> usize {
        self.shapes / 2
    }
}

/// The claimable jobs of some shapes.
#[derive(Debug, Clone, Default)]
pub struct Claimable {
    /// By head.
    pub queues: Vec<ShapeQueue>,
    /// The last head that was looked at, if there are shapes behind it.
    pub next: Option<QueuedJob>,
}

/// Jobs and attempts. Every change and its events are one transaction; concurrent calls share one.
#[async_trait]
pub trait JobRepository: Send + Sync + 'static {
    /// Stores jobs with their events. Returned means durable.
    async fn queue(&self, jobs: Vec<NewJob>) -> Result<Vec<QueueOutcome>, StoreError>;

    /// Applies events by the rules of [`Job::apply`], in order.
    ///
    /// A claim also takes a slot of the worker, if that is ready, has a session and a free slot; the end of an
    /// attempt gives it back. What a worker says (`from_worker`) is checked first: an attempt that was never
    /// that worker's is `NotHolder`; of one that is over, the same result is `Same`, a different one is
    /// `Conflict`, or `Stale` if the attempt was recorded as lost.
    async fn apply(&self, changes: Vec<JobChange>) -> Result<Vec<ChangeOutcome>, StoreError>;

    /// One job with its attempts.
    async fn get(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// Jobs with their attempts, newest first.
    async fn list(&self, filter: JobFilter) -> Result<Vec<JobRecord>, StoreError>;

    /// The claimable jobs by shape, the oldest head first.
    ///
    /// With more shapes than are asked for, one half of the answer are the shapes with the oldest heads, the other
    /// half goes through the rest: passes that hand `next` on see every shape in turn.
    async fn claimable(&self, look: ClaimableLook) -> Result<Claimable, StoreError>;

    /// When the next queued job that waits for its time becomes claimable.
    async fn next_ready_at(&self) -> Result<Option<i64>, StoreError>;

    /// The live attempts of one worker, by key.
    async fn held_by(&self, worker: WorkerId) -> Result<Vec<LiveAttempt>, StoreError>;

    /// Whose jobs these are and what they are; those that do not exist are left out.
    async fn specs(&self, jobs: Vec<JobId>) -> Result<BTreeMap<JobId, (Namespace, JobSpec)>, StoreError>;

    /// All live attempts, by worker and key.
    async fn holdings(&self) -> Result<Vec<Holding>, StoreError>;

    /// What the live attempts of each worker use.
    async fn used(&self) -> Result<BTreeMap<WorkerId, Resources>, StoreError>;

    /// How many jobs there are that have not ended, exactly, now. Costs time in proportion to their number.
    async fn counts(&self) -> Result<QueueCounts, StoreError>;
}

/// The only rank there is today.
pub const FIRST_RANK: Rank = Rank(0);
