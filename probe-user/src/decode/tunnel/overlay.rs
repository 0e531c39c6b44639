//! VXLAN (RFC 7348) and Geneve (RFC 8926): overlay networks, and how clouds mirror traffic.

use super::{Begins, IpVersion, Region, Step, expect_ethernet, ip};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

/// Eight octets: flags, 24 bits, network identifier, 8 bits.
pub(super) fn vxlan(region: Region<'_>) -> Result<Step, Reason> {
    const VALID_IDENTIFIER: u8 = 0x08;
    /// The group policy extension, whose 16 bits of policy follow.
    const GROUP: u8 = 0x80;
    let [flags, a, b, c, v0, v1, v2, last] = region.octets(0)?;
    if flags & VALID_IDENTIFIER == 0 {
        return Err(Reason::Version);
    }
    let is_reserved_zero = if flags & GROUP == 0 { [a, b, c] == [0; 3] } else { a & 0xb7 == 0 };
    if flags & !(VALID_IDENTIFIER | GROUP) != 0 || !is_reserved_zero || last != 0 {
        return Err(Reason::Reserved);
    }
    expect_ethernet(region.after(8)?)?;
    let session = u32::from_be_bytes([0, v0, v1, v2]);
    Ok(Step { session, ..Step::rest(&region, 8, Begins::Link(LinkType::Ethernet)) })
}

/// Eight octets and options: version and their length, flags, protocol, network identifier.
pub(super) fn geneve(region: Region<'_>) -> Result<Step, Reason> {
    const CONTROL: u8 = 0x80;
    const RESERVED: u8 = 0x3f;
    let [first, flags, p0, p1, v0, v1, v2, last] = region.octets(0)?;
    if first >> 6 != 0 {
        return Err(Reason::Version);
    }
    if flags & RESERVED != 0 || last != 0 {
        return Err(Reason::Reserved);
    }
    if flags & CONTROL != 0 {
        return Err(Reason::Unsupported);
    }
    let end = 8 + usize::from(first & 0x3f) * 4;
    // Options must fill their room exactly: class, type, length in words.
    let mut at = 8;
    while at < end {
        at += 4 + usize::from(region.be8(at + 3)? & 0x1f) * 4;
    }
    if at != end {
        return Err(Reason::Length);
    }
    let inside = region.after(end)?;
    let link = match u16::from_be_bytes([p0, p1]) {
        0x6558 => {
            expect_ethernet(inside)?;
            LinkType::Ethernet
        }
        0x0800 => {
            ip::expect(inside, Some(IpVersion::V4), ip::Fit::MayBeCut)?;
            LinkType::RawIp
        }
        0x86dd => {
            ip::expect(inside, Some(IpVersion::V6), ip::Fit::MayBeCut)?;
            LinkType::RawIp
        }
        _ => return Err(Reason::Unsupported),
    };
    let session = u32::from_be_bytes([0, v0, v1, v2]);
    Ok(Step { session, ..Step::rest(&region, end, Begins::Link(link)) })
}
