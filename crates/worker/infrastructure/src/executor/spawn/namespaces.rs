//! Namespaces, privileges and the signals of the first process. Part of the audited module.
//!
//! Order, all before any thread exists: [`enter`] unshares and forks; the child is PID 1 of the namespace, so its
//! death ends every process of every job; [`harden`] makes the worker unreadable for jobs of the same user before any
//! secret is read; [`drop_privileges`] leaves no capability to the worker or to any job. [`supervise`] keeps the main
//! thread as the reaper of orphans; it never spawns.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitIdStatus, getegid, geteuid,
    getpid, set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal, setrlimit, waitid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, unshare_unsafe,
};

/// `__WALL` and `__WNOTHREAD` of waitid(2).
const WALL: u32 = 0x4000_0000;
const WNOTHREAD: u32 = 0x2000_0000;

/// Proof that this process is PID 1 of a PID namespace of its own.
#[derive(Debug, Clone, Copy)]
pub struct OwnNamespace(());

/// What the worker's process lives in.
#[derive(Debug)]
pub struct Sandbox {
    namespace: Option<OwnNamespace>,
    stub: Option<OwnedFd>,
}

impl Sandbox {
    /// Proof of the PID namespace, if the kernel allowed one.
    pub fn namespace(&self) -> Option<OwnNamespace> {
        self.namespace
    }

    /// Tells the stub which folder of cgroups to remove after the worker; best effort.
    pub fn remove_afterwards(&self, path: &std::path::Path) {
        if let (Some(stub), Some(path)) = (&self.stub, path.to_str()) {
            // Without the stub nobody is left to tell.
            let _gone = rustix::io::write(stub, path.as_bytes());
        }
    }
}

/// In which of the two processes [`enter`] has returned.
#[derive(Debug)]
pub enum Entered {
    /// The worker.
    Worker(Sandbox),
    /// The process that only waited for the worker: its exit code.
    Stub(u8),
}

/// Moves into namespaces of its own where the kernel allows; otherwise becomes the reaper of its descendants.
/// Must be called before any thread exists. Blocks the signals that [`supervise`] reads.
///
/// # Errors
/// [`io::Error`] if a namespace that could be made a moment ago can not be entered.
pub fn enter() -> io::Result<Entered> {
    block_signals(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    if !can_unshare() {
        set_child_subreaper(Some(getpid()))?;
        return Ok(Entered::Worker(Sandbox {
            namespace: None,
            stub: None,
        }));
    }
    let (stub_end, worker_end) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // Of the outer mount namespace: the worker makes the hierarchy in its own one read-only.
    let cgroup = crate::cgroup::open_own();
    unshare_all()?;
    match fork()? {
        Some(worker) => {
            drop(worker_end);
            harden()?;
            Ok(Entered::Stub(run_stub(worker, stub_end, cgroup)?))
        }
        None => {
            drop((stub_end, cgroup));
            become_init(worker_end.as_fd())?;
            Ok(Entered::Worker(Sandbox {
                namespace: Some(OwnNamespace(())),
                stub: Some(worker_end),
            }))
        }
    }
}

/// Makes memory and environment of this process unreadable for others of the same user.
///
/// # Errors
/// [`io::Error`] from prctl(2).
pub fn harden() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Gives up all capabilities, also those that a program of root would get back. Returns whether jobs have none.
/// Must be called before any thread exists.
pub fn drop_privileges() -> bool {
    let bounding = CapabilitySet::all()
        .iter()
        .chain((41..64).map(|bit| CapabilitySet::from_bits_retain(1 << bit)));
    // The kernel knows fewer capabilities than there are bits, and an unprivileged worker may drop none.
    for capability in bounding {
        let _unknown = remove_capability_from_bounding_set(capability);
    }
    let _none = clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let dropped = set_capabilities(None, none).is_ok();
    let locked = set_no_new_privs(true).is_ok();
    // Without capabilities and with no_new_privs only root could gain any, from the bounding set.
    let bounded = !geteuid().is_root()
        || rustix::thread::capability_is_in_bounding_set(CapabilitySet::SYS_ADMIN).is_ok_and(|kept| !kept);
    dropped && locked && bounded
}

/// Reaps orphans on the main thread until `done` is closed. `stop` is called once when the worker should end: the
/// stub was told to, or without a stub the worker itself.
///
/// # Errors
/// [`io::Error`] from signalfd(2) or poll(2).
pub fn supervise(sandbox: &Sandbox, done: BorrowedFd<'_>, stop: impl FnOnce()) -> io::Result<()> {
    let mut wanted = vec![libc::SIGCHLD, libc::SIGHUP];
    if sandbox.stub.is_none() {
        wanted.extend([libc::SIGTERM, libc::SIGINT]);
    }
    let signals = signal_descriptor(&wanted)?;
    let mut stop = Some(stop);
    loop {
        reap_orphans();
        let mut fds = vec![
            PollFd::from_borrowed_fd(done, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        let stub = sandbox.stub.as_ref().filter(|_| stop.is_some());
        fds.extend(stub.map(|stub| PollFd::new(stub, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            return Ok(());
        }
        let asked = ready[1] && matches!(next_signal(&signals)?, libc::SIGTERM | libc::SIGINT);
        let stub_asks = ready.get(2).copied().unwrap_or(false);
        if (asked || stub_asks)
            && let Some(stop) = stop.take()
        {
            stop();
        }
    }
}

/// Sends `signal` to every process of the namespace but this one.
pub(crate) fn signal_all_others(_proof: OwnNamespace, signal: Signal) {
    if getpid() == Pid::INIT {
        // SAFETY: no memory is involved; as PID 1 of its namespace the process reaches only what it contains.
        unsafe { libc::kill(-1, signal.as_raw()) };
    }
}

/// Waits for the process behind `pidfd`, which has ended or is about to.
pub(crate) fn reap(pidfd: &OwnedFd) -> Option<WaitIdStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(WALL);
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome.ok().flatten(),
        }
    }
}

/// Whether the process behind `pidfd` has ended. Does not wait.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Blocks all signals for the calling thread, so that no handler runs in a child that shares the memory.
pub(crate) fn block_all_signals() {
    // SAFETY: the set is initialised by sigfillset before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

fn block_signals(signals: &[i32]) -> io::Result<()> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set; the numbers are valid signals.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

fn signal_descriptor(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: the set is initialised; a new descriptor is returned or -1.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal of the descriptor; 0 if there is none.
fn next_signal(fd: &OwnedFd) -> io::Result<i32> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        Ok(_) => Ok(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn reap_orphans() {
    let options =
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::from_bits_retain(WALL | WNOTHREAD);
    while matches!(waitid(WaitId::All, options), Ok(Some(_))) {}
}

/// The child's process id in the parent, none in the child. Only while there is one thread.
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the process has one thread, so the child's memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        child => Ok(Pid::from_raw(child)),
    }
}

/// Whether namespaces with a /proc of their own can be had; tried out in a child, since they can not be left again.
fn can_unshare() -> bool {
    let Ok(child) = fork() else { return false };
    let Some(child) = child else {
        let works = unshare_all().is_ok()
            && match fork() {
                Ok(Some(init)) => exit_code(init) == Some(0),
                Ok(None) => exit_now(u8::from(own_mounts().is_err())),
                Err(_) => false,
            };
        exit_now(u8::from(!works));
    };
    exit_code(child) == Some(0)
}

fn exit_now(code: u8) -> ! {
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(i32::from(code)) }
}

fn exit_code(child: Pid) -> Option<u8> {
    loop {
        match waitid(WaitId::Pid(child), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome.ok().flatten().map(|status| code_of(&status)),
        }
    }
}

fn code_of(status: &WaitIdStatus) -> u8 {
    let signal = || 128 + status.terminating_signal().unwrap_or(0);
    status.exit_status().unwrap_or_else(signal) as u8
}

fn unshare_all() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let inner = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC;
    // SAFETY: there is one thread, and no file table is unshared.
    if uid.is_root() && unsafe { unshare_unsafe(inner) }.is_ok() {
        return Ok(());
    }
    // SAFETY: as above.
    unsafe { unshare_unsafe(inner | UnshareFlags::NEWUSER) }?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{0} {0} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("{0} {0} 1", gid.as_raw()))
}

