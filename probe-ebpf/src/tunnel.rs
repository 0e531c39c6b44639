//! A look inside a tunnel before it is forwarded: whose packet is certainly not ours need not travel.
//!
//! ```text
//!   Tunnel ─▶ inside: where does it begin? ─┬─ cannot tell ───────────────▶ Tunnel
//!                                           └─▶ the same parser, one level ─┬─ TCP, UDP of others ─▶ its verdict
//!                                                                           └─ anything else ──────▶ Tunnel
//! ```
//!
//! A gateway that terminates tunnels may carry nothing else, and then every frame would be copied whole to userspace:
//! the probe would harm the gateway, and the rings would lose the calls. So the usual forms of the usual tunnels are
//! looked into. Doubt forwards: an unknown option, a port that is not the tunnel's own, a second tunnel inside. Userspace
//! opens what is forwarded for itself, and files are not looked at here at all ([`Config::looking_inside`]).

use crate::classify::{self, Endpoints, Verdict};
use crate::config::Config;
use crate::parse::{self, Bytes, FORGOTTEN, GRE, IPV4_IN_IP, IPV6_IN_IP, LONGEST_HEADERS, Layers, UDP};

/// Where the packet inside of a tunnel begins: its offset, and whether it has an Ethernet header, as one number, so that
/// to the verifier all tunnels are one. Zero if a look does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside(usize);

impl Inside {
    /// A look does not tell.
    pub const UNKNOWN: Self = Self(0);
    /// Flag: Ethernet, not IP.
    const ETHERNET: usize = 1 << 12;

    /// The longest chain of headers that may follow must stay below what [`Bytes::forget`] can hold.
    const MAX_OFFSET: usize = FORGOTTEN - LONGEST_HEADERS;

    #[inline(always)]
    fn at(offset: usize, is_ethernet: bool) -> Self {
        if offset >= Self::MAX_OFFSET {
            return Self::UNKNOWN;
        }
        Self(if is_ethernet { offset | Self::ETHERNET } else { offset })
    }

    /// Of a tunnel that the layers tell.
    #[inline(always)]
    pub fn of<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Self {
        let found = match layers.protocol {
            IPV4_IN_IP | IPV6_IN_IP => Some(Self::at(layers.transport, false)),
            GRE => gre(frame, layers.transport),
            UDP => match (layers.src_port, layers.dst_port) {
                (_, 4789 | 8472) => vxlan(frame, layers.transport + 8),
                (_, 6081) => geneve(frame, layers.transport + 8),
                (_, 2152) => gtp(frame, layers.transport + 8),
                _ => None,
            },
            _ => None,
        };
        found.unwrap_or(Self::UNKNOWN)
    }

    /// Of a tunnel that an ethertype tells: MPLS, PPPoE.
    #[inline(always)]
    pub fn of_labels<B: Bytes + ?Sized>(frame: &B) -> Self {
        labels(frame).unwrap_or(Self::UNKNOWN)
    }

    /// The verdict on the frame that holds it.
    #[inline(always)]
    pub fn verdict<B: Bytes + ?Sized, E: Endpoints>(
        self,
        frame: &B,
        config: &Config,
        endpoints: &E,
    ) -> Verdict {
        let inside = frame.forget(self.0);
        let start = inside & (Self::ETHERNET - 1);
        let Some((ethertype, offset)) = network_of(frame, start, inside & Self::ETHERNET != 0) else {
            return Verdict::Tunnel;
        };
        let Ok(layers) = parse::network(frame, ethertype, frame.forget(offset)) else {
            return Verdict::Tunnel;
        };
        let verdict = classify::classify(frame, &layers, config, endpoints);
        match verdict {
            Verdict::OtherUdp | Verdict::OtherTcp | Verdict::MediaOther | Verdict::SipTcpEmpty => verdict,
            _ => Verdict::Tunnel,
        }
    }
}

const _: () = assert!(Inside::MAX_OFFSET <= Inside::ETHERNET);

/// Ethertype and offset of what should be an IP header.
#[inline(always)]
fn network_of<B: Bytes + ?Sized>(frame: &B, start: usize, is_ethernet: bool) -> Option<(u16, usize)> {
    if start == 0 {
        return None;
    }
    if is_ethernet {
        let link = parse::link(frame, start).ok()?;
        return Some((link.ethertype, link.end));
    }
    let ethertype = match frame.be8(start)? >> 4 {
        4 => parse::ETHERTYPE_IPV4,
        6 => parse::ETHERTYPE_IPV6,
        _ => return None,
    };
    Some((ethertype, start))
}

