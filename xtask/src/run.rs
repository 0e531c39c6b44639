//! Builds, then becomes the program: no parent in between, so that signals and exit codes are the program's own.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{build, setup, workspace};

/// `voxprobe run` on interfaces of this machine, or the lab if none is named.
pub(crate) fn probe(args: &[String]) -> Result<()> {
    let names_interface =
        args.iter().any(|arg| arg == "--iface" || arg == "-i" || arg.starts_with("--iface="));
    if names_interface {
        need_root("attaching to an interface", "voxprobe run")?;
        let directory = build_release()?;
        become_program(&directory.join("voxprobe"), "run", args)
    } else {
        voxlab("lab", args)
    }
}

/// A command of the lab's own binary.
pub(crate) fn voxlab(subcommand: &str, args: &[String]) -> Result<()> {
    // The others only write files.
    let attaches = matches!(subcommand, "lab" | "traffic");
    if attaches && !args.iter().any(|arg| arg == "--help" || arg == "-h") {
        need_root("making network namespaces and attaching to them", "voxlab lab")?;
    }
    let directory = build_release()?;
    become_program(&directory.join("voxlab"), subcommand, args)
}

fn build_release() -> Result<std::path::PathBuf> {
    build::binaries(&setup::ensure()?, &build::Options::default())
}

fn become_program(program: &Path, subcommand: &str, args: &[String]) -> Result<()> {
    let error = Command::new(program).arg(subcommand).args(args).exec();
    bail!("cannot start {}: {error}", program.display())
}

/// Before minutes of compiling, not after.
fn need_root(what: &str, command: &str) -> Result<()> {
    if workspace::is_root() {
        return Ok(());
    }
    bail!(
        "{what} needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN for namespaces). Build as you are with \
         `cargo xtask build`, then run `sudo target/release/{command} …`. \
         Capture files need no privileges: `target/release/voxprobe analyze FILE`"
    )
}
