//! The fuzz targets, with libFuzzer: a nightly compiler and cargo-fuzz, which are asked for and not installed.

use anyhow::{Result, bail};
use clap::Args;

use crate::{progress, workspace};

/// The targets, in the order in which they are run.
const TARGETS: [&str; 6] = ["message", "sdp", "reassembly", "websocket", "dialogs", "frames"];

#[derive(Args)]
pub(crate) struct Options {
    /// Only this target: message, sdp, reassembly, websocket, dialogs or frames.
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// Seconds for each.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// The `fuzz` command. What is found new goes to `target/fuzz/`, beside the committed corpus.
pub(crate) fn run(options: &Options) -> Result<()> {
    if workspace::find("cargo-fuzz").is_none() {
        bail!("cargo-fuzz is missing: cargo install cargo-fuzz, and rustup toolchain install nightly");
    }
    let fuzz = workspace::root().join("tests/fuzz");
    for target in TARGETS {
        if options.target.as_ref().is_some_and(|only| only != target) {
            continue;
        }
        let found = workspace::target().join("fuzz").join(target);
        std::fs::create_dir_all(&found)?;
        let mut command = std::process::Command::new("cargo");
        command
            .args(["+nightly", "fuzz", "run", target, "--fuzz-dir"])
            .arg(&fuzz)
            .arg(found)
            .arg(fuzz.join("corpus").join(target))
            .arg("--")
            .arg(format!("-max_total_time={}", options.seconds))
            .args(["-max_len=2048", "-print_final_stats=1"]);
        progress::shown(&format!("fuzz {target} for {} s", options.seconds), &mut command)?;
    }
    Ok(())
}
