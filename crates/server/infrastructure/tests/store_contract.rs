//! The contract of the stores on each of them, and what is true of the one on disk alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hodei_server_application::ports::events::EventBus;
use hodei_server_application::ports::jobs::{ChangeOutcome, JobChange, JobRepository, NewJob, QueueOutcome};
use hodei_server_application::ports::sealed::SealedStore;
use hodei_server_application::ports::{Clock, Rng, StoreError};
use hodei_server_application::testing::clock::ManualClock;
use hodei_server_application::testing::contract::Fixture;
use hodei_server_application::testing::fake::FakeStore;
use hodei_server_application::testing::objects::MemoryObjects;
use hodei_server_application::testing::rng::SeededRng;
use hodei_server_domain::job::spec::{JobSpec, SpecInput};
use hodei_server_domain::job::state::JobEvent;
use hodei_server_infrastructure::output_store::FileObjects;
use hodei_server_infrastructure::sqlite::{OpenError, SqliteStore};
use hodei_shared::ids::{JobId, Namespace};
use tempfile::TempDir;

const NOW_MS: i64 = 1_800_000_000_000;

fn clock() -> Arc<ManualClock> {
    ManualClock::at(NOW_MS)
}

mod fake {
    use super::*;

    fn fixture() -> Fixture {
        let clock = clock();
        Fixture::new(FakeStore::new(clock.clone()), clock)
    }

    hodei_server_application::store_contract!(fixture);
}

mod inline {
    use super::*;

    fn fixture() -> Fixture {
        let clock = clock();
        Fixture::new(SqliteStore::inline(clock.clone()), clock)
    }

    hodei_server_application::store_contract!(fixture);
}

mod on_disk {
    use super::*;

    fn fixture() -> Fixture {
        let (folder, clock) = (folder(), clock());
        let store = open(&folder, clock.clone());
        let objects = FileObjects::open(&folder.path().join("output")).expect("the folder is made");
        Fixture::new(store, clock).with_objects(objects).keeping(folder)
    }

    hodei_server_application::store_contract!(fixture);
}

mod objects_in_memory {
    use super::*;

    fn place() -> (MemoryObjects, ()) {
        (MemoryObjects::default(), ())
    }

    hodei_server_application::objects_contract!(place);
}

mod objects_in_files {
    use super::*;

    fn place() -> (FileObjects, TempDir) {
        let folder = folder();
        let objects = FileObjects::open(&folder.path().join("output")).expect("the folder is made");
        (objects, folder)
    }

    hodei_server_application::objects_contract!(place);
}

#[tokio::test]
async fn the_fake_fails_once_when_told() {
    let store = FakeStore::new(clock());
    store.fail_next(StoreError::Full);
    assert_eq!(store.queue(vec![new_job(1)]).await, Err(StoreError::Full));
    assert_eq!(store.after(0, 9).await.expect("read"), [], "nothing was stored");
    assert!(store.queue(vec![new_job(1)]).await.is_ok());
    store.sanity_check();
}

#[tokio::test]
async fn sleepers_wake_when_the_clock_is_turned() {
    let clock = clock();
    let mut sleep = clock.sleep(Duration::from_secs(5));
    clock.set_wall(NOW_MS + 60_000);
    clock.advance(Duration::from_millis(4_999));
    assert!(futures::poll!(&mut sleep).is_pending(), "the wall wakes nobody");
    clock.advance(Duration::from_millis(1));
    assert!(futures::poll!(&mut sleep).is_ready());
    assert_eq!(clock.now_ms(), NOW_MS + 65_000);
}

