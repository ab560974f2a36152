//! Looking for processes by what is written on them, and killing them one by one.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Sends KILL. A process that is gone already is as good.
pub(crate) fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

/// Sends a signal. A process that is gone already is as good.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    // Gone, then.
    let _gone = kill_process(pid, signal);
}

/// All processes of a job that did not wipe their environment.
pub(crate) fn of_job(job: &str) -> Vec<u32> {
    let mark = format!("HODEI_JOB_ID={job}");
    all(|pid| {
        let environment = read(pid, "environ");
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    })
}

/// All processes with this argument.
pub(crate) fn with_argument(argument: &str) -> Vec<u32> {
    all(|pid| {
        read(pid, "cmdline")
            .split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes())
    })
}

/// All processes with something below `folder` in their arguments or environment.
pub(crate) fn below(folder: &Path) -> Vec<u32> {
    let folder = folder.as_os_str().as_bytes();
    let holds = |text: &[u8]| text.windows(folder.len()).any(|window| window == folder);
    all(|pid| holds(&read(pid, "cmdline")) || holds(&read(pid, "environ")))
}

/// All children of a process that have not ended.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    all(|pid| {
        let stat = read(pid, "stat");
        let stat = String::from_utf8_lossy(&stat);
        let mut fields = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest)
            .unwrap_or_default()
            .split(' ');
        fields.next().is_some_and(|state| state != "Z") && fields.next() == Some(&parent.to_string())
    })
}

fn read(pid: u32, file: &str) -> Vec<u8> {
    // One that is gone has nothing written on it.
    fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn all(wanted: impl Fn(u32) -> bool) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid| *pid != std::process::id() && wanted(*pid))
        .collect()
}
