//! All CPUs' rings as one sequence of records in the order of kernel time.
//!
//! ```text
//!   CPU 0   slots: heads of RTP ─┐
//!           BPF ring: packets   ─┤   earliest first,          one record after the other
//!   CPU 1   slots               ─┼─▶ in runs, up to the ─────▶ decoder, analysis
//!           BPF ring            ─┘   horizon
//! ```
//!
//! A stream's packets may hop between CPUs, and a SIP answer must come before the media that it announces,
//! so rings are merged by the time in the record, not drained one after the other. What makes the merge exact:
//!
//! 1. the kernel stamps a record *after* it has reserved it;
//! 2. the reader takes its horizon *before* it looks how far each ring was reserved, and leaves what is younger than
//!    [`GRACE_NS`](probe_ebpf::slots::GRACE_NS) for the next round.
//!
//! A record that this look does not see was therefore stamped after the horizon, and everything up to the
//! horizon can be handed out, earliest first. A record still being written stops the round, but not for ever ([`PATIENCE_NS`]):
//! where its CPU was taken away meanwhile, only its ring waits in the end, and it comes late. Whole packets are
//! stamped just before their record is copied in, so one of them may follow media that is up to that copy, some
//! microseconds, younger.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use probe_ebpf::record::{MediaHead4, MediaHead6, PacketHead, kind};
use probe_ebpf::slots::{HEAD, SLOT_BYTES, TAIL};

use super::ring::{Head, Ring};
use super::rings::{Gauges, Record};
use super::slots::{Next, Slots, Storage};

/// The rings of all CPUs.
pub(super) struct Merge<S> {
    sources: Vec<Source<S>>,
    /// Earliest unread record of each ring that has one in this round.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    /// The horizon from which on each ring's next record has been one that is still being written.
    unwritten_since: Vec<Option<u64>>,
    malformed: u64,
}

/// How long all rings wait for a record that is being written, which takes less than a microsecond, unless its CPU does not
/// run: the hypervisor has others to serve, or firmware has something to do. Meanwhile the rings of the other CPUs fill.
const PATIENCE_NS: u64 = 2_000_000;

impl<S: Storage> Merge<S> {
    pub(super) fn new(slots: Vec<Slots<S>>, packets: Vec<Ring>) -> Self {
        let sources: Vec<_> =
            slots.into_iter().map(Source::Heads).chain(packets.into_iter().map(Source::Packets)).collect();
        Self {
            heads: BinaryHeap::with_capacity(sources.len()),
            unwritten_since: vec![None; sources.len()],
            sources,
            malformed: 0,
        }
    }

    /// Bytes of each ring, in the order of the gauges.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> {
        self.sources.iter().map(Source::bytes)
    }

    /// Is there anything that was not read? A load for each ring.
    pub(super) fn has_data(&self) -> bool {
        self.sources.iter().any(Source::has_data)
    }

    /// Records that were none.
    pub(super) fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Starts a round: learns where the kernel is and what is next in each ring. False if some ring's next record is
    /// still being written, whose time nobody knows, and has not been for long.
    fn refresh(&mut self, horizon: u64, gauges: &Gauges) -> bool {
        self.heads.clear();
        let mut complete = true;
        for (index, (source, unwritten)) in self.sources.iter_mut().zip(&mut self.unwritten_since).enumerate()
        {
            gauges.note(index, source.refresh());
            let next = source.next();
            *unwritten = if next == Next::Busy { unwritten.or(Some(horizon)) } else { None };
            complete &= unwritten.is_none_or(|since| horizon.saturating_sub(since) >= PATIENCE_NS);
            if let Next::At(time_ns) = next {
                self.heads.push(Reverse((time_ns, index)));
            }
        }
        complete
    }

    /// Hands out up to `limit` records, earliest first, none stamped after `horizon`, which was taken before. Returns how
    /// many.
    pub(super) fn poll(
        &mut self,
        horizon: u64,
        limit: usize,
        gauges: &Gauges,
        consume: &mut impl FnMut(Record<'_>),
    ) -> usize {
        let mut left = limit;
        if self.refresh(horizon, gauges) {
            while left > 0 {
                let Some(Reverse((time_ns, index))) = self.heads.pop() else { break };
                if time_ns > horizon {
                    break;
                }
                // A run of one ring, up to the next one's turn: nearly always all there is.
                let until = self.heads.peek().map_or(horizon, |Reverse((other, _))| horizon.min(*other));
                let Some(source) = self.sources.get_mut(index) else { break };
                let (taken, next) = source.take(until, left, &mut self.malformed, consume);
                left -= taken;
                match next {
                    Next::Empty => {}
                    Next::Busy => break,
                    Next::At(time_ns) => self.heads.push(Reverse((time_ns, index))),
                }
            }
        }
        self.sources.iter_mut().for_each(Source::publish);
        limit - left
    }
}

/// A ring of either kind.
enum Source<S> {
    /// Heads of RTP.
    Heads(Slots<S>),
    /// Everything else.
    Packets(Ring),
}