#[test]
fn a_seed_gives_the_same_bytes() {
    let bytes = |seed| {
        let (rng, mut bytes) = (SeededRng::new(seed), [0; 21]);
        rng.fill(&mut bytes);
        (bytes, rng.below(1 << 40))
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn open(folder: &TempDir, clock: Arc<dyn Clock>) -> SqliteStore {
    SqliteStore::open(&folder.path().join("hodei.db"), clock).expect("the store opens")
}

fn new_job(n: u32) -> NewJob {
    let mut bytes = [1; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    let input = SpecInput {
        command: vec!["true".to_owned()],
        ..SpecInput::default()
    };
    NewJob {
        id: JobId::from_bytes(bytes),
        namespace: Namespace::default_namespace(),
        spec: JobSpec::new(input).expect("a valid spec"),
        request_id: format!("r{n}"),
        owner: "token".to_owned(),
        retry_of: None,
    }
}

fn cancel(job: JobId) -> JobChange {
    JobChange {
        job,
        event: JobEvent::Cancel {
            message: "asked".to_owned(),
        },
        from_worker: None,
        finish: None,
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_restart() {
    let folder = folder();
    let store = open(&folder, clock());
    for n in 1..=20 {
        assert_eq!(
            store.queue(vec![new_job(n)]).await.expect("stored"),
            [QueueOutcome::Queued(new_job(n).id)]
        );
    }
    store.apply(vec![cancel(new_job(3).id)]).await.expect("stored");
    store.put_sealed_first("ca", vec![1]).await.expect("stored");
    // A copy of the files as a kill at this moment leaves them: the log is not written back.
    let killed = tempfile::tempdir().expect("a temporary folder");
    for name in ["hodei.db", "hodei.db-wal"] {
        std::fs::copy(folder.path().join(name), killed.path().join(name)).expect("the file is there");
    }
    let events = store.after(0, 100).await.expect("read");
    drop(store);

    for folder in [folder, killed] {
        let store = open(&folder, clock());
        assert_eq!(store.after(0, 100).await.expect("read"), events);
        assert!(
            JobRepository::get(&store, new_job(3).id)
                .await
                .expect("read")
                .is_some_and(|job| job.job.is_ended())
        );
        assert_eq!(
            store.queue(vec![new_job(7)]).await.expect("stored"),
            [QueueOutcome::Same(new_job(7).id)]
        );
        assert_eq!(store.get_sealed("ca").await.expect("read"), Some(vec![1]));
    }
}

#[tokio::test]
async fn a_dropped_call_leaves_the_store_whole() {
    let folder = folder();
    let store = open(&folder, clock());
    for n in 1..=50 {
        // Polled once, so that it is under way, and then dropped.
        let mut call = store.queue(vec![new_job(n)]);
        let _ = futures::poll!(&mut call);
    }
    assert_eq!(store.queue(vec![new_job(51)]).await.expect("stored").len(), 1);
    let events = store.after(0, 100).await.expect("read");
    assert_eq!(
        events.len(),
        51,
        "what reached the writer was committed, in order"
    );
}

#[test]
fn a_newer_store_is_refused() {
    let folder = folder();
    drop(open(&folder, clock()));
    let path = folder.path().join("hodei.db");
    let connection = rusqlite::Connection::open(&path).expect("opens");
    connection
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             VALUES (999, 'future', '2030-01-01T00:00:00Z', '1')",
            [],
        )
        .expect("written");
    drop(connection);
    let error = SqliteStore::open(&path, clock()).expect_err("it is newer");
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 999,
                known: 8,
                ..
            }
        ),
        "{error:?}"
    );
    assert_says(&error, &path, "newer server");
}

#[test]
fn a_damaged_store_is_refused() {
    let folder = folder();
    let path = folder.path().join("hodei.db");
    std::fs::write(&path, b"this is no database at all. ".repeat(500)).expect("written");
    let error = SqliteStore::open(&path, clock()).expect_err("it is damaged");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert_says(&error, &path, "backup");
    let absent = folder.path().join("absent/hodei.db");
    let error = SqliteStore::open(&absent, clock()).expect_err("there is no folder");
    assert!(matches!(error, OpenError::Unusable { .. }), "{error:?}");
    assert_says(&error, &absent, "folder");
}

fn assert_says(error: &OpenError, path: &Path, word: &str) {
    let text = error.to_string();
    assert!(
        text.contains(&path.display().to_string()) && text.contains(word),
        "{text}"
    );
}

#[cfg(unix)]
#[test]
fn others_can_not_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let _store = open(&folder, clock());
    for name in ["hodei.db", "hodei.db-wal"] {
        let mode = std::fs::metadata(folder.path().join(name))
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_share_transactions() {
    const CALLS: u32 = 1_000;
    let folder = folder();
    let store = open(&folder, clock());
    let before = store.stats();
    let queued = join_all((1..=CALLS).map(|n| store.queue(vec![new_job(n)]))).await;
    assert!(
        queued
            .iter()
            .all(|outcome| matches!(outcome.as_deref(), Ok([QueueOutcome::Queued(_)])))
    );
    let cancelled = join_all((1..=CALLS).map(|n| store.apply(vec![cancel(new_job(n).id)]))).await;
    assert!(
        cancelled
            .iter()
            .all(|outcome| matches!(outcome.as_deref(), Ok([ChangeOutcome::Applied(_)])))
    );
    let after = store.stats();
    assert_eq!(after.operations - before.operations, u64::from(2 * CALLS));
    let transactions = after.transactions - before.transactions;
    assert!(
        transactions <= u64::from(2 * CALLS) / 10,
        "{transactions} transactions"
    );
    let positions: Vec<u64> = store
        .after(0, 10_000)
        .await
        .expect("read")
        .iter()
        .map(|e| e.position)
        .collect();
    assert_eq!(positions, (1..=u64::from(2 * CALLS)).collect::<Vec<_>>());
}
