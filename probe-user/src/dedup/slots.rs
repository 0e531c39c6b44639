//! The first sightings of a window's packets: eight octets each, as long as packets come as their sender sends them.
//!
//! ```text
//!   in order     ▪──▪──▪──▪──▪──▪──●     ● the newest packet, in full
//!                                        ▪ what is its own: fingerprint, nanoseconds and frames since the one before
//!   a gap        ▪──▪──▪──◆    ▪──▪──●   ◆ the end of an earlier chain, in full
//! ```
//!
//! In a chain, a packet follows the one before it by one number, by as many ticks as all of them, with an IP ID that goes up
//! by as much, and with the same length, payload type and tap. From its end, which is known in full, every packet of
//! it is told exactly: copies are proven and explained by what they are, never by an estimate. What comes out of order, after
//! a loss or otherwise than expected ends a chain. A stream that does so all the time (lengths that vary, IP IDs
//! at random) has wide slots, of 24 octets, and no chains.

use crate::packet::{Nanos, RtpPacket};

/// Slots of a window that has seen few packets yet.
const FIRST: usize = 8;
/// By how much they grow when they are used up. By two would be four sizes on the way to [`WINDOW`], whose pieces lie
/// about between those of other streams when they are given back: 44 octets a stream.
const GROWTH: usize = 4;
/// Chains and packets out of order that are kept beside the newest chain: more take as much room as wide slots.
const MOST_ENDS: usize = 24;

/// Slots of one that has seen many.
pub(super) const WINDOW: usize = 128;

const HASHED: u8 = 0x80;
const HASH_CUT: u8 = 0x40;
const TAP: u8 = !(HASHED | HASH_CUT);

/// The first sighting of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(super) time: Nanos,
    /// The lower half: two frames of one window are less than 2^32 apart.
    pub(super) number: u32,
    timestamp: u32,
    fingerprint: u16,
    udp_len: u16,
    pub(super) ip_id: u16,
    payload_type: u8,
    /// Index of the tap's signature, [`super::window::MAX_TAPS`] if there was no room; the upper bits say that the
    /// fingerprint is a hash, and that it is of less than it should be.
    marks: u8,
}

impl Slot {
    /// Of a packet that the tap of that index saw.
    #[inline]
    pub(super) fn of(packet: &RtpPacket, tap: u8) -> Self {
        Self {
            time: packet.time,
            number: low(packet.number),
            timestamp: packet.rtp.timestamp,
            fingerprint: packet.fingerprint.value,
            udp_len: packet.udp_len,
            ip_id: packet.evidence.ip_id,
            payload_type: packet.rtp.payload_type,
            marks: tap | marks(packet),
        }
    }

    /// Index of the tap that saw it.
    pub(super) fn tap(&self) -> u8 {
        self.marks & TAP
    }

    /// The proof of a copy. A hash and a checksum say nothing about each other, nor do hashes of more and of less;
    /// then the rest decides.
    pub(super) fn is_same_packet(&self, packet: &RtpPacket) -> bool {
        let hashed = self.marks & HASHED != 0;
        let is_cut = self.marks & HASH_CUT != 0 || packet.is_hash_cut;
        self.timestamp == packet.rtp.timestamp
            && self.payload_type == packet.rtp.payload_type
            && self.udp_len == packet.udp_len
            && (is_cut || hashed != packet.fingerprint.hashed || self.fingerprint == packet.fingerprint.value)
    }

    fn to_words(self) -> [u64; 3] {
        let Self { time, number, timestamp, fingerprint, udp_len, ip_id, payload_type, marks } = self;
        let rest = u64::from(udp_len) << 16 | u64::from(ip_id) << 32 | u64::from(payload_type) << 48;
        [
            time.0,
            u64::from(number) << 32 | u64::from(timestamp),
            u64::from(fingerprint) | rest | u64::from(marks) << 56,
        ]
    }

