//! The port over sealed values: the authority's keys, encrypted before they come here.

use async_trait::async_trait;

use super::StoreError;

/// A small table of sealed values by name.
#[async_trait]
pub trait SealedStore: Send + Sync + 'static {
    /// The value with this name.
    async fn get_sealed(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Stores a value unless there is one; the value that stands afterwards.
    async fn put_sealed_first(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError>;
}