/// RFC 2784, 2890; with a sequence number also ERSPAN type II.
#[inline(always)]
fn gre<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Inside> {
    /// Checksum, key, sequence number: four octets each. All other flags, and any version but 0, are not told.
    const CHECKSUM: u16 = 0x8000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ERSPAN_2: usize = 8;
    let head = frame.be32(at)?;
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a 32-bit load")]
    let (flags, protocol) = ((head >> 16) as u16, head as u16);
    if flags & !(CHECKSUM | KEY | SEQUENCE) != 0 {
        return None;
    }
    let options = usize::from(flags >> 15) + usize::from(flags >> 13 & 1) + usize::from(flags >> 12 & 1);
    let start = at + 4 + 4 * options;
    match protocol {
        parse::ETHERTYPE_IPV4 | parse::ETHERTYPE_IPV6 => Some(Inside::at(start, false)),
        0x6558 => Some(Inside::at(start, true)),
        0x88be if flags == SEQUENCE && frame.be8(start)? >> 4 == 1 => {
            Some(Inside::at(start + ERSPAN_2, true))
        }
        _ => None,
    }
}

/// RFC 7348, 5: flags of which only I is set, all that is reserved zero.
#[inline(always)]
fn vxlan<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Inside> {
    (frame.be32(at)? == 0x0800_0000).then(|| Inside::at(at + 8, true))
}

/// RFC 8926, 3.4.
#[inline(always)]
fn geneve<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Inside> {
    let head = frame.be32(at)?;
    let (version_len, protocol) = (head >> 24, head & 0xffff);
    if version_len >> 6 != 0 {
        return None;
    }
    let start = at + 8 + 4 * version_len as usize;
    match protocol {
        0x6558 => Some(Inside::at(start, true)),
        0x0800 | 0x86dd => Some(Inside::at(start, false)),
        _ => None,
    }
}

/// 3GPP TS 29.281, 5.1: a G-PDU with at most one extension header, as 5G has it.
#[inline(always)]
fn gtp<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<Inside> {
    const OPTIONAL: u16 = 0x0700;
    const EXTENSION: u16 = 0x0400;
    let head = frame.be16(at)?;
    // Version 1, GTP and not GTP', message type 255.
    if head & 0xf0ff != 0x30ff {
        return None;
    }
    if head & OPTIONAL == 0 {
        return Some(Inside::at(at + 8, false));
    }
    if head & EXTENSION == 0 || frame.be8(at + 11)? == 0 {
        return Some(Inside::at(at + 12, false));
    }
    // Its last octet says what comes next.
    let last = frame.forget(at + 11 + 4 * usize::from(frame.be8(at + 12)?));
    (frame.be8(last)? == 0).then(|| Inside::at(last + 1, false))
}

/// RFC 3032, 2.1, and RFC 2516, 4.
#[inline(always)]
fn labels<B: Bytes + ?Sized>(frame: &B) -> Option<Inside> {
    /// Labels that are followed: transport, VPN, entropy and its indicator.
    const MAX_LABELS: usize = 4;
    const BOTTOM: u32 = 1 << 8;
    let link = parse::link(frame, 0).ok()?;
    let mut at = frame.forget(link.end);
    if link.ethertype == parse::ETHERTYPE_PPPOE {
        let is_ip = frame.be16(at)? == 0x1100 && matches!(frame.be16(at + 6)?, 0x0021 | 0x0057);
        return is_ip.then(|| Inside::at(at + 8, false));
    }
    let mut followed = 0;
    while followed < MAX_LABELS {
        let label = frame.be32(at)?;
        at = frame.forget(at + 4);
        if label & BOTTOM != 0 {
            return (!may_be_ethernet(frame, at)?).then(|| Inside::at(at, false));
        }
        followed += 1;
    }
    None
}

/// Could an Ethernet frame begin here? Nothing says so behind labels, and a MAC address may begin as an IP header does
/// (RFC 4928): 68:ef:bd is a vendor's. Userspace tries both; here its ethertype is enough of a doubt.
#[inline(always)]
fn may_be_ethernet<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<bool> {
    let ethertype = frame.be16(at + 12)?;
    Some(matches!(ethertype, 0x0800 | 0x86dd | 0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8848 | 0x8864))
}
