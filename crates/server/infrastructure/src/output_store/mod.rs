//! Objects of output as files in a folder, which only their owner can read.
//!
//! `FOLDER/BUCKET/ID`: a bucket holds the objects of about 17 minutes, so that no folder grows without bound and the
//! oldest are found without a look at all. Invariant: when a write returns, file and name outlast a power cut. What
//! an interrupted write leaves has an id that nobody refers to.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::objects::OutputObjects;
use hodei_shared::ids::ObjectId;

use crate::system::files::sync_parent;

/// Objects made within 2^20 ms share a bucket.
const BUCKET_BITS: u32 = 20;

/// Objects below one folder. Clones share it.
#[derive(Debug, Clone)]
pub struct FileObjects {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    /// The bucket whose name is known to be durable. Buckets are made and removed under this lock.
    durable_bucket: Mutex<Option<String>>,
}

impl FileObjects {
    /// Objects in `folder`, which is made if it is not there. Blocks while it does so.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        sync_parent(folder)?;
        Ok(Self {
            inner: Arc::new(Inner {
                folder: folder.to_owned(),
                durable_bucket: Mutex::default(),
            }),
        })
    }

    /// Runs on a thread that may block. A dropped future leaves it running to its end.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done.map_err(|error| store_error(&error)),
            Err(_) => Err(StoreError::Unavailable("its thread has ended".to_owned())),
        }
    }
}

impl Inner {
    fn path(&self, id: ObjectId) -> PathBuf {
        self.folder.join(bucket_of(id)).join(id.to_string())
    }

    fn put(&self, id: ObjectId, bytes: &[u8]) -> io::Result<()> {
        self.make_bucket(&bucket_of(id))?;
        let path = self.path(id);
        let mut file = match create(&path) {
            // The bucket was empty and was removed just now.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make_bucket(&bucket_of(id))?;
                create(&path)?
            }
            created => created?,
        };
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_data())
            .and_then(|()| sync_parent(&path));
        if written.is_err() {
            let _left = fs::remove_file(&path);
        }
        written
    }

    fn make_bucket(&self, name: &str) -> io::Result<()> {
        let mut durable = self.durable_bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if durable.as_deref() == Some(name) {
                    return Ok(());
                }
            }
            made => made?,
        }
        sync_parent(&path)?;
        *durable = Some(name.to_owned());
        Ok(())
    }

    fn read(&self, id: ObjectId, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(self.path(id))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn remove(&self, id: ObjectId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        let mut durable = self.durable_bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket_of(id);
        // Only an empty one goes.
        if fs::remove_dir(self.folder.join(&bucket)).is_ok() && durable.as_deref() == Some(&bucket) {
            *durable = None;
        }
        Ok(())
    }

    /// Whole buckets, until there are enough.
    fn list(&self, after: Option<ObjectId>, limit: usize) -> io::Result<Vec<ObjectId>> {
        let first = after.map(bucket_of).unwrap_or_default();
        let mut buckets: Vec<String> = names(&self.folder)?
            .into_iter()
            .filter(|name| *name >= first)
            .collect();
        buckets.sort_unstable();
        let mut ids = Vec::new();
        for bucket in buckets {
            let names = match names(&self.folder.join(bucket)) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                names => names?,
            };
            // What is not named like an object is not ours.
            let found = names
                .iter()
                .filter_map(|name| name.parse::<ObjectId>().ok())
                .filter(|id| after.is_none_or(|after| *id > after));
            ids.extend(found);
            if ids.len() >= limit {
                break;
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

/// Hexadecimal, so that names are in the order of time.
fn bucket_of(id: ObjectId) -> String {
    format!("{:07x}", id.made_at_ms() >> BUCKET_BITS)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    entries.map(name).filter_map(io::Result::transpose).collect()
}

fn store_error(error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::Full,
        ErrorKind::NotFound | ErrorKind::UnexpectedEof | ErrorKind::AlreadyExists => {
            StoreError::Internal(format!("an object of output: {error}"))
        }
        _ => StoreError::Unavailable(format!("the folder of output: {error}")),
    }
}

#[async_trait]
impl OutputObjects for FileObjects {
    async fn put(&self, id: ObjectId, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.run(move |inner| inner.put(id, &bytes)).await
    }

    async fn read(&self, id: ObjectId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.run(move |inner| inner.read(id, offset, len)).await
    }

    async fn remove(&self, id: ObjectId) -> Result<(), StoreError> {
        self.run(move |inner| inner.remove(id)).await
    }

    async fn list(&self, after: Option<ObjectId>, limit: usize) -> Result<Vec<ObjectId>, StoreError> {
        self.run(move |inner| inner.list(after, limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_the_order_of_time() {
        let at = |ms: i64| {
            let mut bytes = [0; 16];
            bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
            bucket_of(ObjectId::from_bytes(bytes))
        };
        let times = [0, 1, 1 << 20, (1 << 20) + 1, 1_800_000_000_000, (1 << 48) - 1];
        let buckets = times.map(at);
        assert!(buckets.is_sorted(), "{buckets:?}");
        assert_eq!(buckets[0], buckets[1]);
        assert_ne!(buckets[1], buckets[2]);
        assert_eq!(buckets[5].len(), 7, "the last bucket that there can be");
    }
}
