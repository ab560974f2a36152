//! How values stand in columns.

use hodei_server_domain::job::end::{AttemptOutcome, Outcome};
use hodei_server_domain::job::retry::{RetryOn, RetryPolicy};
use hodei_server_domain::job::state::Phase;
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::Invalid;
use hodei_shared::ids::{AttemptKey, JobId, Lease, ObjectId, Rank, WorkerId};
use rusqlite::types::{FromSql, Type};
use rusqlite::{Error, Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(super) const QUEUED: i64 = 0;
pub(super) const ASSIGNED: i64 = 1;
pub(super) const RUNNING: i64 = 2;

/// The words of the job states; the index is the number in the column.
pub(super) const STATE_WORDS: [&str; 7] = [
    "queued",
    "assigned",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "timed_out",
];

const OUTCOMES: [Outcome; 4] = [
    Outcome::Succeeded,
    Outcome::Failed,
    Outcome::Cancelled,
    Outcome::TimedOut,
];

const ATTEMPT_OUTCOMES: [AttemptOutcome; 5] = [
    AttemptOutcome::Succeeded,
    AttemptOutcome::Failed,
    AttemptOutcome::TimedOut,
    AttemptOutcome::Cancelled,
    AttemptOutcome::Lost,
];

const RETRY_ON: [RetryOn; 4] = [RetryOn::Exit, RetryOn::Lost, RetryOn::Oom, RetryOn::Provider];

/// The number of a job's state.
pub(super) fn state_of(phase: &Phase) -> i64 {
    match phase {
        Phase::Queued { .. } => QUEUED,
        Phase::Assigned { .. } => ASSIGNED,
        Phase::Running { .. } => RUNNING,
        Phase::Ended { outcome, .. } => 3 + index_of(&OUTCOMES, outcome),
    }
}

/// The outcome that a number of an ended state stands for.
pub(super) fn outcome_from(row: &Row<'_>, column: usize) -> Result<Outcome> {
    let state: i64 = row.get(column)?;
    element(&OUTCOMES, state - 3, column)
}

pub(super) fn attempt_outcome_number(outcome: AttemptOutcome) -> i64 {
    index_of(&ATTEMPT_OUTCOMES, &outcome)
}

pub(super) fn attempt_outcome_from(number: i64, column: usize) -> Result<AttemptOutcome> {
    element(&ATTEMPT_OUTCOMES, number, column)
}

pub(super) fn phase_number(phase: WorkerPhase) -> i64 {
    index_of(&WorkerPhase::ALL, &phase)
}

pub(super) fn phase_from(row: &Row<'_>, column: usize) -> Result<WorkerPhase> {
    element(&WorkerPhase::ALL, row.get(column)?, column)
}

/// The kinds of ends that are repeated, as bits.
pub(super) fn retry_bits(policy: &RetryPolicy) -> i64 {
    policy.on().iter().map(|on| 1 << index_of(&RETRY_ON, on)).sum()
}

pub(super) fn retry_policy(retries: u32, bits: i64) -> RetryPolicy {
    let on: Vec<RetryOn> = RETRY_ON
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, on)| on)
        .collect();
    RetryPolicy::new(retries, &on)
}

/// A number for an INTEGER column; what does not fit is far out of every range that occurs.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit or size for SQL.
pub(super) fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A number that is never negative.
pub(super) fn uint(row: &Row<'_>, column: usize) -> Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn job_id(row: &Row<'_>, column: usize) -> Result<JobId> {
    row.get(column).map(JobId::from_bytes)
}

pub(super) fn worker_id(row: &Row<'_>, column: usize) -> Result<WorkerId> {
    row.get(column).map(WorkerId::from_bytes)
}

pub(super) fn object_id(row: &Row<'_>, column: usize) -> Result<ObjectId> {
    row.get(column).map(ObjectId::from_bytes)
}

/// An attempt's key from three columns: job, lease, rank.
pub(super) fn attempt_key(row: &Row<'_>, first: usize) -> Result<AttemptKey> {
    Ok(AttemptKey {
        job: job_id(row, first)?,
        lease: Lease(uint(row, first + 1)?),
        rank: Rank(row.get(first + 2)?),
    })
}

/// A validated name.
pub(super) fn name<T>(row: &Row<'_>, column: usize) -> Result<T>
where
    T: TryFrom<String, Error = Invalid>,
{
    let text: String = row.get(column)?;
    T::try_from(text).map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::ToSqlConversionFailure(Box::new(error)))
}

/// A certificate chain: each certificate after its length in four bytes, big-endian.
pub(super) fn chain_bytes(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for certificate in chain {
        bytes.extend_from_slice(&(certificate.len() as u32).to_be_bytes());
        bytes.extend_from_slice(certificate);
    }
    bytes
}

pub(super) fn chain_from(row: &Row<'_>, column: usize) -> Result<Vec<Vec<u8>>> {
    let broken = || Error::InvalidColumnType(column, "chain".to_owned(), Type::Blob);
    let mut rest = row.get_ref(column)?.as_blob()?;
    let mut chain = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
        let length = u32::from_be_bytes(*length) as usize;
        let certificate = after.get(..length).ok_or_else(broken)?;
        chain.push(certificate.to_vec());
        rest = &after[length..];
    }
    Ok(chain)
}

/// The only value of a query that finds one row or none.
pub(super) fn one<T: FromSql>(row: &Row<'_>) -> Result<T> {
    row.get(0)
}

fn index_of<T: PartialEq>(all: &[T], wanted: &T) -> i64 {
    all.iter().position(|value| value == wanted).map_or(0, count)
}

fn element<T: Copy>(all: &[T], index: i64, column: usize) -> Result<T> {
    let found = usize::try_from(index)
        .ok()
        .and_then(|index| all.get(index).copied());
    found.ok_or(Error::IntegralValueOutOfRange(column, index))
}