impl<S: Storage> Source<S> {
    fn has_data(&self) -> bool {
        match self {
            Self::Heads(slots) => slots.has_data(),
            Self::Packets(ring) => ring.has_data(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Heads(slots) => slots.bytes(),
            Self::Packets(ring) => ring.size(),
        }
    }

    /// Learns how far the kernel is. Returns the bytes that wait.
    fn refresh(&mut self) -> u64 {
        match self {
            Self::Heads(slots) => {
                slots.refresh();
                slots.waiting() * u64::from(SLOT_BYTES)
            }
            Self::Packets(ring) => {
                ring.refresh();
                ring.waiting()
            }
        }
    }

    fn next(&mut self) -> Next {
        match self {
            Self::Heads(slots) => slots.next(),
            Self::Packets(ring) => match ring.head() {
                Head::Empty => Next::Empty,
                Head::Busy => Next::Busy,
                Head::Record(bytes) => Next::At(time_of(bytes)),
            },
        }
    }

    /// Hands out records that were stamped up to `until`, at most `limit`. Returns how many, and what is next.
    #[inline]
    fn take(
        &mut self,
        until: u64,
        limit: usize,
        malformed: &mut u64,
        consume: &mut impl FnMut(Record<'_>),
    ) -> (usize, Next) {
        let ring = match self {
            Self::Heads(slots) => {
                return slots.take(until, limit, |head, rest| {
                    if let Some(rest) = rest {
                        consume(Record::Media6(&MediaHead6::from_ne_bytes(&joined(head, rest))));
                        return;
                    }
                    let head = MediaHead4::from_ne_bytes(head);
                    if head.common.kind & kind::MASK == kind::MEDIA4 {
                        consume(Record::Media4(&head));
                    } else {
                        *malformed += 1;
                    }
                });
            }
            Self::Packets(ring) => ring,
        };
        let mut taken = 0;
        loop {
            let (len, time_ns) = match ring.head() {
                Head::Record(bytes) => {
                    let time_ns = time_of(bytes);
                    if time_ns <= until && taken < limit {
                        *malformed += u64::from(!hand_out(bytes, consume));
                    }
                    (bytes.len(), time_ns)
                }
                Head::Empty => return (taken, Next::Empty),
                Head::Busy => return (taken, Next::Busy),
            };
            if time_ns > until || taken == limit {
                return (taken, Next::At(time_ns));
            }
            ring.skip(len);
            taken += 1;
        }
    }

    fn publish(&mut self) {
        match self {
            Self::Heads(slots) => slots.publish(),
            Self::Packets(ring) => ring.publish(),
        }
    }
}

/// Every record begins with its time. One that is too short for that is malformed and due at once.
fn time_of(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |time| u64::from_ne_bytes(*time))
}

/// A record of two slots.
fn joined(head: &[u8; HEAD], rest: &[u8; TAIL]) -> [u8; size_of::<MediaHead6>()] {
    let mut bytes = [0; size_of::<MediaHead6>()];
    bytes.iter_mut().zip(head.iter().chain(rest)).for_each(|(to, from)| *to = *from);
    bytes
}

/// Decodes a record of a BPF ring. False if it is none.
fn hand_out(record: &[u8], consume: &mut impl FnMut(Record<'_>)) -> bool {
    let Some(&kind) = record.get(8) else { return false };
    match kind & kind::MASK {
        kind::PACKET => {
            let Some((head, frame)) = record.split_first_chunk() else { return false };
            let head = PacketHead::from_ne_bytes(head);
            let Some(frame) = frame.get(..head.captured_len as usize) else { return false };
            consume(Record::Packet(&head, frame));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use probe_ebpf::slots::width;

    use super::super::slots::tests::Memory;
    use super::*;

    fn handed(record: &[u8]) -> Option<u64> {
        let mut time = None;
        hand_out(record, &mut |record| time = Some(record.time_ns())).then(|| time.unwrap())
    }

    fn record(kind: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[..8].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[8] = kind;
        bytes
    }

    #[test]
    fn heads_of_either_width_are_handed_out_and_what_is_none_is_counted() {
        let memory = Memory::new(8);
        let mut merge = Merge::new(vec![Slots::new(Arc::clone(&memory))], Vec::new());
        let gauges = Gauges::new(merge.sizes());
        let kinds = [kind::MEDIA6, kind::MEDIA4, kind::MEDIA4_TWO_TAGS | kind::HASHED, kind::PACKET];
        let mut handed = Vec::new();
        for lap in 0..5 {
            for (kind, time_ns) in kinds.into_iter().zip(1..) {
                memory.commit(memory.reserve(width(kind)).unwrap(), kind, time_ns);
            }
            merge.poll(9, 9, &gauges, &mut |record| {
                handed.push(match record {
                    Record::Media4(head) => (head.common.time_ns, head.common.kind, [head.dst; 2]),
                    Record::Media6(head) => {
                        let last = u64::from(head.flow_label) << 32 | u64::from(head.inner_tagged) << 16;
                        assert_eq!(last | u64::from(head.inner_vlan), head.common.time_ns);
                        (head.common.time_ns, head.common.kind, [[0; 4]; 2])
                    }
                    Record::Packet(..) => panic!("no slot has one"),
                });
            });
            assert_eq!(merge.malformed(), lap + 1);
        }
        let each = [(1, kinds[0], [[0; 4]; 2]), (2, kinds[1], [[0; 4]; 2]), (3, kinds[2], [[0; 4]; 2])];
        assert_eq!(handed, each.repeat(5));
    }

    #[test]
    fn a_packet_is_handed_out() {
        assert_eq!(handed(&record(kind::PACKET, 24)), Some(77));
    }

    #[test]
    fn a_record_of_the_wrong_length_or_kind_is_refused() {
        for len in 0..24 {
            assert_eq!(handed(&record(kind::PACKET, len.max(9))[..len]), None, "a packet of {len} bytes");
        }
        for kind in [kind::MEDIA4, kind::MEDIA6, 9] {
            assert_eq!(handed(&record(kind, 88)), None);
        }
        assert_eq!(handed(&[]), None);
    }

    #[test]
    fn a_packet_that_claims_more_than_its_record_holds_is_refused() {
        let mut packet = record(kind::PACKET, 24 + 10);
        packet[16..20].copy_from_slice(&11_u32.to_ne_bytes());
        assert_eq!(handed(&packet), None);
        packet[16..20].copy_from_slice(&10_u32.to_ne_bytes());
        assert_eq!(handed(&packet), Some(77));
    }

    #[test]
    fn a_record_that_is_not_written_for_long_holds_up_its_own_ring_only() {
        let memories = [Memory::new(8), Memory::new(8)];
        let slots = memories.iter().map(|memory| Slots::new(Arc::clone(memory))).collect();
        let mut merge = Merge::new(slots, Vec::new());
        let gauges = Gauges::new(merge.sizes());
        let mut taken = |horizon| {
            let mut times = Vec::new();
            merge.poll(horizon, 9, &gauges, &mut |record| times.push(record.time_ns()));
            times
        };
        let [late, other] = &memories;
        let unwritten = late.reserve(1).unwrap();
        for time_ns in [7, 9] {
            other.commit(other.reserve(1).unwrap(), kind::MEDIA4, time_ns);
        }
        assert!(taken(10).is_empty() && taken(9 + PATIENCE_NS).is_empty());
        assert_eq!(taken(10 + PATIENCE_NS), [7, 9]);
        other.commit(other.reserve(1).unwrap(), kind::MEDIA4, 11 + PATIENCE_NS);
        late.commit(unwritten, kind::MEDIA4, 8);
        assert_eq!(taken(11 + PATIENCE_NS), [8, 11 + PATIENCE_NS]);
        // The next one has all the time again.
        late.reserve(1).unwrap();
        other.commit(other.reserve(1).unwrap(), kind::MEDIA4, 12 + PATIENCE_NS);
        assert!(taken(12 + 2 * PATIENCE_NS).is_empty());
    }

    /// Three CPUs, each somewhere between reserving, stamping and committing, and a reader that takes its horizon some
    /// time before it looks: whatever the order, records come by their time, each once.
    #[test]
    fn records_of_several_cpus_come_by_their_time_whoever_is_late() {
        #[derive(Clone, Copy)]
        enum Doing {
            Nothing,
            Reserved(u64, u8),
            Stamped(u64, u8, u64),
        }
        for seed in 0..200 {
            let mut random = Steps(seed * 2 + 1);
            let memories: Vec<_> = (0..3).map(|_| Memory::new(64)).collect();
            let slots = memories.iter().map(|memory| Slots::new(Arc::clone(memory))).collect();
            let mut merge = Merge::new(slots, Vec::new());
            let gauges = Gauges::new(merge.sizes());
            let (mut doing, mut stamped, mut times) = ([Doing::Nothing; 3], Vec::new(), Vec::new());
            let mut horizon = None;
            for now in 1..3_000 {
                let who = random.below(4);
                let (Some(memory), Some(doing)) = (memories.get(who), doing.get_mut(who)) else {
                    // The reader: first the clock, in a later step the rings.
                    horizon = match horizon {
                        None => Some(now),
                        Some(horizon) => {
                            let mut note = |record: Record<'_>| times.push(record.time_ns());
                            merge.poll(horizon, 1 + random.below(9), &gauges, &mut note);
                            None
                        }
                    };
                    continue;
                };
                *doing = match *doing {
                    Doing::Nothing => {
                        let kind = [kind::MEDIA4, kind::MEDIA6][random.below(2)];
                        let index = memory.reserve(width(kind));
                        index.map_or(Doing::Nothing, |index| Doing::Reserved(index, kind))
                    }
                    Doing::Reserved(index, kind) => {
                        stamped.push(now);
                        Doing::Stamped(index, kind, now)
                    }
                    Doing::Stamped(index, kind, time_ns) => {
                        memory.commit(index, kind, time_ns);
                        Doing::Nothing
                    }
                };
            }
            assert!(times.len() > 100, "seed {seed}: {} records", times.len());
            assert_eq!(times[..], stamped[..times.len()], "seed {seed}");
        }
    }

    /// A generator of steps (xorshift64), so that a failure can be repeated.
    struct Steps(u64);

    impl Steps {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % bound
        }
    }
}
