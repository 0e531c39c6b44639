//! The consumer's side of one BPF ring buffer, mapped into this process.
//!
//! ```text
//!   consumer page (ours to write)   producer page   data pages, mapped twice in a row
//!   [ consumer_pos ]                [ producer_pos ] [ 0 .. size ][ 0 .. size ]
//! ```
//!
//! The second mapping of the data makes a record that wraps contiguous. Positions are free-running byte
//! counts. Before every record stands a header of eight bytes: its length, with a busy bit until the kernel
//! has committed it (kernel/bpf/ringbuf.c).
//!
//! aya's own reader publishes its position after every record, which moves a cache line between the two CPUs
//! each time, and it tells nobody how full the ring is. This one looks ahead without consuming, publishes in
//! batches, and knows its occupancy.

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of the header before each record (`BPF_RINGBUF_HDR_SZ`).
const HEADER: usize = 8;
/// The kernel is still writing the record.
const BUSY: u32 = 1 << 31;
/// The kernel gave the record up.
const DISCARDED: u32 = 1 << 30;
/// Consumed bytes after which the position is published even inside a batch: a sixteenth of the smallest
/// useful ring, so that the kernel is not told "full" for space that has long been read.
pub(super) const PUBLISH_EVERY_DIVISOR: u64 = 16;

/// What is at a ring's head.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head<'a> {
    /// Nothing.
    Empty,
    /// A record whose writer is not done.
    Busy,
    /// A record.
    Record(&'a [u8]),
}

/// One ring.
pub(crate) struct Ring {
    consumer: Mapping,
    producer: Mapping,
    page_bytes: usize,
    size: u64,
    /// How far we have read.
    position: u64,
    /// The part of it that the kernel knows.
    published: u64,
    /// Last seen position of the producer.
    produced: u64,
}

impl Ring {
    /// Maps the ring behind `map`, whose data area has `size` bytes: a power of two, whole pages.
    pub(crate) fn map(map: BorrowedFd<'_>, size: u32) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let size_bytes = size as usize;
        let consumer = Mapping::new(map, 0, page_bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = Mapping::new(map, page_bytes as u64, page_bytes + 2 * size_bytes, ProtFlags::READ)?;
        let position = consumer.position().load(Ordering::Acquire);
        Ok(Self {
            consumer,
            producer,
            page_bytes,
            size: u64::from(size),
            position,
            published: position,
            produced: position,
        })
    }

    /// Learns how far the kernel has come. Later [`head`](Self::head)s see no further.
    pub(crate) fn refresh(&mut self) {
        // Acquire: pairs with the release store in __bpf_ringbuf_reserve; headers before this position
        // are initialised, busy bit included.
        self.produced = self.producer.position().load(Ordering::Acquire);
    }

    /// Bytes between what the kernel has reserved, as of the last refresh, and what we have read.
    pub(crate) fn waiting(&self) -> u64 {
        self.produced.wrapping_sub(self.position)
    }

    /// Bytes of the data area.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Is there anything that was not read? Costs one load of a line that the kernel writes.
    pub(crate) fn has_data(&self) -> bool {
        self.producer.position().load(Ordering::Relaxed) != self.position
    }

    /// Looks at the next record without consuming it. Skips what the kernel gave up.
    pub(crate) fn head(&mut self) -> Head<'_> {
        loop {
            if self.waiting() == 0 {
                return Head::Empty;
            }
            let offset = self.offset();
            // Acquire: pairs with the xchg in bpf_ringbuf_commit; the record's bytes are visible once its
            // busy bit is not set.
            let header = self.producer.header(self.page_bytes + offset).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return Head::Busy;
            }
            let len = (header & !DISCARDED) as usize;
            if header & DISCARDED != 0 {
                self.skip(len);
                continue;
            }
            return Head::Record(self.producer.bytes(self.page_bytes + offset + HEADER, len));
        }
    }

    /// Consumes the record of `len` bytes that [`head`](Self::head) showed.
    pub(crate) fn skip(&mut self, len: usize) {
        self.position = self.position.wrapping_add(((HEADER + len) as u64).next_multiple_of(8));
        if self.position.wrapping_sub(self.published) >= self.size / PUBLISH_EVERY_DIVISOR {
            self.publish();
        }
    }

    /// Gives what was consumed back to the kernel.
    pub(crate) fn publish(&mut self) {
        if self.position != self.published {
            // Release: our reads of the records come before the kernel may overwrite them. Pairs with the
            // acquire load of consumer_pos in __bpf_ringbuf_reserve.
            self.consumer.position().store(self.position, Ordering::Release);
            self.published = self.position;
        }
    }

    fn offset(&self) -> usize {
        usize::try_from(self.position & (self.size - 1)).unwrap_or(0)
    }
}

/// A shared mapping of some pages of a ring.
pub(super) struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the memory is shared with the kernel, not with a thread; it may be read from any one thread at a
// time, which `&mut Ring` and the atomics see to.
unsafe impl Send for Mapping {}

// SAFETY: shared by reference, its memory is reached only through atomics and what they hand over.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        bytes: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        // SAFETY: a null hint lets the kernel choose an address where nothing of ours is.
        let start = unsafe { mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, offset) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, bytes })
    }

    /// Where a `T` is, `offset` bytes from the start.
    pub(super) fn at<T>(&self, offset: usize) -> NonNull<T> {
        let is_inside = offset + size_of::<T>() <= self.bytes && offset.is_multiple_of(align_of::<T>());
        assert!(is_inside, "a position outside its mapping");
        // SAFETY: in bounds by the assertion.
        unsafe { self.start.cast::<u8>().add(offset) }.cast()
    }

    /// The position at the start of the first page.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned and at least a page long, and the kernel writes this word
        // whole. On 64-bit systems, the only ones supported, it is the kernel's `unsigned long`.
        unsafe { self.start.cast::<AtomicU64>().as_ref() }
    }

    /// The first word of a record's header.
    fn header(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.bytes, "a ring position outside its mapping");
        // SAFETY: in bounds and aligned by the assertion; the kernel writes this word whole.
        let header = unsafe { self.start.cast::<u8>().add(offset) }.cast::<AtomicU32>();
        // SAFETY: the same.
        unsafe { header.as_ref() }
    }

    /// A committed record.
    fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset + len <= self.bytes, "a ring record outside its mapping");
        // SAFETY: in bounds by the assertion.
        let start = unsafe { self.start.cast::<u8>().add(offset) };
        // SAFETY: in bounds by the assertion, and the kernel does not touch a committed record before we
        // publish a position beyond it, which needs `&mut` of the ring that this borrows from.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours since `new`, and no reference into it outlives `self`. A failure could only leak.
        let _ = unsafe { munmap(self.start.as_ptr(), self.bytes) };
    }
}
