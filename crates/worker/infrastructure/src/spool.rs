//! Spools: in memory up to a bound, then in an unlinked file.
//!
//! Invariant: all that is kept lies either in memory or in the file, never in both.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::Piece;
use hodei_worker_application::ports::{Chunk, Spool, SpoolError, Spools};
use hodei_worker_application::spool::Index;
use rustix::fs::FallocateFlags;

/// What a spool keeps in memory.
const MEMORY_BYTES: u64 = 8 << 20;
/// How much of a file is given back at once.
const PUNCH_BYTES: u64 = 4 << 20;

/// Spools whose overflow lies in one folder.
#[derive(Debug)]
pub struct FileSpools {
    folder: PathBuf,
    next: Arc<AtomicU64>,
}

impl FileSpools {
    /// Spools that overflow into `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            next: Arc::default(),
        }
    }
}

impl Spools for FileSpools {
    fn open(&self, _key: AttemptKey) -> Arc<dyn Spool> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(FileSpool {
            path: self.folder.join(format!("spool-{n}")),
            kept: Mutex::default(),
        })
    }
}

struct FileSpool {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    index: Index,
    memory: std::collections::VecDeque<u8>,
    file: Option<Overflow>,
}

/// The byte at position `p` of the log lies at `p - base` of the file.
struct Overflow {
    file: File,
    base: u64,
    punched: u64,
}

impl Kept {
    fn len(&self) -> u64 {
        self.index.end() - self.index.start()
    }

    fn overflow(&mut self, path: &PathBuf) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        fs::remove_file(path)?;
        file.write_all_at(self.memory.make_contiguous(), 0)?;
        let base = self.index.start();
        self.file = Some(Overflow {
            file,
            base,
            punched: base,
        });
        self.memory = std::collections::VecDeque::new();
        Ok(())
    }

    fn read(&self, from: u64, max: usize) -> io::Result<Vec<u8>> {
        let len = (self.index.end() - from).min(max as u64) as usize;
        match &self.file {
            None => {
                let skip = (from - self.index.start()) as usize;
                Ok(self.memory.range(skip..skip + len).copied().collect())
            }
            Some(overflow) => {
                let mut data = vec![0; len];
                overflow.file.read_exact_at(&mut data, from - overflow.base)?;
                Ok(data)
            }
        }
    }

    fn trim(&mut self, below: u64) {
        let before = self.index.start();
        self.index.trim(below);
        let start = self.index.start();
        let empty = self.len() == 0;
        match &mut self.file {
            None => drop(self.memory.drain(..(start - before) as usize)),
            Some(_) if empty => self.file = None,
            Some(overflow) if start - overflow.punched >= PUNCH_BYTES => {
                let (at, len) = (overflow.punched - overflow.base, start - overflow.punched);
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                // A file system without holes keeps the bytes until the spool is empty.
                let _kept = rustix::fs::fallocate(&overflow.file, flags, at, len);
                overflow.punched = start;
            }
            Some(_) => {}
        }
    }
}

#[async_trait]
impl Spool for FileSpool {
    async fn append(&self, chunk: Chunk) -> Result<u64, SpoolError> {
        let failed = |error: io::Error| SpoolError(error.to_string());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let len = chunk.bytes.len() as u64;
        if kept.file.is_none() && kept.len() + len > MEMORY_BYTES {
            kept.overflow(&self.path).map_err(failed)?;
        }
        let end = kept.index.end();
        match &kept.file {
            Some(overflow) => overflow
                .file
                .write_all_at(&chunk.bytes, end - overflow.base)
                .map_err(failed)?,
            None => kept.memory.extend(&chunk.bytes),
        }
        kept.index.push(chunk.stream, len, chunk.at_ms);
        Ok(kept.index.end())
    }

    async fn read(&self, from: u64, max: usize) -> Result<Piece, SpoolError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if from < kept.index.start() || from > kept.index.end() {
            return Err(SpoolError("the position is not kept".to_owned()));
        }
        let data = kept
            .read(from, max)
            .map_err(|error| SpoolError(error.to_string()))?;
        Ok(Piece {
            start: from,
            runs: kept.index.runs(from, data.len() as u64),
            data,
        })
    }

    async fn trim(&self, below: u64) {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .trim(below);
    }
}
