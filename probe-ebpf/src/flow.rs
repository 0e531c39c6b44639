//! A number for a conversation: the same for both directions, in the kernel and in userspace.
//!
//! ```text
//!   address, port ── mix ──┐
//!                          sum ── mix ──▶ hash, 32 bits ──▶ bucket, the upper 8
//!   address, port ── mix ──┘
//! ```
//!
//! Each end is mixed before the two are added, so that 1:20000 with 2:30002 and 1:20002 with 2:30000 differ. It is asked of each
//! media frame, so it is three multiplications and no table. It is not seeded: it spreads load, it is no defence. Who
//! can choose ports can choose buckets.

use crate::parse::{Bytes, Fragment, Header as _, Layers, TCP, UDP};

/// How many buckets there are.
pub const BUCKETS: u32 = 256;

/// Odd numbers near 2^64 divided by the golden ratio, and by the square root of two.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD_AGAIN: u64 = 0xb504_f333_f9de_6485;

/// One end of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// IPv6, or IPv4-mapped (RFC 4291, 2.5.5.2): the upper half and the lower half as numbers.
    pub address: [u64; 2],
    /// Port; zero where there is none.
    pub port: u16,
}

impl End {
    /// Of an IPv4 address.
    #[inline(always)]
    pub const fn v4(address: u32, port: u16) -> Self {
        Self { address: [0, 0xffff << 32 | address as u64], port }
    }

    #[inline(always)]
    const fn mixed(self) -> u64 {
        let Self { address: [high, low], port } = self;
        // Of IPv4 the port falls beside the address, not upon it.
        let word = (high.wrapping_mul(SPREAD_AGAIN) ^ low ^ (port as u64) << 48).wrapping_mul(SPREAD);
        // A product depends on all bits at its top alone.
        word ^ word >> 32
    }
}

/// The hash of a conversation between two ends, in either order.
#[inline(always)]
pub const fn hash(a: End, b: End) -> u32 {
    (a.mixed().wrapping_add(b.mixed()).wrapping_mul(SPREAD_AGAIN) >> 32) as u32
}

/// Which of the [`BUCKETS`] a conversation is in.
#[inline(always)]
pub const fn bucket(hash: u32) -> u8 {
    (hash >> 24) as u8
}

/// The hash of the conversation that a frame belongs to: the outermost, if it is a tunnel's. Fragments have no ports, so a
/// datagram that is in several has the hash of its addresses in each. `None` if the frame ends before what is hashed.
#[inline(always)]
pub fn of_frame<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Option<u32> {
    let has_ports = matches!(layers.protocol, UDP | TCP) && matches!(layers.fragment, Fragment::None);
    let (src_port, dst_port) = if has_ports {
        let ports = frame.header::<4>(layers.transport)?;
        (ports.be16::<0>(), ports.be16::<2>())
    } else {
        (0, 0)
    };
    if layers.v6 {
        let ip = frame.header::<40>(layers.ip)?;
        let src = [word(ip.be32::<8>(), ip.be32::<12>()), word(ip.be32::<16>(), ip.be32::<20>())];
        let dst = [word(ip.be32::<24>(), ip.be32::<28>()), word(ip.be32::<32>(), ip.be32::<36>())];
        return Some(hash(End { address: src, port: src_port }, End { address: dst, port: dst_port }));
    }
    let ip = frame.header::<20>(layers.ip)?;
    Some(hash(End::v4(ip.be32::<12>(), src_port), End::v4(ip.be32::<16>(), dst_port)))
}

