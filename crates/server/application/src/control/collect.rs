//! Removes objects that no log refers to: those whose last block was removed, and what a crash between writing an
//! object and storing its blocks has left.
//!
//! The latter are told by their age alone: a block is stored while its object is younger than
//! [`BLOCK_MAX_AGE_MS`], so an unknown object that is twice as old will never be referred to.

use std::sync::Arc;
use std::time::Duration;

use hodei_shared::ids::ObjectId;

use super::Pass;
use crate::platform::Platform;
use crate::ports::output::BLOCK_MAX_AGE_MS;
use crate::refused::Refused;

/// How old an unknown object is before it is removed.
const UNKNOWN_AGE_MS: i64 = 2 * BLOCK_MAX_AGE_MS;
/// How often all objects are compared with the store.
const SWEEP_PERIOD: Duration = Duration::from_secs(3_600);
/// How many objects are looked at or removed at once.
const PAGE: usize = 500;
/// How long others have their turn between two pages.
const PAUSE: Duration = Duration::from_millis(50);

/// The collector.
#[derive(Debug, Default)]
pub(crate) struct Collect {
    /// When the next sweep begins, monotonic.
    rests_until: Duration,
    /// The sweep that began goes on after this object.
    after: Option<ObjectId>,
}

impl Pass for Collect {
    async fn pass(&mut self, platform: &Arc<Platform>) -> Result<Option<Duration>, Refused> {
        let removed = remove_unused(platform).await?;
        let sweeping = self.sweep(platform).await?;
        Ok((removed || sweeping).then_some(PAUSE))
    }
}

/// Removes objects whose last block is gone; true if there may be more.
async fn remove_unused(platform: &Platform) -> Result<bool, Refused> {
    let unused = platform.output.unused_objects(PAGE).await?;
    if unused.is_empty() {
        return Ok(false);
    }
    for id in &unused {
        platform.objects.remove(*id).await?;
    }
    tracing::debug!(objects = unused.len(), "unused objects removed");
    let more = unused.len() == PAGE;
    platform.output.forget_objects(unused).await?;
    Ok(more)
}

impl Collect {
    /// Compares a page of objects with the store; true while a sweep goes on.
    async fn sweep(&mut self, platform: &Platform) -> Result<bool, Refused> {
        let now = platform.clock.monotonic();
        if self.after.is_none() && now < self.rests_until {
            return Ok(false);
        }
        let page = platform.objects.list(self.after, PAGE).await?;
        let oldest_kept_ms = platform.clock.now_ms() - UNKNOWN_AGE_MS;
        let last = page.last().copied();
        // Ids are ordered by time: what follows the first young one is young too.
        let old: Vec<ObjectId> = page
            .into_iter()
            .take_while(|id| id.made_at_ms() < oldest_kept_ms)
            .collect();
        let goes_on = last.filter(|last| last.made_at_ms() < oldest_kept_ms);
        if !old.is_empty() {
            let unknown = platform.output.unknown_objects(old).await?;
            for id in &unknown {
                platform.objects.remove(*id).await?;
            }
            if !unknown.is_empty() {
                tracing::info!(objects = unknown.len(), "objects without output removed");
            }
        }
        self.after = goes_on;
        if goes_on.is_none() {
            self.rests_until = now + SWEEP_PERIOD;
        }
        Ok(goes_on.is_some())
    }
}
