//! HEP version 3: a SIP or RTCP message as an agent saw it, with addresses and time in chunks of their own.

use std::net::{IpAddr, SocketAddr};

use super::to_port;
use crate::frames::{Datagram, UDP, length};

/// What a message is, by HEP's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HepKind {
    /// SIP.
    Sip = 1,
    /// RTCP.
    Rtcp = 5,
}

impl HepKind {
    /// By a look at the payload; `None` for what agents do not send.
    pub fn of(inner: &Datagram) -> Option<Self> {
        match inner.payload.as_slice() {
            [0x80..=0xbf, 192..=223, ..] => Some(Self::Rtcp),
            [b'A'..=b'Z', ..] => Some(Self::Sip),
            _ => None,
        }
    }
}

/// A HEP packet to be.
#[derive(Clone, Debug)]
pub struct Hep {
    /// Who sent the message.
    pub src: SocketAddr,
    /// To whom.
    pub dst: SocketAddr,
    /// IP protocol that carried it there.
    pub protocol: u8,
    /// When the agent saw it, in nanoseconds since 1970; HEP has microseconds.
    pub time_ns: u64,
    /// What it is.
    pub kind: HepKind,
    /// The agent.
    pub agent: u32,
    /// The message.
    pub payload: Vec<u8>,
}

/// What an agent sends for a datagram; SIP if it does not look like RTCP.
pub fn hep(inner: &Datagram, time_ns: u64) -> Hep {
    Hep {
        src: inner.src,
        dst: inner.dst,
        protocol: inner.protocol,
        time_ns,
        kind: HepKind::of(inner).unwrap_or(HepKind::Sip),
        agent: 2001,
        payload: inner.payload.clone(),
    }
}

impl Hep {
    /// The packet: a datagram's payload, or what follows the packet before in a TCP stream.
    pub fn bytes(&self) -> Vec<u8> {
        let seconds = u32::try_from(self.time_ns / 1_000_000_000).unwrap_or(u32::MAX);
        let micros = u32::try_from(self.time_ns / 1_000 % 1_000_000).unwrap_or(0);
        let (family, addresses) = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (2, [chunk(3, &src.octets()), chunk(4, &dst.octets())].concat())
            }
            (src, dst) => {
                let wide = |address: IpAddr| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                (10, [chunk(5, &wide(src)), chunk(6, &wide(dst))].concat())
            }
        };
        let chunks = [
            chunk(1, &[family]),
            chunk(2, &[self.protocol]),
            addresses,
            chunk(7, &self.src.port().to_be_bytes()),
            chunk(8, &self.dst.port().to_be_bytes()),
            chunk(9, &seconds.to_be_bytes()),
            chunk(10, &micros.to_be_bytes()),
            chunk(11, &[self.kind as u8]),
            chunk(12, &self.agent.to_be_bytes()),
            chunk(15, &self.payload),
        ]
        .concat();
        [b"HEP3".to_vec(), length(6 + chunks.len()).to_vec(), chunks].concat()
    }

    /// In a UDP datagram to port 9060.
    pub fn over(&self, outer: Datagram) -> Datagram {
        to_port(outer, 9060).protocol(UDP).payload(&self.bytes())
    }
}

/// Vendor 0, type, length of all, value.
fn chunk(kind: u16, value: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &kind.to_be_bytes(), &length(6 + value.len()), value].concat()
}
