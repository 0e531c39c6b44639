//! GTP-U (3GPP TS 29.281, 5.1): user packets of mobile networks, VoLTE among them.

use super::{Begins, Region, Step, ip};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

/// A G-PDU; all others are signalling of the path.
const T_PDU: u8 = 255;
/// Extension headers followed; one is usual.
const MAX_EXTENSIONS: usize = 8;

/// Opens a header of 8 octets, or of 12 and extensions. The tunnel endpoint identifier is one bearer's, of which there
/// are thousands between two nodes, and so tells no sessions apart.
pub(super) fn open(region: Region<'_>) -> Result<Step, Reason> {
    const EXTENSION: u8 = 0x04;
    const ANY_OPTION: u8 = 0x07;
    let [flags, kind, l0, l1] = region.octets(0)?;
    // Version 1, protocol type GTP.
    if flags >> 4 != 3 {
        return Err(Reason::Version);
    }
    if flags & 0x08 != 0 {
        return Err(Reason::Reserved);
    }
    if kind != T_PDU {
        return Err(Reason::Unsupported);
    }
    region.be32(4)?;
    // The length is that of everything behind the first eight octets, and fills the datagram.
    let whole = region.first(8 + usize::from(u16::from_be_bytes([l0, l1])))?;
    let mut at = 8;
    if flags & ANY_OPTION != 0 {
        let mut next = whole.be8(11)?;
        at = 12;
        if flags & EXTENSION == 0 {
            next = 0;
        }
        let mut followed = 0;
        while next != 0 {
            if followed == MAX_EXTENSIONS {
                return Err(Reason::TooDeep);
            }
            let length = usize::from(whole.be8(at)?) * 4;
            if length == 0 {
                return Err(Reason::Length);
            }
            next = whole.be8(at + length - 1)?;
            at += length;
            followed += 1;
        }
    }
    ip::expect(whole.after(at)?, None, ip::Fit::Inside)?;
    Ok(Step::rest(&whole, at, Begins::Link(LinkType::RawIp)))
}
