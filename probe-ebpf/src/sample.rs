//! Frames for the tests of this crate, put together from the inside out.
//!
//! ```text
//!   ethernet(&[(0x8100, 100)], ipv4(&[], 0, UDP, &udp(20_000, 30_000, &rtp(160))))
//! ```
//!
//! Nothing here shares code with the parser: every offset is the result of putting one header after another.

extern crate std;

pub(crate) use std::vec;
pub(crate) use std::vec::Vec;

/// An IP packet, and the ethertype that announces it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) ethertype: u16,
    pub(crate) bytes: Vec<u8>,
}

/// A frame with these VLAN tags (ethertype, tag control information), outermost first.
pub(crate) fn ethernet(tags: &[(u16, u16)], packet: &Packet) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0xaa, 0x02, 0, 0, 0, 0, 0xbb];
    for (ethertype, tci) in tags {
        frame.extend(ethertype.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(packet.ethertype.to_be_bytes());
    frame.extend(&packet.bytes);
    frame
}

/// IPv4 from 10.0.0.1 to 10.0.0.2; `fragment` is the field of flags and offset.
pub(crate) fn ipv4(options: &[u8], fragment: u16, protocol: u8, data: &[u8]) -> Packet {
    let header_len = 20 + options.len();
    let mut bytes = vec![0x40 | byte(header_len / 4), 0xb8];
    bytes.extend(word(header_len + data.len()));
    bytes.extend([0x12, 0x34]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([63, protocol, 0, 0]);
    bytes.extend([10, 0, 0, 1]);
    bytes.extend([10, 0, 0, 2]);
    bytes.extend(options);
    bytes.extend(data);
    Packet { ethertype: 0x0800, bytes }
}

/// IPv6 from 2001:db8::1 to 2001:db8::2, with extension headers as (number, octets); the first octet of each,
/// its "next header", is filled in.
pub(crate) fn ipv6(extensions: &[(u8, Vec<u8>)], protocol: u8, data: &[u8]) -> Packet {
    let next = |index: usize| extensions.get(index).map_or(protocol, |(number, _)| *number);
    let extensions_len: usize = extensions.iter().map(|(_, octets)| octets.len()).sum();
    let mut bytes = vec![0x6b, 0x85, 0x43, 0x21];
    bytes.extend(word(extensions_len + data.len()));
    bytes.extend([next(0), 61]);
    bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    for (index, (_, octets)) in extensions.iter().enumerate() {
        bytes.push(next(index + 1));
        bytes.extend(octets.iter().skip(1));
    }
    bytes.extend(data);
    Packet { ethertype: 0x86dd, bytes }
}

/// An extension header of hop-by-hop, routing or destination options: `length` octets, a multiple of eight.
pub(crate) fn options(number: u8, length: usize) -> (u8, Vec<u8>) {
    let mut octets = vec![0; length];
    octets[1] = byte(length / 8 - 1);
    (number, octets)
}

/// An authentication header of `length` octets, a multiple of eight as IPv6 wants it.
pub(crate) fn authentication(length: usize) -> (u8, Vec<u8>) {
    let mut octets = vec![0x55; length];
    octets[1] = byte(length / 4 - 2);
    (51, octets)
}

/// A fragment header with this field of offset and "more" flag.
pub(crate) fn fragment(field: u16) -> (u8, Vec<u8>) {
    let [high, low] = field.to_be_bytes();
    (44, vec![0, 0, high, low, 0, 0, 0, 7])
}

/// A UDP datagram whose checksum is 0xbeef.
pub(crate) fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let ports = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
    [&ports[..], &word(8 + payload.len()), &[0xbe, 0xef], payload].concat()
}

/// A TCP segment without options.
pub(crate) fn tcp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let ports = [src_port.to_be_bytes(), dst_port.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0], payload].concat()
}

/// An RTP packet with so many bytes of payload, no two neighbours alike.
pub(crate) fn rtp(payload_len: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 8, 0, 1, 0, 0, 0, 160, 0x11, 0x22, 0x33, 0x44];
    packet.extend((0..payload_len).map(|at| byte(at & 0xff)));
    packet
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).unwrap()
}

fn word(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap().to_be_bytes()
}
