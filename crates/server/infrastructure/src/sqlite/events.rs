//! The event log.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::events::{EventBus, EventRecord};
use hodei_server_domain::event::Event;
use hodei_shared::ids::JobId;
use rusqlite::{OptionalExtension, Row, params};
use tokio::sync::watch;

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::value::{count, from_json, int, one, to_json, uint};

/// The most events of one job that are answered.
const EVENTS_OF_A_JOB: i64 = 1_000;

pub(super) const AFTER: &str =
    "SELECT position, at, body FROM event WHERE position > ?1 ORDER BY position LIMIT ?2";
pub(super) const OF_JOB: &str =
    "SELECT position, at, body FROM event WHERE job = ?1 ORDER BY position LIMIT ?2";

impl Change<'_> {
    pub(super) fn append_events(&mut self, events: &[Event]) -> rusqlite::Result<()> {
        for event in events {
            let namespace = self.namespace_of(event)?;
            self.event(&namespace, event.clone());
        }
        Ok(())
    }

    /// Whose event it is; empty for one that belongs to no job and no worker.
    fn namespace_of(&self, event: &Event) -> rusqlite::Result<String> {
        let (sql, id) = match (event.job(), event.worker()) {
            (Some(job), _) => ("SELECT namespace FROM job WHERE id = ?1", *job.as_bytes()),
            (None, Some(worker)) => ("SELECT namespace FROM worker WHERE id = ?1", *worker.as_bytes()),
            (None, None) => return Ok(String::new()),
        };
        let found = self
            .connection
            .prepare_cached(sql)?
            .query_row([id], one)
            .optional()?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn insert_events(&self, first: i64, events: &[(String, Event)]) -> rusqlite::Result<()> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO event (position, at, namespace, kind, job, worker, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for (position, (namespace, event)) in (first..).zip(events) {
            let (job, worker) = (event.job(), event.worker());
            insert.execute(params![
                position,
                self.now_ms,
                namespace,
                event.kind(),
                job.as_ref().map(|job| job.as_bytes()),
                worker.as_ref().map(|worker| worker.as_bytes()),
                to_json(event)?
            ])?;
        }
        Ok(())
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<EventRecord> {
    Ok(EventRecord {
        position: uint(row, 0)?,
        at_ms: row.get(1)?,
        event: from_json(row, 2)?,
    })
}

#[async_trait]
impl EventBus for SqliteStore {
    async fn append(&self, events: Vec<Event>) -> Result<(), StoreError> {
        perform!(self, Op::Events(events), Events)
    }

    async fn after(&self, position: u64, limit: usize) -> Result<Vec<EventRecord>, StoreError> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(AFTER)?;
            select
                .query_map(params![int(position), count(limit)], record)?
                .collect()
        })
        .await
    }

    async fn of_job(&self, job: JobId) -> Result<Vec<EventRecord>, StoreError> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached(OF_JOB)?;
            select
                .query_map(params![job.as_bytes(), EVENTS_OF_A_JOB], record)?
                .collect()
        })
        .await
    }

    fn changes_of(&self, job: JobId) -> watch::Receiver<u64> {
        self.inner.shared.hints.of_job(job)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.shared.hints.all()
    }
}
