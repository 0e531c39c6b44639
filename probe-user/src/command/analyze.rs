//! `voxprobe analyze`: capture files, findings first.

use std::io::{self, BufWriter, Write};
use std::num::NonZero;
use std::path::PathBuf;

use anstream::AutoStream;
use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use voxprobe::pipeline::offline::{self, Options};
use voxprobe::report::contract::Report;
use voxprobe::report::select::Selection;
use voxprobe::report::{csv, detail, json, page, text, words};
use voxprobe::rtp::raw;

use super::Filter;
use super::progress::Bars;
use super::quality::Quality;

/// Analyse capture files (pcap, pcapng, ERF; plain, gzip, zstd): findings, calls, streams
///
/// Several files are read as one capture, in the order given. The raw figures equal what tshark 4.0 prints for the
/// same capture; the others have copies removed.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Analyze {
    /// Capture files; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    /// Print one row a stream as comma-separated values, columns named by their paths in the JSON document
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Only these streams, each in full: an SSRC (0x… or decimal), an address (IP or IP:PORT) at either end, src=ADDRESS
    /// or dst=ADDRESS; several with commas must all hold
    #[arg(long, value_name = "STREAM")]
    stream: Option<Selection>,
    /// Print ASCII alone, as is done in a locale without UTF-8
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    ascii: bool,
    /// Whose figures the ledger of frames as captured equals
    #[arg(long, value_enum, default_value_t = Compat::Wireshark40)]
    compat: Compat,
    /// Show the digits that were dialled within calls; hidden otherwise, as they can be a PIN
    #[arg(long)]
    show_digits: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    quality: Quality,
    /// Threads. As many as there are cores, if not given, and one for files of less than 16 MiB; no more than 16 are of
    /// use. The report is the same
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Streams held at once; one takes about 9 KiB with its report, so the default is 1.2 GiB at worst
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = super::at_least_one)]
    max_streams: usize,
}

/// Values of --compat.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compat {
    /// Wireshark and tshark 4.0
    #[value(name = "wireshark-4.0")]
    Wireshark40,
}

/// As many as there are cores, unless the files are read before a thread has begun.
fn threads_for(files: &[PathBuf]) -> usize {
    const SMALL: u64 = 16 << 20;
    let size = |path: &PathBuf| {
        std::fs::metadata(path).map_or(SMALL, |meta| if meta.is_file() { meta.len() } else { SMALL })
    };
    if files.iter().map(size).sum::<u64>() < SMALL {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

impl Analyze {
    /// Reads, analyses, prints.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let options = Options {
            rtp: self.filter.rule(),
            compat: match self.compat {
                Compat::Wireshark40 => raw::Compat::Wireshark40,
            },
            config: self.filter.config()?,
            threads: self.threads.map_or_else(|| threads_for(&self.files), usize::from),
            max_streams: self.max_streams,
            quality: self.quality.settings(),
            leg_headers: self.filter.leg_headers(),
        };
        let mut bars = Bars::default();
        let mut report =
            offline::analyze(&self.files, &options, |path, progress| bars.follow(path, progress))?;
        drop(bars);
        if self.show_digits {
            report.show_digits();
        }
        if let Some(selection) = &self.stream {
            let streams = report.streams.len();
            selection.apply(&mut report);
            if report.streams.is_empty() {
                bail!(
                    "none of {} is that one; without --stream they are listed",
                    words::count(streams as u64, "stream")
                );
            }
        }
        self.print(&report).context("cannot write the report")
    }

    fn print(&self, report: &Report) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        if self.json {
            json::document(&mut out, report)?;
        } else if self.csv {
            csv::write(report, &mut out)?;
        } else {
            let text = if self.stream.is_some() {
                detail::render_styled(report, page::terminal_width())
            } else {
                text::render_styled(report, page::terminal_width())
            };
            let is_ascii = self.ascii || !page::is_utf8_locale(|name| std::env::var(name).ok());
            let text = if is_ascii { page::ascii(&text) } else { text };
            // Takes the colours out where no terminal shows them, or NO_COLOR asks for it.
            let choice = AutoStream::choice(&io::stdout());
            AutoStream::new(&mut out as &mut dyn Write, choice).write_all(text.as_bytes())?;
        }
        out.flush()
    }
}
