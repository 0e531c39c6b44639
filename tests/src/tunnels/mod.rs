//! Tunnels: what carries a frame or an IP packet inside another IP packet, built from named fields with defaults.
//!
//! ```text
//!   gre(&inner.ip()).key(7).sequence(1).over(tunnel()).ethernet()             IP in GRE
//!   erspan2(&inner.ethernet()).session(5).over(tunnel().vlan(100)).ethernet() a mirrored frame in a VLAN
//!   vxlan(&gtp(&inner.ip()).over(tunnel()).ethernet()).over(tunnel())         a tunnel in a tunnel
//!   Tunnel::ALL                                                               each of them once
//! ```
//!
//! `over` takes the outer datagram, of which only ports, protocol and payload are set. MPLS and PPPoE are no IP
//! packets: [`Datagram::mpls`] and [`Datagram::pppoe`]. Checksums are right.

mod hep;
mod rpcap;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::frames::{Datagram, checksum, length, udp};

pub use self::hep::{Hep, HepKind, hep};
pub use self::rpcap::{RpcapKind, RpcapSession, rpcap_message, rpcap_packet, rpcap_udp};

/// IP protocol number of GRE.
pub const GRE: u8 = 47;
/// IP protocol number of IPv4 in IP.
const IPV4_IN_IP: u8 = 4;
/// IP protocol number of IPv6 in IP.
const IPV6_IN_IP: u8 = 41;
/// Ethertype of Ethernet in GRE and Geneve.
const BRIDGED: u16 = 0x6558;

/// The outside of a tunnel: a datagram from 192.0.2.1 to 192.0.2.2 between MACs of their own.
pub fn tunnel() -> Datagram {
    let end = |last: u8, port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), port);
    udp()
        .between(end(1, 49_152), end(2, 49_153))
        .macs([2, 0, 0, 0, 0xee, 1], [2, 0, 0, 0, 0xee, 2])
        .ip_id(0x7e00)
}

/// A packet directly inside an IP packet, whatever the versions of both (RFC 2003, 2473, 4213).
pub fn ip_in_ip(packet: &[u8], outer: Datagram) -> Datagram {
    let protocol = if is_v6(packet) { IPV6_IN_IP } else { IPV4_IN_IP };
    outer.protocol(protocol).payload(packet)
}

/// GRE (RFC 2784, 2890).
#[derive(Clone, Debug)]
pub struct Gre {
    /// Ethertype of what is inside.
    pub protocol: u16,
    /// Key.
    pub key: Option<u32>,
    /// Sequence number.
    pub sequence: Option<u32>,
    /// With the optional checksum.
    pub checksum: bool,
    /// What is inside.
    pub payload: Vec<u8>,
}

/// An IP packet in GRE.
pub fn gre(packet: &[u8]) -> Gre {
    gre_of(if is_v6(packet) { 0x86dd } else { 0x0800 }, packet)
}

/// An Ethernet frame in GRE.
pub fn gre_bridged(frame: &[u8]) -> Gre {
    gre_of(BRIDGED, frame)
}

fn gre_of(protocol: u16, payload: &[u8]) -> Gre {
    Gre { protocol, key: None, sequence: None, checksum: false, payload: payload.to_vec() }
}

impl Gre {
    /// Sets the key.
    #[must_use]
    pub fn key(self, key: u32) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Sets the sequence number.
    #[must_use]
    pub fn sequence(self, sequence: u32) -> Self {
        Self { sequence: Some(sequence), ..self }
    }

    /// Adds the checksum.
    #[must_use]
    pub fn checksummed(self) -> Self {
        Self { checksum: true, ..self }
    }

