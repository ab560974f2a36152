//! Plans of the hot queries, a full disk, and failing alone.

use std::path::Path;

use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::jobs::{NewJob, QueueOutcome};
use hodei_server_domain::job::retry::{RetryOn, RetryPolicy};
use hodei_server_domain::job::spec::{JobSpec, SpecInput};
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{JobId, Namespace};

use super::core::Core;
use super::op::{Op, Outcome};
use super::{events, input, job_rows, jobs, jobs_read, output, output_objects, value, workers, workers_read};

const NOW_MS: i64 = 1_800_000_000_000;

fn new_job(n: u32, script: &str) -> NewJob {
    let mut bytes = [1; 16];
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    let input = SpecInput {
        script: script.to_owned(),
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

fn queue(n: u32, script: &str) -> Op {
    Op::Queue(vec![new_job(n, script)])
}

fn plan(core: &Core, sql: &str) -> Vec<String> {
    let mut explain = core
        .connection()
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .expect("valid SQL");
    let parameters = explain.parameter_count();
    let values = vec![rusqlite::types::Null; parameters];
    let steps = explain
        .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
        .expect("explained");
    steps.collect::<rusqlite::Result<_>>().expect("explained")
}

/// A table is never read from end to end, and nothing is sorted that an index has in order.
#[test]
fn hot_queries_use_their_indexes() {
    let core = Core::in_memory().expect("opens");
    #[rustfmt::skip]
    let table: [(&str, &str, &[&str], &[&str]); 29] = [
        // name, query, what must be used, which scans are its purpose
        ("live job", job_rows::LOAD_LIVE, &["job_live USING PRIMARY KEY"], &[]),
        ("ended job", job_rows::LOAD_ENDED, &["job_ended USING PRIMARY KEY"], &[]),
        ("job", jobs_read::JOB, &["sqlite_autoindex_job_1"], &[]),
        ("attempts", jobs_read::ATTEMPTS, &["attempt USING PRIMARY KEY", "placement USING PRIMARY KEY"], &[]),
        ("live list", jobs_read::LIST_LIVE, &["job_live_list"], &[]),
        ("ended list", jobs_read::LIST_ENDED, &["job_ended_list"], &[]),
        ("labelled list", jobs_read::LIST_LABELLED, &["driver USING PRIMARY KEY"], &["SCAN wanted", "SCAN json_each"]),
        ("namespaces", jobs_read::NAMESPACES, &["job_live_list", "job_ended_list"], &["SCAN live", "SCAN ended"]),
        ("claimable shapes", jobs_read::CLAIMABLE_SHAPES, &["job_live_claimable", "shape USING PRIMARY KEY"], &["SCAN shapes"]),
        ("claimable heads", jobs_read::CLAIMABLE_HEADS, &["job_live_claimable"], &[]),
        ("next ready", jobs_read::NEXT_READY_AT, &["job_live_ready"], &[]),
        ("held by", jobs_read::HELD_BY, &["job_live_held"], &[]),
        ("holdings", jobs_read::HOLDINGS, &["job_live_held"], &["SCAN job_live USING COVERING INDEX job_live_held"]),
        ("used", jobs_read::USED, &["job_live_held"], &["SCAN job_live USING INDEX job_live_held"]),
        ("input state", input::STATE, &["input_log USING PRIMARY KEY", "job_live USING PRIMARY KEY"], &[]),
        ("input read", input::READ, &["input_part USING INDEX sqlite_autoindex_input_part_1"], &[]),
        ("take slot", jobs::TAKE_SLOT, &["worker USING PRIMARY KEY"], &[]),
        ("begin session", workers::BEGIN_SESSION, &["worker USING PRIMARY KEY"], &[]),
        ("beat", workers::BEAT, &["worker USING PRIMARY KEY"], &[]),
        ("live workers", workers_read::LIVE, &["worker_live"], &["SCAN worker USING INDEX worker_live"]),
        ("identity", workers_read::IDENTITY, &["identity USING PRIMARY KEY"], &[]),
        ("events", events::AFTER, &["INTEGER PRIMARY KEY"], &[]),
        ("events of a job", events::OF_JOB, &["event_job"], &[]),
        ("output", output::READ, &["sqlite_autoindex_output_tail_1"], &[]),
        ("output in blocks", output::READ_BLOCKS, &["output_block USING PRIMARY KEY"], &[]),
        ("large tails", output_objects::LARGE_TAILS, &["output_log_tail", "attempt USING PRIMARY KEY"], &[]),
        ("tail", output_objects::TAIL, &["sqlite_autoindex_output_tail_1"], &[]),
        ("tail range", output_objects::TAIL_RANGE, &["sqlite_autoindex_output_tail_1"], &[]),
        ("unused objects", output_objects::UNUSED, &["output_object_unused"], &["SCAN output_object USING COVERING INDEX output_object_unused"]),
    ];
    for (name, sql, used, scans) in table {
        let steps = plan(&core, sql);
        let text = steps.join("\n");
        for step in &steps {
            let scan = step.starts_with("SCAN") && *step != "SCAN CONSTANT ROW";
            assert!(
                !scan || scans.iter().any(|s| step.starts_with(s)),
                "{name} scans:\n{text}"
            );
        }
        for index in used {
            assert!(text.contains(index), "{name} does not use {index}:\n{text}");
        }
        let sorts = name == "claimable shapes" || name == "used";
        assert!(sorts || !text.contains("FOR ORDER BY"), "{name} sorts:\n{text}");
    }
    let steps = plan(&core, output::STATE).join("\n");
    assert!(!steps.contains("SCAN"), "{steps}");
    let steps = plan(&core, workers_read::NEWEST).join("\n");
    assert!(!steps.contains("TEMP B-TREE"), "{steps}");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut core = Core::open(&folder.path().join("hodei.db")).expect("opens");
    let first = core.apply(NOW_MS, &[queue(1, "first")]);
    assert!(matches!(first.outcomes.as_slice(), [Ok(Outcome::Queue(_))]));
    let pages: i64 = core
        .connection()
        .query_row("PRAGMA page_count", [], |row| row.get(0))
        .expect("read");
    limit_pages(&core, pages + 2);

    let big = "x".repeat(100_000);
    let batch = core.apply(NOW_MS, &[queue(2, &big), queue(3, "small"), queue(4, &big)]);
    let [
        Err(StoreError::Full),
        Ok(Outcome::Queue(small)),
        Err(StoreError::Full),
    ] = batch.outcomes.as_slice()
    else {
        panic!("{:?}", batch.outcomes);
    };
    assert_eq!(
        small,
        &[QueueOutcome::Queued(new_job(3, "small").id)],
        "what fits is stored"
    );
    assert_eq!(positions(&core), [1, 2], "a refused operation takes no position");

    limit_pages(&core, 1 << 30);
    let again = core.apply(NOW_MS, &[queue(2, &big), queue(4, &big)]);
    assert!(
        again.outcomes.iter().all(Result::is_ok),
        "there is room again: {:?}",
        again.outcomes
    );
    assert_eq!(again.transactions, 1);
    assert_eq!(positions(&core), [1, 2, 3, 4]);
}

fn limit_pages(core: &Core, pages: i64) {
    let sql = format!("PRAGMA max_page_count = {pages}");
    let limit: i64 = core
        .connection()
        .query_row(&sql, [], |row| row.get(0))
        .expect("limited");
    assert!(limit <= pages);
}

fn positions(core: &Core) -> Vec<i64> {
    let mut select = core
        .connection()
        .prepare("SELECT position FROM event ORDER BY position")
        .expect("valid SQL");
    let positions = select.query_map([], |row| row.get(0)).expect("read");
    positions.collect::<rusqlite::Result<_>>().expect("read")
}

#[test]
fn only_the_guilty_operation_fails() {
    let mut core = Core::in_memory().expect("opens");
    let mut same_id = new_job(1, "other");
    same_id.request_id = "other".to_owned();
    let batch = core.apply(
        NOW_MS,
        &[
            queue(1, "a"),
            Op::Queue(vec![new_job(2, "b"), same_id]),
            queue(3, "c"),
        ],
    );
    let [Ok(_), Err(StoreError::Internal(_)), Ok(_)] = batch.outcomes.as_slice() else {
        panic!("{:?}", batch.outcomes);
    };
    assert_eq!(batch.transactions, 4, "the group, then one by one");
    assert_eq!(positions(&core), [1, 2]);
    let jobs: i64 = core
        .connection()
        .query_row("SELECT count(*) FROM job", [], |row| row.get(0))
        .expect("read");
    assert_eq!(jobs, 2, "a failing call stores none of its jobs");
}

#[test]
fn durability_is_configured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let core = Core::open(&folder.path().join("hodei.db")).expect("opens");
    let pragma = |name: &str| -> String {
        let value = core
            .connection()
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
        format!("{:?}", value.expect("read"))
    };
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
    assert_eq!(pragma("synchronous"), "Integer(2)");
    let reader = super::core::open_reader(&folder.path().join("hodei.db")).expect("opens");
    assert!(
        reader.execute("DELETE FROM job", []).is_err(),
        "readers only read"
    );
    assert!(Core::open(Path::new("/")).is_err());
}

#[test]
fn numbers_in_columns_never_change_their_meaning() {
    use hodei_server_domain::job::end::{AttemptOutcome, End, Outcome as Ended, Reason};
    use hodei_server_domain::job::state::Phase;
    let ended = |outcome| {
        value::state_of(&Phase::Ended {
            outcome,
            end: End::new(Reason::Lost, ""),
        })
    };
    let states = [Ended::Succeeded, Ended::Failed, Ended::Cancelled, Ended::TimedOut].map(ended);
    assert_eq!(states, [3, 4, 5, 6]);
    assert_eq!(
        value::STATE_WORDS[3..],
        ["succeeded", "failed", "cancelled", "timed_out"]
    );
    assert_eq!(value::phase_number(WorkerPhase::Ready), 2);
    assert_eq!(value::phase_number(WorkerPhase::Draining), 3);
    assert_eq!(value::phase_number(WorkerPhase::Gone), 4);
    assert_eq!(value::attempt_outcome_number(AttemptOutcome::Lost), 4);
    for on in [
        &[][..],
        &[RetryOn::Lost],
        &[RetryOn::Exit, RetryOn::Provider],
        &[RetryOn::Oom],
    ] {
        let policy = RetryPolicy::new(3, on);
        assert_eq!(value::retry_policy(3, value::retry_bits(&policy)), policy);
    }
}
