//! What of a stream is left beside an orderly run: counts, what the run asks for now and then, and troubles if there were any.
//!
//! ```text
//!   second packet ─▶ Run + Rest ── out of the ordinary ─▶ Stream, 1.8 KiB ─▶ Run beside the Stream
//!                        ▲                                                        │
//!                        └──────────────────── five seconds later ────────────────┘
//! ```
//!
//! Most streams are in a run most of the time. What the run has taken along would lie idle in the stream, and most of what is
//! left says that nothing has happened: it is not kept, but written down again when the stream has to be whole. As that takes a
//! moment, a stream whose runs are short stays whole beside them, unless it is young and calm: then they only end because a counter is full.

use std::sync::Arc;

use super::{Clocks, Stream, StreamKey, Totals};
use crate::dedup::CopyStats;
use crate::dedup::window::{self, DupWindow};
use crate::packet::{Encapsulation, Nanos, RtpPacket};
use crate::rtp::codec::Announcement;
use crate::rtp::events::Events;
use crate::rtp::legs::Sketch;
use crate::rtp::quality::{self, Quality, Settings};
use crate::rtp::raw::{self, RawLedger};
use crate::rtp::run::Run;
use crate::rtp::sequence::{self, Sequence};

/// See the module.
#[derive(Clone, Debug)]
pub struct Rest {
    announcement: Arc<Announcement>,
    number: u64,
    first_seen: Nanos,
    /// Frames in the raw ledger, and its cycles.
    frames: u64,
    cycles: u32,
    /// Of the packets on its time line.
    clock_rate: u32,
    /// The first number.
    base: u64,
    quality: quality::Rest,
    /// Absent until an interval has closed.
    closed: Option<Box<Closed>>,
    troubles: Option<Box<Troubles>>,
    sketch: Sketch,
    standing: sequence::Standing,
    /// Numbers in the window of copies.
    unsettled: u8,
}

/// What the intervals that have closed leave.
#[derive(Clone, Debug, Default)]
struct Closed {
    totals: Totals,
    before: quality::Before,
}

/// What a stream that nothing has happened to has none of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Troubles {
    raw: raw::Faults,
    sequence: sequence::Past,
    /// The highest number, behind which the run began, where it is not as many above the first as there were frames.
    top: Option<u64>,
    window: window::Troubles,
    quality: quality::Troubles,
    /// Where they are not those of the raw ledger, all of the run's payload type.
    frames: Option<Frames>,
    encapsulation: Encapsulation,
    copies: CopyStats,
    old_copies: u64,
    conflicts: u64,
    too_old: u64,
    strays: u64,
    stray: Option<Box<RtpPacket>>,
    events: Events,
}

/// Frames, by payload type too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frames {
    all: u64,
    first_type: (u8, u64),
    other_types: Vec<(u8, u64)>,
}

impl Rest {
    /// Of a stream that was lent to `run`, by which it had a raw ledger.
    pub(super) fn new(stream: Stream, ledger: RawLedger, run: &Run) -> Self {
        let Stream {
            key: _,
            number,
            media: _,
            announcement,
            first_seen,
            last_seen: _,
            first_type,
            other_types,
            clocks: _,
            encapsulation,
            sequence,
            window,
            reference: _,
            frames,
            raw: _,
            quality,
            copies,
            old_copies,
            conflicts,
            too_old,
            strays,
            stray,
            hashed_fingerprints: _,
            interval_began_with,
            sketch,
            events,
        } = stream;
        let oldest = window.oldest();
        let (in_ledger, cycles, faults) = ledger.into_rest();
        let ([top, base], standing, past) = sequence.into_rest();
        let (unsettled, window) = window.into_rest();
        let stood = quality::Stood { oldest, unsettled, first_seen, packets: in_ledger };
        let quality::Parted { rest: quality, clock_rate, before, troubles: quality_troubles } =
            quality.into_rest(stood);
        let frames = Frames { all: frames, first_type, other_types };
        let troubles = Troubles {
            raw: faults,
            sequence: past,
            top: Some(top).filter(|top| *top != last_of(base, in_ledger)),
            window,
            quality: quality_troubles,
            frames: Some(frames).filter(|frames| *frames != Frames::of_one_type(run.payload_type, in_ledger)),
            encapsulation,
            copies,
            old_copies,
            conflicts,
            too_old,
            strays,
            stray,
            events,
        };
        Self {
            announcement,
            number,
            first_seen,
            frames: in_ledger,
            cycles,
            clock_rate,
            base,
            quality,
            closed: (interval_began_with != Totals::default() || before.iter().any(Option::is_some))
                .then(|| Box::new(Closed { totals: interval_began_with, before })),
            troubles: (troubles != Troubles::default()).then(|| Box::new(troubles)),
            sketch,
            standing,
            unsettled,
        }
    }

