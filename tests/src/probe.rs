//! The probe as a process of its own in the gateway's namespace, as an operator would run it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Namespace;
use crate::topology::Topology;

/// The verifier takes seconds over the program on a busy machine.
const ATTACH_PATIENCE: Duration = Duration::from_secs(30);

/// A running `voxprobe`; killed when dropped.
#[derive(Debug)]
pub struct Probe {
    child: Child,
}

impl Probe {
    /// Where the binary is: named by the environment, or beside this one as cargo leaves it.
    pub fn binary() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("VOXPROBE_BIN") {
            return Ok(path.into());
        }
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let mut candidates = Vec::new();
        for directory in own.ancestors().skip(1).take(3) {
            candidates.extend([directory.join("release/voxprobe"), directory.join("voxprobe")]);
        }
        candidates
            .into_iter()
            .find(|candidate| candidate.is_file())
            .context("no voxprobe beside this program: run `cargo xtask build`, or set VOXPROBE_BIN")
    }

    /// `voxprobe ARGS` in `namespace`; not started yet.
    pub fn command<S: AsRef<OsStr>>(
        namespace: &Namespace,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let mut command = namespace.command(Self::binary()?);
        command.args(args).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts it. It gets SIGINT if this thread ends, and no signal that the terminal sends to the foreground.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command.process_group(0);
        // SAFETY: the closure runs in the child between fork and exec and makes one system call.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::INT)).map_err(io::Error::from)
            });
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", name(&command)))?;
        Ok(Self { child })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("cannot signal the probe (pid {pid})"))
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has attached to all that it watches, or `give_up` says so.
    pub fn wait_attached(&mut self, topology: &Topology, give_up: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + ATTACH_PATIENCE;
        while !topology.watched().iter().all(|interface| topology.carries_xdp(interface)) && !give_up() {
            if let Some(status) = self.ended()? {
                bail!("the probe did not start: {status}. Its last words are above");
            }
            if Instant::now() > deadline {
                bail!("the probe (pid {}) did not attach within {ATTACH_PATIENCE:?}", self.id());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for the probe")
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the probe (pid {}) did not end within {patience:?}", self.id());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it for its final report, and waits for the end.
    pub fn finish(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::INT)?;
        let status = self.wait(Duration::from_secs(15))?;
        if let Some(signal) = status.signal() {
            bail!("the probe was killed by signal {signal} instead of finishing");
        }
        Ok(status)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, but not for longer than `patience`.
pub fn output_within(mut command: Command, patience: Duration) -> Result<Output> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start it")?;
    let deadline = Instant::now() + patience;
    while child.try_wait().context("cannot wait for it")?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let output = child.wait_with_output().context("cannot wait for it")?;
            bail!(
                "{} did not end within {patience:?}; it said: {}{}",
                name(&command),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().context("cannot read what it said")
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
