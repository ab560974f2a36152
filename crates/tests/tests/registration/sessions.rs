//! After the registration: what a certificate allows to say, and how it is renewed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hodei_jobs::v1;
use hodei_jobs::v1::worker_frame::Frame as WorkerKind;
use hodei_server_domain::event::Event;
use hodei_server_domain::job::end::Outcome;
use hodei_server_domain::job::state::Phase;
use hodei_shared::ids::{JobId, WorkerId};
use tonic::Code;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::client::{
    Identity, OutputStream, Session, assert_cast_out, new_key, reason, request, result, running,
};
use crate::world::{CUT_OFF, World, eventually};

fn revoked(worker: WorkerId) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::IdentityRevoked { worker: other, .. } if *other == worker)
}

/// What a worker may say of an attempt.
#[derive(Debug, Clone, Copy)]
enum Word {
    Running,
    Result,
    NeverStarted,
    Output,
}

/// Whose attempt it speaks for.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// One that another worker holds.
    OfAnother,
    /// Its own job under a lease that was never given.
    NeverGiven,
    /// A job that does not exist.
    NoJob,
}

async fn speaks_for(word: Word, target: Target) {
    let world = World::new().await;
    let (_, honest) = world.registered().await;
    let mut honest = Session::begin(&world, &honest, Vec::new()).await.expect("open");
    let held = honest.assigned().await;
    honest.say(running(&held)).await;
    let (machine, identity) = world.registered().await;
    let mut session = Session::begin(&world, &identity, Vec::new()).await.expect("open");
    let own = session.assigned().await;
    let mut output = OutputStream::begin(&world, &identity).await.expect("open");
    let key = match target {
        Target::OfAnother => held.clone(),
        Target::NeverGiven => v1::AttemptKey {
            lease: own.lease + 1,
            ..own
        },
        Target::NoJob => v1::AttemptKey {
            job_id: JobId::from_bytes([7; 16]).to_string(),
            ..own
        },
    };
    match word {
        Word::Running => session.say(running(&key)).await,
        Word::Result => session.say(result(&key, 0)).await,
        Word::NeverStarted => {
            let never = v1::NeverStarted {
                key: Some(key.clone()),
                message: "no".to_owned(),
            };
            session.say(WorkerKind::NeverStarted(never)).await;
        }
        Word::Output => output.say(key, 0, b"forged\n").await,
    }
    session.ended(CUT_OFF).await;
    let cut = output.next(CUT_OFF).await.expect_err("cut off");
    assert!(
        matches!(cut.code(), Code::Unauthenticated | Code::PermissionDenied),
        "{cut}"
    );
    world.happened("the revocation", revoked(machine.worker)).await;
    assert_cast_out(&world, &machine, &identity).await;

    // The other worker and its attempt have noticed nothing.
    honest.beats(1).await;
    let record = world.job(held.job_id.parse().expect("an id")).await;
    assert!(matches!(record.job.phase, Phase::Running { .. }), "{record:?}");
    assert_eq!(record.job.lease.0, held.lease);
    assert_eq!(record.attempts[0].output.bytes, 0);
}

