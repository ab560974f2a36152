//! The event log.

use futures::future::join_all;
use hodei_server_domain::event::Event;
use hodei_server_domain::worker::otp::OtpRefusal;

use super::Fixture;
use super::kit::*;

/// Positions without gaps, in order, from one commit to the next; changes are told.
pub async fn events(store: Fixture) {
    let mut changes = store.events.changes();
    changes.mark_unchanged();
    assert_eq!(store.events.after(0, 10).await.expect("read"), []);
    let refused = |id: &str| Event::OtpRefused {
        otp_id: id.to_owned(),
        why: OtpRefusal::BadRequest,
    };
    store
        .events
        .append(vec![refused("a"), refused("b")])
        .await
        .expect("stored");
    store.events.append(Vec::new()).await.expect("stored");
    store.advance_ms(5);
    let job = store.queued(1, |_| ()).await;
    assert!(
        changes.has_changed().expect("the store lives"),
        "a job was queued"
    );
    changes.mark_unchanged();
    store.applied(by_server(job, cancel())).await;
    changes.changed().await.expect("the store lives");

    let cancelled = store.all_events().await.pop();
    assert!(matches!(cancelled, Some(Event::JobStatusChanged { state, .. }) if state == "cancelled"));
    let all = store.events.after(0, 100).await.expect("read");
    assert_eq!(all.len(), 4);
    assert_eq!(all[0].event, refused("a"));
    assert_eq!(all[2].event, Event::JobCreated { job });
    assert_eq!(all[2].at_ms, store.now());
    assert_eq!(store.events.after(0, 2).await.expect("read"), all[..2]);
    assert_eq!(store.events.after(1, 2).await.expect("read"), all[1..3]);
    assert_eq!(store.events.after(4, 10).await.expect("read"), []);
    assert_eq!(store.events.of_job(job).await.expect("read"), all[2..]);
    assert_eq!(store.events.of_job(job_id(2)).await.expect("read"), []);

    join_all((2..=40).map(|n| store.queued(n, |_| ()))).await;
    assert_eq!(store.all_events().await.len(), 43);
}
