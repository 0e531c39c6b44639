//! Several threads over one capture. Each looks at every frame, and analyses the streams that are its own.
//!
//! ```text
//!   file ─▶ feeder ─┬─▶ worker 0: decode, signalling ─▶ an own flow? ─▶ shard 0    and calls, RTCP, account, verdicts
//!        one block, │                                        └─no─▶ counted
//!         lent to   └─▶ worker 1: decode, signalling ─▶ an own flow? ─▶ shard 1
//!          each
//! ```
//!
//! No queue of packets and no hand-over: to find out whose a packet is costs about as much as to give it away. So order
//! and frame numbers are the capture's, and every worker knows, at each packet, what the signalling has said up to
//! there. What is not media is done by each alike, and what it comes to is taken from the first: SIP is rare.
//! One thread and many give the same report. docs/decisions/0018 has the figures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use probe_ebpf::Config;
use probe_ebpf::classify::VERDICTS;

use super::batch::Share;
use super::offline::{AnalyzeError, Asked, Options, RtpRule};
use super::receiver::{Receiver, Remains};
use super::shard::{Event, Overflow, Shards};
use super::table::Limits;
use crate::capture::file::{FileError, Frame, Frames, Progress};
use crate::decode::Decoder;
use crate::packet::Nanos;
use crate::sip::{Signalling, signalling};

/// Threads beyond which there is nothing to win: each walks all frames, and that alone is a third of the work of one.
pub const MAX_WORKERS: usize = 16;
/// Said of a file that begins before the one before it ended.
const OVERLAP: &str = "begins before the files before it end; merge them by time first (mergecap), else copies between \
                       them are not recognised";

/// What was read, besides what the receiver took.
#[derive(Default)]
pub(super) struct Read {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) first: Option<Nanos>,
    pub(super) last: Nanos,
    pub(super) verdicts: [u64; VERDICTS],
    pub(super) notes: Vec<String>,
}

/// One thread's part.
pub(super) struct Worker {
    receiver: Receiver<()>,
    read: Read,
}

/// A worker on a thread of its own, which is sent each file to read.
pub(super) struct Helper {
    files: Sender<(PathBuf, Frames)>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// The one whose account, calls and notes are the report's.
    pub(super) fn first(
        options: &Options,
        of: usize,
        asked: Asked,
        events: &Sender<Event>,
    ) -> Result<Self, AnalyzeError> {
        let Self { receiver, read } = Self::new(options, Share { index: 0, of }, events)?;
        let receiver = match asked {
            Asked::Report => receiver,
            Asked::Classes => receiver.classifying(),
            Asked::Transcript(transcript) => receiver.transcribing(transcript),
        };
        Ok(Self { receiver, read })
    }

    fn new(options: &Options, share: Share, events: &Sender<Event>) -> Result<Self, AnalyzeError> {
        let streams = (options.max_streams / share.of).max(1);
        let limits = Limits { streams, idle: None, quality: Arc::clone(&options.quality) };
        let shards = Shards::start(1, limits, Overflow::Wait, events)?;
        let config = Config { media_rule: options.rtp.media_rule() as u8, ..options.config };
        let decoder = Decoder::new(config, true);
        // tshark never ends a conversation that SDP announced, and the raw ledger has to equal it.
        let signalling = Signalling::new(signalling::Limits {
            grace: Nanos(u64::MAX),
            literal: options.rtp == RtpRule::Sdp,
            leg_headers: options.leg_headers.clone(),
            ..signalling::Limits::default()
        });
        let receiver = Receiver::new(decoder, signalling, shards, (), events.clone()).sharing(share);
        Ok(Self { receiver, read: Read::default() })
    }

    /// Takes all frames of a file.
    fn take(&mut self, path: &Path, frames: &mut Frames) {
        let Self { receiver, read } = self;
        let base = read.packets;
        let before = read.first.map(|_| read.last);
        while let Some(frame) = frames.next_frame() {
            if frame.number == 1 && before.is_some_and(|before| frame.time < before) {
                read.notes.push(format!("{}: {OVERLAP}", path.display()));
            }
            read.count(&frame);
            let verdict = receiver.frame(&Frame { number: base + frame.number, ..frame });
            if let Some(count) = read.verdicts.get_mut(verdict as usize) {
                *count += 1;
            }
        }
        receiver.flush();
    }
}

/// Starts all workers but the first.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start(
    options: &Options,
    of: usize,
    events: &Sender<Event>,
) -> Result<Vec<Helper>, AnalyzeError> {
    let helper = |index| {
        let mut worker = Worker::new(options, Share { index, of }, events)?;
        let (files, to_read) = bounded::<(PathBuf, Frames)>(1);
        let thread = thread::Builder::new().name(format!("vox-worker-{index}")).spawn(move || {
            for (path, mut frames) in &to_read {
                worker.take(&path, &mut frames);
            }
            worker.receiver.finish();
        })?;
        Ok(Helper { files, thread })
    };
    (1..of).map(helper).collect()
}

/// Reads all files with all workers, and what the first has found then. `opened` is told of each file's progress.
///
/// # Errors
/// If a file cannot be read, or a worker died.
pub(super) fn run(
    paths: &[PathBuf],
    mut first: Worker,
    helpers: Vec<Helper>,
    opened: &mut impl FnMut(&Path, Progress),
) -> Result<(Read, Remains), AnalyzeError> {
    for path in paths {
        // A file that fails to open ends it all, before anything was printed; the threads end with their channels.
        let mut readers = Frames::open_for(path, helpers.len() + 1)?.into_iter();
        let Some(mut frames) = readers.next() else { continue };
        opened(path, frames.progress());
        for (helper, frames) in helpers.iter().zip(readers) {
            helper.files.send((path.clone(), frames)).map_err(|_| AnalyzeError::Failed)?;
        }
        let base = first.read.packets;
        first.take(path, &mut frames);
        if let Some(number) = frames.unreadable() {
            return Err(FileError::LinkType { path: path.clone(), number }.into());
        }
        if let Some(reason) = frames.cut_short().filter(|_| first.read.packets == base) {
            return Err(FileError::NoFrame { path: path.clone(), reason }.into());
        }
        first.read.note_end(path, &frames);
    }
    let remains = first.receiver.finish();
    let threads: Vec<_> = helpers.into_iter().map(|helper| helper.thread).collect();
    for thread in threads {
        // The panic itself has been printed by its thread.
        thread.join().map_err(|_| AnalyzeError::Failed)?;
    }
    Ok((first.read, remains))
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
