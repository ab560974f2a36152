//! The life of a worker and its sessions.

use hodei_server_domain::event::Event;
use hodei_server_domain::worker::phase::WorkerPhase;

use super::Fixture;
use super::kit::*;
use crate::ports::jobs::ChangeOutcome;
use crate::ports::workers::{BeatRecord, RedeemOutcome, SessionOutcome, WorkerChange};

/// Planned, starting, ready, draining, gone: each with its time and its event.
pub async fn life_of_a_worker(store: Fixture) {
    let worker = store.planned(1, 2).await;
    let record = store.worker(worker).await;
    assert_eq!(
        (record.phase, record.slots, record.first_job),
        (WorkerPhase::Planned, 2, job_id(1))
    );
    assert_eq!(
        (record.created_at_ms, record.phase_since_ms),
        (store.now(), store.now())
    );
    store.planned(1, 5).await;
    assert_eq!(store.worker(worker).await, record, "planned once");

    store.advance_ms(5);
    let creating = |otp: &str| WorkerChange::Creating {
        worker,
        otp_id: otp.into(),
        secret_hash: [1; 32],
    };
    assert!(store.change(creating("otp1")).await);
    assert!(
        !store.change(creating("other")).await,
        "its machine is asked for once"
    );
    assert_eq!(store.workers.otp("other").await.expect("read"), None);
    let (owner, otp) = store
        .workers
        .otp("otp1")
        .await
        .expect("read")
        .expect("there is one");
    assert_eq!((owner, otp.secret_hash, otp.armed_at_ms), (worker, [1; 32], None));
    assert_eq!(store.worker(worker).await.phase_since_ms, store.now());

    let started = WorkerChange::Started {
        worker,
        machine: "m".into(),
    };
    assert!(store.change(started.clone()).await);
    let armed_at = store.now();
    store.advance_ms(5);
    assert!(!store.change(started).await, "armed once");
    let (_, otp) = store
        .workers
        .otp("otp1")
        .await
        .expect("read")
        .expect("there is one");
    assert_eq!(otp.armed_at_ms, Some(armed_at));
    assert_eq!(store.worker(worker).await.machine, "m");
    assert_eq!(store.workers.identity(worker).await.expect("read"), None);

    assert!(matches!(store.redeem(1, 1, true).await, RedeemOutcome::Issued(_)));
    assert_eq!(store.begin(worker, 1, 3).await, SessionOutcome::Began(1));
    let record = store.worker(worker).await;
    assert_eq!(
        (record.phase, record.session, record.slots, record.room),
        (WorkerPhase::Ready, 1, 2, ROOM)
    );
    assert_eq!(
        (record.enforced.as_slice(), record.idle_since_ms),
        (&["memory".to_owned()][..], store.now())
    );
    let drain = WorkerChange::Drain {
        worker,
        message: "leaves".into(),
        only_idle: false,
    };
    assert!(store.change(drain).await);
    assert_eq!(store.worker(worker).await.message, "leaves");
    store.advance_ms(5);
    assert!(
        store
            .change(WorkerChange::Gone {
                worker,
                message: "ended".into()
            })
            .await
    );
    let record = store.worker(worker).await;
    assert_eq!(
        (record.phase, record.ended_at_ms),
        (WorkerPhase::Gone, Some(store.now()))
    );
    assert_eq!((record.message.as_str(), record.machine.as_str()), ("ended", "m"));
    let kinds = [
        "WorkerPlanned",
        "WorkerRegistered",
        "WorkerConnected",
        "WorkerDraining",
        "WorkerGone",
    ];
    assert_eq!(store.kinds().await, kinds);

    let second = store.planned(2, 1).await;
    let ids =
        |records: Vec<crate::ports::workers::WorkerRecord>| records.iter().map(|r| r.id).collect::<Vec<_>>();
    let third = store.planned(3, 1).await;
    assert_eq!(ids(store.workers.live().await.expect("read")), [second, third]);
    assert_eq!(ids(store.workers.list(2).await.expect("read")), [third, second]);
    assert_eq!(
        ids(store.workers.list(9).await.expect("read")),
        [third, second, worker]
    );
    assert_eq!(store.workers.get(worker_id(9)).await.expect("read"), None);
    let unknown = WorkerChange::Gone {
        worker: worker_id(9),
        message: String::new(),
    };
    assert!(!store.change(unknown).await);
}

