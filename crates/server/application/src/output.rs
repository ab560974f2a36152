//! Use cases over output: workers bring it in batches, readers take it from any position, stored and live.
//!
//! Large batches go straight into objects, small ones into rows of the store, which the compactor moves into objects
//! later (`control/compact.rs`); a reader sees the same pieces wherever they are.
//!
//! Invariants: ingestion never waits for a reader; a reader pulls from the store, and a slow one is only late · an
//! object is durable before a block of it is stored · at most one page and one block are in a reader's memory.

pub(crate) mod block;
mod ingest;
mod read;

pub use ingest::{Ingested, ingest};
pub use read::{Read, Reader, open, pieces};
