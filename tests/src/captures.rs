//! Frames and capture files for tests, built from named fields with defaults.
//!
//! ```text
//!   rtp().seq(65_535).over(udp().vlan(100)).ethernet()     one frame
//!   Writer { big_endian: true, ..Writer::PCAP_NG }.file(&frames)     a file of them
//! ```
//!
//! Everything is deterministic: the same calls give the same bytes. Checksums are right, so that tools which
//! check them agree.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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
    pub fn over(&self, udp: Udp) -> Udp {
        udp.payload(&self.bytes())
    }
}

/// A SIP message inside a datagram between two ports 5060.
pub fn sip(message: &str) -> Udp {
    udp().ports(5060, 5060).payload(message.as_bytes())
}

/// A UDP datagram to be, with what carries it.
#[derive(Clone, Debug)]
pub struct Udp {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver, of the same address family.
    pub dst: SocketAddr,
    /// Payload.
    pub payload: Vec<u8>,
    /// VLAN identifiers, outermost first.
    pub vlans: Vec<u16>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4 identification, or that of an IPv6 fragment.
    pub ip_id: u16,
    /// Destination MAC.
    pub dst_mac: [u8; 6],
    /// Source MAC.
    pub src_mac: [u8; 6],
}

/// An empty datagram from 10.0.0.1:20000 to 10.0.0.2:30000.
pub fn udp() -> Udp {
    Udp {
        src: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 20_000),
        dst: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 30_000),
        payload: Vec::new(),
        vlans: Vec::new(),
        ttl: 64,
        tos: 0xb8,
        ip_id: 1,
        dst_mac: [2, 0, 0, 0, 0, 2],
        src_mac: [2, 0, 0, 0, 0, 1],
    }
}

impl Udp {
    /// Sets both endpoints.
    #[must_use]
    pub fn between(self, src: SocketAddr, dst: SocketAddr) -> Self {
        Self { src, dst, ..self }
    }

    /// Sets both ports.
    #[must_use]
    pub fn ports(mut self, src: u16, dst: u16) -> Self {
        self.src.set_port(src);
        self.dst.set_port(dst);
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// Adds a VLAN tag inside those that are there.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlans.push(id);
        self
    }

    /// Sets the identification.
    #[must_use]
    pub fn ip_id(self, ip_id: u16) -> Self {
        Self { ip_id, ..self }
    }

    /// The whole as an Ethernet frame.
    pub fn ethernet(&self) -> Vec<u8> {
        self.framed(&self.ip())
    }

    /// The whole from the IP header on.
    pub fn ip(&self) -> Vec<u8> {
        self.packet(&self.datagram(), None)
    }

    /// As Ethernet frames of fragments, each with at most `size` bytes of the datagram, rounded down to eights.
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let datagram = self.datagram();
        let size = (size & !7).max(8);
        let count = datagram.len().div_ceil(size);
        let fragment = |(at, part): (usize, &[u8])| {
            let offset = u16::try_from(at * size).unwrap_or(u16::MAX);
            self.framed(&self.packet(part, Some((offset, at + 1 < count))))
        };
        datagram.chunks(size).enumerate().map(fragment).collect()
    }

    fn framed(&self, packet: &[u8]) -> Vec<u8> {
        let mut frame = [self.dst_mac, self.src_mac].concat();
        for vlan in &self.vlans {
            frame.extend_from_slice(&0x8100_u16.to_be_bytes());
            frame.extend_from_slice(&vlan.to_be_bytes());
        }
        let ethertype: u16 = if self.src.is_ipv4() { 0x0800 } else { 0x86dd };
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend_from_slice(packet);
        frame
    }

    fn datagram(&self) -> Vec<u8> {
        let length = u16::try_from(self.payload.len() + 8).unwrap_or(u16::MAX);
        let mut datagram = Vec::with_capacity(usize::from(length));
        for field in [self.src.port(), self.dst.port(), length, 0] {
            datagram.extend_from_slice(&field.to_be_bytes());
        }
        datagram.extend_from_slice(&self.payload);
        let pseudo = [octets(self.src.ip()), octets(self.dst.ip())].concat();
        let sum = match checksum(&[&pseudo, &[0, 17], &length.to_be_bytes(), &datagram]) {
            0 => 0xffff, // RFC 768: zero means that there is none
            sum => sum,
        };
        datagram.splice(6..8, sum.to_be_bytes());
        datagram
    }

    /// `fragment`: offset in bytes, and whether more follow.
    fn packet(&self, data: &[u8], fragment: Option<(u16, bool)>) -> Vec<u8> {
        let (src, dst) = (octets(self.src.ip()), octets(self.dst.ip()));
        let length = |header: usize| u16::try_from(header + data.len()).unwrap_or(u16::MAX).to_be_bytes();
        let mut packet;
        if self.src.is_ipv4() {
            packet = vec![0x45, self.tos];
            packet.extend_from_slice(&length(20));
            packet.extend_from_slice(&self.ip_id.to_be_bytes());
            let (offset, more) = fragment.unwrap_or_default();
            packet.extend_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            packet.extend_from_slice(&[self.ttl, 17, 0, 0]);
            packet.extend([src, dst].concat());
            let sum = checksum(&[&packet]);
            packet.splice(10..12, sum.to_be_bytes());
        } else {
            packet = vec![0x60 | (self.tos >> 4), self.tos << 4, 0, 0];
            packet.extend_from_slice(&length(if fragment.is_some() { 8 } else { 0 }));
            packet.extend_from_slice(&[if fragment.is_some() { 44 } else { 17 }, self.ttl]);
            packet.extend([src, dst].concat());
            if let Some((offset, more)) = fragment {
                packet.extend_from_slice(&[17, 0]);
                packet.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
                packet.extend_from_slice(&u32::from(self.ip_id).to_be_bytes());
            }
        }
        packet.extend_from_slice(data);
        packet
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// RFC 1071, over parts of which only the last may have an odd length.
fn checksum(parts: &[&[u8]]) -> u16 {
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

/// A frame and when it was captured, in nanoseconds since 1970.
pub type Timed = (u64, Vec<u8>);

/// File formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic, microseconds.
    Micros,
    /// Classic, nanoseconds.
    Nanos,
    /// pcapng, enhanced packet blocks, nanoseconds.
    Enhanced,
    /// pcapng, obsolete packet blocks, nanoseconds.
    Obsolete,
}

/// How to write a capture file.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    /// Format.
    pub format: Format,
    /// Byte order.
    pub big_endian: bool,
    /// Link type by number.
    pub link: u16,
}

