//! The JSON that people and their programs see, built from the wire messages; the command line and REST share it.
//!
//! Every field is always present: `null` where nothing is set, never left out. Names are snake_case, states
//! lower-case, times RFC 3339 in UTC, durations in seconds, sizes in bytes. A field may be added, but none is
//! renamed or given another meaning. Nothing secret is in any message, so nothing is hidden here.

mod from_wire;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Number;

use crate::v1;

/// A job with its attempts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// 26 characters.
    pub id: String,
    /// What its owner called it.
    pub name: Option<String>,
    /// The tenant it belongs to.
    pub namespace: String,
    /// See [`job_state`].
    pub state: &'static str,
    /// The process's own exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended the process.
    pub signal: Option<i32>,
    /// A stable word: why it ended, or what it waits for.
    pub reason: Option<String>,
    /// A sentence for people.
    pub message: Option<String>,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
    /// Its owner's labels.
    pub labels: BTreeMap<String, String>,
    /// How many members an array has in each state; `null` for a single job.
    pub counts: Option<BTreeMap<String, u64>>,
    /// The job that this one repeats.
    pub retry_of: Option<String>,
    /// When it was queued.
    pub created_at: Option<String>,
    /// When its state became final.
    pub ended_at: Option<String>,
    /// Whether somebody asked to cancel it.
    pub cancel_requested: bool,
    /// Program and arguments; `null` with a script, or where the image's own command runs.
    pub command: Option<Vec<String>>,
    /// The text of its script.
    pub script: Option<String>,
    /// What runs the script.
    pub interpreter: Option<Vec<String>>,
    /// The image that it runs in.
    pub image: Option<String>,
    /// The environment it was given.
    pub env: BTreeMap<String, String>,
    /// The folder it runs in; `null`: a private one.
    pub workdir: Option<String>,
    /// What it asked for; `null` fields mean the defaults.
    pub resources: JobResources,
    /// Seconds an attempt may run.
    pub timeout: Option<Number>,
    /// How often a failed attempt is repeated.
    pub retries: u32,
    /// Which ends are repeated; empty: all.
    pub retry_on: Vec<String>,
    /// Conditions on provider labels.
    pub constraints: Vec<String>,
    /// The provider it insists on.
    pub provider: Option<String>,
    /// The least isolation it accepts.
    pub isolation: Option<String>,
    /// Higher goes first.
    pub priority: i32,
    /// Seconds that a silent worker keeps the job.
    pub lost_after: Option<Number>,
    /// Seconds from TERM to KILL.
    pub grace: Option<Number>,
    /// Where its standard input comes from: `stream` or `whole`; `null`: it has none.
    pub stdin: Option<&'static str>,
    /// Whether both streams go through one pipe.
    pub merge: bool,
}

/// What a job asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobResources {
    /// Processors; a fraction is possible.
    pub cpus: Option<Number>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// One attempt to run a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// Counts from 1.
    pub number: u32,
    /// See [`attempt_state`].
    pub state: &'static str,
    /// Where it ran.
    pub provider: Option<String>,
    /// The worker that ran it.
    pub worker_id: Option<String>,
    /// What the provider calls the machine.
    pub machine: Option<String>,
    /// The digest of the image it ran in.
    pub image_digest: Option<String>,
    /// The process's own exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended the process.
    pub signal: Option<i32>,
    /// A stable word: why it ended.
    pub reason: Option<String>,
    /// A sentence for people.
    pub message: Option<String>,
    /// When its process started.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// What it printed so far.
    pub output: Output,
}

/// How much an attempt printed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Output {
    /// Bytes of both streams that are stored.
    pub bytes: u64,
    /// Line ends among them.
    pub lines: u64,
    /// Messages in which they travelled.
    pub messages: u64,
    /// The job printed more than is kept: its output was cut after `bytes`.
    pub truncated: bool,
    /// It was old and was removed; the figures say what it was.
    pub expired: bool,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Jobs {
    /// The jobs of this page.
    pub jobs: Vec<Job>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worker {
    /// 26 characters.
    pub id: String,
    /// The tenant whose jobs it runs.
    pub namespace: String,
    /// Who started its machine.
    pub provider: String,
    /// See [`worker_state`].
    pub state: &'static str,
    /// Whether it has a session now.
    pub connected: bool,
    /// What the provider calls the machine.
    pub machine: Option<String>,
    /// Its room.
    pub capacity: WorkerRoom,
    /// What its jobs occupy.
    pub used: WorkerRoom,
    /// When it was planned.
    pub created_at: Option<String>,
    /// When its machine was gone.
    pub ended_at: Option<String>,
    /// Why it ended.
    pub message: Option<String>,
    /// Labels of its provider and its own.
    pub labels: BTreeMap<String, String>,
    /// What the kernel enforces for its jobs.
    pub enforced: Vec<String>,
}

/// Room of a worker, or the part in use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerRoom {
    /// Processors.
    pub cpus: Number,
    /// Bytes.
    pub memory: u64,
    /// Jobs at a time.
    pub slots: u32,
}

