//! What every source of frames turns its input into: one datagram with its evidence.
//!
//! ```text
//!   BPF rings ─┐                        ┌─ RtpPacket ──▶ a shard
//!              ├─▶ decode ─▶ Datagram ──┤
//!   files ─────┘                        └─ SIP, RTCP ──▶ signalling
//! ```
//!
//! The datagram's own fields (flow, payload) say *what* was sent. [`Evidence`] says *how it was seen*, and is
//! never part of an identity: two copies of one packet differ only there.

mod evidence;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Serialize, Serializer};

pub use evidence::{Carrier, Encapsulation, Evidence, Layer, Tap, Vlans};

/// Nanoseconds on the source's own clock: the kernel's CLOCK_MONOTONIC, or a file's time since 1970.
///
/// Only differences are used by the analysis; [`crate::capture::clock`] maps to wall time for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Nanoseconds since `earlier`; negative if the capture is out of order.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }
}

/// An address and UDP or TCP port. IPv4 is held as its IPv4-mapped address, so that a flow is 36 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IPv6, or IPv4-mapped (RFC 4291, 2.5.5.2), in network byte order.
    pub address: [u8; 16],
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// From an IPv4 address as on the wire.
    pub fn v4(address: [u8; 4], port: u16) -> Self {
        Self { address: Ipv4Addr::from(address).to_ipv6_mapped().octets(), port }
    }

    /// From an IPv6 address as on the wire.
    pub fn v6(address: [u8; 16], port: u16) -> Self {
        Self { address, port }
    }

    /// The address as a standard type, IPv4 where it is one.
    pub fn ip(&self) -> IpAddr {
        let address = Ipv6Addr::from(self.address);
        address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
    }

    /// The same as a key of the kernel's endpoint map.
    pub fn key(&self) -> probe_ebpf::EndpointKey {
        let (words, _) = self.address.as_chunks::<4>();
        let mut address = [0; 4];
        for (to, from) in address.iter_mut().zip(words) {
            *to = u32::from_ne_bytes(*from);
        }
        probe_ebpf::EndpointKey { address, port: u32::from(self.port) }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(v4) => Self::v4(v4.octets(), address.port()),
            IpAddr::V6(v6) => Self::v6(v6.octets(), address.port()),
        }
    }
}

impl fmt::Display for Endpoint {
    /// `10.0.0.1:5060`, `[2001:db8::1]:5060`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip(), self.port).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From whom to whom: the innermost addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
}

impl Flow {
    /// The bucket of the conversation, as the kernel computes it from the frame.
    pub fn bucket(&self) -> u8 {
        FlowWords::from(*self).bucket()
    }
}

/// An odd number near 2^64 divided by the golden ratio: multiplying by it mixes upwards.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// An endpoint as numbers, for tables: they are hashed and compared in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointWords {
    /// The address as in [`Endpoint`], in two words.
    pub address: [u64; 2],
    /// Port.
    pub port: u16,
}

impl EndpointWords {
    /// Of an IPv4 address.
    #[inline]
    pub fn v4(address: u32, port: u16) -> Self {
        Self { address: [0, 0xffff << 32 | u64::from(address)], port }
    }

    /// A hash whose upper bits are the better ones.
    #[inline]
    pub fn hash(self) -> u64 {
        let [high, low] = self.address;
        (high.rotate_left(29) ^ low ^ u64::from(self.port) << 32 ^ u64::from(self.port)).wrapping_mul(SPREAD)
    }
}

impl From<Endpoint> for EndpointWords {
    #[inline]
    fn from(endpoint: Endpoint) -> Self {
        let (words, _) = endpoint.address.as_chunks::<8>();
        let mut address = [0; 2];
        for (to, from) in address.iter_mut().zip(words) {
            *to = u64::from_be_bytes(*from);
        }
        Self { address, port: endpoint.port }
    }
}

impl From<EndpointWords> for probe_ebpf::flow::End {
    #[inline]
    fn from(EndpointWords { address, port }: EndpointWords) -> Self {
        Self { address, port }
    }
}

impl From<EndpointWords> for Endpoint {
    #[inline]
    fn from(key: EndpointWords) -> Self {
        let [high, low] = key.address.map(u128::from);
        Self { address: (high << 64 | low).to_be_bytes(), port: key.port }
    }
}

/// A flow as numbers, of which an [`EndpointWords`] of each end is made when it is asked for. Thirty-six octets: aligned to
/// eight it would be forty, and a packet more than two lines of memory.
#[derive(Clone, Copy, Default, Eq)]
#[repr(C, packed(4))]
pub struct FlowWords {
    src: [u64; 2],
    dst: [u64; 2],
    /// Of the sender in the upper half.
    ports: u32,
}

impl FlowWords {
    /// Between two ends.
    #[inline]
    pub fn new(src: EndpointWords, dst: EndpointWords) -> Self {
        Self { src: src.address, dst: dst.address, ports: u32::from(src.port) << 16 | u32::from(dst.port) }
    }

    /// The ends' ports in one word, the sender's in the upper half.
    #[inline]
    pub fn ports(&self) -> u32 {
        self.ports
    }

    /// Sender.
    #[inline]
    pub fn src(&self) -> EndpointWords {
        EndpointWords { address: self.src, port: (self.ports >> 16) as u16 }
    }

