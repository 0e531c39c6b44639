//! Signalling that cannot be read: TLS. How much of it there is, and where.
//!
//! It is told by its records (RFC 8446, 5.1), or by the port where a segment begins inside a record. Counted are segments and
//! bytes as they were sent: what TCP repeats, and what a capture has twice, brings no new sequence numbers.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::packet::{Endpoint, Flow};
use crate::sequence::{advanced, distance};

/// Connections told apart at one time. The one that was found first gives way; if it goes on, it counts again.
const MAX_CONNECTIONS: usize = 16_384;
/// Ports that are named.
const MAX_PORTS: usize = 8;
/// Longest record: 2^14 bytes and what encryption adds (RFC 5246, 6.2.3).
const MAX_RECORD: u16 = (1 << 14) + 2048;
/// A segment further from its stream is one of another connection on the same ports.
const WINDOW: u32 = 1 << 20;

/// Encrypted signalling, as far as it can be known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EncryptedReport {
    /// TCP connections.
    pub connections: u64,
    /// Segments with data: copies and repeated ones apart.
    pub frames: u64,
    /// Bytes of TCP that they brought.
    pub bytes: u64,
    /// On which ports: of each connection the lower one, as clients use high ones. The first few.
    pub ports: Vec<u16>,
}

/// Counts it.
#[derive(Debug, Default)]
pub(super) struct Encrypted {
    connections: FxHashMap<[Endpoint; 2], Connection>,
    oldest: VecDeque<[Endpoint; 2]>,
    report: EncryptedReport,
}

/// Both directions of a connection: the sequence numbers of the bytes that are next.
#[derive(Debug, Default)]
struct Connection {
    next: [Option<u32>; 2],
}

impl Encrypted {
    /// Counts a segment with so many bytes.
    pub(super) fn observe(&mut self, flow: &Flow, seq: u32, length: usize) {
        let (ends, is_reversed) = ends(flow);
        if !self.connections.contains_key(&ends) {
            if self.connections.len() >= MAX_CONNECTIONS
                && let Some(oldest) = self.oldest.pop_front()
            {
                self.connections.remove(&oldest);
            }
            self.oldest.push_back(ends);
            self.begin(flow);
        }
        let connection = self.connections.entry(ends).or_default();
        let own = usize::from(is_reversed);
        let next = connection.next.get(own).copied().flatten();
        let end = advanced(seq, length);
        let from = match next {
            Some(next) if distance(next, seq).unsigned_abs() > WINDOW => {
                *connection = Connection::default();
                self.begin(flow);
                seq
            }
            Some(next) if distance(next, end) <= 0 => return,
            Some(next) if distance(next, seq) < 0 => next,
            _ => seq,
        };
        if let Some(next) = self.connections.get_mut(&ends).and_then(|c| c.next.get_mut(own)) {
            *next = Some(end);
        }
        self.report.frames += 1;
        self.report.bytes += u64::from(end.wrapping_sub(from));
    }

    /// Was this connection found to be encrypted?
    pub(super) fn knows(&self, flow: &Flow) -> bool {
        !self.connections.is_empty() && self.connections.contains_key(&ends(flow).0)
    }

    pub(super) fn report(&self) -> &EncryptedReport {
        &self.report
    }

    fn begin(&mut self, flow: &Flow) {
        self.report.connections += 1;
        let port = flow.src.port.min(flow.dst.port);
        if self.report.ports.len() < MAX_PORTS && !self.report.ports.contains(&port) {
            self.report.ports.push(port);
        }
    }
}

/// The two ends in an order of their own, and whether the flow goes from the second to the first.
fn ends(flow: &Flow) -> ([Endpoint; 2], bool) {
    let is_reversed = flow.src > flow.dst;
    (if is_reversed { [flow.dst, flow.src] } else { [flow.src, flow.dst] }, is_reversed)
}

/// Does a TLS record begin here?
pub(super) fn is_record(bytes: &[u8]) -> bool {
    let &[kind, 3, minor, l0, l1, ..] = bytes else { return false };
    let length = u16::from_be_bytes([l0, l1]);
    matches!(kind, 20..=23) && minor <= 4 && (1..=MAX_RECORD).contains(&length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(from: u16, to: u16) -> Flow {
        Flow { src: Endpoint::v4([10, 0, 0, 1], from), dst: Endpoint::v4([10, 0, 0, 2], to) }
    }

    fn reversed(flow: Flow) -> Flow {
        Flow { src: flow.dst, dst: flow.src }
    }

    #[test]
    fn both_directions_are_one_connection_and_what_is_repeated_adds_nothing() {
        let mut encrypted = Encrypted::default();
        encrypted.observe(&flow(40_000, 5061), u32::MAX - 9, 100);
        encrypted.observe(&flow(40_000, 5061), u32::MAX - 9, 100);
        encrypted.observe(&reversed(flow(40_000, 5061)), 7, 50);
        // A part of it was seen.
        encrypted.observe(&flow(40_000, 5061), 80, 30);
        let report = encrypted.report();
        assert_eq!((report.connections, report.frames, report.bytes), (1, 3, 170));
        assert_eq!(report.ports, [5061]);
        assert!(encrypted.knows(&reversed(flow(40_000, 5061))) && !encrypted.knows(&flow(40_001, 5061)));
    }

    #[test]
    fn a_new_connection_on_old_ports_is_one_more() {
        let mut encrypted = Encrypted::default();
        for isn in [1, 1 << 30] {
            encrypted.observe(&flow(40_000, 5061), isn, 10);
            encrypted.observe(&reversed(flow(40_000, 5061)), isn + 5, 10);
        }
        assert_eq!((encrypted.report().connections, encrypted.report().frames), (2, 4));
    }

    #[test]
    fn a_flood_of_connections_stays_bounded() {
        let mut encrypted = Encrypted::default();
        for n in 0..40_000_u32 {
            let [a, b, c, d] = n.to_be_bytes();
            encrypted.observe(&Flow { src: Endpoint::v4([a, b, c, d], 9), ..flow(9, 5061) }, 1, 10);
        }
        assert_eq!((encrypted.connections.len(), encrypted.oldest.len()), (MAX_CONNECTIONS, MAX_CONNECTIONS));
        assert_eq!(encrypted.report().connections, 40_000);
    }

    #[test]
    fn records_are_told_from_text() {
        assert!(is_record(&[22, 3, 1, 2, 0, 1]) && is_record(&[23, 3, 3, 0x40, 0x18]));
        for other in [&b"INVITE"[..], &[22, 3, 1, 0, 0], &[23, 2, 0, 0, 9], &[24, 3, 1, 0, 9], &[22, 3, 1]] {
            assert!(!is_record(other), "{other:?}");
        }
    }
}
