//! The BPF objects first, then everything that embeds them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::progress;
use crate::setup::Tools;
use crate::toolchain::{self, TARGET};
use crate::workspace;

/// The programs of `probe-ebpf`: the probe's, and the traffic generator's.
const OBJECTS: [&str; 2] = ["voxprobe-bpf", "traffic-bpf"];

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Without optimisation: quicker to build, far too slow for line rate.
    #[arg(long)]
    dev: bool,
}

impl Options {
    fn profile(&self) -> (&'static str, &'static str) {
        if self.dev { ("dev", "debug") } else { ("release", "release") }
    }
}

/// Compiles the BPF programs into [`workspace::bpf_objects`].
pub(crate) fn ebpf(tools: &Tools) -> Result<()> {
    let Tools { compiler, linker } = tools;
    let output = workspace::target().join("bpf-build");
    let arch = std::env::consts::ARCH;
    let flags = [
        // aya-ebpf picks register layouts by it.
        &format!("--cfg=bpf_target_arch=\"{arch}\""),
        // Both for BTF: types come from debug information, and the linker must be told to keep them.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        // 32-bit operations (Linux 5.1), and loads of two and four bytes from packets, whose fields are where
        // they are: without this each becomes byte loads and shifts.
        "-Ctarget-cpu=v3",
        "-Ctarget-feature=+allows-misaligned-mem-access",
        &format!("-Clinker={}", linker.path.display()),
    ]
    .join("\x1f");
    let mut command = compiler.cargo();
    command
        .args(["build", "--release", "--package", "probe-ebpf", "--features", "bpf", "--bins"])
        .args(["-Zbuild-std=core", "--target", TARGET])
        .env("RUSTC", compiler.rustc())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_TARGET_DIR", &output)
        .env("PATH", toolchain::path_for(compiler, linker))
        // `cargo run` names its own compiler's libraries here, and a proxying linker would load that LLVM.
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("RUSTUP_TOOLCHAIN");
    progress::step("compile the BPF programs", &mut command)?;

    let built = output.join(TARGET).join("release");
    let installed = workspace::bpf_objects();
    fs::create_dir_all(&installed).with_context(|| format!("cannot create {}", installed.display()))?;
    for object in OBJECTS {
        copy_if_changed(&built.join(object), &installed.join(object))?;
    }
    Ok(())
}

/// The BPF programs and the binaries; returns where those are.
pub(crate) fn binaries(tools: &Tools, options: &Options) -> Result<PathBuf> {
    ebpf(tools)?;
    let (profile, directory) = options.profile();
    let mut command = workspace::cargo();
    command.args([
        "build",
        "--profile",
        profile,
        "--package",
        "probe-user",
        "--package",
        "voxprobe-tests",
        "--bins",
    ]);
    progress::step(&format!("compile voxprobe and voxlab ({profile})"), &mut command)?;
    Ok(workspace::target().join(directory))
}

/// The `build` command.
pub(crate) fn all(tools: &Tools, options: &Options) -> Result<()> {
    let directory = binaries(tools, options)?;
    println!("{}", directory.join("voxprobe").display());
    println!("{}", directory.join("voxlab").display());
    Ok(())
}

/// Leaves the old file, and so its time, alone if nothing changed: cargo rebuilds what embeds it by time.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let object = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|existing| existing == object) {
        return Ok(());
    }
    fs::write(to, object).with_context(|| format!("cannot write {}", to.display()))
}
