//! Blocks: how pieces of logs lie in an object.
//!
//! An object is a sequence of blocks, each the data of one part of one log and then its runs, in a few bytes each:
//! length and stream in one variable-length number (LEB128), then the time, as the difference to the run before.

use hodei_shared::ids::{AttemptKey, ObjectId};
use hodei_shared::offsets::{Piece, Run, Stream};

use crate::ports::StoreError;
use crate::ports::objects::OutputObjects;
use crate::ports::output::Block;

/// Pieces that follow each other are put together to blocks of at most this size. Larger pieces stay whole.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// Builds one object.
#[derive(Debug)]
pub(crate) struct ObjectBuilder {
    id: ObjectId,
    bytes: Vec<u8>,
    blocks: Vec<(AttemptKey, Block)>,
    open: Option<OpenBlock>,
}

/// The block that the next piece may belong to. Its data lies at the end of the object.
#[derive(Debug)]
struct OpenBlock {
    key: AttemptKey,
    block: Block,
    runs: Vec<Run>,
}

impl ObjectBuilder {
    pub(crate) fn new(id: ObjectId) -> Self {
        Self {
            id,
            bytes: Vec::new(),
            blocks: Vec::new(),
            open: None,
        }
    }

    /// Bytes until now.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a piece, and returns the index of its block.
    pub(crate) fn push(&mut self, key: AttemptKey, piece: &Piece) -> usize {
        let follows = |open: &OpenBlock| {
            open.key == key
                && open.block.end() == piece.start
                && open.block.len as usize + piece.data.len() <= BLOCK_BYTES
        };
        if !self.open.as_ref().is_some_and(follows) {
            self.close();
            let block = Block {
                start: piece.start,
                len: 0,
                lines: 0,
                messages: 0,
                object: self.id,
                offset: self.bytes.len() as u64,
                runs_len: 0,
            };
            self.open = Some(OpenBlock {
                key,
                block,
                runs: Vec::new(),
            });
        }
        if let Some(OpenBlock { block, runs, .. }) = &mut self.open {
            block.len += piece.data.len() as u64;
            block.lines += newlines(&piece.data);
            block.messages += 1;
            runs.extend_from_slice(&piece.runs);
        }
        self.bytes.extend_from_slice(&piece.data);
        self.blocks.len()
    }

    fn close(&mut self) {
        if let Some(OpenBlock { key, mut block, runs }) = self.open.take() {
            encode_runs(&runs, &mut self.bytes);
            block.runs_len = self.bytes.len() as u64 - block.offset - block.len;
            self.blocks.push((key, block));
        }
    }

    /// The object and its blocks.
    pub(crate) fn finish(mut self) -> (ObjectId, Vec<u8>, Vec<(AttemptKey, Block)>) {
        self.close();
        (self.id, self.bytes, self.blocks)
    }
}

