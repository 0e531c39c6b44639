//! How a head of RTP gets from a CPU to the reader: a ring of slots for each CPU, in memory that both sides map.
//!
//! ```text
//!   program, on its CPU              shared memory                          reader
//!   reserve: reserved = i + 1 ──▶ Positions [ reserved | consumed ]
//!   fill, then stamp        ────▶ Slot      [ head | sequence ] …
//!   commit: sequence = i + 1 ────────────────────────────▶ take while the sequence is the awaited one
//!                                                        ◀── consumed, once a batch
//! ```
//!
//! A [`MediaHead6`] takes two slots side by side, the first of the ring beside the last: 56 bytes of it
//! in one, the rest in the next, whose own sequence stays what it was. Both are reserved at once, and the sequence of the
//! first, written last, commits both.
//!
//! Index `i` counts slots since the start and never wraps; its slot is `i & (slots - 1)`. Nothing is ever reset:
//! what a slot held a lap ago has another sequence, and a new one has zero, which nothing awaits.
//!
//! **Commit.** The head is written before its sequence: in order on x86-64, by an exchange elsewhere. The reader's load of
//! the sequence acquires it. `consumed` is stored after the slots were read, and what the program writes depends on
//! having loaded it.
//!
//! **Order between CPUs.** The program reserves before it reads the clock, so whoever reads the clock first and `reserved`
//! after it knows that what is not reserved yet was stamped later, once the reservation is visible. It is a plain store: a
//! locked addition, which the next program would wait for with all the stores of this one before it, costs 12 ns of 70 a
//! packet. A store leaves its CPU within a microsecond, or when the CPU is interrupted, whatever the program is delayed
//! by. The reader therefore hands out what is older than [`GRACE_NS`]. A store that took longer would cost nothing but
//! the order of two records of two CPUs.
//!
//! **Who writes.** One program at a time on a CPU: all run with bottom halves off, which neither a softirq nor another
//! task of the CPU gets between, and so does BPF_PROG_TEST_RUN since Linux 6.3. On a PREEMPT_RT kernel that lets softirqs
//! preempt each other (6.18, if built so) that does not hold, neither here nor for the counters: there the tap is not to be
//! used.

use crate::record::{MediaHead4, MediaHead6, kind};

/// One record, in one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Slot {
    /// The record.
    pub head: MediaHead4,
    /// [`committed`] of the index that filled it last.
    pub sequence: u64,
}

/// How far the two sides of a CPU's ring are, each in a cache line of its own: neither takes the other's away by
/// writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Positions {
    /// Slots ever reserved. Written by the programs of the CPU.
    pub reserved: u64,
    /// Unused.
    pub padding: [u64; 7],
    /// Slots ever consumed. Written by the reader; wrong, it could lose records and nothing else.
    pub consumed: u64,
    /// Unused.
    pub end: [u64; 7],
}

/// Bytes of a [`Slot`].
pub const SLOT_BYTES: u32 = 64;

/// Age from which a record's reservation is visible to every CPU: see the module. Twenty times what a store takes at
/// worst, and a fiftieth of the reader's nap.
pub const GRACE_NS: u64 = 20_000;

/// Bytes of a record that its first slot holds.
pub const HEAD: usize = size_of::<MediaHead4>();
/// Bytes of a record of two slots that the second holds.
pub const TAIL: usize = size_of::<MediaHead6>() - HEAD;

/// Slots that a record of this [`kind`] takes.
#[inline(always)]
pub const fn width(kind: u8) -> u64 {
    if matches!(kind & kind::MASK, kind::MEDIA6 | kind::MEDIA4_TWO_TAGS) { 2 } else { 1 }
}

/// The sequence of a slot whose record with this index is complete.
#[inline(always)]
pub const fn committed(index: u64) -> u64 {
    index.wrapping_add(1)
}

const _: () = {
    assert!(size_of::<Slot>() == SLOT_BYTES as usize);
    assert!(TAIL <= HEAD);
    assert!(size_of::<Positions>() == 128);
    assert!(core::mem::offset_of!(Slot, sequence) == 56);
    assert!(core::mem::offset_of!(Positions, consumed) == 64);
};
