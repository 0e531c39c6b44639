//! Headers between Ethernet and IP: VLAN tags, MPLS (RFC 3032), PPPoE (RFC 2516) with PPP (RFC 1661).

use super::{Begins, IpVersion, Region, Step, expect_ethernet, ip};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

/// 802.1Q.
pub(super) const VLAN: u16 = 0x8100;
/// 802.1ad.
pub(super) const PROVIDER_VLAN: u16 = 0x88a8;
/// What provider bridges used before 802.1ad.
pub(super) const OLD_PROVIDER_VLAN: u16 = 0x9100;
/// MPLS, unicast.
pub(super) const MPLS: u16 = 0x8847;
/// MPLS, upstream-assigned.
pub(super) const MPLS_MULTICAST: u16 = 0x8848;
/// PPPoE session; its discovery, 0x8863, carries no data.
pub(super) const PPPOE: u16 = 0x8864;

/// Labels followed. Six are a deep stack in a real network.
const MAX_LABELS: usize = 16;

/// What the frame parser could not read because of what stands between the link layer and IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Unwrapped {
    /// Offset of what comes first that is no VLAN tag.
    pub(in crate::decode) at: usize,
    /// Tags before it.
    pub(in crate::decode) tags: usize,
    /// What it is: a shim, or IP if there were only more tags than the frame parser takes.
    pub(in crate::decode) begins: Begins,
}

/// Looks past the VLAN tags of a frame whose first ethertype and the offset behind it are given. `None` if what
/// follows is nothing that is opened.
pub(in crate::decode) fn unwrap_ethertype(
    region: Region<'_>,
    mut ethertype: u16,
    mut at: usize,
) -> Option<Unwrapped> {
    for tags in 0..crate::packet::Encapsulation::MAX_LAYERS {
        let begins = match ethertype {
            VLAN | PROVIDER_VLAN | OLD_PROVIDER_VLAN => {
                ethertype = region.be16(at + 2).ok()?;
                at += 4;
                continue;
            }
            MPLS | MPLS_MULTICAST => Begins::Mpls,
            PPPOE => Begins::Pppoe,
            // Two tags are the frame parser's own.
            0x0800 | 0x86dd if tags > 2 => Begins::Link(LinkType::RawIp),
            _ => return None,
        };
        return Some(Unwrapped { at, tags, begins });
    }
    None
}

/// A label stack. Nothing in it says what follows: IP by its first four bits (RFC 3032, 2.2; RFC 4928), or the Ethernet
/// frame of a pseudowire with or without a control word (RFC 4448).
pub(super) fn mpls(region: Region<'_>) -> Result<Step, Reason> {
    let mut at = 0;
    for _ in 0..MAX_LABELS {
        let entry = region.be32(at)?;
        at += 4;
        let (label, is_last) = (entry >> 12, entry & 0x100 != 0);
        if !is_last {
            continue;
        }
        let inside = region.after(at)?;
        // Labels 0 and 2 say the version, all others below 16 are reserved for something that is no user's packet.
        let version = match label {
            0 => Some(IpVersion::V4),
            2 => Some(IpVersion::V6),
            1 | 3..=15 => return Err(Reason::Reserved),
            _ => None,
        };
        let as_ip = ip::expect(inside, version, ip::Fit::Inside);
        if as_ip.is_ok() {
            return Ok(Step::rest(&region, at, Begins::Link(LinkType::RawIp)));
        }
        // RFC 4385, 3: the control word begins with four zero bits.
        if version.is_none() && inside.be8(0)? >> 4 == 0 && inside.after(4).and_then(expect_ethernet).is_ok()
        {
            return Ok(Step::rest(&region, at + 4, Begins::Link(LinkType::Ethernet)));
        }
        if version.is_none() && expect_ethernet(inside).is_ok() {
            return Ok(Step::rest(&region, at, Begins::Link(LinkType::Ethernet)));
        }
        return Err(as_ip.err().unwrap_or(Reason::NotIp));
    }
    Err(Reason::TooDeep)
}

/// RFC 2516, 4: version and type 1, code 0, a session, a length.
pub(super) fn pppoe(region: Region<'_>) -> Result<Step, Reason> {
    if region.be8(0)? != 0x11 {
        return Err(Reason::Version);
    }
    if region.be8(1)? != 0 {
        return Err(Reason::Unsupported);
    }
    let (session, length) = (region.be16(2)?, usize::from(region.be16(4)?));
    if session == 0 || session == 0xffff {
        return Err(Reason::Reserved);
    }
    let inside = ppp(region.after(6)?.first(length)?)?;
    Ok(Step { skip: 6 + inside.skip, session: u32::from(session), ..inside })
}

/// PPP: address and control unless they were compressed away (RFC 1661, 6.6), then a protocol of one octet or two
/// (RFC 1661, 6.5).
pub(super) fn ppp(region: Region<'_>) -> Result<Step, Reason> {
    let mut at = if region.be16(0)? == 0xff03 { 2 } else { 0 };
    // Odd is the last octet of a protocol number, even is not (RFC 1661, 2).
    let first = region.be8(at)?;
    let protocol = if first & 1 != 0 {
        at += 1;
        u16::from(first)
    } else {
        at += 2;
        region.be16(at - 2)?
    };
    let version = match protocol {
        0x0021 => IpVersion::V4,
        0x0057 => IpVersion::V6,
        // Control protocols, and what is compressed or encrypted.
        _ => return Err(Reason::NotIp),
    };
    ip::expect(region.after(at)?, Some(version), ip::Fit::Inside)?;
    Ok(Step::rest(&region, at, Begins::Link(LinkType::RawIp)))
}
