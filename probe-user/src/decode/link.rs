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

/// The first ethertype of a frame and the offset behind it, where its link layer has ethertypes.
pub(super) fn ethertype(link: LinkType, bytes: &[u8]) -> Option<(u16, usize)> {
    let (field, behind) = match link {
        LinkType::Ethernet => (12, 14),
        LinkType::LinuxCooked => (14, 16),
        LinkType::LinuxCooked2 => (0, 20),
        LinkType::RawIp | LinkType::Loopback | LinkType::Other(_) => return None,
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
        LinkType::Ethernet | LinkType::RawIp | LinkType::Loopback | LinkType::Other(_) => false,
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
        LinkType::RawIp | LinkType::Loopback | LinkType::Other(_) => ([0; 6], [0; 6]),
    }
}
