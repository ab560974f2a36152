//! The port over client tokens.

use async_trait::async_trait;
use hodei_shared::ids::Namespace;

use super::StoreError;

/// A token as it is stored: never the secret, only its keyed hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Public part of `hodei_tok_ID_SECRET`.
    pub id: String,
    /// Keyed hash of the secret.
    pub secret_hash: [u8; 32],
    /// Where its holder acts when nothing else is named.
    pub namespace: Namespace,
    /// It is no longer valid.
    pub revoked: bool,
}

/// Client tokens. Cluster admin is the only role today, so every token is one of an admin.
#[async_trait]
pub trait TokenStore: Send + Sync + 'static {
    /// The token with this public id.
    async fn find(&self, id: &str) -> Result<Option<TokenRecord>, StoreError>;

    /// Stores a token unless there is one already that is valid; true if it was stored.
    async fn create_first(&self, token: TokenRecord) -> Result<bool, StoreError>;
}
