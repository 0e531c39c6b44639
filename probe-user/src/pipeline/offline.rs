//! Capture files from end to end: frames in, report out.
//!
//! What several threads do with them: [`super::workers`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::bounded;
use probe_ebpf::{Config, MediaRule};
use thiserror::Error;

use super::receiver::Remains;
use super::shard::{Event, ShardStatus};
use super::stretch::Totals;
use super::table::End;
use super::workers::{MAX_WORKERS, Read, Reading};
use crate::capture::file::{FileError, Progress};
use crate::dedup::{Classes, FrameClass};
use crate::packet::Nanos;
use crate::report::contract::{self, CaptureReport, Report, StreamReport, TunnelReport};
use crate::report::joins;
use crate::rtp::quality::Settings;
use crate::rtp::raw::Compat;
use crate::rtp::stream::StreamParts;
use crate::sip::{LegHeaders, Transcript};

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
#[derive(Clone, Debug)]
pub struct Options {
    /// Which UDP is media.
    pub rtp: RtpRule,
    /// Whose figures the raw ledgers equal.
    pub compat: Compat,
    /// Ports; the media rule is taken from `rtp`.
    pub config: Config,
    /// Threads. More than [`MAX_WORKERS`] are not started.
    pub threads: usize,
    /// Streams held at once, all shards together.
    pub max_streams: usize,
    /// How quality is judged.
    pub quality: Arc<Settings>,
    /// Headers that name the other leg of a call.
    pub leg_headers: LegHeaders,
}

impl Options {
    /// How many threads are started.
    pub(super) fn workers(&self) -> usize {
        self.threads.clamp(1, MAX_WORKERS)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rtp: RtpRule::Auto,
            compat: Compat::Wireshark40,
            config: Config::DEFAULT,
            threads: 1,
            max_streams: 1 << 17,
            quality: Arc::default(),
            leg_headers: LegHeaders::default(),
        }
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
    /// A thread died, and what it held with it.
    #[error(
        "a thread of the analysis failed: its streams are gone, so there is no report; what it said is above"
    )]
    Failed,
}

/// Analyses files as one capture, in the order given. `opened` is told of each file's progress.
///
/// # Errors
/// If a file cannot be read at all, or has no frame of a link type that is read. One that breaks off is reported on
/// as far as it goes, with a note.
pub fn analyze(
    paths: &[PathBuf],
    options: &Options,
    opened: impl FnMut(&Path, Progress),
) -> Result<Report, AnalyzeError> {
    read(paths, options, opened, Asked::Report).map(|(report, _)| report)
}

/// What each frame of the files is, in their order: a copy of which and why, a retransmission by which timer, new.
/// One thread does it, whatever the options say: the answer has to be there with the frame.
///
/// # Errors
/// As [`analyze`].
pub fn classify(paths: &[PathBuf], options: &Options) -> Result<Vec<FrameClass>, AnalyzeError> {
    let (report, classes) = analyze_and_classify(paths, options, |_, _| ())?;
    Ok(classes.into_list(report.capture.packets))
}

/// Both at once: the report, and what each frame is.
///
/// # Errors
/// As [`analyze`].
pub fn analyze_and_classify(
    paths: &[PathBuf],
    options: &Options,
    opened: impl FnMut(&Path, Progress),
) -> Result<(Report, Classes), AnalyzeError> {
    let (report, remains) = read(paths, &Options { threads: 1, ..options.clone() }, opened, Asked::Classes)?;
    Ok((report, remains.classes.unwrap_or_default()))
}

/// Reads the files once more for what is said in `calls`: message by message, with the report.
///
/// # Errors
/// As [`analyze`].
pub fn transcribe(
    paths: &[PathBuf],
    options: &Options,
    calls: impl IntoIterator<Item = Arc<str>>,
) -> Result<(Report, Transcript), AnalyzeError> {
    let asked = Asked::Transcript(Transcript::of(calls));
    let (report, remains) = read(paths, options, |_, _| (), asked)?;
    let mut transcript = remains.transcript.unwrap_or_else(|| Transcript::of([]));
    transcript.set_epoch(remains.first.unwrap_or_default());
    Ok((report, transcript))
}

/// What a reading of files is for, besides the report.
pub(super) enum Asked {
    Report,
    Classes,
    Transcript(Transcript),
}

