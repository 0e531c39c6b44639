//! The release archive: what an operator unpacks on a gateway that has no compiler.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{build, progress, setup, workspace};

const UNIT: &str = include_str!("voxprobe.service");
const ENVIRONMENT: &str = include_str!("voxprobe.env");

/// The `dist` command.
pub(crate) fn run() -> Result<()> {
    let binaries = build::binaries(&setup::ensure()?, &build::Options::default())?;
    let name = format!("voxprobe-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let dist = workspace::target().join("dist");
    let staging = dist.join(&name);
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("cannot empty {}", staging.display()))?;
    }
    fs::create_dir_all(&staging).with_context(|| format!("cannot create {}", staging.display()))?;

    copy(&binaries.join("voxprobe"), &staging)?;
    let mut documents = Vec::new();
    for entry in fs::read_dir(workspace::root()).context("cannot list the workspace")?.flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        if file_name.starts_with("LICENSE") || matches!(file_name.as_str(), "README.md" | "CHANGELOG.md") {
            copy(&entry.path(), &staging)?;
            documents.push(file_name);
        }
    }
    if !documents.iter().any(|name| name.starts_with("LICENSE")) {
        bail!("the workspace has no LICENSE file: an archive without one may not be used by anybody");
    }
    // README links into it.
    let mut docs = Command::new("cp");
    docs.arg("-r").arg(workspace::root().join("docs")).arg(&staging);
    progress::step("copy the documents", &mut docs)?;
    for (file, text) in [("voxprobe.service", UNIT), ("voxprobe.env", ENVIRONMENT)] {
        let path = staging.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }

    let archive = format!("{name}.tar.gz");
    // The same commit gives the same bytes: no owner, no order and no time of this machine.
    let mut tar = Command::new("tar");
    tar.current_dir(&dist)
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{}", commit_time()))
        .args(["--use-compress-program=gzip -n", "-cf", &archive, &name]);
    progress::step("pack", &mut tar)?;
    let sum = Command::new("sha256sum")
        .current_dir(&dist)
        .arg(&archive)
        .output()
        .context("cannot run sha256sum")?;
    if !sum.status.success() {
        bail!("sha256sum {archive}: {}", String::from_utf8_lossy(&sum.stderr));
    }
    fs::write(dist.join(format!("{archive}.sha256")), &sum.stdout).context("cannot write the checksum")?;
    print!("{}\n{}", dist.join(&archive).display(), String::from_utf8_lossy(&sum.stdout));
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let target = to.join(from.file_name().unwrap_or_default());
    fs::copy(from, &target).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// The target triple that cargo built for.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names no host")
}

/// Seconds since 1970 of the commit that is checked out; 0 outside of a repository.
fn commit_time() -> u64 {
    let output =
        Command::new("git").current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]).output();
    output.ok().and_then(|out| String::from_utf8(out.stdout).ok()?.trim().parse().ok()).unwrap_or(0)
}
