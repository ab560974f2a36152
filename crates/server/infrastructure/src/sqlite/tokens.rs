//! Client tokens.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::tokens::{TokenRecord, TokenStore};
use rusqlite::{OptionalExtension, params};

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::value::name;

impl Change<'_> {
    pub(super) fn create_first_token(&self, token: &TokenRecord) -> rusqlite::Result<bool> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO token (id, namespace, secret_hash, revoked, created_at)
             SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS (SELECT 1 FROM token WHERE revoked = 0)
             ON CONFLICT DO NOTHING",
        )?;
        let stored = insert.execute(params![
            token.id,
            token.namespace.as_str(),
            token.secret_hash,
            token.revoked,
            self.now_ms
        ])?;
        Ok(stored == 1)
    }
}

#[async_trait]
impl TokenStore for SqliteStore {
    async fn find(&self, id: &str) -> Result<Option<TokenRecord>, StoreError> {
        let id = id.to_owned();
        self.read(move |connection| {
            let mut select = connection
                .prepare_cached("SELECT id, secret_hash, namespace, revoked FROM token WHERE id = ?1")?;
            let found = select.query_row([id], |row| {
                Ok(TokenRecord {
                    id: row.get(0)?,
                    secret_hash: row.get(1)?,
                    namespace: name(row, 2)?,
                    revoked: row.get(3)?,
                })
            });
            found.optional()
        })
        .await
    }

    async fn create_first(&self, token: TokenRecord) -> Result<bool, StoreError> {
        perform!(self, Op::CreateToken(token), CreateToken)
    }
}
