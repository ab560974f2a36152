//! The port over providers that take no new work because somebody said so.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hodei_shared::ids::ProviderId;

use super::StoreError;

/// Drained providers. What a person asked for stays until a person takes it back, also over restarts.
#[async_trait]
pub trait ProviderDrains: Send + Sync + 'static {
    /// The drained providers, and why, for people.
    async fn drains(&self) -> Result<BTreeMap<ProviderId, String>, StoreError>;

    /// Drains a provider, with its event; false if it was so before.
    async fn drain_provider(&self, provider: ProviderId, message: String) -> Result<bool, StoreError>;

    /// Lets a provider take work again, with its event; false if it was not drained.
    async fn resume_provider(&self, provider: ProviderId) -> Result<bool, StoreError>;
}
