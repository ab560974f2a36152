//! Disk, clock, limits and addresses of this machine.

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hodei_shared::resources::format_bytes;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::Check;

/// With less than this a server can not keep anything for long.
const NO_ROOM: u64 = 100 << 20;
const LITTLE_ROOM: u64 = 2 << 30;
const SYNCS: usize = 16;
/// A commit waits for a sync; slower ones are felt in each submit.
const SLOW_SYNC: Duration = Duration::from_millis(20);
const NO_FILES: u64 = 256;
const FEW_FILES: u64 = 4_096;
const FEW_PROCESSES: u64 = 1_024;
/// The first second of 2024: no clock of a machine that runs this is before it.
const THIS_PROGRAM_EXISTS: i64 = 1_704_067_200;

/// The folder, or the one above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find(|folder| folder.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// Whether there is room on the data folder's disk.
pub(super) fn room(folder: &Path) -> Check {
    let place = existing(folder);
    let shown = place.display();
    let free = match rustix::fs::statvfs(&place) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => return Check::missing("disk", format!("{shown}: {error}"), "use another --data-dir"),
    };
    let found = format!("{} free at {shown}", format_bytes(free));
    match free {
        0..NO_ROOM => Check::missing("disk", found, "make room, or use another --data-dir"),
        NO_ROOM..LITTLE_ROOM => Check::warning("disk", found, "a few large outputs fill it; make room"),
        _ => Check::ok("disk", found),
    }
}

/// How long a write takes to be durable in the data folder.
pub(super) fn sync(folder: &Path) -> Check {
    let place = existing(folder);
    let shown = place.display();
    let mut took = match syncs(&place) {
        Ok(took) => took,
        Err(error) => {
            let advice = "make it writable for this user, or use another --data-dir";
            return Check::missing("fsync", format!("{shown} can not be written: {error}"), advice);
        }
    };
    took.sort();
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    let found = format!("{:.1} ms, at most {:.1} ms at {shown}", ms(median), ms(slowest));
    match median > SLOW_SYNC {
        true => Check::warning(
            "fsync",
            found,
            "each commit waits for it; use a faster disk for --data-dir",
        ),
        false => Check::ok("fsync", found),
    }
}

fn syncs(folder: &Path) -> std::io::Result<Vec<Duration>> {
    let path = folder.join(format!(".hodei-doctor-{}", std::process::id()));
    let mut file = File::create_new(&path)?;
    // The name is gone before anything can go wrong; what is written is synced all the same.
    std::fs::remove_file(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[0; 4_096])?;
        file.sync_data()?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Whether the clocks that leases and certificates rest on are sane.
pub(super) fn clock() -> Check {
    let nanos = |id| {
        let at = clock_gettime(id);
        i128::from(at.tv_sec) * 1_000_000_000 + i128::from(at.tv_nsec)
    };
    let (first, boot, second) = (
        nanos(ClockId::Monotonic),
        nanos(ClockId::Boottime),
        nanos(ClockId::Monotonic),
    );
    let wall = clock_gettime(ClockId::Realtime).tv_sec;
    let shown = jiff::Timestamp::from_second(wall).map_or("beyond all years".to_owned(), |at| at.to_string());
    if first <= 0 || second < first {
        return Check::missing(
            "clock",
            "the monotonic clock goes backwards",
            "use another kernel or hypervisor",
        );
    }
    if boot < first {
        return Check::missing(
            "clock",
            "the boot-time clock is behind the monotonic one",
            "use another kernel or hypervisor",
        );
    }
    match wall < THIS_PROGRAM_EXISTS {
        true => Check::missing(
            "clock",
            shown,
            "set the clock: certificates are not valid at this time",
        ),
        false => Check::ok("clock", format!("{shown}; monotonic and boot time go on")),
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
}

/// How many files may be open. A server raises the soft limit itself.
pub(super) fn open_files() -> Check {
    const ADVICE: &str = "raise the hard limit: LimitNOFILE= of the service, or /etc/security/limits.conf";
    let limit = getrlimit(Resource::Nofile);
    let found = format!(
        "{} open files, at most {}",
        shown(limit.current),
        shown(limit.maximum)
    );
    match limit.maximum.unwrap_or(u64::MAX) {
        0..NO_FILES => Check::missing("nofile", found, ADVICE),
        NO_FILES..FEW_FILES => Check::warning("nofile", found, ADVICE),
        _ => Check::ok("nofile", found),
    }
}

/// How many processes this user may have.
pub(super) fn processes() -> Check {
    let limit = getrlimit(Resource::Nproc);
    let found = format!(
        "{} processes, at most {}",
        shown(limit.current),
        shown(limit.maximum)
    );
    match limit.current.unwrap_or(u64::MAX) < FEW_PROCESSES && !rustix::process::geteuid().is_root() {
        true => Check::warning(
            "nproc",
            found,
            "jobs share it: raise it with ulimit -u or LimitNPROC=",
        ),
        false => Check::ok("nproc", found),
    }
}

/// How much jobs can have.
pub(super) fn size() -> Check {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let memory = memory.and_then(|kib| kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    match memory {
        Some(kib) => Check::ok(
            "machine",
            format!("{cpus} cpus, {} of memory", format_bytes(kib << 10)),
        ),
        None => Check::warning("machine", format!("{cpus} cpus, memory unknown"), "mount /proc"),
    }
}

/// Whether somebody serves from the data folder: then its addresses are in use for a good reason.
pub(super) fn is_served(folder: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(folder.join("run/client.sock")).is_ok()
}

/// Whether a server could listen.
pub(super) fn address(name: &'static str, address: SocketAddr, served: bool) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(_) if served => Check::ok(name, format!("{address} is in use, and a server runs here")),
        Err(error) => {
            let flag = if name.starts_with("client") {
                "--listen"
            } else {
                "--worker-listen"
            };
            Check::warning(
                name,
                format!("{address}: {error}"),
                format!("start with {flag} 127.0.0.1:0, which takes a free one"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("a/b");
        assert_eq!(existing(&deep), folder.path());
        assert!(sync(&deep).found.contains("ms"), "{:?}", sync(&deep));
        let left = std::fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!(left, 0, "nothing stays behind");
    }

    #[test]
    fn an_address_in_use_is_said_unless_a_server_runs_here() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let taken = listener.local_addr().expect("bound");
        let said = address("client address", taken, false);
        assert_eq!(said.standing, Standing::Warning);
        assert!(
            said.advice.is_some_and(|advice| advice.contains("--listen")),
            "{}",
            said.found
        );
        assert_eq!(address("client address", taken, true).standing, Standing::Ok);
    }
}
