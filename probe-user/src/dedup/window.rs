//! The last packets of one stream: is this one new, late, or a copy of one that was seen?
//!
//! ```text
//!        oldest                                   newest = `top`
//!   seen  1 1 1 0 1 1 … 1 1 1 1 1 1 1 1 1 1 1 1 1 1     one bit a sequence number, 128 of them
//!   slots ■ ■ ■   ■ ■ … ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■     the first sighting: what proves a copy and explains it   (slots)
//!   lanes             ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪     further sightings, up to seven; only where there are copies
//! ```
//!
//! Each copy is explained by the most similar earlier sighting of the same packet: of two taps that both show again
//! in a tunnel, the second tap's tunnelled frame is the second tap's, not the first's.
//!
//! A bit that leaves on the left is final: the packet came, or it is lost. The caller gets each exactly once
//! and in sequence order, whatever the order of arrival, which is what loss statistics need.

use super::cause::{Differs, Explanation};
use super::slots::{End, Slot, Slots, Tail, low};
use super::tap::{Signature, Taps};
use crate::packet::{Evidence, Nanos, RtpPacket};

/// Packets that are remembered; what comes later than that is no longer told from a copy. A remote capture hands over
/// its buffer when its read timeout ends, 1 s by default: 100 packets of 10 ms. 128 are 1.28 s of those, 2.56 s
/// at the usual 20 ms, and 1 KiB a stream.
pub const DEPTH: u64 = 128;
const SLOTS: usize = super::slots::WINDOW;
const _: () = assert!(SLOTS as u64 == DEPTH);
/// Distinct ways in which one stream's packets are seen, e.g. two taps and their tunnels.
pub const MAX_TAPS: usize = 8;
/// Sightings of one packet that are remembered besides the first.
const MAX_LANES: usize = 7;

/// What a packet is to its stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// The first copy of this packet.
    First,
    /// The same packet again.
    Copy(Original),
    /// The same sequence number again, with all taps' memory used up.
    OldCopy,
    /// The same sequence number with another timestamp, payload type or payload: not a copy.
    Conflict,
    /// Older than anything remembered.
    TooOld,
}

/// What is known about the sighting that a copy resembles most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Original {
    /// When it was seen.
    pub time: Nanos,
    /// Its frame number.
    pub number: u64,
    /// In what the copy differs from it, and why.
    pub explanation: Explanation,
    /// Had the copy's own tap seen this packet before?
    pub again: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct DupWindow {
    top: u64,
    seen: u128,
    /// Bits of `seen` that belong to this stream; fewer than 128 at its start.
    filled: u64,
    slots: Slots,
    taps: Taps,
    /// The tap of the packet that was observed last.
    tap: u8,
    copies: Option<Box<Copies>>,
}

/// What a window whose packets all came has none of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Troubles {
    /// The numbers up to the newest that did not come.
    missing: u128,
    ends: Vec<End>,
    copies: Option<Box<Copies>>,
}

/// What streams with copies need besides: 2 KiB a lane.
#[derive(Clone, Debug, PartialEq)]
struct Copies {
    lanes: Vec<[Sighting; SLOTS]>,
    /// How many lanes each slot uses.
    used: [u8; SLOTS],
    /// In what two taps' signatures differ.
    pairs: [[Differs; MAX_TAPS]; MAX_TAPS],
    /// Taps for which `pairs` is filled.
    known: usize,
}

/// A further sighting of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sighting {
    time: Nanos,
    number: u32,
    ip_id: u16,
    tap: u8,
}

impl DupWindow {
    /// A window whose first packet has the extended sequence number `seq`.
    pub fn new(seq: u64, packet: &RtpPacket) -> Self {
        Self {
            top: seq,
            seen: 1,
            filled: 1,
            slots: Slots::new(seq, Slot::of(packet, 0)),
            taps: Taps::new(&packet.evidence),
            tap: 0,
            copies: None,
        }
    }

    /// Begins anew after the sequence numbers jumped. Returns what the window held through `settled`.
    pub fn restart(&mut self, seq: u64, packet: &RtpPacket, settled: impl FnMut(bool)) {
        self.drain(settled);
        (self.top, self.seen, self.filled) = (seq, 1, 1);
        self.tap = self.find_tap(&packet.evidence);
        self.slots.append(seq, Slot::of(packet, self.tap));
        self.forget_copies(seq);
    }