    /// Inside an outer packet.
    pub fn over(&self, outer: Datagram) -> Datagram {
        let flag = |present: bool, bit: u16| if present { bit } else { 0 };
        let flags = flag(self.checksum, 0x8000)
            | flag(self.key.is_some(), 0x2000)
            | flag(self.sequence.is_some(), 0x1000);
        let mut bytes = [flags.to_be_bytes(), self.protocol.to_be_bytes()].concat();
        if self.checksum {
            bytes.extend([0; 4]);
        }
        for word in [self.key, self.sequence].into_iter().flatten() {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(&self.payload);
        if self.checksum {
            let sum = checksum(&[&bytes]);
            bytes.splice(4..6, sum.to_be_bytes());
        }
        outer.protocol(GRE).payload(&bytes)
    }
}

/// A mirrored frame in GRE, as Cisco's switches send it (draft-foschiano-erspan).
#[derive(Clone, Debug)]
pub struct Erspan {
    /// Type 1, 2 or 3.
    pub kind: u8,
    /// The mirror session, of ten bits.
    pub session: u16,
    /// VLAN of the mirrored frame.
    pub vlan: u16,
    /// GRE sequence number; type 1 has none.
    pub sequence: u32,
    /// When the switch saw the frame, in units of 100 us (type 3).
    pub timestamp: u32,
    /// The platform specific subheader (type 3).
    pub subheader: Option<[u8; 8]>,
    /// The mirrored frame.
    pub frame: Vec<u8>,
}

/// ERSPAN type I: no header of its own.
pub fn erspan1(frame: &[u8]) -> Erspan {
    Erspan { kind: 1, session: 1, vlan: 0, sequence: 0, timestamp: 0, subheader: None, frame: frame.to_vec() }
}

/// ERSPAN type II.
pub fn erspan2(frame: &[u8]) -> Erspan {
    Erspan { kind: 2, ..erspan1(frame) }
}

/// ERSPAN type III.
pub fn erspan3(frame: &[u8]) -> Erspan {
    Erspan { kind: 3, ..erspan1(frame) }
}

impl Erspan {
    /// Sets the session.
    #[must_use]
    pub fn session(self, session: u16) -> Self {
        Self { session, ..self }
    }

    /// Sets the sequence number.
    #[must_use]
    pub fn sequence(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }

    /// Sets the platform specific subheader.
    #[must_use]
    pub fn subheader(self, octets: [u8; 8]) -> Self {
        Self { subheader: Some(octets), ..self }
    }

    /// Inside an outer packet.
    pub fn over(&self, outer: Datagram) -> Datagram {
        // Version, VLAN; class of service, encapsulation of the tag, truncated, session.
        let word = |version: u16| {
            [(version << 12 | self.vlan & 0x0fff).to_be_bytes(), (self.session & 0x03ff).to_be_bytes()]
                .concat()
        };
        match self.kind {
            1 => gre_of(0x88be, &self.frame).over(outer),
            2 => {
                let index = [0, 0, 0, 7];
                let payload = [&word(1)[..], &index, &self.frame].concat();
                gre_of(0x88be, &payload).sequence(self.sequence).over(outer)
            }
            _ => {
                // Security group tag; no platform, Ethernet frame, hardware 0, ingress, 100 us, subheader.
                let last = [0, 0, 0, u8::from(self.subheader.is_some())];
                let subheader: &[u8] = self.subheader.as_ref().map_or(&[], |octets| octets);
                let timestamp = self.timestamp.to_be_bytes();
                let payload = [&word(2)[..], &timestamp, &last, subheader, &self.frame].concat();
                gre_of(0x22eb, &payload).sequence(self.sequence).over(outer)
            }
        }
    }
}

/// VXLAN (RFC 7348).
#[derive(Clone, Debug)]
pub struct Vxlan {
    /// Network identifier, of 24 bits.
    pub vni: u32,
    /// The frame inside.
    pub frame: Vec<u8>,
}

/// A frame in VXLAN.
pub fn vxlan(frame: &[u8]) -> Vxlan {
    Vxlan { vni: 42, frame: frame.to_vec() }
}

impl Vxlan {
    /// Sets the network identifier.
    #[must_use]
    pub fn vni(self, vni: u32) -> Self {
        Self { vni, ..self }
    }

