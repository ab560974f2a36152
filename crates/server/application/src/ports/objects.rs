//! The port over objects: immutable files that hold the output of one or several attempts.

use async_trait::async_trait;
use hodei_shared::ids::ObjectId;

use super::StoreError;

/// Where objects are. Ids are unique: an object is written once, read often and removed once.
#[async_trait]
pub trait OutputObjects: Send + Sync + 'static {
    /// Writes an object. Returned means durable, and that its id is listed. An error or a dropped future may leave
    /// a part of the object, which nobody refers to.
    async fn put(&self, id: ObjectId, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// Reads a part of an object.
    ///
    /// # Errors
    /// [`StoreError::Internal`] if there is no such object or it is shorter.
    async fn read(&self, id: ObjectId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;

    /// Removes an object. One that is gone already is no error.
    async fn remove(&self, id: ObjectId) -> Result<(), StoreError>;

    /// Ids after `after`, in order: at least `limit` if there are so many, and those that come with them cheaply.
    /// What is written meanwhile may be missing.
    async fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, StoreError>;
}
