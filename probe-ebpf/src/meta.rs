//! What stands before a frame that is redirected to a socket: what the program found out, so that userspace need not
//! ask again.
//!
//! ```text
//!   UMEM chunk   [ headroom ............ | Meta, 20 bytes | frame ............ ]
//!                                                         └ address of the receive descriptor
//! ```
//!
//! Written by the mirror program with `bpf_xdp_adjust_meta`, read at the descriptor's address less its size. In host
//! byte order. Shards are not chosen by the flow hash in it, but by the innermost flow, which a tunnel hides from the kernel.

/// See the module. 20 bytes, no padding: it stands on a multiple of four, and before Linux 6.0 metadata could not be longer
/// than 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Meta {
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) when the program saw the frame.
    pub time_ns: u64,
    /// The [hash](crate::flow::of_frame) of the frame's conversation; zero without usable layers, or where the frame's first
    /// piece ends before the ports.
    pub flow: u32,
    /// The [`Verdict`](crate::Verdict) as its number.
    pub verdict: u8,
    /// A [`point`](crate::record::point): which interface. Tags are not told here, they are in the frame.
    pub point: u8,
    /// Offset of the IP header; zero without usable layers.
    pub ip: u8,
    /// One if that is IPv6.
    pub v6: u8,
    /// Offset of the transport header.
    pub transport: u16,
    /// Bytes from there to the end of the IP datagram, by the IP length field.
    pub transport_len: u16,
}

impl Meta {
    /// Bytes before a frame.
    pub const BYTES: usize = size_of::<Self>();

    /// From the bytes before a frame.
    #[inline]
    pub fn from_ne_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [t0, t1, t2, t3, t4, t5, t6, t7, f0, f1, f2, f3, verdict, point, ip, v6, o0, o1, l0, l1] = *bytes;
        Self {
            time_ns: u64::from_ne_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            flow: u32::from_ne_bytes([f0, f1, f2, f3]),
            verdict,
            point,
            ip,
            v6,
            transport: u16::from_ne_bytes([o0, o1]),
            transport_len: u16::from_ne_bytes([l0, l1]),
        }
    }

    /// As the kernel writes it.
    #[inline]
    pub fn to_ne_bytes(self) -> [u8; Self::BYTES] {
        let Self { time_ns, flow, verdict, point, ip, v6, transport, transport_len } = self;
        let ([t0, t1, t2, t3, t4, t5, t6, t7], [f0, f1, f2, f3]) =
            (time_ns.to_ne_bytes(), flow.to_ne_bytes());
        let ([o0, o1], [l0, l1]) = (transport.to_ne_bytes(), transport_len.to_ne_bytes());
        [t0, t1, t2, t3, t4, t5, t6, t7, f0, f1, f2, f3, verdict, point, ip, v6, o0, o1, l0, l1]
    }
}

const _: () = {
    // bpf_xdp_adjust_meta wants a multiple of four.
    assert!(Meta::BYTES == 20);
    assert!(core::mem::offset_of!(Meta, flow) == 8);
    assert!(core::mem::offset_of!(Meta, verdict) == 12);
    assert!(core::mem::offset_of!(Meta, v6) == 15);
    assert!(core::mem::offset_of!(Meta, transport) == 16);
    assert!(core::mem::offset_of!(Meta, transport_len) == 18);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_it_was_written() {
        let bytes: [u8; Meta::BYTES] = core::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(Meta::from_ne_bytes(&bytes).to_ne_bytes(), bytes);
        let Meta { flow, verdict, point, ip, v6, transport, .. } = Meta::from_ne_bytes(&bytes);
        assert_eq!((verdict, point, ip, v6), (12, 13, 14, 15));
        assert_eq!((flow, transport), (u32::from_ne_bytes([8, 9, 10, 11]), u16::from_ne_bytes([16, 17])));
    }
}
