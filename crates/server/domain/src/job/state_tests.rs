//! Every (state, event) pair, and random sequences of events.

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_000_000;

fn worker() -> WorkerId {
    WorkerId::from_bytes([7; 16])
}

fn policy(retries: u32) -> RetryPolicy {
    RetryPolicy::new(retries, &[])
}

fn queued() -> Job {
    Job::queued(NOW)
}

fn assigned() -> Job {
    queued()
        .apply(JobEvent::Claim { worker: worker() }, &policy(0), NOW)
        .expect("claimable")
        .job
}

fn running() -> Job {
    assigned()
        .apply(JobEvent::Started { lease: Lease(1) }, &policy(0), NOW)
        .expect("starts")
        .job
}

fn succeeded() -> Job {
    let event = JobEvent::Finished {
        lease: Lease(1),
        result: WorkerResult::Exited(0),
    };
    running().apply(event, &policy(0), NOW).expect("ends").job
}

fn cancelling(job: Job) -> Job {
    job.apply(
        JobEvent::Cancel {
            message: "test".into(),
        },
        &policy(0),
        NOW,
    )
    .expect("cancels")
    .job
}

/// Every event of the holder of `lease`, by name.
fn events(lease: u64) -> Vec<(&'static str, JobEvent)> {
    let lease = Lease(lease);
    let finished = |result| JobEvent::Finished { lease, result };
    let message = || "m".to_owned();
    let start_failed = WorkerResult::StartFailed {
        exit_code: Some(127),
        message: message(),
    };
    vec![
        ("claim", JobEvent::Claim { worker: worker() }),
        ("started", JobEvent::Started { lease }),
        ("exit 0", finished(WorkerResult::Exited(0))),
        ("exit 3", finished(WorkerResult::Exited(3))),
        ("signal", finished(WorkerResult::Signalled(9))),
        ("start failed", finished(start_failed)),
        ("timed out", finished(WorkerResult::TimedOut)),
        ("cancelled", finished(WorkerResult::Cancelled)),
        ("lease lost", finished(WorkerResult::LeaseLost)),
        (
            "never started",
            JobEvent::NeverStarted {
                lease,
                message: message(),
            },
        ),
        (
            "lost",
            JobEvent::Lost {
                lease,
                message: message(),
            },
        ),
        (
            "provision failed",
            JobEvent::ProvisionFailed { message: message() },
        ),
        ("cancel", JobEvent::Cancel { message: message() }),
        ("input complete", JobEvent::InputComplete),
    ]
}

/// One word for what an event leads to.
fn word(result: &Result<Transition, Refusal>) -> &'static str {
    match result {
        Err(Refusal::Stale) => "stale",
        Err(Refusal::Same) => "same",
        Err(Refusal::NotClaimable) => "not claimable",
        Ok(transition) => match &transition.job.phase {
            Phase::Queued { .. } => "queued",
            Phase::Assigned { .. } => "assigned",
            Phase::Running { .. } => "running",
            Phase::Ended {
                outcome: Outcome::Succeeded,
                ..
            } => "succeeded",
            Phase::Ended {
                outcome: Outcome::Failed,
                ..
            } => "failed",
            Phase::Ended {
                outcome: Outcome::Cancelled,
                ..
            } => "cancelled",
            Phase::Ended {
                outcome: Outcome::TimedOut,
                ..
            } => "timed out",
        },
    }
}

#[test]
fn every_state_answers_every_event() {
    // The columns are the events in the order of `events`.
    #[rustfmt::skip]
    let table: [(&str, Job, u64, u32, [&str; 14]); 11] = [
        ("queued", queued(), 1, 0,
         ["assigned", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "queued", "cancelled", "same"]),
        ("delayed", Job::queued(NOW + 1), 1, 0,
         ["not claimable", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "cancelled", "same"]),
        ("held", Job::queued(HELD), 1, 0,
         ["not claimable", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "cancelled", "queued"]),
        ("assigned", assigned(), 1, 0,
         ["not claimable", "running", "succeeded", "failed", "failed", "failed", "timed out", "failed", "failed", "queued", "failed", "stale", "assigned", "same"]),
        ("assigned, retries", assigned(), 1, 1,
         ["not claimable", "running", "succeeded", "queued", "queued", "queued", "timed out", "queued", "queued", "queued", "queued", "stale", "assigned", "same"]),
        ("running", running(), 1, 0,
         ["not claimable", "same", "succeeded", "failed", "failed", "failed", "timed out", "failed", "failed", "stale", "failed", "stale", "running", "same"]),
        ("running, retries", running(), 1, 1,
         ["not claimable", "same", "succeeded", "queued", "queued", "queued", "timed out", "queued", "queued", "stale", "queued", "stale", "running", "same"]),
        ("running, older lease", running(), 0, 1,
         ["not claimable", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "running", "same"]),
        ("assigned, cancelling", cancelling(assigned()), 1, 1,
         ["not claimable", "running", "succeeded", "cancelled", "cancelled", "cancelled", "timed out", "cancelled", "cancelled", "cancelled", "cancelled", "stale", "same", "same"]),
        ("running, cancelling", cancelling(running()), 1, 0,
         ["not claimable", "same", "succeeded", "failed", "failed", "failed", "timed out", "cancelled", "cancelled", "stale", "cancelled", "stale", "same", "same"]),
        ("succeeded", succeeded(), 1, 1,
         ["not claimable", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "stale", "same", "same"]),
    ];
    for (state, job, lease, retries, wanted) in table {
        for ((event, value), want) in events(lease).into_iter().zip(wanted) {
            let got = job.apply(value, &policy(retries), NOW);
            assert_eq!(word(&got), want, "{state}: {event}");
        }
    }
}

