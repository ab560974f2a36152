//! What is read of jobs and attempts.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::jobs::{
    AttemptRecord, ChangeOutcome, Claimable, ClaimableLook, FIRST_RANK, Holding, JobChange, JobFilter,
    JobRecord, JobRepository, LiveAttempt, NewJob, OutputCounts, QueueCounts, QueueOutcome,
};
use hodei_server_domain::job::retry::RetryOn;
use hodei_server_domain::job::shape::Shape;
use hodei_server_domain::job::spec::JobSpec;
use hodei_server_domain::job::state::HELD;
use hodei_server_domain::scheduling::snapshot::{QueuedJob, ShapeQueue};
use hodei_shared::ids::{AttemptKey, JobId, Lease, Namespace, WorkerId};
use hodei_shared::resources::Resources;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use super::SqliteStore;
use super::job_rows::{self, end_from};
use super::op::{Op, perform};
use super::value::{
    RUNNING, STATE_WORDS, attempt_outcome_from, count, from_json, job_id, name, one, retry_policy, to_json,
    uint, worker_id,
};

pub(super) const JOB: &str = "SELECT namespace, spec, retry_of, created_at FROM job WHERE id = ?1";
pub(super) const ATTEMPTS: &str = include_str!("sql/attempts.sql");
pub(super) const LIST_LIVE: &str = include_str!("sql/list_live.sql");
pub(super) const LIST_ENDED: &str = include_str!("sql/list_ended.sql");
pub(super) const LIST_LABELLED: &str = include_str!("sql/list_labelled.sql");
pub(super) const NAMESPACES: &str = include_str!("sql/namespaces.sql");
pub(super) const CLAIMABLE_SHAPES: &str = include_str!("sql/claimable_shapes.sql");
pub(super) const CLAIMABLE_HEADS: &str = include_str!("sql/claimable_heads.sql");
pub(super) const NEXT_READY_AT: &str = include_str!("sql/next_ready_at.sql");
pub(super) const HELD_BY: &str = include_str!("sql/held_by.sql");
pub(super) const HOLDINGS: &str = include_str!("sql/holdings.sql");
pub(super) const USED: &str = include_str!("sql/used.sql");
const COUNTS: &str = include_str!("sql/counts.sql");

/// Above every id.
const NO_ID: [u8; 17] = [0xff; 17];

fn job_record(connection: &Connection, id: JobId) -> Result<Option<JobRecord>> {
    let Some(loaded) = job_rows::load(connection, id)? else {
        return Ok(None);
    };
    let mut attempts = connection.prepare_cached(ATTEMPTS)?;
    let attempts = attempts
        .query_map([id.as_bytes()], attempt_record)?
        .collect::<Result<Vec<_>>>()?;
    let mut select = connection.prepare_cached(JOB)?;
    let record = select.query_row([id.as_bytes()], |row| {
        let retry_of: Option<[u8; 16]> = row.get(2)?;
        Ok(JobRecord {
            id,
            namespace: name(row, 0)?,
            spec: from_json(row, 1)?,
            job: loaded.job,
            attempts,
            retry_of: retry_of.map(JobId::from_bytes),
            created_at_ms: row.get(3)?,
            ended_at_ms: loaded.ended_at,
        })
    });
    record.optional()
}

fn attempt_record(row: &Row<'_>) -> Result<AttemptRecord> {
    let outcome: Option<i64> = row.get(7)?;
    let end = match outcome {
        Some(number) => Some((attempt_outcome_from(number, 7)?, end_from(row, 8)?)),
        None => None,
    };
    Ok(AttemptRecord {
        lease: Lease(uint(row, 0)?),
        number: row.get(1)?,
        worker: worker_id(row, 2)?,
        provider: name(row, 3)?,
        machine: row.get(4)?,
        started_at_ms: row.get(5)?,
        ended_at_ms: row.get(6)?,
        end,
        never_started: row.get(12)?,
        output: OutputCounts {
            declared_end: row.get::<_, Option<i64>>(13)?.map(i64::unsigned_abs),
            bytes: uint(row, 14)?,
            lines: uint(row, 15)?,
            messages: uint(row, 16)?,
            truncated: row.get(17)?,
            expired: row.get(18)?,
        },
    })
}