    #[expect(clippy::cast_possible_truncation, reason = "takes the fields out of the words")]
    fn from_words([time, numbers, rest]: [u64; 3]) -> Self {
        Self {
            time: Nanos(time),
            number: (numbers >> 32) as u32,
            timestamp: numbers as u32,
            fingerprint: rest as u16,
            udp_len: (rest >> 16) as u16,
            ip_id: (rest >> 32) as u16,
            payload_type: (rest >> 48) as u8,
            marks: (rest >> 56) as u8,
        }
    }
}

/// What a packet is to the one before it in its chain, and its fingerprint.
#[derive(Clone, Copy, Debug)]
struct Word(u64);

impl Word {
    /// Frames of the capture between two packets of a stream: 2^21 are 100 million a second at 20 ms.
    const FRAMES: u32 = 21;
    /// Nanoseconds between them: 2^27 are 134 ms.
    const NS: u32 = 27;

    /// Of a packet that comes so much later. `None` if that is too much, or backwards.
    #[inline]
    fn new(fingerprint: u16, frames: u32, ns: i64) -> Option<Self> {
        // What is backwards has its uppermost bit set.
        let (ns, frames) = (ns.cast_unsigned(), u64::from(frames));
        let fits = ns >> Self::NS | frames >> Self::FRAMES == 0;
        fits.then_some(Self(u64::from(fingerprint) | frames << 16 | ns << (16 + Self::FRAMES)))
    }

    /// Of a packet that is the first of its chain.
    fn first(fingerprint: u16) -> Self {
        Self(u64::from(fingerprint))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lowest field")]
    fn fingerprint(self) -> u16 {
        self.0 as u16
    }

    #[expect(clippy::cast_possible_truncation, reason = "has 21 bits")]
    fn frames(self) -> u32 {
        (self.0 >> 16) as u32 & ((1 << Self::FRAMES) - 1)
    }

    fn ns(self) -> u64 {
        self.0 >> (16 + Self::FRAMES)
    }
}

/// By how much the packets of a chain advance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Steps {
    timestamp: u32,
    ip_id: u16,
}

impl Steps {
    fn between(before: &Slot, slot: &Slot) -> Self {
        Self {
            timestamp: slot.timestamp.wrapping_sub(before.timestamp),
            ip_id: slot.ip_id.wrapping_sub(before.ip_id),
        }
    }

    /// The word of a packet that goes on by these steps.
    fn word(self, before: &Slot, slot: &Slot) -> Option<Word> {
        let is_alike = Self::between(before, slot) == self
            && slot.udp_len == before.udp_len
            && slot.payload_type == before.payload_type
            && slot.marks == before.marks;
        if !is_alike {
            return None;
        }
        Word::new(slot.fingerprint, slot.number.wrapping_sub(before.number), slot.time.since(before.time))
    }
}

/// The last packet of a chain, and how the chain came there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    seq: u64,
    slot: Slot,
    /// `None` of a packet that is a chain by itself.
    steps: Option<Steps>,
}

/// See the module. As many as the window holds, and a power of two.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    /// One word a slot, by number; three if they are wide.
    words: Box<[u64]>,
    is_wide: bool,
    newest: End,
    /// Of chains before the newest; those that have left the window may still be there.
    ends: Vec<End>,
}

impl Slots {
    /// Begins with a packet.
    pub(super) fn new(seq: u64, slot: Slot) -> Self {
        let newest = End { seq, slot, steps: None };
        let mut slots =
            Self { words: vec![0; FIRST].into_boxed_slice(), is_wide: false, newest, ends: Vec::new() };
        slots.set(seq, Word::first(slot.fingerprint), &slot);
        slots
    }

    /// Packets that there is room for.
    pub(super) fn len(&self) -> usize {
        self.words.len() / self.octets_by_eight()
    }

    fn octets_by_eight(&self) -> usize {
        if self.is_wide { 3 } else { 1 }
    }

