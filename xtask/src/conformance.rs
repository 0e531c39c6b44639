//! Voxprobe beside tshark: builds both binaries, without the BPF toolchain, and becomes the comparison.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{progress, setup, workspace};

/// The `conformance` command.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if workspace::find("tshark").is_none() {
        setup::peers()?;
    }
    let mut build = workspace::cargo();
    build.args(["build", "--release", "--package", "probe-user", "--package", "voxprobe-tests", "--bins"]);
    progress::step("compile voxprobe and voxlab (release)", &mut build)?;
    let voxlab = workspace::target().join("release/voxlab");
    let error = Command::new(&voxlab).arg("conformance").args(args).exec();
    bail!("cannot start {}: {error}", voxlab.display())
}
