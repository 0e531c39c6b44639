//! The capture of the capture: what the taps saw, sent by a remote capture over TCP, and captured once more there.

use super::scene::spread;
use super::{Draft, START_NS, Sighting};
use crate::frames::{Datagram, tcp};
use crate::random::Random;
use crate::segments::Connection;
use crate::tunnels::RpcapSession;

/// Octets of a segment.
const MSS: usize = 1460;
/// Octets before a captured frame in the stream.
const HEADERS: usize = 8 + 20;
/// Tell numbers of wholes apart: of this session's messages, of fragments that it captured, of the taps' fragments.
const MESSAGES: u64 = 1 << 62;
const FRAGMENTS: u64 = 1 << 61;
/// Between two questions for statistics, and between two acknowledgements, in segments.
const STATISTICS_EVERY: usize = 500;
const ACKNOWLEDGED_EVERY: usize = 8;

/// A remote capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpcap {
    /// How much later than the frame itself its copy is sent.
    pub delay_ns: u64,
    /// Up to this more.
    pub spread_ns: u64,
    /// Send when this much time is full of frames, several in a segment and cut anywhere; 0: each by itself.
    pub batch_ns: u64,
    /// On a connection of their own, which STARTCAP's reply announces.
    pub data_connection: bool,
    /// It began before this capture: how it opened is not in it.
    pub mid_stream: bool,
}

impl Default for Rpcap {
    fn default() -> Self {
        Self {
            delay_ns: 2_000_000,
            spread_ns: 4_000_000,
            batch_ns: 0,
            data_connection: false,
            mid_stream: false,
        }
    }
}

impl Rpcap {
    /// The session's own frames, given what it captures. `tap` and `interface` are its own.
    pub(super) fn capture<'a>(
        self,
        captured: impl Iterator<Item = &'a Draft>,
        tap: u8,
        interface: u16,
        random: &mut Random,
    ) -> Vec<Draft> {
        let mut captured: Vec<_> = captured.collect();
        captured.sort_by_key(|draft| draft.time_ns);
        let mut session = self.session();
        let mut sent = Segments { drafts: Vec::new(), tap, interface, last_ns: None };
        let opening = session.open();
        for segment in opening.into_iter().filter(|_| !self.mid_stream) {
            sent.own(0, &segment);
        }
        let batches = captured.chunk_by(|first, next| {
            self.batch_ns > 0 && first.time_ns / self.batch_ns == next.time_ns / self.batch_ns
        });
        let mut messages = 0;
        for batch in batches {
            let mut ends = Vec::new();
            let mut queued = 0;
            for draft in batch {
                session.capture(&draft.bytes, START_NS + draft.time_ns);
                queued += HEADERS + draft.bytes.len();
                messages += 1;
                // A fragment's message is a part as the fragment is; else a segment may be a part of a message.
                let whole = draft.whole.map_or(MESSAGES | messages, |fragmented| FRAGMENTS | fragmented);
                ends.push((
                    queued,
                    whole,
                    draft.shows.iter().map(|one| one.captured_again(tap, interface)).collect::<Vec<_>>(),
                ));
            }
            let seen_ns = batch.last().map_or(0, |draft| draft.time_ns);
            let mut time_ns = seen_ns + self.delay_ns + spread(random, self.spread_ns);
            let mut ends = ends.into_iter().peekable();
            let mut until = 0;
            for segment in session.flush() {
                until += segment.payload.len();
                let whole = ends.peek().map(|(_, whole, _)| *whole);
                let mut shows = Vec::new();
                while let Some((_, _, sightings)) = ends.next_if(|(end, ..)| *end <= until) {
                    shows.extend(sightings);
                }
                sent.put(time_ns, segment.ethernet(), shows, whole);
                time_ns += 12_000;
            }
            let segments = sent.drafts.len();
            if segments.is_multiple_of(ACKNOWLEDGED_EVERY) {
                sent.own(time_ns, &session.acknowledge());
            }
            if segments.is_multiple_of(STATISTICS_EVERY) {
                let count = u32::try_from(segments).unwrap_or(u32::MAX);
                for segment in session.statistics(count, 0, 0) {
                    sent.own(time_ns, &segment);
                }
            }
        }
        for segment in session.close() {
            sent.own(0, &segment);
        }
        sent.drafts
    }

    fn session(self) -> RpcapSession {
        const CLIENT: [u8; 4] = [10, 7, 0, 99];
        const SERVER: [u8; 4] = [10, 7, 0, 5];
        let control = tcp()
            .between((CLIENT, 51_515).into(), (SERVER, 2002).into())
            .macs([2, 0x30, 0, 0, 0, 9], [2, 0x30, 0, 0, 0, 5]);
        let session = RpcapSession::like(control.clone()).mss(MSS);
        if self.data_connection {
            let data = control.between((CLIENT, 51_516).into(), (SERVER, 45_678).into());
            return session.data_on(Connection::like(data));
        }
        session
    }
}

/// The session's segments so far: never one before another.
struct Segments {
    drafts: Vec<Draft>,
    tap: u8,
    interface: u16,
    last_ns: Option<u64>,
}

impl Segments {
    /// A segment of the protocol's own.
    fn own(&mut self, time_ns: u64, segment: &Datagram) {
        self.put(time_ns, segment.ethernet(), Vec::new(), None);
    }

    /// At this time, or right after the segment before.
    fn put(&mut self, time_ns: u64, bytes: Vec<u8>, shows: Vec<Sighting>, whole: Option<u64>) {
        let time_ns = self.last_ns.map_or(time_ns, |last| time_ns.max(last + 3_000));
        self.last_ns = Some(time_ns);
        self.drafts.push(Draft { time_ns, tap: self.tap, interface: self.interface, bytes, shows, whole });
    }
}

impl Sighting {
    fn captured_again(&self, session: u8, interface: u16) -> Self {
        Self { look: self.look.captured_again(session, interface), ..self.clone() }
    }
}