/// Newlines in data.
pub(crate) fn newlines(data: &[u8]) -> u64 {
    data.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Reads a block whole.
pub(crate) async fn load(objects: &dyn OutputObjects, block: &Block) -> Result<Piece, StoreError> {
    let damaged = || StoreError::Internal(format!("the object {} is damaged", block.object));
    let len = usize::try_from(block.len).map_err(|_| damaged())?;
    let whole = usize::try_from(block.len + block.runs_len).map_err(|_| damaged())?;
    let mut data = objects.read(block.object, block.offset, whole).await?;
    let runs = decode_runs(data.get(len..).ok_or_else(damaged)?).ok_or_else(damaged)?;
    data.truncate(len);
    let start = block.start;
    let piece = Piece { start, data, runs };
    if piece.is_consistent() {
        Ok(piece)
    } else {
        Err(damaged())
    }
}

fn encode_runs(runs: &[Run], bytes: &mut Vec<u8>) {
    let mut before_ms = 0;
    for run in runs {
        let stream = match run.stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        put_number(run.len << 1 | stream, bytes);
        let step = run.at_ms.wrapping_sub(before_ms);
        // Zigzag: small negative numbers are small too.
        put_number((step << 1 ^ step >> 63).cast_unsigned(), bytes);
        before_ms = run.at_ms;
    }
}

fn put_number(mut number: u64, bytes: &mut Vec<u8>) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn decode_runs(mut bytes: &[u8]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let mut at_ms = 0_i64;
    while !bytes.is_empty() {
        let len = take_number(&mut bytes)?;
        let step = take_number(&mut bytes)?;
        at_ms = at_ms.wrapping_add((step >> 1).cast_signed() ^ -(step & 1).cast_signed());
        let stream = match len & 1 {
            0 => Stream::Stdout,
            _ => Stream::Stderr,
        };
        runs.push(Run {
            stream,
            len: len >> 1,
            at_ms,
        });
    }
    Some(runs)
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hodei_shared::ids::{JobId, Lease};

    use super::*;
    use crate::ports::jobs::FIRST_RANK;

    fn key(job: u8) -> AttemptKey {
        AttemptKey {
            job: JobId::from_bytes([job; 16]),
            lease: Lease(1),
            rank: FIRST_RANK,
        }
    }

    fn piece(start: u64, data: &[u8], at_ms: i64) -> Piece {
        let run = Run {
            stream: Stream::Stderr,
            len: data.len() as u64,
            at_ms,
        };
        Piece {
            start,
            data: data.to_vec(),
            runs: vec![run],
        }
    }

    #[test]
    fn runs_come_back_as_they_were() {
        let run = |stream, len, at_ms| Run { stream, len, at_ms };
        let runs = [
            run(Stream::Stdout, 1, 1_800_000_000_000),
            run(Stream::Stderr, 127, 1_800_000_000_001),
            run(Stream::Stdout, 1 << 40, 1_799_999_999_999),
            run(Stream::Stderr, 0, i64::MIN),
            run(Stream::Stdout, 5, i64::MAX),
            run(Stream::Stdout, 5, 0),
        ];
        let mut bytes = Vec::new();
        encode_runs(&runs, &mut bytes);
        assert_eq!(decode_runs(&bytes).expect("decoded"), runs);
        assert_eq!(decode_runs(&bytes[..bytes.len() - 1]), None, "cut off");
        assert_eq!(decode_runs(&[0xff; 11]), None, "no number");
        assert_eq!(decode_runs(&[]), Some(Vec::new()));
    }

    #[test]
    fn pieces_that_follow_each_other_share_a_block() {
        let mut builder = ObjectBuilder::new(ObjectId::from_bytes([1; 16]));
        let big = vec![b'x'; BLOCK_BYTES];
        let pushed = [
            builder.push(key(1), &piece(10, b"a\n", 1)),
            builder.push(key(1), &piece(12, b"b\n\n", 2)),
            builder.push(key(2), &piece(15, b"another log", 3)),
            builder.push(key(2), &piece(30, b"a gap", 4)),
            builder.push(key(2), &piece(35, &big, 5)),
        ];
        assert_eq!(pushed, [0, 0, 1, 2, 3]);
        let (_, bytes, blocks) = builder.finish();
        let shown: Vec<_> = blocks
            .iter()
            .map(|(key, b)| (*key, b.start, b.len, b.lines, b.messages))
            .collect();
        assert_eq!(
            shown,
            [
                (key(1), 10, 5, 3, 2),
                (key(2), 15, 11, 0, 1),
                (key(2), 30, 5, 0, 1),
                (key(2), 35, BLOCK_BYTES as u64, 0, 1)
            ]
        );
        let first = blocks[0].1;
        let runs = &bytes[first.len as usize..][..first.runs_len as usize];
        assert_eq!(decode_runs(runs).expect("decoded").len(), 2);
        assert_eq!(blocks[1].1.offset, first.len + first.runs_len);
    }
}
