//! VXLAN (RFC 7348) and Geneve (RFC 8926): overlay networks, and how clouds mirror traffic.

use super::{Begins, IpVersion, Region, Step, expect_ethernet, ip};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

/// Eight octets: flags, 24 bits, network identifier, 8 bits. The 24 bits are zero but for two extensions: a group policy
/// (draft-smith-vxlan-group-policy), and what is inside (draft-ietf-nvo3-vxlan-gpe), which generators like to set.
pub(super) fn vxlan(region: Region<'_>) -> Result<Step, Reason> {
    const VALID_IDENTIFIER: u8 = 0x08;
    const GROUP: u8 = 0x80;
    const NEXT_PROTOCOL: u8 = 0x04;
    let [flags, a, b, c, v0, v1, v2, last] = region.octets(0)?;
    if flags & VALID_IDENTIFIER == 0 {
        return Err(Reason::Version);
    }
    let (is_reserved_zero, protocol) = match flags & !VALID_IDENTIFIER {
        0 => ([a, b, c] == [0; 3], 3),
        // Don't learn, policy applied; then 16 bits of policy.
        GROUP => (a & 0xb7 == 0, 3),
        NEXT_PROTOCOL => ([a, b] == [0; 2], c),
        _ => (false, 3),
    };
    if !is_reserved_zero || last != 0 {
        return Err(Reason::Reserved);
    }
    let inside = region.after(8)?;
    let link = match protocol {
        1 => ip::expect(inside, Some(IpVersion::V4), ip::Fit::MayBeCut).map(|()| LinkType::RawIp)?,
        2 => ip::expect(inside, Some(IpVersion::V6), ip::Fit::MayBeCut).map(|()| LinkType::RawIp)?,
        3 => expect_ethernet(inside).map(|()| LinkType::Ethernet)?,
        _ => return Err(Reason::Unsupported),
    };
    let session = u32::from_be_bytes([0, v0, v1, v2]);
    Ok(Step { session, ..Step::rest(&region, 8, Begins::Link(link)) })
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
