//! What the two program types have in common: a frame in some memory, at some interface.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};

use super::frame::{Frame, Linear};
use super::opaque::{opaque_pointer, unknown};

/// A frame as a program type presents it.
pub(crate) trait Source: Sized {
    /// Does it leave the host here?
    const EGRESS: bool;

    /// The same, of which nothing is known to the compiler.
    fn anew(&self) -> Self;

    /// The directly readable part.
    fn linear(&self) -> Frame<Linear>;

    /// Length of the frame, all pieces together.
    fn wire_len(&self) -> u32;

    /// Index of the interface.
    fn ifindex(&self) -> u32;

    /// Tag control information of a VLAN tag that travels beside the frame's bytes.
    fn offloaded_tag(&self) -> Option<u16>;

    /// Copies the frame's first `len` bytes, from whatever pieces. Did it work?
    ///
    /// # Safety
    ///
    /// `to` must point to `len` writable bytes, and `len` must not be zero.
    unsafe fn copy_to(&self, to: *mut u8, len: u32) -> bool;
}

impl Source for XdpContext {
    const EGRESS: bool = false;

    #[inline(always)]
    fn anew(&self) -> Self {
        Self::new(opaque_pointer(self.ctx).cast_mut())
    }

    #[inline(always)]
    fn linear(&self) -> Frame<Linear> {
        Frame(Linear {
            start: self.data() as *const u8,
            end: self.data_end() as *const u8,
            unknown: unknown(self.ifindex()),
        })
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        // SAFETY: the context is the one this program was called with.
        let len = unsafe { bpf_xdp_get_buff_len(self.ctx) };
        len as u32
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ingress_ifindex() as u32
    }

    /// A card that strips tags keeps them from XDP: its `rxvlan` offload has to be off for them to be seen.
    #[inline(always)]
    fn offloaded_tag(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    unsafe fn copy_to(&self, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller vouches for the target; the kernel checks the range of the source.
        unsafe { bpf_xdp_load_bytes(self.ctx, 0, to.cast(), len) == 0 }
    }
}

impl Source for TcContext {
    const EGRESS: bool = true;

    #[inline(always)]
    fn anew(&self) -> Self {
        Self::new(opaque_pointer(self.skb.skb).cast_mut())
    }

    #[inline(always)]
    fn linear(&self) -> Frame<Linear> {
        Frame(Linear {
            start: self.data() as *const u8,
            end: self.data_end() as *const u8,
            unknown: unknown(self.ifindex()),
        })
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the whole call, and the field may be read (struct __sk_buff).
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn offloaded_tag(&self) -> Option<u16> {
        // SAFETY: as above.
        let present = unsafe { (*self.skb.skb).vlan_present };
        if present == 0 {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { (*self.skb.skb).vlan_tci } as u16)
    }

    #[inline(always)]
    unsafe fn copy_to(&self, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller vouches for the target; the kernel checks the range of the source.
        unsafe { bpf_skb_load_bytes(self.as_ptr(), 0, to.cast(), len) == 0 }
    }
}