    /// Judges one packet. `settled` gets, in sequence order, every number that left the window: did it come?
    pub fn observe(&mut self, seq: u64, packet: &RtpPacket, settled: impl FnMut(bool)) -> Seen {
        self.tap = self.find_tap(&packet.evidence);
        if seq > self.top {
            self.advance(seq - self.top, settled);
            self.slots.append(seq, Slot::of(packet, self.tap));
            self.forget_copies(seq);
            return Seen::First;
        }
        let age = self.top - seq;
        if age >= DEPTH {
            return Seen::TooOld;
        }
        let bit = 1_u128 << age;
        if self.seen & bit == 0 {
            self.make_room(self.filled.max(age + 1));
            self.seen |= bit;
            self.filled = self.filled.max(age + 1);
            self.slots.insert(seq, Slot::of(packet, self.tap));
            self.forget_copies(seq);
            return Seen::First;
        }
        let slot = self.slots.get(seq);
        if !slot.is_same_packet(packet) {
            return Seen::Conflict;
        }
        self.copy(slot_index(seq), slot, packet).map_or(Seen::OldCopy, Seen::Copy)
    }

    /// Is this packet, so many numbers behind the newest, one that the window holds? Asked of what comes so late that
    /// its number alone is not believed any more.
    pub fn recall(&self, packet: &RtpPacket, behind: u64) -> Option<u64> {
        let seq = self.top.checked_sub(behind).filter(|_| behind < DEPTH)?;
        (self.seen & (1 << behind) != 0 && self.slots.get(seq).is_same_packet(packet)).then_some(seq)
    }

    /// The newest number.
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Index of the tap that saw the last packet, in order of appearance; [`MAX_TAPS`] if there were too many.
    pub fn tap(&self) -> usize {
        usize::from(self.tap)
    }

    /// Signatures of the taps in order of appearance: evidence but for the IP ID, which is the packet's own.
    pub fn taps(&self) -> impl Iterator<Item = Evidence> {
        self.taps.iter()
    }

    /// The signature of one of them.
    pub fn tap_at(&self, at: usize) -> Option<&Evidence> {
        self.taps.get(at)
    }

    /// How many there are: one or more.
    pub fn tap_count(&self) -> usize {
        self.taps.len()
    }

    /// Hands out everything still in the window; it is empty afterwards.
    pub fn drain(&mut self, mut settled: impl FnMut(bool)) {
        for age in (0..self.filled).rev() {
            settled(self.seen & (1 << age) != 0);
        }
        self.filled = 0;
        self.seen = 0;
    }

    /// The tap's signature, if one tap sees the stream, and it is known how packets go on.
    pub(crate) fn only_tap(&self) -> Option<Signature> {
        self.taps.only().filter(|_| self.slots.are_orderly())
    }

    /// What a run takes along: the slots, and how many more packets there is room for.
    pub(crate) fn lend(&mut self) -> (Tail, u64) {
        let held = self.slots.len();
        (self.slots.lend(), if held == SLOTS { u64::MAX } else { held as u64 - self.filled })
    }

    /// Goes on where a run of `packets` has come to, each of which was the next; the last came at `time` and bore
    /// `timestamp`. `settled` gets, in sequence order, the numbers that left the window: whether they came, and how many in a row
    /// of which that is so.
    pub(crate) fn take_back(
        &mut self,
        tail: &mut Tail,
        packets: u64,
        (time, timestamp): (Nanos, u32),
        settled: impl FnMut(bool, u64),
    ) {
        self.slots.take_back(tail, packets, time, timestamp);
        self.advance_by(packets, settled);
        if let Some(copies) = &mut self.copies {
            let seqs = (self.top + 1).saturating_sub(packets.min(DEPTH))..=self.top;
            seqs.for_each(|seq| copies.forget(slot_index(seq)));
        }
        self.tap = 0;
    }

    /// Advances by packets that all came, for which there is room: what [`DupWindow::advance`] does with each, at once.
    fn advance_by(&mut self, packets: u64, mut settled: impl FnMut(bool, u64)) {
        let held = self.filled;
        let left = (held + packets).saturating_sub(DEPTH);
        // Those that were held leave first, the oldest before the others; nearly always all of them came.
        let mut others = left;
        if self.seen != low_bits(held) {
            for age in (held - left.min(held)..held).rev() {
                settled(self.seen & (1 << age) != 0, 1);
            }
            others -= left.min(held);
        }
        if others > 0 {
            settled(true, others);
        }
        let shifted = u32::try_from(packets).ok().and_then(|packets| self.seen.checked_shl(packets));
        self.seen = shifted.unwrap_or(0) | low_bits(packets);
        self.filled = (held + packets).min(DEPTH);
        self.top += packets;
    }