    /// The sighting of a packet that the window holds.
    pub(super) fn get(&self, seq: u64) -> Slot {
        if self.is_wide {
            return self.wide(seq);
        }
        let later = self.ends.iter().filter(|end| end.seq >= seq);
        let End { seq: end, mut slot, steps } =
            later.min_by_key(|end| end.seq).copied().unwrap_or(self.newest);
        let Steps { timestamp, ip_id } = steps.unwrap_or_default();
        for seq in seq + 1..=end {
            let word = self.word(seq);
            slot.time.0 = slot.time.0.wrapping_sub(word.ns());
            slot.number = slot.number.wrapping_sub(word.frames());
            slot.timestamp = slot.timestamp.wrapping_sub(timestamp);
            slot.ip_id = slot.ip_id.wrapping_sub(ip_id);
        }
        slot.fingerprint = self.word(seq).fingerprint();
        slot
    }

    /// Remembers a packet that is newer than all others.
    pub(super) fn append(&mut self, seq: u64, slot: Slot) {
        let before = self.newest;
        let steps = before.steps.unwrap_or_else(|| Steps::between(&before.slot, &slot));
        let is_next = seq == before.seq + 1;
        let word = steps.word(&before.slot, &slot).filter(|_| is_next);
        // After a gap they go on by the same steps, as far as is known.
        let steps = if is_next { word.map(|_| steps) } else { before.steps };
        self.newest = End { seq, slot, steps };
        if word.is_none() {
            self.keep(before, seq);
        }
        self.set(seq, word.unwrap_or(Word::first(slot.fingerprint)), &slot);
    }

    /// Remembers a packet that is older than the newest.
    pub(super) fn insert(&mut self, seq: u64, slot: Slot) {
        self.keep(End { seq, slot, steps: None }, self.newest.seq);
        self.set(seq, Word::first(slot.fingerprint), &slot);
    }

    /// Keeps the end of a chain, as long as the window reaches back to it.
    #[cold]
    fn keep(&mut self, end: End, top: u64) {
        if self.is_wide {
            return;
        }
        let from = (top + 1).saturating_sub(super::window::DEPTH);
        self.ends.retain(|end| end.seq >= from);
        if end.seq >= from {
            self.ends.push(end);
        }
        if self.ends.len() > MOST_ENDS {
            self.widen();
        }
    }

    /// Gives every packet a slot of its own that says all of it.
    #[cold]
    fn widen(&mut self) {
        let slots = self.words.len();
        let mut wide = vec![0; 3 * slots].into_boxed_slice();
        let top = self.newest.seq;
        for seq in (top + 1).saturating_sub(slots as u64)..=top {
            let at = self.at(seq);
            if let Some(words) = wide.get_mut(3 * at..3 * at + 3) {
                words.copy_from_slice(&self.get(seq).to_words());
            }
        }
        (self.words, self.is_wide, self.ends) = (wide, true, Vec::new());
    }

    /// Sees to it that so many numbers up to the newest can be told apart.
    #[cold]
    pub(super) fn grow(&mut self, numbers: usize) {
        let mut slots = self.len();
        while slots < numbers {
            slots *= GROWTH;
        }
        self.words = laid_out(&self.words, self.octets_by_eight(), slots, self.newest.seq);
    }

    fn at(&self, seq: u64) -> usize {
        slot_of(seq) & self.len().wrapping_sub(1)
    }

    fn word(&self, seq: u64) -> Word {
        Word(self.words.get(self.at(seq)).copied().unwrap_or_default())
    }

    fn wide(&self, seq: u64) -> Slot {
        let at = 3 * self.at(seq);
        let words = self.words.get(at..).and_then(|words| words.first_chunk());
        words.copied().map(Slot::from_words).unwrap_or_default()
    }

    fn set(&mut self, seq: u64, word: Word, slot: &Slot) {
        let at = self.at(seq);
        if self.is_wide {
            if let Some(words) = self.words.get_mut(3 * at..3 * at + 3) {
                words.copy_from_slice(&slot.to_words());
            }
        } else if let Some(place) = self.words.get_mut(at) {
            *place = word.0;
        }
    }