fn own_mounts() -> io::Result<()> {
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM,
    )?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, None)?)
}

fn become_init(stub: BorrowedFd<'_>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut fds = [PollFd::from_borrowed_fd(stub, PollFlags::IN)];
    let now = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A parent that died before the line above sends no signal, but its end of the pair is closed.
    if poll(&mut fds, Some(&now))? > 0 {
        exit_now(1);
    }
    own_mounts()
}

/// Waits for the worker; a first TERM or INT is passed on by closing the pair's direction to it.
fn run_stub(worker: Pid, pair: OwnedFd, cgroup: Option<OwnedFd>) -> io::Result<u8> {
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let signals = signal_descriptor(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    loop {
        let status = waitid(WaitId::Pid(worker), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
        if let Some(status) = status {
            remove_cgroups(&pair, cgroup);
            return Ok(code_of(&status));
        }
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if matches!(next_signal(&signals)?, libc::SIGTERM | libc::SIGINT) {
            // Fails only when the worker is gone, which shows above.
            let _gone = shutdown(&pair, Shutdown::Write);
        }
    }
}

/// Removes the cgroups that the worker has named, below the one that it was started in.
fn remove_cgroups(pair: &OwnedFd, cgroup: Option<OwnedFd>) {
    let mut path = [0; 4096];
    let read = rustix::net::recv(pair, &mut path, rustix::net::RecvFlags::DONTWAIT);
    let (Ok((len, _)), Some(cgroup)) = (read, cgroup) else {
        return;
    };
    let path = std::str::from_utf8(&path[..len]).map(std::path::Path::new);
    if let Some(name) = path.ok().and_then(|path| path.file_name()?.to_str()) {
        crate::cgroup::remove_at(cgroup.as_fd(), name);
    }
}

/// Whether `fd` is one of the three standard ones.
pub(crate) fn is_stdio(fd: &impl AsRawFd) -> bool {
    fd.as_raw_fd() < 3
}