/// The ids of a page, newest first: a few from each index range, merged.
fn listed_ids(connection: &Connection, filter: &JobFilter) -> Result<Vec<JobId>> {
    let namespaces = match &filter.namespace {
        Some(namespace) => BTreeSet::from([namespace.as_str().to_owned()]),
        None => {
            let mut select = connection.prepare_cached(NAMESPACES)?;
            select.query_map([], one)?.collect::<Result<BTreeSet<String>>>()?
        }
    };
    let wanted = |word: &str| filter.states.is_empty() || filter.states.contains(&word);
    let states: Vec<i64> = (0..)
        .zip(STATE_WORDS)
        .filter(|(_, word)| wanted(word))
        .map(|(n, _)| n)
        .collect();
    let before: &[u8] = match &filter.before {
        Some(id) => id.as_bytes(),
        None => &NO_ID,
    };
    let limit = count(filter.limit);
    let mut ids: Vec<JobId> = Vec::new();
    for namespace in &namespaces {
        if let Some((key, value)) = filter.labels.first_key_value() {
            let others = to_json(&filter.labels)?;
            let values = params![namespace, key, value, before, others, to_json(&states)?, limit];
            let mut select = connection.prepare_cached(LIST_LABELLED)?;
            for id in select.query_map(values, |row| job_id(row, 0))? {
                ids.push(id?);
            }
            continue;
        }
        for state in &states {
            let sql = if *state <= RUNNING { LIST_LIVE } else { LIST_ENDED };
            let mut select = connection.prepare_cached(sql)?;
            for id in select.query_map(params![namespace, state, before, limit], |row| job_id(row, 0))? {
                ids.push(id?);
            }
        }
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    ids.truncate(filter.limit);
    Ok(ids)
}

fn list(connection: &Connection, filter: &JobFilter) -> Result<Vec<JobRecord>> {
    let ids = listed_ids(connection, filter)?;
    ids.into_iter()
        .filter_map(|id| job_record(connection, id).transpose())
        .collect()
}

fn claimable(connection: &Connection, now_ms: i64, look: &ClaimableLook) -> Result<Claimable> {
    // One more than asked for tells whether there are more.
    let mut shapes = claimable_shapes(connection, now_ms, None, look.shapes + 1)?;
    let mut next = None;
    if shapes.len() > look.shapes {
        shapes.truncate(look.oldest());
        let oldest = shapes.last().map(|(_, _, head)| *head);
        let after = [look.after, oldest]
            .into_iter()
            .flatten()
            .max_by_key(|head| (head.ready_at_ms, head.id));
        let wanted = look.shapes - look.oldest();
        let mut rest = claimable_shapes(connection, now_ms, after, wanted + 1)?;
        if rest.len() > wanted {
            rest.truncate(wanted);
            next = rest.last().map(|(_, _, head)| *head);
        }
        shapes.append(&mut rest);
    }
    let mut queues = Vec::with_capacity(shapes.len());
    for (id, shape, _) in shapes {
        let mut heads = connection.prepare_cached(CLAIMABLE_HEADS)?;
        let heads = heads.query_map(params![id, now_ms, count(look.per_shape)], |row| {
            Ok(QueuedJob {
                id: job_id(row, 0)?,
                ready_at_ms: row.get(1)?,
            })
        })?;
        let heads = heads.collect::<Result<Vec<_>>>()?;
        if !heads.is_empty() {
            queues.push(ShapeQueue { shape, heads });
        }
    }
    Ok(Claimable { queues, next })
}

/// Shapes with their heads, the oldest head first, from after a head on.
fn claimable_shapes(
    connection: &Connection,
    now_ms: i64,
    after: Option<QueuedJob>,
    limit: usize,
) -> Result<Vec<([u8; 16], Shape, QueuedJob)>> {
    let (ready_at, id) = match &after {
        Some(head) => (head.ready_at_ms, &head.id.as_bytes()[..]),
        None => (i64::MIN, &[][..]),
    };
    let mut select = connection.prepare_cached(CLAIMABLE_SHAPES)?;
    let shapes = select.query_map(params![now_ms, count(limit), ready_at, id], |row| {
        let head = QueuedJob {
            id: job_id(row, 2)?,
            ready_at_ms: row.get(3)?,
        };
        Ok((row.get(0)?, from_json(row, 1)?, head))
    })?;
    shapes.collect()
}

fn live_attempt(row: &Row<'_>) -> Result<LiveAttempt> {
    let state: i64 = row.get(3)?;
    let cancel_requested: bool = row.get(4)?;
    let repetitions: u32 = row.get(5)?;
    let policy = retry_policy(row.get(6)?, row.get(7)?);
    Ok(LiveAttempt {
        key: key(row, 0, 1)?,
        number: row.get(2)?,
        running: state == RUNNING,
        cancel_requested,
        // As `Job::repeatable`, of the columns that it reads.
        repeatable: !cancel_requested && policy.repeats(RetryOn::Lost, repetitions),
    })
}

fn key(row: &Row<'_>, job: usize, lease: usize) -> Result<AttemptKey> {
    Ok(AttemptKey {
        job: job_id(row, job)?,
        lease: Lease(uint(row, lease)?),
        rank: FIRST_RANK,
    })
}

fn counts(connection: &Connection, now_ms: i64) -> Result<QueueCounts> {
    let mut counts = QueueCounts::default();
    let mut select = connection.prepare_cached(COUNTS)?;
    let mut rows = select.query(params![now_ms, HELD])?;
    while let Some(row) = rows.next()? {
        let kind: i64 = row.get(0)?;
        let number = uint(row, 1)?;
        match kind {
            0 => (counts.ready, counts.oldest_ready_at_ms) = (number, row.get(2)?),
            1 => counts.delayed = number,
            2 => counts.held = number,
            3 => counts.assigned = number,
            _ => counts.running = number,
        }
    }
    Ok(counts)
}

fn used(row: &Row<'_>) -> Result<(WorkerId, Resources)> {
    let resources = Resources {
        cpu_millis: uint(row, 1)?,
        memory_bytes: uint(row, 2)?,
    };
    Ok((worker_id(row, 0)?, resources))
}

#[async_trait]
impl JobRepository for SqliteStore {
    async fn queue(&self, jobs: Vec<NewJob>) -> std::result::Result<Vec<QueueOutcome>, StoreError> {
        perform!(self, Op::Queue(jobs), Queue)
    }

    async fn apply(&self, changes: Vec<JobChange>) -> std::result::Result<Vec<ChangeOutcome>, StoreError> {
        perform!(self, Op::Apply(changes), Apply)
    }

    async fn get(&self, id: JobId) -> std::result::Result<Option<JobRecord>, StoreError> {
        self.read(move |connection| job_record(connection, id)).await
    }

    async fn list(&self, filter: JobFilter) -> std::result::Result<Vec<JobRecord>, StoreError> {
        self.read(move |connection| list(connection, &filter)).await
    }

    async fn claimable(&self, look: ClaimableLook) -> std::result::Result<Claimable, StoreError> {
        let now_ms = self.now_ms();
        self.read(move |connection| claimable(connection, now_ms, &look))
            .await
    }

    async fn next_ready_at(&self) -> std::result::Result<Option<i64>, StoreError> {
        let now_ms = self.now_ms();
        self.read(move |connection| {
            connection
                .prepare_cached(NEXT_READY_AT)?
                .query_row([now_ms, HELD], one)
        })
        .await
    }

    async fn held_by(&self, worker: WorkerId) -> std::result::Result<Vec<LiveAttempt>, StoreError> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(HELD_BY)?;
            select.query_map([worker.as_bytes()], live_attempt)?.collect()
        })
        .await
    }

    async fn specs(
        &self,
        jobs: Vec<JobId>,
    ) -> std::result::Result<BTreeMap<JobId, (Namespace, JobSpec)>, StoreError> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(JOB)?;
            let mut specs = BTreeMap::new();
            for id in jobs {
                let found = select.query_row([id.as_bytes()], |row| Ok((name(row, 0)?, from_json(row, 1)?)));
                if let Some(spec) = found.optional()? {
                    specs.insert(id, spec);
                }
            }
            Ok(specs)
        })
        .await
    }

    async fn holdings(&self) -> std::result::Result<Vec<Holding>, StoreError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached(HOLDINGS)?;
            let holdings = select.query_map([], |row| {
                Ok(Holding {
                    worker: worker_id(row, 0)?,
                    key: key(row, 1, 2)?,
                    lost_after_ms: uint(row, 3)?,
                })
            })?;
            holdings.collect()
        })
        .await
    }

    async fn counts(&self) -> std::result::Result<QueueCounts, StoreError> {
        let now_ms = self.now_ms();
        self.read(move |connection| counts(connection, now_ms)).await
    }

    async fn used(&self) -> std::result::Result<BTreeMap<WorkerId, Resources>, StoreError> {
        self.read(|connection| connection.prepare_cached(USED)?.query_map([], used)?.collect())
            .await
    }
}
