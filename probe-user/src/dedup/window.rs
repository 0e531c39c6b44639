//! The last packets of one stream: is this one new, late, or a copy of one that was seen?
//!
//! ```text
//!        oldest                                   newest = `top`
//!   seen  1 1 1 0 1 1 … 1 1 1 1 1 1 1 1 1 1 1 1 1 1     one bit a sequence number, 128 of them
//!   slots ■ ■ ■   ■ ■ … ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■ ■     the first sighting: what proves a copy and explains it
//!   lanes             ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪ ▪     further sightings, up to seven; only where there are copies
//! ```
//!
//! Each copy is explained by the most similar earlier sighting of the same packet: of two taps that both show again
//! in a tunnel, the second tap's tunnelled frame is the second tap's, not the first's.
//!
//! A bit that leaves on the left is final: the packet came, or it is lost. The caller gets each exactly once
//! and in sequence order, whatever the order of arrival, which is what loss statistics need.

use super::cause::{Differs, Explanation};
use crate::packet::{Evidence, Nanos, RtpPacket};

/// Packets that are remembered; what comes later than that is no longer told from a copy. A remote capture hands over
/// its buffer when its read timeout ends, 1 s by default: 100 packets of 10 ms. 128 are 1.28 s of those, 2.56 s
/// at the usual 20 ms, and 3 KiB a stream.
pub const DEPTH: u64 = 128;
const SLOTS: usize = 128;
const _: () = assert!(SLOTS as u64 == DEPTH);
/// Slots of a window that has seen few packets yet. It doubles as they come.
const FIRST_SLOTS: usize = 8;
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
    taps: Vec<Evidence>,
    /// The first of them, here, as most streams have no other.
    first_tap: Signature,
    /// The tap of the packet that was observed last.
    tap: u8,
    copies: Option<Box<Copies>>,
}

/// The first sightings, by number: always as many as the window holds, and a power of two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots(Box<[Slot]>);

/// The first sighting of a packet. 24 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    time: Nanos,
    /// The lower half: two frames of one window are less than 2^32 apart.
    number: u32,
    timestamp: u32,
    fingerprint: u16,
    udp_len: u16,
    ip_id: u16,
    payload_type: u8,
    /// Index of the tap's signature in `taps`, [`MAX_TAPS`] if there was no room; the upper bits say that the
    /// fingerprint is a hash, and that it is of less than it should be.
    tap: u8,
}

/// What streams with copies need besides: 2 KiB a lane.
#[derive(Clone, Debug)]
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
#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    time: Nanos,
    number: u32,
    ip_id: u16,
    tap: u8,
}

const HASHED: u8 = 0x80;
const HASH_CUT: u8 = 0x40;
const TAP: u8 = !(HASHED | HASH_CUT);

impl DupWindow {
    /// A window whose first packet has the extended sequence number `seq`.
    pub fn new(seq: u64, packet: &RtpPacket) -> Self {
        let mut window = Self {
            top: seq,
            seen: 1,
            filled: 1,
            slots: Slots(vec![Slot::default(); FIRST_SLOTS].into_boxed_slice()),
            taps: vec![tap_evidence(&packet.evidence)],
            first_tap: Signature::of(&packet.evidence),
            tap: 0,
            copies: None,
        };
        window.remember(seq, packet);
        window
    }

    /// Begins anew after the sequence numbers jumped. Returns what the window held through `settled`.
    pub fn restart(&mut self, seq: u64, packet: &RtpPacket, settled: impl FnMut(bool)) {
        self.drain(settled);
        (self.top, self.seen, self.filled) = (seq, 1, 1);
        self.tap = self.find_tap(&packet.evidence);
        self.remember(seq, packet);
    }

