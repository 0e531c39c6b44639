//! When did a packet really arrive, if several taps saw it? When the reference tap saw it.
//!
//! ```text
//!   tap A (reference)   1     2     3           5         A saw most packets of this stream
//!   tap B, 90 ms late         1     2     3     4     5   4 is B's only: counted at B's time less 90 ms
//! ```
//!
//! The reference is the tap that saw the most packets of this stream; another must lead by `LEAD` before it takes over,
//! or the reference must have missed as many in a row. Each other tap's offset to the reference's timeline is the median
//! of its last sightings. So a late tunnel's copies never become jitter, and a change of the reference is no jump.
//!
//! A packet that another tap saw first is held back until the reference's own sighting or the next packet comes: at
//! most one. Streams that one tap sees have none of this.

use super::window::{DEPTH, MAX_TAPS};
use crate::packet::{Nanos, RtpPacket};

/// Packets by which another tap must lead, or which the reference must miss in a row: a third of a second at 20 ms.
const LEAD: u64 = 16;
/// Offsets remembered of each tap.
const OFFSETS: u8 = 15;
const SLOTS: usize = 128;
const _: () = assert!(SLOTS as u64 == DEPTH);

/// What the time of a packet's arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// One tap sees the stream: what came later was later.
    OnlyTap,
    /// Several do, and the time is on the reference's timeline. A late tap's packets are counted after later ones.
    Timeline,
    /// The same of a tap whose offset is not known: its time says nothing.
    Untimed,
}

/// A packet to be counted, with the arrival time that it has by the reference.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Extended sequence number.
    pub seq: u64,
    /// The packet; `tap_time` is on the reference's timeline.
    pub packet: RtpPacket,
    /// What its time means.
    pub by: By,
}

/// See the module. About 5 KiB.
#[derive(Clone, Debug)]
pub struct Reference {
    current: usize,
    taps: [TapCount; MAX_TAPS],
    stamps: [Stamp; SLOTS],
    held: Option<(usize, Placed)>,
    /// Packets in a row that the reference has not seen.
    missed: u64,
    filled_in: u64,
}

/// One tap's part in the stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct TapCount {
    /// Packets that it saw.
    pub packets: u64,
    /// When it saw its first, after there were two taps.
    pub first: Option<Nanos>,
    /// When it saw its last.
    pub last: Nanos,
    /// Its own clock against the timeline.
    offset: Recent,
    /// How late it shows here.
    late: Recent,
}

impl TapCount {
    /// How late its frames come after the reference's, in nanoseconds: the median, and the spread (interquartile range)
    /// of the last few.
    pub fn late_ns(&self) -> Option<(i64, i64)> {
        Some((self.late.quantile(50)?, self.late.quantile(75)? - self.late.quantile(25)?))
    }
}

/// When the reference saw a packet: on the timeline, and here.
#[derive(Clone, Copy, Debug, Default)]
struct Stamp {
    seq: u64,
    timeline: Nanos,
    time: Nanos,
}

impl Reference {
    /// Begins when a second tap shows up, after the first alone saw `packets`.
    pub fn new(packets: u64) -> Self {
        let mut taps = [TapCount::default(); MAX_TAPS];
        taps[0].packets = packets;
        taps[0].offset = Recent::of(0);
        taps[0].late = Recent::of(0);
        let (stamps, held) = ([Stamp::default(); SLOTS], None);
        Self { current: 0, taps, stamps, held, missed: 0, filled_in: 0 }
    }

    /// A packet seen for the first time, by this tap. Returns what is to be counted now, in order.
    pub fn first(&mut self, seq: u64, packet: &RtpPacket, tap: usize) -> [Option<Placed>; 2] {
        let before = self.release();
        self.count(tap, packet.time);
        let now = Placed { seq, packet: *packet, by: By::Timeline };
        if tap == self.current {
            return [before, Some(self.stamp(now))];
        }
        self.held = Some((tap, now));
        [before, None]
    }