impl Writer {
    /// Classic pcap as tcpdump writes it here.
    pub const PCAP: Self = Self { format: Format::Micros, big_endian: false, link: 1 };
    /// pcapng with nanoseconds.
    pub const PCAP_NG: Self = Self { format: Format::Enhanced, big_endian: false, link: 1 };

    /// The bytes of a file with these frames.
    pub fn file(&self, frames: &[Timed]) -> Vec<u8> {
        let mut file = match self.format {
            Format::Micros | Format::Nanos => self.classic_header(),
            Format::Enhanced | Format::Obsolete => {
                [self.section(), self.interface("tap0", Some(9), None, 0)].concat()
            }
        };
        for (time_ns, frame) in frames {
            file.extend(match self.format {
                Format::Micros => {
                    self.classic(time_ns / 1_000_000_000, time_ns % 1_000_000_000 / 1000, frame)
                }
                Format::Nanos => self.classic(time_ns / 1_000_000_000, time_ns % 1_000_000_000, frame),
                Format::Enhanced => self.enhanced(0, *time_ns, frame),
                Format::Obsolete => self.obsolete(0, *time_ns, frame),
            });
        }
        file
    }

    /// A classic file header.
    pub fn classic_header(&self) -> Vec<u8> {
        let magic = if self.format == Format::Nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let version = [self.short(2), self.short(4)].concat();
        let rest: Vec<u8> =
            [0, 0, 262_144, u64::from(self.link)].iter().flat_map(|n| self.word(*n)).collect();
        [self.word(magic).to_vec(), version, rest].concat()
    }

    /// A classic record; `fraction` in the unit of the format.
    pub fn classic(&self, seconds: u64, fraction: u64, frame: &[u8]) -> Vec<u8> {
        let length = frame.len() as u64;
        let header = [seconds, fraction, length, length].map(|n| self.word(n)).concat();
        [header, frame.to_vec()].concat()
    }

    /// A section header block of unknown length.
    pub fn section(&self) -> Vec<u8> {
        let body = [self.word(0x1a2b_3c4d).to_vec(), [self.short(1), self.short(0)].concat(), vec![0xff; 8]];
        self.block(0x0a0d_0d0a, &body.concat())
    }

    /// An interface description block; `resolution` and `offset_s` as in its options.
    pub fn interface(
        &self,
        name: &str,
        resolution: Option<u8>,
        offset_s: Option<i64>,
        snap_len: u64,
    ) -> Vec<u8> {
        let mut body = [self.short(self.link), self.short(0)].concat();
        body.extend(self.word(snap_len));
        body.extend(self.option(2, name.as_bytes()));
        if let Some(resolution) = resolution {
            body.extend(self.option(9, &[resolution]));
        }
        if let Some(offset) = offset_s {
            let offset = if self.big_endian { offset.to_be_bytes() } else { offset.to_le_bytes() };
            body.extend(self.option(14, &offset));
        }
        body.extend([0; 4]);
        self.block(1, &body)
    }

    /// An enhanced packet block; `ticks` in the unit of its interface.
    pub fn enhanced(&self, interface: u32, ticks: u64, frame: &[u8]) -> Vec<u8> {
        self.block(6, &[self.word(u64::from(interface)).to_vec(), self.timed(ticks, frame)].concat())
    }

    /// An obsolete packet block.
    pub fn obsolete(&self, interface: u16, ticks: u64, frame: &[u8]) -> Vec<u8> {
        self.block(2, &[self.short(interface).to_vec(), vec![0xff; 2], self.timed(ticks, frame)].concat())
    }

    /// A simple packet block of a frame that was `wire_len` bytes long.
    pub fn simple(&self, wire_len: u64, captured: &[u8]) -> Vec<u8> {
        self.block(3, &[self.word(wire_len).to_vec(), padded(captured)].concat())
    }

    fn timed(self, ticks: u64, frame: &[u8]) -> Vec<u8> {
        let length = frame.len() as u64;
        let header = [ticks >> 32, ticks & 0xffff_ffff, length, length].map(|n| self.word(n)).concat();
        [header, padded(frame)].concat()
    }

    fn block(self, kind: u64, body: &[u8]) -> Vec<u8> {
        let length = self.word(body.len() as u64 + 12);
        [&self.word(kind)[..], &length, body, &length].concat()
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        [self.short(code).to_vec(), self.short(length).to_vec(), padded(value)].concat()
    }

    fn short(self, n: u16) -> [u8; 2] {
        if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn word(self, n: u64) -> [u8; 4] {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    }
}

/// To a multiple of four.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
