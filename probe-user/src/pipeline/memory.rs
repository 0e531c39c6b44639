//! Memory for many streams: chunks that never move, in huge pages where they can be had, and asked for ahead of use.
//!
//! A line of memory that nobody asked for in time costs as much as a packet may; asked for a batch ahead, a tenth. With 4
//! KiB pages half of it is the page tables': 1,000,000 streams are 150,000 pages, or a few hundred huge ones.

/// Elements of a chunk.
const CHUNK: usize = 1 << 14;

/// A list that grows by chunks: what is in it stays where it is, and growth costs the same however long it is.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Slab<T> {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    pub(super) fn push(&mut self, value: T) {
        if self.len == self.chunks.len() * CHUNK {
            self.chunks.push(huge(CHUNK));
        }
        if let Some(chunk) = self.chunks.get_mut(self.len / CHUNK) {
            chunk.push(value);
            self.len += 1;
        }
    }

    /// Takes one out; the last takes its place.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<T> {
        let last = self.len.checked_sub(1).filter(|last| at <= *last)?;
        let moved = self.chunks.get_mut(last / CHUNK)?.pop()?;
        self.len = last;
        match self.get_mut(at) {
            Some(place) => Some(std::mem::replace(place, moved)),
            None => Some(moved),
        }
    }

    /// Takes all out, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.len = 0;
        std::mem::take(&mut self.chunks).into_iter().flatten()
    }
}

/// An empty list with room for so many, for which the kernel is asked to use huge pages.
fn huge<T>(capacity: usize) -> Vec<T> {
    let chunk: Vec<T> = Vec::with_capacity(capacity);
    advise_huge(chunk.as_ptr().cast(), capacity * size_of::<T>());
    chunk
}

/// So many zeros, in huge pages likewise.
pub(super) fn huge_zeros(count: usize) -> Vec<u64> {
    let zeros = vec![0_u64; count];
    advise_huge(zeros.as_ptr().cast(), count * size_of::<u64>());
    zeros
}

/// Asks for huge pages (Linux 2.6.38) where `transparent_hugepage` is `madvise`, the usual. It is advice: who does not get
/// them has smaller ones.
fn advise_huge(start: *const u8, bytes: usize) {
    const PAGE: usize = 2 << 20;
    let begin = (start as usize).next_multiple_of(PAGE);
    let end = (start as usize + bytes) / PAGE * PAGE;
    if begin >= end {
        return;
    }
    // SAFETY: the caller's allocation spans `start..start + bytes`, and the advice changes nothing in it.
    unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_HUGEPAGE) };
}

const LINE: usize = 64;

/// Asks for the lines of memory that something is in.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    let mut offset = 0;
    while offset < size_of::<T>() {
        prefetch_line(start.wrapping_add(offset));
        offset += LINE;
    }
}

/// The same of octets whose number is not known before.
#[inline]
pub(super) fn prefetch_octets(octets: &[u8]) {
    let lines = octets.as_ptr_range();
    let mut line = lines.start.wrapping_sub(lines.start as usize % LINE);
    while line < lines.end {
        prefetch_line(line.cast());
        line = line.wrapping_add(LINE);
    }
}

/// Asks for one line of memory.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction never faults, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

/// Asks for one line of memory.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(crate) fn prefetch_line(address: *const i8) {
    // SAFETY: the instruction never faults, whatever the address, and changes neither memory, flags nor stack.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(readonly, nostack, preserves_flags));
    }
}

/// There is no stable way to say it elsewhere; the processor finds out by itself.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
pub(crate) fn prefetch_line(_: *const i8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_is_a_list_whose_last_fills_gaps() {
        let (mut slab, mut list) = (Slab::new(), Vec::new());
        for value in 0..2 * CHUNK + 3 {
            slab.push(value);
            list.push(value);
        }
        for at in [0, CHUNK, 2 * CHUNK, CHUNK - 1, 2 * CHUNK - 2] {
            assert_eq!(slab.swap_remove(at), Some(list.swap_remove(at)));
        }
        assert_eq!((slab.swap_remove(list.len()), slab.len()), (None, list.len()));
        slab.push(7);
        list.push(7);
        assert_eq!(slab.get(list.len() - 1), list.last());
        assert_eq!(slab.drain().collect::<Vec<_>>(), list);
        assert_eq!((slab.len(), slab.get(0)), (0, None));
    }
}