    /// Judges one packet. `settled` gets, in sequence order, every number that left the window: did it come?
    pub fn observe(&mut self, seq: u64, packet: &RtpPacket, settled: impl FnMut(bool)) -> Seen {
        self.tap = self.find_tap(&packet.evidence);
        if seq > self.top {
            self.advance(seq - self.top, settled);
            self.remember(seq, packet);
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
            self.remember(seq, packet);
            return Seen::First;
        }
        let slot = self.slots.get(seq).copied().unwrap_or_default();
        if !slot.is_same_packet(packet) {
            return Seen::Conflict;
        }
        self.copy(slot_index(seq), slot, packet).map_or(Seen::OldCopy, Seen::Copy)
    }

    /// Is this packet, so many numbers behind the newest, one that the window holds? Asked of what comes so late that
    /// its number alone is not believed any more.
    pub fn recall(&self, packet: &RtpPacket, behind: u64) -> Option<u64> {
        let seq = self.top.checked_sub(behind).filter(|_| behind < DEPTH)?;
        let slot = self.slots.get(seq).filter(|_| self.seen & (1 << behind) != 0)?;
        slot.is_same_packet(packet).then_some(seq)
    }

    /// The newest number.
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Index of the tap that saw the last packet, in order of appearance; [`MAX_TAPS`] if there were too many.
    pub fn tap(&self) -> usize {
        usize::from(self.tap)
    }

    /// Signatures of the taps: evidence but for the IP ID, which is the packet's own.
    pub fn taps(&self) -> &[Evidence] {
        &self.taps
    }

    /// Hands out everything still in the window; it is empty afterwards.
    pub fn drain(&mut self, mut settled: impl FnMut(bool)) {
        for age in (0..self.filled).rev() {
            settled(self.seen & (1 << age) != 0);
        }
        self.filled = 0;
        self.seen = 0;
    }

    /// Does one tap see the stream, and did it see this packet?
    pub(crate) fn is_seen_by_one(&self, packet: &RtpPacket) -> bool {
        self.taps.len() == 1 && Signature::of(&packet.evidence) == self.first_tap
    }

    /// What a run takes along: the slots, and how many more packets there is room for.
    pub(crate) fn lend(&mut self) -> (Slots, u64) {
        let slots = std::mem::take(&mut self.slots);
        let room = if slots.0.len() == SLOTS { u64::MAX } else { slots.0.len() as u64 - self.filled };
        (slots, room)
    }

    /// Goes on where a run of `packets` has come to, each of which was the next. `settled` is as in
    /// [`DupWindow::observe`].
    pub(crate) fn take_back(&mut self, slots: Slots, packets: u64, mut settled: impl FnMut(bool)) {
        self.slots = slots;
        for _ in 0..packets {
            self.advance(1, &mut settled);
        }
        if let Some(copies) = &mut self.copies {
            let seqs = (self.top + 1).saturating_sub(packets.min(DEPTH))..=self.top;
            seqs.for_each(|seq| copies.forget(slot_index(seq)));
        }
        self.tap = 0;
    }

    /// Sees to it that the slots of so many numbers up to the newest can be told apart.
    fn make_room(&mut self, numbers: u64) {
        let held = self.slots.0.len() as u64;
        if numbers > held {
            self.grow(numbers.min(DEPTH).next_power_of_two());
        }
    }

