//! Objects: what is written is read, removed once, and listed in order.

use futures::future::join_all;
use hodei_shared::ids::ObjectId;

use crate::ports::StoreError;
use crate::ports::objects::OutputObjects;

/// An object that was made at `at_ms`.
fn id(at_ms: i64, n: u8) -> ObjectId {
    let mut bytes = [n; 16];
    bytes[..6].copy_from_slice(&at_ms.to_be_bytes()[2..]);
    ObjectId::from_bytes(bytes)
}

/// Any part of an object can be read until it is removed.
pub async fn objects_are_kept(place: &dyn OutputObjects) {
    let (first, second) = (id(1_800_000_000_000, 1), id(1_800_000_000_000, 2));
    let bytes: Vec<u8> = (0..=255).collect();
    place.put(first, bytes.clone()).await.expect("written");
    place.put(second, Vec::new()).await.expect("written");
    assert_eq!(place.read(first, 0, 256).await.expect("read"), bytes);
    assert_eq!(place.read(first, 200, 56).await.expect("read"), bytes[200..]);
    assert!(place.read(first, 256, 0).await.expect("read").is_empty());
    assert!(place.read(second, 0, 0).await.expect("read").is_empty());
    for (object, offset, len) in [
        (first, 200, 57),
        (first, 256, 1),
        (second, 0, 1),
        (id(1, 1), 0, 1),
    ] {
        let read = place.read(object, offset, len).await;
        assert!(matches!(read, Err(StoreError::Internal(_))), "{read:?}");
    }
    place.remove(first).await.expect("removed");
    place.remove(first).await.expect("it is gone");
    assert!(place.read(first, 0, 1).await.is_err());
    place.remove(second).await.expect("removed");
    place
        .put(id(1_800_000_000_000, 3), bytes)
        .await
        .expect("written again");
}

/// Ids come in order of time, page by page, also where many were written at once.
pub async fn objects_are_listed(place: &dyn OutputObjects) {
    let list = async |after, limit| place.list(after, limit).await.expect("listed");
    assert_eq!(list(None, 10).await, []);
    const HOUR_MS: i64 = 3_600_000;
    let mut ids: Vec<ObjectId> = (0..60)
        .map(|n| id(1_800_000_000_000 + i64::from(n % 6) * HOUR_MS, n))
        .collect();
    let writes = ids.iter().map(|id| place.put(*id, vec![7; 10]));
    assert!(join_all(writes).await.iter().all(Result::is_ok));
    ids.sort_unstable();
    assert_eq!(list(None, 1_000).await, ids);
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = list(after, 7).await;
        assert!(page.len() >= 7.min(ids.len() - listed.len()), "{page:?}");
        let Some(last) = page.last() else { break };
        after = Some(*last);
        listed.extend(page);
    }
    assert_eq!(listed, ids);
    for id in &ids[..30] {
        place.remove(*id).await.expect("removed");
    }
    assert_eq!(list(None, 1_000).await, ids[30..]);
    assert_eq!(list(Some(ids[40]), 1_000).await, ids[41..]);
    assert_eq!(list(Some(ids[59]), 1_000).await, []);
}
