//! IP inside IP: RFC 2003 (4in4), RFC 4213 (6in4), RFC 2473 (4in6, 6in6); and the shape of an IP header, which every
//! other tunnel's inside is held against.

use super::{Begins, IpVersion, Region, Step};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

/// How the length that an IP header claims relates to the room that its carrier gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It must fit: the carrier's own length is exact.
    Inside,
    /// It may be longer: whoever mirrored the frame may have cut it.
    MayBeCut,
}

/// Opens protocol 4 or 41.
pub(super) fn in_ip(region: Region<'_>, version: IpVersion) -> Result<Step, Reason> {
    expect(region, Some(version), Fit::Inside)?;
    Ok(Step::rest(&region, 0, Begins::Link(LinkType::RawIp)))
}

/// Does an IP header begin here, of this version, if one is said?
pub(super) fn expect(region: Region<'_>, version: Option<IpVersion>, fit: Fit) -> Result<(), Reason> {
    let first = region.be8(0)?;
    let (found, header_len, length) = match first >> 4 {
        // RFC 791, 3.1: the header length counts words of four octets.
        4 => (IpVersion::V4, usize::from(first & 0x0f) * 4, usize::from(region.be16(2)?)),
        // RFC 8200, 3: the length is that of what follows the fixed header. Zero would be a jumbogram, which no
        // tunnel read here can hold.
        6 => (IpVersion::V6, 40, usize::from(region.be16(4)?) + 40),
        _ => return Err(Reason::NotIp),
    };
    if version.is_some_and(|version| version != found) {
        return Err(Reason::Version);
    }
    if header_len < 20 || length < header_len || found == IpVersion::V6 && length == 40 {
        return Err(Reason::Length);
    }
    if length > region.claimed && fit == Fit::Inside {
        return Err(Reason::Length);
    }
    region.after(header_len).map(|_| ())
}
