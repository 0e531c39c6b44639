//! The two kinds of memory a frame can be read from, as byte sources for the shared parser.
//!
//! The verifier admits a load only if it saw a comparison that bounds it, on the same register, on every path.
//! Each load therefore carries its own check; [`Memory::window`] is one check for a whole header.

use probe_ebpf::parse::{Bytes, FORGOTTEN, Header};

use super::opaque::{forget, opaque};

/// Bytes copied for a frame whose headers are in several pieces. Ethernet, two tags, IPv4 with all options,
/// UDP, RTP with all contributors and what the fingerprint hashes: 14 + 8 + 60 + 8 + 72 + 32 = 194.
pub(crate) const COPIED_HEAD: usize = 256;

/// Memory that a frame, or its head, is in.
pub(crate) trait Memory {
    /// The address of `N` bytes at `offset`, if they are all there.
    fn window<const N: usize>(&self, offset: usize) -> Option<Window<N>>;
    /// Bytes that can be read.
    fn len(&self) -> usize;
    /// Any number that the verifier does not know, in all 64 bits.
    fn unknown(&self) -> u64;
}

/// A frame in some memory, as the shared parser reads it.
#[derive(Clone, Copy)]
pub(crate) struct Frame<M>(pub(crate) M);

/// `N` readable bytes.
#[derive(Clone, Copy)]
pub(crate) struct Window<const N: usize>(*const u8);

impl<const N: usize> Window<N> {
    /// Reads a `T` at `OFFSET`, in the byte order of the wire.
    #[inline(always)]
    pub(crate) fn read<T: Plain, const OFFSET: usize>(self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N) };
        // SAFETY: whoever made the window checked all its N bytes, the assertion above bounds this read, and
        // any bit pattern is a T.
        unsafe { self.0.add(OFFSET).cast::<T>().read_unaligned() }
    }
}

impl<const N: usize> Header for Window<N> {
    #[inline(always)]
    fn be8<const AT: usize>(&self) -> u8 {
        self.read::<u8, AT>()
    }

    #[inline(always)]
    fn be16<const AT: usize>(&self) -> u16 {
        u16::from_be(self.read::<u16, AT>())
    }

    #[inline(always)]
    fn be32<const AT: usize>(&self) -> u32 {
        u32::from_be(self.read::<u32, AT>())
    }
}

/// Types of which any bit pattern is a value.
///
/// # Safety
///
/// No padding, no invalid bit pattern, no pointer.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an unsigned integer has neither padding nor invalid patterns.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// The directly readable part of a frame: `data` to `data_end` of the context.
#[derive(Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) start: *const u8,
    pub(crate) end: *const u8,
    /// See [`Memory::unknown`].
    pub(crate) unknown: u64,
}

impl Memory for Linear {
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<Window<N>> {
        // As pointers: on integers the compiler would rearrange the sum, and the verifier admits no arithmetic
        // with the end of a packet.
        let at = self.start.wrapping_add(offset);
        if at.wrapping_add(N) > self.end {
            return None;
        }
        Some(Window(at))
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.end.addr() - self.start.addr()
    }

    #[inline(always)]
    fn unknown(&self) -> u64 {
        self.unknown
    }
}

/// The first bytes of a frame, copied to scratch memory.
#[derive(Clone, Copy)]
pub(crate) struct Copied {
    pub(crate) bytes: *const [u8; COPIED_HEAD],
    pub(crate) len: usize,
    /// See [`Memory::unknown`].
    pub(crate) unknown: u64,
}

impl Memory for Copied {
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<Window<N>> {
        // Bounded by the memory, not by `len`: the verifier cannot relate the two and would follow both ways of
        // every comparison. Whoever parses compares the end of what was parsed with `len`, once. Opaque, so that
        // the comparison is made on the register that is used.
        let offset = opaque(offset as u64) as usize;
        if offset > COPIED_HEAD - N {
            return None;
        }
        Some(Window(self.bytes.cast::<u8>().wrapping_add(offset)))
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn unknown(&self) -> u64 {
        self.unknown
    }
}

impl<M: Memory> Bytes for Frame<M> {
    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<impl Header> {
        self.0.window::<N>(offset)
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        end <= self.0.len()
    }

    #[inline(always)]
    fn be8(&self, offset: usize) -> Option<u8> {
        self.0.window::<1>(offset).map(|w| w.read::<u8, 0>())
    }

    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.0.window::<2>(offset).map(|w| u16::from_be(w.read::<u16, 0>()))
    }

    #[inline(always)]
    fn be32(&self, offset: usize) -> Option<u32> {
        self.0.window::<4>(offset).map(|w| u32::from_be(w.read::<u32, 0>()))
    }

    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        forget(offset as u64, self.0.unknown()) as usize & (FORGOTTEN - 1)
    }
}
