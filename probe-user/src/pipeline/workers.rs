//! Several threads over one capture file.
//!
//! ```text
//!   read a stretch ─▶ decode its plain RTP ─▶ settle: signalling, tunnels, lines ─▶ analyse ─▶ one shard a worker
//!   one at a time     all at once             one at a time, in order              all at once
//! ```
//!
//! Each worker does whatever is to be done (`schedule`), and only it touches its shard. What is done one at a time
//! is little, and is done once, however many workers there are. So order and frame numbers are the capture's, and a packet
//! has the line that the signalling had announced up to there. One thread and many take the same way, and give the same
//! report. docs/decisions/0019 has the figures.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use crossbeam_channel::Sender;
use probe_ebpf::Config;
use probe_ebpf::classify::VERDICTS;

use super::offline::{AnalyzeError, Asked, Options, RtpRule};
use super::receiver::{Receiver, Remains};
use super::schedule::{Alarm, Job, Schedule};
use super::shard::{Event, Overflow, Shard, Shards};
use super::stretch::{Lanes, Stretch, Totals};
use super::table::Limits;
use crate::capture::file::{FileError, Frame, Frames, Progress};
use crate::decode::{Decoder, Plain, Predictor};
use crate::packet::Nanos;
use crate::sip::{Signalling, signalling};

/// Threads beyond which there is nothing to win: to read, one at a time, is a quarter of the work of one.
pub const MAX_WORKERS: usize = 16;
/// Said of a file that begins before the one before it ended.
const OVERLAP: &str = "begins before the files before it end; merge them by time first (mergecap), else copies between \
                       them are not recognised";

/// What was read, besides what the receiver took.
#[derive(Default)]
pub(super) struct Read {
    pub(super) totals: Totals,
    pub(super) verdicts: [u64; VERDICTS],
    pub(super) notes: Vec<String>,
}

/// Who reads the files.
pub(super) enum Reading {
    /// One thread, frame by frame, because the answer has to be there with the frame.
    Frames(Box<Receiver<(), Shards>>),
    /// Workers.
    Stretches(Box<Crew>),
}

/// Workers, and what they share.
pub(super) struct Crew {
    plain: Plain,
    /// How many flows are remembered: by the receiver, and by each worker.
    flows: usize,
    receiver: Receiver<(), Lanes>,
    /// One for each worker.
    shards: Vec<Shard>,
    /// Empty ones.
    stretches: Vec<Stretch>,
}

impl Reading {
    pub(super) fn new(options: &Options, asked: Asked, events: &Sender<Event>) -> Result<Self, AnalyzeError> {
        let (workers, flows) = (options.workers(), options.max_streams);
        let limits = Limits {
            streams: (options.max_streams / workers).max(1),
            idle: None,
            quality: Arc::clone(&options.quality),
        };
        let config = Config { media_rule: options.rtp.media_rule() as u8, ..options.config };
        let decoder = Decoder::new(config, true);
        // tshark never ends a conversation that SDP announced, and the raw ledger has to equal it.
        let mut signalling = Signalling::new(signalling::Limits {
            grace: Nanos(u64::MAX),
            literal: options.rtp == RtpRule::Sdp,
            leg_headers: options.leg_headers.clone(),
            ..signalling::Limits::default()
        });
        match asked {
            Asked::Classes => {
                let shards = Shards::start(1, limits, Overflow::Wait, events)?;
                let receiver = Receiver::new(decoder, signalling, shards, (), events.clone(), flows);
                return Ok(Self::Frames(Box::new(receiver.classifying())));
            }
            Asked::Transcript(transcript) => signalling = signalling.transcribing(transcript),
            Asked::Report => {}
        }
        let shard = |index| Shard::new(index, limits.clone(), Overflow::Wait, events.clone());
        let plain = decoder.plain();
        let receiver = Receiver::new(decoder, signalling, Lanes::default(), (), events.clone(), flows);
        let shards = (0..workers).map(shard).collect();
        // Each worker can go on while what it has decoded waits for its turn.
        let stretches = (0..2 * workers).map(|_| Stretch::new(workers)).collect();
        Ok(Self::Stretches(Box::new(Crew { plain, flows, receiver, shards, stretches })))
    }

    /// Reads all files, and what was found then. `opened` is told of each file's progress.
    ///
    /// # Errors
    /// If a file cannot be read, or a worker died.
    pub(super) fn run(
        mut self,
        paths: &[PathBuf],
        opened: &mut impl FnMut(&Path, Progress),
    ) -> Result<(Read, Remains), AnalyzeError> {
        let mut read = Read::default();
        for path in paths {
            // A file that fails to open ends it all, before anything was printed.
            let mut frames = Frames::open(path)?;
            opened(path, frames.progress());
            let before = read.totals.packets;
            let file = match &mut self {
                Self::Frames(receiver) => by_frames(receiver, &mut frames, before, &mut read.verdicts),
                Self::Stretches(crew) => crew.take(&mut frames, before, &mut read.verdicts)?,
            };
            if let Some(number) = frames.unreadable() {
                return Err(FileError::LinkType { path: path.clone(), number }.into());
            }
            if let Some(reason) = frames.cut_short().filter(|_| file.packets == 0) {
                return Err(FileError::NoFrame { path: path.clone(), reason }.into());
            }
            read.end_file(path, &file, &frames);
        }
        let remains = match self {
            Self::Frames(receiver) => receiver.finish(),
            Self::Stretches(crew) => crew.finish()?,
        };
        Ok((read, remains))
    }
}