    /// The same packet, seen by this tap, too. Returns the packet if it had waited for this.
    pub fn again(&mut self, seq: u64, packet: &RtpPacket, tap: usize) -> Option<Placed> {
        self.count(tap, packet.time);
        if tap == self.current {
            let now = self.stamp(Placed { seq, packet: *packet, by: By::Timeline });
            let (by, held) = self.held.filter(|(_, held)| held.seq == seq)?;
            self.held = None;
            self.learn(by, &held);
            return Some(now);
        }
        self.learn(tap, &Placed { seq, packet: *packet, by: By::Timeline });
        None
    }

    /// What waits, if anything does: nothing more will come for it.
    pub fn release(&mut self) -> Option<Placed> {
        let (tap, mut held) = self.held.take()?;
        self.filled_in += 1;
        self.missed += 1;
        held.by = if self.is_timed(tap) { By::Timeline } else { By::Untimed };
        held.packet.tap_time = self.on_timeline(tap, &held.packet);
        if self.missed >= LEAD {
            let packets = self.taps.get(self.current).map_or(0, |current| current.packets);
            if let Some(count) = self.taps.get_mut(tap) {
                count.packets = count.packets.max(packets);
            }
            self.take_over(tap);
        }
        Some(held)
    }

    /// A packet that is counted at once, whoever saw it.
    pub fn at_once(&self, packet: &RtpPacket, tap: usize) -> RtpPacket {
        RtpPacket { tap_time: self.on_timeline(tap, packet), ..*packet }
    }

    /// Packets that the reference tap missed and another filled in.
    pub fn filled_in(&self) -> u64 {
        self.filled_in
    }

    /// Is one waiting?
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Index of the reference tap.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Each tap's part, in order of appearance.
    pub fn taps(&self) -> &[TapCount] {
        &self.taps
    }

    fn count(&mut self, tap: usize, time: Nanos) {
        let lead = self.taps.get(self.current).map_or(0, |current| current.packets);
        let Some(count) = self.taps.get_mut(tap) else { return };
        count.packets += 1;
        count.first.get_or_insert(time);
        count.last = count.last.max(time);
        if tap == self.current {
            self.missed = 0;
        } else if count.packets >= lead + LEAD {
            self.take_over(tap);
        }
    }

    /// From now on `tap` is the reference, with its offset as it is now, so that the timeline goes on.
    fn take_over(&mut self, tap: usize) {
        (self.current, self.missed) = (tap, 0);
        if let Some(count) = self.taps.get_mut(tap) {
            count.offset = Recent::of(count.offset.quantile(50).unwrap_or(0));
            count.late = Recent::of(0);
        }
    }

    fn stamp(&mut self, mut placed: Placed) -> Placed {
        let time = placed.packet.time;
        placed.packet.tap_time = self.on_timeline(self.current, &placed.packet);
        let stamp = Stamp { seq: placed.seq, timeline: placed.packet.tap_time, time };
        if let Some(place) = self.stamps.get_mut(slot(placed.seq)) {
            *place = stamp;
        }
        placed
    }

    fn learn(&mut self, tap: usize, placed: &Placed) {
        let Some(stamp) = self.stamps.get(slot(placed.seq)).filter(|stamp| stamp.seq == placed.seq) else {
            return;
        };
        if let Some(count) = self.taps.get_mut(tap) {
            count.offset.push(placed.packet.tap_time.since(stamp.timeline));
            count.late.push(placed.packet.time.since(stamp.time));
        }
    }

    fn is_timed(&self, tap: usize) -> bool {
        self.taps.get(tap).is_some_and(|count| !count.offset.is_empty())
    }

    /// When the reference would have seen it. Of a tap whose offset is not known yet, when it was seen here.
    fn on_timeline(&self, tap: usize, packet: &RtpPacket) -> Nanos {
        match self.taps.get(tap).and_then(|count| count.offset.quantile(50)) {
            Some(offset) => Nanos(packet.tap_time.0.wrapping_sub(offset.cast_unsigned())),
            None => packet.time,
        }
    }
}

fn slot(seq: u64) -> usize {
    usize::try_from(seq % DEPTH).unwrap_or(0)
}

/// The last few values of something that should be constant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    values: [i64; OFFSETS as usize],
    next: u8,
    len: u8,
}