    /// Is it known how the newest chain goes on, or does that not matter?
    pub(super) fn are_orderly(&self) -> bool {
        self.is_wide || self.newest.steps.is_some()
    }

    /// What a run takes along.
    pub(super) fn lend(&mut self) -> Tail {
        let End { slot, steps, .. } = self.newest;
        let Steps { timestamp, ip_id } = steps.unwrap_or_default();
        Tail {
            words: std::mem::take(&mut self.words),
            number: slot.number,
            timestamp_step: timestamp,
            ip_id: slot.ip_id,
            ip_id_step: ip_id,
            udp_len: slot.udp_len,
            marks: slot.marks,
            is_wide: self.is_wide,
        }
    }

    /// The ends of chains, which are what is left beside the run that took the slots along.
    pub(super) fn into_ends(self) -> Vec<End> {
        self.ends
    }

    /// The same, whole again but for what the run gives back: as they were lent, when `seq` was the newest.
    pub(super) fn of_rest(ends: Vec<End>, seq: u64, payload_type: u8, tail: &Tail) -> Self {
        let slot = Slot { udp_len: tail.udp_len, payload_type, marks: tail.marks, ..Slot::default() };
        let steps = Steps { timestamp: tail.timestamp_step, ip_id: tail.ip_id_step };
        let newest = End { seq, slot, steps: Some(steps) };
        Self { words: Box::default(), is_wide: tail.is_wide, newest, ends }
    }

    /// Goes on where a run of `packets` has come to; the last came at `time` and bore `timestamp`.
    pub(super) fn take_back(&mut self, tail: &mut Tail, packets: u64, time: Nanos, timestamp: u32) {
        self.words = std::mem::take(&mut tail.words);
        let seq = self.newest.seq + packets;
        self.newest.seq = seq;
        self.newest.slot = if self.is_wide {
            self.wide(seq)
        } else {
            let fingerprint = self.word(seq).fingerprint();
            let Slot { udp_len, payload_type, marks, .. } = self.newest.slot;
            Slot {
                time,
                number: tail.number,
                timestamp,
                fingerprint,
                udp_len,
                ip_id: tail.ip_id,
                payload_type,
                marks,
            }
        };
    }
}

/// The slots of a run, and what of the newest packet the next one is held against.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    words: Box<[u64]>,
    number: u32,
    timestamp_step: u32,
    ip_id: u16,
    ip_id_step: u16,
    udp_len: u16,
    marks: u8,
    is_wide: bool,
}

impl Tail {
    /// Does the packet that comes `ns` and `ticks` after the newest go on as the ones before it? Then [`Tail::append`] takes
    /// what this gives. Wide slots take any, but for the first whose fingerprint is a hash: `hashed` says that there were some.
    #[inline]
    pub(crate) fn link(&self, packet: &RtpPacket, ns: i64, ticks: u32, hashed: bool) -> Option<Linked> {
        if self.is_wide {
            return (hashed || !packet.fingerprint.hashed).then_some(Linked(Word(0)));
        }
        let is_alike = ticks == self.timestamp_step
            && packet.evidence.ip_id == self.ip_id.wrapping_add(self.ip_id_step)
            && packet.udp_len == self.udp_len
            && marks(packet) == self.marks & !TAP;
        if !is_alike {
            return None;
        }
        let frames = low(packet.number).wrapping_sub(self.number);
        Word::new(packet.fingerprint.value, frames, ns).map(Linked)
    }

    /// Remembers the next packet.
    #[inline]
    pub(crate) fn append(&mut self, packet: &RtpPacket, linked: Linked) {
        let at = usize::from(packet.rtp.seq);
        if self.is_wide {
            let at = 3 * (at & (self.words.len() / 3).wrapping_sub(1));
            if let Some(words) = self.words.get_mut(at..at + 3) {
                words.copy_from_slice(&Slot::of(packet, self.marks & TAP).to_words());
            }
            return;
        }
        let Linked(Word(word)) = linked;
        let at = at & self.words.len().wrapping_sub(1);
        if let Some(place) = self.words.get_mut(at) {
            *place = word;
        }
        (self.number, self.ip_id) = (low(packet.number), packet.evidence.ip_id);
    }

