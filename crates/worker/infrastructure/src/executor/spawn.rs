//! Starts a process without copying the worker: clone3 with CLONE_VM and CLONE_VFORK on a stack of its own.
//!
//! THE AUDITED MODULE: all unsafe code of the project is in this file and in `spawn/namespaces.rs`.
//!
//! Invariants: between clone3 and execve the child runs on its own stack in the parent's memory while the calling
//! thread waits; it makes raw system calls only, so it touches no thread-local storage, no allocator, no lock and
//! nothing of libc; it writes to the shared [`Plan`] only to say where it failed. The caller has all signals blocked,
//! so no handler of the worker ever runs in the child. The child ends by execve or exit, never by return or panic.
#![allow(unsafe_code)]

pub mod namespaces;

use std::arch::asm;
use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use rustix::process::Rlimit;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const STACK_BYTES: usize = 64 << 10;
const GUARD_BYTES: usize = 64 << 10;

/// The memory on which children run until they are another program. One per spawning thread, used again and again.
pub(crate) struct Stack(*mut c_void);

// SAFETY: the mapping belongs to this value alone and is not bound to a thread.
unsafe impl Send for Stack {}

impl Stack {
    /// Maps a stack with a guard below it.
    pub(crate) fn new() -> io::Result<Self> {
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new anonymous mapping touches no existing memory.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_BYTES + GUARD_BYTES,
                protection,
                flags,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self(base);
        // SAFETY: the range is the lower part of the mapping made above, which nobody uses yet.
        if unsafe { libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no child runs on it: `spawn` borrows it while one does.
        unsafe { libc::munmap(self.0, STACK_BYTES + GUARD_BYTES) };
    }
}

/// What to start. All descriptors are 3 or higher.
pub(crate) struct Spawn<'a> {
    pub(crate) program: CString,
    pub(crate) argv: Vec<CString>,
    pub(crate) env: Vec<CString>,
    pub(crate) workdir: BorrowedFd<'a>,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// The cgroup to start in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// The limit of descriptors to set; none: the worker's own.
    pub(crate) descriptors: Option<Rlimit>,
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There was no child.
    Clone,
    /// The child could not be set up.
    SetUp,
    /// The child could not enter its folder.
    Folder,
    /// The child could not become the program.
    Exec,
}

/// Why a start failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpawnError {
    pub(crate) stage: Stage,
    pub(crate) errno: i32,
}

/// What the child reads, and where it says how it failed. Lives on the stack of the waiting parent.
#[repr(C)]
struct Plan {
    program: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    workdir: i32,
    stdio: [i32; 3],
    /// Null: not to be set.
    descriptors: *const Limit,
    /// 0: none, 1: set-up, 2: folder, 3: exec.
    failed_stage: i32,
    failed_errno: i32,
}

/// `struct rlimit64` of prlimit(2).
#[repr(C)]
struct Limit {
    current: u64,
    maximum: u64,
}

/// `struct clone_args` of clone3(2), up to `cgroup`.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLOSE_RANGE_CLOEXEC: usize = 4;

/// Starts `what`; waits until the child is the program or has failed. Blocks the calling thread for that long.
///
/// # Errors
/// [`SpawnError`]; no child is left then.
pub(crate) fn spawn(stack: &mut Stack, what: &Spawn<'_>) -> Result<Child, SpawnError> {
    let argv = pointers(&what.argv);
    let env = pointers(&what.env);
    let limit = what.descriptors.map(|limit| Limit {
        current: limit.current.unwrap_or(u64::MAX),
        maximum: limit.maximum.unwrap_or(u64::MAX),
    });
    let mut plan = Plan {
        program: what.program.as_ptr(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        workdir: what.workdir.as_raw_fd(),
        stdio: what.stdio.map(|fd| fd.as_raw_fd()),
        descriptors: limit.as_ref().map_or(ptr::null(), ptr::from_ref),
        failed_stage: 0,
        failed_errno: 0,
    };
    let mut pidfd: i32 = -1;
    let into_cgroup = if what.cgroup.is_some() {
        CLONE_INTO_CGROUP
    } else {
        0
    };
    let sharing = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64;
    let args = CloneArgs {
        flags: sharing | CLONE_CLEAR_SIGHAND | into_cgroup,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.0 as u64 + GUARD_BYTES as u64,
        stack_size: STACK_BYTES as u64,
        cgroup: what.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: `args`, `plan` and `limit` live until this call returns, which with CLONE_VFORK is after the child's exec or
    // exit; the stack is borrowed exclusively; `child` never returns.
    let pid = unsafe { clone3(&args, child, &raw mut plan) };
    if pid < 0 {
        return Err(SpawnError {
            stage: Stage::Clone,
            errno: -pid as i32,
        });
    }
    // SAFETY: the kernel has stored a new descriptor here, which nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: `plan` is valid; volatile, because the child wrote it behind the compiler's back.
    let (stage, errno) = unsafe {
        (
            (&raw const plan.failed_stage).read_volatile(),
            (&raw const plan.failed_errno).read_volatile(),
        )
    };
    let stage = match stage {
        0 => {
            return Ok(Child {
                pid: pid as i32,
                pidfd,
            });
        }
        1 => Stage::SetUp,
        2 => Stage::Folder,
        _ => Stage::Exec,
    };
    namespaces::reap(&pidfd);
    Err(SpawnError { stage, errno })
}

/// A process's descriptor that tokio watches: readable once the process has ended.
///
/// # Errors
/// [`io::Error`] if it can not be watched.
pub(crate) fn watch(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the descriptor is owned by the value that is handed over, so it stays open and the same until then.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// clone3 whose child calls `entry(plan)` on the new stack.
///
/// # Safety
/// `args` must name a stack that nobody else uses; `entry` must never return; all must live until the child's exec.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(args: &CloneArgs, entry: extern "C" fn(*mut Plan) -> !, plan: *mut Plan) -> isize {
    let result: isize;
    // SAFETY: the parent sees an ordinary system call, which clobbers rax, rcx and r11. The child gets 0, has the
    // stack pointer at the 16-byte aligned top of its stack, and leaves this function only through `entry`.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<CloneArgs>(),
            in("r12") plan,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// clone3 whose child calls `entry(plan)` on the new stack.
///
/// # Safety
/// `args` must name a stack that nobody else uses; `entry` must never return; all must live until the child's exec.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(args: &CloneArgs, entry: extern "C" fn(*mut Plan) -> !, plan: *mut Plan) -> isize {
    let result: isize;
    // SAFETY: the parent sees an ordinary system call. The child gets 0, has the stack pointer at the 16-byte aligned
    // top of its stack, and leaves this function only through `entry`.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x0, x9",
            "blr x10",
            "brk #1",
            "2:",
            inlateout("x0") ptr::from_ref(args) => result,
            in("x1") size_of::<CloneArgs>(),
            in("x8") libc::SYS_clone3,
            in("x9") plan,
            in("x10") entry,
        );
    }
    result
}