/// Takes all frames of a file, which come after so many.
fn by_frames(
    receiver: &mut Receiver<(), Shards>,
    frames: &mut Frames,
    before: u64,
    verdicts: &mut [u64; VERDICTS],
) -> Totals {
    let mut totals = Totals::default();
    while let Some(frame) = frames.next_frame() {
        totals.count(frame.time, frame.wire_len);
        verdicts[receiver.frame(&Frame { number: before + frame.number, ..frame }) as usize] += 1;
    }
    totals
}

/// Where stretches come from.
struct Reader<'a> {
    frames: &'a mut Frames,
    /// Frames of the files before.
    before: u64,
}

/// Where they are settled.
struct Desk<'a> {
    receiver: &'a mut Receiver<(), Lanes>,
    totals: &'a mut Totals,
    verdicts: &'a mut [u64; VERDICTS],
}

impl Crew {
    /// Takes all frames of a file, which come after so many. The calling thread is the first worker.
    fn take(
        &mut self,
        frames: &mut Frames,
        before: u64,
        verdicts: &mut [u64; VERDICTS],
    ) -> Result<Totals, AnalyzeError> {
        let Self { plain, flows, receiver, shards, stretches } = self;
        let mut totals = Totals::default();
        let desk = Desk { receiver, totals: &mut totals, verdicts };
        let schedule =
            Schedule::new(Reader { frames, before }, desk, shards.len(), std::mem::take(stretches));
        thread::scope(|scope| {
            let mut shards = (0..).zip(shards.iter_mut());
            let first = shards.next();
            let mut threads = Vec::new();
            for (worker, shard) in shards {
                let (schedule, predictor) = (&schedule, Predictor::new(*plain, *flows));
                let builder = thread::Builder::new().name(format!("vox-worker-{worker}"));
                let thread = builder.spawn_scoped(scope, move || work(schedule, worker, shard, predictor));
                threads.push(thread.inspect_err(|_| schedule.fail())?);
            }
            if let Some((worker, shard)) = first {
                work(&schedule, worker, shard, Predictor::new(*plain, *flows));
            }
            // The panic itself has been printed by its thread.
            threads.into_iter().try_for_each(ScopedJoinHandle::join).map_err(|_| AnalyzeError::Failed)
        })?;
        *stretches = schedule.into_stretches();
        Ok(totals)
    }

    /// Ends all streams, each shard's on a thread of its own.
    fn finish(self) -> Result<Remains, AnalyzeError> {
        let Self { receiver, mut shards, .. } = self;
        let remains = receiver.finish();
        thread::scope(|scope| {
            let finish = |shard| {
                let builder = thread::Builder::new().name("vox-finish".to_owned());
                builder.spawn_scoped(scope, || Shard::finish(shard))
            };
            let threads: Vec<_> = shards.iter_mut().map(finish).collect::<Result<_, _>>()?;
            threads.into_iter().try_for_each(ScopedJoinHandle::join).map_err(|_| AnalyzeError::Failed)
        })?;
        Ok(remains)
    }
}

/// One worker's work, to the end of the file.
fn work(
    schedule: &Schedule<Reader<'_>, Desk<'_>>,
    worker: usize,
    shard: &mut Shard,
    mut predictor: Predictor,
) {
    let _alarm = Alarm(schedule);
    let mut merged = Vec::new();
    while let Some(job) = schedule.next(worker) {
        match job {
            Job::Read(reader, mut stretch) => {
                if !reader.frames.fill(&mut stretch.frames) {
                    schedule.is_over(reader, worker, stretch);
                    continue;
                }
                stretch.frames.count_from(reader.before);
                let number = schedule.has_read(reader);
                stretch.decode(&mut predictor);
                schedule.has_decoded(number, worker, stretch);
            }
            Job::Settle(desk, home, mut stretch) => {
                let Desk { receiver, totals, verdicts } = desk;
                totals.add(&stretch.totals);
                receiver.stretch(&mut stretch, verdicts);
                schedule.has_settled(Desk { receiver, totals, verdicts }, home, stretch);
            }
            Job::Analyse(mut lane) => {
                lane.hand_over(shard, &mut merged);
                schedule.has_analysed(lane);
            }
        }
    }
}

impl Read {
    fn end_file(&mut self, path: &Path, file: &Totals, frames: &Frames) {
        let Self { totals, notes, .. } = self;
        if totals.first.is_some() && file.first.is_some_and(|first| first < totals.last) {
            notes.push(format!("{}: {OVERLAP}", path.display()));
        }
        totals.add(file);
        if let Some(reason) = frames.cut_short() {
            notes.push(format!("{}: {reason}, after frame {}", path.display(), totals.packets));
        }
        if frames.skipped() > 0 {
            notes.push(format!(
                "{}: {} frames of link types that are not read were skipped",
                path.display(),
                frames.skipped()
            ));
        }
    }
}
