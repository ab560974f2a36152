//! Objects in memory, stricter than any real place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hodei_shared::ids::ObjectId;

use crate::ports::StoreError;
use crate::ports::objects::OutputObjects;

/// Objects in an ordered map. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryObjects {
    inner: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectId, Vec<u8>>,
    fail_next: Option<StoreError>,
}

impl MemoryObjects {
    /// The next put fails with `error` and writes nothing.
    pub fn fail_next(&self, error: StoreError) {
        self.lock().fail_next = Some(error);
    }

    /// All ids, in order.
    pub fn ids(&self) -> Vec<ObjectId> {
        self.lock().objects.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl OutputObjects for MemoryObjects {
    async fn put(&self, id: ObjectId, bytes: Vec<u8>) -> Result<(), StoreError> {
        let mut state = self.lock();
        if let Some(error) = state.fail_next.take() {
            return Err(error);
        }
        let before = state.objects.insert(id, bytes);
        assert!(before.is_none(), "object {id} is written twice");
        Ok(())
    }

    async fn read(&self, id: ObjectId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let state = self.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = state.objects.get(&id).and_then(|bytes| bytes.get(start..));
        bytes
            .and_then(|bytes| bytes.get(..len))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| StoreError::Internal(format!("there is no such part of object {id}")))
    }

    async fn remove(&self, id: ObjectId) -> Result<(), StoreError> {
        self.lock().objects.remove(&id);
        Ok(())
    }

    async fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, StoreError> {
        let state = self.lock();
        let newer = state
            .objects
            .keys()
            .filter(|id| after.is_none_or(|after| **id > after));
        Ok(newer.take(limit).copied().collect())
    }
}
