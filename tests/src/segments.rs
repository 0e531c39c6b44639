//! A TCP connection, segment by segment.
//!
//! ```text
//!   open()                 SYN, SYN-ACK, ACK
//!   send(From::Client, ..) its bytes in segments of at most `mss`, each with the right numbers
//!   close()                FIN, FIN-ACK, ACK
//! ```
//!
//! Nothing is ever lost or reordered here: whoever wants that does it to the segments.

use std::net::SocketAddr;

use crate::frames::{Datagram, TcpFields, tcp};

/// Which end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The end that opened the connection.
    Client,
    /// The other.
    Server,
}

/// A connection and how far it got.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Octets of payload that a segment carries at most.
    pub mss: usize,
    /// From the client to the server: MACs, TTL, tags and what else the segments have in common.
    client: Datagram,
    client_seq: u32,
    server_seq: u32,
    ip_id: u16,
}

impl Connection {
    /// A connection to be opened, with 1460 octets a segment.
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self::like(tcp().between(client, server))
    }

    /// A connection whose segments from client to server look like this one.
    pub fn like(client: Datagram) -> Self {
        let ports = u32::from(client.src.port()) << 16 | u32::from(client.dst.port());
        Self {
            mss: 1460,
            client,
            client_seq: ports.wrapping_mul(0x9e37_79b1),
            server_seq: ports.wrapping_mul(0x85eb_ca6b),
            ip_id: 1,
        }
    }

    /// Where the sequence numbers begin; near 2^32 they wrap soon.
    #[must_use]
    pub fn starting_at(self, client_seq: u32, server_seq: u32) -> Self {
        Self { client_seq, server_seq, ..self }
    }

    /// Where the server listens.
    pub fn server_port(&self) -> u16 {
        self.client.dst.port()
    }

    /// The three-way handshake.
    pub fn open(&mut self) -> Vec<Datagram> {
        let syn = self.segment(From::Client, TcpFields::SYN, &[]);
        self.client_seq = self.client_seq.wrapping_add(1);
        let answer = self.segment(From::Server, TcpFields::SYN | TcpFields::ACK, &[]);
        self.server_seq = self.server_seq.wrapping_add(1);
        vec![syn, answer, self.segment(From::Client, TcpFields::ACK, &[])]
    }

    /// Bytes of one end as segments.
    pub fn send(&mut self, from: From, bytes: &[u8]) -> Vec<Datagram> {
        bytes.chunks(self.mss.max(1)).map(|part| self.push(from, part)).collect()
    }

    /// An empty segment of this end that says what arrived.
    pub fn acknowledge(&mut self, from: From) -> Datagram {
        self.segment(from, TcpFields::ACK, &[])
    }

    /// The client ends it, and the server agrees.
    pub fn close(&mut self) -> Vec<Datagram> {
        let fin = self.segment(From::Client, TcpFields::FIN | TcpFields::ACK, &[]);
        self.client_seq = self.client_seq.wrapping_add(1);
        let answer = self.segment(From::Server, TcpFields::FIN | TcpFields::ACK, &[]);
        self.server_seq = self.server_seq.wrapping_add(1);
        vec![fin, answer, self.segment(From::Client, TcpFields::ACK, &[])]
    }

    fn push(&mut self, from: From, part: &[u8]) -> Datagram {
        let segment = self.segment(from, TcpFields::PSH | TcpFields::ACK, part);
        let seq = match from {
            From::Client => &mut self.client_seq,
            From::Server => &mut self.server_seq,
        };
        *seq = seq.wrapping_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
        segment
    }

    fn segment(&mut self, from: From, flags: u8, payload: &[u8]) -> Datagram {
        self.ip_id = self.ip_id.wrapping_add(1);
        let (segment, seq, ack) = match from {
            From::Client => (self.client.clone(), self.client_seq, self.server_seq),
            From::Server => (self.client.clone().reversed(), self.server_seq, self.client_seq),
        };
        let ack = if flags & TcpFields::ACK == 0 { 0 } else { ack };
        let tcp = TcpFields { seq, ack, flags, ..TcpFields::default() };
        Datagram { tcp, ..segment.ip_id(self.ip_id).payload(payload) }
    }
}
