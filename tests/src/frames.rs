//! Frames built by named fields, for tests that show a program or a parser one frame at a time.

/// A frame in the making: what is between the MAC addresses and the payload.
#[derive(Clone, Debug)]
pub struct Frame {
    /// VLAN tags, outermost first: ethertype and tag control information.
    pub tags: Vec<(u16, u16)>,
    /// IPv6, or IPv4.
    pub v6: bool,
    /// Octets of IPv4 options; a multiple of four.
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers as (number, octets); their "next header" is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// The IPv4 flags and fragment offset field.
    pub fragment: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// UDP checksum field.
    pub checksum: u16,
    /// What follows the UDP or TCP header.
    pub payload: Vec<u8>,
}

impl Default for Frame {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            v6: false,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            fragment: 0x4000,
            protocol: 17,
            src_port: 20_000,
            dst_port: 30_000,
            checksum: 0xbeef,
            payload: rtp(1, 160),
        }
    }
}

impl Frame {
    /// The frame's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![0x02, 0, 0, 0, 0, 0xaa, 0x02, 0, 0, 0, 0, 0xbb];
        for (ethertype, tci) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(if self.v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        let transport = self.transport();
        if self.v6 {
            self.ipv6(&mut frame, &transport);
        } else {
            self.ipv4(&mut frame, &transport);
        }
        frame.extend(transport);
        frame
    }

    fn ipv4(&self, frame: &mut Vec<u8>, transport: &[u8]) {
        let header_len = 20 + self.ip_options.len();
        frame.extend([0x40 | u8::try_from(header_len / 4).unwrap_or(15), 0xb8]);
        frame.extend(length(header_len + transport.len()).to_be_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend(self.fragment.to_be_bytes());
        frame.extend([63, self.protocol, 0, 0]);
        frame.extend([10, 0, 0, 1]);
        frame.extend([10, 0, 0, 2]);
        frame.extend(&self.ip_options);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, transport: &[u8]) {
        let extensions: usize = self.extensions.iter().map(|(_, octets)| octets.len()).sum();
        // Version 6, traffic class EF, flow label 0x54321.
        frame.extend([0x6b, 0x85, 0x43, 0x21]);
        frame.extend(length(extensions + transport.len()).to_be_bytes());
        frame.extend([self.extensions.first().map_or(self.protocol, |(number, _)| *number), 61]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        for (index, (_, octets)) in self.extensions.iter().enumerate() {
            frame.push(self.extensions.get(index + 1).map_or(self.protocol, |(number, _)| *number));
            frame.extend(octets.iter().skip(1));
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        match self.protocol {
            17 => {
                transport.extend(self.src_port.to_be_bytes());
                transport.extend(self.dst_port.to_be_bytes());
                transport.extend(length(8 + self.payload.len()).to_be_bytes());
                transport.extend(self.checksum.to_be_bytes());
            }
            6 => {
                transport.extend(self.src_port.to_be_bytes());
                transport.extend(self.dst_port.to_be_bytes());
                transport.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
            }
            _ => {}
        }
        transport.extend(&self.payload);
        transport
    }
}

/// An RTP packet (PCMU) with a payload that depends on its sequence number.
pub fn rtp(seq: u16, payload_bytes: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 160).to_be_bytes());
    packet.extend(0xdead_0001_u32.to_be_bytes());
    packet.extend((0..payload_bytes).map(|i| i.to_le_bytes()[0] ^ seq.to_le_bytes()[0]));
    packet
}

/// An RTCP receiver report without blocks.
pub fn rtcp() -> Vec<u8> {
    vec![0x80, 201, 0, 1, 0xde, 0xad, 0, 1]
}

/// A SIP request of roughly `bytes` bytes.
pub fn sip(bytes: usize) -> Vec<u8> {
    let mut message = b"INVITE sip:bob@example.com SIP/2.0\r\nSubject: ".to_vec();
    while message.len() + 4 < bytes {
        message.push(b'x');
    }
    message.extend(b"\r\n\r\n");
    message
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}
