//! Capture files from end to end: frames in, report out.

use std::path::{Path, PathBuf};
use std::thread;

use crossbeam_channel::{Receiver as Events, bounded};
use probe_ebpf::classify::VERDICTS;
use probe_ebpf::{Config, MediaRule};
use thiserror::Error;

use super::receiver::Receiver;
use super::shard::{Event, Overflow, ShardStatus, Shards};
use super::table::Limits;
use crate::capture::file::{FileError, Frame, Frames, Progress};
use crate::decode::Decoder;
use crate::packet::Nanos;
use crate::report::contract::{self, CaptureReport, Report, StreamReport};
use crate::rtp::stream::StreamParts;
use crate::sip::{Signalling, signalling};

/// Events that may wait for the collector.
const EVENTS: usize = 1024;

/// Which UDP is media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtpRule {
    /// What SDP announced, from then on, as tshark does by default.
    Sdp,
    /// Announced, and what proves to be RTP by consecutive sequence numbers (RFC 3550, A.1).
    #[default]
    Auto,
    /// Whatever Wireshark's rtp_udp heuristic accepts.
    Any,
}

impl RtpRule {
    /// What the kernel, or the shared classifier, lets through for it.
    pub fn media_rule(self) -> MediaRule {
        match self {
            Self::Sdp => MediaRule::Announced,
            Self::Auto => MediaRule::Range,
            Self::Any => MediaRule::Anything,
        }
    }
}

/// How to analyse files.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which UDP is media.
    pub rtp: RtpRule,
    /// Ports; the media rule is taken from `rtp`.
    pub config: Config,
    /// Shards: threads besides the reader, if more than one.
    pub shards: usize,
    /// Streams held at once, all shards together.
    pub max_streams: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { rtp: RtpRule::Auto, config: Config::DEFAULT, shards: 1, max_streams: 1 << 17 }
    }
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum AnalyzeError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system refuses a thread.
    #[error("cannot start a thread; try --threads 1")]
    Thread(#[from] std::io::Error),
}

/// What the reader found besides what the receiver took.
#[derive(Default)]
struct Read {
    packets: u64,
    bytes: u64,
    first: Option<Nanos>,
    last: Nanos,
    verdicts: [u64; VERDICTS],
    notes: Vec<String>,
}

/// Analyses files as one capture, in the order given. `opened` is told of each file's progress.
///
/// # Errors
/// If a file cannot be read at all, or has no frame of a link type that is read. One that breaks off is reported on
/// as far as it goes, with a note.
pub fn analyze(
    paths: &[PathBuf],
    options: &Options,
    mut opened: impl FnMut(&Path, Progress),
) -> Result<Report, AnalyzeError> {
    let (sender, events) = bounded(EVENTS);
    let limits = Limits { streams: options.max_streams, idle: None };
    let shards = Shards::start(options.shards, limits, Overflow::Wait, &sender)?;
    let config = Config { media_rule: options.rtp.media_rule() as u8, ..options.config };
    let decoder = Decoder::new(config, true);
    // tshark never ends a conversation that SDP announced, and the raw ledger has to equal it.
    let signalling =
        Signalling::new(signalling::Limits { grace: Nanos(u64::MAX), ..signalling::Limits::default() });
    let mut receiver = Receiver::new(decoder, signalling, shards, (), sender);
    let collector = thread::Builder::new().name("vox-collect".to_owned()).spawn(move || collect(&events))?;

    let mut read = Read::default();
    for path in paths {
        // A file that fails to open ends it all, before anything was printed; the threads end with the channel.
        let mut frames = Frames::open(path)?;
        opened(path, frames.progress());
        let base = read.packets;
        while let Some(frame) = frames.next_frame() {
            read.count(&frame);
            let verdict = receiver.frame(&Frame { number: base + frame.number, ..frame });
            if let Some(count) = read.verdicts.get_mut(verdict as usize) {
                *count += 1;
            }
        }
        if let Some(number) = frames.unreadable() {
            return Err(FileError::LinkType { path: path.clone(), number }.into());
        }
        read.note_end(path, &frames);
    }
    let remains = receiver.finish();
    let collected = collector.join().unwrap_or_default();

    let account = {
        let mut sum = remains.account;
        sum.analysed += collected.status.analysed;
        sum
    };
    let mut notes = read.notes;
    if collected.status.evicted > 0 {
        notes.push(format!(
            "{} streams had to make room for others (--max-streams)",
            collected.status.evicted
        ));
    }
    let (valid, patterns): (Vec<_>, Vec<_>) =
        collected.streams.into_iter().partition(|stream| stream.valid || options.rtp == RtpRule::Any);
    if !patterns.is_empty() {
        notes.push(format!(
            "{} UDP flows looked like RTP but never had two consecutive sequence numbers (--rtp any lists them)",
            patterns.len()
        ));
    }
    let capture = CaptureReport {
        sources: paths.iter().map(|path| path.display().to_string()).collect(),
        packets: read.packets,
        bytes: read.bytes,
        duration_s: read.first.map_or(0.0, |first| read.last.since(first) as f64 / 1e9),
        matched: account.matched,
        analysed: account.analysed,
        losses: account.losses(),
        verdicts: contract::verdicts_by_name(&read.verdicts),
        notes,
    };
    Ok(Report::new(capture, StreamReport::list(valid, remains.first), remains.signalling))
}

#[derive(Default)]
struct Collected {
    streams: Vec<StreamParts>,
    status: ShardStatus,
}

fn collect(events: &Events<Event>) -> Collected {
    let mut collected = Collected::default();
    for event in events {
        match event {
            Event::Ended(stream, _) => collected.streams.push(*stream),
            Event::Finished(status) => {
                collected.status.analysed += status.analysed;
                collected.status.evicted += status.evicted;
            }
            Event::Interval(_) | Event::IntervalDone(_) | Event::Receiver(_) | Event::Call(_) => {}
        }
    }
    collected
}

impl Read {
    fn count(&mut self, frame: &Frame<'_>) {
        self.packets += 1;
        self.bytes += u64::from(frame.wire_len);
        self.first.get_or_insert(frame.time);
        self.last = self.last.max(frame.time);
    }

    fn note_end(&mut self, path: &Path, frames: &Frames) {
        if let Some(reason) = frames.cut_short() {
            self.notes.push(format!("{}: {reason}, after frame {}", path.display(), self.packets));
        }
        if frames.skipped() > 0 {
            self.notes.push(format!(
                "{}: {} frames of link types that are not read were skipped",
                path.display(),
                frames.skipped()
            ));
        }
    }
}
