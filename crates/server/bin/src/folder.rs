//! The data folder: made private, held by one server at a time.
//!
//! A command's own server has a folder of its own below `local/`. Whoever dies leaves it with a free lock, and the
//! next one removes it, after the workers that were left in it. A folder is made and locked, and left ones are
//! claimed, under the lock of `local/` itself, so that none is taken for left before it is locked.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hodei_server_application::ports::Rng as _;
use hodei_server_infrastructure::system::{SystemRng, files};

const LOCK: &str = "lock";

/// A data folder that this process holds.
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Takes a folder, and makes it if it is not there.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        make_private(path)?;
        let lock = open_lock(path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => bail!(
                "another server uses the data folder {}; stop it, or use another folder with --data-dir",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("the data folder {} can not be locked", path.display()))
            }
        }
    }

    /// Makes a folder for one command, and claims those that others have left.
    pub(crate) fn take_local(data_dir: &Path) -> Result<(Self, Vec<Self>)> {
        let all = data_dir.join("local");
        make_private(data_dir)?;
        make_private(&all)?;
        let guard = open_lock(&all)?;
        guard
            .lock()
            .with_context(|| format!("{} can not be locked", all.display()))?;
        let mut left = Vec::new();
        let entries =
            std::fs::read_dir(&all).with_context(|| format!("{} can not be read", all.display()))?;
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            // One that is held is a command that runs.
            left.extend(Self::take(&entry.path()).ok());
        }
        let mut name = [0; 8];
        SystemRng::new().fill(&mut name);
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let own = Self::take(&all.join(name))?;
        Ok((own, left))
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a private folder in it.
    pub(crate) fn private(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        make_private(&path)?;
        Ok(path)
    }

    /// Removes the folder with all that is in it.
    pub(crate) fn remove(self) -> Result<()> {
        let shown = self.path.display();
        files::remove_tree(&self.path).with_context(|| format!("{shown} can not be removed"))
    }
}

fn open_lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options
        .open(&path)
        .with_context(|| format!("{} can not be opened", path.display()))
}

/// Makes a folder that only its owner can look into. One that is there must be the user's own.
fn make_private(path: &Path) -> Result<()> {
    let failed = || format!("the folder {} can not be made private", path.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(failed)?;
    let mode = std::fs::metadata(path).with_context(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(failed)?;
    }
    Ok(())
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    files::write_private(path, text.as_bytes())
        .with_context(|| format!("{} can not be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_held_by_one() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("data");
        let held = DataFolder::take(&path).expect("free");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let error = DataFolder::take(&path).err().expect("held").to_string();
        assert!(
            error.starts_with("another server uses the data folder"),
            "{error}"
        );
        drop(held);
        assert!(DataFolder::take(&path).is_ok());
    }

    #[test]
    fn a_commands_folder_is_left_for_the_next_one_only_when_it_is_free() {
        let temp = tempfile::tempdir().expect("a folder");
        let (running, left) = DataFolder::take_local(temp.path()).expect("made");
        assert!(left.is_empty());
        let (crashed, left) = DataFolder::take_local(temp.path()).expect("made");
        assert!(left.is_empty());
        let crashed_path = crashed.path().to_owned();
        drop(crashed);
        let (next, left) = DataFolder::take_local(temp.path()).expect("made");
        let left: Vec<_> = left.iter().map(|folder| folder.path().to_owned()).collect();
        assert_eq!(left, [crashed_path]);
        assert_ne!(next.path(), running.path());
        let path = next.path().to_owned();
        next.remove().expect("removed");
        assert!(!path.exists());
    }
}
