//! `voxprobe flow`: one call of a capture as a ladder.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use voxprobe::pipeline::offline::{self, Options};
use voxprobe::report::contract::{CallWithStreams, Report};
use voxprobe::report::ladder::{Charset, Ladder};
use voxprobe::report::{page, words};

use super::Filter;

/// Calls named in a message that asks which one is meant.
const NAMED: usize = 10;

/// Draw one call of a capture as a ladder: messages once each, retransmissions marked, media with its loss
///
/// A message that was captured several times is drawn once and says so ("x4: 2 taps x rpcap").
#[derive(Debug, Args)]
pub(crate) struct Flow {
    /// Capture files, read as one capture in the order given. They are read twice, so no standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Which call: its Call-ID, or a part that only it has. Not needed if there is only one
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// Print the same as JSON
    #[arg(long)]
    json: bool,
    /// Draw with ASCII only; the default where the locale is not UTF-8
    #[arg(long)]
    ascii: bool,
    #[command(flatten)]
    filter: Filter,
}

impl Flow {
    /// Finds the call, reads what is said in it, and draws.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        if self.files.iter().any(|file| file.as_os_str() == "-") {
            bail!("standard input cannot be read twice: write it to a file first");
        }
        let options = Options {
            rtp: self.filter.rule(),
            config: self.filter.config()?,
            leg_headers: self.filter.leg_headers(),
            ..Options::default()
        };
        let report = offline::analyze(&self.files, &options, |_, _| ())?;
        let call_id = Arc::clone(&self.meant(&report)?.call.call_id);
        let (report, transcript) = offline::transcribe(&self.files, &options, [Arc::clone(&call_id)])?;
        let call = report.calls.iter().find(|call| call.call.call_id == call_id);
        let call = call.context("the file changed between two readings")?;
        let ladder = Ladder::new(&report, call, &transcript);
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &ladder).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            let is_plain = self.ascii || !page::is_utf8_locale(|name| std::env::var(name).ok());
            let charset = if is_plain { Charset::Ascii } else { Charset::Utf8 };
            out.write_all(ladder.render(charset).as_bytes()).context("cannot write the ladder")?;
        }
        out.flush()?;
        Ok(())
    }

    /// The call that is meant: the only one, the one of this very Call-ID, or the only one with such a part in it.
    fn meant<'a>(&self, report: &'a Report) -> anyhow::Result<&'a CallWithStreams> {
        let candidates: Vec<_> = match &self.call {
            None => report.calls.iter().collect(),
            Some(id) => match report.calls.iter().find(|call| *call.call.call_id == **id) {
                Some(exact) => vec![exact],
                None => report.calls.iter().filter(|call| call.call.call_id.contains(id.as_str())).collect(),
            },
        };
        match (candidates.as_slice(), &self.call) {
            ([call], _) => Ok(call),
            ([], None) => bail!("no calls: no INVITE, and nothing that belongs to one"),
            ([], Some(id)) => {
                bail!(
                    "no call has {id:?} in its Call-ID; there are {}",
                    named(&report.calls.iter().collect::<Vec<_>>())
                )
            }
            (several, _) => bail!("which call? --call with one of {}", named(several)),
        }
    }
}

fn named(calls: &[&CallWithStreams]) -> String {
    let mut names: Vec<_> =
        calls.iter().take(NAMED).map(|call| words::printable(&call.call.call_id)).collect();
    if calls.len() > NAMED {
        names.push(format!("and {} more (voxprobe calls lists them)", calls.len() - NAMED));
    }
    names.join(", ")
}
