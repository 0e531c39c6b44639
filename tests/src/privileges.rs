//! Tests that need more than an ordinary user has: skipped loudly, or failed where a skip would hide a fault.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Whether this process may make namespaces and attach programs. If not, says that `test` was skipped.
///
/// # Panics
/// If `VOXPROBE_REQUIRE_ROOT` is set, as `cargo xtask test` sets it for root and CI.
pub fn root_for(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("VOXPROBE_REQUIRE_ROOT").is_none(),
        "{test} needs root, and VOXPROBE_REQUIRE_ROOT is set"
    );
    skipped(test, "needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN)");
    false
}

/// Says that `test` was skipped: on stderr, and in the summary of `cargo xtask test`.
pub fn skipped(test: &str, reason: &str) {
    eprintln!("skipped {test}: {reason}");
    let Some(summary) = std::env::var_os("VOXPROBE_SKIPS") else { return };
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(summary) {
        // One write: tests run in parallel, and appends of one line do not mix.
        let _ = file.write_all(format!("{test}: {reason}\n").as_bytes());
    }
}
