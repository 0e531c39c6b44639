//! `voxlab bench`: the probe beside its peers, in one run on one machine.
//!
//! ```text
//!   micro   one part at a time: XDP programs by TEST_RUN, the analysis core, the engine of copies, the SIP parser
//!   files   whole processes on the same generated captures: voxprobe, and every peer that is installed
//!   live    a generator in the kernel, and who receives how much of it, at what cost to the machine; and who costs what idle
//!   scale   the whole probe by streams and shards
//!      └──▶ Figure: a name, a number, a unit ─▶ table, JSON, gate
//! ```
//!
//! A machine's speed changes from hour to hour, so a number means something beside another of the same run only. The
//! `gate` compares such ratios with a budget that is checked in, and nothing else.

mod files;
mod gate;
mod idle;
mod live;
mod micro;
pub mod process;
mod scale;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

/// Measure the probe, and its peers beside it. Build with --release; leave the machine alone meanwhile.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to measure; all of it if nothing is said.
    #[arg(long, value_delimiter = ',', value_name = "PART,...")]
    only: Vec<Part>,
    /// A tenth of the work: to see that it works, not for numbers.
    #[arg(long)]
    quick: bool,
    /// One more peer for files: a name and a command in which {} is the file, as in `voipmonitor=voipmonitor -r {}`.
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    peers: Vec<files::Peer>,
    /// Where generated captures lie meanwhile; 2 GB are needed.
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Also write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if a ratio is outside of the budget in this file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = gate::BUDGET)]
    gate: Option<PathBuf>,
}

/// Parts of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Micro,
    Files,
    Live,
    Scale,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured: `part/case/subject/quantity`.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

/// All numbers of a run, and where they are from.
#[derive(Debug, Default, Serialize)]
pub struct Run {
    /// Processor and kernel.
    pub machine: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// In the order of measuring.
    pub figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub left_out: Vec<String>,
}

impl Run {
    fn note(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    fn leave_out(&mut self, what: String) {
        println!("  left out: {what}");
        self.left_out.push(what);
    }

    /// A figure by its name.
    pub fn find(&self, name: &str) -> Option<f64> {
        Some(self.figures.iter().find(|figure| figure.name == name)?.value)
    }
}

/// Runs `voxlab bench`.
///
/// # Errors
/// If the probe itself cannot be measured, or a ratio is outside of the budget. A peer that is missing is left out.
pub fn run(options: &Options) -> Result<()> {
    anyhow::ensure!(!cfg!(debug_assertions), "this is a debug build: its numbers mean nothing");
    let is_asked = |part| options.only.is_empty() || options.only.contains(&part);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut run = Run { machine: machine(), cpus, ..Run::default() };
    println!("{}, {cpus} CPUs", run.machine);
    if is_asked(Part::Micro) {
        micro::measure(&mut run, options.quick)?;
    }
    if is_asked(Part::Files) {
        files::measure(&mut run, options)?;
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && (is_asked(Part::Live) || is_asked(Part::Scale)) {
        run.leave_out("live and scale: need root".to_owned());
    }
    let seconds = |full| Duration::from_secs(if options.quick { 1 } else { full });
    if is_root && is_asked(Part::Live) {
        live::measure(&mut run, seconds(6))?;
        idle::measure(&mut run, seconds(10))?;
    }
    if is_root && is_asked(Part::Scale) {
        scale::measure(&mut run, seconds(5))?;
    }
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&run)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    options.gate.as_deref().map_or(Ok(()), |budget| gate::check(&run, budget))
}

fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    format!("{}, Linux {kernel}", model.map_or("unknown processor", |(_, model)| model))
}

/// The middle of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
