//! `voxlab conformance`: the raw ledger against tshark and sharkd, digit by digit, on the same files.
//!
//! ```text
//!   file ─┬─▶ tshark -z rtp,streams -z sip,stat ─▶ rows, SIP messages, who announced what ─┐
//!         ├─▶ sharkd rtp-analyse ─▶ skew, sequence errors, packet of the longest delta ────┼─▶ compare ─▶ report
//!         └─▶ voxprobe analyze --json ─▶ streams[].raw ────────────────────────────────────┘
//! ```
//!
//! Each file is compared twice: with what SDP announced (`--rtp sdp`), and with whatever looks like RTP (`--rtp any`
//! against Wireshark's rtp_udp heuristic). A row that differs is excused only by what tshark itself says of it: that it
//! was announced by other signalling than SIP, which voxprobe does not read. Nothing is excused by name.

mod compare;
mod figures;
pub mod generated;
mod sharkd;
mod tshark;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::Value;
use voxprobe::pipeline::offline::{self, RtpRule};

use crate::captures::{Scratch, files_with};
use crate::probe::Probe;
use compare::{FileReport, compare};
pub use tshark::{SipStat, Tshark};

/// How the names of capture files end.
const KINDS: [&str; 6] = ["pcap", "pcapng", "cap", "erf", "gz", "zst"];

/// Compare voxprobe's raw ledgers with tshark's, digit by digit; exit code 1 if a row differs
///
/// Without files: the captures in ../shared/captures, where they are, and generated ones.
#[derive(Debug, Args)]
pub struct Options {
    /// Capture files, or folders of them
    files: Vec<PathBuf>,
    /// The voxprobe to compare [default: the one beside this program]
    #[arg(long, value_name = "BINARY")]
    voxprobe: Option<PathBuf>,
    /// Seeds of generated captures: N captures of random RTP each announced and not
    #[arg(long, value_name = "N", default_value_t = 8)]
    seeds: u64,
    /// Packets of each of those
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    packets: usize,
    /// Keep the generated captures in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// Which voxprobe is asked.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A binary, as a user runs it.
    Binary(PathBuf),
    /// The library that this program was built with.
    Library,
}

impl Subject {
    fn report(&self, file: &Path, rule: RtpRule) -> Result<Value> {
        match self {
            Self::Library => {
                let options = offline::Options { rtp: rule, ..offline::Options::default() };
                Ok(serde_json::to_value(offline::analyze(&[file.to_owned()], &options, |_, _| ())?)?)
            }
            Self::Binary(binary) => {
                let output = Command::new(binary)
                    .args(["analyze", "--json", "--compat", "wireshark-4.0", "--rtp", word(rule)])
                    .arg(file)
                    .output()
                    .with_context(|| format!("cannot start {}", binary.display()))?;
                if !output.status.success() {
                    bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
                }
                serde_json::from_slice(&output.stdout).context("voxprobe's JSON cannot be read")
            }
        }
    }
}

fn word(rule: RtpRule) -> &'static str {
    match rule {
        RtpRule::Sdp => "sdp",
        RtpRule::Auto => "auto",
        RtpRule::Any => "any",
    }
}

/// What the comparison of many files came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files read.
    pub files: usize,
    /// Rows that equal tshark's in every figure.
    pub equal: usize,
    /// Figures in them.
    pub figures: usize,
    /// Rows that differ because other signalling than SIP announced them.
    pub excused: usize,
    /// Rows that differ, files that only one side can read, and sums of SIP that are not equal.
    pub differ: usize,
}

/// Compares one file by both rules and adds to `outcome`; returns what there is to say.
pub fn file(tshark: &Tshark, subject: &Subject, path: &Path, outcome: &mut Outcome) -> Result<String> {
    let mut said = String::new();
    outcome.files += 1;
    for rule in [RtpRule::Sdp, RtpRule::Any] {
        let theirs = tshark.read(path, rule == RtpRule::Any)?;
        let ours = subject.report(path, rule);
        let (theirs, ours) = match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => (theirs, ours),
            (Err(_), Err(_)) => continue,
            (Err(error), Ok(_)) => {
                let _ = writeln!(said, "  {}: only voxprobe reads it; tshark: {error}", word(rule));
                continue;
            }
            (Ok(_), Err(error)) => {
                outcome.differ += 1;
                let _ = writeln!(said, "  {}: only tshark reads it; voxprobe: {error:#}", word(rule));
                return Ok(said);
            }
        };
        let FileReport { equal, figures, excused, differ, text } = compare(&theirs, &ours, word(rule));
        outcome.equal += equal;
        outcome.figures += figures;
        outcome.excused += excused;
        outcome.differ += differ;
        said.push_str(&text);
    }
    Ok(said)
}

/// The command.
pub fn run(options: &Options) -> Result<()> {
    let tshark = Tshark::find()?;
    let binary = options.voxprobe.clone().map_or_else(Probe::binary, Ok)?;
    println!("tshark    {}", tshark.describe());
    println!("voxprobe  {}", binary.display());
    let scratch = Scratch::new("conformance")?;
    let mut files = Vec::new();
    for given in &options.files {
        if given.is_dir() {
            files.extend(files_with(given, &KINDS));
        } else {
            files.push(given.clone());
        }
    }
    if options.files.is_empty() {
        files.extend(crate::shared_captures().iter().flat_map(|folder| files_with(folder, &KINDS)));
        let folder = options.keep.as_deref().unwrap_or_else(|| scratch.path());
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let random = generated::random(options.seeds, options.packets);
        for capture in generated::named().into_iter().chain(random) {
            let path = folder.join(&capture.name);
            std::fs::write(&path, &capture.bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
            files.push(path);
        }
    }
    let mut outcome = Outcome::default();
    let subject = Subject::Binary(binary);
    for path in &files {
        let before = outcome.equal;
        let said = file(&tshark, &subject, path, &mut outcome)?;
        if !said.is_empty() || outcome.equal > before {
            println!("{:>5} rows equal  {}", outcome.equal - before, path.display());
            print!("{said}");
        }
    }
    println!(
        "{} files: {} rows equal in {} figures, {} not compared, {} differ",
        outcome.files, outcome.equal, outcome.figures, outcome.excused, outcome.differ
    );
    if outcome.differ > 0 {
        bail!("voxprobe and tshark differ");
    }
    if outcome.equal == 0 {
        bail!("nothing was compared: no RTP in these files");
    }
    Ok(())
}
