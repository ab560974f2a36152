//! What must hold when the system has come to rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use hodei_server_application::output::pieces;
use hodei_server_application::ports::events::EventBus;
use hodei_server_application::ports::jobs::{AttemptRecord, FIRST_RANK, JobRecord, JobRepository};
use hodei_server_application::ports::workers::WorkerRegistry;
use hodei_server_domain::event::Event;
use hodei_server_domain::job::end::{AttemptOutcome, Outcome as JobOutcome};
use hodei_server_domain::job::state::Phase;
use hodei_shared::ids::{AttemptKey, JobId};

use super::client::Client;
use super::executor::Execution;
use super::node::Servers;
use super::world::World;

/// Checks everything; the first thing that does not hold is the error.
pub(super) async fn all(world: &Arc<World>, servers: &Servers, client: &Client) -> Result<(), String> {
    if let Some(broken) = world.broken() {
        return Err(broken);
    }
    events(servers).await?;
    let runs = servers.provider.book.all();
    for (id, known) in client.acknowledged() {
        let record = JobRepository::get(&servers.store, id)
            .await
            .map_err(|e| e.to_string())?
            .ok_or("a job is lost")?;
        job(&record, known.cancel_acknowledged, &runs)?;
        for attempt in &record.attempts {
            output(servers, &record, attempt, &runs).await?;
        }
    }
    if let Some((key, _)) = runs.iter().find(|(_, run)| run.ended.is_none()) {
        return Err(format!("the process of {key} still runs"));
    }
    let holdings = servers.store.holdings().await.map_err(|e| e.to_string())?;
    if !holdings.is_empty() {
        return Err(format!("attempts are still held: {holdings:?}"));
    }
    let live = servers.store.live().await.map_err(|e| e.to_string())?;
    if !live.is_empty() || servers.provider.count() > 0 {
        return Err(format!(
            "{} machines and {live:?} are left",
            servers.provider.count()
        ));
    }
    Ok(())
}

/// Positions are gap-free, and a job's end is recorded once and last.
async fn events(servers: &Servers) -> Result<(), String> {
    let mut position = 0;
    let mut ended: BTreeMap<JobId, String> = BTreeMap::new();
    loop {
        let page = servers
            .store
            .after(position, 500)
            .await
            .map_err(|e| e.to_string())?;
        if page.is_empty() {
            return Ok(());
        }
        for record in page {
            if record.position != position + 1 {
                return Err(format!("event {} follows {position}", record.position));
            }
            position = record.position;
            if let Event::JobStatusChanged { job, state, .. } = &record.event {
                if let Some(before) = ended.get(job) {
                    return Err(format!("job {job} came into state {state} after {before}"));
                }
                if ["succeeded", "failed", "cancelled", "timed_out"].contains(&state.as_str()) {
                    ended.insert(*job, state.clone());
                }
            }
            if matches!(
                record.event,
                Event::OtpReused { .. } | Event::IdentityRevoked { .. } | Event::ResultConflict { .. }
            ) {
                return Err(format!("honest workers only, and yet: {:?}", record.event));
            }
        }
    }
}

fn job(record: &JobRecord, cancelled: bool, runs: &BTreeMap<AttemptKey, Execution>) -> Result<(), String> {
    let id = record.id;
    let Phase::Ended { outcome, .. } = &record.job.phase else {
        return Err(format!("job {id} has not ended"));
    };
    if *outcome == JobOutcome::Cancelled && !record.job.cancel_requested {
        return Err(format!("job {id} was cancelled by nobody"));
    }
    if cancelled && !record.job.cancel_requested {
        return Err(format!("job {id} forgot its cancel"));
    }
    let mut leases = 0;
    for attempt in &record.attempts {
        if attempt.lease.0 <= leases {
            return Err(format!("job {id}: leases do not grow"));
        }
        leases = attempt.lease.0;
        let key = AttemptKey {
            job: id,
            lease: attempt.lease,
            rank: FIRST_RANK,
        };
        let ran = runs.contains_key(&key);
        if attempt.never_started && ran {
            return Err(format!("{key} ran, and is recorded as never started"));
        }
        let reported = matches!(
            &attempt.end,
            Some((AttemptOutcome::Succeeded | AttemptOutcome::TimedOut, _))
        );
        if reported && !ran {
            return Err(format!("{key} has a result, and never ran"));
        }
    }
    let counted = record.attempts.iter().filter(|a| !a.never_started).count() as u32;
    if counted > record.spec.retry.retries() + 1 {
        return Err(format!("job {id} had {counted} attempts"));
    }
    Ok(())
}

/// Of an attempt whose worker reported its end, the stored output is what its process printed; of a lost one it is
/// the beginning of that.
async fn output(
    servers: &Servers,
    record: &JobRecord,
    attempt: &AttemptRecord,
    runs: &BTreeMap<AttemptKey, Execution>,
) -> Result<(), String> {
    let key = AttemptKey {
        job: record.id,
        lease: attempt.lease,
        rank: FIRST_RANK,
    };
    let mut stored = Vec::new();
    loop {
        let position = stored.len() as u64;
        let pieces = pieces(&servers.store, &*servers.objects, key, position, 1 << 20)
            .await
            .map_err(|e| e.to_string())?;
        if pieces.is_empty() {
            break;
        }
        pieces.into_iter().for_each(|piece| stored.extend(piece.data));
    }
    let exited = matches!(
        attempt.end,
        Some((AttemptOutcome::Succeeded | AttemptOutcome::Failed, _))
    );
    if exited && runs.get(&key).is_some_and(|run| run.misfed) {
        return Err(format!("{key} did not read the input that it was sent"));
    }
    let printed = runs.get(&key).map(|run| run.output.clone()).unwrap_or_default();
    if let Some(end) = attempt.output.declared_end {
        if end != printed.len() as u64 || stored != printed {
            return Err(format!(
                "{key} printed {} bytes, declared {end}, {} are stored",
                printed.len(),
                stored.len()
            ));
        }
    } else if !printed.starts_with(&stored) {
        return Err(format!("the stored output of {key} is not what it printed"));
    }
    Ok(())
}