/// All workers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workers {
    /// The workers of this page.
    pub workers: Vec<Worker>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// A provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provider {
    /// Its name in the configuration.
    pub id: String,
    /// `process`, `docker`, `kubernetes` or `firecracker`.
    pub kind: String,
    /// Whether it can start machines now.
    pub healthy: bool,
    /// Why it is unhealthy, or what it is.
    pub message: Option<String>,
    /// What `--constraint` sees.
    pub labels: BTreeMap<String, String>,
    /// `process`, `container` or `microvm`.
    pub isolation: String,
    /// Its limits; `null` where there is none.
    pub capacity: ProviderRoom,
    /// What its workers occupy.
    pub used: ProviderRoom,
    /// Why it takes no new work, if somebody said so.
    pub drained: Option<String>,
}

/// How many jobs wait and run, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueStatus {
    /// Queued jobs.
    pub queued: u64,
    /// Those of them that could run now.
    pub ready: u64,
    /// Those that wait for their time.
    pub delayed: u64,
    /// Those that wait to be released.
    pub held: u64,
    /// Given to a worker.
    pub assigned: u64,
    /// Running.
    pub running: u64,
    /// Since when the oldest ready job could run.
    pub oldest_ready_at: Option<String>,
    /// Workers that are not gone.
    pub workers: u32,
    /// Those of them with a session.
    pub connected_workers: u32,
    /// How many jobs the connected ones can run at once.
    pub slots: u32,
    /// How many they hold.
    pub used_slots: u32,
}

/// Room of a provider, or the part in use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProviderRoom {
    /// Processors.
    pub cpus: Option<Number>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Machines.
    pub workers: Option<u32>,
}

/// All providers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Providers {
    /// The providers of this page.
    pub providers: Vec<Provider>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Gap-free over the whole platform, in commit order.
    pub position: u64,
    /// When it was committed.
    pub at: Option<String>,
    /// `JobCreated`, `JobStatusChanged`, …
    pub kind: String,
    /// A sentence for people.
    pub message: Option<String>,
}

/// The events of a job, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Events {
    /// The events of this page.
    pub events: Vec<Event>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// See [`job_state`].
    pub state: &'static str,
    /// What the job waits for, or where it went.
    pub summary: Option<String>,
    /// Every provider and what it thinks of the job.
    pub providers: Vec<Verdict>,
}

/// One provider's verdict on a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The provider.
    pub provider: String,
    /// Whether the job could run there.
    pub fits: bool,
    /// What ruled the provider out.
    pub ruled_out_by: Option<String>,
    /// A sentence for people.
    pub message: Option<String>,
}

/// The word for a job's state; `unknown` for one of a newer server.
pub fn job_state(state: v1::JobState) -> &'static str {
    match state {
        v1::JobState::Unspecified => "unknown",
        v1::JobState::Queued => "queued",
        v1::JobState::Assigned => "assigned",
        v1::JobState::Running => "running",
        v1::JobState::Succeeded => "succeeded",
        v1::JobState::Failed => "failed",
        v1::JobState::Cancelled => "cancelled",
        v1::JobState::TimedOut => "timed_out",
    }
}

/// The word for an attempt's state; `unknown` for one of a newer server.
pub fn attempt_state(state: v1::AttemptState) -> &'static str {
    match state {
        v1::AttemptState::Unspecified => "unknown",
        v1::AttemptState::Assigned => "assigned",
        v1::AttemptState::Running => "running",
        v1::AttemptState::Succeeded => "succeeded",
        v1::AttemptState::Failed => "failed",
        v1::AttemptState::TimedOut => "timed_out",
        v1::AttemptState::Cancelled => "cancelled",
        v1::AttemptState::Lost => "lost",
    }
}

/// The word for a worker's phase; `unknown` for one of a newer server.
pub fn worker_state(phase: v1::WorkerPhase) -> &'static str {
    match phase {
        v1::WorkerPhase::Unspecified => "unknown",
        v1::WorkerPhase::Planned => "planned",
        v1::WorkerPhase::Starting => "starting",
        v1::WorkerPhase::Ready => "ready",
        v1::WorkerPhase::Draining => "draining",
        v1::WorkerPhase::Gone => "gone",
    }
}

/// Milliseconds since the Unix epoch as RFC 3339; `None` for 0 and for what no calendar holds.
pub fn time(at_ms: i64) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(at_ms).ok()?;
    (at_ms != 0).then(|| at.to_string())
}

#[cfg(test)]
mod tests;
