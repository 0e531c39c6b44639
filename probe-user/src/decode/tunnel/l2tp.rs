//! L2TP version 2, data messages (RFC 2661, 3.1): PPP sessions over UDP. Control messages carry no user's packet.

use super::{Region, Step, shim};
use crate::decode::census::Reason;

const CONTROL: u16 = 0x8000;
const LENGTH: u16 = 0x4000;
const SEQUENCE: u16 = 0x0800;
const OFFSET: u16 = 0x0200;
/// All but those, the priority and the version.
const RESERVED: u16 = 0x34f0;

/// Opens a header whose optional fields its flags name, and the PPP in it.
pub(super) fn open(region: Region<'_>) -> Result<Step, Reason> {
    let flags = region.be16(0)?;
    if flags & 0x000f != 2 {
        return Err(Reason::Version);
    }
    if flags & RESERVED != 0 {
        return Err(Reason::Reserved);
    }
    if flags & CONTROL != 0 {
        return Err(Reason::Unsupported);
    }
    let (mut at, mut whole) = (2, region);
    if flags & LENGTH != 0 {
        whole = region.first(usize::from(region.be16(2)?))?;
        at += 2;
    }
    let [t0, t1, s0, s1] = whole.octets(at)?;
    // Zero is no session's.
    if [t0, t1] == [0; 2] || [s0, s1] == [0; 2] {
        return Err(Reason::Reserved);
    }
    at += 4;
    if flags & SEQUENCE != 0 {
        at += 4;
    }
    if flags & OFFSET != 0 {
        at += 2 + usize::from(whole.be16(at)?);
    }
    let inside = shim::ppp(whole.after(at)?)?;
    Ok(Step { skip: at + inside.skip, session: u32::from_be_bytes([t0, t1, s0, s1]), ..inside })
}
