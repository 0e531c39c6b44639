//! What comes to a media port and is neither RTP nor RTCP: by the first octet (RFC 7983), and by what each protocol
//! says of itself, because one octet proves little.
//!
//! ```text
//!   0..=3 STUN   16..=19 ZRTP   20..=63 DTLS   64..=79 TURN channel   128..=191 RTP, RTCP
//! ```
//!
//! All of it is counted by kind. A DTLS handshake between two endpoints makes the RTP between them SRTP (RFC 5764),
//! whether or not anybody read an SDP.

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::packet::{Endpoint, Flow};

/// Pairs of endpoints remembered for DTLS and ZRTP; further ones are counted only.
const MAX_PAIRS: usize = 65_536;

/// What a datagram on a media port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Connectivity checks and address discovery (RFC 8489).
    Stun,
    /// A handshake for SRTP keys, or data (RFC 6347, RFC 5764).
    Dtls,
    /// Key agreement within the media (RFC 6189).
    Zrtp,
    /// Data through a TURN relay (RFC 8656, 12.4).
    TurnChannel,
    /// Fax over UDP (ITU-T T.38).
    Udptl,
    /// A keep-alive of a few equal octets, or nothing.
    KeepAlive,
    /// None of these.
    Unknown,
}

impl Other {
    /// Of a payload that is no RTP and no RTCP.
    pub fn of(payload: &[u8]) -> Self {
        let &[first, _, third, fourth, ref rest @ ..] = payload else { return Self::KeepAlive };
        let length = usize::from(u16::from_be_bytes([third, fourth]));
        match first {
            0..=3 if rest.starts_with(&0x2112_a442_u32.to_be_bytes()) => Self::Stun,
            16..=19 if rest.starts_with(b"ZRTP") => Self::Zrtp,
            20..=63 if is_dtls(payload) => Self::Dtls,
            // Padded to a word over TCP only, but some pad.
            64..=79 if (length..=length + 3).contains(&rest.len()) => Self::TurnChannel,
            _ if payload.iter().all(|octet| *octet == first) && payload.len() <= 8 => Self::KeepAlive,
            _ if is_udptl(third, payload) => Self::Udptl,
            _ => Self::Unknown,
        }
    }
}

/// One record layer header: type, version 1.0, 1.2 or (in the clear part of) 1.3, and a length that fits.
fn is_dtls(payload: &[u8]) -> bool {
    let &[kind, major, minor, .., high, low] = payload.get(..13).unwrap_or_default() else { return false };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_version = major == 0xfe && matches!(minor, 0xff | 0xfd) || (major, minor) == (1, 0);
    (20..=26).contains(&kind) && is_version && length > 0 && 13 + length <= payload.len()
}

/// A sequence number, the primary IFP packet under its length, and error recovery: either secondary packets
/// (0, count) or FEC (0x80). There is no mark, so all three must fit.
fn is_udptl(primary: u8, payload: &[u8]) -> bool {
    let Some(recovery) = payload.get(3 + usize::from(primary)..) else { return false };
    let is_recovery = match recovery {
        [0, count, rest @ ..] => usize::from(*count) <= rest.len(),
        [0x80, _, ..] => true,
        _ => false,
    };
    primary > 0 && is_recovery
}

/// Datagrams by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OtherCounts {
    /// STUN.
    pub stun: u64,
    /// DTLS.
    pub dtls: u64,
    /// ZRTP.
    pub zrtp: u64,
    /// TURN channel data.
    pub turn_channel: u64,
    /// T.38 over UDPTL.
    pub udptl: u64,
    /// Keep-alives.
    pub keep_alive: u64,
    /// Anything else.
    pub unknown: u64,
}

/// What was negotiated beside the media, between two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keying {
    /// DTLS was seen.
    Dtls,
    /// ZRTP was seen.
    Zrtp,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Demux {
    counts: OtherCounts,
    keyed: FxHashMap<(Endpoint, Endpoint), Keying>,
}

impl Demux {
    /// Takes a datagram that is neither RTP nor RTCP, and says what it is. One that nobody announced (`is_announced`) is only
    /// looked at for keys.
    pub fn observe(&mut self, flow: &Flow, payload: &[u8], is_announced: bool) -> Other {
        let other = Other::of(payload);
        if is_announced {
            *match other {
                Other::Stun => &mut self.counts.stun,
                Other::Dtls => &mut self.counts.dtls,
                Other::Zrtp => &mut self.counts.zrtp,
                Other::TurnChannel => &mut self.counts.turn_channel,
                Other::Udptl => &mut self.counts.udptl,
                Other::KeepAlive => &mut self.counts.keep_alive,
                Other::Unknown => &mut self.counts.unknown,
            } += 1;
        }
        let keying = match other {
            Other::Dtls => Keying::Dtls,
            Other::Zrtp => Keying::Zrtp,
            _ => return other,
        };
        if self.keyed.len() < MAX_PAIRS {
            self.keyed.insert(pair(flow), keying);
        }
        other
    }

    /// Datagrams by kind.
    pub fn counts(&self) -> &OtherCounts {
        &self.counts
    }

    /// What was negotiated between the endpoints of a flow, either way.
    pub fn keying(&self, flow: &Flow) -> Option<Keying> {
        self.keyed.get(&pair(flow)).copied()
    }
}

fn pair(flow: &Flow) -> (Endpoint, Endpoint) {
    (flow.src.min(flow.dst), flow.src.max(flow.dst))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_protocol_is_told_by_more_than_its_first_octet() {
        let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
        // Handshake, DTLS 1.2, epoch 0, sequence 0, 2 octets.
        let dtls = [&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2][..], &[1, 0]].concat();
        let zrtp = [&[0x10, 0, 0, 1][..], b"ZRTP", &[0; 8]].concat();
        let turn = [&[0x40, 0x01, 0, 4][..], &[1, 2, 3, 4]].concat();
        // Number 5, one primary octet, no secondary packets.
        let udptl = [0, 5, 1, 6, 0, 0];
        let cases: [(&[u8], Other); 9] = [
            (&stun, Other::Stun),
            (&dtls, Other::Dtls),
            (&zrtp, Other::Zrtp),
            (&turn, Other::TurnChannel),
            (&udptl, Other::Udptl),
            (&[0, 0, 0, 0], Other::KeepAlive),
            (&[], Other::KeepAlive),
            // A DTLS that claims more than there is, and STUN without its cookie.
            (&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9], Other::Unknown),
            (&[0, 1, 0xff, 0, 9, 9, 9, 9], Other::Unknown),
        ];
        for (payload, expected) in cases {
            assert_eq!(Other::of(payload), expected, "{payload:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            Other::of(&payload);
        }
    }

    #[test]
    fn dtls_marks_both_directions_and_only_what_was_announced_is_counted() {
        let flow = crate::rtp::testing::flow();
        let dtls = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        let mut demux = Demux::default();
        demux.observe(&flow, &dtls, false);
        let back = Flow { src: flow.dst, dst: flow.src };
        assert_eq!((demux.keying(&flow), demux.keying(&back)), (Some(Keying::Dtls), Some(Keying::Dtls)));
        assert_eq!(demux.counts(), &OtherCounts::default());
        demux.observe(&flow, &dtls, true);
        assert_eq!(demux.counts(), &OtherCounts { dtls: 1, ..OtherCounts::default() });
    }
}
