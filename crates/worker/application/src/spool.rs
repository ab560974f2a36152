//! The index of a spool, and a spool in memory for small needs and simulations.
//!
//! Invariant: the runs of an [`Index`] lie one after the other without a gap, from the trimmed position to the end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::{Piece, Run, Stream};

use crate::ports::{Chunk, Spool, SpoolError, Spools};

/// Runs of one stream that were read within this time become one.
const MERGE_MS: i64 = 20;

/// Which bytes of a combined log came from which stream.
#[derive(Debug, Default)]
pub struct Index {
    start: u64,
    end: u64,
    runs: VecDeque<Run>,
}

impl Index {
    /// Position of the first byte that is kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Adds `len` bytes of `stream`, read at the wall time `at_ms`.
    pub fn push(&mut self, stream: Stream, len: u64, at_ms: i64) {
        self.end += len;
        match self.runs.back_mut() {
            Some(last) if last.stream == stream && (0..MERGE_MS).contains(&(at_ms - last.at_ms)) => {
                last.len += len;
            }
            _ => self.runs.push_back(Run { stream, len, at_ms }),
        }
    }

    /// Forgets what lies before `below`.
    pub fn trim(&mut self, below: u64) {
        let below = below.min(self.end);
        while self.start < below {
            let Some(first) = self.runs.front_mut() else { break };
            let cut = first.len.min(below - self.start);
            first.len -= cut;
            self.start += cut;
            if first.len == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// The runs of `len` bytes from `from` on, cut at both ends.
    pub fn runs(&self, from: u64, len: u64) -> Vec<Run> {
        let mut at = self.start;
        let until = from + len;
        let mut out = Vec::new();
        for run in &self.runs {
            let (first, last) = (at.max(from), (at + run.len).min(until));
            if first < last {
                out.push(Run {
                    len: last - first,
                    ..*run
                });
            }
            at += run.len;
            if at >= until {
                break;
            }
        }
        out
    }
}

/// Spools in memory, without a bound of their own.
#[derive(Debug, Default)]
pub struct MemorySpools;

impl Spools for MemorySpools {
    fn open(&self, _key: AttemptKey) -> Arc<dyn Spool> {
        Arc::new(MemorySpool::default())
    }
}

/// One spool in memory.
#[derive(Debug, Default)]
pub struct MemorySpool(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    index: Index,
    bytes: VecDeque<u8>,
}

#[async_trait]
impl Spool for MemorySpool {
    async fn append(&self, chunk: Chunk) -> Result<u64, SpoolError> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory
            .index
            .push(chunk.stream, chunk.bytes.len() as u64, chunk.at_ms);
        memory.bytes.extend(chunk.bytes);
        Ok(memory.index.end())
    }

    async fn read(&self, from: u64, max: usize) -> Result<Piece, SpoolError> {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = from
            .checked_sub(memory.index.start())
            .ok_or_else(|| SpoolError("the position was trimmed away".into()))? as usize;
        let data: Vec<u8> = memory.bytes.iter().skip(skip).take(max).copied().collect();
        let runs = memory.index.runs(from, data.len() as u64);
        Ok(Piece {
            start: from,
            data,
            runs,
        })
    }

    async fn trim(&self, below: u64) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = memory.index.start();
        memory.index.trim(below);
        let cut = (memory.index.start() - before) as usize;
        memory.bytes.drain(..cut);
    }
}
