//! Tokens and sealed values.

use futures::future::join_all;
use hodei_shared::ids::Namespace;

use super::Fixture;
use crate::ports::tokens::TokenRecord;

/// The first token is stored once.
pub async fn tokens(store: Fixture) {
    let token = |id: &str, revoked| TokenRecord {
        id: id.to_owned(),
        secret_hash: [7; 32],
        namespace: Namespace::default_namespace(),
        revoked,
    };
    assert!(
        store
            .tokens
            .create_first(token("revoked", true))
            .await
            .expect("stored"),
        "none is valid"
    );
    assert!(
        !store
            .tokens
            .create_first(token("revoked", false))
            .await
            .expect("stored"),
        "the id is taken"
    );
    let ids: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
    let created = join_all(ids.iter().map(|id| store.tokens.create_first(token(id, false)))).await;
    let created: Vec<bool> = created
        .into_iter()
        .map(|result| result.expect("stored"))
        .collect();
    assert_eq!(created.iter().filter(|stored| **stored).count(), 1);
    for (id, stored) in ids.iter().zip(created) {
        let want = stored.then(|| token(id, false));
        assert_eq!(store.tokens.find(id).await.expect("read"), want);
    }
    assert_eq!(
        store.tokens.find("revoked").await.expect("read"),
        Some(token("revoked", true))
    );
}

/// The first value of a name stands.
pub async fn sealed_values(store: Fixture) {
    assert_eq!(store.sealed.get_sealed("ca").await.expect("read"), None);
    let first = vec![0, 1, 255];
    assert_eq!(
        store
            .sealed
            .put_sealed_first("ca", first.clone())
            .await
            .expect("stored"),
        first
    );
    assert_eq!(
        store
            .sealed
            .put_sealed_first("ca", vec![9])
            .await
            .expect("stored"),
        first
    );
    assert_eq!(
        store
            .sealed
            .put_sealed_first("other", Vec::new())
            .await
            .expect("stored"),
        Vec::<u8>::new()
    );
    assert_eq!(store.sealed.get_sealed("ca").await.expect("read"), Some(first));
}
