//! Input of processes.

use hodei_worker_domain::assignment::Assignment;
use hodei_worker_domain::attempt::ProcessEnd;
use hodei_worker_domain::frame::ServerFrame;

use super::fakes::{FakeProcess, ServerEnd, World, assignment};
use crate::ports::{DialError, Input};

async fn fed(world: &mut World) -> (ServerEnd, FakeProcess) {
    let server = world.welcomed().await;
    let with_input = Assignment {
        input: true,
        ..assignment(1)
    };
    server.send(ServerFrame::Assign(with_input));
    let process = world.started().await;
    (server, process)
}

fn more(bytes: &[u8]) -> Result<Input, DialError> {
    Ok(Input::More(bytes.to_vec()))
}

#[tokio::test(start_paused = true)]
async fn input_is_pulled_by_position_and_a_broken_call_costs_nothing() {
    let mut world = World::start();
    let broken = Err(DialError::Unavailable("cut".into()));
    let last = Ok(Input::Last(b"end".to_vec()));
    world.input([more(b"one"), more(b""), broken, more(b"two"), last]);
    let (mut server, mut process) = fed(&mut world).await;
    let mut input = process.input.take().expect("it has one");
    let mut read = Vec::new();
    while let Some(bytes) = input.recv().await {
        read.extend(bytes);
    }
    assert_eq!(read, b"onetwoend");
    assert_eq!(world.asked_from(), [0, 3, 3, 3, 6]);
    process.end(ProcessEnd::Exited(0));
    server.result().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_reads_no_more_or_ends_early_stops_the_pull() {
    let mut world = World::start();
    world.input((0..9).map(|_| more(b"unread")));
    let (mut server, mut process) = fed(&mut world).await;
    process.input = None;
    process.end(ProcessEnd::Exited(0));
    server.result().await;
    // One that the pipe took before it closed, and one that it did not.
    assert!(world.asked_from().len() <= 2, "{:?}", world.asked_from());
}

#[tokio::test(start_paused = true)]
async fn the_input_of_an_attempt_that_is_over_ends() {
    let mut world = World::start();
    world.input([more(b"one"), Ok(Input::Stale)]);
    let (_server, mut process) = fed(&mut world).await;
    let mut input = process.input.take().expect("it has one");
    assert_eq!(input.recv().await, Some(b"one".to_vec()));
    assert_eq!(input.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn without_input_nothing_is_asked_for() {
    let mut world = World::start();
    let mut server = world.welcomed().await;
    server.send(ServerFrame::Assign(assignment(1)));
    let process = world.started().await;
    assert!(process.input.is_none());
    process.end(ProcessEnd::Exited(0));
    server.frame().await;
    server.result().await;
    assert!(world.asked_from().is_empty());
}
