//! One-time passwords and certificates.

use futures::future::join_all;
use hodei_server_domain::event::Event;
use hodei_server_domain::worker::identity::{RenewalRefusal, RenewalRequest};
use hodei_server_domain::worker::otp::{OtpRefusal, SpkiHash};
use hodei_server_domain::worker::phase::WorkerPhase;
use hodei_shared::ids::WorkerId;

use super::Fixture;
use super::kit::*;
use crate::ports::workers::{RedeemOutcome, RenewOutcome, SessionOutcome, WorkerChange};

/// Every decision of a redemption, with its events.
pub async fn redemptions(store: Fixture) {
    let worker = store.planned(1, 1).await;
    assert_eq!(
        store.redeem(1, 1, true).await,
        RedeemOutcome::Refused(OtpRefusal::Unknown)
    );
    let creating = WorkerChange::Creating {
        worker,
        otp_id: otp_id(1),
        secret_hash: [1; 32],
    };
    assert!(store.change(creating).await);
    assert_eq!(store.redeem(1, 1, true).await, RedeemOutcome::TryAgain);
    assert_eq!(
        store.redeem(1, 1, false).await,
        RedeemOutcome::Refused(OtpRefusal::WrongSecret)
    );
    assert!(
        store
            .change(WorkerChange::Started {
                worker,
                machine: "m".into()
            })
            .await
    );
    assert_eq!(
        store.redeem(1, 1, false).await,
        RedeemOutcome::Refused(OtpRefusal::WrongSecret)
    );
    assert_eq!(store.worker(worker).await.phase, WorkerPhase::Starting);

    let RedeemOutcome::Issued(chain) = store.redeem(1, 1, true).await else {
        panic!("the password is armed");
    };
    assert_eq!(chain, certificate(1, 1, 0).chain);
    let identity = store
        .workers
        .identity(worker)
        .await
        .expect("read")
        .expect("it registered");
    assert_eq!((identity.generation, identity.spki), (1, SpkiHash([1; 32])));
    assert_eq!(identity.not_after_ms, store.now() + 1_800_000);
    assert!(!identity.revoked && !identity.has_live_attempt);
    store.advance_ms(1_000);
    assert_eq!(
        store.redeem(1, 1, true).await,
        RedeemOutcome::Repeated(chain),
        "the same bytes again"
    );
    assert_eq!(store.redeem(1, 2, true).await, RedeemOutcome::Reused(worker));
    assert_eq!(
        store.redeem(1, 1, true).await,
        RedeemOutcome::Refused(OtpRefusal::Revoked)
    );
    let record = store.worker(worker).await;
    assert!(record.revoked && record.phase == WorkerPhase::Draining);

    store.starting(2, 1).await;
    store.advance_ms(120_001);
    assert_eq!(
        store.redeem(2, 2, true).await,
        RedeemOutcome::Refused(OtpRefusal::Expired)
    );

    let events = store.all_events().await;
    let refusals: Vec<OtpRefusal> = events
        .iter()
        .filter_map(|event| match event {
            Event::OtpRefused { why, .. } => Some(*why),
            _ => None,
        })
        .collect();
    use OtpRefusal::{Expired, Revoked, Unknown, WrongSecret};
    assert_eq!(refusals, [Unknown, WrongSecret, WrongSecret, Revoked, Expired]);
    assert!(events.contains(&Event::OtpReused { worker }));
    assert_eq!(
        events
            .iter()
            .filter(|e| matches!(e, Event::WorkerRegistered { .. }))
            .count(),
        1
    );
    assert_eq!(
        events
            .iter()
            .filter(|e| matches!(e, Event::IdentityRevoked { .. }))
            .count(),
        1
    );

    let long = crate::ports::workers::Redeem {
        otp_id: "x".repeat(10_000),
        secret_matches: false,
        candidate: certificate(1, 1, 0),
    };
    store.workers.redeem(long).await.expect("stored");
    let last = store.all_events().await.pop();
    assert!(
        matches!(last, Some(Event::OtpRefused { otp_id, .. }) if otp_id.len() < 100),
        "ids are shortened"
    );
}

/// Redemptions with one key at one time get one certificate.
pub async fn concurrent_redemptions(store: Fixture) {
    store.starting(1, 1).await;
    let outcomes = join_all((0..20).map(|_| store.redeem(1, 1, true))).await;
    let issued = outcomes
        .iter()
        .filter(|o| matches!(o, RedeemOutcome::Issued(_)))
        .count();
    let repeated = outcomes
        .iter()
        .filter(|o| matches!(o, RedeemOutcome::Repeated(_)))
        .count();
    assert_eq!((issued, repeated), (1, 19));
    let registered = store
        .kinds()
        .await
        .iter()
        .filter(|k| **k == "WorkerRegistered")
        .count();
    assert_eq!(registered, 1);
}

