//! What the kernel offers.

use std::fs::read_to_string;

use super::Check;

/// The oldest kernel whose clone3 puts a process into a cgroup at its start.
const CLONE_INTO_CGROUP: (u32, u32) = (5, 7);
/// The kernels that brought an ABI of Landlock, newest first (Documentation/userspace-api/landlock.rst).
const LANDLOCK: [((u32, u32), u32); 7] = [
    ((6, 15), 7),
    ((6, 12), 6),
    ((6, 10), 5),
    ((6, 7), 4),
    ((6, 2), 3),
    ((5, 19), 2),
    ((5, 13), 1),
];

fn line(path: &str) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn running() -> Option<(u32, u32)> {
    version(&line("/proc/sys/kernel/osrelease")?)
}

/// The version, which decides on clone3.
pub(super) fn release() -> Check {
    let release = line("/proc/sys/kernel/osrelease").unwrap_or_default();
    match version(&release) {
        Some(version) if version >= CLONE_INTO_CGROUP => {
            Check::ok("kernel", format!("Linux {release}, has clone3"))
        }
        Some(_) => Check::missing(
            "kernel",
            format!("Linux {release}"),
            "clone3 with a cgroup needs Linux 5.7 or newer",
        ),
        None => Check::missing("kernel", "its version can not be read", "mount /proc"),
    }
}

/// Whether processes can be held by descriptors.
pub(super) fn pidfd() -> Check {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::ok("pidfd", "processes can be held by descriptors"),
        Err(error) => Check::missing(
            "pidfd",
            error.to_string(),
            "use Linux 5.3 or newer, or a sandbox that allows pidfd_open",
        ),
    }
}

/// Whether a user who is not root may make namespaces. The trial says whether it works.
pub(super) fn user_namespaces() -> Check {
    const NAME: &str = "user namespaces";
    let is = |path: &str, value: &str| line(path).as_deref() == Some(value);
    let off = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    let root = rustix::process::geteuid().is_root();
    if line("/proc/self/uid_map").is_none() {
        return Check::warning(NAME, "the kernel has none", "use a kernel with CONFIG_USER_NS");
    }
    match off.iter().find(|(path, value)| is(path, value)) {
        Some((path, value)) if !root => Check::warning(
            NAME,
            format!("{path} is {value}: only root may make them"),
            format!(
                "as root: sysctl {}={}",
                sysctl(path),
                if *value == "0" { "100000" } else { "0" }
            ),
        ),
        _ => Check::ok(NAME, "not restricted"),
    }
}

fn sysctl(path: &str) -> String {
    path.trim_start_matches("/proc/sys/").replace('/', ".")
}

/// Which control groups there are, and with what.
pub(super) fn cgroups() -> Check {
    let mounts = read_to_string("/proc/self/mounts").unwrap_or_default();
    let (unified, controllers) = hierarchies(&mounts);
    let here = unified
        .as_ref()
        .and_then(|path| line(&format!("{path}/cgroup.controllers")));
    let here = here.unwrap_or_default();
    let has = |name: &str| {
        here.split(' ')
            .chain(controllers.iter().map(String::as_str))
            .any(|c| c == name)
    };
    let lacking: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !has(name))
        .collect();
    let found = match (&unified, controllers.is_empty()) {
        (Some(path), true) => format!("v2 at {path}: {here}"),
        (Some(path), false) => format!("v1 ({}), v2 at {path}", controllers.join(" ")),
        (None, false) => format!("v1: {}", controllers.join(" ")),
        (None, true) => "none are mounted".to_owned(),
    };
    match lacking.is_empty() {
        true => Check::ok("cgroups", found),
        false => Check::warning(
            "cgroups",
            found,
            format!(
                "without {} its limits are not enforced; mount or delegate it",
                lacking.join(", ")
            ),
        ),
    }
}

/// Where v2 is mounted, and the controllers of v1.
fn hierarchies(mounts: &str) -> (Option<String>, Vec<String>) {
    const KNOWN: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "freezer", "devices"];
    let (mut unified, mut controllers) = (None, Vec::new());
    for mount in mounts.lines() {
        let mut fields = mount.split(' ').skip(1);
        let (path, kind, options) = (fields.next(), fields.next(), fields.next());
        match (path, kind) {
            (Some(path), Some("cgroup2")) => unified = unified.or_else(|| Some(path.to_owned())),
            (_, Some("cgroup")) => {
                let options = options.unwrap_or_default().split(',');
                controllers.extend(options.filter(|option| KNOWN.contains(option)).map(str::to_owned));
            }
            _ => {}
        }
    }
    (unified, controllers)
}

/// Whether system calls can be filtered.
pub(super) fn seccomp() -> Check {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    match status.lines().any(|line| line.starts_with("Seccomp:")) {
        true => Check::ok("seccomp", "system calls can be filtered"),
        false => Check::warning(
            "seccomp",
            "the kernel has none",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

/// Whether access to files can be restricted without privileges. The ABI is that of the kernel's version; asking the
/// kernel takes a system call that this command does not make.
pub(super) fn landlock() -> Check {
    const ADVICE: &str = "use a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in its lsm= parameter";
    let abi = running().and_then(|running| LANDLOCK.iter().find(|(version, _)| running >= *version));
    let active = line("/sys/kernel/security/lsm");
    match (abi, active) {
        (None, _) => Check::warning(
            "landlock",
            "the kernel is older than Landlock",
            "use Linux 5.13 or newer",
        ),
        (Some(_), Some(active)) if !active.split(',').any(|name| name == "landlock") => Check::warning(
            "landlock",
            format!("not among the active modules: {active}"),
            ADVICE,
        ),
        (Some((_, abi)), Some(_)) => {
            Check::ok("landlock", format!("active, ABI {abi} by the kernel's version"))
        }
        (Some((_, abi)), None) => Check::ok(
            "landlock",
            format!("ABI {abi} by the kernel's version; securityfs does not say whether it is active"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(version("5.4.0-1-amd64"), Some((5, 4)));
        assert_eq!(version("weird"), None);
        assert!(version("5.10.1") > version("5.7.0"));
    }

    #[test]
    fn both_kinds_of_hierarchies_are_seen() {
        let mounts = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n";
        let (unified, controllers) = hierarchies(mounts);
        assert_eq!(unified.as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(controllers, ["cpu", "pids"]);
        assert_eq!(hierarchies(""), (None, Vec::new()));
    }

    #[test]
    fn a_setting_is_named_as_sysctl_names_it() {
        assert_eq!(
            sysctl("/proc/sys/user/max_user_namespaces"),
            "user.max_user_namespaces"
        );
    }
}
