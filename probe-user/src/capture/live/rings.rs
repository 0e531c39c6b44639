//! All CPUs' rings as one sequence of records in the order of kernel time.
//!
//! A stream's packets may hop between CPUs, and a SIP answer must come before the media that it announces,
//! so rings are merged by the time in the record, not drained one after the other. What makes the merge exact:
//!
//! 1. the kernel stamps a record *after* it has reserved it;
//! 2. the reader takes its horizon *before* it looks how far each ring was reserved.
//!
//! A record that this look does not see was therefore stamped after the horizon, and everything up to the
//! horizon can be handed out, earliest first. A record still being written stops the round. Whole packets are
//! stamped just before their record is copied in, so one of them may follow media of another CPU that is up to
//! that copy, some microseconds, younger.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use probe_ebpf::record::{MediaHead4, MediaHead6, PacketHead, kind};

use super::ring::{Head, Ring};
use crate::capture::clock;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// RTP over IPv4 under at most one VLAN tag.
    Media4(&'a MediaHead4),
    /// Other RTP.
    Media6(&'a MediaHead6),
    /// A whole frame.
    Packet(&'a PacketHead, &'a [u8]),
}

impl Record<'_> {
    /// When the kernel saw it.
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Media4(head) => head.common.time_ns,
            Self::Media6(head) => head.common.time_ns,
            Self::Packet(head, _) => head.time_ns,
        }
    }
}

/// Where the receive thread gets its records from.
pub trait Records {
    /// Hands out up to `limit` records, earliest first. Returns how many it took.
    fn poll(&mut self, limit: usize, consume: impl FnMut(Record<'_>)) -> usize;

    /// Records that were not what a record can be. They were read and are counted; nothing else of them is
    /// believed. Anything but zero is a bug.
    fn malformed(&self) -> u64;

    /// How full the fullest ring or socket was at the last look, in thousandths.
    fn fullest(&self) -> u64;

    /// Waits a little, as there was less than asked for.
    fn rest(&mut self);
}

/// How long an idle reader sleeps. At 1 Mpps a nap gathers 1,000 records of 64 bytes, a hundredth of the default
/// ring; sleeping less only costs CPU.
const NAP: Duration = Duration::from_millis(1);

/// The rings of all CPUs. Lives on the thread that receives.
pub struct RingReader {
    rings: Vec<Ring>,
    /// Earliest unread record of each ring that has one in this round.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    gauges: Gauges,
    malformed: u64,
}

/// How full each ring or socket was, written by the reader and read by whoever reports.
pub(crate) struct Gauges(Arc<[Gauge]>);

#[derive(Debug, Default)]
struct Gauge {
    waiting: AtomicU64,
    highest: AtomicU64,
    size: AtomicU64,
}

impl Gauges {
    /// One for each of these sizes, in bytes.
    pub(crate) fn new(sizes: impl Iterator<Item = u64>) -> Self {
        Self(sizes.map(|size| Gauge { size: size.into(), ..Gauge::default() }).collect())
    }

    /// So many bytes wait in one of them.
    pub(crate) fn note(&self, index: usize, waiting: u64) {
        let Some(gauge) = self.0.get(index) else { return };
        gauge.waiting.store(waiting, Ordering::Relaxed);
        if waiting > gauge.highest.load(Ordering::Relaxed) {
            gauge.highest.store(waiting, Ordering::Relaxed);
        }
    }

    /// How full the fullest was at the last look, in thousandths.
    pub(crate) fn fullest(&self) -> u64 {
        let of = |gauge: &Gauge| {
            gauge.waiting.load(Ordering::Relaxed) * 1_000 / gauge.size.load(Ordering::Relaxed).max(1)
        };
        self.0.iter().map(of).max().unwrap_or(0)
    }

    /// For whoever reports.
    pub(crate) fn handle(&self) -> Occupancies {
        Occupancies(Arc::clone(&self.0))
    }
}

/// How full a CPU's ring or a queue's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Bytes that waited at the reader's last look.
    pub waiting_bytes: u64,
    /// The most that waited since [`Occupancies::take`] was last called.
    pub highest_bytes: u64,
    /// Bytes the ring has.
    pub size_bytes: u64,
}

/// A view of the occupancy for another thread.
#[derive(Clone, Debug)]
pub struct Occupancies(Arc<[Gauge]>);

impl Occupancies {
    /// One entry a ring; starts a new period for the highest values.
    pub fn take(&self) -> Vec<Occupancy> {
        let read = |gauge: &Gauge| Occupancy {
            waiting_bytes: gauge.waiting.load(Ordering::Relaxed),
            highest_bytes: gauge.highest.swap(0, Ordering::Relaxed),
            size_bytes: gauge.size.load(Ordering::Relaxed),
        };
        self.0.iter().map(read).collect()
    }
}

impl RingReader {
    pub(crate) fn new(rings: Vec<Ring>) -> Self {
        let gauges = Gauges::new(rings.iter().map(Ring::size));
        Self { heads: BinaryHeap::with_capacity(rings.len()), rings, gauges, malformed: 0 }
    }

