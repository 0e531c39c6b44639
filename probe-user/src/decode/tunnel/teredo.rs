//! Teredo (RFC 4380, 5.1.1): IPv6 over UDP through NATs, behind two optional indications.

use super::{Begins, IpVersion, Region, Step, ip};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

/// An IPv6 packet that fills the datagram.
pub(super) fn open(region: Region<'_>) -> Result<Step, Reason> {
    let mut at = 0;
    // Authentication: type 1, lengths of identifier and value, nonce, confirmation.
    if region.be16(at)? == 1 {
        let [identifier, value] = region.octets(at + 2)?;
        at += 4 + usize::from(identifier) + usize::from(value) + 9;
    }
    // Origin: type 0, port, address.
    if region.be16(at)? == 0 {
        at += 8;
    }
    let inside = region.after(at)?;
    ip::expect(inside, Some(IpVersion::V6), ip::Fit::Inside)?;
    // A bubble has no payload and was refused; trailers (RFC 6081) are not followed.
    if usize::from(inside.be16(4)?) + 40 != inside.claimed {
        return Err(Reason::Length);
    }
    Ok(Step::rest(&region, at, Begins::Link(LinkType::RawIp)))
}
