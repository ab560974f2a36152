//! What the application needs from outside, as traits. Ports are operations, not tables: they take batches and
//! return an outcome for each element. A lost race is an outcome; [`StoreError`] means that nothing is known or
//! nothing was done.

pub mod authority;
pub mod drains;
pub mod events;
pub mod input;
pub mod jobs;
pub mod link;
pub mod objects;
pub mod output;
pub mod provider;
pub mod retention;
pub mod sealed;
pub mod tokens;
pub mod workers;

use thiserror::Error;

pub use hodei_shared::ports::{BoxFuture, Clock, Rng, Spawner};

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The disk is full. Nothing of the batch was stored; what was acknowledged before stands.
    #[error("the disk of the store is full")]
    Full,
    /// The store does not answer now; it is not known whether the batch was stored.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// A bug or a damaged store. Nothing of the batch was stored.
    #[error("the store failed: {0}")]
    Internal(String),
}

impl StoreError {
    /// Whether the same batch may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Full | Self::Unavailable(_) => true,
            Self::Internal(_) => false,
        }
    }
}
