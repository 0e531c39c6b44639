//! rpcap, the remote capture protocol of libpcap: frames of a link inside a byte stream, or one in each datagram.
//!
//! ```text
//!   client                            server: the daemon on the machine that captures, port 2002
//!     │ ── SYN … AUTH, OPEN, STARTCAP ──▶ │
//!     │ ◀── their replies ─────────────── │   link type in OPEN's, data port in STARTCAP's
//!     │ ◀── PACKET PACKET PAC|KET … ───── │   on the data connection, or on the same one
//!     │ ── STATS ──▶  ◀── its reply ───── │   received, dropped
//! ```
//!
//! [`RpcapSession`] gives each act as TCP segments. Packets are queued by [`RpcapSession::capture`] and leave when
//! a segment is full ([`RpcapSession::full_segments`]) or somebody flushes, so that one segment may hold several
//! messages and a message may be cut.

use std::net::SocketAddr;

use super::to_port;
use crate::frames::{Datagram, tcp};
use crate::segments::{Connection, From};

/// The control port.
const PORT: u16 = 2002;
const PACKET: u8 = 7;
const REPLY: u8 = 0x80;

/// What is asked for, and answered, by rpcap's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcapKind {
    /// An interface, whose link type is the answer.
    Open = 3,
    /// Capturing, with the data port in the answer.
    StartCapture = 4,
    /// To be let in.
    Auth = 8,
    /// Received and dropped frames.
    Statistics = 9,
    /// No more packets.
    EndCapture = 10,
}

/// A request or a reply.
pub fn rpcap_message(kind: RpcapKind, is_reply: bool, payload: &[u8]) -> Vec<u8> {
    message(kind as u8 | if is_reply { REPLY } else { 0 }, payload)
}

/// A message: version 0, type, value 0, length, payload.
fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0, kind, 0, 0][..], &length, payload].concat()
}

/// A message that carries a frame, stamped in microseconds.
pub fn rpcap_packet(frame: &[u8], time_ns: u64, number: u32) -> Vec<u8> {
    let seconds = u32::try_from(time_ns / 1_000_000_000).unwrap_or(u32::MAX);
    let micros = u32::try_from(time_ns / 1_000 % 1_000_000).unwrap_or(0);
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let header = [seconds, micros, length, length, number].map(u32::to_be_bytes).concat();
    message(PACKET, &[&header, frame].concat())
}

/// The same in a datagram of its own, to port 2002.
pub fn rpcap_udp(frame: &[u8], time_ns: u64, number: u32, outer: Datagram) -> Datagram {
    to_port(outer, PORT).payload(&rpcap_packet(frame, time_ns, number))
}

/// A remote capture over TCP.
#[derive(Clone, Debug)]
pub struct RpcapSession {
    /// Link type of the captured frames, by pcap's number.
    pub link_type: u32,
    control: Connection,
    /// If packets have a connection of their own.
    data: Option<Connection>,
    queue: Vec<u8>,
    captured: u32,
}

