//! `voxprobe calls`: the calls of capture files, one line each.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anstream::AutoStream;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use voxprobe::pipeline::offline::{self, Options};
use voxprobe::report::call_select::{CallFilter, Order, State};
use voxprobe::report::calls::{self, Style};
use voxprobe::report::contract::Report;
use voxprobe::report::{json, page, words};

use super::{Filter, print_notes};

/// List the calls of capture files: how each was set up and ended, its worst stream, and what deserves a look
///
/// PDD is the post-dial delay (INVITE to ringing), setup INVITE to answer, talk answer to BYE; copies are frames captured
/// again, "again" messages that a timer repeated; lost%, p99 (jitter in ms) and MOS are those of the stream that sounds
/// worst. What is said in a call shows `voxprobe flow FILE --call ID`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Calls {
    /// Capture files, read as one capture in the order given; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only calls in this state (ended, failed, cancelled, …), or refused with this status
    #[arg(long, value_name = "STATE|STATUS")]
    state: Option<State>,
    /// Only calls whose caller's URI has this in it
    #[arg(long, value_name = "TEXT")]
    from: Option<String>,
    /// Only calls whose called's URI has this in it
    #[arg(long, value_name = "TEXT")]
    to: Option<String>,
    /// Only calls whose Call-ID has this in it
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// Only calls with something that deserves a look
    #[arg(long)]
    problems: bool,
    /// In which order: as they began, or the worst, longest or most first
    #[arg(long, value_enum, default_value_t = Sort::Begin)]
    sort: Sort,
    /// One line a call, and nothing below it
    #[arg(long, conflicts_with = "json")]
    brief: bool,
    /// Print a JSON list: the `calls` of `voxprobe analyze --json`, each with its `streams` in full
    #[arg(long)]
    json: bool,
    /// Print ASCII alone, as is done in a locale without UTF-8
    #[arg(long, conflicts_with = "json")]
    ascii: bool,
    #[command(flatten)]
    filter: Filter,
}

/// Values of --sort.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    /// As they began
    Begin,
    /// Loss of the worst stream
    Loss,
    /// Jitter of the worst stream
    Jitter,
    /// Score of the worst stream
    Mos,
    /// INVITE to answer
    Setup,
    /// Answer to BYE
    Talk,
    /// Messages
    Messages,
}

impl Sort {
    fn order(self) -> Order {
        match self {
            Self::Begin => Order::Begin,
            Self::Loss => Order::Loss,
            Self::Jitter => Order::Jitter,
            Self::Mos => Order::Mos,
            Self::Setup => Order::Setup,
            Self::Talk => Order::Talk,
            Self::Messages => Order::Messages,
        }
    }
}

impl Calls {
    /// Reads, and lists.
    pub(crate) fn execute(&self) -> anyhow::Result<()> {
        let options = Options {
            rtp: self.filter.rule(),
            config: self.filter.config()?,
            leg_headers: self.filter.leg_headers(),
            ..Options::default()
        };
        let mut report = offline::analyze(&self.files, &options, |_, _| ())?;
        print_notes(&report);
        let (count, states) = (report.calls.len() as u64, calls::by_state(&report));
        let filter = CallFilter {
            state: self.state.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            call: self.call.clone(),
            has_problems: self.problems,
        };
        filter.apply(&mut report, self.sort.order());
        if self.json {
            return print_json(&report).context("cannot write the list");
        }
        let text = match (report.calls.len(), count) {
            (0, 0) => format!("no calls: {}\n", calls::what_else(&report)),
            (0, _) => format!(
                "none of {} is one of {}: they are {states}\n",
                words::count(count, "call"),
                filter.describe()
            ),
            _ => {
                let style = Style { width: page::terminal_width(), is_styled: true, is_brief: self.brief };
                calls::render(&report, style)
            }
        };
        self.print(&text).context("cannot write the list")
    }

    fn print(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let is_ascii = self.ascii || !page::is_utf8_locale(|name| std::env::var(name).ok());
        let text = if is_ascii { page::ascii(text) } else { text.to_owned() };
        let choice = AutoStream::choice(&io::stdout());
        AutoStream::new(&mut out as &mut dyn Write, choice).write_all(text.as_bytes())?;
        out.flush()
    }
}

fn print_json(report: &Report) -> io::Result<()> {
    // Buffered in large: standard output is written line by line, and there is a line for each figure.
    let mut out = BufWriter::new(io::stdout().lock());
    json::document(&mut out, &calls::InFull(report))?;
    out.flush()
}
