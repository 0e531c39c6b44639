//! The consumer's side of a CPU's ring of slots. The protocol, and why it holds, is in [`probe_ebpf::slots`].
//!
//! Where positions and slots are is the [`Storage`]'s business: mapped from the kernel, or memory of a test, so that loom
//! can walk through every interleaving with a producer.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use probe_ebpf::slots::{HEAD, Positions, SLOT_BYTES, TAIL, committed, width};
use rustix::mm::ProtFlags;

use super::ring::{Mapping, PUBLISH_EVERY_DIVISOR};

/// A word that two sides share.
pub(crate) trait Word {
    /// Reads it.
    fn load(&self, order: Ordering) -> u64;
    /// Writes it. Only the side whose word it is does.
    fn store(&self, value: u64, order: Ordering);
}

impl Word for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }

    fn store(&self, value: u64, order: Ordering) {
        Self::store(self, value, order);
    }
}

/// The memory of a ring.
///
/// A head is read without synchronisation. That is sound because [`Slots`] reads only what is committed, and the producer
/// writes it again only after it was released.
pub(crate) trait Storage {
    /// How the shared words are held.
    type Word: Word;

    /// Slots: a power of two.
    fn slots(&self) -> u64;
    /// Slots ever reserved.
    fn reserved(&self) -> &Self::Word;
    /// Slots ever consumed.
    fn consumed(&self) -> &Self::Word;
    /// The sequence of the slot `index & (slots - 1)`.
    fn sequence(&self, index: u64) -> &Self::Word;
    /// Reads what of a record is in it.
    fn head<T>(&self, index: u64, read: impl FnOnce(&[u8; HEAD]) -> T) -> T;
}

/// What comes next in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Empty,
    /// A record whose writer is not done.
    Busy,
    /// A record of this time.
    At(u64),
}

/// One CPU's ring.
pub(crate) struct Slots<S> {
    storage: S,
    /// How far we have read.
    position: u64,
    /// The part of it that the kernel knows.
    published: u64,
    /// Last seen position of the producer.
    reserved: u64,
}

impl<S: Storage> Slots<S> {
    /// Takes the consuming side, wherever it stands. There must be no other.
    pub(crate) fn new(storage: S) -> Self {
        let position = storage.consumed().load(Ordering::Relaxed);
        Self { storage, position, published: position, reserved: position }
    }

    /// Learns how far the kernel has come. Later looks see no further.
    pub(crate) fn refresh(&mut self) {
        // Acquire: what is asked of the slots comes after it. Nothing of a slot hangs on this word.
        self.reserved = self.storage.reserved().load(Ordering::Acquire);
    }

    /// Records that wait, as of the last refresh.
    pub(crate) fn waiting(&self) -> u64 {
        self.reserved.wrapping_sub(self.position).min(self.storage.slots())
    }

    /// Is there anything that was not read? Costs one load of a line that the kernel writes.
    pub(crate) fn has_data(&self) -> bool {
        self.storage.reserved().load(Ordering::Relaxed) != self.position
    }

    /// Bytes of all slots.
    pub(crate) fn bytes(&self) -> u64 {
        self.storage.slots() * u64::from(SLOT_BYTES)
    }

    /// What comes next.
    pub(crate) fn next(&self) -> Next {
        if self.waiting() == 0 {
            return Next::Empty;
        }
        // Acquire: pairs with the program's commit; the head is complete once its sequence is there.
        if self.storage.sequence(self.position).load(Ordering::Acquire) != committed(self.position) {
            return Next::Busy;
        }
        Next::At(self.storage.head(self.position, time_of))
    }

