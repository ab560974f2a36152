//! Plans of the hot queries, a full disk, and failing alone.

use std::collections::BTreeMap;
use std::path::Path;

use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::jobs::{JobChange, NewJob, QueueOutcome};
use hodei_server_application::ports::retention::Expiry;
use hodei_server_domain::job::retry::{RetryOn, RetryPolicy};
use hodei_server_domain::job::spec::{JobSpec, SpecInput};
use hodei_server_domain::job::state::JobEvent;
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::{JobId, Namespace};

use super::core::Core;
use super::op::{Op, Outcome};
use super::{
    events, input, job_rows, jobs, jobs_read, output, output_objects, retention, value, workers, workers_read,
};

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
    let table: [(&str, &str, &[&str], &[&str]); 37] = [
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
        ("oldest output", retention::OLDEST_OUTPUT, &["job_ended_output"], &[]),
        ("oldest job", retention::OLDEST_JOB, &["job_ended_at"], &[]),
        ("old submissions", retention::OLD_SUBMISSIONS, &["submission USING PRIMARY KEY", "submission_at"], &[]),
        ("tails of a job", retention::TAILS_OF_JOB, &["INTEGER PRIMARY KEY", "sqlite_autoindex_output_tail_1"], &[]),
        ("blocks of a job", retention::BLOCKS_OF_JOB, &["output_block USING PRIMARY KEY"], &[]),
        ("old input of a job", retention::INPUT_OF_JOB, &["input_log_source", "sqlite_autoindex_input_part_1"], &[]),
        ("old events of a job", retention::EVENTS_OF_JOB, &["INTEGER PRIMARY KEY", "event_job"], &[]),
        ("job and its attempts", retention::ROWS_OF_JOB[2], &["placement USING PRIMARY KEY"], &[]),
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

/// Jobs that have ended leave the tables of live ones, and nothing of a job outlasts its removal.
#[test]
fn nothing_of_a_removed_job_is_left() {
    let mut core = Core::in_memory().expect("opens");
    let jobs: Vec<NewJob> = (1..=50).map(|n| new_job(n, "x")).collect();
    let cancels = jobs.iter().map(|job| JobChange {
        job: job.id,
        event: JobEvent::Cancel {
            message: "asked".to_owned(),
        },
        from_worker: None,
        finish: None,
    });
    let cancels = Op::Apply(cancels.collect());
    let (first, rows) = (jobs[0].id, |core: &Core| rows_by_table(core));
    core.apply(NOW_MS, &[Op::Queue(jobs), cancels]);
    assert!(!rows(&core).contains_key("job_live"), "{:?}", rows(&core));
    let of_an_attempt = "
        INSERT INTO attempt (job, lease, number) VALUES (?1, 1, 1);
        INSERT INTO placement (job, lease, rank, worker, provider, machine) VALUES (?1, 1, 0, x'00', 'p', 'm');
        INSERT INTO output_log (job, lease, rank, end, lines, messages) VALUES (?1, 1, 0, 2, 0, 2);
        INSERT INTO output_tail (job, lease, rank, start, end, data, runs) VALUES (?1, 1, 0, 0, 1, x'61', '[]');
        INSERT INTO output_block VALUES (?1, 1, 0, 1, 2, ?1, 0, 0, 0, 1);
        INSERT INTO input_log (job, source, end, complete) VALUES (?1, ?1, 1, TRUE);
        INSERT INTO input_part (job, start, data) VALUES (?1, 0, x'61');
        INSERT INTO output_object (id, blocks) VALUES (?1, 1);
        INSERT INTO job_label (namespace, key, value, job) VALUES ('default', 'team', 'a', ?1);
        UPDATE job SET spec = json_set(spec, '$.labels', json('{\"team\":\"a\"}')) WHERE id = ?1";
    for sql in of_an_attempt.split(';') {
        let written = core.connection().execute(sql, [first.as_bytes()]);
        assert_eq!(written.expect(sql), 1);
    }
    let expiry = Expiry::Jobs {
        ended_before_ms: NOW_MS + 1,
    };
    loop {
        match core.apply(NOW_MS, &[Op::Expire(expiry, 7)]).outcomes.as_slice() {
            [Ok(Outcome::Expire(0))] => break,
            [Ok(Outcome::Expire(_))] => {}
            other => panic!("{other:?}"),
        }
    }
    let left = rows(&core);
    let names: Vec<&str> = left.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "event_position",
            "output_object",
            "refinery_schema_history",
            "shape",
            "submission"
        ],
        "{left:?}"
    );
}

/// How many rows there are of each table that has some.
fn rows_by_table(core: &Core) -> BTreeMap<String, i64> {
    let connection = core.connection();
    let mut select = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .expect("valid SQL");
    let names = select.query_map([], |row| row.get::<_, String>(0)).expect("read");
    let count = |name: rusqlite::Result<String>| {
        let name = name.expect("read");
        let sql = format!("SELECT count(*) FROM {name}");
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0)).expect("read");
        (rows > 0).then_some((name, rows))
    };
    names.filter_map(count).collect()
}
