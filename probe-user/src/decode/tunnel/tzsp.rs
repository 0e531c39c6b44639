//! TZSP, TaZmen Sniffer Protocol: how MikroTik routers and wireless controllers mirror frames.

use super::{Begins, Region, Step, expect_ethernet};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;

/// Tagged fields followed.
const MAX_TAGS: usize = 64;

/// Version, type, encapsulated protocol, then tagged fields up to the one that ends them.
pub(super) fn open(region: Region<'_>) -> Result<Step, Reason> {
    const PADDING: u8 = 0;
    const END: u8 = 1;
    let [version, kind, p0, p1] = region.octets(0)?;
    if version != 1 {
        return Err(Reason::Version);
    }
    // A received frame, or one to be sent; the others are control messages. Protocol 1 is Ethernet.
    if kind > 1 || u16::from_be_bytes([p0, p1]) != 1 {
        return Err(Reason::Unsupported);
    }
    let mut at = 4;
    for _ in 0..MAX_TAGS {
        match region.be8(at)? {
            PADDING => at += 1,
            END => {
                at += 1;
                expect_ethernet(region.after(at)?)?;
                return Ok(Step::rest(&region, at, Begins::Link(LinkType::Ethernet)));
            }
            _ => at += 2 + usize::from(region.be8(at + 1)?),
        }
    }
    Err(Reason::TooDeep)
}