    /// The stream, whole again, which goes on where its run has come to.
    pub fn join(self, run: Run, key: StreamKey, settings: Arc<Settings>) -> Box<Stream> {
        let troubles = self.troubles.map_or_else(Troubles::default, |troubles| *troubles);
        let Closed { totals, before } = self.closed.map_or_else(Closed::default, |closed| *closed);
        let (payload_type, first_seen, unsettled) = (run.payload_type, self.first_seen, self.unsettled);
        let seq = troubles.top.unwrap_or_else(|| last_of(self.base, self.frames));
        let clocks = Clocks::of(payload_type, &self.announcement);
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let stood = (seq as u16, payload_type, clocks.wireshark.unwrap_or(0));
        let oldest = seq + 1 - u64::from(unsettled);
        let began = quality::Began {
            seq,
            payload_type,
            rate: self.clock_rate,
            stood: quality::Stood { oldest, unsettled, first_seen, packets: self.frames },
        };
        let Frames { all: frames, first_type, other_types } =
            troubles.frames.unwrap_or_else(|| Frames::of_one_type(payload_type, self.frames));
        let window = (unsettled, troubles.window);
        let quality = (self.quality, before, troubles.quality);
        let mut stream = Box::new(Stream {
            key,
            number: self.number,
            media: run.media,
            announcement: self.announcement,
            first_seen,
            last_seen: run.last_seen(),
            first_type,
            other_types,
            clocks,
            encapsulation: troubles.encapsulation,
            sequence: Sequence::of_rest([seq, self.base], self.standing, troubles.sequence),
            window: DupWindow::of_rest(window, seq, payload_type, run.tap, &run.slots),
            reference: None,
            frames,
            raw: Some(RawLedger::of_rest(
                (self.frames, self.cycles, troubles.raw),
                (run.numbers, run.raw),
                stood,
            )),
            quality: Quality::of_rest(quality, &run.quality, began, settings),
            copies: troubles.copies,
            old_copies: troubles.old_copies,
            conflicts: troubles.conflicts,
            too_old: troubles.too_old,
            strays: troubles.strays,
            stray: troubles.stray,
            hashed_fingerprints: run.hashed,
            interval_began_with: totals,
            sketch: self.sketch,
            events: troubles.events,
        });
        stream.take_back(run);
        stream
    }

    /// Does what the run asks for before it takes `packet`.
    pub fn serve(&mut self, run: &mut Run, packet: &RtpPacket) {
        run.turn(packet.time, |running| self.quality.turn(running, packet.time));
        self.sketch.observe(packet);
        run.set_sketch(self.sketch.most());
    }

    /// Encapsulation of the first frame.
    pub fn encapsulation(&self) -> Encapsulation {
        self.troubles.as_ref().map_or(Encapsulation::NONE, |troubles| troubles.encapsulation)
    }

    /// Has nothing happened to it yet?
    #[cfg(test)]
    pub(crate) fn has_no_troubles(&self) -> bool {
        self.troubles.is_none()
    }

    /// As [`Stream::is_valid`].
    pub fn is_valid(&self, run: &Run) -> bool {
        run.media != crate::packet::MediaId::UNANNOUNCED
            || self.standing.is_valid()
            || run.raw.packets() > self.frames
    }
}

/// The number of the last of so many packets, none of which was lost or came twice.
fn last_of(base: u64, packets: u64) -> u64 {
    (base + packets).saturating_sub(1)
}

impl Frames {
    fn of_one_type(payload_type: u8, all: u64) -> Self {
        Self { all, first_type: (payload_type, all), other_types: Vec::new() }
    }
}