    /// Makes room for more packets than there are, all of them in use: the newest bears the number before `next`. Says
    /// for how many; the most stands for any number, and `None` says that it was so before.
    #[cold]
    pub(crate) fn grow(&mut self, next: u16) -> Option<u64> {
        let each = if self.is_wide { 3 } else { 1 };
        let held = self.words.len() / each;
        let slots = Some(GROWTH * held).filter(|slots| (GROWTH..=WINDOW).contains(slots))?;
        // Slots go round with the lower half of a number.
        self.words = laid_out(&self.words, each, slots, u64::from(next.wrapping_sub(1)) + (1 << 16));
        Some(if slots == WINDOW { u64::MAX } else { (slots - held) as u64 })
    }

    /// The memory that the packet of this number will need.
    #[inline]
    pub(crate) fn beyond(&self, seq: u16) -> Option<&u64> {
        let each = if self.is_wide { 3 } else { 1 };
        self.words.get(each * (usize::from(seq) & (self.words.len() / each).wrapping_sub(1)))
    }
}

/// The words of as many numbers up to `top` as have some, each so many, in so many slots.
fn laid_out(words: &[u64], each: usize, slots: usize, top: u64) -> Box<[u64]> {
    let held = words.len() / each;
    let mut room = vec![0; slots * each].into_boxed_slice();
    let place = |seq: u64, slots: usize| each * (slot_of(seq) & slots.wrapping_sub(1));
    for seq in (top + 1).saturating_sub(held as u64)..=top {
        let (from, to) = (place(seq, held), place(seq, slots));
        if let (Some(from), Some(to)) = (words.get(from..from + each), room.get_mut(to..to + each)) {
            to.copy_from_slice(from);
        }
    }
    room
}

/// A packet that goes on as the ones before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linked(Word);

