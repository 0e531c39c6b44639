//! Where things are: the workspace, its target directory, the caches, the programs of this machine.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Cargo's output directory, which `CARGO_TARGET_DIR` may have moved.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(moved) => root().join(moved),
        None => root().join("target"),
    }
}

/// Where the BPF objects lie. Fixed, because `.cargo/config.toml` names it for builds that bypass xtask.
pub(crate) fn bpf_objects() -> PathBuf {
    root().join("target/bpf")
}

/// The user's cache, for tools that outlive a `cargo clean`.
pub(crate) fn cache() -> Option<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("voxprobe"))
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The first executable of this name on PATH, or where administrators' programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

/// PATH with `first` before all else.
pub(crate) fn path_with(first: &[&Path]) -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = first.iter().map(|path| path.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(directories).unwrap_or(path)
}

/// Whether this process may do what root may: attach programs, make namespaces, install packages.
pub(crate) fn is_root() -> bool {
    // The effective user id is the second number of this line.
    status_field("Uid:").and_then(|ids| ids.split_whitespace().nth(1).map(|id| id == "0")).unwrap_or(false)
}

/// Whether the environment says that nobody is watching and nothing may be skipped.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != OsStr::new("false"))
}

fn status_field(name: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