    /// What is left of it beside the run that it was lent to: how many numbers it holds, and troubles.
    pub(crate) fn into_rest(self) -> (u8, Troubles) {
        let all = u128::MAX.checked_shr(128 - u32::try_from(self.filled).unwrap_or(128)).unwrap_or(0);
        let troubles =
            Troubles { missing: all & !self.seen, ends: self.slots.into_ends(), copies: self.copies };
        (u8::try_from(self.filled).unwrap_or(u8::MAX), troubles)
    }

    /// The same, whole again: as it was lent to a run behind number `top`, which only `tap` saw.
    pub(crate) fn of_rest(
        (filled, troubles): (u8, Troubles),
        top: u64,
        payload_type: u8,
        tap: Signature,
        tail: &Tail,
    ) -> Self {
        let Troubles { missing, ends, copies } = troubles;
        let all = u128::MAX.checked_shr(128 - u32::from(filled)).unwrap_or(0);
        Self {
            top,
            seen: all & !missing,
            filled: u64::from(filled),
            slots: Slots::of_rest(ends, top, payload_type, tail),
            taps: Taps::only_one(tap),
            tap: 0,
            copies,
        }
    }

    /// The oldest number that is not settled.
    pub(crate) fn oldest(&self) -> u64 {
        self.top + 1 - self.filled
    }

    /// Sees to it that the slots of so many numbers up to the newest can be told apart.
    fn make_room(&mut self, numbers: u64) {
        let numbers = usize::try_from(numbers).unwrap_or(SLOTS).min(SLOTS);
        if numbers > self.slots.len() {
            self.slots.grow(numbers);
        }
    }

    fn advance(&mut self, steps: u64, mut settled: impl FnMut(bool)) {
        self.make_room(self.filled.saturating_add(steps).min(DEPTH));
        for _ in 0..steps.min(DEPTH) {
            if self.filled == DEPTH {
                settled(self.seen >> (DEPTH - 1) != 0);
            } else {
                self.filled += 1;
            }
            self.seen <<= 1;
        }
        // A jump wider than the window: the rest never came. RFC 3550 A.1 bounds it (MAX_DROPOUT).
        for _ in DEPTH..steps {
            settled(false);
        }
        self.seen |= 1;
        self.top += steps;
    }

    /// Another packet has taken the slot.
    fn forget_copies(&mut self, seq: u64) {
        if let Some(copies) = &mut self.copies {
            copies.forget(slot_index(seq));
        }
    }

    /// Finds the sighting that a copy resembles most, and remembers the copy as one more.
    fn copy(&mut self, at: usize, slot: Slot, packet: &RtpPacket) -> Option<Original> {
        let copies = self.copies.get_or_insert_with(Box::default);
        copies.learn(&self.taps);
        let first = Sighting { time: slot.time, number: slot.number, ip_id: slot.ip_id, tap: slot.tap() };
        let used = usize::from(copies.used.get(at).copied().unwrap_or(0));
        let further = copies.lanes.iter().take(used).filter_map(|lane| lane.get(at));
        let mut again = false;
        let mut best: Option<(u32, &Sighting, Differs)> = None;
        for sighting in std::iter::once(&first).chain(further) {
            again |= sighting.tap == self.tap;
            let Some(pair) = copies.pairs.get(usize::from(sighting.tap)) else { continue };
            let Some(differs) = pair.get(usize::from(self.tap)) else { continue };
            let differs = differs.with_ip_id(sighting.ip_id != packet.evidence.ip_id);
            let distance = differs.distance();
            if best.is_none_or(|(least, ..)| distance < least) {
                best = Some((distance, sighting, differs));
            }
        }
        let original = best.and_then(|(_, sighting, differs)| {
            let tap = self.taps.get(usize::from(sighting.tap))?;
            Some(Original {
                time: sighting.time,
                number: packet.number - u64::from(low(packet.number).wrapping_sub(sighting.number)),
                explanation: Explanation::new(differs, tap, &packet.evidence),
                again,
            })
        });
        copies.add(at, used, packet, self.tap);
        original
    }

    /// The index of a tap's signature.
    fn find_tap(&mut self, evidence: &Evidence) -> u8 {
        u8::try_from(self.taps.find(evidence)).unwrap_or(u8::MAX)
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            used: [0; SLOTS],
            pairs: [[Differs::default(); MAX_TAPS]; MAX_TAPS],
            known: 0,
        }
    }
}

