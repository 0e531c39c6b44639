//! Frames for tests, built from named fields with defaults.
//!
//! ```text
//!   rtp().seq(65_535).over(udp().vlan(100)).ethernet()              one frame
//!   udp().v6().extension(60, &[0; 8]).payload(&rtcp()).ethernet()   an odd one
//!   sip(&invite(4_000)).fragments(1_400)                            several
//! ```
//!
//! Everything is deterministic: the same calls give the same bytes. Checksums are right unless a test sets one, so
//! that tools which check them agree. What a test lies about, it says by name or does to the bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IPv6 extension header number of a fragment.
const FRAGMENT: u8 = 44;
/// The flag "more fragments" of IPv4.
const MORE_FRAGMENTS: u16 = 0x2000;

/// An RTP packet to be.
#[derive(Clone, Debug)]
pub struct Rtp {
    /// Sequence number.
    pub seq: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Payload; its default is 20 ms of G.711 silence.
    pub payload: Vec<u8>,
}

/// An RTP packet with defaults.
pub fn rtp() -> Rtp {
    Rtp {
        seq: 1,
        timestamp: 160,
        ssrc: 0x1122_3344,
        payload_type: 8,
        marker: false,
        payload: vec![0xd5; 160],
    }
}

impl Rtp {
    /// Sets the sequence number, and a timestamp that goes with it.
    #[must_use]
    pub fn seq(self, seq: u16) -> Self {
        Self { seq, timestamp: u32::from(seq) * 160, ..self }
    }

    /// Sets the synchronisation source.
    #[must_use]
    pub fn ssrc(self, ssrc: u32) -> Self {
        Self { ssrc, ..self }
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// Sets a payload of so many bytes that differs from that of the sequence numbers around it.
    #[must_use]
    pub fn varied(self, payload_bytes: usize) -> Self {
        let [low, _] = self.seq.to_le_bytes();
        Self { payload: (0..payload_bytes).map(|at| at.to_le_bytes()[0] ^ low).collect(), ..self }
    }

    /// The packet (RFC 3550, 5.1).
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x80, (u8::from(self.marker) << 7) | self.payload_type];
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.ssrc.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The packet inside a datagram.
    #[must_use]
    pub fn over(&self, udp: Datagram) -> Datagram {
        udp.payload(&self.bytes())
    }
}

/// An RTCP receiver report without blocks.
pub fn rtcp() -> Vec<u8> {
    vec![0x80, 201, 0, 1, 0xde, 0xad, 0, 1]
}

/// A SIP message inside a datagram between two ports 5060.
pub fn sip(message: &str) -> Datagram {
    udp().ports(5060, 5060).payload(message.as_bytes())
}

/// A SIP request of `bytes` bytes, or of the few that it needs.
pub fn invite(bytes: usize) -> String {
    const START: &str = "INVITE sip:bob@example.com SIP/2.0\r\nSubject: ";
    const END: &str = "\r\n\r\n";
    [START, &"x".repeat(bytes.saturating_sub(START.len() + END.len())), END].concat()
}

/// An IP datagram to be, with what carries it. "Datagram" as in RFC 791: what is inside is UDP, TCP, or anything.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver, of the same address family.
    pub dst: SocketAddr,
    /// IP protocol. UDP and TCP have their headers; anything else is the payload alone.
    pub protocol: u8,
    /// Payload.
    pub payload: Vec<u8>,
    /// VLAN tags, outermost first: ethertype and tag control information.
    pub tags: Vec<(u16, u16)>,
    /// What lies between the tags and the IP header.
    pub shim: Shim,
    /// TCP's own fields.
    pub tcp: TcpFields,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4 identification, or that of an IPv6 fragment.
    pub ip_id: u16,
    /// IPv6 flow label, of 20 bits.
    pub flow_label: u32,
    /// The IPv4 field of flags and fragment offset.
    pub fragment: u16,
    /// Octets of IPv4 options, a multiple of four.
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers as (number, octets); the first octet, their "next header", is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// UDP or TCP checksum, if not the right one.
    pub checksum: Option<u16>,
    /// Destination MAC.
    pub dst_mac: [u8; 6],
    /// Source MAC.
    pub src_mac: [u8; 6],
}

