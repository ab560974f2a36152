//! The planner on small pictures, and its invariants on random ones.

use hodei_shared::labels::Labels;
use proptest::prelude::*;

use super::*;
use crate::job::shape::Shape;
use crate::provider::{Capabilities, Health, Isolation};
use crate::scheduling::snapshot::WorkerRoom;

fn job(n: u8) -> JobId {
    JobId::from_bytes([n; 16])
}

fn worker_id(n: u8) -> WorkerId {
    WorkerId::from_bytes([n; 16])
}

fn cpus(millis: u64) -> Resources {
    Resources {
        cpu_millis: millis,
        memory_bytes: 1 << 20,
    }
}

fn shape(namespace: &str, priority: i32, cpu_millis: u64) -> Shape {
    Shape {
        namespace: Namespace::new(namespace).expect("valid"),
        priority,
        image: None,
        isolation: None,
        resources: cpus(cpu_millis),
        constraints: vec![],
        provider: None,
    }
}

fn queue(shape: Shape, jobs: &[(u8, i64)]) -> ShapeQueue {
    let heads = jobs
        .iter()
        .map(|(n, at)| QueuedJob {
            id: job(*n),
            ready_at_ms: *at,
        })
        .collect();
    ShapeQueue { shape, heads }
}

fn provider(cpu_millis: u64, slots: u32, max_workers: u32) -> ProviderRoom {
    ProviderRoom {
        id: ProviderId::new("local").expect("valid"),
        capabilities: Capabilities {
            kind: "process",
            isolation: Isolation::Process,
            images: false,
            labels: Labels::new([("zone".into(), "a".into())]).expect("valid"),
            capacity: Resources {
                cpu_millis,
                memory_bytes: 1 << 40,
            },
            max_workers,
            slots_per_worker: slots,
        },
        health: Health {
            healthy: true,
            message: String::new(),
        },
        drained: None,
        used: Resources::default(),
        workers: 0,
    }
}

fn worker(n: u8, namespace: &str, readiness: WorkerReadiness, free_slots: u32) -> WorkerRoom {
    WorkerRoom {
        id: worker_id(n),
        namespace: Namespace::new(namespace).expect("valid"),
        provider: ProviderId::new("local").expect("valid"),
        readiness,
        free_slots,
    }
}

fn claims(plan: &Plan) -> Vec<(JobId, WorkerId)> {
    plan.claims.iter().map(|c| (c.job, c.worker)).collect()
}

#[test]
fn a_drained_provider_gets_neither_jobs_nor_workers() {
    let drained = ProviderRoom {
        drained: Some("asked".into()),
        ..provider(8_000, 2, 2)
    };
    let mut snapshot = Snapshot {
        shapes: vec![queue(shape("a", 0, 1_000), &[(1, 0)])],
        workers: vec![],
        providers: vec![drained],
    };
    assert_eq!(plan(&snapshot), Plan::default());
    snapshot.providers[0].drained = None;
    assert_eq!(plan(&snapshot).workers.len(), 1);
}

#[test]
fn priority_goes_first_then_the_older_one() {
    let snapshot = Snapshot {
        shapes: vec![
            queue(shape("default", 0, 1_000), &[(1, 10), (2, 20)]),
            queue(shape("default", 5, 1_000), &[(3, 30)]),
        ],
        workers: vec![worker(9, "default", WorkerReadiness::Ready, 2)],
        providers: vec![provider(8_000, 2, 1)],
    };
    assert_eq!(
        claims(&plan(&snapshot)),
        [(job(3), worker_id(9)), (job(1), worker_id(9))]
    );
}

#[test]
fn one_worker_is_asked_for_while_its_slots_cover_the_backlog() {
    let snapshot = Snapshot {
        shapes: vec![queue(shape("default", 0, 1_000), &[(1, 1), (2, 2), (3, 3)])],
        workers: vec![],
        providers: vec![provider(8_000, 2, 5)],
    };
    let first = plan(&snapshot);
    assert_eq!((first.claims.len(), first.workers.len()), (0, 2));
    let coming = vec![
        worker(1, "default", WorkerReadiness::Coming, 2),
        worker(2, "default", WorkerReadiness::Coming, 2),
    ];
    assert_eq!(
        plan(&Snapshot {
            workers: coming,
            ..snapshot
        }),
        Plan::default()
    );
}

#[test]
fn nothing_is_made_for_a_job_that_can_not_run_or_by_an_unhealthy_provider() {
    let mut impossible = shape("default", 0, 1_000);
    impossible.constraints = vec!["gpu exists".parse().expect("valid")];
    let mut sick = provider(8_000, 2, 5);
    let base = Snapshot {
        shapes: vec![queue(impossible, &[(1, 1)])],
        workers: vec![worker(9, "default", WorkerReadiness::Ready, 1)],
        providers: vec![sick.clone()],
    };
    assert_eq!(plan(&base), Plan::default());
    sick.health.healthy = false;
    let snapshot = Snapshot {
        shapes: vec![queue(shape("default", 0, 1_000), &[(1, 1)])],
        workers: vec![],
        providers: vec![sick],
    };
    assert_eq!(plan(&snapshot), Plan::default());
}