impl Copies {
    fn learn(&mut self, taps: &Taps) {
        if self.known == taps.len() {
            return;
        }
        self.known = taps.len();
        for (row, a) in self.pairs.iter_mut().zip(taps.iter()) {
            for (differs, b) in row.iter_mut().zip(taps.iter()) {
                *differs = Differs::between(&a, &b);
            }
        }
    }

    /// Another packet has taken the slot.
    fn forget(&mut self, at: usize) {
        if let Some(used) = self.used.get_mut(at) {
            *used = 0;
        }
    }

    fn add(&mut self, at: usize, used: usize, packet: &RtpPacket, tap: u8) {
        if used == MAX_LANES {
            return;
        }
        if used == self.lanes.len() {
            self.lanes.push([Sighting::default(); SLOTS]);
        }
        if let Some(place) = self.lanes.get_mut(used).and_then(|lane| lane.get_mut(at)) {
            let number = low(packet.number);
            *place = Sighting { time: packet.time, number, ip_id: packet.evidence.ip_id, tap };
        }
        if let Some(count) = self.used.get_mut(at) {
            *count += 1;
        }
    }
}

/// So many of the lowest bits, or all.
fn low_bits(count: u64) -> u128 {
    u32::try_from(count).ok().and_then(|count| 1_u128.checked_shl(count)).map_or(u128::MAX, |bit| bit - 1)
}

