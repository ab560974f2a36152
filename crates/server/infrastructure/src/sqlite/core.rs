//! The synchronous core: one connection, one batch of operations, one transaction.
//!
//! Invariant: an operation is committed whole with its events or not at all. A failing operation fails alone: the
//! group is rolled back and its operations are repeated one by one.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::slice;
use std::time::Duration;

use hodei_server_application::ports::StoreError;
use hodei_server_domain::event::Event;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};

use super::OpenError;
use super::op::{Op, Outcome};

mod embedded {
    refinery::embed_migrations!("src/sqlite/migrations");
}

/// How long a statement waits for another process's lock, such as that of a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const CACHED_STATEMENTS: usize = 128;

/// One connection that writes.
pub(super) struct Core {
    connection: Connection,
}

/// What became of a batch.
pub(super) struct Batch {
    /// One for each operation.
    pub(super) outcomes: Vec<Result<Outcome, StoreError>>,
    /// How many transactions it took.
    pub(super) transactions: u64,
}

impl Core {
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let unusable = |reason: String| OpenError::Unusable {
            path: path.to_owned(),
            reason,
        };
        // Created here, since SQLite gives its side files the mode of the database.
        let created = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path);
        created.map_err(|error| unusable(error.to_string()))?;
        let mut connection = Connection::open(path).map_err(|error| open_error(path, &error))?;
        configure(&connection).map_err(|error| open_error(path, &error))?;
        migrate(path, &mut connection)?;
        Ok(Self { connection })
    }

    pub(super) fn in_memory() -> Result<Self, OpenError> {
        let path = Path::new(":memory:");
        let mut connection = Connection::open_in_memory().map_err(|error| open_error(path, &error))?;
        configure(&connection).map_err(|error| open_error(path, &error))?;
        migrate(path, &mut connection)?;
        Ok(Self { connection })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Applies operations in order and commits them together; one by one if that fails.
    pub(super) fn apply(&mut self, now_ms: i64, ops: &[Op]) -> Batch {
        let mut transactions = 0;
        if ops.len() > 1 {
            transactions += 1;
            match self.transact(now_ms, ops) {
                Ok(outcomes) => {
                    let outcomes = outcomes.into_iter().map(Ok).collect();
                    return Batch {
                        outcomes,
                        transactions,
                    };
                }
                Err(error) => {
                    tracing::debug!(%error, operations = ops.len(), "a group is repeated one by one")
                }
            }
        }
        let mut outcomes = Vec::with_capacity(ops.len());
        for op in ops {
            transactions += 1;
            let outcome = self.transact(now_ms, slice::from_ref(op));
            outcomes.push(
                outcome
                    .map_err(|error| store_error(&error))
                    .and_then(|mut outcomes| {
                        let missing = || StoreError::Internal("an operation got no answer".to_owned());
                        outcomes.pop().ok_or_else(missing)
                    }),
            );
        }
        Batch {
            outcomes,
            transactions,
        }
    }

    fn transact(&mut self, now_ms: i64, ops: &[Op]) -> rusqlite::Result<Vec<Outcome>> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut change = Change {
            connection: &transaction,
            now_ms,
            events: Vec::new(),
        };
        let outcomes = ops
            .iter()
            .map(|op| change.perform(op))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        change.write_events()?;
        transaction.commit()?;
        Ok(outcomes)
    }
}

/// An open transaction and the events that are written at its end.
pub(super) struct Change<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now_ms: i64,
    events: Vec<(String, Event)>,
}

impl Change<'_> {
    fn perform(&mut self, op: &Op) -> rusqlite::Result<Outcome> {
        Ok(match op {
            Op::Queue(jobs) => Outcome::Queue(self.queue(jobs)?),
            Op::Apply(changes) => Outcome::Apply(self.apply(changes)?),
            Op::Append(batches) => Outcome::Append(self.append(batches)?),
            Op::MoveTails(blocks) => Outcome::MoveTails(self.move_tails(blocks)?),
            Op::ForgetObjects(ids) => Outcome::ForgetObjects(self.forget_objects(ids)?),
            Op::Expire(expiry, max_rows) => Outcome::Expire(self.expire(*expiry, *max_rows)?),
            Op::Input(parts) => Outcome::Input(self.append_input(parts)?),
            Op::Events(events) => Outcome::Events(self.append_events(events)?),
            Op::Plan(workers) => Outcome::Plan(self.plan(workers)?),
            Op::ChangeWorkers(changes) => Outcome::ChangeWorkers(self.change_workers(changes)?),
            Op::Redeem(redeem) => Outcome::Redeem(self.redeem(redeem)?),
            Op::Renew(worker, request, candidate) => {
                Outcome::Renew(self.renew(*worker, *request, candidate)?)
            }
            Op::BeginSession(start) => Outcome::BeginSession(self.begin_session(start)?),
            Op::Beat(beats) => Outcome::Beat(self.beat(beats)?),
            Op::CreateToken(token) => Outcome::CreateToken(self.create_first_token(token)?),
            Op::SetDrain(provider, reason) => Outcome::SetDrain(self.set_drain(provider, reason.as_deref())?),
            Op::PutSealed(name, value) => Outcome::PutSealed(self.put_sealed_first(name, value)?),
        })
    }

    /// Remembers an event; it is written with the transaction's last statements.
    pub(super) fn event(&mut self, namespace: &str, event: Event) {
        self.events.push((namespace.to_owned(), event));
    }

    /// Takes the positions in the last statement before the inserts, so that they are gap-free in commit order.
    fn write_events(&mut self) -> rusqlite::Result<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        let count = self.events.len() as i64;
        let last: i64 = self
            .connection
            .prepare_cached("UPDATE event_position SET n = n + ?1 RETURNING n")?
            .query_row([count], |row| row.get(0))?;
        self.insert_events(last - count + 1, &self.events)
    }
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let open = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
        // Plans do not depend on the values that are bound; without this, a statement is compiled again at new ones.
        connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error| open_error(path, &error))
}

/// Runs a query in one read transaction.
pub(super) fn read<T>(
    connection: &Connection,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let run = || {
        let transaction = connection.unchecked_transaction()?;
        let value = query(&transaction)?;
        transaction.commit()?;
        Ok(value)
    };
    run().map_err(|error| store_error(&error))
}

/// Foreign keys are off: rows of a job go together, in the transaction of whoever removes them.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // Plans do not depend on the values that are bound; without this, a statement is compiled again at new ones.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -32 * 1024)
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), OpenError> {
    let runner = embedded::migrations::runner();
    let known = runner
        .get_migrations()
        .iter()
        .map(|m| i64::from(m.version()))
        .max()
        .unwrap_or(0);
    let found = schema_version(connection).map_err(|error| open_error(path, &error))?;
    if found > known {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    runner
        .run(connection)
        .map(|_| ())
        .map_err(|error| OpenError::Damaged {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    let history = "SELECT count(*) FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    let has_history: i64 = connection.query_row(history, [], |row| row.get(0))?;
    if has_history == 0 {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM refinery_schema_history";
    connection.query_row(newest, [], |row| row.get(0))
}

fn open_error(path: &Path, error: &rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, reason },
        _ => OpenError::Unusable { path, reason },
    }
}

/// What a caller hears of an SQL error.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    let extended = error.sqlite_error().map(|e| e.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        // The shared-memory file could not grow.
        Some(ErrorCode::SystemIoFailure) if extended == Some(ffi::SQLITE_IOERR_SHMSIZE) => StoreError::Full,
        Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Unavailable(error.to_string())
        }
        _ => StoreError::Internal(error.to_string()),
    }
}
