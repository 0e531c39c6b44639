//! What the kernel hands over, record by record, and how the reader of it fares: the receive thread's side of a tap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use probe_ebpf::record::{MediaHead4, MediaHead6, PacketHead};
use probe_ebpf::slots::GRACE_NS;

use super::ages::{self, Ages, Taking};
use super::merge::Merge;
use super::ring::Ring;
use super::slots::{Mapped, Slots};
use crate::capture::clock;
use crate::capture::pace::Pace;

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

    /// Waits a little, as there was less than asked for. Returns for how long at most, the time until the thread has its turn
    /// again not counted.
    fn rest(&mut self) -> Duration;
}

/// The rings of all CPUs. Lives on the thread that receives.
pub struct RingReader {
    merge: Merge<Mapped>,
    gauges: Gauges,
    pace: Pace,
}

/// How full each ring or socket was, and how long records waited. Written by the reader, read by whoever reports.
pub(crate) struct Gauges(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rings: Box<[Gauge]>,
    ages: ages::Shared,
}

#[derive(Debug, Default)]
struct Gauge {
    waiting: AtomicU64,
    highest: AtomicU64,
    size: AtomicU64,
}

impl Gauges {
    /// One for each of these sizes, in bytes.
    pub(crate) fn new(sizes: impl Iterator<Item = u64>) -> Self {
        let rings = sizes.map(|size| Gauge { size: size.into(), ..Gauge::default() }).collect();
        Self(Arc::new(Shared { rings, ages: ages::Shared::new() }))
    }

    /// So many bytes wait in one of them.
    pub(crate) fn note(&self, index: usize, waiting: u64) {
        let Some(gauge) = self.0.rings.get(index) else { return };
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
        self.0.rings.iter().map(of).max().unwrap_or(0)
    }

    /// To count the records of a round.
    pub(crate) fn taking(&self) -> Taking<'_> {
        Taking::new(&self.0.ages)
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
pub struct Occupancies(Arc<Shared>);

impl Occupancies {
    /// One entry a ring; starts a new period for the highest values.
    pub fn take(&self) -> Vec<Occupancy> {
        let read = |gauge: &Gauge| Occupancy {
            waiting_bytes: gauge.waiting.load(Ordering::Relaxed),
            highest_bytes: gauge.highest.swap(0, Ordering::Relaxed),
            size_bytes: gauge.size.load(Ordering::Relaxed),
        };
        self.0.rings.iter().map(read).collect()
    }

    /// How long records waited to be taken since this was last called.
    pub fn take_ages(&self) -> Ages {
        self.0.ages.take()
    }
}

impl RingReader {
    pub(crate) fn new(slots: Vec<Slots<Mapped>>, packets: Vec<Ring>) -> Self {
        let merge = Merge::new(slots, packets);
        Self { gauges: Gauges::new(merge.sizes()), merge, pace: Pace::default() }
    }

    /// Is there anything to read? A load per ring: cheap enough to ask in a spin, and wrong only in saying
    /// yes to a record that is still being written, or that was written a moment ago.
    pub fn has_data(&self) -> bool {
        self.merge.has_data()
    }

    /// A handle for whoever reports how full the rings are.
    pub fn occupancies(&self) -> Occupancies {
        self.gauges.handle()
    }
}

impl Records for RingReader {
    /// Hands out up to `limit` records, earliest first, none stamped later than [`GRACE_NS`] before the call. Returns how
    /// many.
    ///
    /// The kernel gets the space back while this goes on, so a record is only lent for the call of
    /// `consume`.
    fn poll(&mut self, limit: usize, mut consume: impl FnMut(Record<'_>)) -> usize {
        let began_ns = clock::monotonic_ns();
        let mut taking = self.gauges.taking();
        let taken = self.merge.poll(began_ns.saturating_sub(GRACE_NS), limit, &self.gauges, &mut |record| {
            let stamp_ns = record.time_ns();
            consume(record);
            taking.taken(stamp_ns);
        });
        self.pace.count(taken, began_ns);
        taken
    }

    fn malformed(&self) -> u64 {
        self.merge.malformed()
    }

    fn fullest(&self) -> u64 {
        self.gauges.fullest()
    }

    fn rest(&mut self) -> Duration {
        let nap = self.pace.nap(clock::monotonic_ns());
        thread::sleep(nap);
        nap
    }
}
