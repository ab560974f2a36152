//! Sealed values by name. They are encrypted before they come here.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::sealed::SealedStore;
use rusqlite::{OptionalExtension, params};

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::value::one;

const GET: &str = "SELECT value FROM sealed WHERE name = ?1";

impl Change<'_> {
    pub(super) fn put_sealed_first(&self, name: &str, value: &[u8]) -> rusqlite::Result<Vec<u8>> {
        self.connection
            .prepare_cached("INSERT INTO sealed (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
            .execute(params![name, value])?;
        self.connection.prepare_cached(GET)?.query_row([name], one)
    }
}

#[async_trait]
impl SealedStore for SqliteStore {
    async fn get_sealed(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let name = name.to_owned();
        self.read(move |connection| connection.prepare_cached(GET)?.query_row([name], one).optional())
            .await
    }

    async fn put_sealed_first(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        perform!(self, Op::PutSealed(name.to_owned(), value), PutSealed)
    }
}
