//! What compiles and links for BPF on this machine: found, not configured.
//!
//! The target has no prebuilt `core`, so a compiler counts only together with the library's source. bpf-linker
//! reads the compiler's bitcode with an LLVM of its own, which must be of the same major version and not older;
//! version numbers do not prove that, so a candidate links a real (empty) crate before it is trusted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::workspace;

/// The BPF target: little-endian, which is what the userspace half reads without swapping.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// A compiler that can build for BPF.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// `DIR/bin/rustc` and `DIR/lib/rustlib`.
    pub(crate) sysroot: PathBuf,
    /// As in `rustc 1.95.0`.
    pub(crate) release: String,
    /// Of the LLVM it writes bitcode with.
    pub(crate) llvm_major: u32,
}

impl Compiler {
    /// The first with sources: the toolchain in use, then rustup's others (nightly first), then the system's.
    pub(crate) fn installed() -> Option<Self> {
        sysroots()
            .into_iter()
            .filter(|sysroot| has_core_source(sysroot))
            .find_map(|sysroot| Self::at(&sysroot))
    }

    /// Reads the versions of the compiler in `sysroot`, if bpf-linker exists for its LLVM.
    pub(crate) fn at(sysroot: &Path) -> Option<Self> {
        let output = Command::new(sysroot.join("bin/rustc")).arg("-vV").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let llvm_major = field("LLVM version:")?.split('.').next()?.parse().ok()?;
        linker_release(llvm_major)?;
        Some(Self { sysroot: sysroot.to_owned(), release: field("release:")?.to_owned(), llvm_major })
    }

    pub(crate) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// The cargo that came with the compiler, which knows the layout of its library sources best; else ours.
    pub(crate) fn cargo(&self) -> Command {
        let own = self.sysroot.join("bin/cargo");
        if own.exists() && self.is_rustup() {
            let mut command = Command::new(own);
            command.current_dir(workspace::root());
            command
        } else {
            workspace::cargo()
        }
    }

    /// Whether rustup manages it: then it ships its own shared LLVM.
    pub(crate) fn is_rustup(&self) -> bool {
        rustup_toolchains().is_some_and(|toolchains| self.sysroot.starts_with(toolchains))
    }

    pub(crate) fn describe(&self) -> String {
        format!("rustc {} (LLVM {}) in {}", self.release, self.llvm_major, self.sysroot.display())
    }
}

/// The system's LLVM of one major version, with what is needed to link against it.
#[derive(Clone, Debug)]
pub(crate) struct Llvm {
    /// `/usr/lib/llvm-N` on Debian.
    pub(crate) prefix: PathBuf,
}

impl Llvm {
    pub(crate) fn installed(major: u32) -> Option<Self> {
        let prefix = PathBuf::from(format!("/usr/lib/llvm-{major}"));
        (prefix.join("bin/llvm-config").exists() && prefix.join("include/llvm-c/Core.h").exists())
            .then_some(Self { prefix })
    }
}

/// A bpf-linker that was seen to link what the compiler writes.
#[derive(Clone, Debug)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
}

impl Linker {
    /// The first that works: on PATH, or built by an earlier set-up.
    pub(crate) fn installed(compiler: &Compiler) -> Option<Self> {
        let cached = [LinkerBuild::System, LinkerBuild::RustcsOwn]
            .into_iter()
            .filter_map(|build| linker_directory(compiler, build))
            .map(|directory| directory.join("bin/bpf-linker"));
        workspace::find("bpf-linker")
            .into_iter()
            .chain(cached)
            .filter(|path| path.exists())
            .map(|path| Self { path })
            .find(|linker| linker.links_output_of(compiler))
    }

    /// Compiles an empty crate and links it.
    fn links_output_of(&self, compiler: &Compiler) -> bool {
        let directory = workspace::target().join(format!("bpf-smoke-{}", std::process::id()));
        let attempt = || -> std::io::Result<bool> {
            fs::create_dir_all(&directory)?;
            let source = directory.join("empty.rs");
            fs::write(&source, "#![feature(no_core)]\n#![no_core]\n")?;
            let bitcode = directory.join("empty.bc");
            let compiled = Command::new(compiler.rustc())
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["--crate-type=lib", "--emit=llvm-bc", "--target", TARGET, "-o"])
                .args([&bitcode, &source])
                .stderr(Stdio::null())
                .status()?;
            let linked = Command::new(&self.path)
                .env("PATH", path_for(compiler, self))
                .arg(&bitcode)
                .arg("-o")
                .arg(directory.join("empty.o"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            Ok(compiled.success() && linked.success())
        };
        let works = attempt().unwrap_or(false);
        let _ = fs::remove_dir_all(&directory);
        works
    }
}

/// PATH for the BPF build: the linker, and the compiler whose LLVM a proxying linker loads.
pub(crate) fn path_for(compiler: &Compiler, linker: &Linker) -> std::ffi::OsString {
    let linker_directory = linker.path.parent().unwrap_or(Path::new("/"));
    workspace::path_with(&[linker_directory, &compiler.sysroot.join("bin")])
}

/// How a bpf-linker gets at LLVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkerBuild {
    /// Linked against the system's libLLVM, which needs its development packages.
    System,
    /// Loads the libLLVM that rustup's compiler brings along: nothing from the system, no root.
    RustcsOwn,
}

/// The bpf-linker release for an LLVM, and whether it can also load rustc's own (releases after 0.10 cannot).
pub(crate) fn linker_release(llvm_major: u32) -> Option<(&'static str, bool)> {
    match llvm_major {
        20..=22 => Some(("0.10.3", true)),
        23 => Some(("0.13.0", false)),
        _ => None,
    }
}

/// Where set-up puts the linker: one directory for each release and way of linking.
pub(crate) fn linker_directory(compiler: &Compiler, build: LinkerBuild) -> Option<PathBuf> {
    let (release, _) = linker_release(compiler.llvm_major)?;
    let suffix = match build {
        LinkerBuild::System => format!("llvm{}", compiler.llvm_major),
        LinkerBuild::RustcsOwn => format!("rust-llvm{}", compiler.llvm_major),
    };
    Some(workspace::cache()?.join(format!("bpf-linker-{release}-{suffix}")))
}

/// Where rustup keeps toolchains.
pub(crate) fn rustup_toolchains() -> Option<PathBuf> {
    let home = match env::var_os("RUSTUP_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME")?).join(".rustup"),
    };
    let toolchains = home.join("toolchains");
    toolchains.is_dir().then_some(toolchains)
}

/// The rustup toolchain that runs this program, by name: the proxy says it in the environment.
pub(crate) fn active_rustup_toolchain() -> Option<String> {
    env::var("RUSTUP_TOOLCHAIN").ok()
}

/// Candidates, best first, each once.
fn sysroots() -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(toolchains) = rustup_toolchains() {
        found.extend(active_rustup_toolchain().map(|name| toolchains.join(name)));
        let mut others: Vec<_> =
            fs::read_dir(&toolchains).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        others.sort_by_key(|path| (!is_nightly(path), path.clone()));
        found.extend(others);
    }
    // Distributions: sources are a package beside the compiler's.
    found.extend(["/usr/local", "/usr"].map(PathBuf::from));
    let mut seen = Vec::new();
    found.retain(|path| {
        path.join("bin/rustc").exists() && !seen.contains(path) && {
            seen.push(path.clone());
            true
        }
    });
    found
}

fn is_nightly(sysroot: &Path) -> bool {
    sysroot.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nightly"))
}

/// Whether the source of `core` is there, which `-Zbuild-std` compiles.
pub(crate) fn has_core_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
}
