//! `voxprobe flow`: one call of a capture as a ladder, with the calls that belong to it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use voxprobe::packet::Nanos;
use voxprobe::pipeline::offline::{self, Options};
use voxprobe::report::contract::{CallWithStreams, Report};
use voxprobe::report::ladder::{Charset, Ladder, family};
use voxprobe::report::{calls, json, page, words};

use super::{Filter, print_notes};

/// Calls named in a message that asks which one is meant.
const NAMED: usize = 10;

/// Draw one call of a capture as a ladder: messages once each, retransmissions marked, media with its loss
///
/// A message that was captured several times is drawn once and says so ("x4: 2 taps x rpcap"); #2 is the number of CSeq;
/// life lines are double while media flows. Calls that belong to it are drawn with it and told apart by letters: the
/// call that a transfer made, the other leg of a B2BUA.
#[derive(Debug, Args)]
pub(crate) struct Flow {
    /// Capture files, read as one capture in the order given. They are read twice, so no standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Which call: its Call-ID, the beginning of it, or a part that only it has. Not needed if there is only one. ID#2 is the
    /// second of the calls that bore one Call-ID; without a number all of them are drawn
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// Only that call, without those that belong to it
    #[arg(long)]
    only: bool,
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
        print_notes(&report);
        let meant = self.meant(&report)?;
        let calls = if self.only { meant } else { family(&report, &meant) };
        let names: Vec<_> =
            calls.iter().map(|call| (Arc::clone(&call.call.call_id), call.call.began)).collect();
        let ids = names.iter().map(|(id, _)| Arc::clone(id));
        let (report, transcript) = offline::transcribe(&self.files, &options, ids)?;
        let find = |(id, began): &(Arc<str>, Nanos)| {
            report.calls.iter().find(|call| call.call.call_id == *id && call.call.began == *began)
        };
        let calls: Option<Vec<_>> = names.iter().map(find).collect();
        let calls = calls.context("the file changed between two readings")?;
        let ladder = Ladder::new(&report, &calls, &transcript);
        let mut out = io::stdout().lock();
        if self.json {
            json::document(&mut out, &ladder)?;
        } else {
            let is_plain = self.ascii || !page::is_utf8_locale(|name| std::env::var(name).ok());
            let charset = if is_plain { Charset::Ascii } else { Charset::Utf8 };
            out.write_all(ladder.render(charset).as_bytes()).context("cannot write the ladder")?;
        }
        out.flush()?;
        Ok(())
    }

    /// The call that is meant: the only one, the one of this very Call-ID, the only one that begins with it, or the only one
    /// with such a part in it. Several only if they bore one Call-ID.
    fn meant<'a>(&self, report: &'a Report) -> anyhow::Result<Vec<&'a CallWithStreams>> {
        let matching = |holds: &dyn Fn(&str) -> bool| -> Vec<&CallWithStreams> {
            report.calls.iter().filter(|call| holds(&call.call.call_id)).collect()
        };
        let by_id = |id: &str| {
            [
                matching(&|call_id| call_id == id),
                matching(&|call_id| call_id.starts_with(id)),
                matching(&|call_id| call_id.contains(id)),
            ]
            .into_iter()
            .find(|found| !found.is_empty())
            .unwrap_or_default()
        };
        let candidates = match self.call.as_deref() {
            None => matching(&|_| true),
            Some(id) => match (by_id(id), numbered(id)) {
                (found, Some((id, number))) if found.is_empty() => {
                    by_id(id).into_iter().skip(number - 1).take(1).collect()
                }
                (found, _) => found,
            },
        };
        let is_one_id = candidates.windows(2).all(|pair| match pair {
            [a, b] => a.call.call_id == b.call.call_id,
            _ => true,
        });
        match (candidates.as_slice(), &self.call) {
            ([], _) if report.calls.is_empty() => bail!("no calls: {}", calls::what_else(report)),
            ([], id) => {
                let id = id.as_deref().unwrap_or_default();
                bail!("no call has {id:?} in its Call-ID; there are {}", named(&matching(&|_| true)))
            }
            _ if is_one_id => Ok(candidates),
            (several, _) => bail!("which call? --call with one of {}", named(several)),
        }
    }
}

/// `ID#2` as the second of that Call-ID.
fn numbered(id: &str) -> Option<(&str, usize)> {
    let (id, number) = id.rsplit_once('#')?;
    Some((id, number.parse().ok().filter(|number| *number > 0)?))
}

/// Call-IDs with their parties, one a line.
fn named(calls: &[&CallWithStreams]) -> String {
    let mut names: Vec<_> = calls
        .iter()
        .take(NAMED)
        .map(|call| {
            let [id, from, to] =
                [&call.call.call_id, &call.call.from, &call.call.to].map(|text| words::printable(text));
            format!("\n  {id}  {from} → {to}  {}", call.call.state.word())
        })
        .collect();
    if calls.len() > NAMED {
        names.push(format!("\n  and {} more (voxprobe calls lists them)", calls.len() - NAMED));
    }
    names.concat()
}
