//! Drained providers.

use hodei_shared::ids::ProviderId;

use super::Fixture;

/// A drain stays, with its first reason, until it is taken back; each change has one event.
pub async fn provider_drains(store: Fixture) {
    let local = || ProviderId::new("local").expect("a valid name");
    let drain = |why: &str| store.drains.drain_provider(local(), why.to_owned());
    assert!(store.drains.drains().await.expect("read").is_empty());
    assert!(!store.drains.resume_provider(local()).await.expect("stored"));
    assert!(drain("repairs").await.expect("stored"));
    assert!(!drain("other").await.expect("stored"));
    let drains = store.drains.drains().await.expect("read");
    assert_eq!(drains, [(local(), "repairs".to_owned())].into());
    assert!(store.drains.resume_provider(local()).await.expect("stored"));
    assert!(store.drains.drains().await.expect("read").is_empty());
    assert_eq!(store.kinds().await, ["ProviderDrained", "ProviderResumed"]);
}