fn slot_index(seq: u64) -> usize {
    usize::try_from(seq % DEPTH).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Carrier, Encapsulation, Layer};
    use crate::rtp::testing::packet;
    use probe_ebpf::Fingerprint;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_what_the_documents_say() {
        assert_eq!((size_of::<Slot>(), size_of::<Sighting>()), (24, 16));
    }

    fn sighting(seq: u64, number: u64, change: impl FnOnce(&mut Evidence)) -> RtpPacket {
        let mut copy = RtpPacket { number, ..packet(seq) };
        copy.time.0 += number * 1_000;
        change(&mut copy.evidence);
        copy
    }

    fn original(seen: Seen) -> (u64, &'static str, bool) {
        let Seen::Copy(original) = seen else { panic!("{seen:?} is no copy") };
        (original.number, original.explanation.cause.label(), original.again)
    }

    #[test]
    fn a_copy_names_its_original() {
        let mut window = DupWindow::new(7, &packet(7));
        let copy = sighting(7, 99, |seen| seen.dst_mac = [9; 6]);
        assert_eq!(original(window.observe(7, &copy, |_| ())), (8, "l2-mirror", false));
        let again = sighting(7, 100, |seen| seen.dst_mac = [9; 6]);
        assert_eq!(original(window.observe(7, &again, |_| ())), (99, "same-point", true));
    }

    #[test]
    fn two_taps_in_a_tunnel_are_each_the_tunnels_copy_of_its_own_tap() {
        let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
        let other_tap = |seen: &mut Evidence| (seen.dst_mac, seen.ip_id) = ([9; 6], 0);
        let in_tunnel = |seen: &mut Evidence| (seen.encapsulation, seen.carrier) = (rpcap, Carrier(1));
        let both = |seen: &mut Evidence| {
            other_tap(seen);
            in_tunnel(seen);
        };
        // As in the story: 3062 and 3066 are two taps, 3069 and 3077 the same inside rpcap.
        let mut window = DupWindow::new(7, &sighting(7, 3062, |_| ()));
        let mut seen = |copy: RtpPacket| original(window.observe(7, &copy, |_| ()));
        assert_eq!(seen(sighting(7, 3066, other_tap)), (3062, "re-emitted", false));
        assert_eq!(seen(sighting(7, 3069, in_tunnel)), (3062, "encapsulated", false));
        assert_eq!(seen(sighting(7, 3077, both)), (3066, "encapsulated", false));
    }

    #[test]
    fn a_copy_a_hundred_packets_late_is_proven_and_explained() {
        let mut window = DupWindow::new(0, &packet(0));
        for seq in 1..=127 {
            assert_eq!(window.observe(seq, &packet(seq), |_| ()), Seen::First);
        }
        assert_eq!(window.recall(&packet(0), 127), Some(0));
        assert_eq!(window.recall(&packet(1), 127), None);
        let late = sighting(0, 500, |seen| seen.dst_mac = [9; 6]);
        assert_eq!(original(window.observe(0, &late, |_| ())), (1, "l2-mirror", false));
    }

    #[test]
    fn of_a_flood_of_sightings_seven_are_remembered_and_all_are_copies() {
        let mut window = DupWindow::new(7, &packet(7));
        for number in 10..100 {
            let copy = sighting(7, number, |_| ());
            assert_eq!(original(window.observe(7, &copy, |_| ())), (8, "same-point", true));
        }
        assert_eq!(window.copies.as_ref().unwrap().lanes.len(), MAX_LANES);
        for tap in 0..=255_u8 {
            window.observe(7, &sighting(7, 200 + u64::from(tap), |seen| seen.ttl = tap), |_| ());
        }
        assert_eq!(window.tap_count(), MAX_TAPS);
    }

    #[test]
    fn another_payload_under_the_same_number_is_no_copy() {
        let mut window = DupWindow::new(7, &packet(7));
        let mut other = packet(7);
        other.fingerprint.value ^= 1;
        assert_eq!(window.observe(7, &other, |_| ()), Seen::Conflict);
    }

    #[test]
    fn what_a_short_capture_cannot_prove_is_not_held_against_it() {
        let whole = RtpPacket { fingerprint: Fingerprint { value: 5, hashed: true }, ..packet(7) };
        let cut =
            RtpPacket { fingerprint: Fingerprint { value: 6, hashed: true }, is_hash_cut: true, ..packet(7) };
        let other = RtpPacket { is_hash_cut: false, ..cut };
        for (first, second) in [(&whole, &cut), (&cut, &whole)] {
            let mut window = DupWindow::new(7, first);
            assert!(matches!(window.observe(7, second, |_| ()), Seen::Copy(_)));
        }
        assert_eq!(DupWindow::new(7, &whole).observe(7, &other, |_| ()), Seen::Conflict);
        let mut later = cut;
        later.rtp.timestamp += 1;
        assert_eq!(DupWindow::new(7, &whole).observe(7, &later, |_| ()), Seen::Conflict);
    }

    #[test]
    fn a_late_packet_is_new_and_its_repetition_a_copy() {
        let mut window = DupWindow::new(10, &packet(10));
        assert_eq!(window.observe(12, &packet(12), |_| ()), Seen::First);
        assert_eq!(window.observe(11, &packet(11), |_| ()), Seen::First);
        assert!(matches!(window.observe(11, &packet(11), |_| ()), Seen::Copy(_)));
    }

    proptest! {
        /// Whatever the order of arrival, every number is settled once, in order, and truthfully.
        #[test]
        fn settled_numbers_equal_a_naive_set(offsets in prop::collection::vec((0_u64..40, 0_u64..100), 1..300)) {
            let mut arrivals = vec![1_000_u64];
            let mut top = 1_000;
            for (ahead, back) in offsets {
                top += ahead;
                arrivals.push(top.saturating_sub(back).max(1_000));
            }
            let mut window = DupWindow::new(1_000, &packet(1_000));
            let mut settled = Vec::new();
            let mut naive = std::collections::BTreeSet::from([1_000_u64]);
            for seq in arrivals {
                let seen = window.observe(seq, &packet(seq), |came| settled.push(came));
                prop_assert_eq!(seen == Seen::First, naive.insert(seq));
            }
            window.drain(|came| settled.push(came));
            let last = *naive.iter().next_back().unwrap();
            let expected: Vec<bool> = (1_000..=last).map(|seq| naive.contains(&seq)).collect();
            prop_assert_eq!(settled, expected);
        }

        /// The packets of a run at once, as if one by one.
        #[test]
        fn advancing_by_many_is_advancing_one_by_one(
            seen in prop_oneof![Just(u128::MAX), any::<u128>()],
            filled in 1..=DEPTH,
            runs in prop::collection::vec(0_u64..300, 1..5),
        ) {
            let mut at_once = DupWindow::new(1_000, &packet(1_000));
            at_once.make_room(DEPTH);
            (at_once.seen, at_once.filled) = (seen & low_bits(filled) | 1, filled);
            let mut one_by_one = at_once.clone();
            let [mut some, mut each] = [Vec::new(), Vec::new()];
            for packets in runs {
                at_once.advance_by(packets, |came, count| some.extend((0..count).map(|_| came)));
                for _ in 0..packets {
                    one_by_one.advance(1, |came| each.push(came));
                }
                prop_assert_eq!(&some, &each);
                let state = |window: &DupWindow| (window.top, window.seen, window.filled);
                prop_assert_eq!(state(&at_once), state(&one_by_one));
            }
        }
    }
}
