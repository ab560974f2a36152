//! From an assignment to a program, its arguments, its environment and its folder; and from a failed start to words.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use hodei_worker_application::ports::StartFailure;
use hodei_worker_domain::assignment::{Assignment, Command};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, accessat, openat, statat};
use rustix::io::Errno;

use super::folders::{self, is_pristine};
use super::spawn::{SpawnError, Stage};
use crate::folder::remove_tree;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MISSING: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// All that the spawner needs.
pub(super) struct Prepared {
    pub(super) program: CString,
    pub(super) argv: Vec<CString>,
    pub(super) env: Vec<CString>,
    pub(super) workdir: OwnedFd,
}

fn failure(exit_code: Option<i32>, message: String) -> StartFailure {
    StartFailure {
        exit_code,
        message,
        worker_is_broken: false,
    }
}

/// Makes the attempt's folders below `folder` and finds its program.
pub(super) fn prepare(
    assignment: &Assignment,
    folder: &Path,
    worker: &str,
) -> Result<Prepared, StartFailure> {
    let machine = |error: io::Error| StartFailure {
        worker_is_broken: is_structural(&error),
        ..failure(None, format!("the attempt's folder can not be made: {error}"))
    };
    make_folders(folder).map_err(machine)?;
    let env = environment(assignment, folder, worker);
    let workdir = open_workdir(assignment, folder)?;
    let argv = match &assignment.command {
        Command::Argv(argv) => argv.clone(),
        Command::Script { text, interpreter } => {
            let file = write_script(folder, text).map_err(machine)?;
            interpreter.iter().cloned().chain([file]).collect()
        }
    };
    let name = argv.first().cloned().unwrap_or_default();
    let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let program = find_program(&name, path, &workdir)?;
    let text = |text: String, what: &str| {
        CString::new(text).map_err(|_| {
            failure(
                Some(NOT_EXECUTABLE),
                format!("{what} of {name} contains a NUL byte"),
            )
        })
    };
    Ok(Prepared {
        program: text(program, "the name")?,
        argv: argv
            .into_iter()
            .map(|arg| text(arg, "an argument"))
            .collect::<Result<_, _>>()?,
        env: env
            .into_iter()
            .map(|(key, value)| text(format!("{key}={value}"), "the environment"))
            .collect::<Result<_, _>>()?,
        workdir,
    })
}

/// Whether the folder in which attempts have theirs is gone or can not be used, unlike one that is full.
fn is_structural(error: &io::Error) -> bool {
    let error = Errno::from_io_error(error);
    [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::ACCESS,
        Errno::PERM,
        Errno::ROFS,
        Errno::STALE,
    ]
    .into_iter()
    .any(|structural| error == Some(structural))
}

/// Makes the folders of an attempt, unless an earlier one has left them as they should be.
pub(super) fn make_folders(folder: &Path) -> io::Result<()> {
    if is_pristine(folder) {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.mode(folders::MODE);
    match builder.create(folder) {
        // Another job of the same user has put something there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove_tree(folder);
            builder.create(folder)?;
        }
        made => made?,
    }
    folders::PARTS
        .iter()
        .try_for_each(|name| builder.create(folder.join(name)))
}

