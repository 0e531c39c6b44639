//! Provisions what compiles for BPF, and what the lab needs at run time.
//!
//! The order, each only if the one before is not there: what is installed; rustup, which needs no root; the
//! distribution's packages. What cannot be had ends in a text that names it and every way to get it.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::install::{self, Apt};
use crate::progress;
use crate::toolchain::{
    self, Compiler, Linker, LinkerBuild, Llvm, active_rustup_toolchain, linker_release, rustup_toolchains,
};
use crate::workspace;

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Also install the real peers that tests talk to (sipp, tshark), and those that the benchmark measures
    /// (tcpdump, netsniff-ng, sngrep).
    #[arg(long)]
    pub(crate) with_peers: bool,
}

/// What building for BPF takes.
pub(crate) struct Tools {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// The `setup` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let tools = ensure()?;
    if options.with_peers {
        peers()?;
        rivals()?;
    }
    println!("compiler    {}", tools.compiler.describe());
    println!("bpf-linker  {}", tools.linker.path.display());
    match workspace::find("ip") {
        Some(ip) => println!("iproute2    {}", ip.display()),
        None => println!("iproute2    missing: the lab and its tests need the `ip` command"),
    }
    for (program, package) in PEERS.into_iter().chain(RIVALS) {
        match workspace::find(program) {
            Some(path) => println!("{program:<12}{}", path.display()),
            None => println!(
                "{program:<12}not installed (optional: `cargo xtask setup --with-peers`, or {package})"
            ),
        }
    }
    println!("ready in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Finds the tools, and installs those that are missing.
pub(crate) fn ensure() -> Result<Tools> {
    let compiler = match Compiler::installed() {
        Some(compiler) => compiler,
        None => provide_compiler()?,
    };
    let linker = match Linker::installed(&compiler) {
        Some(linker) => linker,
        None => provide_linker(&compiler)?,
    };
    provide_ip();
    Ok(Tools { compiler, linker })
}

fn provide_compiler() -> Result<Compiler> {
    say("Compiling for BPF needs the source of Rust's core library, which is not installed.");
    let by_rustup = match compiler_by_rustup() {
        Ok(compiler) => return Ok(compiler),
        Err(error) => error,
    };
    say(&format!("rustup cannot provide it ({by_rustup:#}); trying the distribution."));
    let packages = ["rustc-web", "rust-web-src"].map(str::to_owned);
    say("Will install: rustc-web and rust-web-src, a compiler with its library's source.");
    let by_packages = match Apt::usable(&packages).and_then(|apt| apt.install(&packages)) {
        Ok(()) => match Compiler::installed() {
            Some(compiler) => return Ok(compiler),
            None => anyhow::anyhow!("the packages are installed, but no bpf-linker is known for their LLVM"),
        },
        Err(error) => error,
    };
    bail!(
        "no compiler with the source of its core library.\n  \
         with rustup:      {by_rustup:#}\n  \
         with packages:    {by_packages:#}\n\
         Either of these helps:\n  \
         rustup component add rust-src --toolchain nightly\n  \
         sudo apt-get install --no-install-recommends rustc-web rust-web-src"
    )
}

/// Adds the sources to a nightly that is there, else to the toolchain in use: `RUSTC_BOOTSTRAP` makes either
/// accept `-Zbuild-std`, and a second toolchain would be a download of a hundred times the size.
fn compiler_by_rustup() -> Result<Compiler> {
    let toolchains = rustup_toolchains().context("rustup is not installed")?;
    if workspace::find("rustup").is_none() {
        bail!("rustup is not on PATH");
    }
    let mut names: Vec<String> = std::fs::read_dir(&toolchains)
        .context("cannot list rustup's toolchains")?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("nightly"))
        .collect();
    names.extend(active_rustup_toolchain());
    let mut refusal = anyhow::anyhow!("it has no toolchain whose LLVM a bpf-linker exists for");
    for name in names {
        let sysroot = toolchains.join(&name);
        if Compiler::at(&sysroot).is_none() {
            continue;
        }
        say(&format!("Will install: rust-src for rustup's {name} (about 3 MB)."));
        match install::rustup_components(&name, &["rust-src"]) {
            Ok(()) if toolchain::has_core_source(&sysroot) => {
                return Compiler::at(&sysroot).context("the toolchain vanished");
            }
            Ok(()) => {
                refusal = anyhow::anyhow!(
                    "it takes rust-src of {name} for installed, but the files are gone: `rustup component remove \
                     rust-src --toolchain {name}` and again"
                );
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

fn provide_linker(compiler: &Compiler) -> Result<Linker> {
    let major = compiler.llvm_major;
    let (release, loads_rustcs_own) =
        linker_release(major).with_context(|| format!("no bpf-linker is known for LLVM {major}"))?;
    say(&format!(
        "{} needs a bpf-linker with LLVM {major}; none that works is installed.",
        compiler.describe()
    ));
    let build = if Llvm::installed(major).is_some() {
        LinkerBuild::System
    } else if loads_rustcs_own && compiler.is_rustup() {
        LinkerBuild::RustcsOwn
    } else {
        provide_llvm(major)?;
        LinkerBuild::System
    };
    say(&format!(
        "Will install: bpf-linker {release}, compiled into the cache of this user (about a minute)."
    ));
    install::bpf_linker(compiler, build)?;
    Linker::installed(compiler).with_context(|| {
        format!(
            "bpf-linker {release} was built but cannot link what {} writes. If its LLVM is older than the \
             compiler's, `cargo install bpf-linker` with a newer one and put it on PATH",
            compiler.describe()
        )
    })
}

fn provide_llvm(major: u32) -> Result<()> {
    let mut packages = vec![format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
    packages.extend(["zlib1g-dev", "libzstd-dev"].map(str::to_owned));
    say(&format!("Will install, so that bpf-linker can link against LLVM {major}: {}.", packages.join(", ")));
    Apt::usable(&packages)
        .and_then(|apt| apt.install(&packages))
        .with_context(|| format!("the development files of LLVM {major} are missing"))
}

/// The lab's own need. Not fatal: building, `analyze` and a live run do without.
fn provide_ip() {
    if workspace::find("ip").is_some() {
        return;
    }
    let packages = ["iproute2".to_owned()];
    say("The lab makes network namespaces with the `ip` command. Will install: iproute2.");
    if let Err(error) = Apt::usable(&packages).and_then(|apt| apt.install(&packages)) {
        say(&format!("The lab will not run: {error:#}."));
    }
}

const PEERS: [(&str, &str); 2] = [("sipp", "sip-tester"), ("tshark", "tshark")];

/// Recorders and analysers that `cargo xtask bench` measures beside the probe.
const RIVALS: [(&str, &str); 3] =
    [("tcpdump", "tcpdump"), ("netsniff-ng", "netsniff-ng"), ("sngrep", "sngrep")];

/// Real user agents and the reference analyser. Optional: tests that want them skip loudly.
pub(crate) fn peers() -> Result<()> {
    install_missing(&PEERS, "tests against real peers")
}

/// What the benchmark compares with. Optional: it says what it left out.
pub(crate) fn rivals() -> Result<()> {
    install_missing(&RIVALS, "measurements beside other tools")
}

fn install_missing(programs: &[(&str, &str)], purpose: &str) -> Result<()> {
    let packages: Vec<String> = programs
        .iter()
        .filter(|(program, _)| workspace::find(program).is_none())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    say(&format!("Will install, for {purpose}: {}.", packages.join(", ")));
    Apt::usable(&packages)?.install(&packages)
}

/// rustfmt and clippy, which a minimal toolchain lacks.
pub(crate) fn lints() -> Result<()> {
    let missing: Vec<&str> = [("rustfmt", "fmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(_, subcommand)| {
            let probed = workspace::cargo().args([subcommand, "--version"]).output();
            !probed.is_ok_and(|output| output.status.success())
        })
        .map(|(component, _)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("Will install, for the checks of formatting and lints: {}.", missing.join(", ")));
    let toolchain = toolchain::active_rustup_toolchain().context(
        "this cargo has no rustup that could add them. Install the packages `rustfmt` and `rust-clippy`, or \
         test with a rustup toolchain",
    )?;
    install::rustup_components(&toolchain, &missing)
}

fn say(text: &str) {
    progress::note(text);
}
