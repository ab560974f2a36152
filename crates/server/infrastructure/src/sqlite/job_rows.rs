//! The changing part of a job as rows: one in `job_live` until it ends, then one in `job_ended`.

use hodei_server_domain::job::end::{End, Reason};
use hodei_server_domain::job::retry::RetryPolicy;
use hodei_server_domain::job::state::{Job, Phase};
use hodei_shared::ids::{JobId, Lease};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Result, Row, params};

use super::value::{ASSIGNED, QUEUED, int, outcome_from, retry_policy, state_of, uint, worker_id};

pub(super) const LOAD_LIVE: &str = include_str!("sql/load_live.sql");
pub(super) const LOAD_ENDED: &str = include_str!("sql/load_ended.sql");

/// A job as it was loaded for a change.
pub(super) struct LoadedJob {
    pub(super) namespace: String,
    pub(super) job: Job,
    /// Of an ended job: one that repeats nothing.
    pub(super) policy: RetryPolicy,
    pub(super) ended_at: Option<i64>,
}

pub(super) fn load(connection: &Connection, id: JobId) -> Result<Option<LoadedJob>> {
    let live = connection
        .prepare_cached(LOAD_LIVE)?
        .query_row([id.as_bytes()], live_row)
        .optional()?;
    if live.is_some() {
        return Ok(live);
    }
    connection
        .prepare_cached(LOAD_ENDED)?
        .query_row([id.as_bytes()], ended_row)
        .optional()
}

fn live_row(row: &Row<'_>) -> Result<LoadedJob> {
    let state: i64 = row.get(1)?;
    let phase = match state {
        QUEUED => Phase::Queued {
            ready_at_ms: row.get(2)?,
        },
        ASSIGNED => Phase::Assigned {
            worker: worker_id(row, 3)?,
        },
        _ => Phase::Running {
            worker: worker_id(row, 3)?,
        },
    };
    Ok(LoadedJob {
        namespace: row.get(0)?,
        job: Job {
            phase,
            lease: Lease(uint(row, 4)?),
            attempt: row.get(5)?,
            same_attempt: row.get(6)?,
            repetitions: row.get(7)?,
            uncounted: row.get(8)?,
            cancel_requested: row.get(9)?,
        },
        policy: retry_policy(row.get(10)?, row.get(11)?),
        ended_at: None,
    })
}

fn ended_row(row: &Row<'_>) -> Result<LoadedJob> {
    let phase = Phase::Ended {
        outcome: outcome_from(row, 1)?,
        end: end_from(row, 2)?,
    };
    Ok(LoadedJob {
        namespace: row.get(0)?,
        job: Job {
            phase,
            lease: Lease(uint(row, 6)?),
            attempt: row.get(7)?,
            same_attempt: row.get(8)?,
            repetitions: row.get(9)?,
            uncounted: row.get(10)?,
            cancel_requested: row.get(11)?,
        },
        policy: RetryPolicy::new(0, &[]),
        ended_at: Some(row.get(12)?),
    })
}

/// An end from its four columns: exit code, signal, reason, message.
pub(super) fn end_from(row: &Row<'_>, first: usize) -> Result<End> {
    let word: String = row.get(first + 2)?;
    let reason = Reason::from_word(&word)
        .ok_or_else(|| Error::InvalidColumnType(first + 2, format!("reason {word}"), Type::Text))?;
    Ok(End {
        exit_code: row.get(first)?,
        signal: row.get(first + 1)?,
        reason,
        message: row.get(first + 3)?,
    })
}

/// Writes a job that lives on. `ready_at` of a held job keeps its last value.
pub(super) fn update(connection: &Connection, id: JobId, job: &Job) -> Result<()> {
    let ready_at = match job.phase {
        Phase::Queued { ready_at_ms } => Some(ready_at_ms),
        _ => None,
    };
    let worker = job.holder();
    connection
        .prepare_cached(
            "UPDATE job_live
             SET state = ?2, ready_at = coalesce(?3, ready_at), worker = ?4, lease = ?5, attempt = ?6,
                 same_attempt = ?7, repetitions = ?8, uncounted = ?9, cancel_requested = ?10
             WHERE id = ?1",
        )?
        .execute(params![
            id.as_bytes(),
            state_of(&job.phase),
            ready_at,
            worker.as_ref().map(|worker| worker.as_bytes()),
            int(job.lease.0),
            job.attempt,
            job.same_attempt,
            job.repetitions,
            job.uncounted,
            job.cancel_requested
        ])?;
    Ok(())
}

/// Moves a job that has ended; the shape and the retry policy stay in `job` alone.
pub(super) fn end(
    connection: &Connection,
    id: JobId,
    namespace: &str,
    job: &Job,
    end: &End,
    now_ms: i64,
) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM job_live WHERE id = ?1")?
        .execute([id.as_bytes()])?;
    connection
        .prepare_cached(
            "INSERT INTO job_ended (id, namespace, state, exit_code, signal, reason, message, lease, attempt,
                 same_attempt, repetitions, uncounted, cancel_requested, ended_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            id.as_bytes(),
            namespace,
            state_of(&job.phase),
            end.exit_code,
            end.signal,
            end.reason.as_str(),
            end.message,
            int(job.lease.0),
            job.attempt,
            job.same_attempt,
            job.repetitions,
            job.uncounted,
            job.cancel_requested,
            now_ms
        ])?;
    Ok(())
}