fn environment(assignment: &Assignment, folder: &Path, worker: &str) -> BTreeMap<String, String> {
    let below = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let mut env: BTreeMap<String, String> = [
        ("PATH", DEFAULT_PATH.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("HOME", below("home")),
        ("TMPDIR", below("tmp")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let own = assignment
        .env
        .iter()
        .filter(|(key, _)| !key.is_empty() && !key.contains('=') && !key.starts_with("HODEI_"));
    env.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    let hodei = [
        ("HODEI_JOB_ID", assignment.key.job.to_string()),
        ("HODEI_ATTEMPT", assignment.attempt.to_string()),
        ("HODEI_NAMESPACE", assignment.namespace.to_string()),
        ("HODEI_WORKER_ID", worker.to_owned()),
    ];
    env.extend(hodei.map(|(key, value)| (key.to_owned(), value)));
    env
}

/// What every process of the attempt has in its environment, unless it wiped that.
pub(super) fn marks(assignment: &Assignment, worker: &str) -> Vec<String> {
    vec![
        format!("HODEI_JOB_ID={}", assignment.key.job),
        format!("HODEI_ATTEMPT={}", assignment.attempt),
        format!("HODEI_WORKER_ID={worker}"),
    ]
}

fn open_workdir(assignment: &Assignment, folder: &Path) -> Result<OwnedFd, StartFailure> {
    let private = folder.join("work");
    let path = assignment.workdir.as_deref().map_or(private.as_path(), Path::new);
    let opened = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    opened.map_err(|error| StartFailure {
        worker_is_broken: assignment.workdir.is_none() && is_structural(&error.into()),
        ..no_workdir(path, error)
    })
}

fn no_workdir(path: &Path, error: Errno) -> StartFailure {
    let reason = match error {
        Errno::NOENT => "there is no such folder".to_owned(),
        Errno::NOTDIR => "it is not a folder".to_owned(),
        other => io::Error::from(other).to_string(),
    };
    failure(
        None,
        format!("working folder {} can not be entered: {reason}", path.display()),
    )
}

fn write_script(folder: &Path, text: &str) -> io::Result<String> {
    let path = folder.join("script");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path.to_string_lossy().into_owned())
}

/// A name with a slash stands for itself, relative to the job's folder; another is looked for in the job's PATH.
fn find_program(name: &str, path: &str, workdir: &OwnedFd) -> Result<String, StartFailure> {
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let mut denied = false;
    for folder in path.split(':').filter(|_| !name.is_empty()) {
        let folder = if folder.is_empty() { "." } else { folder };
        let candidate = format!("{}/{name}", folder.trim_end_matches('/'));
        let Ok(stat) = statat(workdir, &candidate, AtFlags::empty()) else {
            continue;
        };
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_file && accessat(workdir, &candidate, Access::EXEC_OK, AtFlags::EACCESS).is_ok() {
            return Ok(candidate);
        }
        denied |= is_file;
    }
    Err(if denied {
        failure(Some(NOT_EXECUTABLE), format!("{name}: permission denied"))
    } else {
        failure(Some(MISSING), format!("{name}: command not found in {path}"))
    })
}

/// Words and exit code of a failed start.
pub(super) fn explain(error: SpawnError, prepared: &Prepared, assignment: &Assignment) -> StartFailure {
    let reason = io::Error::from_raw_os_error(error.errno);
    match error.stage {
        Stage::Clone | Stage::SetUp => failure(None, format!("the process can not be made: {reason}")),
        Stage::Folder => {
            let path = assignment.workdir.as_deref().unwrap_or("(private)");
            no_workdir(Path::new(path), Errno::from_raw_os_error(error.errno))
        }
        Stage::Exec => {
            let shown = prepared
                .argv
                .first()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            explain_exec(Errno::from_raw_os_error(error.errno), &shown, prepared)
        }
    }
}

fn explain_exec(error: Errno, shown: &str, prepared: &Prepared) -> StartFailure {
    let exists = statat(&prepared.workdir, &*prepared.program, AtFlags::empty()).ok();
    match (error, exists) {
        (Errno::NOENT, None) => failure(Some(MISSING), format!("{shown}: no such file")),
        (Errno::NOTDIR, None) => failure(
            Some(MISSING),
            format!("{shown}: a part of the path is not a folder"),
        ),
        (Errno::NOENT, Some(_)) => {
            let interpreter =
                interpreter(prepared).unwrap_or_else(|| "its dynamic loader is missing".to_owned());
            failure(
                Some(NOT_EXECUTABLE),
                format!("{shown}: bad interpreter: {interpreter}"),
            )
        }
        (_, Some(stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            failure(Some(NOT_EXECUTABLE), format!("{shown}: is a folder"))
        }
        (Errno::NOEXEC, _) => failure(
            Some(NOT_EXECUTABLE),
            format!("{shown}: is neither a program nor a script with `#!`"),
        ),
        (other, _) => failure(
            Some(NOT_EXECUTABLE),
            format!("{shown}: {}", io::Error::from(other)),
        ),
    }
}

/// What the file's `#!` line names.
fn interpreter(prepared: &Prepared) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(&prepared.workdir, &*prepared.program, flags, Mode::empty()).ok()?;
    let mut head = Vec::new();
    fs::File::from(file).take(256).read_to_end(&mut head).ok()?;
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.strip_prefix("#!")?.lines().next()?;
    Some(line.split_whitespace().next()?.to_owned())
}