    /// Is there anything to read? A load per ring: cheap enough to ask in a spin, and wrong only in saying
    /// yes to a record that is still being written.
    pub fn has_data(&self) -> bool {
        self.rings.iter().any(Ring::has_data)
    }

    /// A handle for whoever reports how full the rings are.
    pub fn occupancies(&self) -> Occupancies {
        self.gauges.handle()
    }

    /// Starts a round: learns where the kernel is and what is at each ring's head. False if some ring's
    /// head is still being written, whose time nobody knows.
    fn refresh(&mut self) -> bool {
        self.heads.clear();
        let mut complete = true;
        for (index, ring) in self.rings.iter_mut().enumerate() {
            ring.refresh();
            self.gauges.note(index, ring.waiting());
            match ring.head() {
                Head::Empty => {}
                Head::Busy => complete = false,
                Head::Record(bytes) => self.heads.push(Reverse((time_of(bytes), index))),
            }
        }
        complete
    }
}

impl Records for RingReader {
    /// Hands out up to `limit` records, earliest first, none stamped after the call began. Returns how many.
    ///
    /// The kernel gets the space back while this goes on, so a record is only lent for the call of
    /// `consume`. Budget: 15 ns a record besides `consume`, measured by `voxlab xdp-cost`.
    fn poll(&mut self, limit: usize, mut consume: impl FnMut(Record<'_>)) -> usize {
        let horizon = clock::monotonic_ns();
        let mut left = limit;
        if self.refresh() {
            while left > 0 {
                let Some(mut head) = self.heads.peek_mut() else { break };
                let Reverse((time_ns, index)) = *head;
                if time_ns > horizon {
                    break;
                }
                let Some(ring) = self.rings.get_mut(index) else { break };
                let Head::Record(bytes) = ring.head() else { break };
                let len = bytes.len();
                if !hand_out(bytes, &mut consume) {
                    self.malformed += 1;
                }
                ring.skip(len);
                left -= 1;
                match ring.head() {
                    Head::Record(bytes) => *head = Reverse((time_of(bytes), index)),
                    Head::Empty => drop(PeekMut::pop(head)),
                    Head::Busy => break,
                }
            }
        }
        for ring in &mut self.rings {
            ring.publish();
        }
        limit - left
    }

    fn malformed(&self) -> u64 {
        self.malformed
    }

    fn fullest(&self) -> u64 {
        self.gauges.fullest()
    }

    fn rest(&mut self) {
        thread::sleep(NAP);
    }
}

/// Every record begins with its time. One that is too short for that is malformed and due at once.
fn time_of(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |time| u64::from_ne_bytes(*time))
}

/// Decodes a record. False if it is none.
fn hand_out(record: &[u8], consume: &mut impl FnMut(Record<'_>)) -> bool {
    let Some(&kind) = record.get(8) else { return false };
    match kind & kind::MASK {
        kind::MEDIA4 => match record.try_into() {
            Ok(bytes) => consume(Record::Media4(&MediaHead4::from_ne_bytes(bytes))),
            Err(_) => return false,
        },
        kind::MEDIA6 | kind::MEDIA4_TWO_TAGS => match record.try_into() {
            Ok(bytes) => consume(Record::Media6(&MediaHead6::from_ne_bytes(bytes))),
            Err(_) => return false,
        },
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
    fn a_record_of_each_kind_is_handed_out() {
        assert_eq!(handed(&record(kind::MEDIA4 | kind::HASHED, 56)), Some(77));
        assert_eq!(handed(&record(kind::MEDIA6, 88)), Some(77));
        assert_eq!(handed(&record(kind::MEDIA4_TWO_TAGS, 88)), Some(77));
        assert_eq!(handed(&record(kind::PACKET, 24)), Some(77));
    }

    #[test]
    fn a_record_of_the_wrong_length_or_kind_is_refused() {
        for len in (0..200).filter(|&len| len != 56) {
            assert_eq!(handed(&record(kind::MEDIA4, len.max(9))[..len]), None, "media of {len} bytes");
        }
        assert_eq!(handed(&record(9, 56)), None);
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
}
