//! A process from its start to its end, and what the kernel says that it took.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What a process took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub(super) wall: Duration,
    /// In user and kernel mode, all its threads and children that it waited for.
    pub(super) cpu: Duration,
    /// Largest resident set.
    pub(super) peak_kib: u64,
}

/// Runs a command to its end.
pub(super) fn run(command: &mut Command) -> Result<Taken> {
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let (status, cpu, peak_kib) = wait(child)?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(Taken { wall: began.elapsed(), cpu, peak_kib })
}

/// Waits for a child, with its CPU time and largest resident set in KiB (wait4(2), getrusage(2)).
#[expect(
    clippy::needless_pass_by_value,
    reason = "the child is gone afterwards, and so should be its handle"
)]
pub(super) fn wait(child: Child) -> Result<(ExitStatus, Duration, u64)> {
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child was not waited for, so its number is its own; both pointers are to locals.
    while unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } != pid {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait for a child");
        }
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
    };
    Ok((
        ExitStatus::from_raw(status),
        time(usage.ru_utime) + time(usage.ru_stime),
        usage.ru_maxrss.cast_unsigned(),
    ))
}

/// A program on the search path.
pub(super) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
