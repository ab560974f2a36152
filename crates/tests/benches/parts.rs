//! How fast the parts are that every job passes: planner, codec, store. `cargo bench -p hodei-tests`; compare by
//! ratio within one run, since machines are noisy.
#![forbid(unsafe_code)]
// Criterion's macros make public items without documentation, and fixtures are valid by construction.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use hodei_server_application::ports::jobs::{ClaimableLook, JobRepository, NewJob};
use hodei_server_domain::job::shape::Shape;
use hodei_server_domain::job::spec::{JobSpec, SpecInput};
use hodei_server_domain::provider::{Capabilities, Health, Isolation};
use hodei_server_domain::scheduling::plan::plan;
use hodei_server_domain::scheduling::snapshot::{
    ProviderRoom, QueuedJob, ShapeQueue, Snapshot, WorkerReadiness, WorkerRoom,
};
use hodei_server_infrastructure::sqlite::SqliteStore;
use hodei_server_infrastructure::system::SystemClock;
use hodei_server_interface::grpc::convert;
use hodei_shared::ids::{JobId, Namespace, ProviderId, WorkerId};
use hodei_shared::labels::Labels;
use hodei_shared::offsets::{Piece, Run, Stream};
use hodei_shared::resources::Resources;
use hodei_worker_domain::frame::OutputBatch;
use hodei_worker_infrastructure::link::convert as wire;
use prost::Message as _;

fn job_id(n: u64) -> JobId {
    let mut bytes = [1; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    JobId::from_bytes(bytes)
}

fn spec(n: u64) -> JobSpec {
    JobSpec::new(SpecInput {
        name: format!("job {n}"),
        command: vec!["/bin/sh".into(), "-c".into(), "echo hello; exit 3".into()],
        env: [("LEVEL".to_owned(), "debug".to_owned())].into(),
        cpu_millis: Some(10 + n % 7),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        ..SpecInput::default()
    })
    .unwrap()
}

/// `shapes` shapes with `heads` jobs each, before 100 workers with 16 free slots on 4 providers.
fn snapshot(shapes: u64, heads: u64) -> Snapshot {
    let provider = |n: u64| ProviderRoom {
        id: ProviderId::new(format!("p{n}").as_str()).unwrap(),
        capabilities: Capabilities {
            kind: "process",
            isolation: Isolation::Process,
            images: false,
            labels: Labels::new([("zone".to_owned(), format!("z{n}"))]).unwrap(),
            capacity: Resources {
                cpu_millis: 1 << 40,
                memory_bytes: 1 << 50,
            },
            max_workers: 100,
            slots_per_worker: 16,
        },
        health: Health {
            healthy: true,
            message: String::new(),
        },
        drained: None,
        used: Resources::default(),
        workers: 25,
    };
    let worker = |n: u64| WorkerRoom {
        id: WorkerId::from_bytes(*job_id(n).as_bytes()),
        namespace: Namespace::default_namespace(),
        provider: ProviderId::new(format!("p{}", n % 4).as_str()).unwrap(),
        readiness: WorkerReadiness::Ready,
        free_slots: 16,
    };
    let queue = |shape: u64| ShapeQueue {
        shape: Shape::of(
            &Namespace::default_namespace(),
            &JobSpec::new(SpecInput {
                command: vec!["true".into()],
                cpu_millis: Some(1 + shape),
                ..SpecInput::default()
            })
            .unwrap(),
        ),
        heads: (0..heads)
            .map(|n| QueuedJob {
                id: job_id(shape * heads + n),
                ready_at_ms: (n * shapes + shape) as i64,
            })
            .collect(),
    };
    Snapshot {
        shapes: (0..shapes).map(queue).collect(),
        workers: (0..100).map(worker).collect(),
        providers: (0..4).map(provider).collect(),
    }
}

fn planner(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    for (shapes, heads) in [(1, 1_000), (100, 64), (2_000, 64)] {
        let snapshot = snapshot(shapes, heads);
        group.bench_function(format!("{shapes} shapes of {heads}"), |b| {
            b.iter(|| plan(&snapshot))
        });
    }
    group.finish();
}

fn codec(c: &mut Criterion) {
    let message = convert::spec_message(&spec(1));
    c.bench_function("spec/from the wire", |b| {
        b.iter_batched(
            || message.clone(),
            |message| convert::job_spec(message).unwrap(),
            BatchSize::SmallInput,
        );
    });
    let data: Vec<u8> = b"a line of output of an ordinary length, as a build prints it\n"
        .iter()
        .copied()
        .cycle()
        .take(256 << 10)
        .collect();
    let len = data.len() as u64;
    let run = Run {
        stream: Stream::Stdout,
        len,
        at_ms: 7,
    };
    let key = hodei_shared::ids::AttemptKey {
        job: job_id(1),
        lease: hodei_shared::ids::Lease(1),
        rank: hodei_shared::ids::Rank(0),
    };
    let piece = Piece {
        start: 0,
        data,
        runs: vec![run],
    };
    let batch = OutputBatch { key, piece };
    let mut group = c.benchmark_group("output batch");
    group.throughput(Throughput::Bytes(len));
    group.bench_function("to the wire and back", |b| {
        b.iter_batched(
            || batch.clone(),
            |batch| {
                let bytes = wire::output_batch(batch).encode_to_vec();
                let message = hodei_jobs::v1::OutputBatch::decode(bytes.as_slice()).unwrap();
                convert::frames::output_batch(black_box(message)).unwrap()
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn new_job(n: u64) -> NewJob {
    NewJob {
        id: job_id(n),
        namespace: Namespace::default_namespace(),
        spec: spec(n),
        request_id: format!("r{n}"),
        owner: "token".to_owned(),
        retry_of: None,
    }
}

/// Durable on disk: each figure has its fsyncs in it.
fn store(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("hodei.db"), Arc::new(SystemClock)).unwrap();
    let mut next = 0;
    let mut group = c.benchmark_group("store");
    for callers in [1_u64, 64, 1_000] {
        group.throughput(Throughput::Elements(callers));
        group.bench_function(format!("queue, {callers} callers"), |b| {
            b.iter_batched(
                || {
                    next += callers;
                    (next - callers..next).map(new_job).collect::<Vec<_>>()
                },
                |jobs| {
                    let calls = jobs.into_iter().map(|job| store.queue(vec![job]));
                    runtime.block_on(join_all(calls))
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    let backlog: BTreeMap<&str, usize> = [("1 shape", 1), ("64 shapes", 64)].into();
    let mut group = c.benchmark_group("store with the backlog of before");
    for (name, shapes) in backlog {
        group.bench_function(format!("claimable, {name}"), |b| {
            b.iter(|| {
                runtime
                    .block_on(store.claimable(ClaimableLook {
                        after: None,
                        shapes,
                        per_shape: 64,
                    }))
                    .unwrap()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = parts;
    config = Criterion::default().without_plots().sample_size(20);
    targets = planner, codec, store
}
criterion_main!(parts);
