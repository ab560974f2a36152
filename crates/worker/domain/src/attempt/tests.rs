//! The table over every (state, event).

use hodei_shared::ids::{JobId, Lease, Rank};

use super::*;
use crate::assignment::Command;

fn key() -> AttemptKey {
    AttemptKey {
        job: JobId::from_bytes([1; 16]),
        lease: Lease(3),
        rank: Rank(0),
    }
}

fn result(kind: EndKind, code: Option<i32>) -> AttemptResult {
    AttemptResult {
        key: key(),
        kind,
        exit_code: code,
        signal: None,
        message: String::new(),
        started_at_ms: 5,
        ended_at_ms: 9,
        output_end: 0,
    }
}

fn states() -> Vec<State> {
    vec![
        State::Accepted,
        State::Starting { stop: None },
        State::Starting {
            stop: Some(Why::Cancel),
        },
        State::Starting {
            stop: Some(Why::Stale),
        },
        State::Running { started_at_ms: 5 },
        State::Stopping {
            started_at_ms: 5,
            why: Why::Cancel,
        },
        State::Stopping {
            started_at_ms: 5,
            why: Why::Stale,
        },
        State::Draining(result(EndKind::Exited, Some(0))),
        State::Ended(result(EndKind::Exited, Some(0))),
        State::Gone,
    ]
}

fn events() -> Vec<Event> {
    vec![
        Event::AssignedAgain,
        Event::Start,
        Event::Spawned(5),
        Event::Exited(ProcessEnd::Exited(0), 9),
        Event::Unstartable("broken".into()),
        Event::Drained(7),
        Event::Stop(Why::Cancel),
        Event::Stop(Why::Timeout),
        Event::Stop(Why::Stale),
    ]
}

/// One word per effect, the state afterwards, or `refused`.
fn outcome(state: &State, event: Event) -> String {
    let assignment = Assignment::new(key(), Command::Argv(vec!["true".into()]));
    let mut attempt = Attempt {
        assignment: Arc::new(assignment),
        state: state.clone(),
    };
    match attempt.on(event) {
        Err(_) => {
            assert_eq!(&attempt.state, state, "a refusal changes nothing");
            "refused".to_owned()
        }
        Ok(effects) => {
            let mut words: Vec<&str> = effects
                .iter()
                .map(|effect| match effect {
                    Effect::Spawn(_) => "spawn",
                    Effect::Terminate(_) => "terminate",
                    Effect::ReportRunning(..) => "running",
                    Effect::ReportResult(_) => "result",
                    Effect::ReportNeverStarted(..) => "never",
                    Effect::DropOutput(_) => "drop",
                })
                .collect();
            words.push(attempt.state.name());
            words.join(" ")
        }
    }
}

#[test]
fn every_event_in_every_state() {
    let want: [[&str; 9]; 10] = [
        // again, start, spawned, exited, unstartable, drained, cancel, time-out, stale
        [
            "accepted",
            "spawn starting",
            "refused",
            "refused",
            "refused",
            "refused",
            "never gone",
            "never gone",
            "never gone",
        ],
        [
            "starting",
            "refused",
            "running running",
            "draining",
            "never gone",
            "refused",
            "starting",
            "starting",
            "starting",
        ],
        [
            "starting",
            "refused",
            "running terminate stopping",
            "draining",
            "never gone",
            "refused",
            "starting",
            "starting",
            "starting",
        ],
        [
            "starting",
            "refused",
            "terminate stopping",
            "drop gone",
            "gone",
            "refused",
            "starting",
            "starting",
            "starting",
        ],
        [
            "running running",
            "refused",
            "refused",
            "draining",
            "refused",
            "refused",
            "terminate stopping",
            "terminate stopping",
            "terminate stopping",
        ],
        [
            "running stopping",
            "refused",
            "refused",
            "draining",
            "refused",
            "refused",
            "stopping",
            "stopping",
            "stopping",
        ],
        [
            "running stopping",
            "refused",
            "refused",
            "drop gone",
            "refused",
            "refused",
            "stopping",
            "stopping",
            "stopping",
        ],
        [
            "draining",
            "refused",
            "refused",
            "refused",
            "refused",
            "result ended",
            "draining",
            "draining",
            "drop gone",
        ],
        [
            "result ended",
            "refused",
            "refused",
            "refused",
            "refused",
            "refused",
            "ended",
            "ended",
            "drop gone",
        ],
        [
            "gone", "refused", "refused", "refused", "refused", "gone", "gone", "gone", "gone",
        ],
    ];
    for (state, row) in states().iter().zip(want) {
        for (event, want) in events().into_iter().zip(row) {
            assert_eq!(outcome(state, event.clone()), want, "{state:?} {event:?}");
        }
    }
}

