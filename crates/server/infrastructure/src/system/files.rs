//! Files that must be whole, private and durable, and folders that must go whatever was left in them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file that only its owner can read, whole or not at all. When this returns, it outlasts a power cut.
///
/// What an interrupted call leaves beside it is named `.NAME.PID`.
///
/// # Errors
/// What the operating system says; the file at `path` is then as it was.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this names no file"));
    };
    let beside = folder.join(format!(".{}.{}", name.display(), std::process::id()));
    let _ = fs::remove_file(&beside);
    let mut options = OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(0o600).open(&beside)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.and_then(|()| sync_parent(path))
}

/// Makes durable that there is, or is no longer, a file of this name.
///
/// # Errors
/// What the operating system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes a folder with all that is in it, also below folders whose permissions forbid that. It is no error if
/// it is not there, or if somebody else removes it at the same time. Nobody else may write in it any more.
///
/// # Errors
/// What the operating system says to the second try.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let mut opened = false;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !opened => {
                opened = true;
                open_up(path);
            }
            // Something in it has gone meanwhile, or all of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_err() {
                    return Ok(());
                }
            }
            removed => return removed,
        }
    }
}

/// Lets the owner into a folder and all folders below it. What fails here shows when the folder is removed.
fn open_up(path: &Path) {
    let _denied = fs::set_permissions(path, Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        // A symbolic link is none: what it names is somebody else's.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn folders_that_were_closed_are_removed() {
        let temp = tempfile::tempdir().expect("a folder");
        let (outside, tree) = (temp.path().join("outside"), temp.path().join("tree"));
        let (shut, below) = (tree.join("shut"), tree.join("shut/below"));
        fs::create_dir(&outside).expect("made");
        fs::create_dir_all(&below).expect("made");
        fs::write(below.join("file"), "x").expect("written");
        std::os::unix::fs::symlink(&outside, tree.join("link")).expect("made");
        fs::set_permissions(&outside, Permissions::from_mode(0o555)).expect("set");
        let close = || {
            fs::set_permissions(&below, Permissions::from_mode(0o555)).expect("set");
            fs::set_permissions(&shut, Permissions::from_mode(0o000)).expect("set");
        };
        close();
        // Root is let in anyway, so the modes are looked at as well.
        open_up(&tree);
        assert_eq!((mode(&shut), mode(&below), mode(&outside)), (0o700, 0o700, 0o555));
        close();
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists() && outside.exists());
        remove_tree(&tree).expect("nothing to remove");
    }

    #[test]
    fn a_folder_that_somebody_else_removes_too_is_removed() {
        let temp = tempfile::tempdir().expect("a folder");
        let tree = temp.path().join("tree");
        for _ in 0..100 {
            (0..20).for_each(|n| fs::create_dir_all(tree.join(format!("{n}/below"))).expect("made"));
            let both = [(), ()].map(|()| {
                let tree = tree.clone();
                std::thread::spawn(move || remove_tree(&tree))
            });
            for removal in both {
                removal.join().expect("no panic").expect("removed");
            }
            assert!(!tree.exists());
        }
    }

    #[test]
    fn a_private_file_is_whole_and_private() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("token");
        for text in ["first\n", "second\n"] {
            write_private(&path, text.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("read"), text);
        }
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(temp.path()).expect("read").count(), 1);
        assert!(write_private(Path::new("/"), b"").is_err());
    }
}
