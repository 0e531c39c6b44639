//! What CI runs, in the order in which a fault is cheapest to find.
//!
//! Tests that need root, or a peer that is not installed, skip and say so in a file that is shown at the end:
//! cargo hides what a passing test prints. In CI, and with root, a skip for want of privileges is a failure.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::{build, progress, setup, workspace};

#[derive(Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this, and none of the other checks.
    filter: Option<String>,
}

/// The `test` command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let root = workspace::is_root();
    let ci = workspace::is_ci();
    if ci && !root {
        bail!(
            "CI must run as root: two of the three levels of tests attach BPF programs and would be skipped"
        );
    }
    let tools = setup::ensure()?;
    match setup::peers() {
        Err(error) if ci => return Err(error),
        Err(error) => progress::note(&format!("Some comparisons will be skipped: {error:#}.")),
        Ok(()) => {}
    }
    if options.filter.is_none() {
        setup::lints()?;
        progress::step("formatting", workspace::cargo().args(["fmt", "--all", "--check"]))?;
    }

    // The namespace tests run the binary that a user would, and the rates they reach need optimisation.
    let binaries = build::binaries(&tools, &build::Options::default())?;
    if options.filter.is_none() {
        let mut clippy = workspace::cargo();
        clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        progress::step("lints", &mut clippy)?;
    }

    let skips = workspace::target().join(format!("skipped-tests-{}", std::process::id()));
    let mut test = workspace::cargo();
    test.args(["test", "--workspace", "--no-fail-fast"])
        .args(&options.filter)
        .env("VOXPROBE_BIN", binaries.join("voxprobe"))
        .env("VOXLAB_BIN", binaries.join("voxlab"))
        .env("VOXPROBE_SKIPS", &skips);
    if root {
        test.env("VOXPROBE_REQUIRE_ROOT", "1");
    }
    let tested = progress::shown("tests: without privileges, BPF, network namespaces", &mut test);
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    let _ = fs::remove_file(&skips);
    tested?;

    if options.filter.is_none() {
        let mut doc = workspace::cargo();
        doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings");
        progress::step("documentation", &mut doc)?;
    }
    summary(&skipped, root, started);
    Ok(())
}

fn summary(skipped: &str, root: bool, started: Instant) {
    let skipped: BTreeSet<&str> = skipped.lines().filter(|line| !line.is_empty()).collect();
    println!();
    if !root {
        println!(
            "not root: the BPF and the namespace tests were skipped; `sudo -E cargo xtask test` runs them"
        );
    }
    if skipped.is_empty() {
        println!("nothing was skipped");
    } else {
        println!("{} skipped:", skipped.len());
        for line in skipped {
            println!("  {line}");
        }
    }
    println!("all checks passed in {:.0} s", started.elapsed().as_secs_f64());
}
