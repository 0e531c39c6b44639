//! HEP version 3 (the HEP/EEP specification, rev. 36): a message as an agent saw it, its addresses and time in chunks.
//!
//! Proxies and media servers send their signalling to a collector in it. What it carries here is SIP, and RTCP as it was
//! on the wire; statistics that an agent made of RTCP, and compressed messages, are refused.

use std::ops::Range;

use super::Region;
use crate::decode::census::Reason;
use crate::packet::{Endpoint, Flow};

/// What every message begins with.
pub(in crate::decode) const MAGIC: [u8; 4] = *b"HEP3";
/// Magic and length.
pub(in crate::decode) const HEADER: usize = 6;

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) enum Carries {
    Sip,
    Rtcp,
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Message {
    /// From whom to whom, as the agent says.
    pub(in crate::decode) flow: Flow,
    pub(in crate::decode) carries: Carries,
    /// Where the payload is.
    pub(in crate::decode) payload: Range<usize>,
    /// The agent's identifier: it tells apart agents behind one address.
    pub(in crate::decode) agent: u32,
    /// The VLAN that the agent saw it in.
    pub(in crate::decode) vlan: Option<u16>,
}

/// Reads one message that fills the region.
pub(in crate::decode) fn read(region: Region<'_>) -> Result<Message, Reason> {
    if region.octets(0)? != MAGIC {
        return Err(Reason::Version);
    }
    let length = usize::from(region.be16(4)?);
    if length != region.claimed {
        return Err(Reason::Length);
    }
    let (mut src, mut dst, mut ports) = (None, None, [None; 2]);
    let (mut kind, mut agent, mut vlan, mut payload) = (None, 0, None, None);
    let mut at = HEADER;
    while at < length {
        let (vendor, chunk, chunk_len) =
            (region.be16(at)?, region.be16(at + 2)?, usize::from(region.be16(at + 4)?));
        let value = Range { start: at + 6, end: at + chunk_len };
        if chunk_len < 6 || value.end > length {
            return Err(Reason::Length);
        }
        let start = value.start;
        at = value.end;
        // Other vendors' chunks mean what their vendors say.
        if vendor != 0 {
            continue;
        }
        // A fixed field that is too short for itself would be read out of the next chunk.
        let is = |len: usize| if value.len() == len { Ok(()) } else { Err(Reason::Length) };
        match chunk {
            3 | 4 => {
                is(4)?;
                let address = Endpoint::v4(region.octets(start)?, 0);
                *(if chunk == 3 { &mut src } else { &mut dst }) = Some(address);
            }
            5 | 6 => {
                is(16)?;
                let address = Endpoint::v6(region.octets(start)?, 0);
                *(if chunk == 5 { &mut src } else { &mut dst }) = Some(address);
            }
            7 | 8 => {
                is(2)?;
                let [src_port, dst_port] = &mut ports;
                *(if chunk == 7 { src_port } else { dst_port }) = Some(region.be16(start)?);
            }
            11 => {
                is(1)?;
                kind = Some(region.be8(start)?);
            }
            12 => {
                is(4)?;
                agent = region.be32(start)?;
            }
            15 => payload = Some(value),
            16 => return Err(Reason::Unsupported),
            18 => {
                is(2)?;
                vlan = Some(region.be16(start)? & 0x0fff).filter(|id| *id != 0);
            }
            _ => {}
        }
    }
    let (Some(src), Some(dst), [Some(src_port), Some(dst_port)], Some(payload)) = (src, dst, ports, payload)
    else {
        return Err(Reason::Length);
    };
    let bytes = region.bytes.get(payload.clone()).ok_or(Reason::Truncated)?;
    let carries = match (kind, bytes) {
        (Some(1), [_, ..]) => Carries::Sip,
        // Version 2, and a packet type of RTCP (RFC 5761, 4).
        (Some(5), [0x80..=0xbf, 192..=223, ..]) => Carries::Rtcp,
        _ => return Err(Reason::Unsupported),
    };
    let flow = Flow { src: Endpoint { port: src_port, ..src }, dst: Endpoint { port: dst_port, ..dst } };
    Ok(Message { flow, carries, payload, agent, vlan })
}
