//! Objects of output: they outlast the server, and writing them takes time in which it may crash.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::objects::OutputObjects;
use hodei_shared::ids::ObjectId;

use super::world::World;

/// From how many bytes on output goes straight into an object here.
pub(super) const OBJECT_BYTES: usize = 30 << 10;

pub(super) struct SimObjects {
    world: Arc<World>,
    objects: Mutex<BTreeMap<ObjectId, Vec<u8>>>,
}

impl SimObjects {
    pub(super) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            objects: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectId, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that an operation takes, and whether it fails.
    async fn takes(&self) -> Result<(), StoreError> {
        tokio::time::sleep(self.world.some_ms(20)).await;
        match self.world.happens(self.world.faults.lose_frame) {
            true => Err(StoreError::Unavailable("a fault".to_owned())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl OutputObjects for SimObjects {
    async fn put(&self, id: ObjectId, mut bytes: Vec<u8>) -> Result<(), StoreError> {
        self.takes().await.inspect_err(|_| {
            // A part may be there.
            bytes.truncate(bytes.len() / 2);
            self.lock().insert(id, bytes.clone());
        })?;
        self.world.note(format!("an object of {} bytes", bytes.len()));
        if self.lock().insert(id, bytes).is_some() {
            self.world.broke(format!("object {id} is written twice"));
        }
        // Durable, and the server does not know it yet.
        self.takes().await
    }

    async fn read(&self, id: ObjectId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let objects = self.lock();
        let bytes = objects.get(&id).and_then(|bytes| bytes.get(start..));
        bytes
            .and_then(|bytes| bytes.get(..len))
            .map(<[u8]>::to_vec)
            .ok_or_else(|| StoreError::Internal(format!("there is no such part of object {id}")))
    }

    async fn remove(&self, id: ObjectId) -> Result<(), StoreError> {
        self.takes().await?;
        self.lock().remove(&id);
        Ok(())
    }

    async fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, StoreError> {
        let objects = self.lock();
        let newer = objects.keys().filter(|id| after.is_none_or(|after| **id > after));
        Ok(newer.take(limit).copied().collect())
    }
}
