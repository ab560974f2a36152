//! What the planner sees.

use hodei_shared::ids::{JobId, Namespace, ProviderId, WorkerId};
use hodei_shared::resources::Resources;

use crate::job::shape::Shape;
use crate::provider::{Capabilities, Health};

/// Everything that a plan is made from.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The claimable jobs by shape.
    pub shapes: Vec<ShapeQueue>,
    /// Workers that are not gone.
    pub workers: Vec<WorkerRoom>,
    /// Configured providers.
    pub providers: Vec<ProviderRoom>,
}

/// The claimable jobs of one shape.
#[derive(Debug, Clone)]
pub struct ShapeQueue {
    /// What they have in common.
    pub shape: Shape,
    /// The first of them, oldest first; never empty, at most 1,000.
    pub heads: Vec<QueuedJob>,
}

/// A claimable job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuedJob {
    /// The job.
    pub id: JobId,
    /// Since when it could run.
    pub ready_at_ms: i64,
}

/// How a worker stands for the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerReadiness {
    /// Connected and taking jobs.
    Ready,
    /// Planned, starting, or connected before and expected back.
    Coming,
    /// Takes no more jobs.
    Draining,
}

/// One worker and its room.
#[derive(Debug, Clone)]
pub struct WorkerRoom {
    /// The worker.
    pub id: WorkerId,
    /// Whose jobs it runs.
    pub namespace: Namespace,
    /// Where it is.
    pub provider: ProviderId,
    /// Whether it takes jobs.
    pub readiness: WorkerReadiness,
    /// Slots that are not in use.
    pub free_slots: u32,
}

/// One provider and its room.
#[derive(Debug, Clone)]
pub struct ProviderRoom {
    /// The provider.
    pub id: ProviderId,
    /// What it can hold.
    pub capabilities: Capabilities,
    /// How it is.
    pub health: Health,
    /// Why it takes no new work, if somebody said so.
    pub drained: Option<String>,
    /// What its attempts use.
    pub used: Resources,
    /// Workers there that are not gone.
    pub workers: u32,
}
