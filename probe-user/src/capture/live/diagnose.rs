//! Why the kernel said no, in words that name the act, the object and the remedy.
//!
//! An errno of bpf(2) says little: EPERM may be a missing capability, a seccomp filter or a locked-down kernel.
//! What can be looked up is looked up here, once, on the way out.

use std::fmt::Write as _;
use std::{fs, io};

use aya::programs::loaded_programs;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};

use super::interfaces::interfaces;

/// What loading and attaching need, and what each is for.
const NEEDED: [(CapabilitySet, &str, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF", "to load programs and maps"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", "to attach to an interface"),
    (CapabilitySet::PERFMON, "CAP_PERFMON", "for the verifier to admit pointer comparisons"),
];

/// Explains a refusal: EPERM and EACCES by what this process lacks, the rest by what usually helps.
pub(crate) fn refusal(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => missing_capability(error).unwrap_or_else(permission),
        Some(Errno::NOMEM) => {
            "not enough memory: use a smaller --ring-size, or raise `ulimit -l` on kernels before 5.11".into()
        }
        Some(Errno::TOOBIG) => "larger than the kernel takes: use a smaller --ring-size".into(),
        Some(Errno::NOSYS) => "this kernel was built without bpf(2)".into(),
        Some(Errno::INVAL) => kernel_age(),
        Some(Errno::OPNOTSUPP) => "the driver does not support this mode".into(),
        Some(Errno::BUSY) => "something else holds it".into(),
        _ => "no further advice for this error".into(),
    }
}

/// What a refusal for want of permission lacks, if it is a capability.
pub(crate) fn missing_capability(error: &io::Error) -> Option<String> {
    let refused =
        matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::PERM | Errno::ACCESS));
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    // CAP_SYS_ADMIN implied the other two before Linux 5.8, and still does.
    let is_admin = held.contains(CapabilitySet::SYS_ADMIN);
    let is_held =
        |capability| held.contains(capability) || (is_admin && capability != CapabilitySet::NET_ADMIN);
    if !refused || NEEDED.iter().all(|(capability, ..)| is_held(*capability)) {
        return None;
    }
    let mut text = String::new();
    for (capability, name, purpose) in NEEDED {
        let state = if is_held(capability) { "present" } else { "absent" };
        let _ = write!(text, "{name} ({purpose}): {state}. ");
    }
    text.push_str(
        "Run as root, or once: setcap cap_bpf,cap_net_admin,cap_perfmon+ep on the voxprobe binary.",
    );
    Some(text)
}

/// What opening an AF_XDP socket needs, when it is refused.
pub(crate) fn socket_capability() -> String {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let state = if held.contains(CapabilitySet::NET_RAW) { "present" } else { "absent" };
    format!(
        "CAP_NET_RAW (to open AF_XDP sockets): {state}. Run as root, or once: \
         setcap cap_bpf,cap_net_admin,cap_net_raw,cap_perfmon+ep on the voxprobe binary."
    )
}

/// What else can stand in the way when every capability is there.
fn permission() -> String {
    let mut text = String::new();
    if let Some(mode) = status_field("Seccomp").filter(|mode| mode != "0") {
        let _ =
            write!(text, "A seccomp filter is active (mode {mode}): a container runtime must allow bpf(2). ");
    }
    if let Ok(lockdown) = fs::read_to_string("/sys/kernel/security/lockdown")
        && !lockdown.contains("[none]")
    {
        let _ = write!(text, "Kernel lockdown is on ({}). ", lockdown.trim());
    }
    if text.is_empty() {
        text.push_str(
            "All capabilities are there; a security module (SELinux, AppArmor) may refuse: see `dmesg`.",
        );
    }
    text
}

/// A line of /proc/thread-self/status.
fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// For EINVAL, which is what an old kernel says to a flag it does not know.
fn kernel_age() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    format!(
        "this kernel is {release}; needed: ring buffers 5.8, multi-buffer XDP 5.18, and for --egress tcx 6.6"
    )
}

/// The version of the running kernel.
pub(crate) fn kernel_version() -> Option<(u32, u32)> {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().ok()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The XDP program that holds an interface, and the processes that hold the program.
pub(crate) fn holder(ifindex: u32) -> String {
    let id = interfaces()
        .ok()
        .and_then(|all| all.into_iter().find(|interface| interface.index == ifindex)?.xdp_program);
    let Some(id) = id else { return "an XDP program that was gone when looked for".into() };
    let name = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    let mut text = format!("XDP program {id}");
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        let _ = write!(text, " \"{name}\"");
    }
    let owners = owners_of(id);
    if owners.is_empty() {
        text.push_str(" of no visible process (pinned, or attached by `ip link`)");
    } else {
        let _ = write!(text, " of {}", owners.join(", "));
    }
    text
}

/// Processes with an open descriptor of program `id`, or of a link to it, by their fdinfo.
fn owners_of(id: u32) -> Vec<String> {
    let wanted = format!("prog_id:\t{id}");
    let mut owners = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let descriptors = fs::read_dir(path.join("fdinfo")).into_iter().flatten().flatten();
        let holds = |info: fs::DirEntry| {
            fs::read_to_string(info.path()).is_ok_and(|text| text.lines().any(|line| line == wanted))
        };
        if descriptors.into_iter().any(holds) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            owners.push(format!("{} (pid {pid})", name.trim()));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_advises_a_smaller_ring() {
        let text = refusal(&io::Error::from_raw_os_error(Errno::NOMEM.raw_os_error()));
        assert!(text.contains("--ring-size"), "{text}");
    }

    #[test]
    fn a_refusal_of_permission_says_something_about_each_capability_or_filter() {
        let text = refusal(&io::Error::from_raw_os_error(Errno::PERM.raw_os_error()));
        assert!(!text.is_empty());
        if !rustix::process::geteuid().is_root() {
            assert!(text.contains("CAP_BPF") && text.contains("absent"), "{text}");
        }
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(kernel_version().is_some_and(|version| version > (3, 0)));
    }
}