#[test]
fn a_large_job_does_not_stop_smaller_ones_behind_it() {
    let snapshot = Snapshot {
        shapes: vec![
            queue(shape("default", 0, 6_000), &[(1, 1)]),
            queue(shape("default", 0, 1_000), &[(2, 2)]),
        ],
        workers: vec![worker(9, "default", WorkerReadiness::Ready, 4)],
        providers: vec![ProviderRoom {
            used: cpus(4_000),
            ..provider(8_000, 4, 1)
        }],
    };
    assert_eq!(claims(&plan(&snapshot)), [(job(2), worker_id(9))]);
}

#[test]
fn filters_name_both_sides() {
    let room = provider(2_000, 1, 1);
    let verdict = judge(&shape("default", 0, 3_000), &room);
    let Verdict::RuledOut { by, message } = verdict else {
        panic!("fits")
    };
    assert_eq!(
        (by, message.as_str()),
        ("cpus", "the job needs 3 cpus, the provider has 2")
    );
    let floor = Shape {
        isolation: Some(Isolation::MicroVm),
        ..shape("default", 0, 1)
    };
    assert!(matches!(
        judge(&floor, &room),
        Verdict::RuledOut { by: "isolation", .. }
    ));
    let image = Shape {
        image: Some("busybox".into()),
        ..shape("default", 0, 1)
    };
    assert!(matches!(
        judge(&image, &room),
        Verdict::RuledOut { by: "image", .. }
    ));
}

proptest! {
    #[test]
    fn plans_keep_their_invariants(
        shapes in prop::collection::vec((0_u8..2, -2_i32..3, 1_u64..4, 1_usize..6), 0..6),
        workers in prop::collection::vec((0_u8..2, 0_u8..3, 0_u32..4), 0..5),
        capacity in 0_u64..12, used in 0_u64..6, max_workers in 0_u32..6,
    ) {
        let names = ["a", "b"];
        let mut n = 0;
        let shapes: Vec<ShapeQueue> = shapes.into_iter().map(|(ns, priority, cpu, count)| {
            let jobs: Vec<(u8, i64)> = (0..count).map(|_| { n += 1; (n, i64::from(n)) }).collect();
            queue(shape(names[usize::from(ns)], priority, cpu * 1_000), &jobs)
        }).collect();
        let readiness = [WorkerReadiness::Ready, WorkerReadiness::Coming, WorkerReadiness::Draining];
        let workers: Vec<WorkerRoom> = workers.into_iter().enumerate().map(|(i, (ns, state, slots))| {
            worker(i as u8, names[usize::from(ns)], readiness[usize::from(state)], slots)
        }).collect();
        let room = ProviderRoom { used: cpus(used * 1_000), workers: workers.len() as u32, ..provider(capacity * 1_000, 2, max_workers) };
        let snapshot = Snapshot { shapes, workers, providers: vec![room] };
        let made = plan(&snapshot);
        prop_assert_eq!(&made, &plan(&snapshot), "deterministic");

        let shape_of = |id: JobId| snapshot.shapes.iter().find(|q| q.heads.iter().any(|h| h.id == id)).expect("known");
        let mut seen = std::collections::BTreeSet::new();
        let mut taken = 0;
        for claim in &made.claims {
            prop_assert!(seen.insert(claim.job), "claimed once");
            let worker = snapshot.workers.iter().find(|w| w.id == claim.worker).expect("known");
            prop_assert_eq!(worker.readiness, WorkerReadiness::Ready);
            prop_assert_eq!(&worker.namespace, &shape_of(claim.job).shape.namespace);
            taken += shape_of(claim.job).shape.resources.cpu_millis;
        }
        let free = (capacity * 1_000).saturating_sub(used * 1_000);
        prop_assert!(taken <= free, "never over capacity");
        for worker in &snapshot.workers {
            let given = made.claims.iter().filter(|c| c.worker == worker.id).count();
            prop_assert!(given as u32 <= worker.free_slots);
        }
        prop_assert!(made.workers.len() as u32 <= max_workers.saturating_sub(snapshot.workers.len() as u32));
        // Work-conserving: a job that is left would not fit what is left beside it, if a slot is free.
        if made.workers.is_empty() {
            for queue in &snapshot.shapes {
                let slot = snapshot.workers.iter().any(|w| {
                    let given = made.claims.iter().filter(|c| c.worker == w.id).count() as u32;
                    w.readiness == WorkerReadiness::Ready && w.namespace == queue.shape.namespace && w.free_slots > given
                });
                let left = queue.heads.iter().any(|h| !seen.contains(&h.id));
                let coming = snapshot.workers.iter().any(|w| w.readiness == WorkerReadiness::Coming);
                prop_assert!(!(left && slot && !coming) || queue.shape.resources.cpu_millis > free - taken);
            }
        }
    }
}