    /// Hands out the next records that were stamped up to `until`, at most `limit` of them: the head, and of a record of two
    /// slots the rest. Returns how many, and what comes next.
    pub(crate) fn take(
        &mut self,
        until: u64,
        limit: usize,
        mut consume: impl FnMut(&[u8; HEAD], Option<&[u8; TAIL]>),
    ) -> (usize, Next) {
        let mut taken = 0;
        loop {
            let next = self.next();
            match next {
                Next::At(time_ns) if time_ns <= until && taken < limit => {}
                _ => return (taken, next),
            }
            self.storage.head(self.position, |head| {
                let width = width(kind_of(head));
                if width == 1 {
                    consume(head, None);
                } else {
                    self.storage
                        .head(self.position.wrapping_add(1), |rest| consume(head, rest.first_chunk()));
                }
                self.position = self.position.wrapping_add(width);
            });
            taken += 1;
            if self.position.wrapping_sub(self.published) >= self.storage.slots() / PUBLISH_EVERY_DIVISOR {
                self.publish();
            }
        }
    }

    /// Gives what was consumed back to the kernel.
    pub(crate) fn publish(&mut self) {
        if self.position != self.published {
            // Release: our reads of the slots come before the kernel may overwrite them. Pairs with the program's load,
            // on which its stores depend.
            self.storage.consumed().store(self.position, Ordering::Release);
            self.published = self.position;
        }
    }
}

/// Every record begins with its time.
fn time_of(head: &[u8; HEAD]) -> u64 {
    head.first_chunk().map_or(0, |time| u64::from_ne_bytes(*time))
}

/// And then its kind.
fn kind_of(head: &[u8; HEAD]) -> u8 {
    head.get(8).copied().unwrap_or(0)
}

/// The positions of all CPUs, mapped.
pub(crate) struct MappedPositions(Mapping);

impl MappedPositions {
    /// Maps those of `cpus` CPUs.
    pub(crate) fn map(positions: BorrowedFd<'_>, cpus: u32) -> io::Result<Arc<Self>> {
        let bytes = cpus as usize * size_of::<Positions>();
        Ok(Arc::new(Self(Mapping::new(positions, 0, bytes, ProtFlags::READ | ProtFlags::WRITE)?)))
    }
}

/// A CPU's ring, mapped from the kernel.
pub(crate) struct Mapped {
    positions: Arc<MappedPositions>,
    slots: Mapping,
    cpu: usize,
    size: u64,
}

impl Mapped {
    /// Maps the slots of a CPU, which `bytes` are: a power of two, whole pages.
    pub(crate) fn map(
        positions: &Arc<MappedPositions>,
        slots: BorrowedFd<'_>,
        cpu: u32,
        bytes: u32,
    ) -> io::Result<Self> {
        let slots = Mapping::new(slots, u64::from(cpu) * u64::from(bytes), bytes as usize, ProtFlags::READ)?;
        let size = u64::from(bytes / SLOT_BYTES);
        Ok(Self { positions: Arc::clone(positions), slots, cpu: cpu as usize, size })
    }

    fn position(&self, field: usize) -> &AtomicU64 {
        let at = self.positions.0.at::<AtomicU64>(self.cpu * size_of::<Positions>() + field);
        // SAFETY: in the mapping and aligned; both sides write this word whole.
        unsafe { at.as_ref() }
    }

    fn slot(&self, index: u64) -> usize {
        // Below the size of the mapping, which is a `usize`.
        usize::try_from(index & (self.size - 1)).unwrap_or(0) * SLOT_BYTES as usize
    }
}

impl Storage for Mapped {
    type Word = AtomicU64;

    fn slots(&self) -> u64 {
        self.size
    }

    fn reserved(&self) -> &AtomicU64 {
        self.position(std::mem::offset_of!(Positions, reserved))
    }

    fn consumed(&self) -> &AtomicU64 {
        self.position(std::mem::offset_of!(Positions, consumed))
    }

    fn sequence(&self, index: u64) -> &AtomicU64 {
        let at: NonNull<AtomicU64> = self.slots.at(self.slot(index) + HEAD);
        // SAFETY: in the mapping and aligned; the program writes this word whole.
        unsafe { at.as_ref() }
    }

    fn head<T>(&self, index: u64, read: impl FnOnce(&[u8; HEAD]) -> T) -> T {
        let at: NonNull<[u8; HEAD]> = self.slots.at(self.slot(index));
        // SAFETY: in the mapping; the head is committed, and the program does not touch it before it is released.
        read(unsafe { at.as_ref() })
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
pub(crate) mod tests;
