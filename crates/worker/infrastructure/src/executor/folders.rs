//! The private folders of attempts: each has `work`, `home` and `tmp`, empty when the attempt begins.
//!
//! To make and remove four folders costs more than to start a process: ext4 looks for inodes that were not freed
//! just now, bit by bit. So what an attempt left untouched serves the next one of the same worker. Invariant:
//! [`AttemptFolders::is_pristine`] is asked when an attempt begins, not when the one before ended, since other jobs
//! of the same user could have put something there meanwhile; whatever differs from a fresh folder is removed.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, Stat, flistxattr, fstat, open, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::folder::remove_tree;

/// What is in an attempt's folder.
pub(super) const PARTS: [&str; 3] = ["work", "home", "tmp"];
/// Access for the worker's user alone.
pub(super) const MODE: u32 = 0o700;
const ACCESS_BITS: u32 = 0o7777;
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The folders below one place, and which of them no attempt uses.
pub(super) struct AttemptFolders {
    base: PathBuf,
    next: AtomicU64,
    idle: Mutex<Vec<PathBuf>>,
}

impl AttemptFolders {
    pub(super) fn new(base: PathBuf) -> Self {
        Self {
            base,
            next: AtomicU64::new(0),
            idle: Mutex::default(),
        }
    }

    /// A folder that no attempt uses; it may not exist yet.
    pub(super) fn take(&self) -> PathBuf {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.base.join(number.to_string())
        })
    }

    /// Removes what an attempt has left, and gives its folder to the next.
    pub(super) fn give_back(&self, folder: PathBuf) {
        if !matches!(remove_files(&folder), Ok(true)) {
            remove_tree(&folder);
        }
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(folder);
    }
}

/// Whether `folder` is as if it had just been made.
pub(super) fn is_pristine(folder: &Path) -> bool {
    let looks_fresh = || {
        let top = open(folder, FOLDER, Mode::empty())?;
        let mut names = PARTS.map(|_| false);
        let mut foreign = false;
        each_name(&top, |name| {
            match PARTS.iter().position(|part| part.as_bytes() == name) {
                Some(part) => names[part] = true,
                None => foreign = true,
            }
        })?;
        if foreign || names.contains(&false) || !is_untouched(&top)? {
            return Ok(false);
        }
        for part in PARTS {
            let part = openat(&top, part, FOLDER, Mode::empty())?;
            let mut empty = true;
            each_name(&part, |_| empty = false)?;
            if !empty || !is_untouched(&part)? {
                return Ok(false);
            }
        }
        io::Result::Ok(true)
    };
    looks_fresh().unwrap_or(false)
}

/// Owner, mode and attributes as they were made.
fn is_untouched(folder: &OwnedFd) -> io::Result<bool> {
    let Stat { st_mode, st_uid, .. } = fstat(folder)?;
    if st_mode & ACCESS_BITS != MODE || st_uid != geteuid().as_raw() {
        return Ok(false);
    }
    let mut names = [MaybeUninit::uninit(); 256];
    match flistxattr(folder, &mut names) {
        // Labels of the system itself are no job's doing.
        Ok((names, _)) => Ok(names
            .split(|byte| *byte == 0)
            .all(|name| name.is_empty() || name.starts_with(b"security."))),
        Err(Errno::NOTSUP) => Ok(true),
        Err(_) => Ok(false),
    }
}

/// Removes files that lie directly in the attempt's folders; false if there is more than that.
fn remove_files(folder: &Path) -> io::Result<bool> {
    let top = open(folder, FOLDER, Mode::empty())?;
    let mut only_files = remove_files_in(&top, &PARTS)?;
    for part in PARTS {
        only_files &= remove_files_in(&openat(&top, part, FOLDER, Mode::empty())?, &[])?;
    }
    Ok(only_files)
}

fn remove_files_in(folder: &OwnedFd, kept: &[&str]) -> io::Result<bool> {
    let mut left = Vec::new();
    each_name(folder, |name| {
        if !kept.iter().any(|kept| kept.as_bytes() == name) {
            left.push(name.to_vec());
        }
    })?;
    let removed = left
        .iter()
        .all(|name| unlinkat(folder, name.as_slice(), AtFlags::empty()).is_ok());
    Ok(removed)
}

/// Calls `look` with each name in a folder but `.` and `..`.
fn each_name(folder: &OwnedFd, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4 << 10];
    let mut entries = RawDir::new(folder.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => look(name),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn made(folders: &AttemptFolders) -> PathBuf {
        let folder = folders.take();
        super::super::command::make_folders(&folder).expect("made");
        assert!(is_pristine(&folder));
        folder
    }

    #[test]
    fn what_only_files_were_left_in_serves_again() {
        let base = tempfile::tempdir().expect("a folder");
        let folders = AttemptFolders::new(base.path().to_owned());
        let folder = made(&folders);
        for file in ["script", "work/out", "home/.history", "tmp/x"] {
            fs::write(folder.join(file), "text").expect("written");
        }
        assert!(!is_pristine(&folder));
        folders.give_back(folder.clone());
        assert!(is_pristine(&folder), "nobody had to make it again");
        assert_eq!(folders.take(), folder);
        assert_ne!(folders.take(), folder, "one attempt has it");
    }

    #[test]
    fn whatever_else_was_done_to_it_removes_it() {
        type Deed = fn(&Path);
        let deeds: [(&str, Deed); 6] = [
            ("a folder", |f| fs::create_dir(f.join("work/deep")).expect("made")),
            ("another mode", |f| {
                fs::set_permissions(f.join("tmp"), fs::Permissions::from_mode(0o777)).expect("set");
            }),
            ("gone", |f| fs::remove_dir(f.join("home")).expect("removed")),
            ("a link", |f| {
                fs::remove_dir(f.join("home")).expect("removed");
                symlink("/", f.join("home")).expect("linked");
            }),
            ("one more", |f| {
                fs::DirBuilder::new()
                    .mode(0o700)
                    .create(f.join("more"))
                    .expect("made")
            }),
            ("all gone", |f| fs::remove_dir_all(f).expect("removed")),
        ];
        for (what, deed) in deeds {
            let base = tempfile::tempdir().expect("a folder");
            let folders = AttemptFolders::new(base.path().to_owned());
            let folder = made(&folders);
            deed(&folder);
            assert!(!is_pristine(&folder), "{what}");
            folders.give_back(folder.clone());
            super::super::command::make_folders(&folder).expect("made again");
            assert!(is_pristine(&folder), "{what}");
        }
    }
}
