//! The memory that frames are received into, cut into chunks, and who owns each.
//!
//! ```text
//!             ┌────────── push ──────────┐
//!   spare ────┤                          ▼
//!     ▲       └─ fill ring ─▶ kernel ─▶ receive ring ─▶ held while it is read ─┐
//!     └────────────────────────── drop ───────────────────────────────────────┘
//! ```
//!
//! A [`Chunk`] is the right to one piece of this memory. It cannot be copied, and is made in two ways only: all of them
//! once, at the start, and one for each descriptor that the kernel gives back. A frame is read through the chunk that it
//! is in, so it cannot be read while the kernel may write it.

use std::io;
#[cfg(test)]
use std::ptr;

use probe_ebpf::Meta;

use super::pages::{Area, Pages};
use crate::pipeline::memory::prefetch_line;

/// The whole memory, shared by all queues of an interface.
pub(crate) struct Umem {
    area: Area,
    chunk_bytes: usize,
}

// SAFETY: the memory is read only through chunks, each of which has one owner; the rest of this never changes.
unsafe impl Send for Umem {}
// SAFETY: the same.
unsafe impl Sync for Umem {}

/// The right to one chunk. See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Chunk(u64);

impl Chunk {
    /// Where it begins, as the kernel counts.
    pub(crate) fn address(&self) -> u64 {
        self.0
    }
}

impl Umem {
    /// Memory for so many chunks of a power of two of bytes, in huge pages where they can be had, since a miss in the TLB
    /// costs as much as a frame.
    pub(crate) fn new(chunks: usize, chunk_bytes: usize) -> io::Result<Self> {
        let bytes = chunks.checked_mul(chunk_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { area: Area::new(bytes)?, chunk_bytes })
    }

    /// Where it is, for the kernel.
    pub(crate) fn start(&self) -> u64 {
        self.area.start().as_ptr().expose_provenance() as u64
    }

    /// Bytes of it.
    pub(crate) fn bytes(&self) -> usize {
        self.area.bytes()
    }

    /// Bytes of a chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// What pages it is in.
    pub(crate) fn pages(&self) -> Pages {
        self.area.pages()
    }

    /// All chunks from the `first`, so many. Each number may be asked for once: that is the caller's to see to.
    pub(crate) fn chunks(&self, first: usize, count: usize) -> impl Iterator<Item = Chunk> {
        let (most, chunk_bytes) = (self.bytes() / self.chunk_bytes, self.chunk_bytes);
        (first..first.saturating_add(count).min(most)).map(move |index| Chunk((index * chunk_bytes) as u64))
    }

    /// The chunk of a descriptor that the kernel just gave back: it no longer touches it. `None` if there is no such
    /// address.
    pub(crate) fn claim(&self, address: u64) -> Option<Chunk> {
        let chunk = address & !(self.chunk_bytes as u64 - 1);
        (chunk + self.chunk_bytes as u64 <= self.bytes() as u64).then_some(Chunk(chunk))
    }

    /// `len` bytes at `address`, which must be inside of `chunk`.
    pub(crate) fn read<'a>(&'a self, chunk: &'a Chunk, address: u64, len: usize) -> Option<&'a [u8]> {
        let offset = usize::try_from(address.checked_sub(chunk.0)?).ok()?;
        if offset.checked_add(len)? > self.chunk_bytes {
            return None;
        }
        let at = usize::try_from(chunk.0).ok()? + offset;
        // SAFETY: `at + len` is inside of the chunk, which is inside of the mapping.
        let start = unsafe { self.area.start().cast::<u8>().add(at) };
        // SAFETY: in bounds as above, initialised by the kernel (anonymous memory is zero before), and nobody writes it
        // while `chunk` is here and not with the kernel.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len) })
    }

    /// Asks for the lines of memory that the metadata and the headers of the frame at `address` are in, which another CPU
    /// wrote. Only asks: any number will do.
    pub(crate) fn prefetch(&self, address: u64) {
        let offset = usize::try_from(address).unwrap_or(0);
        let frame = self.area.start().as_ptr().cast::<i8>().wrapping_add(offset);
        prefetch_line(frame.wrapping_sub(Meta::BYTES));
        prefetch_line(frame);
    }

    /// Plays the kernel: writes into a chunk that a fill ring gave.
    #[cfg(test)]
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        let at = usize::try_from(address).unwrap();
        assert!(at + bytes.len() <= self.bytes());
        // SAFETY: in bounds by the assertion.
        let start = unsafe { self.area.start().cast::<u8>().add(at) };
        // SAFETY: in bounds, and the test holds the chunk.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_disjoint_and_inside() {
        let umem = Umem::new(8, 4096).unwrap();
        let addresses: Vec<_> = umem.chunks(2, 3).map(|chunk| chunk.address()).collect();
        assert_eq!(addresses, [8192, 12_288, 16_384]);
        assert!(umem.bytes() >= 8 * 4096);
    }

    #[test]
    fn a_descriptor_claims_the_chunk_it_points_into_and_none_beyond_the_end() {
        let umem = Umem::new(4, 2048).unwrap();
        assert_eq!(umem.claim(2048 + 256), Some(Chunk(2048)));
        assert_eq!(umem.claim(2047), Some(Chunk(0)));
        assert_eq!(umem.claim(umem.bytes() as u64), None);
        assert_eq!(umem.claim(u64::MAX - 4096), None);
    }

    #[test]
    fn a_frame_is_read_only_inside_of_its_chunk() {
        let umem = Umem::new(4, 2048).unwrap();
        umem.write(2048 + 256, b"frame");
        let chunk = umem.claim(2048 + 256).unwrap();
        assert_eq!(umem.read(&chunk, 2048 + 256, 5), Some(&b"frame"[..]));
        assert_eq!(umem.read(&chunk, 2048 + 256, 2048), None);
        assert_eq!(umem.read(&chunk, 2047, 1), None);
        assert_eq!(umem.read(&chunk, 4096, 0).map(<[u8]>::len), Some(0));
        assert_eq!(umem.read(&chunk, u64::MAX, 1), None);
    }
}