    /// Inside an outer datagram, to port 4789.
    pub fn over(&self, outer: Datagram) -> Datagram {
        let header = [[8, 0, 0, 0], (self.vni << 8).to_be_bytes()].concat();
        to_port(outer, 4789).payload(&[header, self.frame.clone()].concat())
    }
}

/// Geneve (RFC 8926).
#[derive(Clone, Debug)]
pub struct Geneve {
    /// Network identifier, of 24 bits.
    pub vni: u32,
    /// Options, a multiple of four octets.
    pub options: Vec<u8>,
    /// Ethertype of what is inside.
    pub protocol: u16,
    /// What is inside.
    pub payload: Vec<u8>,
}

/// An Ethernet frame in Geneve.
pub fn geneve(frame: &[u8]) -> Geneve {
    Geneve { vni: 42, options: Vec::new(), protocol: BRIDGED, payload: frame.to_vec() }
}

/// An IP packet in Geneve.
pub fn geneve_ip(packet: &[u8]) -> Geneve {
    Geneve { protocol: if is_v6(packet) { 0x86dd } else { 0x0800 }, ..geneve(packet) }
}

impl Geneve {
    /// Adds an option of class 0x0102 with this type and value (a multiple of four octets).
    #[must_use]
    pub fn option(mut self, kind: u8, value: &[u8]) -> Self {
        let words = u8::try_from(value.len() / 4).unwrap_or(31) & 31;
        self.options.extend([&[1, 2, kind, words], value].concat());
        self
    }

    /// Inside an outer datagram, to port 6081.
    pub fn over(&self, outer: Datagram) -> Datagram {
        let mut bytes = vec![u8::try_from(self.options.len() / 4).unwrap_or(63) & 63, 0];
        bytes.extend(self.protocol.to_be_bytes());
        bytes.extend((self.vni << 8).to_be_bytes());
        bytes.extend([&self.options[..], &self.payload].concat());
        to_port(outer, 6081).payload(&bytes)
    }
}

/// GTP-U (3GPP TS 29.281).
#[derive(Clone, Debug)]
pub struct Gtp {
    /// Tunnel endpoint identifier.
    pub teid: u32,
    /// Sequence number.
    pub sequence: Option<u16>,
    /// A PDU session container with this QoS flow, as 5G has it (TS 38.415).
    pub qos_flow: Option<u8>,
    /// The packet inside.
    pub packet: Vec<u8>,
}

/// A user's IP packet in GTP-U.
pub fn gtp(packet: &[u8]) -> Gtp {
    Gtp { teid: 0x0102_0304, sequence: None, qos_flow: None, packet: packet.to_vec() }
}

impl Gtp {
    /// Sets the sequence number.
    #[must_use]
    pub fn sequence(self, sequence: u16) -> Self {
        Self { sequence: Some(sequence), ..self }
    }

    /// Adds a PDU session container.
    #[must_use]
    pub fn qos_flow(self, flow: u8) -> Self {
        Self { qos_flow: Some(flow), ..self }
    }

    /// Inside an outer datagram, to port 2152.
    pub fn over(&self, outer: Datagram) -> Datagram {
        let mut flags = 0x30; // version 1, GTP
        let mut rest = Vec::new();
        if self.sequence.is_some() || self.qos_flow.is_some() {
            rest.extend(self.sequence.unwrap_or(0).to_be_bytes());
            rest.extend([0, if self.qos_flow.is_some() { 0x85 } else { 0 }]);
        }
        if self.sequence.is_some() {
            flags |= 0x02;
        }
        if let Some(flow) = self.qos_flow {
            flags |= 0x04;
            // One word: its length, downlink PDU, flow; no next extension header.
            rest.extend([1, 0, flow & 0x3f, 0]);
        }
        let mut bytes = vec![flags, 255];
        bytes.extend(length(rest.len() + self.packet.len()));
        bytes.extend(self.teid.to_be_bytes());
        bytes.extend([rest, self.packet.clone()].concat());
        to_port(outer, 2152).payload(&bytes)
    }
}

/// TaZmen Sniffer Protocol, as MikroTik sends it.
#[derive(Clone, Debug)]
pub struct Tzsp {
    /// Tagged fields as (number, octets), without padding and end.
    pub tags: Vec<(u8, Vec<u8>)>,
    /// The frame inside.
    pub frame: Vec<u8>,
}

/// A frame in TZSP.
pub fn tzsp(frame: &[u8]) -> Tzsp {
    Tzsp { tags: Vec::new(), frame: frame.to_vec() }
}

impl Tzsp {
    /// Adds a tagged field.
    #[must_use]
    pub fn tag(mut self, number: u8, octets: &[u8]) -> Self {
        self.tags.push((number, octets.to_vec()));
        self
    }

