//! `voxprobe dedup`: a capture without its copies.

use std::path::PathBuf;

use clap::Args;
use voxprobe::pipeline::dedup::{Summary, dedup};
use voxprobe::pipeline::offline::Options;
use voxprobe::report::words;

use super::Filter;
use super::progress::Bars;

/// Write a capture without its copies, or with each copy named
///
/// A copy is a SIP, RTP or RTCP packet that the capture shows again: from another tap, before and after a router, inside
/// rpcap. Real retransmissions stay, and so does everything that is not SIP, RTP or RTCP. The output is pcapng.
#[derive(Debug, Args)]
pub(crate) struct Dedup {
    /// Capture file (pcap, pcapng; plain, gzip, zstd); ERF is not rewritten
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write; it appears whole or not at all
    #[arg(value_name = "OUT.pcapng")]
    output: PathBuf,
    /// Keep all frames; each copy gets a comment that names its original and the reason
    #[arg(long)]
    annotate: bool,
    #[command(flatten)]
    filter: Filter,
    /// Streams held at once; one takes 2.4 to 4 KB, and 2 KiB more for each copy a packet
    #[arg(long, value_name = "N", default_value_t = 131_072, value_parser = super::at_least_one)]
    max_streams: usize,
}

impl Dedup {
    /// Analyses, copies, and says what was done.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let options = Options {
            rtp: self.filter.rule(),
            config: self.filter.config()?,
            max_streams: self.max_streams,
            ..Options::default()
        };
        let mut bars = Bars::default();
        let opened = |path: &_, progress| bars.follow(path, progress);
        let summary = dedup(&self.input, &self.output, &options, self.annotate, opened)?;
        drop(bars);
        println!("{}: {}", self.output.display(), told(&summary, self.annotate));
        Ok(())
    }
}

fn told(summary: &Summary, annotate: bool) -> String {
    let copies = summary.total();
    let causes: Vec<_> =
        summary.copies.iter().map(|(cause, count)| format!("{} {cause}", words::thousands(*count))).collect();
    let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
    let kept = summary.frames - if annotate { 0 } else { copies };
    format!(
        "{} of {} kept, {} {}{causes}; {} kept",
        words::thousands(kept),
        words::count(summary.frames, "frame"),
        if copies == 1 { "1 copy".to_owned() } else { format!("{} copies", words::thousands(copies)) },
        if annotate { "named" } else { "removed" },
        words::count(summary.retransmissions, "real retransmission"),
    )
}
