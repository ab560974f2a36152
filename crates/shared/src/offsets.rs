//! Positions in an attempt's combined output log.

use serde::{Deserialize, Serialize};

/// Which of a job's two output streams bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A run of consecutive bytes of one stream, read at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Where the bytes came from.
    pub stream: Stream,
    /// How many bytes.
    pub len: u64,
    /// When they were read, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A piece of the combined log: `runs` cut `data` into the two streams, in the order read.
///
/// The log has ONE position: the number of bytes of both streams before it. Invariant: the runs' lengths add
/// up to the length of `data`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// Position of the first byte.
    pub start: u64,
    /// The bytes of both streams.
    pub data: Vec<u8>,
    /// How the bytes divide into streams.
    pub runs: Vec<Run>,
}

impl Piece {
    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.data.len() as u64
    }

    /// Whether the runs' lengths add up to the length of the data.
    pub fn is_consistent(&self) -> bool {
        self.runs.iter().map(|run| run.len).sum::<u64>() == self.data.len() as u64
    }

    /// The part from `position` on; `None` if nothing of it is left.
    pub fn from_position(mut self, position: u64) -> Option<Self> {
        if position >= self.end() {
            return None;
        }
        let mut skip = position.saturating_sub(self.start);
        self.start += skip;
        self.data.drain(..skip as usize);
        self.runs.retain_mut(|run| {
            let cut = skip.min(run.len);
            skip -= cut;
            run.len -= cut;
            run.len > 0
        });
        Some(self)
    }

    /// The part before `position`; `None` if nothing of it is left.
    pub fn until_position(mut self, position: u64) -> Option<Self> {
        if position <= self.start {
            return None;
        }
        if position >= self.end() {
            return Some(self);
        }
        let mut left = position - self.start;
        self.data.truncate(left as usize);
        self.runs.retain_mut(|run| {
            run.len = run.len.min(left);
            left -= run.len;
            run.len > 0
        });
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_cut_at_any_position() {
        let run = |stream, len| Run {
            stream,
            len,
            at_ms: 0,
        };
        let piece = Piece {
            start: 10,
            data: b"abcdef".to_vec(),
            runs: vec![run(Stream::Stdout, 2), run(Stream::Stderr, 4)],
        };
        assert!(piece.is_consistent());
        let rest = piece.clone().from_position(13).expect("three bytes are left");
        assert_eq!(
            (rest.start, rest.data.as_slice(), rest.runs.as_slice()),
            (13, &b"def"[..], &[run(Stream::Stderr, 3)][..])
        );
        assert_eq!(piece.clone().from_position(5), Some(piece.clone()));
        assert_eq!(piece.clone().from_position(16), None);

        let first = piece.clone().until_position(13).expect("three bytes are left");
        assert_eq!(
            (first.start, first.data.as_slice(), first.runs.as_slice()),
            (
                10,
                &b"abc"[..],
                &[run(Stream::Stdout, 2), run(Stream::Stderr, 1)][..]
            )
        );
        let one_stream = piece.clone().until_position(12).expect("two bytes are left");
        assert_eq!(one_stream.runs, [run(Stream::Stdout, 2)]);
        assert_eq!(piece.clone().until_position(16), Some(piece.clone()));
        assert_eq!(piece.until_position(10), None);
    }
}