/// What lies between an Ethernet header, with its tags, and an IP header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shim {
    /// Nothing.
    #[default]
    None,
    /// A stack of MPLS labels, outermost first (RFC 3032).
    Mpls(Vec<u32>),
    /// A PPPoE session (RFC 2516).
    Pppoe(u16),
}

/// What a TCP header has beyond ports and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFields {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The flag octet: [`TcpFields::SYN`] and so on.
    pub flags: u8,
    /// Window.
    pub window: u16,
}

impl TcpFields {
    /// No more data comes.
    pub const FIN: u8 = 0x01;
    /// A connection begins.
    pub const SYN: u8 = 0x02;
    /// It is refused or torn down.
    pub const RST: u8 = 0x04;
    /// The receiver should look.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number means something.
    pub const ACK: u8 = 0x10;
}

impl Default for TcpFields {
    fn default() -> Self {
        Self { seq: 1, ack: 2, flags: Self::PSH | Self::ACK, window: 0xffff }
    }
}

/// An empty UDP datagram from 10.0.0.1:20000 to 10.0.0.2:30000.
pub fn udp() -> Datagram {
    Datagram {
        src: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 20_000),
        dst: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 30_000),
        protocol: UDP,
        payload: Vec::new(),
        tags: Vec::new(),
        shim: Shim::None,
        tcp: TcpFields::default(),
        ttl: 64,
        tos: 0xb8,
        ip_id: 1,
        flow_label: 0,
        fragment: 0,
        ip_options: Vec::new(),
        extensions: Vec::new(),
        checksum: None,
        dst_mac: [2, 0, 0, 0, 0, 2],
        src_mac: [2, 0, 0, 0, 0, 1],
    }
}

/// An empty TCP segment between the same.
pub fn tcp() -> Datagram {
    Datagram { protocol: TCP, ..udp() }
}

impl Datagram {
    /// Sets both endpoints.
    #[must_use]
    pub fn between(self, src: SocketAddr, dst: SocketAddr) -> Self {
        Self { src, dst, ..self }
    }