    /// Inside an outer datagram, to port 37008.
    pub fn over(&self, outer: Datagram) -> Datagram {
        let mut bytes = vec![1, 0, 0, 1]; // version 1, received packet, Ethernet
        for (number, octets) in &self.tags {
            bytes.extend([*number, u8::try_from(octets.len()).unwrap_or(u8::MAX)]);
            bytes.extend(octets);
        }
        bytes.push(1); // end of tags
        bytes.extend(&self.frame);
        to_port(outer, 37_008).payload(&bytes)
    }
}

/// Data of L2TP version 2 (RFC 2661): PPP inside.
#[derive(Clone, Debug)]
pub struct L2tp {
    /// Tunnel.
    pub tunnel: u16,
    /// Session in it.
    pub session: u16,
    /// With the optional length.
    pub length: bool,
    /// With the optional sequence number.
    pub sequence: Option<u16>,
    /// With so many octets of offset padding.
    pub offset: Option<u16>,
    /// The packet inside.
    pub packet: Vec<u8>,
}

/// An IP packet in PPP in L2TP.
pub fn l2tp(packet: &[u8]) -> L2tp {
    L2tp { tunnel: 11, session: 22, length: true, sequence: None, offset: None, packet: packet.to_vec() }
}

impl L2tp {
    /// Sets the sequence number.
    #[must_use]
    pub fn sequence(self, sequence: u16) -> Self {
        Self { sequence: Some(sequence), ..self }
    }

    /// Adds offset padding.
    #[must_use]
    pub fn offset(self, octets: u16) -> Self {
        Self { offset: Some(octets), ..self }
    }

    /// Leaves the length out.
    #[must_use]
    pub fn without_length(self) -> Self {
        Self { length: false, ..self }
    }

    /// Inside an outer datagram, to port 1701.
    pub fn over(&self, outer: Datagram) -> Datagram {
        let flag = |present: bool, bit: u16| if present { bit } else { 0 };
        let flags = 2
            | flag(self.length, 0x4000)
            | flag(self.sequence.is_some(), 0x0800)
            | flag(self.offset.is_some(), 0x0200);
        let mut rest = [self.tunnel.to_be_bytes(), self.session.to_be_bytes()].concat();
        if let Some(sequence) = self.sequence {
            rest.extend([sequence.to_be_bytes(), [0, 0]].concat());
        }
        if let Some(offset) = self.offset {
            rest.extend(offset.to_be_bytes());
            rest.extend(vec![0; usize::from(offset)]);
        }
        // PPP: address, control, protocol.
        rest.extend([0xff, 0x03, 0x00, if is_v6(&self.packet) { 0x57 } else { 0x21 }]);
        rest.extend(&self.packet);
        let mut bytes = flags.to_be_bytes().to_vec();
        if self.length {
            bytes.extend(length(4 + rest.len()));
        }
        to_port(outer, 1701).payload(&[bytes, rest].concat())
    }
}

/// IPv6 in UDP through a NAT (RFC 4380).
#[derive(Clone, Debug)]
pub struct Teredo {
    /// With an authentication indication without identifier.
    pub authentication: bool,
    /// With an origin indication.
    pub origin: Option<(Ipv4Addr, u16)>,
    /// The IPv6 packet inside.
    pub packet: Vec<u8>,
}

/// An IPv6 packet in Teredo.
pub fn teredo(packet: &[u8]) -> Teredo {
    Teredo { authentication: false, origin: None, packet: packet.to_vec() }
}

impl Teredo {
    /// Adds an authentication indication.
    #[must_use]
    pub fn authenticated(self) -> Self {
        Self { authentication: true, ..self }
    }

    /// Adds an origin indication.
    #[must_use]
    pub fn origin(self, address: Ipv4Addr, port: u16) -> Self {
        Self { origin: Some((address, port)), ..self }
    }

