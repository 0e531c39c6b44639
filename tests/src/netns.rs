//! Network namespaces that belong to one lab of one process, and nothing else on the machine.
//!
//! A name carries its owner: `vl-PID-STARTTIME-N-ROLE`. So the next lab can tell what a killed one left behind
//! without any state file: a namespace whose owner no longer lives is stale, and a process inside a stale
//! namespace can only be what that lab started there. Start time makes a reused process id harmless.
//!
//! The `ip` command does the work; it speaks every netlink dialect of the kernel it came with, and what it was
//! told can be repeated by hand. Only entering a namespace is a system call of our own, and it is always made by
//! a thread that ends with it: no thread ever has to find its way back.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::thread::LinkNameSpaceType;

const PREFIX: &str = "vl";

/// Where `ip netns` keeps its handles.
const HANDLES: &str = "/run/netns";

/// The common part of the names of one lab's namespaces.
#[derive(Clone, Debug)]
pub struct LabName(String);

impl LabName {
    /// A name that no other lab has, in this process or another.
    pub fn unique() -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let started = start_time(pid).context("cannot read this process's start time from /proc")?;
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        Ok(Self(format!("{PREFIX}-{pid}-{started}-{lab}")))
    }
}

/// One network namespace; removed when dropped, with the links in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes the namespace of `role` in `lab`: loopback up, and as quiet as IPv6 can be made.
    pub fn create(lab: &LabName, role: &str) -> Result<Self> {
        let name = format!("{}-{role}", lab.0);
        ip(&["netns", "add", &name])?;
        // From here on its drop removes it, whatever fails.
        let path = format!("{HANDLES}/{name}");
        let handle = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let namespace = Self { name, handle };
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("net/ipv6/conf/default/router_solicitations", "0")?;
        // No link-local addresses: nobody here needs them, and each announces itself.
        namespace.sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        namespace.configure(&["link set lo up"])?;
        Ok(namespace)
    }

    /// As `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs commands of `ip` in the namespace, all in one process.
    pub fn configure<S: AsRef<str>>(&self, commands: &[S]) -> Result<()> {
        let mut script = String::new();
        for command in commands {
            writeln!(script, "{}", command.as_ref())?;
        }
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `ip`: install the package iproute2")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).context("cannot talk to `ip`")?;
        }
        let output = child.wait_with_output().context("cannot wait for `ip`")?;
        if !output.status.success() {
            bail!("ip -n {}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// What a command of `ip` prints in the namespace.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// A command that will run in the namespace, with a /sys that shows its interfaces.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `act` on a thread inside the namespace. What it opens there (sockets, BPF links) stays there.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                rustix::thread::move_into_link_name_space(
                    self.handle.as_fd(),
                    Some(LinkNameSpaceType::Network),
                )
                .with_context(|| format!("cannot enter network namespace {}", self.name))?;
                Ok(act())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets a kernel parameter of the namespace, by its path under /proc/sys.
    pub fn sysctl(&self, parameter: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{parameter}");
        self.within(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {path} in {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody could act on an error, and the next lab tries again.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// What is put at one end of a pair of virtual Ethernet interfaces.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub interface: &'a str,
    /// Its address.
    pub mac: &'a str,
}

/// Joins two namespaces by a pair of interfaces, both up.
pub fn join(a: End<'_>, b: End<'_>) -> Result<()> {
    ip(&[
        "link",
        "add",
        a.interface,
        "address",
        a.mac,
        "netns",
        a.namespace.name(),
        "type",
        "veth",
        "peer",
        "name",
        b.interface,
        "address",
        b.mac,
        "netns",
        b.namespace.name(),
    ])?;
    for end in [a, b] {
        end.namespace.configure(&[format!("link set {} up", end.interface)])?;
    }
    Ok(())
}

/// Removes what labs of processes that no longer live have left behind, and returns the names.
pub fn remove_stale() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(HANDLES) else { return Ok(removed) };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some((pid, started)) = owner(&name) else { continue };
        if start_time(pid) == Some(started) {
            continue;
        }
        // A probe or a user agent that survived its lab holds the namespace's interfaces.
        for process in ip(&["netns", "pids", &name])?.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if let Some(process) = rustix::process::Pid::from_raw(process) {
                let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        // Two labs that start at once may find the same one.
        if ip(&["netns", "del", &name]).is_ok() {
            removed.push(name);
        }
    }
    if !removed.is_empty() {
        // The kernel takes a namespace apart in the background.
        thread::sleep(Duration::from_millis(100));
    }
    Ok(removed)
}

/// The process id and start time in a namespace's name, if it is one of a lab.
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.split('-');
    if parts.next()? != PREFIX {
        return None;
    }
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// When a process started, in the kernel's ticks since boot: with its id, unique.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name and may hold anything, also parentheses; field 22 is meant.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn ip(args: &[&str]) -> Result<String> {
    let output =
        Command::new("ip").args(args).output().context("cannot run `ip`: install the package iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner_and_other_namespaces_have_none() {
        assert_eq!(owner("vl-4711-1234567-0-phones"), Some((4711, 1_234_567)));
        assert_eq!(owner("vl-backbone"), None);
        assert_eq!(owner("cni-4711-1234567"), None);
    }

    #[test]
    fn this_process_is_alive_and_no_other_has_its_start_time() {
        let own = std::process::id();
        assert!(start_time(own).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX), None);
    }
}
