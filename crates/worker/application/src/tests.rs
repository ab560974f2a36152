//! Tests of the whole worker on fakes and virtual time.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used)]

mod fakes;
mod input;
mod output;

use std::sync::atomic::Ordering;
use std::time::Duration;

use hodei_worker_domain::attempt::{AttemptResult, EndKind, ProcessEnd};
use hodei_worker_domain::frame::{HeldState, HeldVerdict, ResultVerdict, ServerFrame, StopKind, WorkerFrame};

use self::fakes::{World, assignment, key};
use crate::ports::{DialError, Signal};
use crate::worker::Exit;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn applied(result: &AttemptResult) -> ServerFrame {
    ServerFrame::ResultAnswer {
        key: result.key,
        verdict: ResultVerdict::Applied,
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_and_is_reported() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    assert!(matches!(server.frame().await, WorkerFrame::Running { key: k, .. } if k == key(1)));
    process.end(ProcessEnd::Exited(3));
    let result = server.result().await;
    assert_eq!(
        (result.kind, result.exit_code, result.output_end),
        (EndKind::Exited, Some(3), 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_repeated_assign_starts_nothing() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    server.frame().await;
    server.send(ServerFrame::Assign(assignment(1)));
    assert!(matches!(server.frame().await, WorkerFrame::Running { .. }));
    process.end(ProcessEnd::Exited(0));
    let result = server.result().await;
    server.send(ServerFrame::Assign(assignment(1)));
    assert_eq!(server.result().await, result);
    server.send(applied(&result));
    server.send(ServerFrame::Assign(assignment(1)));
    assert_eq!(server.result().await, result);
    assert!(world.nothing_started());
}

#[tokio::test(start_paused = true)]
async fn an_early_stop_keeps_the_attempt_from_starting() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    for frame in [
        ServerFrame::Stop {
            key: key(1),
            kind: StopKind::Cancel,
        },
        ServerFrame::Assign(assignment(1)),
    ] {
        server.send(frame);
        assert!(matches!(server.frame().await, WorkerFrame::NeverStarted { key: k, .. } if k == key(1)));
    }
    assert!(world.nothing_started());
}

#[tokio::test(start_paused = true)]
async fn a_result_reached_before_the_cancel_wins() {
    for (end_first, kind) in [(true, EndKind::Exited), (false, EndKind::Cancelled)] {
        let mut world = World::start();
        let mut server = world.welcomed().await;
        server.send(ServerFrame::Assign(assignment(1)));
        let process = world.started().await;
        server.frame().await;
        if end_first {
            process.end_with_open_pipe(ProcessEnd::Exited(0));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.send(ServerFrame::Stop {
            key: key(1),
            kind: StopKind::Cancel,
        });
        if end_first {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(process.signals(), []);
        } else {
            process.signalled(1).await;
            assert_eq!(process.signals(), [Signal::Term]);
            process.end(ProcessEnd::Exited(0));
        }
        let result = server.result().await;
        assert_eq!((result.kind, result.exit_code), (kind, Some(0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_reached_before_the_stop_wins_though_its_tree_ends_later() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    server.frame().await;
    process.main_ended.store(true, Ordering::SeqCst);
    server.send(ServerFrame::Stop {
        key: key(1),
        kind: StopKind::Cancel,
    });
    process.signalled(1).await;
    process.end(ProcessEnd::Exited(0));
    let result = server.result().await;
    assert_eq!((result.kind, result.exit_code), (EndKind::Exited, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn a_stubborn_process_is_killed_after_its_grace_and_its_time_out() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    let mut wanted = assignment(1);
    wanted.timeout = Some(secs(7));
    server.send(ServerFrame::Assign(wanted));
    let started = tokio::time::Instant::now();
    let process = world.started().await;
    process.signalled(1).await;
    assert_eq!(started.elapsed().as_secs(), 7);
    process.signalled(2).await;
    assert_eq!(started.elapsed().as_secs(), 17);
    assert_eq!(process.signals(), [Signal::Term, Signal::Kill]);
    process.end(ProcessEnd::Signalled(9));
    let result = server.result().await;
    assert_eq!((result.kind, result.signal), (EndKind::TimedOut, Some(9)));
}

#[tokio::test(start_paused = true)]
async fn results_are_sent_again_until_they_are_answered() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    world.started().await.end(ProcessEnd::Exited(0));
    let result = server.result().await;
    drop(server);
    let mut server = world.connected().await;
    let held = &server.hello.held;
    assert_eq!((held[0].key, held[0].state), (key(1), HeldState::Ended));
    server.welcome();
    server.send(ServerFrame::HelloAnswer {
        key: key(1),
        verdict: HeldVerdict::Continue,
    });
    assert_eq!(server.result().await, result);
    server.send(applied(&result));
    tokio::time::sleep(secs(1)).await;
    drop(server);
    assert_eq!(world.connected().await.hello.held, []);
}

#[tokio::test(start_paused = true)]
async fn a_recorded_attempt_is_ended_and_forgotten() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    server.frame().await;
    drop(server);
    let server = world.welcomed().await;
    assert_eq!(server.hello.held[0].state, HeldState::Running);
    server.send(ServerFrame::HelloAnswer {
        key: key(1),
        verdict: HeldVerdict::Recorded,
    });
    process.signalled(1).await;
    process.end(ProcessEnd::Signalled(15));
    tokio::time::sleep(secs(1)).await;
    drop(server);
    assert_eq!(world.connected().await.hello.held, []);
}

#[tokio::test(start_paused = true)]
async fn a_drained_worker_leaves_when_its_last_result_is_answered() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    server.frame().await;
    server.send(ServerFrame::Drain);
    server.send(ServerFrame::Assign(assignment(2)));
    assert!(matches!(server.frame().await, WorkerFrame::NeverStarted { key: k, .. } if k == key(2)));
    process.end(ProcessEnd::Exited(0));
    let result = server.result().await;
    tokio::time::sleep(secs(20)).await;
    server.send(applied(&result));
    assert_eq!(server.frame().await, WorkerFrame::Leaving);
    assert_eq!(world.exit().await, Exit::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_repeatable_attempt_ends_before_its_lease() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    let mut repeatable = assignment(1);
    repeatable.repeatable = true;
    server.send(ServerFrame::Assign(repeatable));
    let repeated = world.started().await;
    server.send(ServerFrame::Assign(assignment(2)));
    let single = world.started().await;
    server.answer_beat().await;
    let beat = tokio::time::Instant::now();
    world.cut();
    drop(server);
    // lost_after 300 s, margin 5.6 s, grace 10 s.
    repeated.signalled(1).await;
    assert_eq!(beat.elapsed().as_millis(), 284_400);
    repeated.signalled(2).await;
    assert_eq!(beat.elapsed().as_millis(), 294_400);
    repeated.end(ProcessEnd::Signalled(9));
    tokio::time::sleep(secs(3600)).await;
    assert_eq!(single.signals(), [], "nothing would repeat it, so it runs on");
    single.end(ProcessEnd::Exited(0));
    world.mend();
    let mut server = world.welcomed().await;
    let kinds = [server.result().await.kind, server.result().await.kind];
    assert_eq!(kinds, [EndKind::LeaseLost, EndKind::Exited]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_slot_does_not_start_after_its_lease() {
    let mut world = World::with_slots(1);
    let server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let first = world.started().await;
    server.send(ServerFrame::Assign(assignment(2)));
    tokio::time::sleep(secs(1)).await;
    world.cut();
    drop(server);
    tokio::time::sleep(secs(400)).await;
    first.end(ProcessEnd::Exited(0));
    tokio::time::sleep(secs(1)).await;
    world.mend();
    let mut server = world.welcomed().await;
    assert!(matches!(server.frame().await, WorkerFrame::NeverStarted { key: k, .. } if k == key(2)));
    assert!(world.nothing_started());
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_without_contact_leaves() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    for _ in 0..60 {
        server.answer_beat().await;
    }
    world.cut();
    drop(server);
    let cut = tokio::time::Instant::now();
    assert_eq!(world.exit().await, Exit::Left);
    assert_eq!(cut.elapsed().as_secs(), 300);
}

#[tokio::test(start_paused = true)]
async fn jobs_of_one_command_do_not_outlive_its_server() {
    let mut world = World::of_one_command();
    let server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    world.cut();
    drop(server);
    let cut = tokio::time::Instant::now();
    process.signalled(1).await;
    assert_eq!(world.exit().await, Exit::Left);
    assert_eq!(cut.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_for_another_session() {
    let mut world = World::start();
    let server = world.welcomed().await;
    let before = tokio::time::Instant::now();
    let next = world.connected().await;
    assert!((30..33).contains(&before.elapsed().as_secs()));
    drop((server, next));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_told_to_end_ends_its_jobs() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    server.frame().await;
    world.cancel.cancel();
    process.signalled(1).await;
    process.end(ProcessEnd::Signalled(15));
    let result = server.result().await;
    assert_eq!(result.kind, EndKind::LeaseLost);
    server.send(applied(&result));
    assert_eq!(world.exit().await, Exit::Stopped);
}

#[tokio::test(start_paused = true)]
async fn registration_is_tried_again_but_not_after_a_refusal() {
    let busy = || Err(DialError::Unavailable("try again".into()));
    let mut world = World::registering(vec![busy(), busy(), busy()]);
    world.welcomed().await;
    let refused = Err(DialError::Refused("no".into()));
    let mut world = World::registering(vec![busy(), refused]);
    assert_eq!(world.exit().await, Exit::Refused("no".into()));
}

#[tokio::test(start_paused = true)]
async fn the_certificate_is_renewed_at_half_of_its_life() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    let before = tokio::time::Instant::now();
    while world.renewals() == 0 {
        server.answer_beat().await;
    }
    assert!(
        (900..925).contains(&before.elapsed().as_secs()),
        "{:?}",
        before.elapsed()
    );
    world.welcomed().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_worker_kills_its_jobs_and_ends() {
    let mut world = World::start();
    let server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    world.refuse();
    drop(server);
    assert!(matches!(world.exit().await, Exit::Refused(_)));
    assert_eq!(process.signals(), [Signal::Kill]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_can_start_nothing_gives_back_what_it_has_and_goes() {
    let mut world = World::with_slots(2);
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    server.frame().await;
    world.break_worker();
    server.send(ServerFrame::Assign(assignment(2)));
    assert_eq!(
        server.frame().await,
        WorkerFrame::Leaving,
        "before the job is given back"
    );
    assert!(
        matches!(server.frame().await, WorkerFrame::NeverStarted { key: k, message }
        if k == key(2) && message == "the folder is gone")
    );
    server.send(ServerFrame::Assign(assignment(3)));
    assert!(matches!(server.frame().await, WorkerFrame::NeverStarted { key: k, .. } if k == key(3)));
    // What runs goes on to its end, and a new session hears that the worker goes.
    drop(server);
    let mut server = world.welcomed().await;
    assert_eq!(server.frame().await, WorkerFrame::Leaving);
    process.end(ProcessEnd::Exited(0));
    let result = server.result().await;
    assert_eq!(result.exit_code, Some(0));
    server.send(applied(&result));
    assert_eq!(world.exit().await, Exit::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_sessions_are_refused_ends() {
    let mut world = World::start();
    let refusing = async {
        loop {
            let server = world.connected().await;
            server.send(ServerFrame::Refused("it is gone".into()));
        }
    };
    // In virtual time.
    let over = tokio::time::timeout(secs(100), refusing).await;
    assert!(over.is_err());
    assert_eq!(world.exit().await, Exit::Refused("it is gone".into()));
}
