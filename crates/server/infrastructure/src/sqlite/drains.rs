//! Providers that take no new work.

use std::collections::BTreeMap;

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::drains::ProviderDrains;
use hodei_server_domain::event::Event;
use hodei_shared::ids::ProviderId;
use rusqlite::params;

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::value::name;

/// What these events belong to: no namespace.
const GLOBAL: &str = "";

impl Change<'_> {
    /// Drains a provider for the reason that is given, or resumes it; false if it was so.
    pub(super) fn set_drain(
        &mut self,
        provider: &ProviderId,
        reason: Option<&str>,
    ) -> rusqlite::Result<bool> {
        let changed = match reason {
            Some(message) => self
                .connection
                .prepare_cached(
                    "INSERT INTO provider_drain (provider, message, at) VALUES (?1, ?2, ?3)
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![provider.as_str(), message, self.now_ms])?,
            None => self
                .connection
                .prepare_cached("DELETE FROM provider_drain WHERE provider = ?1")?
                .execute([provider.as_str()])?,
        };
        if changed == 0 {
            return Ok(false);
        }
        let provider = provider.clone();
        let event = match reason {
            Some(message) => Event::ProviderDrained {
                provider,
                message: message.to_owned(),
            },
            None => Event::ProviderResumed { provider },
        };
        self.event(GLOBAL, event);
        Ok(true)
    }
}

#[async_trait]
impl ProviderDrains for SqliteStore {
    async fn drains(&self) -> Result<BTreeMap<ProviderId, String>, StoreError> {
        self.read(|connection| {
            let mut select = connection.prepare_cached("SELECT provider, message FROM provider_drain")?;
            select
                .query_map([], |row| Ok((name(row, 0)?, row.get(1)?)))?
                .collect()
        })
        .await
    }

    async fn drain_provider(&self, provider: ProviderId, message: String) -> Result<bool, StoreError> {
        perform!(self, Op::SetDrain(provider, Some(message)), SetDrain)
    }

    async fn resume_provider(&self, provider: ProviderId) -> Result<bool, StoreError> {
        perform!(self, Op::SetDrain(provider, None), SetDrain)
    }
}
