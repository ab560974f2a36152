//! Providers that take no new work.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use async_trait::async_trait;
use hodei_server_domain::event::Event;
use hodei_shared::ids::ProviderId;

use super::FakeStore;
use crate::ports::StoreError;
use crate::ports::drains::ProviderDrains;

#[async_trait]
impl ProviderDrains for FakeStore {
    async fn drains(&self) -> Result<BTreeMap<ProviderId, String>, StoreError> {
        Ok(self.read(|state| state.drains.clone()))
    }

    async fn drain_provider(&self, provider: ProviderId, message: String) -> Result<bool, StoreError> {
        self.write(|state| {
            let Entry::Vacant(entry) = state.drains.entry(provider.clone()) else {
                return false;
            };
            entry.insert(message.clone());
            state.event(Event::ProviderDrained { provider, message });
            true
        })
    }

    async fn resume_provider(&self, provider: ProviderId) -> Result<bool, StoreError> {
        self.write(|state| {
            let was_drained = state.drains.remove(&provider).is_some();
            if was_drained {
                state.event(Event::ProviderResumed { provider });
            }
            was_drained
        })
    }
}