#[test]
fn the_first_reason_names_the_end() {
    for (stop, end, kind, code) in [
        (None, ProcessEnd::Exited(3), EndKind::Exited, Some(3)),
        (None, ProcessEnd::Signalled(11), EndKind::Signalled, None),
        (
            Some(Why::Cancel),
            ProcessEnd::Exited(0),
            EndKind::Cancelled,
            Some(0),
        ),
        (
            Some(Why::Timeout),
            ProcessEnd::Signalled(15),
            EndKind::TimedOut,
            None,
        ),
        (
            Some(Why::Lease),
            ProcessEnd::Signalled(9),
            EndKind::LeaseLost,
            None,
        ),
        (
            Some(Why::Leaving),
            ProcessEnd::Signalled(9),
            EndKind::LeaseLost,
            None,
        ),
    ] {
        let mut attempt = Attempt::new(Assignment::new(key(), Command::Argv(vec!["true".into()])));
        attempt.on(Event::Start).expect("accepted");
        attempt.on(Event::Spawned(5)).expect("starting");
        if let Some(why) = stop {
            attempt.on(Event::Stop(why)).expect("running");
            attempt.on(Event::Stop(Why::Cancel)).expect("stopping");
        }
        attempt.on(Event::Exited(end, 9)).expect("has a process");
        attempt
            .on(Event::Stop(Why::Cancel))
            .expect("a stop after the end changes nothing");
        let effects = attempt.on(Event::Drained(12)).expect("draining");
        let [Effect::ReportResult(result)] = effects.as_slice() else {
            panic!("one result: {effects:?}");
        };
        assert_eq!(
            (result.kind, result.exit_code, result.output_end),
            (kind, code, 12)
        );
        assert_eq!((result.started_at_ms, result.ended_at_ms), (5, 9));
    }
}

#[test]
fn a_process_that_can_not_start_is_its_own_end() {
    let mut attempt = Attempt::new(Assignment::new(key(), Command::Argv(vec!["nope".into()])));
    attempt.on(Event::Start).expect("accepted");
    attempt.on(Event::Stop(Why::Cancel)).expect("starting");
    let end = ProcessEnd::StartFailed {
        exit_code: Some(127),
        message: "nope:\nnot found".into(),
    };
    attempt.on(Event::Exited(end, 9)).expect("starting");
    let State::Draining(result) = attempt.state() else {
        panic!("{:?}", attempt.state());
    };
    assert_eq!(
        (result.kind, result.exit_code, result.started_at_ms),
        (EndKind::StartFailed, Some(127), 0)
    );
    assert_eq!(result.message, "nope:\\nnot found");
}

#[test]
fn an_end_by_itself_ignores_the_stop_that_came_while_the_rest_ended() {
    for why in [Why::Cancel, Why::Timeout, Why::Lease, Why::Leaving] {
        let mut attempt = Attempt::new(Assignment::new(key(), Command::Argv(vec!["true".into()])));
        attempt.on(Event::Start).expect("accepted");
        attempt.on(Event::Spawned(5)).expect("starting");
        attempt.on(Event::Stop(why)).expect("running");
        let end = Event::ExitedByItself(ProcessEnd::Exited(0), 9);
        assert_eq!(attempt.on(end).expect("stopping"), []);
        let State::Draining(result) = attempt.state() else {
            panic!("{:?}", attempt.state());
        };
        assert_eq!(
            (result.kind, result.exit_code),
            (EndKind::Exited, Some(0)),
            "{why:?}"
        );
    }
    let mut stale = Attempt::new(Assignment::new(key(), Command::Argv(vec!["true".into()])));
    stale.on(Event::Start).expect("accepted");
    stale.on(Event::Spawned(5)).expect("starting");
    stale.on(Event::Stop(Why::Stale)).expect("running");
    let end = Event::ExitedByItself(ProcessEnd::Exited(0), 9);
    assert_eq!(stale.on(end).expect("stopping"), [Effect::DropOutput(key())]);
}
