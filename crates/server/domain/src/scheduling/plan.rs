//! The planner: priority, then order of arrival; never over a provider's capacity, never below an isolation floor.
//!
//! Invariants, each a property test: the sum of what is claimed fits each provider · a worker never gets more
//! jobs than it has slots nor jobs of another namespace · a job is claimed once · work-conserving: if a job is
//! left although a ready worker has a slot and the provider room for it, something of higher order took the room.

use std::collections::BTreeMap;

use hodei_shared::ids::{JobId, Namespace, ProviderId, WorkerId};
use hodei_shared::resources::Resources;

use super::explain::{Verdict, judge};
use super::snapshot::{ProviderRoom, QueuedJob, ShapeQueue, Snapshot, WorkerReadiness};

/// The most claims of one plan; the next pass goes on.
pub const MAX_CLAIMS: usize = 1_000;

/// What should be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Jobs to give to workers, in order.
    pub claims: Vec<Claim>,
    /// Workers to make.
    pub workers: Vec<WantedWorker>,
}

/// A job for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The job.
    pub job: JobId,
    /// The worker.
    pub worker: WorkerId,
}

/// A worker that should be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedWorker {
    /// Where.
    pub provider: ProviderId,
    /// For whose jobs.
    pub namespace: Namespace,
    /// The job that asked for it first.
    pub first_job: JobId,
}

/// The room that is left while a plan is made.
struct Room<'a> {
    provider: &'a ProviderRoom,
    free: Resources,
    free_workers: u32,
    /// Ready workers with free slots, by namespace; the fullest first, so that idle ones can end.
    ready: BTreeMap<&'a Namespace, Vec<(u32, WorkerId)>>,
    /// Slots of workers on their way, by namespace.
    coming: BTreeMap<&'a Namespace, u32>,
}

/// Decides what to do now. Pure: the same snapshot gives the same plan.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut rooms: Vec<Room<'_>> = snapshot.providers.iter().map(|p| room_of(p, snapshot)).collect();
    rooms.sort_by(|a, b| a.provider.id.cmp(&b.provider.id));
    let mut plan = Plan::default();
    // A shape that found no room this pass is not tried again for the jobs behind its head.
    let mut full = vec![false; snapshot.shapes.len()];
    for (index, job) in in_order(&snapshot.shapes) {
        if plan.claims.len() >= MAX_CLAIMS {
            break;
        }
        if !full[index] && !place(&snapshot.shapes[index], job, &mut rooms, &mut plan) {
            full[index] = true;
        }
    }
    plan
}

/// All jobs by priority (highest first), then by time, then by id.
fn in_order(shapes: &[ShapeQueue]) -> Vec<(usize, QueuedJob)> {
    let mut jobs: Vec<(usize, QueuedJob)> = shapes
        .iter()
        .enumerate()
        .flat_map(|(index, queue)| queue.heads.iter().map(move |job| (index, *job)))
        .collect();
    jobs.sort_by_key(|(index, job)| (-i64::from(shapes[*index].shape.priority), job.ready_at_ms, job.id));
    jobs
}

fn room_of<'a>(provider: &'a ProviderRoom, snapshot: &'a Snapshot) -> Room<'a> {
    let mut ready: BTreeMap<&Namespace, Vec<(u32, WorkerId)>> = BTreeMap::new();
    let mut coming: BTreeMap<&Namespace, u32> = BTreeMap::new();
    for worker in snapshot.workers.iter().filter(|w| w.provider == provider.id) {
        match worker.readiness {
            WorkerReadiness::Ready => {
                ready
                    .entry(&worker.namespace)
                    .or_default()
                    .push((worker.free_slots, worker.id));
            }
            WorkerReadiness::Coming => *coming.entry(&worker.namespace).or_default() += worker.free_slots,
            WorkerReadiness::Draining => {}
        }
    }
    for workers in ready.values_mut() {
        workers.sort();
    }
    Room {
        provider,
        free: provider.capabilities.capacity.minus(&provider.used),
        free_workers: provider.capabilities.max_workers.saturating_sub(provider.workers),
        ready,
        coming,
    }
}

/// Gives the job to a worker, or counts on one that is coming, or asks for a new one. False if it found no room.
fn place<'a>(queue: &'a ShapeQueue, job: QueuedJob, rooms: &mut [Room<'a>], plan: &mut Plan) -> bool {
    let shape = &queue.shape;
    let fitting = |room: &Room<'_>| {
        room.provider.drained.is_none()
            && matches!(judge(shape, room.provider), Verdict::Fits)
            && shape.resources.fits(&room.free)
    };
    for room in rooms.iter_mut().filter(|room| fitting(room)) {
        let worker = room
            .ready
            .get_mut(&shape.namespace)
            .and_then(|workers| workers.iter_mut().find(|(free, _)| *free > 0));
        if let Some((free, id)) = worker {
            *free -= 1;
            room.free = room.free.minus(&shape.resources);
            plan.claims.push(Claim {
                job: job.id,
                worker: *id,
            });
            return true;
        }
    }
    for room in rooms.iter_mut().filter(|room| fitting(room)) {
        if take_coming_slot(room, &shape.namespace) {
            room.free = room.free.minus(&shape.resources);
            return true;
        }
        if room.free_workers > 0 && room.provider.health.healthy {
            room.free_workers -= 1;
            room.free = room.free.minus(&shape.resources);
            let slots = room.provider.capabilities.slots_per_worker;
            *room.coming.entry(&shape.namespace).or_default() += slots.saturating_sub(1);
            plan.workers.push(WantedWorker {
                provider: room.provider.id.clone(),
                namespace: shape.namespace.clone(),
                first_job: job.id,
            });
            return true;
        }
    }
    false
}

fn take_coming_slot(room: &mut Room<'_>, namespace: &Namespace) -> bool {
    match room.coming.get_mut(namespace) {
        Some(slots) if *slots > 0 => {
            *slots -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
