//! GRE (RFC 2784, RFC 2890), and ERSPAN in it (draft-foschiano-erspan-03).
//!
//! Version 0 only: version 1 is PPTP, whose PPP is nearly always compressed and encrypted.

use super::{Begins, Erspan, IpVersion, Region, Step, expect_ethernet, ip};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

const CHECKSUM: u16 = 0x8000;
const ROUTING: u16 = 0x4000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Strict source route, recursion control, flags: zero since RFC 2784.
const RESERVED: u16 = 0x0ff8;

/// Opens a GRE header.
pub(super) fn gre(region: Region<'_>) -> Result<Step, Reason> {
    let (flags, protocol) = (region.be16(0)?, region.be16(2)?);
    if flags & 7 != 0 {
        return Err(Reason::Version);
    }
    if flags & ROUTING != 0 {
        return Err(Reason::Unsupported);
    }
    if flags & RESERVED != 0 {
        return Err(Reason::Reserved);
    }
    let mut at = 4;
    if flags & CHECKSUM != 0 {
        // The second half is reserved; a sum needs all that it is over.
        if region.be16(6)? != 0 {
            return Err(Reason::Reserved);
        }
        if !region.is_cut() && sum(region.bytes) != 0xffff {
            return Err(Reason::Checksum);
        }
        at += 4;
    }
    let mut session = 0;
    if flags & KEY != 0 {
        session = region.be32(at)?;
        at += 4;
    }
    let has_sequence = flags & SEQUENCE != 0;
    if has_sequence {
        region.be32(at)?;
        at += 4;
    }
    let inside = region.after(at)?;
    let begins = match protocol {
        0x0800 => {
            ip::expect(inside, Some(IpVersion::V4), ip::Fit::Inside)?;
            Begins::Link(LinkType::RawIp)
        }
        0x86dd => {
            ip::expect(inside, Some(IpVersion::V6), ip::Fit::Inside)?;
            Begins::Link(LinkType::RawIp)
        }
        0x6558 => {
            expect_ethernet(inside)?;
            Begins::Link(LinkType::Ethernet)
        }
        0x8847 | 0x8848 => Begins::Mpls,
        // Type I has neither a sequence number nor a header; type II has both.
        0x88be if has_sequence => Begins::Erspan(Erspan::Two),
        0x88be => Begins::Erspan(Erspan::One),
        0x22eb => Begins::Erspan(Erspan::Three),
        _ => return Err(Reason::Unsupported),
    };
    Ok(Step { session, ..Step::rest(&region, at, begins) })
}

/// Opens what GRE called ERSPAN. The session is the one that the switch was given.
pub(super) fn erspan(region: Region<'_>, kind: Erspan) -> Result<Step, Reason> {
    let (version, header) = match kind {
        Erspan::One => {
            expect_ethernet(region)?;
            return Ok(Step::rest(&region, 0, Begins::Link(LinkType::Ethernet)));
        }
        Erspan::Two => (1, 8),
        Erspan::Three => (2, 12),
    };
    let first = region.be16(0)?;
    if first >> 12 != version {
        return Err(Reason::Version);
    }
    let session = u32::from(region.be16(2)? & 0x03ff);
    let mut skip = header;
    let mut link = LinkType::Ethernet;
    if kind == Erspan::Three {
        // Protocol, frame type, hardware, direction, granularity, and whether a subheader of 8 octets follows.
        let last = region.be16(10)?;
        link = match (last >> 10) & 0x1f {
            0 => LinkType::Ethernet,
            2 => LinkType::RawIp,
            _ => return Err(Reason::Unsupported),
        };
        skip += if last & 1 != 0 { 8 } else { 0 };
    }
    let inside = region.after(skip)?;
    match link {
        LinkType::RawIp => ip::expect(inside, None, ip::Fit::MayBeCut)?,
        _ => expect_ethernet(inside)?,
    }
    Ok(Step { session, ..Step::rest(&region, skip, Begins::Link(link)) })
}

/// RFC 1071: 0xffff if the checksum in it is right.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    // 64 KiB at most, so 32 bits hold it.
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to sixteen bits")]
    let folded = sum as u16;
    folded
}
