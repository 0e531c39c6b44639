//! Link layers: where the IP header begins, and what the link says of who sent the frame.
//! Formats: tcpdump.org/linktypes.html.

use probe_ebpf::Layers;
use probe_ebpf::parse::{self, Bytes as _, Refusal};

use crate::capture::file::LinkType;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Parses from the link layer on.
pub(super) fn parse(link: LinkType, bytes: &[u8]) -> Result<Layers, Refusal> {
    match link {
        LinkType::Ethernet => super::ethernet(bytes),
        // Protocol in the last two of sixteen bytes.
        LinkType::LinuxCooked => tagged(bytes, 14, 16),
        // Protocol in the first two of twenty bytes.
        LinkType::LinuxCooked2 => tagged(bytes, 0, 20),
        LinkType::RawIp => match bytes.be8(0).ok_or(Refusal::Truncated)? >> 4 {
            4 => parse::network(bytes, IPV4, 0),
            6 => parse::network(bytes, IPV6, 0),
            _ => Err(Refusal::NotIp),
        },
        LinkType::Loopback => parse::network(bytes, loopback_ethertype(bytes)?, 4),
        LinkType::Ppp => ppp(bytes, 0),
        LinkType::Hdlc => match bytes.be8(0).ok_or(Refusal::Truncated)? {
            // Cisco: unicast or broadcast, control, then an ethertype.
            0x0f | 0x8f => parse::network(bytes, bytes.be16(2).ok_or(Refusal::Truncated)?, 4),
            _ => ppp(bytes, 0),
        },
        // Version and type, code, session and length come first (RFC 2516, 4).
        LinkType::PppOverEthernet => ppp(bytes, 6),
        LinkType::Other(_) => Err(Refusal::NotIp),
    }
}

/// A cooked header may be followed by VLAN tags, as the frame it was made of had them.
fn tagged(bytes: &[u8], protocol: usize, mut offset: usize) -> Result<Layers, Refusal> {
    let mut ethertype = bytes.be16(protocol).ok_or(Refusal::Truncated)?;
    let mut tags = [0; 2];
    let mut vlan_tags = 0;
    for tag in &mut tags {
        if !matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
            break;
        }
        *tag = bytes.be16(offset).ok_or(Refusal::Truncated)?;
        ethertype = bytes.be16(offset + 2).ok_or(Refusal::Truncated)?;
        offset += 4;
        vlan_tags += 1;
    }
    let layers = parse::network(bytes, ethertype, offset)?;
    Ok(Layers { outer_vlan: tags[0], inner_vlan: tags[1], vlan_tags, ..layers })
}

/// PPP (RFC 1661, 2), with address and control as in HDLC or without, and the protocol in one octet or two.
fn ppp(bytes: &[u8], mut offset: usize) -> Result<Layers, Refusal> {
    if bytes.be16(offset) == Some(0xff03) {
        offset += 2;
    }
    // The last octet of a protocol number is odd, and no other.
    let first = bytes.be8(offset).ok_or(Refusal::Truncated)?;
    let (protocol, length) = match first & 1 {
        1 => (u16::from(first), 1),
        _ => (bytes.be16(offset).ok_or(Refusal::Truncated)?, 2),
    };
    match protocol {
        0x0021 => parse::network(bytes, IPV4, offset + length),
        0x0057 => parse::network(bytes, IPV6, offset + length),
        _ => Err(Refusal::NotIp),
    }
}

/// The first ethertype of a frame and the offset behind it, where its link layer has ethertypes.
pub(super) fn ethertype(link: LinkType, bytes: &[u8]) -> Option<(u16, usize)> {
    let (field, behind) = match link {
        LinkType::Ethernet => (12, 14),
        LinkType::LinuxCooked => (14, 16),
        LinkType::LinuxCooked2 => (0, 20),
        LinkType::RawIp
        | LinkType::Loopback
        | LinkType::Ppp
        | LinkType::Hdlc
        | LinkType::PppOverEthernet
        | LinkType::Other(_) => return None,
    };
    bytes.be16(field).map(|ethertype| (ethertype, behind))
}

