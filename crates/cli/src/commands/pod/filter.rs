//! The system calls that a pod's process may make once it has what it needs: those that move
//! bytes over open descriptors, memory, threads and clocks. No program can be started, no process
//! traced, no socket made, and but for a command's folders no file opened.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Which files may still be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// None.
    None,
    /// Those that the user id may read, for reading.
    Readable,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Applies the filter to all threads, for good.
///
/// # Errors
/// When the kernel has no seccomp, or this processor is unknown: a pod does not run without.
pub fn apply(files: Files) -> Result<()> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().context("no system-call filter")?;
    // glibc tries other calls when these are not there; their arguments lie in memory, where a
    // filter cannot look.
    let absent = [libc::SYS_clone3, libc::SYS_openat2];
    let absent: Rules = absent.into_iter().map(|call| (call, Vec::new())).collect();
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let first = SeccompFilter::new(absent, SeccompAction::Allow, no_such_call, arch);
    let second = SeccompFilter::new(allowed(files)?, refused, SeccompAction::Allow, arch);
    // The first one installed is asked last, and among equals the last one installed decides.
    for filter in [second, first] {
        let program: BpfProgram =
            filter.and_then(BpfProgram::try_from).context("no system-call filter")?;
        apply_filter_all_threads(&program).context("the system-call filter cannot be applied")?;
    }
    Ok(())
}

fn allowed(files: Files) -> Result<Rules> {
    let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(ALWAYS_X86.iter().map(|call| (*call, Vec::new())));
    // Installing the other filter.
    rules.insert(libc::SYS_seccomp, Vec::new());
    // Threads, and no processes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![when(0, Op::MaskedEq(thread), thread)?]);
    rules.insert(libc::SYS_clone3, Vec::new());
    let equal = |argument, values: &[u64]| -> Result<Vec<SeccompRule>> {
        values.iter().map(|value| when(argument, Op::Eq, *value)).collect()
    };
    rules.insert(libc::SYS_ioctl, equal(1, &[libc::FIONBIO, libc::TCGETS])?);
    let names = [libc::PR_SET_NAME, libc::PR_SET_VMA, libc::PR_SET_NO_NEW_PRIVS];
    let names = names.map(|option| u64::from(option.unsigned_abs()));
    rules.insert(libc::SYS_prctl, equal(0, &names)?);
    if files == Files::Readable {
        rules.extend(READING.iter().map(|call| (*call, Vec::new())));
        let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
        let writing = u64::from(writing.unsigned_abs());
        rules.insert(libc::SYS_openat, vec![when(2, Op::MaskedEq(writing), 0)?]);
        rules.insert(libc::SYS_openat2, Vec::new());
    }
    Ok(rules)
}

fn when(argument: u8, op: Op, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, Len::Dword, op, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).context("a filter's rule")
}

const ALWAYS: &[i64] = &[
    // Bytes over descriptors that are open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    // Connections of a listening socket that is open.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_membarrier,
    // Threads, and this process about itself.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_prlimit64,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    // Clocks and entropy.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

/// Older forms that newer processors do not have.
#[cfg(target_arch = "x86_64")]
const ALWAYS_X86: &[i64] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time];

/// What looking at folders takes.
const READING: &[i64] = &[
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fstatfs,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_starts_traces_or_connects_is_in_no_list() {
        for files in [Files::None, Files::Readable] {
            let rules = allowed(files).unwrap();
            for call in [
                libc::SYS_execve,
                libc::SYS_execveat,
                libc::SYS_ptrace,
                libc::SYS_process_vm_readv,
                libc::SYS_process_vm_writev,
                libc::SYS_socket,
                libc::SYS_connect,
                libc::SYS_bind,
                libc::SYS_kill,
                libc::SYS_mount,
                libc::SYS_unshare,
                libc::SYS_setns,
                libc::SYS_bpf,
                libc::SYS_perf_event_open,
                libc::SYS_userfaultfd,
                libc::SYS_io_uring_setup,
                libc::SYS_keyctl,
                libc::SYS_unlinkat,
                libc::SYS_fchmodat,
            ] {
                assert!(!rules.contains_key(&call), "{files:?} allows {call}");
            }
            assert_eq!(rules.contains_key(&libc::SYS_openat), files == Files::Readable);
            assert_eq!(rules[&libc::SYS_clone].len(), 1, "threads only");
        }
    }
}
