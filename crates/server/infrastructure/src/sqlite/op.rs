//! The operations that the core applies and their outcomes: one for each writing call of a port.

use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::input::{InputAppend, InputOutcome};
use hodei_server_application::ports::jobs::{ChangeOutcome, JobChange, NewJob, QueueOutcome};
use hodei_server_application::ports::output::{AppendOutcome, Block, OutputAppend};
use hodei_server_application::ports::retention::Expiry;
use hodei_server_application::ports::tokens::TokenRecord;
use hodei_server_application::ports::workers::{
    BeatRecord, Certificate, NewWorker, Redeem, RedeemOutcome, RenewOutcome, SessionOutcome, SessionStart,
    WorkerChange,
};
use hodei_server_domain::event::Event;
use hodei_server_domain::worker::identity::RenewalRequest;
use hodei_shared::ids::{AttemptKey, JobId, ObjectId, ProviderId, WorkerId};

/// One writing call.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Queue(Vec<NewJob>),
    Apply(Vec<JobChange>),
    Append(Vec<OutputAppend>),
    MoveTails(Vec<(AttemptKey, Block)>),
    ForgetObjects(Vec<ObjectId>),
    Expire(Expiry, usize),
    Input(Vec<InputAppend>),
    Events(Vec<Event>),
    Plan(Vec<NewWorker>),
    ChangeWorkers(Vec<WorkerChange>),
    Redeem(Redeem),
    Renew(WorkerId, RenewalRequest, Certificate),
    BeginSession(SessionStart),
    Beat(Vec<BeatRecord>),
    CreateToken(TokenRecord),
    PutSealed(String, Vec<u8>),
    /// Drains a provider for a reason, or resumes it.
    SetDrain(ProviderId, Option<String>),
}

impl Op {
    /// The jobs that it may change, for those who follow them.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        let jobs: Box<dyn Iterator<Item = JobId>> = match self {
            Self::Queue(jobs) => Box::new(jobs.iter().map(|job| job.id)),
            Self::Apply(changes) => Box::new(changes.iter().map(|change| change.job)),
            Self::Append(batches) => Box::new(batches.iter().map(|batch| batch.key.job)),
            Self::Input(parts) => Box::new(parts.iter().map(|part| part.job)),
            _ => Box::new(std::iter::empty()),
        };
        jobs
    }
}

/// What became of the [`Op`] of the same name.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Queue(Vec<QueueOutcome>),
    Apply(Vec<ChangeOutcome>),
    Append(Vec<AppendOutcome>),
    MoveTails(Vec<bool>),
    ForgetObjects(()),
    Expire(usize),
    Input(Vec<InputOutcome>),
    Events(()),
    Plan(()),
    ChangeWorkers(Vec<bool>),
    Redeem(RedeemOutcome),
    Renew(RenewOutcome),
    BeginSession(SessionOutcome),
    Beat(Vec<bool>),
    CreateToken(bool),
    PutSealed(Vec<u8>),
    SetDrain(bool),
}

impl Outcome {
    /// Whether those who wait for changes should look again. Beats alone wake nobody.
    pub(super) fn changed(&self) -> bool {
        match self {
            Self::Queue(outcomes) => outcomes.iter().any(|o| matches!(o, QueueOutcome::Queued(_))),
            Self::Apply(outcomes) => {
                let changes =
                    |o: &ChangeOutcome| matches!(o, ChangeOutcome::Applied(_) | ChangeOutcome::Conflict);
                outcomes.iter().any(changes)
            }
            Self::Append(outcomes) => outcomes.iter().any(|o| matches!(o, AppendOutcome::Stored(_))),
            Self::Input(outcomes) => outcomes.iter().any(|o| matches!(o, InputOutcome::Stored { .. })),
            Self::ChangeWorkers(changed) => changed.contains(&true),
            Self::Events(()) | Self::Plan(()) | Self::Redeem(_) | Self::Renew(_) | Self::BeginSession(_) => {
                true
            }
            Self::SetDrain(changed) => *changed,
            Self::Beat(_)
            | Self::CreateToken(_)
            | Self::PutSealed(_)
            | Self::MoveTails(_)
            | Self::ForgetObjects(())
            | Self::Expire(_) => false,
        }
    }

    /// The error for an outcome of another operation than was asked.
    pub(super) fn unexpected(&self) -> StoreError {
        StoreError::Internal("an operation got the answer of another one".to_owned())
    }
}

/// Performs an operation and takes its value out of the outcome of the same name.
macro_rules! perform {
    ($store:expr, $op:expr, $outcome:ident) => {
        match $store.write($op).await? {
            $crate::sqlite::op::Outcome::$outcome(value) => Ok(value),
            other => Err(other.unexpected()),
        }
    };
}
pub(super) use perform;
