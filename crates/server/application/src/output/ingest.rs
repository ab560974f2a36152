//! What workers bring.

use std::collections::BTreeMap;

use hodei_shared::ids::{AttemptKey, WorkerId};
use hodei_shared::offsets::Piece;

use super::block::ObjectBuilder;
use crate::platform::Platform;
use crate::ports::StoreError;
use crate::ports::link::WorkerIdentity;
use crate::ports::output::{AppendOutcome, Content, OutputAppend};
use crate::session::revoke;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingested {
    /// Bytes below this position are durable.
    Stored(u64),
    /// Nobody waits for it.
    Stale,
    /// Could not be stored now; send again from the last acknowledged position.
    Retry,
    /// Not this worker's attempt, for which it was revoked, or a piece that contradicts itself: the stream must end.
    Offence,
}

/// Stores batches of one worker. One that sends output of an attempt that never was its own is revoked.
pub async fn ingest(
    platform: &Platform,
    identity: &WorkerIdentity,
    batches: Vec<(AttemptKey, Piece)>,
) -> Vec<(AttemptKey, Ingested)> {
    let worker = identity.worker;
    let keys: Vec<AttemptKey> = batches.iter().map(|(key, _)| *key).collect();
    let with = |what: Ingested| keys.iter().map(|key| (*key, what)).collect();
    if !batches.iter().all(|(_, piece)| piece.is_consistent()) {
        return with(Ingested::Offence);
    }
    match store(platform, worker, batches).await {
        Ok(outcomes) => {
            if outcomes.contains(&AppendOutcome::NotHolder) {
                let message = "it sent output of an attempt that never was its own".to_owned();
                revoke(platform, worker, message).await;
            }
            // A result may wait for this output.
            platform.sessions.output_stored(worker);
            keys.into_iter().zip(outcomes.into_iter().map(ingested)).collect()
        }
        Err(error) => {
            tracing::warn!(worker_id = %worker, %error, "output could not be stored");
            with(Ingested::Retry)
        }
    }
}

fn ingested(outcome: AppendOutcome) -> Ingested {
    match outcome {
        AppendOutcome::Stored(end) => Ingested::Stored(end),
        AppendOutcome::Stale => Ingested::Stale,
        AppendOutcome::NotHolder => Ingested::Offence,
        // Bytes are never answered so.
        AppendOutcome::Moved => Ingested::Retry,
    }
}

/// Stores batches, the large ones in an object.
async fn store(
    platform: &Platform,
    worker: WorkerId,
    batches: Vec<(AttemptKey, Piece)>,
) -> Result<Vec<AppendOutcome>, StoreError> {
    let append = |key, content| OutputAppend {
        key,
        worker,
        content,
        job_limit: platform.settings.output_limit,
    };
    let large = large_logs(&batches, platform.settings.object_bytes);
    if large.is_empty() {
        let appends = batches
            .into_iter()
            .map(|(key, piece)| append(key, Content::Bytes(piece)));
        return platform.output.append(appends.collect()).await;
    }
    let mut object = ObjectBuilder::new(platform.new_object_id());
    // Which of the appends each batch is a part of: its block, or its own one after all blocks.
    let blocks_of: Vec<Option<usize>> = batches
        .iter()
        .map(|(key, piece)| {
            (large.contains_key(key) && !piece.data.is_empty()).then(|| object.push(*key, piece))
        })
        .collect();
    let (id, bytes, blocks) = object.finish();
    platform.objects.put(id, bytes).await?;
    let appends = blocks
        .into_iter()
        .map(|(key, block)| append(key, Content::Block(block)));
    let of_blocks = platform.output.append(appends.collect()).await?;
    if of_blocks
        .iter()
        .all(|outcome| !matches!(outcome, AppendOutcome::Stored(_)))
    {
        // Nothing refers to it; if it can not be removed now, it is collected later.
        let _left = platform.objects.remove(id).await;
    }
    let mut outcomes = Vec::with_capacity(batches.len());
    let mut rest = Vec::new();
    for ((key, piece), block) in batches.into_iter().zip(blocks_of) {
        let outcome = block
            .and_then(|index| of_blocks.get(index).copied())
            .filter(|outcome| *outcome != AppendOutcome::Moved);
        if outcome.is_none() {
            rest.push(append(key, Content::Bytes(piece)));
        }
        outcomes.push(outcome);
    }
    // What came again or must be cut, and what is small.
    let mut of_rest = match rest.is_empty() {
        true => Vec::new(),
        false => platform.output.append(rest).await?,
    }
    .into_iter();
    let all = outcomes
        .into_iter()
        .map(|outcome| outcome.or_else(|| of_rest.next()));
    let missing = || StoreError::Internal("a batch got no answer".to_owned());
    all.map(|outcome| outcome.ok_or_else(missing)).collect()
}

/// The logs whose batches go into an object: those that bring much, if together they bring `object_bytes`.
fn large_logs(batches: &[(AttemptKey, Piece)], object_bytes: usize) -> BTreeMap<AttemptKey, usize> {
    let mut bytes: BTreeMap<AttemptKey, usize> = BTreeMap::new();
    for (key, piece) in batches {
        *bytes.entry(*key).or_default() += piece.data.len();
    }
    bytes.retain(|_, bytes| *bytes >= object_bytes / 4);
    if bytes.values().sum::<usize>() < object_bytes {
        bytes.clear();
    }
    bytes
}