fn request(generation: u64, shown: u8, new: u8, not_after_ms: i64) -> RenewalRequest {
    RenewalRequest {
        shown_generation: generation,
        shown_spki: SpkiHash([shown; 32]),
        new_spki: SpkiHash([new; 32]),
        shown_not_after_ms: not_after_ms,
        now_ms: 0,
    }
}

async fn renew(store: &Fixture, worker: WorkerId, request: RenewalRequest) -> RenewOutcome {
    let spki = request.new_spki.0[0];
    let candidate = certificate(spki, request.shown_generation + 1, store.now() + 1_800_000);
    let request = RenewalRequest {
        now_ms: store.now(),
        ..request
    };
    store
        .workers
        .renew(worker, request, candidate)
        .await
        .expect("stored")
}

/// At half-life, after a lost reply, and after the end with a live attempt.
pub async fn renewals(store: Fixture) {
    let worker = store.ready(1, 1).await;
    let first_end = store.now() + 1_800_000;
    store.advance_ms(900_000);
    let next = request(1, 1, 11, first_end);
    assert_eq!(
        renew(&store, worker, next).await,
        RenewOutcome::Issued(certificate(11, 2, 0).chain)
    );
    assert_eq!(
        renew(&store, worker, next).await,
        RenewOutcome::Repeated(certificate(11, 2, 0).chain)
    );
    let identity = store
        .workers
        .identity(worker)
        .await
        .expect("read")
        .expect("it registered");
    assert_eq!((identity.generation, identity.spki), (2, SpkiHash([11; 32])));
    assert_eq!(
        store.begin(worker, 1, 1).await,
        SessionOutcome::Began(2),
        "the reply may have been lost"
    );
    assert_eq!(store.begin(worker, 2, 1).await, SessionOutcome::Began(3));

    let second_end = store.now() + 1_800_000;
    store.advance_ms(1_800_001);
    let late = request(2, 11, 11, second_end);
    assert_eq!(
        renew(&store, worker, late).await,
        RenewOutcome::Refused(RenewalRefusal::Expired),
        "it is idle"
    );
    store.running(1, worker).await;
    assert!(
        store
            .workers
            .identity(worker)
            .await
            .expect("read")
            .expect("it registered")
            .has_live_attempt
    );
    let other_key = request(2, 11, 12, second_end);
    assert_eq!(
        renew(&store, worker, other_key).await,
        RenewOutcome::Refused(RenewalRefusal::OtherKey)
    );
    assert_eq!(
        renew(&store, worker, late).await,
        RenewOutcome::Issued(certificate(11, 3, 0).chain)
    );
    assert_eq!(
        store.begin(worker, 1, 1).await,
        SessionOutcome::Refused,
        "two generations ago"
    );

    assert_eq!(
        renew(&store, worker_id(9), late).await,
        RenewOutcome::NoSuchWorker
    );
    let unregistered = store.starting(2, 1).await;
    assert_eq!(
        renew(&store, unregistered, late).await,
        RenewOutcome::NoSuchWorker
    );
    assert!(
        store
            .change(WorkerChange::Gone {
                worker,
                message: "g".into()
            })
            .await
    );
    assert_eq!(
        renew(&store, worker, request(3, 11, 13, second_end)).await,
        RenewOutcome::NoSuchWorker
    );
}

/// A renewal from an older generation is theft: the identity ends.
pub async fn stolen_renewals(store: Fixture) {
    let worker = store.ready(1, 1).await;
    let end = store.now() + 1_800_000;
    assert!(matches!(
        renew(&store, worker, request(1, 1, 11, end)).await,
        RenewOutcome::Issued(_)
    ));
    assert_eq!(
        renew(&store, worker, request(1, 1, 66, end)).await,
        RenewOutcome::Stolen
    );
    let record = store.worker(worker).await;
    assert!(record.revoked && record.phase == WorkerPhase::Draining);
    assert!(store.kinds().await.contains(&"IdentityRevoked"));
    let next = renew(&store, worker, request(2, 11, 12, end)).await;
    assert_eq!(next, RenewOutcome::Refused(RenewalRefusal::Revoked));
    assert_eq!(store.begin(worker, 2, 1).await, SessionOutcome::Refused);
}