/// Was the frame on its way out of the host that captured it? Only cooked headers say so, by their packet type.
pub(super) fn is_outgoing(link: LinkType, bytes: &[u8]) -> bool {
    /// LINUX_SLL_OUTGOING: sent by us.
    const OUTGOING: u16 = 4;
    match link {
        LinkType::LinuxCooked => bytes.be16(0) == Some(OUTGOING),
        LinkType::LinuxCooked2 => bytes.be8(10).map(u16::from) == Some(OUTGOING),
        LinkType::Ethernet
        | LinkType::RawIp
        | LinkType::Loopback
        | LinkType::Ppp
        | LinkType::Hdlc
        | LinkType::PppOverEthernet
        | LinkType::Other(_) => false,
    }
}

/// The address family in front, in the byte order of whoever captured; families differ between systems.
fn loopback_ethertype(bytes: &[u8]) -> Result<u16, Refusal> {
    let family = bytes.be32(0).ok_or(Refusal::Truncated)?;
    match if family > 0xffff { family.swap_bytes() } else { family } {
        2 => Ok(IPV4),
        10 | 23 | 24 | 28 | 30 => Ok(IPV6),
        _ => Err(Refusal::NotIp),
    }
}

/// Destination and source MAC; zero where the link layer has none.
pub(super) fn macs(link: LinkType, bytes: &[u8]) -> ([u8; 6], [u8; 6]) {
    let mac = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    match link {
        LinkType::Ethernet => (mac(0), mac(6)),
        LinkType::LinuxCooked => ([0; 6], mac(6)),
        LinkType::LinuxCooked2 => ([0; 6], mac(12)),
        LinkType::RawIp
        | LinkType::Loopback
        | LinkType::Ppp
        | LinkType::Hdlc
        | LinkType::PppOverEthernet
        | LinkType::Other(_) => ([0; 6], [0; 6]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ip_is_found_behind_every_form_of_ppp() {
        let ip = [
            &[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..],
            &[0x13, 0xc4, 0x13, 0xc5, 0, 20, 0, 0], // 5060 to 5061
            &[0; 12],
        ]
        .concat();
        let session = [0x11, 0, 0, 9, 0, 42];
        let cases: [(LinkType, &[&[u8]]); 8] = [
            (LinkType::Ppp, &[&[0xff, 0x03, 0x00, 0x21]]),
            (LinkType::Ppp, &[&[0x00, 0x21]]),
            (LinkType::Ppp, &[&[0x21]]), // protocol field compression (RFC 1661, 6.5)
            (LinkType::Hdlc, &[&[0xff, 0x03, 0x00, 0x21]]),
            (LinkType::Hdlc, &[&[0x0f, 0x00, 0x08, 0x00]]), // Cisco, unicast
            (LinkType::Hdlc, &[&[0x8f, 0x00, 0x08, 0x00]]), // Cisco, broadcast
            (LinkType::PppOverEthernet, &[&session, &[0x00, 0x21]]),
            (LinkType::PppOverEthernet, &[&session, &[0x21]]),
        ];
        for (link, header) in cases {
            let header = header.concat();
            let frame = [&header[..], &ip].concat();
            let layers = parse(link, &frame).unwrap();
            assert_eq!((layers.ip, layers.src_port, layers.dst_port), (header.len(), 5060, 5061), "{link:?}");
            for length in 0..header.len() {
                assert!(parse(link, &frame[..length]).is_err(), "{link:?} {length}");
            }
        }
        for (link, frame) in [
            (LinkType::Ppp, [0xff, 0x03, 0xc0, 0x21]),  // LCP
            (LinkType::Hdlc, [0x8f, 0x00, 0x80, 0x35]), // SLARP
        ] {
            assert_eq!(parse(link, &[&frame[..], &ip].concat()), Err(Refusal::NotIp), "{link:?}");
        }
    }
}
