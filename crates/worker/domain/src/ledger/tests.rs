//! Random event sequences over a few attempts, and the cases that have a name.

use std::collections::BTreeSet;

use hodei_shared::ids::{JobId, Lease, Rank};
use proptest::prelude::*;

use super::*;
use crate::assignment::Command;
use crate::session::StreamId;

fn key(n: u8) -> AttemptKey {
    AttemptKey {
        job: JobId::from_bytes([n; 16]),
        lease: Lease(1),
        rank: Rank(0),
    }
}

fn assignment(n: u8) -> Assignment {
    Assignment::new(key(n), Command::Argv(vec!["true".into()]))
}

fn beat(n: u64) -> BeatId {
    BeatId {
        stream: StreamId(1),
        n,
    }
}

fn run(ledger: &mut Ledger, n: u8) -> AttemptResult {
    ledger.spawned(key(n), 1).expect("starting");
    ledger.exited(key(n), ProcessEnd::Exited(0), 2).expect("running");
    let effects = ledger.drained(key(n), 3).expect("draining");
    match effects.as_slice() {
        [Effect::ReportResult(result)] => result.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeated_assign_is_answered_by_its_state() {
    let mut ledger = Ledger::new(1);
    assert!(matches!(
        ledger.assign(assignment(1)).as_slice(),
        [Effect::Spawn(_)]
    ));
    assert_eq!(ledger.assign(assignment(1)), []);
    let result = run(&mut ledger, 1);
    assert_eq!(
        ledger.assign(assignment(1)),
        [Effect::ReportResult(result.clone())]
    );
    ledger.answered(key(1), Some(beat(4)));
    assert_eq!(
        ledger.assign(assignment(1)),
        [Effect::ReportResult(result.clone())]
    );
    ledger.beat_answered(beat(4));
    assert_eq!(
        ledger.assign(assignment(1)),
        [Effect::ReportResult(result)],
        "only a later beat confirms"
    );
    ledger.beat_answered(beat(5));
    assert!(ledger.acknowledged.is_empty() && ledger.is_empty());
}

#[test]
fn what_the_worker_could_not_start_is_given_back_for_good() {
    let mut ledger = Ledger::new(1);
    ledger.assign(assignment(1));
    let never = Effect::ReportNeverStarted(key(1), "no folder".into());
    let effects = ledger.unstartable(key(1), "no folder".into());
    assert_eq!(effects, Ok(vec![never.clone()]));
    assert!(ledger.is_empty() && !ledger.has_work());
    assert_eq!(ledger.assign(assignment(1)), [never], "it is not started later");
    ledger.check().expect("sound");
}

#[test]
fn an_early_stop_is_remembered() {
    let mut ledger = Ledger::new(1);
    let never = Effect::ReportNeverStarted(key(1), "stopped before it was assigned".into());
    assert_eq!(
        ledger.stop(key(1), StopKind::Cancel),
        std::slice::from_ref(&never)
    );
    assert_eq!(ledger.assign(assignment(1)), [never]);
    assert!(ledger.is_empty());
}

#[test]
fn a_full_worker_keeps_the_next_one_waiting() {
    let mut ledger = Ledger::new(1);
    ledger.assign(assignment(1));
    assert_eq!(ledger.assign(assignment(2)), []);
    assert_eq!(ledger.waiting().count(), 1);
    ledger.spawned(key(1), 1).expect("starting");
    let effects = ledger.exited(key(1), ProcessEnd::Exited(0), 2).expect("running");
    assert!(matches!(effects.as_slice(), [Effect::Spawn(next)] if next.key == key(2)));
    ledger.drain();
    assert!(matches!(
        ledger.assign(assignment(3)).as_slice(),
        [Effect::ReportNeverStarted(..)]
    ));
}

#[derive(Debug, Clone)]
enum Step {
    Assign(u8),
    Spawned(u8),
    Exited(u8, i32),
    Drained(u8),
    Stop(u8, bool),
    Timeout(u8),
    Answered(u8),
    Recorded(u8),
    Beat,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..4u8;
    prop_oneof![
        5 => n.clone().prop_map(Step::Assign),
        5 => n.clone().prop_map(Step::Spawned),
        5 => (n.clone(), 0..3i32).prop_map(|(n, code)| Step::Exited(n, code)),
        5 => n.clone().prop_map(Step::Drained),
        2 => (n.clone(), any::<bool>()).prop_map(|(n, stale)| Step::Stop(n, stale)),
        1 => n.clone().prop_map(Step::Timeout),
        4 => n.clone().prop_map(Step::Answered),
        1 => n.prop_map(Step::Recorded),
        2 => Just(Step::Beat),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #[test]
    fn no_sequence_breaks_an_invariant(slots in 1..3u32, steps in prop::collection::vec(step(), 0..200)) {
        let mut ledger = Ledger::new(slots);
        let mut spawned: BTreeMap<AttemptKey, u32> = BTreeMap::new();
        let mut results: BTreeMap<AttemptKey, AttemptResult> = BTreeMap::new();
        let mut unacknowledged = BTreeSet::new();
        let mut beats = 0;
        for step in steps {
            let last = Some(beat(beats));
            let mut forgets = None;
            let effects = match step {
                // Once an attempt is forgotten the server never assigns it again.
                Step::Assign(n) if spawned.contains_key(&key(n)) && ledger.get(key(n)).is_none()
                    && !ledger.acknowledged.contains_key(&key(n)) => Vec::new(),
                Step::Assign(n) => ledger.assign(assignment(n)),
                Step::Spawned(n) => ledger.spawned(key(n), 1).unwrap_or_default(),
                Step::Exited(n, code) => {
                    ledger.exited(key(n), ProcessEnd::Exited(code), 2).unwrap_or_default()
                }
                Step::Drained(n) => ledger.drained(key(n), 3).unwrap_or_default(),
                Step::Stop(n, stale) => {
                    forgets = stale.then_some(key(n));
                    ledger.stop(key(n), if stale { StopKind::Stale } else { StopKind::Cancel })
                }
                Step::Timeout(n) => ledger.stop_held(key(n), Why::Timeout),
                Step::Answered(n) => {
                    forgets = Some(key(n));
                    ledger.answered(key(n), last);
                    Vec::new()
                }
                Step::Recorded(n) => {
                    forgets = Some(key(n));
                    ledger.hello_answered(key(n), HeldVerdict::Recorded, last)
                }
                Step::Beat => {
                    beats += 1;
                    ledger.beat_answered(beat(beats));
                    Vec::new()
                }
                Step::Drain => {
                    ledger.drain();
                    Vec::new()
                }
            };
            for effect in effects {
                match effect {
                    Effect::Spawn(assignment) => {
                        let count = spawned.entry(assignment.key).or_default();
                        *count += 1;
                        prop_assert_eq!(*count, 1, "at most one process");
                    }
                    Effect::ReportResult(result) => {
                        let first = results.entry(result.key).or_insert_with(|| result.clone());
                        prop_assert_eq!(&*first, &result, "a result never changes");
                        if ledger.get(result.key).is_some() {
                            unacknowledged.insert(result.key);
                        }
                    }
                    Effect::ReportNeverStarted(key, _) => {
                        prop_assert!(!spawned.contains_key(&key) || ledger.get(key).is_none());
                    }
                    _ => {}
                }
            }
            if let Some(key) = forgets
                && ledger.get(key).is_none()
            {
                unacknowledged.remove(&key);
            }
            for key in &unacknowledged {
                prop_assert!(ledger.get(*key).is_some(), "an unacknowledged result is never forgotten");
            }
            prop_assert_eq!(ledger.check(), Ok(()));
        }
    }
}