    /// The same from 2001:db8::1 to 2001:db8::2, ports as they are.
    #[must_use]
    pub fn v6(self) -> Self {
        let host = |last: u16, port: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], port));
        let (src, dst) = (host(1, self.src.port()), host(2, self.dst.port()));
        self.between(src, dst)
    }

    /// Sets both ports.
    #[must_use]
    pub fn ports(mut self, src: u16, dst: u16) -> Self {
        self.src.set_port(src);
        self.dst.set_port(dst);
        self
    }

    /// Sets the IP protocol.
    #[must_use]
    pub fn protocol(self, protocol: u8) -> Self {
        Self { protocol, ..self }
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// Adds an 802.1Q tag inside those that are there.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(0x8100, id)
    }

    /// Adds a tag of any ethertype inside those that are there.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, tci: u16) -> Self {
        self.tags.push((ethertype, tci));
        self
    }

    /// Puts a stack of MPLS labels before the IP header, outermost first.
    #[must_use]
    pub fn mpls(self, labels: &[u32]) -> Self {
        Self { shim: Shim::Mpls(labels.to_vec()), ..self }
    }

    /// Puts the headers of a PPPoE session before the IP header.
    #[must_use]
    pub fn pppoe(self, session: u16) -> Self {
        Self { shim: Shim::Pppoe(session), ..self }
    }

    /// Sets TCP's sequence number.
    #[must_use]
    pub fn tcp_seq(mut self, seq: u32) -> Self {
        self.tcp.seq = seq;
        self
    }

    /// Sets source and destination MAC.
    #[must_use]
    pub fn macs(self, src_mac: [u8; 6], dst_mac: [u8; 6]) -> Self {
        Self { dst_mac, src_mac, ..self }
    }

    /// The same datagram as the other side would send it: endpoints and MACs swapped.
    #[must_use]
    pub fn reversed(self) -> Self {
        let Self { src, dst, src_mac, dst_mac, .. } = self;
        Self { src: dst, dst: src, src_mac: dst_mac, dst_mac: src_mac, ..self }
    }

    /// Sets the identification.
    #[must_use]
    pub fn ip_id(self, ip_id: u16) -> Self {
        Self { ip_id, ..self }
    }

    /// Sets the IPv6 flow label.
    #[must_use]
    pub fn flow_label(self, flow_label: u32) -> Self {
        Self { flow_label, ..self }
    }

    /// Sets the IPv4 field of flags and fragment offset; what is carried stays whole.
    #[must_use]
    pub fn fragment(self, fragment: u16) -> Self {
        Self { fragment, ..self }
    }

    /// Sets the IPv4 options.
    #[must_use]
    pub fn ip_options(self, octets: &[u8]) -> Self {
        Self { ip_options: octets.to_vec(), ..self }
    }

    /// Adds an IPv6 extension header behind those that are there.
    #[must_use]
    pub fn extension(mut self, number: u8, octets: &[u8]) -> Self {
        self.extensions.push((number, octets.to_vec()));
        self
    }

    /// Adds an IPv6 fragment header with this field of offset and flags; what is carried stays whole.
    #[must_use]
    pub fn fragment_header(self, field: u16) -> Self {
        let [high, low] = field.to_be_bytes();
        let [id_high, id_low] = self.ip_id.to_be_bytes();
        self.extension(FRAGMENT, &[0, 0, high, low, 0, 0, id_high, id_low])
    }

    /// Sets the transport's checksum, right or wrong.
    #[must_use]
    pub fn checksum(self, checksum: u16) -> Self {
        Self { checksum: Some(checksum), ..self }
    }

    /// The whole as an Ethernet frame.
    pub fn ethernet(&self) -> Vec<u8> {
        self.framed(&self.ip())
    }

    /// The whole behind a Linux cooked header with this packet type (0 to us, 4 from us); it has no tags.
    pub fn cooked(&self, packet_type: u8) -> Vec<u8> {
        let mut frame = vec![0, packet_type, 0, 1, 0, 6];
        frame.extend([&self.src_mac[..], &[0, 0], &self.ethertype().to_be_bytes()].concat());
        [frame, self.ip()].concat()
    }

    /// The same with the header of version 2.
    pub fn cooked2(&self, packet_type: u8) -> Vec<u8> {
        let mut frame = self.ethertype().to_be_bytes().to_vec();
        frame.extend([0, 0, 0, 0, 0, 2, 0, 1, packet_type, 6]);
        frame.extend([&self.src_mac[..], &[0, 0]].concat());
        [frame, self.ip()].concat()
    }

    /// The whole from the IP header on.
    pub fn ip(&self) -> Vec<u8> {
        self.packet(&self.transport())
    }

    /// As Ethernet frames of fragments, each with at most `size` bytes of the datagram, rounded down to eights.
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let transport = self.transport();
        let size = (size & !7).max(8);
        let count = transport.len().div_ceil(size);
        let fragment = |(at, part): (usize, &[u8])| {
            let offset = u16::try_from(at * size).unwrap_or(u16::MAX);
            let more = at + 1 < count;
            let datagram = if self.src.is_ipv4() {
                self.clone().fragment((offset / 8) | if more { MORE_FRAGMENTS } else { 0 })
            } else {
                self.clone().fragment_header(offset | u16::from(more))
            };
            datagram.framed(&datagram.packet(part))
        };
        transport.chunks(size).enumerate().map(fragment).collect()
    }

    fn framed(&self, packet: &[u8]) -> Vec<u8> {
        let mut frame = [self.dst_mac, self.src_mac].concat();
        for (ethertype, tci) in &self.tags {
            frame.extend_from_slice(&ethertype.to_be_bytes());
            frame.extend_from_slice(&tci.to_be_bytes());
        }
        match &self.shim {
            Shim::None => frame.extend_from_slice(&self.ethertype().to_be_bytes()),
            Shim::Mpls(labels) => {
                frame.extend_from_slice(&[0x88, 0x47]);
                for (index, label) in labels.iter().enumerate() {
                    let bottom = u32::from(index + 1 == labels.len());
                    frame.extend_from_slice(&(label << 12 | bottom << 8 | u32::from(self.ttl)).to_be_bytes());
                }
            }
            Shim::Pppoe(session) => {
                frame.extend_from_slice(&[0x88, 0x64, 0x11, 0x00]);
                frame.extend_from_slice(&session.to_be_bytes());
                frame.extend_from_slice(&length(2 + packet.len()));
                frame.extend_from_slice(&if self.src.is_ipv4() { [0x00, 0x21] } else { [0x00, 0x57] });
            }
        }
        frame.extend_from_slice(packet);
        frame
    }

    fn ethertype(&self) -> u16 {
        if self.src.is_ipv4() { 0x0800 } else { 0x86dd }
    }

    fn packet(&self, data: &[u8]) -> Vec<u8> {
        let (src, dst) = (octets(self.src.ip()), octets(self.dst.ip()));
        let mut packet;
        if self.src.is_ipv4() {
            let header_len = 20 + self.ip_options.len();
            packet = vec![0x40 | u8::try_from(header_len / 4).unwrap_or(15), self.tos];
            packet.extend(length(header_len + data.len()));
            packet.extend(self.ip_id.to_be_bytes());
            packet.extend(self.fragment.to_be_bytes());
            packet.extend([self.ttl, self.protocol, 0, 0]);
            packet.extend([src, dst, self.ip_options.clone()].concat());
            let sum = checksum(&[&packet]);
            packet.splice(10..12, sum.to_be_bytes());
        } else {
            let next = |index: usize| self.extensions.get(index).map_or(self.protocol, |(number, _)| *number);
            let extensions_len: usize = self.extensions.iter().map(|(_, octets)| octets.len()).sum();
            let first_word = 6 << 28 | u32::from(self.tos) << 20 | self.flow_label & 0x000f_ffff;
            packet = first_word.to_be_bytes().to_vec();
            packet.extend(length(extensions_len + data.len()));
            packet.extend([next(0), self.ttl]);
            packet.extend([src, dst].concat());
            for (index, (_, octets)) in self.extensions.iter().enumerate() {
                packet.push(next(index + 1));
                packet.extend(octets.iter().skip(1));
            }
        }
        packet.extend_from_slice(data);
        packet
    }

    /// The transport's header and the payload.
    fn transport(&self) -> Vec<u8> {
        let ports = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        let (mut transport, at) = match self.protocol {
            UDP => ([&ports[..], &length(8 + self.payload.len()), &[0, 0]].concat(), 6),
            TCP => {
                let TcpFields { seq, ack, flags, window } = self.tcp;
                let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
                let [high, low] = window.to_be_bytes();
                ([&ports[..], &numbers, &[0x50, flags, high, low, 0, 0, 0, 0]].concat(), 16)
            }
            _ => return self.payload.clone(),
        };
        transport.extend_from_slice(&self.payload);
        let sum = self.checksum.unwrap_or_else(|| self.right_checksum(&transport));
        transport.splice(at..at + 2, sum.to_be_bytes());
        transport
    }

    fn right_checksum(&self, transport: &[u8]) -> u16 {
        let pseudo = [octets(self.src.ip()), octets(self.dst.ip())].concat();
        match checksum(&[&pseudo, &[0, self.protocol], &length(transport.len()), transport]) {
            0 if self.protocol == UDP => 0xffff, // RFC 768: zero means that there is none
            sum => sum,
        }
    }
}

pub(crate) fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// RFC 1071, over parts of which only the last may have an odd length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|word| match *word {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to sixteen bits")]
    let folded = sum as u16;
    !folded
}
