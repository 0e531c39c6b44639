//! A process from its start to its end, and what the kernel says that it took.
//!
//! ```text
//!   voxlab bench, large by now ─▶ voxlab taken, small ─▶ program
//!                                 └─ wait4: what it took, as JSON
//! ```
//!
//! A process's largest resident set does not begin at its exec: the kernel keeps that of the memory which the exec replaces
//! (`exec_mmap` in fs/exec.c), and that is still the parent's, or a copy. So a program seems to have taken what the
//! benchmark had taken before, which is gigabytes once a million streams were measured. Whoever starts the program has to
//! be small, and so it is this program once more, just started: less than its few megabytes is not seen.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

/// The subcommand that stands between.
pub const BETWEEN: &str = "taken";

/// What a process took.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Taken {
    /// From its start to its end.
    pub wall: Duration,
    /// In user and kernel mode, all its threads and children that it waited for.
    pub cpu: Duration,
    /// Largest resident set.
    pub peak_kib: u64,
}

/// A program to start.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// It, and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    words: Vec<OsString>,
}

/// Runs a program to its end, by the `voxlab` at that path, without anything to read and with nobody who listens.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn run(voxlab: &Path, words: &[OsString]) -> Result<Taken> {
    let between = Command::new(voxlab).arg(BETWEEN).arg("--").args(words).stdin(Stdio::null()).output();
    let output = between.with_context(|| format!("cannot start {}", voxlab.display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    serde_json::from_slice(&output.stdout).context("what it took cannot be read")
}

/// The subcommand between: runs a program, and prints what it took.
///
/// # Errors
/// As [`run`].
pub fn between(options: &Options) -> Result<()> {
    let mut words = options.words.iter();
    let mut command = Command::new(words.next().context("no program is named")?);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let (status, cpu, peak_kib) = wait(child)?;
    let wall = began.elapsed();
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    println!("{}", serde_json::to_string(&Taken { wall, cpu, peak_kib })?);
    Ok(())
}

/// Waits for a child, with its CPU time and largest resident set in KiB (wait4(2), getrusage(2)).
#[expect(
    clippy::needless_pass_by_value,
    reason = "the child is gone afterwards, and so should be its handle"
)]
fn wait(child: Child) -> Result<(ExitStatus, Duration, u64)> {
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