/// A raw system call whose fifth argument is zero: no errno, no cancellation point, no libc.
///
/// # Safety
/// As for the system call `number` with these arguments.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn syscall(number: i64, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers rax, rcx and r11 only; memory is clobbered by default.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") 0usize,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// A raw system call whose fifth argument is zero: no errno, no cancellation point, no libc.
///
/// # Safety
/// As for the system call `number` with these arguments.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn syscall(number: i64, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel clobbers x0 only; memory is clobbered by default.
    unsafe {
        asm!(
            "svc 0",
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") 0usize, in("x8") number,
            options(nostack),
        );
    }
    result
}

/// The child: everything between clone3 and execve. See the module's invariants.
extern "C" fn child(plan: *mut Plan) -> ! {
    // SAFETY: the parent waits, so `plan` is valid and ours alone; the system calls get valid pointers to it, to
    // zeroes on this stack, and to the strings that the parent keeps.
    unsafe {
        let p = &raw mut *plan;
        let (stage, result) = become_program(&*p);
        (&raw mut (*p).failed_errno).write_volatile(-result as i32);
        (&raw mut (*p).failed_stage).write_volatile(stage);
        loop {
            syscall(libc::SYS_exit_group, 127, 0, 0, 0);
        }
    }
}

/// Returns only if it failed: the stage and the negative errno.
///
/// # Safety
/// Only in the child, with a valid plan.
#[inline(always)]
unsafe fn become_program(plan: &Plan) -> (i32, isize) {
    /// `struct sigaction` of the kernel with the default handler, no flags and an empty mask.
    static DEFAULT_ACTION: [u64; 4] = [0; 4];
    static NO_SIGNALS: u64 = 0;
    // SAFETY: see `child`.
    unsafe {
        let result = syscall(libc::SYS_setsid, 0, 0, 0, 0);
        if result < 0 {
            return (1, result);
        }
        let mut target = 0;
        while target < 3 {
            let source = *(&raw const plan.stdio).cast::<i32>().add(target);
            let result = syscall(libc::SYS_dup3, source as usize, target, 0, 0);
            if result < 0 {
                return (1, result);
            }
            target += 1;
        }
        let result = syscall(libc::SYS_fchdir, plan.workdir as usize, 0, 0, 0);
        if result < 0 {
            return (2, result);
        }
        // What the worker or its parent ignores would stay ignored.
        let action = (&raw const DEFAULT_ACTION) as usize;
        syscall(libc::SYS_rt_sigaction, libc::SIGPIPE as usize, action, 0, 8);
        syscall(libc::SYS_rt_sigaction, libc::SIGHUP as usize, action, 0, 8);
        syscall(libc::SYS_rt_sigaction, libc::SIGINT as usize, action, 0, 8);
        syscall(libc::SYS_rt_sigaction, libc::SIGQUIT as usize, action, 0, 8);
        syscall(libc::SYS_rt_sigaction, libc::SIGTERM as usize, action, 0, 8);
        let result = syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0);
        if result < 0 {
            return (1, result);
        }
        if !plan.descriptors.is_null() {
            let (nofile, limit) = (libc::RLIMIT_NOFILE as usize, plan.descriptors as usize);
            let result = syscall(libc::SYS_prlimit64, 0, nofile, limit, 0);
            if result < 0 {
                return (1, result);
            }
        }
        let mask = (&raw const NO_SIGNALS) as usize;
        syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK as usize, mask, 0, 8);
        // Old kernels have no such flag; the worker's own descriptors are all close-on-exec anyway.
        syscall(
            libc::SYS_close_range,
            3,
            u32::MAX as usize,
            CLOSE_RANGE_CLOEXEC,
            0,
        );
        let (program, argv, env) = (plan.program as usize, plan.argv as usize, plan.env as usize);
        (3, syscall(libc::SYS_execve, program, argv, env, 0))
    }
}
