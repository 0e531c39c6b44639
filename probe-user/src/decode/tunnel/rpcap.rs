//! rpcap, libpcap's remote capture protocol: captured frames on their way from the machine that captured them.
//!
//! ```text
//!   0        1       2              4                      8
//!   version  type    value          length of the payload  payload
//!   0        7       0              20 + caplen            seconds, microseconds, caplen, len, number: 4 octets each; frame
//! ```
//!
//! All numbers are in network order (libpcap, rpcap-protocol.h). The header has no magic, so a message of type 7 is
//! believed only if all that can be checked of it is right.

use super::{Begins, Region, Step, guess_link};
use crate::capture::file::LinkType;
use crate::decode::census::Reason;
use crate::packet::Nanos;

/// Of every message.
pub(in crate::decode) const HEADER: usize = 8;
/// Before the frame in a packet's payload.
pub(in crate::decode) const PACKET_HEADER: usize = 20;
/// Longest frame that is believed.
const MAX_FRAME: usize = 65_535;
/// Longest payload of any other message: a filter of a few thousand instructions, a list of interfaces.
const MAX_CONTROL: usize = 65_536;

/// Message types.
pub(in crate::decode) mod kind {
    pub(in crate::decode) const OPEN: u8 = 3;
    pub(in crate::decode) const PACKET: u8 = 7;
    /// Set in the answer to a request.
    pub(in crate::decode) const REPLY: u8 = 0x80;
    pub(in crate::decode) const OPEN_REPLY: u8 = 3 | REPLY;
    pub(in crate::decode) const START_REPLY: u8 = 4 | REPLY;
    pub(in crate::decode) const STATISTICS_REPLY: u8 = 9 | REPLY;
}

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Head {
    pub(in crate::decode) kind: u8,
    /// Header and payload.
    pub(in crate::decode) length: usize,
}

/// Reads a head. `None` if it cannot be one.
pub(in crate::decode) fn head(octets: [u8; HEADER]) -> Option<Head> {
    let [version, kind, v0, v1, l0, l1, l2, l3] = octets;
    let payload = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok()?;
    let is_right = version == 0
        && match kind {
            kind::PACKET => {
                [v0, v1] == [0; 2] && (PACKET_HEADER..=PACKET_HEADER + MAX_FRAME).contains(&payload)
            }
            // An error's value is its code, and so is the number of interfaces in the answer to type 2.
            1 | 0x82 => payload <= MAX_CONTROL,
            // Requests, and their answers.
            2..=6 | 8..=12 | 0x83..=0x86 | 0x88..=0x8c => [v0, v1] == [0; 2] && payload <= MAX_CONTROL,
            _ => false,
        };
    is_right.then_some(Head { kind, length: HEADER + payload })
}

/// A captured frame's own header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Packet {
    /// By the clock of the machine that captured it, since 1970.
    pub(in crate::decode) time: Nanos,
    /// Its number in that capture, from 1.
    pub(in crate::decode) number: u32,
    /// How long it was, all of it or not.
    pub(in crate::decode) wire_len: usize,
}

/// Reads what follows the head of a message of type 7 and that length.
pub(in crate::decode) fn packet(octets: [u8; PACKET_HEADER], length: usize) -> Option<Packet> {
    let (words, _) = octets.as_chunks::<4>();
    let &[seconds, micros, captured, wire, number] = words else { return None };
    let [seconds, micros, captured, wire, number] =
        [seconds, micros, captured, wire, number].map(u32::from_be_bytes);
    let (captured_len, wire_len) = (usize::try_from(captured).ok()?, usize::try_from(wire).ok()?);
    let is_right = captured_len + PACKET_HEADER + HEADER == length && captured <= wire && micros < 1_000_000;
    let time = Nanos(u64::from(seconds) * 1_000_000_000 + u64::from(micros) * 1_000);
    is_right.then_some(Packet { time, number, wire_len })
}

/// Opens the one message of a datagram. `link` is what the control connection said of the frame inside.
pub(super) fn datagram(region: Region<'_>, link: Option<LinkType>) -> Result<Step, Reason> {
    let head = head(region.octets(0)?).ok_or(Reason::Version)?;
    // Only packets travel in datagrams.
    if head.kind != kind::PACKET {
        return Err(Reason::Unsupported);
    }
    if head.length != region.claimed {
        return Err(Reason::Length);
    }
    let packet = packet(region.octets(HEADER)?, head.length).ok_or(Reason::Length)?;
    let skip = HEADER + PACKET_HEADER;
    let link = link.or_else(|| guess_link(region.after(skip).ok()?)).ok_or(Reason::NotIp)?;
    Ok(Step {
        tap_time: Some(packet.time),
        claimed: packet.wire_len,
        ..Step::rest(&region, skip, Begins::Link(link))
    })
}