/// A newer session fences the older one's beats; only a known certificate of a worker that is there begins one.
pub async fn sessions(store: Fixture) {
    let worker = store.registered(1, 1).await;
    let beat = |session, beat| BeatRecord {
        worker,
        session,
        beat,
    };
    assert_eq!(store.begin(worker, 1, 1).await, SessionOutcome::Began(1));
    assert_eq!(
        store
            .workers
            .beat(vec![beat(1, 1), beat(1, 2)])
            .await
            .expect("stored"),
        [true, true]
    );
    assert_eq!(store.worker(worker).await.beat, 2);
    assert_eq!(store.begin(worker, 1, 1).await, SessionOutcome::Began(2));
    assert_eq!(store.worker(worker).await.beat, 0);
    assert_eq!(
        store
            .workers
            .beat(vec![beat(1, 3), beat(2, 1)])
            .await
            .expect("stored"),
        [false, true]
    );
    let record = store.worker(worker).await;
    assert_eq!((record.session, record.beat), (2, 1));

    assert_eq!(
        store.begin(worker, 2, 1).await,
        SessionOutcome::Refused,
        "a generation that never was"
    );
    assert_eq!(store.begin(worker_id(9), 1, 1).await, SessionOutcome::Refused);
    let starting = store.starting(2, 1).await;
    assert_eq!(
        store.begin(starting, 1, 1).await,
        SessionOutcome::Refused,
        "it has no identity"
    );
    let events = store.all_events().await;
    let connected = |e: &&Event| matches!(e, Event::WorkerConnected { .. });
    assert_eq!(events.iter().filter(connected).count(), 2);

    assert!(
        store
            .change(WorkerChange::Drain {
                worker,
                message: "d".into(),
                only_idle: true
            })
            .await
    );
    assert_eq!(
        store.begin(worker, 1, 1).await,
        SessionOutcome::Began(3),
        "a draining worker comes back"
    );
    assert!(
        store
            .change(WorkerChange::Gone {
                worker,
                message: "g".into()
            })
            .await
    );
    assert_eq!(store.begin(worker, 1, 1).await, SessionOutcome::Refused);
    assert_eq!(
        store.workers.beat(vec![beat(3, 1)]).await.expect("stored"),
        [false]
    );
}

/// Scale-down spares a worker that has just taken a job.
pub async fn draining(store: Fixture) {
    let worker = store.ready(1, 1).await;
    let job = store.running(1, worker).await;
    let drain = |only_idle| WorkerChange::Drain {
        worker,
        message: "idle".into(),
        only_idle,
    };
    assert!(!store.change(drain(true)).await);
    assert_eq!(store.worker(worker).await.phase, WorkerPhase::Ready);
    assert!(store.change(drain(false)).await);
    assert!(!store.change(drain(false)).await, "it drains already");
    assert_eq!(store.worker(worker).await.used_slots, 1, "its job goes on");
    store.applied(says(worker, job, exited(1, 0))).await;
    let next = store.queued(2, |_| ()).await;
    assert_eq!(
        store.apply(by_server(next, claim(worker))).await,
        ChangeOutcome::NotClaimable
    );

    let idle = store.ready(2, 1).await;
    assert!(
        store
            .change(WorkerChange::Drain {
                worker: idle,
                message: "idle".into(),
                only_idle: true
            })
            .await
    );
}

/// Both void the password and end what the identity can do; the row stays.
pub async fn gone_and_revoked(store: Fixture) {
    let revoked = store.ready(1, 1).await;
    let job = store.running(1, revoked).await;
    let revoke = WorkerChange::Revoke {
        worker: revoked,
        message: "stolen".into(),
    };
    assert!(store.change(revoke.clone()).await);
    assert!(!store.change(revoke).await);
    let record = store.worker(revoked).await;
    assert!(record.revoked && record.phase == WorkerPhase::Draining);
    assert_eq!(record.message, "stolen");
    assert!(
        store
            .workers
            .identity(revoked)
            .await
            .expect("read")
            .expect("it registered")
            .revoked
    );
    assert_eq!(store.begin(revoked, 1, 1).await, SessionOutcome::Refused);
    let beat = BeatRecord {
        worker: revoked,
        session: 1,
        beat: 1,
    };
    assert_eq!(store.workers.beat(vec![beat]).await.expect("stored"), [false]);
    assert_eq!(
        store
            .kinds()
            .await
            .iter()
            .filter(|k| **k == "IdentityRevoked")
            .count(),
        1
    );
    store.applied(by_server(job, lost(1))).await;

    let gone = store.starting(2, 1).await;
    assert!(
        store
            .change(WorkerChange::Gone {
                worker: gone,
                message: "never came".into()
            })
            .await
    );
    assert!(
        !store
            .change(WorkerChange::Gone {
                worker: gone,
                message: "again".into()
            })
            .await
    );
    assert!(
        !store
            .change(WorkerChange::Started {
                worker: gone,
                machine: "late".into()
            })
            .await
    );
    assert!(
        !store
            .change(WorkerChange::Revoke {
                worker: gone,
                message: "late".into()
            })
            .await
    );
    let (_, otp) = store
        .workers
        .otp(&otp_id(2))
        .await
        .expect("read")
        .expect("the row stays");
    assert!(otp.revoked);
    assert!(matches!(
        store.redeem(2, 2, true).await,
        RedeemOutcome::Refused(_)
    ));

    // Its jobs are lost by somebody else, who finds them here.
    let holder = store.ready(3, 1).await;
    let job = store.running(2, holder).await;
    assert!(
        store
            .change(WorkerChange::Gone {
                worker: holder,
                message: "killed".into()
            })
            .await
    );
    assert_eq!(store.worker(holder).await.used_slots, 1);
    assert_eq!(store.jobs.holdings().await.expect("read")[0].key, key(job, 1));
    store.applied(by_server(job, lost(1))).await;
    assert_eq!(store.worker(holder).await.used_slots, 0);
}