#[test]
fn a_claim_that_never_started_keeps_its_attempt_number_and_gets_a_new_lease() {
    let event = JobEvent::NeverStarted {
        lease: Lease(1),
        message: "m".into(),
    };
    let again = assigned().apply(event, &policy(0), NOW).expect("queued").job;
    let claim = JobEvent::Claim { worker: worker() };
    let claimed = again
        .apply(claim, &policy(0), NOW + 1_000)
        .expect("claimable")
        .job;
    assert_eq!(
        (claimed.attempt, claimed.lease, claimed.repetitions),
        (1, Lease(2), 0)
    );
}

#[test]
fn a_job_that_no_worker_comes_up_for_fails_after_five_uncounted_repetitions() {
    let mut job = queued();
    for _ in 0..MAX_UNCOUNTED {
        let event = JobEvent::ProvisionFailed {
            message: "no such binary".into(),
        };
        job = job.apply(event, &policy(3), i64::MAX / 2).expect("queued").job;
        assert!(matches!(job.phase, Phase::Queued { .. }));
        job.phase = Phase::Queued { ready_at_ms: NOW };
    }
    let event = JobEvent::ProvisionFailed {
        message: "no such binary".into(),
    };
    let last = job.apply(event, &policy(3), NOW).expect("ends").job;
    let Phase::Ended {
        outcome: Outcome::Failed,
        end,
    } = last.phase
    else {
        panic!("not failed: {last:?}")
    };
    assert_eq!(
        (end.reason, end.message.as_str()),
        (Reason::ProviderError, "no such binary")
    );
}

#[test]
fn missing_output_is_said_and_changes_no_exit_code() {
    let event = JobEvent::Finished {
        lease: Lease(1),
        result: WorkerResult::Exited(0),
    };
    let mut transition = running().apply(event, &policy(0), NOW).expect("ends");
    transition.mark_output_incomplete();
    let Phase::Ended { outcome, end } = &transition.job.phase else {
        panic!("not ended")
    };
    assert_eq!(
        (*outcome, end.exit_code, end.reason),
        (Outcome::Succeeded, Some(0), Reason::OutputIncomplete)
    );
    assert_eq!(
        Some((AttemptOutcome::Succeeded, end.clone())),
        transition.attempt_end
    );
}

#[test]
fn a_job_is_held_until_its_whole_input_is_there_unless_it_repeats_another() {
    let input = crate::job::spec::SpecInput {
        command: vec!["cat".into()],
        stdin: Stdin::Whole,
        ..Default::default()
    };
    let spec = JobSpec::new(input).expect("valid");
    assert_eq!(Job::first_ready_ms(&spec, true, NOW), NOW);
    assert_eq!(Job::first_ready_ms(&spec, false, NOW), HELD);
    let held = Job::queued(HELD);
    let released = held
        .apply(JobEvent::InputComplete, &policy(0), NOW)
        .expect("released")
        .job;
    assert_eq!(released, queued());
}

#[test]
fn repetitions_are_counted_and_delayed() {
    let mut job = running();
    for (repetition, pause) in [(1, 1_000), (2, 2_000)] {
        let event = JobEvent::Lost {
            lease: job.lease,
            message: "gone".into(),
        };
        job = job.apply(event, &policy(2), NOW).expect("queued").job;
        assert_eq!(
            (job.repetitions, &job.phase),
            (
                repetition,
                &Phase::Queued {
                    ready_at_ms: NOW + pause
                }
            )
        );
        job = job
            .apply(JobEvent::Claim { worker: worker() }, &policy(2), NOW + pause)
            .expect("claimed")
            .job;
        assert_eq!(job.attempt, repetition + 1);
    }
    let event = JobEvent::Lost {
        lease: job.lease,
        message: "gone".into(),
    };
    let last = job.apply(event, &policy(2), NOW).expect("ends").job;
    assert!(matches!(
        last.phase,
        Phase::Ended {
            outcome: Outcome::Failed,
            ..
        }
    ));
}

proptest! {
    #[test]
    fn invariants_hold_over_random_events(
        picks in prop::collection::vec((0_usize..13, 0_u64..3, 0_i64..400_000), 1..60),
        retries in 0_u32..4,
    ) {
        let policy = policy(retries);
        let mut job = queued();
        let mut now = NOW;
        let mut counted_ends = 0;
        for (pick, back, pause) in picks {
            now += pause;
            let lease = job.lease.0.saturating_sub(back);
            let (_, event) = events(lease).swap_remove(pick);
            let Ok(transition) = job.apply(event, &policy, now) else { continue };
            let next = &transition.job;
            prop_assert!(!job.is_ended(), "a terminal state changed");
            prop_assert!(next.lease >= job.lease && next.lease.0 <= job.lease.0 + 1);
            let claimed = matches!(next.phase, Phase::Assigned { .. });
            prop_assert!(next.lease == job.lease || claimed);
            prop_assert!(next.attempt >= job.attempt && u64::from(next.attempt) <= next.lease.0);
            prop_assert!(next.repetitions <= retries && next.uncounted <= MAX_UNCOUNTED);
            prop_assert!(!job.cancel_requested || next.cancel_requested);
            prop_assert!(transition.attempt_end.is_none() || job.holder().is_some());
            let waits = matches!(next.phase, Phase::Queued { .. });
            prop_assert!(!(job.cancel_requested && waits));
            if transition.attempt_end.is_some() && !next.same_attempt && next.repetitions > job.repetitions {
                counted_ends += 1;
            }
            prop_assert_eq!(next.repetitions, counted_ends);
            // A holder keeps the job until its attempt ends.
            if job.holder().is_some() && next.holder().is_none() {
                prop_assert!(transition.attempt_end.is_some());
            }
            job = transition.job;
        }
    }
}
