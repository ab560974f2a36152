//! What a one-time password is good for, and what everybody else hears.

use std::time::Duration;

use futures::future::join_all;
use hodei_server_domain::event::Event;
use hodei_server_domain::worker::otp::OtpRefusal;
use hodei_server_domain::worker::phase::WorkerPhase;
use rcgen::KeyPair;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use tonic::{Code, Status};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::client::{
    Heard, Identity, OutputStream, Session, assert_cast_out, assert_vague, new_key, reason, redeem, request,
};
use crate::world::{CUT_OFF, World, eventually, public_id};

/// A little longer than a password, or a stored certificate, is handed out.
const TOO_LATE: Duration = Duration::from_secs(121);
const JUST_IN_TIME: Duration = Duration::from_secs(110);

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).expect("DER").1
}

#[tokio::test]
async fn test_worker_registration_with_otp_gives_one_certificate() {
    let world = World::new().await;
    let (machine, identity) = world.registered().await;
    let [leaf, intermediate] = identity.chain.as_slice() else {
        panic!("{} certificates", identity.chain.len());
    };
    let (leaf, intermediate) = (parsed(leaf), parsed(intermediate));

    let names = leaf.subject_alternative_name().expect("readable").expect("there");
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        panic!("{:?}", names.value);
    };
    let cluster = world.authority.cluster();
    assert_eq!(*uri, format!("spiffe://{cluster}/worker/{}", machine.worker));

    let usage = leaf.extended_key_usage().expect("readable").expect("there").value;
    assert!(usage.client_auth);
    assert!(!usage.any && !usage.server_auth && !usage.code_signing && !usage.email_protection);
    assert!(!usage.time_stamping && !usage.ocsp_signing && usage.other.is_empty());
    assert!(!leaf.is_ca());

    let now_s = hodei_shared::ports::Clock::now_ms(world.clock.as_ref()) / 1_000;
    let past_s = now_s - leaf.validity().not_before.timestamp();
    let left_s = leaf.validity().not_after.timestamp() - now_s;
    assert!((300..=330).contains(&past_s), "begins {past_s} s in the past");
    assert!((1_700..=1_800).contains(&left_s), "is valid for {left_s} s");

    assert_eq!(
        leaf.public_key().raw,
        rcgen::PublicKeyData::subject_public_key_info(&*identity.key)
    );
    let root = rustls_pki_types::CertificateDer::from_pem_slice(world.authority.root_pem().as_bytes());
    let root = root.expect("PEM");
    leaf.verify_signature(Some(intermediate.public_key()))
        .expect("the intermediate signed it");
    intermediate
        .verify_signature(Some(parsed(&root).public_key()))
        .expect("the root signed that");

    let record = world.platform.workers.get(machine.worker).await;
    let record = record.expect("read").expect("there");
    assert_eq!((record.phase, record.revoked), (WorkerPhase::Ready, false));
    let registered = Event::WorkerRegistered {
        worker: machine.worker,
    };
    assert_eq!(count(&world, &registered).await, 1);
}

async fn count(world: &World, event: &Event) -> usize {
    let events = world.events().await;
    events.iter().filter(|other| *other == event).count()
}