async fn speaks_for_others(word: Word) {
    let targets = [Target::OfAnother, Target::NeverGiven, Target::NoJob];
    join_all(targets.map(|target| speaks_for(word, target))).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_starts_its_own_attempts_only() {
    speaks_for_others(Word::Running).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_ends_its_own_attempts_only() {
    speaks_for_others(Word::Result).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_gives_back_its_own_attempts_only() {
    speaks_for_others(Word::NeverStarted).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_prints_for_its_own_attempts_only() {
    speaks_for_others(Word::Output).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_forgives_late_words_about_its_own_attempts() {
    let world = World::new().await;
    let (machine, identity) = world.registered().await;
    let mut session = Session::begin(&world, &identity, Vec::new()).await.expect("open");
    let lost = session.assigned().await;
    session.say(running(&lost)).await;
    let job: JobId = lost.job_id.parse().expect("an id");
    eventually("the start", async || {
        matches!(world.job(job).await.job.phase, Phase::Running { .. }).then_some(())
    })
    .await;

    // A Hello without it: the worker has forgotten the attempt, which is lost and comes again under a new lease.
    let mut session = Session::begin(&world, &identity, Vec::new()).await.expect("open");
    session.say(result(&lost, 0)).await;
    assert_eq!(session.verdict().await, v1::ResultVerdict::Stale);
    session.say(running(&lost)).await;
    let never = v1::NeverStarted {
        key: Some(lost.clone()),
        message: "no".to_owned(),
    };
    session.say(WorkerKind::NeverStarted(never)).await;
    let mut output = OutputStream::begin(&world, &identity).await.expect("open");
    output.say(lost.clone(), 0, b"late\n").await;
    let answer = output.next(CUT_OFF).await.expect("open").expect("an answer");
    assert_eq!(answer.verdict(), v1::OutputVerdict::Stale);

    let again = session.assigned().await;
    assert!(
        again.job_id == lost.job_id && again.lease > lost.lease,
        "{again:?}"
    );
    session.say(result(&again, 0)).await;
    assert_eq!(session.verdict().await, v1::ResultVerdict::Applied);
    session.say(result(&again, 0)).await;
    assert_eq!(session.verdict().await, v1::ResultVerdict::Same);
    session.say(result(&again, 1)).await;
    assert_eq!(session.verdict().await, v1::ResultVerdict::Stale);
    session.say(running(&again)).await;
    session.beats(1).await;
    let record = world.job(job).await;
    assert!(
        matches!(
            record.job.phase,
            Phase::Ended {
                outcome: Outcome::Succeeded,
                ..
            }
        ),
        "{record:?}"
    );
    assert!(!world.events().await.iter().any(revoked(machine.worker)));
}

fn generation(identity: &Identity) -> String {
    let (_, leaf) = X509Certificate::from_der(&identity.chain[0]).expect("DER");
    let mut attributes = leaf.subject().iter_attributes();
    let generation = attributes.find(|attribute| attribute.attr_type().to_id_string() == "2.5.4.5");
    generation.expect("there").as_str().expect("text").to_owned()
}

#[tokio::test]
async fn test_worker_registration_with_otp_is_renewed_by_generations() {
    let world = World::new().await;
    let (machine, first) = world.registered().await;
    assert_eq!(generation(&first), "1");
    let key = new_key();
    let second = world.renew(&first, &key).await.expect("renewed");
    assert_eq!(generation(&second), "2");

    // The reply was lost: the same key again gets the same bytes, and the worker is not cut off meanwhile.
    let again = world.renew(&first, &key).await.expect("repeated");
    assert_eq!(again.chain, second.chain);
    Session::begin(&world, &first, Vec::new()).await.expect("open");
    let mut session = Session::begin(&world, &second, Vec::new()).await.expect("open");
    session.beats(1).await;
    assert!(!world.events().await.iter().any(revoked(machine.worker)));

    // The older generation with another key is a thief's, or the worker's after a thief's: both are out.
    let stolen = world.renew(&first, &new_key()).await;
    let refused = stolen.err().expect("theft");
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "refused")
    );
    session.ended(CUT_OFF).await;
    world.happened("the revocation", revoked(machine.worker)).await;
    assert_cast_out(&world, &machine, &second).await;
    assert_cast_out(&world, &machine, &first).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_ended_certificate_is_good_for_renewal_only() {
    let hour = Duration::from_secs(3_600);
    let world = World::behind(hour).await;
    let (machine, first) = world.registered().await;
    let mut session = Session::begin(&world, &first, Vec::new()).await.expect("open");
    let key = session.assigned().await;
    session.say(running(&key)).await;
    session.beats(1).await;

    world.clock.set_wall_on(hour);
    let end = session.ended(CUT_OFF).await;
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::Unauthenticated, "certificate_ended")
    );
    world.assert_no_streams(&first, "certificate_ended").await;
    let other = world.renew(&first, &new_key()).await;
    assert_eq!(other.err().expect("another key").code(), Code::PermissionDenied);
    let second = world
        .renew(&first, &first.key)
        .await
        .expect("it holds an attempt");
    assert_eq!(generation(&second), "2");

    // With the new certificate the attempt goes on to its end.
    let held = v1::HeldAttempt {
        key: Some(key.clone()),
        state: v1::HeldState::Running.into(),
        output_end: 0,
    };
    let mut session = Session::begin(&world, &second, vec![held]).await.expect("open");
    session.say(result(&key, 0)).await;
    assert_eq!(session.verdict().await, v1::ResultVerdict::Applied);

    // Without an attempt there is no reason to renew what has ended.
    world.clock.set_wall_on(hour);
    session.ended(CUT_OFF).await;
    let late = world.renew(&second, &second.key).await;
    assert_eq!(late.err().expect("idle").code(), Code::PermissionDenied);
    world.assert_no_streams(&second, "certificate_ended").await;
    assert!(!world.events().await.iter().any(revoked(machine.worker)));
}

#[tokio::test]
async fn test_worker_registration_with_otp_renewal_needs_an_honest_request() {
    let world = World::new().await;
    let (machine, identity) = world.registered().await;
    let mut forged = request(&identity.key);
    *forged.last_mut().expect("bytes") ^= 1;
    let huge = vec![0x30; 20 << 10];
    let forging = [forged, Vec::new(), b"no request".to_vec(), huge].map(|csr_der| {
        let (world, identity) = (&world, &identity);
        async move {
            let mut agent = world.agent(Some(identity)).await;
            let asked = v1::RenewCertificateRequest { csr_der };
            agent.renew_certificate(asked).await
        }
    });
    for refused in join_all(forging).await {
        assert_eq!(refused.expect_err("forged").code(), Code::PermissionDenied);
    }
    let known = world.platform.workers.identity(machine.worker).await;
    let known = known.expect("read").expect("there");
    assert_eq!((known.generation, known.revoked), (1, false));
    let renewed = world.renew(&identity, &Arc::clone(&identity.key)).await;
    assert_eq!(generation(&renewed.expect("the same key may go on")), "2");
}
