//! A ring in memory that the kernel shares.

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::xdp_ring_offset;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::ring::Storage;

/// See the module. `E` is what the kernel keeps in the slots: `xdp_desc` or `u64`.
pub(crate) struct Mapped<E> {
    start: NonNull<c_void>,
    bytes: usize,
    size: u32,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<E>,
    entries: PhantomData<E>,
}

// SAFETY: the memory is shared with the kernel, not with a thread.
unsafe impl<E: Send> Send for Mapped<E> {}

impl<E> Mapped<E> {
    /// Maps the ring of `size` slots that the socket has at `page_offset`. The kernel said where in it what is.
    pub(crate) fn new(
        socket: BorrowedFd<'_>,
        page_offset: u64,
        size: u32,
        offsets: &xdp_ring_offset,
    ) -> io::Result<Self> {
        let at = |offset: u64| usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidData);
        let (producer, consumer) = (at(offsets.producer)?, at(offsets.consumer)?);
        let (flags, slots) = (at(offsets.flags)?, at(offsets.desc)?);
        let bytes = slots + size as usize * size_of::<E>();
        let word = size_of::<AtomicU32>();
        let are_inside = [producer, consumer, flags].iter().all(|at| at % word == 0 && at + word <= bytes);
        if !are_inside || !slots.is_multiple_of(align_of::<E>()) || !size.is_power_of_two() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let map_flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a null hint lets the kernel choose an address where nothing of ours is.
        let start = unsafe { mmap(ptr::null_mut(), bytes, protection, map_flags, socket, page_offset) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // SAFETY: all four are inside of the mapping, by the check above and by its length.
        let inside = |offset: usize| unsafe { start.cast::<u8>().add(offset) };
        Ok(Self {
            start,
            bytes,
            size,
            producer: inside(producer).cast(),
            consumer: inside(consumer).cast(),
            flags: inside(flags).cast(),
            slots: inside(slots).cast(),
            entries: PhantomData,
        })
    }

    /// Does the kernel want to be told of what was produced? Then nothing moves before it is.
    pub(crate) fn needs_wakeup(&self) -> bool {
        // SAFETY: in the mapping and aligned, by `new`; the kernel writes this word whole.
        let flags = unsafe { self.flags.as_ref() };
        // Relaxed: a hint. One that is seen late is seen in the next round.
        flags.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn slot(&self, index: u32) -> NonNull<E> {
        let slot = (index & (self.size - 1)) as usize;
        // SAFETY: below `size`, and the mapping holds that many slots.
        unsafe { self.slots.add(slot) }
    }
}

impl<E: Copy> Storage for Mapped<E> {
    type Entry = E;
    type Counter = AtomicU32;

    fn size(&self) -> u32 {
        self.size
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: in the mapping and aligned, by `new`; the kernel writes this word whole.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: the same.
        unsafe { self.consumer.as_ref() }
    }

    fn read(&self, index: u32) -> E {
        // SAFETY: in bounds and aligned; the protocol sees to it that the kernel is done with the slot. Any bit pattern
        // is an entry: they are integers.
        unsafe { self.slot(index).read() }
    }

    fn write(&self, index: u32, entry: E) {
        // SAFETY: in bounds and aligned; the protocol sees to it that the kernel does not look yet.
        unsafe { self.slot(index).write(entry) };
    }
}

impl<E> Drop for Mapped<E> {
    fn drop(&mut self) {
        // SAFETY: ours since `new`, and no reference into it outlives `self`. A failure could only leak.
        let _ = unsafe { munmap(self.start.as_ptr(), self.bytes) };
    }
}
