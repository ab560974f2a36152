//! Moves the tails of logs out of the store into objects that they share.
//!
//! An object is durable before its blocks take the place of the rows. A crash in between leaves an object that
//! nobody refers to; the collector removes it.

use std::sync::Arc;
use std::time::Duration;

use super::Pass;
use crate::output::block::{BLOCK_BYTES, ObjectBuilder};
use crate::platform::Platform;
use crate::refused::Refused;

/// How large an object grows before it is written.
const OBJECT_BYTES: usize = 4 << 20;
/// How many logs share an object at most.
const MAX_LOGS: usize = 64;
/// How many rows of one log are moved at once, so that no transaction is long.
const MAX_PIECES: usize = 2_000;

/// The compactor.
#[derive(Debug)]
pub(crate) struct Compact;

impl Pass for Compact {
    async fn pass(&mut self, platform: &Arc<Platform>) -> Result<Option<Duration>, Refused> {
        let tails = platform.output.large_tails(MAX_LOGS).await?;
        if tails.is_empty() {
            return Ok(None);
        }
        let mut object = ObjectBuilder::new(platform.new_object_id());
        for key in tails {
            let room = OBJECT_BYTES.saturating_sub(object.len());
            if room < BLOCK_BYTES {
                break;
            }
            for piece in platform.output.tail(key, room, MAX_PIECES).await? {
                object.push(key, &piece);
            }
        }
        let (id, bytes, blocks) = object.finish();
        if blocks.is_empty() {
            return Ok(None);
        }
        platform.objects.put(id, bytes).await?;
        let moved = platform.output.move_tails(blocks).await?;
        tracing::debug!(
            object = %id,
            blocks = moved.iter().filter(|moved| **moved).count(),
            refused = moved.iter().filter(|moved| !**moved).count(),
            "output moved"
        );
        // There may be more; others have their turn before.
        let progress = moved.contains(&true);
        Ok(progress.then_some(Duration::ZERO))
    }
}
