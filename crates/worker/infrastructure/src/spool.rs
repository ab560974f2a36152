//! Spools: in memory up to a bound, then in an unlinked file.
//!
//! Invariants: all that is kept lies either in memory or in the file, never in both; the file is only touched on the
//! threads for blocking work.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::Piece;
use hodei_worker_application::ports::{Chunk, Spool, SpoolError, Spools};
use hodei_worker_application::spool::Index;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, openat, unlinkat};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// What a spool keeps in memory.
const MEMORY_BYTES: u64 = 8 << 20;
/// How much of a file is given back at once.
const PUNCH_BYTES: u64 = 4 << 20;

/// Spools whose overflow lies in one folder.
#[derive(Debug)]
pub struct FileSpools {
    folder: Arc<OwnedFd>,
    next: Arc<AtomicU64>,
}

impl FileSpools {
    /// Spools that overflow into the open `folder`.
    pub fn new(folder: OwnedFd) -> Self {
        Self {
            folder: Arc::new(folder),
            next: Arc::default(),
        }
    }
}

impl Spools for FileSpools {
    fn open(&self, _key: AttemptKey) -> Arc<dyn Spool> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(FileSpool {
            kept: Arc::new(Mutex::new(Kept {
                folder: Arc::clone(&self.folder),
                name: format!("spool-{n}"),
                index: Index::default(),
                memory: VecDeque::new(),
                file: None,
            })),
        })
    }
}

struct FileSpool {
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    /// Where the file is made.
    folder: Arc<OwnedFd>,
    name: String,
    index: Index,
    memory: VecDeque<u8>,
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

    /// Whether keeping `more` bytes needs the file.
    fn needs_file(&self, more: u64) -> bool {
        self.file.is_some() || self.len() + more > MEMORY_BYTES
    }

    fn append(&mut self, chunk: &Chunk) -> io::Result<u64> {
        let len = chunk.bytes.len() as u64;
        if self.file.is_none() && self.needs_file(len) {
            self.overflow()?;
        }
        let end = self.index.end();
        match &self.file {
            Some(overflow) => overflow.file.write_all_at(&chunk.bytes, end - overflow.base)?,
            None => self.memory.extend(&chunk.bytes),
        }
        self.index.push(chunk.stream, len, chunk.at_ms);
        Ok(self.index.end())
    }

    fn overflow(&mut self) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.folder, &self.name, flags, Mode::from_raw_mode(0o600))?;
        unlinkat(&self.folder, &self.name, AtFlags::empty())?;
        let file = File::from(file);
        file.write_all_at(self.memory.make_contiguous(), 0)?;
        let base = self.index.start();
        self.file = Some(Overflow {
            file,
            base,
            punched: base,
        });
        self.memory = VecDeque::new();
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

/// Runs `work` here, or among the blocking ones if it touches the file.
async fn run<T: Send + 'static>(
    mut kept: OwnedMutexGuard<Kept>,
    in_file: bool,
    work: impl FnOnce(&mut Kept) -> io::Result<T> + Send + 'static,
) -> Result<T, SpoolError> {
    let done = if in_file {
        let task = tokio::task::spawn_blocking(move || work(&mut kept));
        task.await.map_err(io::Error::other).and_then(|done| done)
    } else {
        work(&mut kept)
    };
    done.map_err(|error| SpoolError(error.to_string()))
}

#[async_trait]
impl Spool for FileSpool {
    async fn append(&self, chunk: Chunk) -> Result<u64, SpoolError> {
        let kept = Arc::clone(&self.kept).lock_owned().await;
        let in_file = kept.needs_file(chunk.bytes.len() as u64);
        run(kept, in_file, move |kept| kept.append(&chunk)).await
    }

    async fn read(&self, from: u64, max: usize) -> Result<Piece, SpoolError> {
        let kept = Arc::clone(&self.kept).lock_owned().await;
        if from < kept.index.start() || from > kept.index.end() {
            return Err(SpoolError("the position is not kept".to_owned()));
        }
        let in_file = kept.file.is_some();
        run(kept, in_file, move |kept| {
            let data = kept.read(from, max)?;
            Ok(Piece {
                start: from,
                runs: kept.index.runs(from, data.len() as u64),
                data,
            })
        })
        .await
    }

    async fn trim(&self, below: u64) {
        let kept = Arc::clone(&self.kept).lock_owned().await;
        let in_file = kept.file.is_some();
        let trimmed = run(kept, in_file, move |kept| {
            kept.trim(below);
            Ok(())
        });
        // Fails only when the runtime ends, and then the spool goes.
        let _over = trimmed.await;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Giving back a large file takes its time.
        if let Some(overflow) = self.file.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(overflow));
        }
    }
}