impl RpcapSession {
    /// A capture whose packets come on the control connection, as in the story. The port of `server` is that of
    /// the daemon, mostly 2002.
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self::like(tcp().between(client, server))
    }

    /// The same, whose segments from client to server look like this one.
    pub fn like(client: Datagram) -> Self {
        let control = Connection::like(client);
        Self { link_type: 1, control, data: None, queue: Vec::new(), captured: 0 }
    }

    /// Packets come on a second connection, which the client opens to this port of the server.
    #[must_use]
    pub fn data_connection(self, client: SocketAddr, server: SocketAddr) -> Self {
        self.data_on(Connection::new(client, server))
    }

    /// Packets come on this second connection.
    #[must_use]
    pub fn data_on(self, mut data: Connection) -> Self {
        data.mss = self.control.mss;
        Self { data: Some(data), ..self }
    }

    /// Octets that a segment carries at most.
    #[must_use]
    pub fn mss(mut self, mss: usize) -> Self {
        self.control.mss = mss;
        if let Some(data) = &mut self.data {
            data.mss = mss;
        }
        self
    }

    /// Where the sequence numbers of the connection with the packets begin.
    #[must_use]
    pub fn starting_at(mut self, client_seq: u32, server_seq: u32) -> Self {
        let packets = self.data.as_mut().unwrap_or(&mut self.control);
        *packets = packets.clone().starting_at(client_seq, server_seq);
        self
    }

    /// Connections, authentication, OPEN and STARTCAP, all answered.
    pub fn open(&mut self) -> Vec<Datagram> {
        const INTERFACE: &[u8] = b"rpcap://eth0";
        let data_port = self.data.as_ref().map_or(0, Connection::server_port);
        // Snapshot length, timeout, promiscuous, data port; a BPF filter of one instruction that takes all.
        let mut start = [262_144_u32.to_be_bytes(), 100_u32.to_be_bytes()].concat();
        start.extend([0, 1, 0, 0]);
        start.extend([0, 1, 0, 0, 0, 0, 0, 1]);
        start.extend([0, 6, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        let opened = [self.link_type.to_be_bytes(), [0; 4]].concat();
        let started = [&0x0010_0000_u32.to_be_bytes()[..], &data_port.to_be_bytes(), &[0, 0]].concat();
        let mut segments = self.control.open();
        // Authentication: none, no name, no password.
        segments.extend(self.ask(RpcapKind::Auth, &[0; 8], &[]));
        segments.extend(self.ask(RpcapKind::Open, INTERFACE, &opened));
        segments.extend(self.ask(RpcapKind::StartCapture, &start, &started));
        if let Some(data) = &mut self.data {
            segments.extend(data.open());
        }
        segments
    }

    /// Queues a frame that the server captured.
    pub fn capture(&mut self, frame: &[u8], time_ns: u64) {
        self.captured += 1;
        self.queue.extend(rpcap_packet(frame, time_ns, self.captured));
    }

    /// What of the queue fills whole segments.
    pub fn full_segments(&mut self) -> Vec<Datagram> {
        let whole = self.queue.len() - self.queue.len() % self.control.mss.max(1);
        let bytes: Vec<u8> = self.queue.drain(..whole).collect();
        self.packets().send(From::Server, &bytes)
    }

    /// All of the queue; the last segment may be short.
    pub fn flush(&mut self) -> Vec<Datagram> {
        let bytes = std::mem::take(&mut self.queue);
        self.packets().send(From::Server, &bytes)
    }

    /// The client says how much it got.
    pub fn acknowledge(&mut self) -> Datagram {
        self.packets().acknowledge(From::Client)
    }

    /// The client asks for statistics: frames that the server's interface received, that it dropped, that its
    /// kernel dropped. What the server has captured is known here. To be asked between messages (after
    /// [`Self::flush`]) if packets are on the same connection.
    pub fn statistics(&mut self, received: u32, if_dropped: u32, kernel_dropped: u32) -> Vec<Datagram> {
        let reply = [received, if_dropped, kernel_dropped, self.captured].map(u32::to_be_bytes).concat();
        self.ask(RpcapKind::Statistics, &[], &reply)
    }

    /// ENDCAP, and the connections end.
    pub fn close(&mut self) -> Vec<Datagram> {
        let mut segments = self.flush();
        segments.extend(self.ask(RpcapKind::EndCapture, &[], &[]));
        segments.extend(self.data.iter_mut().flat_map(Connection::close));
        segments.extend(self.control.close());
        segments
    }

    fn ask(&mut self, kind: RpcapKind, request: &[u8], reply: &[u8]) -> Vec<Datagram> {
        let mut segments = self.control.send(From::Client, &rpcap_message(kind, false, request));
        segments.extend(self.control.send(From::Server, &rpcap_message(kind, true, reply)));
        segments
    }

    fn packets(&mut self) -> &mut Connection {
        self.data.as_mut().unwrap_or(&mut self.control)
    }
}
