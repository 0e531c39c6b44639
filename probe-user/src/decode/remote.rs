//! Remote captures: the rpcap sessions that are themselves in the capture, and what they say of themselves.
//!
//! ```text
//!   client                     server, port 2002
//!     │ ── OPEN interface ───────▶ │
//!     │ ◀── link type ──────────── │    what the frames begin with
//!     │ ◀── STARTCAP's reply ───── │    port of the data connection; 0 if it is this one
//!     │ ◀── STATS' reply ───────── │    received; dropped by interface, by kernel
//! ```
//!
//! What the server dropped before it sent is loss that the capture made: no network lost it.

use serde::Serialize;

use super::tunnel::rpcap::{Head, Packet, kind};
use crate::capture::file::LinkType;
use crate::packet::{Endpoint, Flow};
use crate::sip::EndpointChange;

/// Sessions kept; further ones are read, but their links are guessed and their statistics are not.
const MAX_SESSIONS: usize = 64;
/// Longest name of an interface that is kept.
const MAX_NAME: usize = 128;

/// One remote capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteCapture {
    /// The machine that captures. The port is that of the control connection, or of the data where only that was seen.
    pub server: Endpoint,
    /// Who receives.
    pub client: Endpoint,
    /// Port at which the frames leave the server, if not that of the control connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_port: Option<u16>,
    /// The interface it captures on, if its opening was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// LINKTYPE_ number that the server gave, if that was seen; else it was guessed from the frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_type: Option<u32>,
    /// Frames that were found in it.
    pub packets: u64,
    /// Frames between the first and the last of those, by their numbers, that were not found: segments of the session
    /// are missing from this capture.
    pub unseen: u64,
    /// The server's last statistics, if any were seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<RemoteStatistics>,
    #[serde(skip)]
    numbers: Option<(u32, u32)>,
}

/// A server's own figures (libpcap, rpcap-protocol.h, `struct rpcap_stats`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RemoteStatistics {
    /// Frames that passed its filter.
    pub received: u32,
    /// Dropped by the interface.
    pub interface_dropped: u32,
    /// Dropped by the kernel: its buffer was full.
    pub kernel_dropped: u32,
    /// Sent to the client.
    pub captured: u32,
    /// Number of the frame that said so.
    pub frame: u64,
}

impl RemoteStatistics {
    /// Frames that never left the server.
    pub fn dropped(&self) -> u64 {
        u64::from(self.interface_dropped) + u64::from(self.kernel_dropped)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    sessions: Vec<RemoteCapture>,
    /// Ends of data connections that came and went since they were last taken.
    changes: Vec<EndpointChange>,
}

impl Remotes {
    /// Takes a message that is no packet.
    pub(super) fn control(&mut self, flow: &Flow, head: Head, payload: &[u8], number: u64) {
        let word =
            |at: usize| payload.get(at..).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes);
        let (server, client) =
            if head.kind & kind::REPLY != 0 { (flow.src, flow.dst) } else { (flow.dst, flow.src) };
        if !matches!(head.kind, kind::OPEN | kind::OPEN_REPLY | kind::START_REPLY | kind::STATISTICS_REPLY) {
            return;
        }
        let Some(session) =
            self.session(|session| session.server == server && session.client == client, server, client)
        else {
            return;
        };
        match head.kind {
            kind::OPEN => {
                let name = payload.get(..MAX_NAME).unwrap_or(payload);
                session.interface = Some(String::from_utf8_lossy(name).into_owned());
            }
            kind::OPEN_REPLY => session.link_type = word(0),
            kind::START_REPLY => {
                // Buffer size, port, two octets of nothing.
                if let Some(&[h, l]) = payload.get(4..).and_then(<[u8]>::first_chunk) {
                    let port = Some(u16::from_be_bytes([h, l])).filter(|port| *port != 0);
                    let before = std::mem::replace(&mut session.data_port, port);
                    if before != port {
                        // The server's, or in active mode the client's.
                        let at = |port| [server, client].map(|host| Endpoint { port, ..host });
                        let gone = before.into_iter().flat_map(at).map(EndpointChange::Removed);
                        let come = port.into_iter().flat_map(at).map(EndpointChange::Added);
                        self.changes.extend(gone.chain(come));
                    }
                }
            }
            _ => {
                if let (Some(received), Some(interface_dropped), Some(kernel_dropped), Some(captured)) =
                    (word(0), word(4), word(8), word(12))
                {
                    let frame = number;
                    session.statistics = Some(RemoteStatistics {
                        received,
                        interface_dropped,
                        kernel_dropped,
                        captured,
                        frame,
                    });
                }
            }
        }
    }

    /// Counts a packet of a session.
    pub(super) fn packet(&mut self, flow: &Flow, packet: &Packet) {
        if let Some(session) = self.session(|session| session.is_data(flow), flow.src, flow.dst) {
            session.packets += 1;
            let (first, last) = session.numbers.unwrap_or((packet.number, packet.number));
            let numbers = (first.min(packet.number), last.max(packet.number));
            session.numbers = Some(numbers);
            session.unseen =
                (u64::from(numbers.1) - u64::from(numbers.0) + 1).saturating_sub(session.packets);
        }
    }

    /// What the server said that the frames of this flow begin with.
    pub(super) fn link(&self, flow: &Flow) -> Option<LinkType> {
        let session = self.sessions.iter().find(|session| session.is_data(flow))?;
        i32::try_from(session.link_type?).ok().map(LinkType::from_number)
    }

    /// Ends of data connections that came and went since the last call, for who forwards their segments.
    pub(super) fn drain_changes(&mut self) -> impl Iterator<Item = EndpointChange> {
        self.changes.drain(..)
    }

    /// Is it a data connection that a control connection announced?
    pub(super) fn is_announced(&self, flow: &Flow) -> bool {
        self.sessions.iter().any(|session| session.data_port.is_some() && session.is_data(flow))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(super) fn into_reports(self) -> Vec<RemoteCapture> {
        self.sessions
    }

    fn session(
        &mut self,
        is_it: impl Fn(&RemoteCapture) -> bool,
        server: Endpoint,
        client: Endpoint,
    ) -> Option<&mut RemoteCapture> {
        let index = match self.sessions.iter().position(is_it) {
            Some(index) => index,
            None if self.sessions.len() < MAX_SESSIONS => {
                self.sessions.push(RemoteCapture::between(server, client));
                self.sessions.len() - 1
            }
            None => return None,
        };
        self.sessions.get_mut(index)
    }
}

impl RemoteCapture {
    /// One of which nothing more is known.
    pub(crate) fn between(server: Endpoint, client: Endpoint) -> Self {
        Self {
            server,
            client,
            data_port: None,
            interface: None,
            link_type: None,
            packets: 0,
            unseen: 0,
            statistics: None,
            numbers: None,
        }
    }

    /// Do its frames come this way? On the control connection itself, or from the announced port, to which the client
    /// connects; over UDP and in active mode it is the client's port that was announced.
    fn is_data(&self, flow: &Flow) -> bool {
        if (self.server, self.client) == (flow.src, flow.dst) {
            return true;
        }
        self.data_port.is_some_and(|port| flow.src.port == port || flow.dst.port == port)
            && self.server.address == flow.src.address
            && self.client.address == flow.dst.address
    }
}
