//! What identifies an RTP payload without reading it: the UDP checksum, where it is one.
//!
//! The UDP checksum already sums the payload, so two packets with the same RTP header and another payload
//! differ in it (but for 1 in 65,536). It is no sum of the payload when the sender left it out (zero, IPv4
//! only) or left it to the network card: then Linux stores the sum of the pseudo-header alone
//! (`CHECKSUM_PARTIAL`, include/linux/skbuff.h), which is what any frame looks like that is captured on the
//! host that sent it. In both cases payload bytes are hashed instead.

use crate::classify::RTP_HEADER;
use crate::parse::{Bytes, Header as _, Layers};
use crate::record::HASHED_PAYLOAD;

/// A payload's fingerprint and where it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The checksum as on the wire, or the hash.
    pub value: u16,
    /// Is it a hash of payload bytes?
    pub hashed: bool,
}

/// The fingerprint of a UDP datagram that was classified as RTP. `None` if the frame ends before the RTP header does.
#[inline(always)]
pub fn of_rtp<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Option<Fingerprint> {
    // More than is read of it, but what was checked before: the same check is made once.
    let checksum = frame.header::<20>(layers.transport)?.be16::<6>();
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
        let ip = frame.header::<60>(layers.ip)?;
        // One by one: the compiler would bound a loop by the end of the packet.
        let src = u64::from(ip.be32::<8>())
            + u64::from(ip.be32::<12>())
            + u64::from(ip.be32::<16>())
            + u64::from(ip.be32::<20>());
        let dst = u64::from(ip.be32::<24>())
            + u64::from(ip.be32::<28>())
            + u64::from(ip.be32::<32>())
            + u64::from(ip.be32::<36>());
        src + dst
    } else {
        let ip = frame.header::<40>(layers.ip)?;
        u64::from(ip.be32::<12>()) + u64::from(ip.be32::<16>())
    };
    let sum = lengths + addresses;
    Some(fold(sum))
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
    // Forgotten, or how far each of the loop's ways out had looked would stay with the UDP header's offset.
    let start = frame.forget(layers.transport + 8 + RTP_HEADER as usize);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use crate::sample::{Packet, Vec, ethernet, ipv4, ipv6, rtp, udp};

    const PAYLOAD: usize = 14 + 20 + 8 + 12;

    /// How a sender fills the checksum.
    #[derive(Clone, Copy, Debug)]
    enum Checksum {
        Valid,
        None,
        /// The pseudo-header's sum, for the network card to complete.
        Partial,
    }

    /// RFC 1071, word by word.
    fn sum(parts: &[&[u8]]) -> u16 {
        let words = parts.concat();
        let mut sum = 0_u32;
        for word in words.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    /// A frame of RTP, and its checksum.
    fn frame(v6: bool, how: Checksum, packet: &[u8]) -> (Vec<u8>, u16) {
        let mut datagram = udp(20_000, 30_000, packet);
        datagram.splice(6..8, [0, 0]);
        let over = |data: &[u8]| -> Packet { if v6 { ipv6(&[], 17, data) } else { ipv4(&[], 0, 17, data) } };
        let addresses = if v6 { 8..40 } else { 12..20 };
        let pseudo = [&over(&[]).bytes[addresses], &[0, 17], &datagram[4..6]].concat();
        let checksum = match how {
            Checksum::Valid => !sum(&[&pseudo, &datagram]),
            Checksum::None => 0,
            Checksum::Partial => sum(&[&pseudo]),
        };
        datagram.splice(6..8, checksum.to_be_bytes());
        (ethernet(&[], &over(&datagram)), checksum)
    }

    fn print(frame: &[u8]) -> Fingerprint {
        of_rtp(frame, &parse::ethernet(frame).unwrap()).unwrap()
    }

    #[test]
    fn a_valid_checksum_is_the_fingerprint() {
        for v6 in [false, true] {
            for length in [0, 1, 33, 160, 1_400] {
                let (frame, checksum) = frame(v6, Checksum::Valid, &rtp(length));
                assert_eq!(print(&frame), Fingerprint { value: checksum, hashed: false }, "{v6} {length}");
            }
        }
    }

    #[test]
    fn an_absent_or_partial_checksum_is_replaced_by_a_hash_of_the_payload() {
        for v6 in [false, true] {
            for length in [4, 33, 160, 1_400] {
                let (absent, _) = frame(v6, Checksum::None, &rtp(length));
                let (partial, _) = frame(v6, Checksum::Partial, &rtp(length));
                assert!(print(&absent).hashed, "{v6} {length}");
                assert_eq!(print(&partial), print(&absent), "{v6} {length}: one payload, one hash");
            }
        }
    }

    #[test]
    fn one_beside_a_partial_checksum_is_a_checksum() {
        for v6 in [false, true] {
            let (mut frame, checksum) = frame(v6, Checksum::Partial, &rtp(160));
            let at = if v6 { 14 + 40 + 6 } else { 14 + 20 + 6 };
            frame.splice(at..at + 2, (checksum ^ 1).to_be_bytes());
            assert_eq!(print(&frame), Fingerprint { value: checksum ^ 1, hashed: false });
        }
    }

    #[test]
    fn the_hash_tells_payloads_apart_by_any_bit_that_it_reads() {
        let (original, _) = frame(false, Checksum::None, &rtp(160));
        let flipped = |bit: usize| {
            let mut frame = original.clone();
            frame[PAYLOAD + bit / 8] ^= 1 << (bit % 8);
            print(&frame)
        };
        let read = HASHED_PAYLOAD * 8;
        let alike = (0..read).filter(|&bit| flipped(bit) == print(&original)).count();
        // Sixteen bits: one in 65,536 may collide, and 256 are tried.
        assert!(alike <= 1, "{alike} of {read} bits do not matter");
        assert!((read..160 * 8).all(|bit| flipped(bit) == print(&original)), "more is read than is said");
    }

    #[test]
    fn the_last_whole_word_of_a_short_payload_is_hashed_and_what_is_left_of_it_is_not() {
        for (length, at, counts) in [(4, 3, true), (6, 3, true), (6, 5, false), (8, 7, true), (3, 0, false)] {
            let (original, _) = frame(false, Checksum::None, &rtp(length));
            let mut other = original.clone();
            other[PAYLOAD + at] ^= 0xff;
            assert_eq!(print(&other) != print(&original), counts, "byte {at} of {length}");
        }
    }

    #[test]
    fn silence_of_one_byte_has_the_same_hash_whatever_the_sequence_number() {
        // The RTP header is compared for itself, so the hash is of the payload alone.
        let mut later = rtp(160);
        later[2..8].copy_from_slice(&[0, 2, 0, 0, 1, 0x40]);
        let ((first, _), (second, _)) =
            (frame(false, Checksum::None, &rtp(160)), frame(false, Checksum::None, &later));
        assert_eq!(print(&first), print(&second));
    }

    #[test]
    fn a_copy_by_another_tap_has_the_same_fingerprint() {
        for how in [Checksum::Valid, Checksum::None, Checksum::Partial] {
            let (first, _) = frame(false, how, &rtp(160));
            let mut copy = first.clone();
            copy[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]); // destination MAC
            copy[18..20].copy_from_slice(&[0, 0]); // identification
            copy[22] = 12; // TTL
            let tagged = [&copy[..12], &[0x81, 0, 0, 100], &copy[12..]].concat();
            assert_eq!((print(&copy), print(&tagged)), (print(&first), print(&first)), "{how:?}");
        }
    }

    #[test]
    fn padding_of_a_short_frame_is_not_payload() {
        let (bare, _) = frame(false, Checksum::None, &rtp(6));
        let padded = [&bare[..], &[0xff; 30]].concat();
        assert_eq!(print(&padded), print(&bare));
    }

    #[test]
    fn a_frame_that_ends_inside_the_rtp_header_has_no_fingerprint() {
        let (whole, _) = frame(false, Checksum::Valid, &rtp(160));
        let layers = parse::ethernet(whole.as_slice()).unwrap();
        for length in 0..PAYLOAD {
            assert_eq!(of_rtp(&whole[..length], &layers), None, "{length}");
        }
        assert!(of_rtp(&whole[..PAYLOAD], &layers).is_some());
    }
}
