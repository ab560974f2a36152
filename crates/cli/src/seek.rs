//! Finds where to begin in the output of an attempt, without reading all of it.
//!
//! `--tail` reads backwards in growing steps until it has seen enough line ends; `--since` halves the range until
//! it has found the moment, reading one piece each time. Neither keeps output in memory.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use anyhow::Result;
use hodei_jobs::v1;

use crate::connection::Client;
use crate::errors::explain;

const FIRST_STEP: u64 = 64 << 10;
const LONGEST_STEP: u64 = 4 << 20;

/// Where the output of an attempt begins to be of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Its first byte.
    First,
    /// Its last lines.
    LastLines(u64),
    /// What was printed at this time, in milliseconds since the epoch, or later.
    Since(i64),
}

/// One attempt's output, of which one stream or both are of interest.
pub(crate) struct Output<'a> {
    /// Where it is read.
    pub(crate) client: &'a Client,
    /// Whose it is.
    pub(crate) job: &'a v1::Job,
    /// Which attempt's.
    pub(crate) attempt: u32,
    /// The stream of interest; `None`: both.
    pub(crate) only: Option<v1::Stream>,
}

/// Consecutive bytes of one stream.
struct Run<'a> {
    start: u64,
    stream: v1::Stream,
    at_ms: i64,
    bytes: &'a [u8],
}

impl Output<'_> {
    /// The position to read from.
    ///
    /// # Errors
    /// What the server refused, or that it is away.
    pub(crate) async fn position(&self, start: Start) -> Result<u64> {
        let attempt = self.job.attempts.iter().find(|a| a.number == self.attempt);
        let end = attempt.map_or(0, |attempt| attempt.output_bytes);
        match start {
            Start::First => Ok(0),
            Start::LastLines(lines) => self.last_lines(lines, end).await,
            Start::Since(at_ms) => self.since(at_ms, end).await,
        }
    }

    async fn last_lines(&self, lines: u64, end: u64) -> Result<u64> {
        if lines == 0 {
            return Ok(end);
        }
        let wanted = |stream| self.only.is_none_or(|only| only == stream);
        let kept = usize::try_from(lines).unwrap_or(usize::MAX).saturating_add(1);
        let (mut count, mut last_byte) = (0, None);
        let (mut to, mut step) = (end, FIRST_STEP);
        while to > 0 {
            let from = to.saturating_sub(step);
            let mut line_ends = VecDeque::new();
            let mut last_here = None;
            self.scan(from, to, |run| {
                if !wanted(run.stream) || run.bytes.is_empty() {
                    return ControlFlow::Continue(());
                }
                last_here = Some(run.start + run.bytes.len() as u64 - 1);
                for (at, _) in run.bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                    if line_ends.len() == kept {
                        line_ends.pop_front();
                    }
                    line_ends.push_back(run.start + at as u64);
                }
                ControlFlow::Continue(())
            })
            .await?;
            last_byte = last_byte.or(last_here);
            for line_end in line_ends.into_iter().rev() {
                // The very last one ends the last line; the others begin one.
                if Some(line_end) == last_byte {
                    continue;
                }
                count += 1;
                if count == lines {
                    return Ok(line_end + 1);
                }
            }
            to = from;
            step = (step * 2).min(LONGEST_STEP);
        }
        Ok(0)
    }

    async fn since(&self, at_ms: i64, end: u64) -> Result<u64> {
        let (mut low, mut high) = (0, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut seen = None;
            self.scan(middle, high, |run| {
                seen = Some((run.start, run.start + run.bytes.len() as u64, run.at_ms));
                ControlFlow::Break(())
            })
            .await?;
            match seen {
                Some((start, _, at)) if at >= at_ms => high = middle.min(start),
                Some((_, after, _)) => low = after.max(middle + 1),
                // Nothing is stored there any more.
                None => high = middle,
            }
        }
        Ok(low)
    }

    /// Calls `look` with the runs from `from` on, each cut to the range, until `to` or its break.
    async fn scan(&self, from: u64, to: u64, mut look: impl FnMut(Run<'_>) -> ControlFlow<()>) -> Result<()> {
        let request = v1::ReadOutputRequest {
            job_id: self.job.id.clone(),
            attempt: self.attempt,
            position: from,
            follow: false,
        };
        let failed = |status| explain(&format!("read the output of job {}", self.job.id), &status);
        let answer = self
            .client
            .logs
            .clone()
            .read_output(request)
            .await
            .map_err(failed)?;
        let mut events = answer.into_inner();
        while let Some(message) = events.message().await.map_err(failed)? {
            let Some(v1::read_output_response::Event::Piece(piece)) = message.event else {
                continue;
            };
            let (mut at, mut rest) = (piece.start, &piece.data[..]);
            for run in &piece.runs {
                let length = usize::try_from(run.length).unwrap_or(usize::MAX).min(rest.len());
                let (bytes, after) = rest.split_at(length);
                rest = after;
                let begin = within(from, at, bytes.len());
                let end = within(to, at, bytes.len());
                let run = Run {
                    start: at + begin as u64,
                    stream: run.stream(),
                    at_ms: run.at_ms,
                    bytes: &bytes[begin.min(end)..end],
                };
                at += length as u64;
                if !run.bytes.is_empty() && look(run).is_break() || at >= to {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The index of `position` in bytes that begin at `start`, or the end next to it.
fn within(position: u64, start: u64, length: usize) -> usize {
    usize::try_from(position.saturating_sub(start))
        .unwrap_or(usize::MAX)
        .min(length)
}

#[cfg(test)]
#[path = "seek_tests.rs"]
mod tests;