    /// Inside an outer datagram, to port 3544.
    pub fn over(&self, outer: Datagram) -> Datagram {
        let mut bytes = Vec::new();
        if self.authentication {
            // Lengths of identifier and value, then nonce and confirmation.
            bytes.extend([&[0, 1, 0, 0][..], &[0x11; 8], &[0]].concat());
        }
        if let Some((address, port)) = self.origin {
            // Obfuscated, so that no NAT rewrites them.
            bytes.extend([0, 0]);
            bytes.extend((!port).to_be_bytes());
            bytes.extend((!u32::from(address)).to_be_bytes());
        }
        bytes.extend(&self.packet);
        to_port(outer, 3544).payload(&bytes)
    }
}

/// A tunnel that takes one datagram of its own for each packet, with default fields: for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of `voxprobe::packet::Layer`, and what is inside")]
pub enum Tunnel {
    IpIp,
    Gre,
    GreBridged,
    Erspan1,
    Erspan2,
    Erspan3,
    Vxlan,
    Geneve,
    Gtp,
    Tzsp,
    L2tp,
    Teredo,
    Hep,
    RpcapUdp,
}

impl Tunnel {
    /// Each of them.
    pub const ALL: [Self; 14] = [
        Self::IpIp,
        Self::Gre,
        Self::GreBridged,
        Self::Erspan1,
        Self::Erspan2,
        Self::Erspan3,
        Self::Vxlan,
        Self::Geneve,
        Self::Gtp,
        Self::Tzsp,
        Self::L2tp,
        Self::Teredo,
        Self::Hep,
        Self::RpcapUdp,
    ];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IpIp => "ipip",
            Self::Gre => "gre",
            Self::GreBridged => "gre-bridged",
            Self::Erspan1 => "erspan1",
            Self::Erspan2 => "erspan2",
            Self::Erspan3 => "erspan3",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gtp => "gtp",
            Self::Tzsp => "tzsp",
            Self::L2tp => "l2tp",
            Self::Teredo => "teredo",
            Self::Hep => "hep",
            Self::RpcapUdp => "rpcap-udp",
        }
    }

    /// The path of layers that an analysis should find.
    pub const fn path(self) -> &'static str {
        match self {
            Self::GreBridged => "gre",
            Self::Erspan1 => "gre/erspan1",
            Self::Erspan2 => "gre/erspan2",
            Self::Erspan3 => "gre/erspan3",
            Self::RpcapUdp => "rpcap",
            other => other.name(),
        }
    }

    /// Can it carry this? Teredo is for IPv6, HEP for signalling and RTCP.
    pub fn carries(self, inner: &Datagram) -> bool {
        match self {
            Self::Teredo => inner.src.is_ipv6(),
            Self::Hep => HepKind::of(inner).is_some(),
            _ => true,
        }
    }

    /// What it carries, in a datagram like `outer`; `time_ns` and `number` are for those that stamp and count.
    pub fn carry(self, inner: &Datagram, time_ns: u64, number: u32, outer: Datagram) -> Datagram {
        match self {
            Self::IpIp => ip_in_ip(&inner.ip(), outer),
            Self::Gre => gre(&inner.ip()).over(outer),
            Self::GreBridged => gre_bridged(&inner.ethernet()).over(outer),
            Self::Erspan1 => erspan1(&inner.ethernet()).over(outer),
            Self::Erspan2 => erspan2(&inner.ethernet()).sequence(number).over(outer),
            Self::Erspan3 => erspan3(&inner.ethernet()).sequence(number).over(outer),
            Self::Vxlan => vxlan(&inner.ethernet()).over(outer),
            Self::Geneve => geneve(&inner.ethernet()).over(outer),
            Self::Gtp => gtp(&inner.ip()).over(outer),
            Self::Tzsp => tzsp(&inner.ethernet()).over(outer),
            Self::L2tp => l2tp(&inner.ip()).over(outer),
            Self::Teredo => teredo(&inner.ip()).over(outer),
            Self::Hep => hep(inner, time_ns).over(outer),
            Self::RpcapUdp => rpcap_udp(&inner.ethernet(), time_ns, number, outer),
        }
    }
}

fn to_port(mut outer: Datagram, port: u16) -> Datagram {
    outer.dst.set_port(port);
    outer.protocol(crate::frames::UDP)
}

/// By the version nibble.
fn is_v6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}
