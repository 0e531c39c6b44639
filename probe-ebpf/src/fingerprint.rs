//! What identifies an RTP payload without reading it: the UDP checksum, where it is one.
//!
//! The UDP checksum already sums the payload, so two packets with the same RTP header and another payload
//! differ in it (but for 1 in 65,536). It is no sum of the payload when the sender left it out (zero, IPv4
//! only) or left it to the network card: then Linux stores the sum of the pseudo-header alone
//! (`CHECKSUM_PARTIAL`, include/linux/skbuff.h), which is what any frame looks like that is captured on the
//! host that sent it. In both cases payload bytes are hashed instead.

use crate::classify::RTP_HEADER;
use crate::parse::{Bytes, Layers};
use crate::record::HASHED_PAYLOAD;

/// A payload's fingerprint and where it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The checksum as on the wire, or the hash.
    pub value: u16,
    /// Is it a hash of payload bytes?
    pub hashed: bool,
}

/// The fingerprint of a UDP datagram that was classified as RTP. `None` if the frame ends before the checksum.
#[inline(always)]
pub fn of_rtp<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Option<Fingerprint> {
    let checksum = frame.be16(layers.transport + 6)?;
    if checksum == 0 || checksum == pseudo_header_sum(frame, layers)? {
        let value = hash_payload(frame, layers);
        return Some(Fingerprint { value, hashed: true });
    }
    Some(Fingerprint { value: checksum, hashed: false })
}

/// Ones' complement sum of the pseudo-header (RFC 768; RFC 8200, 8.1), folded, not complemented.
#[inline(always)]
fn pseudo_header_sum<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Option<u16> {
    let lengths = u64::from(layers.transport_len) + u64::from(layers.protocol);
    let addresses = if layers.v6 {
        // Four and four, not a loop: the compiler would bound a loop by the end of the packet.
        sum_of_4(frame, layers.ip + 8)? + sum_of_4(frame, layers.ip + 24)?
    } else {
        u64::from(frame.be32(layers.ip + 12)?) + u64::from(frame.be32(layers.ip + 16)?)
    };
    let sum = lengths + addresses;
    Some(fold(sum))
}

#[inline(always)]
fn sum_of_4<B: Bytes + ?Sized>(frame: &B, at: usize) -> Option<u64> {
    let (a, b) = (u64::from(frame.be32(at)?), u64::from(frame.be32(at + 4)?));
    let (c, d) = (u64::from(frame.be32(at + 8)?), u64::from(frame.be32(at + 12)?));
    Some(a + b + c + d)
}

/// Folds a sum of 32-bit words to 16 bits with end-around carry.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "four folds leave 16 bits of any 64-bit sum")]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Hashes the first [`HASHED_PAYLOAD`] bytes after the fixed RTP header, in whole words: what is shorter
/// than a word at the end differs in `transport_len` or not at all.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the upper half of a 32-bit hash")]
fn hash_payload<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> u16 {
    let start = layers.transport + 8 + RTP_HEADER as usize;
    let available = layers.transport_len.saturating_sub(8 + RTP_HEADER) as usize;
    let mut hash = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < HASHED_PAYLOAD {
        if at + 4 > available {
            break;
        }
        let Some(word) = frame.be32(start + at) else { break };
        hash = (hash ^ word).wrapping_mul(0x9e37_79b1).rotate_left(13);
        at += 4;
    }
    (hash ^ (hash >> 16)) as u16
}