#[inline(always)]
const fn word(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use crate::sample::{Vec, ethernet, fragment, ipv4, ipv6, rtp, tcp, udp};

    const A: End = End::v4(0x0a00_0001, 20_000);
    const B: End = End::v4(0x0a00_0002, 30_000);
    const A6: End = End { address: [0x2001_0db8_0000_0000, 1], port: 20_000 };
    const B6: End = End { address: [0x2001_0db8_0000_0000, 2], port: 30_000 };

    fn of(frame: &[u8]) -> Option<u32> {
        of_frame(frame, &parse::ethernet(frame).unwrap())
    }

    #[test]
    fn both_directions_have_one_hash() {
        assert_eq!(hash(A, B), hash(B, A));
        assert_eq!(hash(A6, B6), hash(B6, A6));
        for (there, back) in [
            (udp(20_000, 30_000, &rtp(160)), udp(30_000, 20_000, &rtp(20))),
            (tcp(20_000, 30_000, &[1; 9]), tcp(30_000, 20_000, &[])),
        ] {
            let protocol = if there.len() == 20 + 9 { TCP } else { UDP };
            let frame = ethernet(&[], &ipv4(&[], 0, protocol, &there));
            let mut answer = ethernet(&[], &ipv4(&[], 0, protocol, &back));
            answer[26..34].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
            assert_eq!(of(&frame), Some(hash(A, B)));
            assert_eq!(of(&answer), Some(hash(A, B)));
        }
    }

    #[test]
    fn what_is_around_the_addresses_does_not_matter() {
        let datagram = udp(20_000, 30_000, &rtp(160));
        for tags in [&[][..], &[(0x8100, 100)], &[(0x88a8, 7), (0x8100, 100)]] {
            for options in [&[][..], &[1, 1, 1, 0]] {
                assert_eq!(of(&ethernet(tags, &ipv4(options, 0, UDP, &datagram))), Some(hash(A, B)));
            }
            assert_eq!(of(&ethernet(tags, &ipv6(&[], UDP, &datagram))), Some(hash(A6, B6)));
        }
    }

    #[test]
    fn every_fragment_of_a_datagram_has_the_hash_of_its_addresses() {
        let without_ports = |a: End, b: End| hash(End { port: 0, ..a }, End { port: 0, ..b });
        let datagram = udp(20_000, 30_000, &rtp(160));
        for field in [0x2000, 0x2002, 0x0004] {
            assert_eq!(of(&ethernet(&[], &ipv4(&[], field, UDP, &datagram))), Some(without_ports(A, B)));
        }
        for field in [0x0001, 0x0010] {
            let frame = ethernet(&[], &ipv6(&[fragment(field)], UDP, &datagram));
            assert_eq!(of(&frame), Some(without_ports(A6, B6)));
        }
    }

    #[test]
    fn each_bit_of_an_address_and_of_a_port_counts() {
        for bit in 0..16 {
            assert_ne!(hash(End { port: A.port ^ 1 << bit, ..A }, B), hash(A, B), "port bit {bit}");
        }
        for bit in 0..32 {
            assert_ne!(hash(End::v4(0x0a00_0001 ^ 1 << bit, 20_000), B), hash(A, B), "IPv4 bit {bit}");
        }
        for bit in 0..128 {
            let mut address = A6.address;
            address[bit / 64] ^= 1 << (bit % 64);
            assert_ne!(hash(End { address, ..A6 }, B6), hash(A6, B6), "IPv6 bit {bit}");
        }
    }

    #[test]
    fn ports_that_are_exchanged_between_two_hosts_make_another_conversation() {
        let other = hash(End { port: 30_000, ..A }, End { port: 20_000, ..B });
        assert_ne!(other, hash(A, B));
    }

    /// Phones behind one gateway: neighbouring addresses or ports, as real ones are.
    #[test]
    fn conversations_are_spread_evenly_over_the_buckets() {
        const CONVERSATIONS: u32 = 256 * 256;
        let gateway = |port: u32| End::v4(0x0a62_0001, u16::try_from(port).unwrap());
        let phones: [fn(u32) -> (u32, u32); 4] = [
            |at| (0x0a63_0000 + at, 4_000),
            |at| (0x0a63_0000 + (at >> 8), 10_000 + 2 * (at & 0xff)),
            |at| (0x0a63_0000, at & 0xffff),
            |at| (0x0a63_0000 + (at << 8), 10_000 + (at >> 8)),
        ];
        for (case, phone) in phones.iter().enumerate() {
            for symmetric in [false, true] {
                let mut counts = [0_u32; BUCKETS as usize];
                for at in 0..CONVERSATIONS {
                    let (address, port) = phone(at);
                    let end = End::v4(address, u16::try_from(port).unwrap());
                    let far = if symmetric { gateway(port) } else { gateway((20_000 + 2 * at) & 0xffff) };
                    counts[usize::from(bucket(hash(end, far)))] += 1;
                }
                // 256 a bucket by the mean; chance alone strays by 16.
                let extremes = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(*extremes.0 > 150 && *extremes.1 < 370, "case {case}, {symmetric}: {extremes:?}");
            }
        }
    }

    #[test]
    fn a_frame_that_ends_before_its_ports_has_no_hash() {
        let frame = ethernet(&[], &ipv4(&[], 0, UDP, &udp(20_000, 30_000, &rtp(160))));
        let layers = parse::ethernet(frame.as_slice()).unwrap();
        let hashed: Vec<_> =
            (0..=14 + 20 + 4).map(|len| of_frame(&frame[..len], &layers).is_some()).collect();
        assert_eq!(hashed.iter().position(|is_hashed| *is_hashed), Some(14 + 20 + 4));
    }
}