impl Recent {
    /// One value.
    pub fn of(value: i64) -> Self {
        let mut recent = Self::default();
        recent.push(value);
        recent
    }

    /// Takes one more; the oldest makes room.
    pub fn push(&mut self, value: i64) {
        if let Some(place) = self.values.get_mut(usize::from(self.next)) {
            *place = value;
        }
        self.next = (self.next + 1) % OFFSETS;
        self.len = (self.len + 1).min(OFFSETS);
    }

    /// Values held.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, in no order that matters.
    pub fn values(&self) -> impl Iterator<Item = i64> + '_ {
        self.values.iter().take(self.len()).copied()
    }

    /// So many percent of the values are not above it; `None` if there are none.
    pub fn quantile(&self, percent: usize) -> Option<i64> {
        let mut sorted = self.values;
        let held = sorted.get_mut(..self.len())?;
        held.sort_unstable();
        let rank = held.len().checked_sub(1)? * percent / 100;
        held.get(rank).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::testing::packet;

    fn late(seq: u64, by_ns: u64) -> RtpPacket {
        let mut packet = packet(seq);
        packet.time.0 += by_ns;
        packet.tap_time = packet.time;
        packet
    }

    fn counted(placed: Option<Placed>) -> Option<(u64, Nanos)> {
        placed.map(|placed| (placed.seq, placed.packet.tap_time))
    }

    const LATE: u64 = 15_000_000;

    fn two_taps() -> Reference {
        let mut reference = Reference::new(1);
        for seq in 1..50 {
            let [none, now] = reference.first(seq, &packet(seq), 0);
            assert_eq!((none.is_none(), counted(now)), (true, Some((seq, packet(seq).tap_time))));
            assert!(reference.again(seq, &late(seq, LATE + seq % 3), 1).is_none());
        }
        reference
    }

    #[test]
    fn a_packet_that_the_reference_missed_is_filled_in_at_its_time() {
        let mut reference = two_taps();
        let held = reference.first(50, &late(50, LATE + 1), 1);
        assert!(held[0].is_none() && held[1].is_none());
        let [before, now] = reference.first(51, &packet(51), 0);
        assert_eq!(counted(before), Some((50, packet(50).tap_time)));
        assert_eq!(counted(now), Some((51, packet(51).tap_time)));
        assert_eq!(reference.filled_in(), 1);
    }

    #[test]
    fn a_packet_that_another_tap_saw_first_waits_for_the_reference() {
        let mut reference = two_taps();
        let early = RtpPacket { time: Nanos(packet(50).time.0 - 7_000), ..packet(50) };
        assert!(reference.first(50, &early, 2)[1].is_none());
        let now = reference.again(50, &packet(50), 0);
        assert_eq!((counted(now), reference.filled_in()), (Some((50, packet(50).tap_time)), 0));
    }

    #[test]
    fn a_reference_that_falls_silent_is_replaced_without_a_jump() {
        let mut reference = two_taps();
        let mut times = Vec::new();
        for seq in 50..100 {
            let counted = reference.first(seq, &late(seq, LATE + 1), 1);
            times.extend(counted.into_iter().flatten().map(|placed| placed.packet.tap_time));
        }
        assert_eq!(times, (50..100).map(|seq| packet(seq).tap_time).collect::<Vec<_>>());
        assert_eq!((reference.current(), reference.filled_in()), (1, LEAD));
    }

    #[test]
    fn a_tap_with_a_clock_of_its_own_is_learned_and_its_lateness_is_told_by_ours() {
        let mut reference = Reference::new(1);
        for seq in 1..50 {
            reference.first(seq, &packet(seq), 0);
            let remote = RtpPacket { tap_time: Nanos(seq * 20_000_000), ..late(seq, 200_000_000) };
            reference.again(seq, &remote, 1);
        }
        let remote = RtpPacket { tap_time: Nanos(50 * 20_000_000), ..late(50, 210_000_000) };
        reference.first(50, &remote, 1);
        assert_eq!(counted(reference.release()), Some((50, packet(50).tap_time)));
        assert_eq!(reference.taps()[1].late_ns(), Some((200_000_000, 0)));
    }
}