fn read(
    paths: &[PathBuf],
    options: &Options,
    mut opened: impl FnMut(&Path, Progress),
    asked: Asked,
) -> Result<(Report, Remains), AnalyzeError> {
    let (sender, events) = bounded(EVENTS);
    let collector = thread::Builder::new().name("vox-collect".to_owned()).spawn({
        let mut collected = Collected::new(options);
        move || {
            events.iter().for_each(|event| collected.take(event));
            collected
        }
    })?;
    let reading = Reading::new(options, asked, &sender)?;
    drop(sender);
    let (read, mut remains) = reading.run(paths, &mut opened)?;
    let collected = collector.join().map_err(|_| AnalyzeError::Failed)?;
    if collected.finished < options.workers() {
        return Err(AnalyzeError::Failed);
    }

    let account = {
        let mut sum = remains.account;
        sum.analysed += collected.status.analysed;
        sum
    };
    let Read { mut notes, totals: Totals { packets, bytes, first, last, times }, verdicts } = read;
    notes.extend(collected.notes());
    let capture = CaptureReport {
        sources: paths.iter().map(|path| path.display().to_string()).collect(),
        packets,
        bytes,
        duration_s: first.map_or(0.0, |first| last.since(first) as f64 / 1e9),
        times,
        matched: account.matched,
        unpacked: account.unpacked,
        tunnels: TunnelReport::of(&remains),
        remote_captures: remains.remote_captures.clone(),
        analysed: account.analysed,
        losses: account.losses(),
        verdicts: contract::verdicts_by_name(&verdicts),
        notes,
        ..CaptureReport::default()
    };
    let mut streams = reports(collected.streams, remains.first, options.workers())?;
    let capture = CaptureReport { beside: joins::join(&mut streams, &remains.beside), ..capture };
    let mut report = Report::new(capture, streams, std::mem::take(&mut remains.signalling));
    report.generator.compat = options.compat.name();
    Ok((report, remains))
}

/// The reports of streams, in order of appearance. To compress a stream's histograms takes as long as to analyse some hundred
/// packets, so several threads do it.
fn reports(
    mut streams: Vec<StreamParts>,
    first: Option<Nanos>,
    threads: usize,
) -> Result<Vec<StreamReport>, AnalyzeError> {
    if threads == 1 {
        // Where they are: parts of them are copies.
        return Ok(StreamReport::list(streams, first));
    }
    streams.sort_by_key(|stream| (stream.number, stream.key));
    let part = streams.len().div_ceil(threads);
    let mut streams = streams.into_iter();
    thread::scope(|scope| {
        let report = |_| {
            let part: Vec<_> = streams.by_ref().take(part).collect();
            let builder = thread::Builder::new().name("vox-report".to_owned());
            builder.spawn_scoped(scope, move || StreamReport::list(part, first))
        };
        let threads: Vec<_> = (0..threads).map(report).collect::<Result<_, _>>()?;
        let mut reports = Vec::new();
        for thread in threads {
            reports.extend(thread.join().map_err(|_| AnalyzeError::Failed)?);
        }
        Ok(reports)
    })
}

/// What the shards hand out, bounded: a flood of SSRCs makes a stream of every packet.
struct Collected {
    streams: Vec<StreamParts>,
    /// List what only looks like RTP, too.
    keep_patterns: bool,
    /// How many evicted streams may be kept, besides as many that are still there at the end.
    room: usize,
    /// Streams that never proved to be RTP.
    patterns: u64,
    /// Evicted streams for which there was no room.
    left_out: u64,
    /// Shards that came to their end.
    finished: usize,
    status: ShardStatus,
}

impl Collected {
    fn new(options: &Options) -> Self {
        Self {
            streams: Vec::new(),
            keep_patterns: options.rtp == RtpRule::Any,
            room: options.max_streams,
            patterns: 0,
            left_out: 0,
            finished: 0,
            status: ShardStatus::default(),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Ended(stream, _) if !stream.valid && !self.keep_patterns => self.patterns += 1,
            Event::Ended(_, End::Evicted) if self.room == 0 => self.left_out += 1,
            Event::Ended(stream, end) => {
                self.room -= usize::from(end == End::Evicted);
                self.streams.push(*stream);
            }
            Event::Finished(status) => {
                self.finished += 1;
                self.status.analysed += status.analysed;
                self.status.evicted += status.evicted;
                self.status.events_dropped += status.events_dropped;
            }
            Event::Interval(_)
            | Event::RoundDone(_)
            | Event::Receiver(_)
            | Event::Call(_)
            | Event::Carrier(_)
            | Event::Reports(_) => {}
        }
    }

    fn notes(&self) -> Vec<String> {
        let said = [
            (self.status.evicted, "stream", "had to make room for others (--max-streams)"),
            (self.left_out, "stream", "that made room cannot be listed: there was no room for that either"),
            (self.status.events_dropped, "stream", "got lost between threads and cannot be listed"),
            (
                self.patterns,
                "UDP flow",
                "looked like RTP but never had two consecutive sequence numbers (--rtp any lists them)",
            ),
        ];
        said.into_iter()
            .filter(|(count, ..)| *count > 0)
            .map(|(count, noun, what)| format!("{count} {noun}{} {what}", if count == 1 { "" } else { "s" }))
            .collect()
    }
}
