//! `voxprobe analyze`: capture files, findings first.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use voxprobe::capture::file::Progress;
use voxprobe::pipeline::offline::{self, Options};
use voxprobe::report::{text, words};

use super::Filter;
use super::quality::Quality;

/// Analyse capture files (pcap, pcapng; plain, gzip, zstd): findings, calls, streams
///
/// Several files are read as one capture, in the order given. The raw figures equal what tshark 4.0 prints for the
/// same capture; the others have copies removed.
#[derive(Debug, Args)]
pub(crate) struct Analyze {
    /// Capture files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    quality: Quality,
    /// Threads that hold streams, besides the one that reads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Streams held at once; one takes about 5 KiB, so the default is 640 MiB at worst
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    max_streams: usize,
}

impl Analyze {
    /// Reads, analyses, prints.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let options = Options {
            rtp: self.filter.rule(),
            config: self.filter.config()?,
            shards: usize::from(self.threads),
            max_streams: self.max_streams,
            quality: self.quality.settings(),
        };
        let report = offline::analyze(&self.files, &options, show_progress)?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            out.write_all(text::render(&report).as_bytes()).context("cannot write the report")?;
        }
        out.flush()?;
        Ok(())
    }
}

/// Files below this are read before anybody could look.
const SHOWN_FROM: u64 = 64 << 20;

/// A line on the terminal that follows a big file, from a thread that ends by itself.
fn show_progress(path: &Path, progress: Progress) {
    if progress.size < SHOWN_FROM || !io::stderr().is_terminal() {
        return;
    }
    let name = path.display().to_string();
    let show = move || {
        let began = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(200));
            let read = progress.read().min(progress.size);
            let percent = read * 100 / progress.size.max(1);
            let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = words::bytes(read.saturating_mul(1000) / elapsed_ms);
            eprint!("\r{name}: {percent:>3} % of {}, {rate}/s ", words::bytes(progress.size));
            if read >= progress.size {
                eprintln!();
                return;
            }
        }
    };
    // Without a thread there is no progress line, and nothing else is lost.
    let _ = thread::Builder::new().name("vox-progress".to_owned()).spawn(show);
}
