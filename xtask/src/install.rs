//! The three ways of getting software onto a machine, each as one step with a remedy in its error.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::progress;
use crate::toolchain::{Compiler, LinkerBuild, Llvm, linker_directory, linker_release};
use crate::workspace;

/// Debian's package tools, usable only as root.
pub(crate) struct Apt;

impl Apt {
    /// The tools, or why not, with the command that a person with more rights would type.
    pub(crate) fn usable(packages: &[String]) -> Result<Self> {
        let list = packages.join(" ");
        if workspace::find("apt-get").is_none() {
            bail!(
                "this machine has no apt-get. Install what corresponds to Debian's packages {list} with its own \
                 package manager, then run `cargo xtask setup` again"
            );
        }
        if !workspace::is_root() {
            bail!(
                "installing packages needs root. Run `sudo apt-get install --no-install-recommends {list}`, \
                 then `cargo xtask setup` again"
            );
        }
        Ok(Self)
    }

    /// Installs `packages`, refreshing the package lists only where they do not know one of them.
    pub(crate) fn install(&self, packages: &[String]) -> Result<()> {
        let mut fresh = false;
        if !packages.iter().all(|package| is_known(package)) {
            self.update()?;
            fresh = true;
        }
        let title = format!("apt-get install {}", packages.join(" "));
        let install = || {
            progress::step(
                &title,
                apt_get().args(["install", "-y", "--no-install-recommends"]).args(packages),
            )
        };
        match install() {
            Err(_) if !fresh => {
                // The lists may name versions that the mirror has replaced since.
                self.update()?;
                install()
            }
            outcome => outcome,
        }
    }

    #[expect(clippy::unused_self, reason = "only `usable` hands out the right to call apt-get")]
    fn update(&self) -> Result<()> {
        progress::step("apt-get update", apt_get().arg("update"))
    }
}

/// Whether the package lists have a version of `package` to install.
pub(crate) fn is_known(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["show", "--no-all-versions", package])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // Another installation may hold the lock for minutes, for one on a machine that was just booted.
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Adds components to a rustup toolchain.
pub(crate) fn rustup_components(toolchain: &str, components: &[&str]) -> Result<()> {
    let title = format!("rustup component add {} --toolchain {toolchain}", components.join(" "));
    let mut rustup = Command::new("rustup");
    // Being offline is an answer, and its stack trace says nothing more.
    rustup.args(["component", "add", "--toolchain", toolchain]).args(components).env("RUST_BACKTRACE", "0");
    progress::step(&title, &mut rustup)
}

/// Builds the bpf-linker that goes with `compiler`.
pub(crate) fn bpf_linker(compiler: &Compiler, build: LinkerBuild) -> Result<()> {
    let major = compiler.llvm_major;
    let (release, _) =
        linker_release(major).with_context(|| format!("no bpf-linker is known for LLVM {major}"))?;
    let root = linker_directory(compiler, build)
        .context("neither XDG_CACHE_HOME nor HOME is set: no place to keep bpf-linker")?;
    let mut command = workspace::cargo();
    let feature = match build {
        LinkerBuild::RustcsOwn => format!("rust-llvm-{major}"),
        LinkerBuild::System => {
            // Another major's llvm-config may come first on PATH; its libraries are not found then.
            let llvm = Llvm::installed(major).with_context(|| format!("LLVM {major} is not in /usr/lib"))?;
            command.env("PATH", workspace::path_with(&[&llvm.prefix.join("bin")]));
            command.env("LLVM_PREFIX", &llvm.prefix);
            format!("llvm-{major}")
        }
    };
    command
        .args(["install", "bpf-linker", "--locked", "--version", release, "--no-default-features"])
        .args(["--features", &feature, "--root"])
        .arg(&root)
        // LLVM does its work, and is compiled already: optimising the rest would only be waited for.
        .envs([("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"), ("CARGO_PROFILE_RELEASE_LTO", "off")])
        .envs([("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"), ("CARGO_PROFILE_RELEASE_DEBUG", "0")])
        .env_remove("CARGO_TARGET_DIR");
    progress::step(&format!("cargo install bpf-linker {release} ({feature})"), &mut command)
}