    /// Receiver.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub fn dst(&self) -> EndpointWords {
        EndpointWords { address: self.dst, port: self.ports as u16 }
    }

    /// The bucket of the conversation, as the kernel computes it from the frame.
    pub fn bucket(&self) -> u8 {
        let [src, dst] = [self.src(), self.dst()].map(probe_ebpf::flow::End::from);
        probe_ebpf::flow::bucket(probe_ebpf::flow::hash(src, dst))
    }

    /// A hash whose upper bits are the better ones; another for the other direction.
    #[inline]
    pub fn hash(&self) -> u64 {
        (self.src().hash().rotate_left(23) ^ self.dst().hash()).wrapping_mul(SPREAD)
    }
}

impl PartialEq for FlowWords {
    /// All differences at once: flows that are compared are mostly the same.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let differ = |one: [u64; 2], other: [u64; 2]| (one[0] ^ other[0]) | (one[1] ^ other[1]);
        let ports = u64::from(self.ports ^ other.ports);
        differ(self.src, other.src) | differ(self.dst, other.dst) | ports == 0
    }
}

impl fmt::Debug for FlowWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Flow::from(*self).fmt(f)
    }
}

impl From<Flow> for FlowWords {
    #[inline]
    fn from(flow: Flow) -> Self {
        Self::new(flow.src.into(), flow.dst.into())
    }
}

impl From<FlowWords> for Flow {
    #[inline]
    fn from(words: FlowWords) -> Self {
        Self { src: words.src().into(), dst: words.dst().into() }
    }
}

/// The fixed RTP header (RFC 3550, 5.1), decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// Payload type.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp, in units of the payload type's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl RtpHeader {
    /// Decodes the twelve octets, whose version the classifier has checked.
    pub fn from_wire(octets: &[u8; 12]) -> Self {
        let [_, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *octets;
        Self {
            payload_type: second & 0x7f,
            marker: second & 0x80 != 0,
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
        }
    }
}

/// What the signalling said about a packet's flow: an index into [`crate::sip::media::MediaTable`], 0 if it
/// said nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MediaId(pub u32);

impl MediaId {
    /// Nobody announced it.
    pub const UNANNOUNCED: Self = Self(0);

    /// Where a bounded table keeps what is known of it: ids that far apart are never in use together, as the
    /// media table holds half as many lines.
    pub fn slot(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "a constant of 17 bits")]
        const SLOTS: u32 = 2 * probe_ebpf::config::MAX_ENDPOINTS as u32;
        self.0 % SLOTS
    }
}

/// One RTP packet as seen at one tap: what a shard consumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpPacket {
    /// When it was seen: the time of the frame that held it.
    pub time: Nanos,
    /// When its tap saw it, by the tap's own clock. The same as `time`, but for what was captured elsewhere and came
    /// here by rpcap or HEP with a stamp of its own. Only differences within one tap mean anything.
    pub tap_time: Nanos,
    /// Its number in the capture, from 1: the frame number that Wireshark shows, or a running count live.
    pub number: u64,
    /// From whom to whom, as numbers: it is hashed and compared with each packet, and read by people once.
    pub flow: FlowWords,
    /// RTP header.
    pub rtp: RtpHeader,
    /// UDP length field: header and payload.
    pub udp_len: u16,
    /// What stands for the payload. See [`probe_ebpf::fingerprint`].
    pub fingerprint: probe_ebpf::Fingerprint,
    /// Was less captured than a hash in its place reads? Then it is the hash of something shorter.
    pub is_hash_cut: bool,
    /// The first octets of its payload, where it has so many and they were captured: what an event is (RFC 4733). From
    /// files, and live of those packets that came whole.
    pub payload_head: Option<[u8; 4]>,
    /// How it was seen.
    pub evidence: Evidence,
    /// What SDP said of it.
    pub media: MediaId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_the_same_as_numbers_and_back() {
        let v4 = Endpoint::v4([192, 0, 2, 1], 5_004);
        let v6 = Endpoint::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], 65_535);
        for flow in [Flow { src: v4, dst: v6 }, Flow { src: v6, dst: v4 }] {
            assert_eq!(Flow::from(FlowWords::from(flow)), flow);
        }
        assert_eq!(EndpointWords::from(v4), EndpointWords::v4(0xc000_0201, 5_004));
    }

    #[test]
    fn flows_are_equal_where_all_their_numbers_are() {
        assert_eq!((size_of::<FlowWords>(), size_of::<RtpPacket>()), (36, 120));
        let flow = Flow { src: Endpoint::v4([192, 0, 2, 1], 5_004), dst: Endpoint::v6([7; 16], 5_006) };
        for bit in 0..8 * 36_usize {
            let mut other = flow;
            let (at, bit) = (bit / 8, 1 << (bit % 8));
            match at {
                0..16 => other.src.address[at] ^= bit,
                16..32 => other.dst.address[at - 16] ^= bit,
                32..34 => other.src.port ^= u16::from(bit) << (8 * (at - 32)),
                _ => other.dst.port ^= u16::from(bit) << (8 * (at - 34)),
            }
            assert_ne!(FlowWords::from(other), FlowWords::from(flow), "{at} {bit}");
            assert_eq!(FlowWords::from(other), FlowWords::from(other));
        }
    }
}