fn marks(packet: &RtpPacket) -> u8 {
    let proof = if packet.fingerprint.hashed { HASHED } else { 0 };
    let cut = if packet.is_hash_cut { HASH_CUT } else { 0 };
    proof | cut
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is kept")]
pub(super) fn low(number: u64) -> u32 {
    number as u32
}

fn slot_of(seq: u64) -> usize {
    usize::try_from(seq).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::window::DEPTH;
    use crate::rtp::testing::packet;
    use proptest::prelude::*;

    /// What may be otherwise about a packet than about the one before it.
    #[derive(Clone, Copy, Debug)]
    enum Change {
        Nothing,
        Lost(u64),
        Late,
        Delay(u64),
        Frames(u64),
        IpId(u16),
        Length(u16),
        Type(u8),
        Tap(u8),
        Ticks(u32),
        Hashed,
        Restart,
    }

    fn change() -> impl Strategy<Value = Change> {
        use Change::*;
        let rare = prop_oneof![
            (1_u64..200).prop_map(Lost),
            Just(Late),
            (0_u64..300_000_000).prop_map(Delay),
            (0_u64..5_000_000).prop_map(Frames),
            any::<u16>().prop_map(IpId),
            (0_u16..3).prop_map(Length),
            (0_u8..3).prop_map(Type),
            (0_u8..8).prop_map(Tap),
            (0_u32..1_000).prop_map(Ticks),
            Just(Hashed),
            Just(Restart),
        ];
        prop_oneof![8 => Just(Nothing), 1 => rare]
    }

    #[derive(Clone, Copy, Debug, Default)]
    struct Shift {
        ns: u64,
        frames: u64,
        ip_id: u16,
        length: u16,
        payload_type: u8,
        ticks: u32,
    }

    fn shifted(seq: u64, by: Shift) -> RtpPacket {
        let mut packet = packet(seq);
        packet.delay(by.ns + seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 9_000_000);
        packet.number += by.frames;
        packet.evidence.ip_id = packet.evidence.ip_id.wrapping_add(by.ip_id);
        packet.udp_len += by.length;
        packet.rtp.payload_type = by.payload_type;
        packet.rtp.timestamp = packet.rtp.timestamp.wrapping_add(by.ticks);
        packet
    }

    /// The packets of a stream in order of arrival, the tap of each, and which of them are older than the newest.
    fn played(changes: &[Change]) -> Vec<(u64, Slot)> {
        let (mut seq, mut by, mut tap, mut held) = (1_000_u64, Shift::default(), 0, None);
        let mut arrivals = Vec::new();
        for change in changes {
            seq += 1;
            let mut hashed = false;
            match *change {
                Change::Nothing => {}
                Change::Lost(packets) => seq += packets,
                Change::Late => {
                    held = Some((seq, Slot::of(&shifted(seq, by), tap)));
                    continue;
                }
                Change::Delay(ns) => by.ns += ns,
                Change::Frames(frames) => by.frames += frames,
                Change::IpId(more) => by.ip_id = by.ip_id.wrapping_add(more),
                Change::Length(more) => by.length = more,
                Change::Type(payload_type) => by.payload_type = payload_type,
                Change::Tap(index) => tap = index,
                Change::Ticks(more) => by.ticks += more,
                Change::Hashed => hashed = true,
                Change::Restart => seq += 100_000,
            }
            let mut packet = shifted(seq, by);
            packet.fingerprint.hashed = hashed;
            arrivals.push((seq, Slot::of(&packet, tap)));
            arrivals.extend(held.take());
        }
        arrivals
    }

    /// Remembers all of them; what is told of those that are in the window, by number.
    fn told(slots: &mut Slots, arrivals: &[(u64, Slot)]) -> Vec<(u64, Slot, Slot)> {
        let (mut top, mut held) = (1_000_u64, std::collections::BTreeMap::new());
        held.insert(top, slots.newest.slot);
        let mut told = Vec::new();
        for &(seq, slot) in arrivals {
            if seq > top {
                slots.append(seq, slot);
                top = seq;
            } else if top - seq < DEPTH {
                slots.insert(seq, slot);
            } else {
                continue;
            }
            held.insert(seq, slot);
            let window = held.range((top + 1).saturating_sub(DEPTH)..);
            told.extend(window.map(|(seq, slot)| (*seq, *slot, slots.get(*seq))));
        }
        told
    }

    proptest! {
        /// Whatever happens to a stream, chains and wide slots say of each packet exactly what it was.
        #[test]
        fn chains_say_what_wide_slots_do(changes in prop::collection::vec(change(), 1..400)) {
            let first = Slot::of(&shifted(1_000, Shift::default()), 0);
            let arrivals = played(&changes);
            let mut chained = Slots::new(1_000, first);
            chained.grow(128);
            let mut wide = chained.clone();
            wide.widen();
            for slots in [&mut chained, &mut wide] {
                for (seq, was, is) in told(slots, &arrivals) {
                    prop_assert_eq!(was, is, "{}", seq);
                }
            }
        }
    }

    #[test]
    fn an_orderly_stream_takes_eight_octets_a_packet_and_one_that_never_is_takes_24() {
        let octets = |change: Change| {
            let mut slots = Slots::new(1_000, Slot::of(&packet(1_000), 0));
            slots.grow(128);
            let arrivals = played(&[change; 300]);
            assert_eq!(told(&mut slots, &arrivals).last().map(|(_, was, is)| was == is), Some(true));
            slots.words.len() * 8
        };
        assert_eq!((octets(Change::Nothing), octets(Change::IpId(7_001))), (1_024, 1_024));
        assert_eq!(octets(Change::Lost(1)), 3_072);
    }

    #[test]
    fn a_slot_is_three_words_and_back() {
        let slot = Slot::of(&packet(54_321), 7);
        assert_eq!((Slot::from_words(slot.to_words()), size_of::<Slot>()), (slot, 24));
    }
}
