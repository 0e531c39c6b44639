//! Between a stream and the run that it is lent to: when one may begin, and how the stream goes on behind it.

use super::{Clocks, Rest, Stream};
use crate::dedup::Tail;
use crate::packet::{Nanos, RtpPacket};
use crate::rtp::raw::{self, RawLedger};
use crate::rtp::run::{Parts, Run};

/// Packets of a run that is long: five seconds at 20 ms, half of a usual interval. Of a stream that loses one packet of a
/// hundred, one run of thirteen is as long.
const LONG_RUN: u64 = 256;

impl Stream {
    /// Begins a run behind `packet`, which was observed last, if it and the stream are as ordinary as one must be.
    pub fn lend(&mut self, packet: &RtpPacket) -> Option<Run> {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let newest = self.window.top() as u16;
        let is_ordinary = packet.tap_time == packet.time
            && self.last_seen == packet.time
            && self.media == packet.media
            && self.clocks.payload_type == packet.rtp.payload_type
            && packet.rtp.seq == newest
            && self.window.tap() == 0
            && packet.evidence.encapsulation.is_opened_by_tshark();
        if is_ordinary { self.lend_again() } else { None }
    }

    /// The same of a stream that nothing has come to since its last run.
    pub fn lend_again(&mut self) -> Option<Run> {
        let Clocks { payload_type, is_event, timed, wireshark } = self.clocks;
        if is_event || self.reference.is_some() {
            return None;
        }
        let top = self.sequence.lend().filter(|seq| *seq == self.window.top())?;
        #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
        let seq = top as u16;
        let rate = wireshark?;
        let (numbers, raw) = self.raw.as_ref()?.lend(seq, payload_type, rate)?;
        let ticks_per_ms = u8::try_from(raw::ticks_per_ms(rate)).ok()?;
        let tap = self.window.only_tap()?;
        let quality = self.quality.lend(top, self.last_seen, payload_type, timed)?;
        let (slots, room) = self.window.lend();
        Some(Run::new(Parts {
            seq,
            payload_type,
            media: self.media,
            tap,
            slots,
            room,
            numbers,
            raw,
            ticks_per_ms,
            quality,
            sketch_most: self.sketch.most(),
            hashed: self.hashed_fingerprints,
        }))
    }

    /// Does what a run asks for before it takes `packet`.
    pub fn serve(&mut self, run: &mut Run, packet: &RtpPacket) {
        run.turn(packet.time, |quality| self.quality.turn(quality, packet.time));
        self.sketch.observe(packet);
        run.set_sketch(self.sketch.most());
    }

    /// Has it shown few packets, and none of them lost, out of order or late? Then only a counter that is full ends its
    /// runs, and it rests at once.
    pub fn is_young_and_calm(&self) -> bool {
        let is_marked = self.raw.as_ref().is_none_or(RawLedger::is_marked);
        self.frames < LONG_RUN && !is_marked && self.quality.is_calm()
    }

    /// Has its run lasted for long?
    pub fn is_at_rest(&self, run: &Run) -> bool {
        self.packets_of(run) >= LONG_RUN
    }

    /// Packets that its run has taken.
    fn packets_of(&self, run: &Run) -> u64 {
        self.raw.as_ref().map_or(0, |ledger| ledger.packets_until(&run.raw))
    }

    /// As [`Stream::is_valid`], of a stream that was lent to a run.
    pub fn is_valid_with(&self, run: &Run) -> bool {
        self.is_valid() || self.packets_of(run) > 0
    }

    /// What has to be kept of it beside the run that it was lent to; nothing of a stream that has no raw ledger, as it has no
    /// run.
    pub fn into_rest(mut self: Box<Self>, run: &Run) -> Option<Rest> {
        let ledger = self.raw.take()?;
        Some(Rest::new(*self, ledger, run))
    }

    /// Goes on where a run has come to.
    pub fn take_back(&mut self, mut run: Run) {
        let packets = self.packets_of(&run);
        let last = (run.quality.time(), run.quality.timestamp());
        self.place_run(&mut run.slots, packets, last);
        let Run { raw, quality, .. } = run;
        self.last_seen = quality.time();
        if let Some(ledger) = &mut self.raw {
            #[expect(clippy::cast_possible_truncation, reason = "the low half is the number on the wire")]
            ledger.take_back(raw, self.sequence.top() as u16, quality.time());
        }
        self.quality.take_back(quality, packets);
    }

    /// Places the packets of a run, each the next one: numbers, frames, slots. The last came at `time` and bore `timestamp`.
    fn place_run(&mut self, slots: &mut Tail, packets: u64, (time, timestamp): (Nanos, u32)) {
        self.count_type(self.clocks.payload_type, packets);
        self.frames += packets;
        self.sequence.take_back(packets);
        let quality = &mut self.quality;
        self.window.take_back(slots, packets, (time, timestamp), |came, count| {
            if came {
                quality.settled_in_time(count);
            } else {
                (0..count).for_each(|_| quality.settled(false));
            }
        });
    }

    /// Takes a packet before which so many are missing, and lets the run go on behind it: all that was measured stays with the
    /// run. False, with nothing counted, if the run cannot take it; what it asked for first is done, and does no harm twice.
    pub fn bridge(
        &mut self,
        run: &mut Run,
        packet: &RtpPacket,
        missing: u16,
        epoch: Nanos,
        depth_ns: f64,
    ) -> bool {
        if run.needs_service(packet) {
            self.serve(run, packet);
        }
        let packets = self.packets_of(run);
        let last = (run.quality.time(), run.quality.timestamp());
        if !run.count(packet, epoch, depth_ns) {
            return false;
        }
        self.place_run(&mut run.slots, packets, last);
        self.count_type(self.clocks.payload_type, 1);
        self.frames += 1;
        let seq = self.sequence.skip(u64::from(missing));
        let quality = &mut self.quality;
        self.window.observe(seq, packet, |came| quality.settled(came));
        let (slots, room) = self.window.lend();
        run.go_on(slots, room);
        self.quality.skip(packets + 1, u64::from(missing));
        if let Some(ledger) = &mut self.raw {
            ledger.skip(&run.raw);
        }
        true
    }
}