    #[cold]
    fn grow(&mut self, slots: u64) {
        let before = std::mem::take(&mut self.slots);
        self.slots.0 = vec![Slot::default(); usize::try_from(slots).unwrap_or(SLOTS)].into_boxed_slice();
        for seq in (self.top + 1).saturating_sub(before.0.len() as u64)..=self.top {
            if let (Some(from), Some(to)) = (before.get(seq), self.slots.get_mut(seq)) {
                *to = *from;
            }
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

    fn remember(&mut self, seq: u64, packet: &RtpPacket) {
        self.slots.remember(seq, packet, self.tap);
        if let Some(copies) = &mut self.copies {
            copies.forget(slot_index(seq));
        }
    }

    /// Finds the sighting that a copy resembles most, and remembers the copy as one more.
    fn copy(&mut self, at: usize, slot: Slot, packet: &RtpPacket) -> Option<Original> {
        let copies = self.copies.get_or_insert_with(Box::default);
        copies.learn(&self.taps);
        let first = Sighting { time: slot.time, number: slot.number, ip_id: slot.ip_id, tap: slot.tap & TAP };
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
        if Signature::of(evidence) == self.first_tap {
            return 0;
        }
        let evidence = tap_evidence(evidence);
        let at = self.taps.iter().position(|tap| *tap == evidence).unwrap_or_else(|| {
            if self.taps.len() < MAX_TAPS {
                self.taps.push(evidence);
                return self.taps.len() - 1;
            }
            MAX_TAPS
        });
        u8::try_from(at).unwrap_or(TAP)
    }
}

/// What of the evidence is the tap's: all but the IP ID, which is the packet's own.
fn tap_evidence(evidence: &Evidence) -> Evidence {
    Evidence { ip_id: 0, ..*evidence }
}

/// The same in four words, for comparing it with every packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature([u64; 4]);

impl Signature {
    #[inline]
    pub(crate) fn of(evidence: &Evidence) -> Self {
        let Evidence { tap, dst_mac, src_mac, vlans, ttl, tos, ip_id: _, encapsulation, carrier } = evidence;
        let mac = |[a, b, c, d, e, f]: [u8; 6]| u64::from_be_bytes([a, b, c, d, e, f, 0, 0]);
        let vlan = |id: Option<u16>| id.map_or(0, |id| 1 << 16 | u64::from(id));
        Self([
            mac(*dst_mac) | u64::from(tap.interface),
            mac(*src_mac) | u64::from(carrier.0),
            encapsulation.bits() | u64::from(tap.egress) << 63,
            vlan(vlans.outer) << 40 | vlan(vlans.inner) << 16 | u64::from(*ttl) << 8 | u64::from(*tos),
        ])
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
    fn learn(&mut self, taps: &[Evidence]) {
        if self.known == taps.len() {
            return;
        }
        self.known = taps.len();
        for (row, a) in self.pairs.iter_mut().zip(taps) {
            for (differs, b) in row.iter_mut().zip(taps) {
                *differs = Differs::between(a, b);
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

impl Slots {
    fn at(&self, seq: u64) -> usize {
        usize::try_from(seq).unwrap_or(0) & self.0.len().wrapping_sub(1)
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Slot> {
        self.0.get(self.at(seq))
    }

    fn get_mut(&mut self, seq: u64) -> Option<&mut Slot> {
        let at = self.at(seq);
        self.0.get_mut(at)
    }

    /// Remembers the first sighting of a packet, by the tap of that index.
    #[inline]
    pub(crate) fn remember(&mut self, seq: u64, packet: &RtpPacket, tap: u8) {
        let proof = if packet.fingerprint.hashed { HASHED } else { 0 };
        let cut = if packet.is_hash_cut { HASH_CUT } else { 0 };
        if let Some(slot) = self.get_mut(seq) {
            *slot = Slot {
                time: packet.time,
                number: low(packet.number),
                timestamp: packet.rtp.timestamp,
                fingerprint: packet.fingerprint.value,
                udp_len: packet.udp_len,
                ip_id: packet.evidence.ip_id,
                payload_type: packet.rtp.payload_type,
                tap: tap | proof | cut,
            };
        }
    }
}

impl Slot {
    /// The proof of a copy. A hash and a checksum say nothing about each other, nor do hashes of more and of less;
    /// then the rest decides.
    fn is_same_packet(&self, packet: &RtpPacket) -> bool {
        let hashed = self.tap & HASHED != 0;
        let is_cut = self.tap & HASH_CUT != 0 || packet.is_hash_cut;
        self.timestamp == packet.rtp.timestamp
            && self.payload_type == packet.rtp.payload_type
            && self.udp_len == packet.udp_len
            && (is_cut || hashed != packet.fingerprint.hashed || self.fingerprint == packet.fingerprint.value)
    }
}

fn slot_index(seq: u64) -> usize {
    usize::try_from(seq % DEPTH).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
fn low(number: u64) -> u32 {
    number as u32
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
        assert_eq!(window.taps().len(), MAX_TAPS);
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
    }
}
