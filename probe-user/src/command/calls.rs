//! `voxprobe calls`: the calls of capture files, one line each.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use voxprobe::pipeline::offline::{self, Options};
use voxprobe::report::calls;

use super::Filter;

/// List the calls of capture files, one line each
///
/// What is said in one of them shows `voxprobe flow FILE --call ID`.
#[derive(Debug, Args)]
pub(crate) struct Calls {
    /// Capture files, read as one capture in the order given; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print a JSON list: the `calls` of `voxprobe analyze --json`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: Filter,
}

impl Calls {
    /// Reads, and lists.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let options =
            Options { rtp: self.filter.rule(), config: self.filter.config()?, ..Options::default() };
        let report = offline::analyze(&self.files, &options, |_, _| ())?;
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &report.calls).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            out.write_all(calls::render(&report).as_bytes()).context("cannot write the list")?;
        }
        out.flush()?;
        Ok(())
    }
}
