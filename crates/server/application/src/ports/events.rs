//! The port over the event log.

use async_trait::async_trait;
use hodei_server_domain::event::Event;
use hodei_shared::ids::JobId;
use tokio::sync::watch;

use super::StoreError;

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Gap-free, in commit order, from 1.
    pub position: u64,
    /// Store time of the commit.
    pub at_ms: i64,
    /// What happened.
    pub event: Event,
}

/// The event log. Other ports append to it in their own transactions.
#[async_trait]
pub trait EventBus: Send + Sync + 'static {
    /// Appends events that belong to no other change.
    async fn append(&self, events: Vec<Event>) -> Result<(), StoreError>;

    /// Events after `position`, at most `limit`, in order.
    async fn after(&self, position: u64, limit: usize) -> Result<Vec<EventRecord>, StoreError>;

    /// The events of one job, in order, at most 1,000.
    async fn of_job(&self, job: JobId) -> Result<Vec<EventRecord>, StoreError>;

    /// A hint that changes after each commit that changed a job, a worker or output. Only a hint: whoever waits
    /// for it also polls.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Like [`EventBus::changes`], for one job and its output; may also change for others.
    fn changes_of(&self, _job: JobId) -> watch::Receiver<u64> {
        self.changes()
    }
}
