//! The last packets of one stream: is this one new, late, or a copy of one that was seen?
//!
//! ```text
//!        oldest                                   newest = `top`
//!   seen  1 1 1 0 1 1 … 1 1 1 1 1 1 1 1 1 1 1 1 1 1     one bit a sequence number, 128 of them
//!                          └──────── 32 slots ──────┘   what is needed to prove a copy and to explain it
//! ```
//!
//! A bit that leaves on the left is final: the packet came, or it is lost. The caller gets each exactly once
//! and in sequence order, whatever the order of arrival, which is what loss statistics need.

use crate::packet::{Evidence, Nanos, RtpPacket};

/// Sequence numbers whose arrival is remembered; what comes later than that is no longer told from a copy.
/// RFC 3550 A.1 stops believing a sequence number at 100 (MAX_MISORDER).
const DEPTH: u64 = 128;
/// Packets of which enough is remembered to prove a copy: 640 ms at 20 ms a packet.
const SLOTS: usize = 32;
/// Distinct ways in which one stream's packets are seen, e.g. two taps and their tunnels.
const MAX_TAPS: usize = 8;

/// What a packet is to its stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// The first copy of this packet.
    First,
    /// The same packet again.
    Copy(Original),
    /// The same sequence number again, too long after for a proof or with all taps' memory used up.
    OldCopy,
    /// The same sequence number with another timestamp, payload type or payload: not a copy.
    Conflict,
    /// Older than anything remembered.
    TooOld,
}

/// What is known about the first copy of a packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Original {
    /// When it was seen.
    pub time: Nanos,
    /// Its frame number.
    pub number: u64,
    /// How it was seen.
    pub evidence: Evidence,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct DupWindow {
    top: u64,
    seen: u128,
    /// Bits of `seen` that belong to this stream; fewer than 128 at its start.
    filled: u64,
    slots: [Slot; SLOTS],
    taps: Vec<Evidence>,
}

/// One remembered packet. 32 bytes, so that two share a cache line.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    time: Nanos,
    number: u64,
    timestamp: u32,
    fingerprint: u16,
    udp_len: u16,
    ip_id: u16,
    payload_type: u8,
    /// Index of the tap's signature in `taps`; `MAX_TAPS` if there was no room.
    tap: u8,
    hashed: bool,
}

impl DupWindow {
    /// A window whose first packet has the extended sequence number `seq`.
    pub fn new(seq: u64, packet: &RtpPacket) -> Self {
        let mut window =
            Self { top: seq, seen: 1, filled: 1, slots: [Slot::default(); SLOTS], taps: Vec::new() };
        window.remember(seq, packet);
        window
    }

    /// Begins anew after the sequence numbers jumped. Returns what the window held through `settled`.
    pub fn restart(&mut self, seq: u64, packet: &RtpPacket, settled: impl FnMut(bool)) {
        self.drain(settled);
        (self.top, self.seen, self.filled) = (seq, 1, 1);
        self.remember(seq, packet);
    }

    /// Judges one packet. `settled` gets, in sequence order, every number that left the window: did it come?
    pub fn observe(&mut self, seq: u64, packet: &RtpPacket, settled: impl FnMut(bool)) -> Seen {
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
            self.seen |= bit;
            self.filled = self.filled.max(age + 1);
            if age < SLOTS as u64 {
                self.remember(seq, packet);
            }
            return Seen::First;
        }
        if age >= SLOTS as u64 {
            return Seen::OldCopy;
        }
        let slot = self.slots.get(slot_index(seq)).copied().unwrap_or_default();
        if !slot.is_same_packet(packet) {
            return Seen::Conflict;
        }
        match self.taps.get(usize::from(slot.tap)) {
            Some(tap) => Seen::Copy(Original {
                time: slot.time,
                number: slot.number,
                evidence: Evidence { ip_id: slot.ip_id, ..*tap },
            }),
            None => Seen::OldCopy,
        }
    }

    /// Hands out everything still in the window; it is empty afterwards.
    pub fn drain(&mut self, mut settled: impl FnMut(bool)) {
        for age in (0..self.filled).rev() {
            settled(self.seen & (1 << age) != 0);
        }
        self.filled = 0;
        self.seen = 0;
    }

    fn advance(&mut self, steps: u64, mut settled: impl FnMut(bool)) {
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
        let tap = self.tap(&packet.evidence);
        if let Some(slot) = self.slots.get_mut(slot_index(seq)) {
            *slot = Slot {
                time: packet.time,
                number: packet.number,
                timestamp: packet.rtp.timestamp,
                fingerprint: packet.fingerprint.value,
                udp_len: packet.udp_len,
                ip_id: packet.evidence.ip_id,
                payload_type: packet.rtp.payload_type,
                tap,
                hashed: packet.fingerprint.hashed,
            };
        }
    }

    /// The index of a tap's signature: its evidence but for the IP ID, which is the packet's own.
    fn tap(&mut self, evidence: &Evidence) -> u8 {
        let signature = Evidence { ip_id: 0, ..*evidence };
        let at = self.taps.iter().position(|tap| *tap == signature).unwrap_or_else(|| {
            if self.taps.len() < MAX_TAPS {
                self.taps.push(signature);
                return self.taps.len() - 1;
            }
            MAX_TAPS
        });
        u8::try_from(at).unwrap_or(u8::MAX)
    }
}

impl Slot {
    /// The proof of a copy. A hash and a checksum say nothing about each other; then the rest decides.
    fn is_same_packet(&self, packet: &RtpPacket) -> bool {
        self.timestamp == packet.rtp.timestamp
            && self.payload_type == packet.rtp.payload_type
            && self.udp_len == packet.udp_len
            && (self.hashed != packet.fingerprint.hashed || self.fingerprint == packet.fingerprint.value)
    }
}

fn slot_index(seq: u64) -> usize {
    usize::try_from(seq % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::testing::packet;
    use proptest::prelude::*;

    #[test]
    fn a_slot_is_half_a_cache_line() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    #[test]
    fn a_copy_names_its_original() {
        let first = packet(7);
        let mut window = DupWindow::new(7, &first);
        let mut copy = packet(7);
        copy.number = 99;
        copy.evidence.dst_mac = [9; 6];
        let original = Original { time: first.time, number: first.number, evidence: first.evidence };
        assert_eq!(window.observe(7, &copy, |_| ()), Seen::Copy(original));
    }

    #[test]
    fn another_payload_under_the_same_number_is_no_copy() {
        let mut window = DupWindow::new(7, &packet(7));
        let mut other = packet(7);
        other.fingerprint.value ^= 1;
        assert_eq!(window.observe(7, &other, |_| ()), Seen::Conflict);
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