#[tokio::test]
async fn test_worker_registration_with_otp_repeats_a_lost_reply_for_a_while() {
    let world = World::new().await;
    let (machine, identity) = world.registered().await;
    let again = async || world.redeem(&machine.otp, request(&identity.key)).await;
    assert_eq!(again().await.expect("repeated"), identity.chain);
    world.clock.set_wall_on(JUST_IN_TIME);
    assert_eq!(again().await.expect("repeated"), identity.chain);
    world.clock.set_wall_on(TOO_LATE - JUST_IN_TIME);
    assert_vague(&again().await.expect_err("too late"));
    world
        .happened("the refusal", |event| {
            matches!(event, Event::OtpRefused { otp_id, why: OtpRefusal::Expired } if otp_id == public_id(&machine.otp))
        })
        .await;
    // Too late is no theft: the worker goes on.
    let mut session = Session::begin(&world, &identity, Vec::new()).await.expect("open");
    session.beats(1).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_by_another_key_is_theft() {
    let world = World::new().await;
    let (machine, identity) = world.registered().await;
    let mut session = Session::begin(&world, &identity, Vec::new()).await.expect("open");
    session.assigned().await;
    let mut output = OutputStream::begin(&world, &identity).await.expect("open");

    let thief = world.redeem(&machine.otp, request(&new_key())).await;
    assert_vague(&thief.expect_err("a thief"));

    session.ended(CUT_OFF).await;
    let cut = output.next(CUT_OFF).await.expect_err("cut off");
    assert_eq!(cut.code(), Code::Unauthenticated);
    let worker = machine.worker;
    assert_eq!(count(&world, &Event::OtpReused { worker }).await, 1);
    assert_eq!(Event::OtpReused { worker }.kind(), "otp_reused");
    world
        .happened(
            "the revocation",
            |event| matches!(event, Event::IdentityRevoked { worker, .. } if *worker == machine.worker),
        )
        .await;
    assert_cast_out(&world, &machine, &identity).await;
    // Neither key gets anything for it any more.
    for key in [&identity.key, &new_key()] {
        let refused = world.redeem(&machine.otp, request(key)).await;
        assert_vague(&refused.expect_err("revoked"));
    }
    let refused = |event: &Event| {
        matches!(
            event,
            Event::OtpRefused {
                why: OtpRefusal::Revoked,
                ..
            }
        )
    };
    world.happened("the refusals", refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_worker_registration_with_otp_by_two_keys_at_once_leaves_nobody_in() {
    let world = World::new().await;
    let machine = world.machine().await;
    let keys = [new_key(), new_key()];
    let redeeming = keys.iter().map(|key| world.redeem(&machine.otp, request(key)));
    let outcomes: Vec<Result<Vec<Vec<u8>>, Status>> = join_all(redeeming).await;
    let won: Vec<_> = keys
        .iter()
        .zip(&outcomes)
        .filter_map(|(key, outcome)| Some((key, outcome.as_ref().ok()?)))
        .collect();
    let [(key, chain)] = won.as_slice() else {
        panic!("{} keys have a certificate", won.len());
    };
    let first = Identity {
        key: std::sync::Arc::clone(key),
        chain: (*chain).clone(),
    };
    let loser = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
    assert_vague(loser.expect("one of two"));
    let worker = machine.worker;
    assert_eq!(count(&world, &Event::OtpReused { worker }).await, 1);
    assert_cast_out(&world, &machine, &first).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_waits_for_the_machine_to_be_confirmed() {
    let world = World::new().await;
    world.provider.hold_starts();
    world.queue(&["true"]).await;
    let machine = world.asked_for().await;
    let key = new_key();
    for _ in 0..3 {
        let early = world.redeem(&machine.otp, request(&key)).await;
        let early = early.expect_err("too early");
        assert_eq!(
            (early.code(), reason(&early).as_str()),
            (Code::Unavailable, "try_again")
        );
    }
    // Only who knows the secret hears that.
    let guessed = format!("hodei_otp_{}_guessed", public_id(&machine.otp));
    assert_vague(&world.redeem(&guessed, request(&key)).await.expect_err("a guess"));
    world.provider.let_start();
    let chain = eventually("the certificate", async || {
        match world.redeem(&machine.otp, request(&key)).await {
            Ok(chain) => Some(chain),
            Err(early) => {
                assert_eq!(reason(&early), "try_again", "{early}");
                None
            }
        }
    })
    .await;
    let identity = Identity { key, chain };
    let mut session = Session::begin(&world, &identity, Vec::new()).await.expect("open");
    session.beats(1).await;
}

#[tokio::test]
async fn test_worker_registration_with_otp_tells_a_stranger_nothing() {
    let world = World::new().await;
    let machine = world.machine().await;
    let id = public_id(&machine.otp).to_owned();
    let secret = machine.otp.rsplit('_').next().expect("a secret");
    let good = request(&new_key());
    let long = "x".repeat(15 << 10);
    let cases = [
        (
            "another secret",
            format!("hodei_otp_{id}_{}", secret.replace('0', "1") + "a"),
        ),
        ("no secret", format!("hodei_otp_{id}_")),
        ("an unknown id", format!("hodei_otp_unknown_{secret}")),
        ("a token", format!("hodei_tok_{id}_{secret}")),
        ("garbage", "\u{0}\u{1F980} ' OR 1=1 --".to_owned()),
        ("nothing", String::new()),
        ("much", format!("hodei_otp_{id}_{long}")),
        ("more than the door takes", format!("hodei_otp_{id}_{long}{long}")),
        ("far more", "x".repeat(5 << 20)),
    ];
    let mut heard = Vec::new();
    for (name, otp) in &cases {
        let refused = world.redeem(otp, good.clone()).await.expect_err(name);
        heard.push((*name, Heard::from(&refused)));
    }
    world.clock.set_wall_on(TOO_LATE);
    let late = world.redeem(&machine.otp, good).await.expect_err("too late");
    assert_vague(&late);
    let want = Heard::from(&late);
    for (name, heard) in heard {
        assert_eq!(heard, want, "{name}");
    }

    let of = |why, otp_id: &str| Event::OtpRefused {
        otp_id: otp_id.to_owned(),
        why,
    };
    for (event, times) in [
        (of(OtpRefusal::WrongSecret, &id), 1),
        (of(OtpRefusal::Unknown, "unknown"), 1),
        (of(OtpRefusal::Unknown, ""), 5),
        (of(OtpRefusal::Expired, &id), 1),
    ] {
        assert_eq!(count(&world, &event).await, times, "{event:?}");
    }
    let said = format!("{:?}", world.events().await);
    assert!(!said.contains(secret), "the event log tells the secret");
}

#[tokio::test]
async fn test_worker_registration_with_otp_of_an_ended_machine_is_refused() {
    let world = World::new().await;
    let machine = world.machine().await;
    world.provider.exit_unseen(machine.worker);
    let refused = world.redeem(&machine.otp, request(&new_key())).await;
    assert_vague(&refused.expect_err("its machine has ended"));
    let otp_id = public_id(&machine.otp);
    world
        .happened(
            "the refusal",
            |event| matches!(event, Event::OtpRefused { otp_id: other, .. } if other == otp_id),
        )
        .await;
    let identity = world.platform.workers.identity(machine.worker).await;
    assert_eq!(identity.expect("read"), None);
}

#[tokio::test]
async fn test_worker_registration_with_otp_needs_an_honest_request() {
    let world = World::new().await;
    let machine = world.machine().await;
    let key = new_key();
    let good = request(&key);
    let mut forged = good.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    // The key of one request with the signature of another.
    let mut grafted = good.clone();
    let other = request(&new_key());
    let spki = |key: &KeyPair| rcgen::PublicKeyData::subject_public_key_info(key);
    let at = position(&grafted, &spki(&key)).expect("the key is in it");
    let foreign = new_key();
    grafted[at..at + spki(&key).len()].copy_from_slice(&spki(&foreign));
    let rsa = CertificateSigningRequestDer::from_pem_slice(include_bytes!("rsa_request.pem")).expect("PEM");
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("made");
    let cases = [
        ("nothing", Vec::new()),
        ("garbage", b"no request".to_vec()),
        ("half of one", good[..good.len() / 2].to_vec()),
        ("one with something behind", [&good[..], &other[..]].concat()),
        ("another signature", forged),
        ("another key", grafted),
        ("an RSA key", rsa.to_vec()),
        ("a P-384 key", request(&p384)),
    ];
    let unknown = format!("{}x", machine.otp);
    let want = Heard::from(
        &world
            .redeem(&unknown, good.clone())
            .await
            .expect_err("another secret"),
    );
    for (name, csr) in &cases {
        let refused = world.redeem(&machine.otp, csr.clone()).await;
        assert_eq!(Heard::from(&refused.expect_err(name)), want, "{name}");
    }
    let bad = Event::OtpRefused {
        otp_id: public_id(&machine.otp).to_owned(),
        why: OtpRefusal::BadRequest,
    };
    assert_eq!(count(&world, &bad).await, cases.len());
    // None of them has used the password up.
    world.redeem(&machine.otp, good).await.expect("registered");
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_worker_registration_with_otp_by_a_thousand_calls_of_one_key_makes_one_certificate() {
    const CALLS: usize = 1_000;
    let world = World::new().await;
    let machine = world.machine().await;
    let csr = request(&new_key());
    let mut agents = Vec::new();
    for _ in 0..8 {
        agents.push(world.agent(None).await);
    }
    let calls = (0..CALLS).map(|n| {
        let (mut agent, otp, csr) = (agents[n % agents.len()].clone(), machine.otp.clone(), csr.clone());
        async move {
            let mut turned_away = 0_u64;
            loop {
                match redeem(&mut agent, &otp, csr.clone()).await {
                    Ok(chain) => return (chain, turned_away),
                    Err(full) => assert_eq!(
                        (full.code(), reason(&full).as_str()),
                        (Code::Unavailable, "try_again"),
                        "{full}"
                    ),
                }
                turned_away += 1;
                let pause = 5 + (n as u64 * 7 + turned_away * 13) % 50;
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    });
    let answers = join_all(calls).await;
    let first = &answers[0].0;
    let serial = parsed(&first[0]).raw_serial().to_vec();
    assert!(answers.iter().all(|(chain, _)| chain == first));
    let mut serials: Vec<_> = answers
        .iter()
        .map(|(chain, _)| parsed(&chain[0]).raw_serial().to_vec())
        .collect();
    serials.dedup();
    assert_eq!(serials, [serial]);
    let turned_away: u64 = answers.iter().map(|(_, times)| times).sum();
    assert!(turned_away > 0, "the door let all in at once");
    let registered = Event::WorkerRegistered {
        worker: machine.worker,
    };
    assert_eq!(count(&world, &registered).await, 1);
    let known = world.platform.workers.identity(machine.worker).await;
    let known = known.expect("read").expect("there");
    assert_eq!((known.generation, known.revoked), (1, false));
}
