//! From a frame to one inner datagram with its evidence.
//!
//! ```text
//!   file frame ─▶ link ─▶ ┐                                    plain        ┌▶ Rtp
//!   PacketHead + frame ─▶ ├▶ probe_ebpf: parse, classify ─┬─────────────────┼▶ Rtcp, Sip
//!   MediaHead4 | 6 ──────▶┘      (as in the kernel)       │                 └▶ Nothing, Held
//!                                                         └▶ walk: tunnels, reassembly ──▲
//!                                   Carrier, then `more` ◀─── streams: rpcap, HEP over TCP
//! ```
//!
//! The parser and the classifier are the kernel's own (`probe_ebpf`), so a file gets the verdicts that the
//! same frames would get live. What is slow and rare is here: cooked link layers, reassembly, tunnels (`walk`,
//! `tunnel`), and byte streams that carry captured frames (`stream`). A plain frame sees none of it.
//!
//! A frame yields one datagram, except where it is a segment of such a stream: then [`Decoder::frame`] says
//! [`Decoded::Carrier`], and [`Decoder::more`] gives what the segment completed, one datagram a call, so that an SDP in
//! the first is known before the second is judged.

mod carrier;
mod census;
mod datagram;
pub mod fragment;
mod link;
mod live;
mod plain;
mod remote;
mod stream;
mod suspect;
mod taken;
mod template;
mod tunnel;
mod walk;

use probe_ebpf::{Config, Endpoints, Layers, Verdict, parse};

use self::stream::Messages;
use self::walk::{Found, Segment, Walker};
use crate::capture::file::{Frame, LinkType};
use crate::packet::{Carrier, Encapsulation, Evidence, Flow, Nanos, RtpPacket, Tap};
use crate::sip::EndpointChange;

pub use self::carrier::{CarrierReport, Transport};
pub use self::census::{Census, Opened, Refused};
pub use self::live::{from_media4, from_media6};
pub use self::plain::{Plain, PlainRtp};
pub use self::remote::{RemoteCapture, RemoteStatistics};
pub use self::template::{Predicted, Predictor};

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decoded<'a> {
    /// RTP. `media` is the caller's to fill.
    Rtp(RtpPacket),
    /// RTCP, whole.
    Rtcp(Datagram<'a>),
    /// SIP, whole, or a segment of it.
    Sip(Datagram<'a>),
    /// A segment on a port of SIP over TLS, and its sequence number. Live, only its head.
    Tls(Datagram<'a>, u32),
    /// A segment of a byte stream that carries frames or messages. What it completed is what [`Decoder::more`] gives.
    Carrier,
    /// A fragment that waits for others; it is accounted for when its datagram is, see [`fragment`]. With the verdict on
    /// its frame: a fragment may come in a tunnel.
    Held(Verdict),
    /// Beside media: no RTP and no RTCP on an announced port, or the handshake of an SRTP session whose port nobody announced.
    Beside {
        /// It.
        datagram: Datagram<'a>,
        /// Was its port announced?
        is_announced: bool,
    },
    /// Nothing for us, and why. A tunnel that was opened and holds nothing for us is [`Verdict::Tunnel`].
    Nothing(Verdict),
}

impl Decoded<'_> {
    /// The verdict that stands for it: of a frame that was opened, that it is a tunnel.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Rtp(packet) if !packet.evidence.encapsulation.is_none() => Verdict::Tunnel,
            Self::Rtcp(datagram)
            | Self::Sip(datagram)
            | Self::Tls(datagram, _)
            | Self::Beside { datagram, .. }
                if !datagram.evidence.encapsulation.is_none() =>
            {
                Verdict::Tunnel
            }
            Self::Rtp(_) => Verdict::Rtp,
            Self::Rtcp(_) => Verdict::Rtcp,
            Self::Sip(datagram) if datagram.tcp_seq.is_some() => Verdict::SipTcp,
            Self::Sip(_) => Verdict::SipUdp,
            Self::Tls(..) => Verdict::SipTls,
            Self::Carrier => Verdict::Tunnel,
            Self::Beside { is_announced: true, .. } => Verdict::MediaOther,
            Self::Beside { .. } => Verdict::OtherUdp,
            Self::Held(verdict) | Self::Nothing(verdict) => *verdict,
        }
    }
}

/// A datagram, or a TCP segment, with its payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Datagram<'a> {
    /// When its frame (the one that completed it) was seen.
    pub time: Nanos,
    /// Number of that frame.
    pub number: u64,
    /// From whom to whom.
    pub flow: Flow,
    /// TCP sequence number of the payload; `None` for UDP.
    pub tcp_seq: Option<u32>,
    /// What was carried, as far as it was captured.
    pub payload: &'a [u8],
    /// Is some of it missing from the capture?
    pub cut: bool,
    /// Octets of the payload by its own header, captured or not.
    pub claimed: usize,
    /// How it was seen.
    pub evidence: Evidence,
}

/// How a frame was seen, as far as it has been read.
#[derive(Clone, Copy, Debug)]
struct Seen {
    time: Nanos,
    /// By the clock of whoever captured it, if that was not this capture.
    tap_time: Nanos,
    number: u64,
    tap: Tap,
    /// What its bytes begin with.
    link: LinkType,
    /// A tag that the hardware took out of the frame.
    offloaded_tag: Option<u16>,
    /// The tunnels around it.
    path: Encapsulation,
    carrier: Carrier,
    /// Destination and source MAC where they are not in the bytes at hand, but in front of an MPLS or PPPoE header.
    macs: Option<([u8; 6], [u8; 6])>,
}

impl Seen {
    /// A frame in no tunnel.
    fn plain(time: Nanos, number: u64, tap: Tap, link: LinkType) -> Self {
        Self {
            time,
            tap_time: time,
            number,
            tap,
            link,
            offloaded_tag: None,
            path: Encapsulation::NONE,
            carrier: Carrier::NONE,
            macs: None,
        }
    }
}

/// Byte streams inside frames of byte streams: a remote capture that captured another one. Three deep was seen where
/// somebody captured his own rpcap session.
const MAX_LEVELS: usize = 3;

/// See the module.
#[derive(Debug)]
pub struct Decoder {
    walker: Walker,
    levels: [Level; MAX_LEVELS],
    /// How many of them have messages left to read.
    depth: usize,
}

/// What one segment completed.
#[derive(Debug, Default)]
struct Level {
    segment: Option<Segment>,
    messages: Messages,
}

/// What is known of tunnels at the end.
#[derive(Clone, Debug, Default)]
pub struct Tunnels {
    /// What was opened and refused.
    pub census: Census,
    /// The sessions that carried something, by number from 1.
    pub carriers: Vec<CarrierReport>,
    /// Frames of sessions for which there was no room: they share the last one's number.
    pub carriers_shared: u64,
    /// Remote captures that are in the capture.
    pub remote_captures: Vec<RemoteCapture>,
}

impl Decoder {
    /// A decoder for one capture. With `as_wireshark`, for files, more than ports is asked: what begins like a SIP message
    /// is SIP on any port, unannounced UDP is RTP exactly where Wireshark's rtp_udp heuristic says so, and what begins
    /// like rpcap or HEP is looked into on any port.
    pub fn new(config: Config, as_wireshark: bool) -> Self {
        Self { walker: Walker::new(config, as_wireshark), levels: Default::default(), depth: 0 }
    }

    /// Fragments that were given up since the last call; they are lost.
    pub fn take_lost_fragments(&mut self) -> u64 {
        self.walker.fragments.take_lost()
    }

    /// Fragments of datagrams that were completed since the last call; they are analysed.
    pub fn take_completed_fragments(&mut self) -> u64 {
        self.walker.fragments.take_completed()
    }

    /// Carriers that are new since the last call.
    pub fn take_new_carriers(&mut self) -> &[CarrierReport] {
        self.walker.carriers.take_new()
    }

    /// Frames of the fragments, and of the segments of a carrier, that the last frame made whole, itself apart.
    pub fn take_parts(&mut self) -> Vec<u64> {
        let mut parts = self.walker.fragments.take_parts();
        parts.extend(self.walker.streams.take_parts());
        parts
    }

    /// Ends of remote captures' data connections that came and went since the last call: their ports are negotiated, so
    /// nobody else can know that their segments are to be handed over.
    pub fn drain_carrier_changes(&mut self) -> impl Iterator<Item = EndpointChange> {
        self.walker.remotes.drain_changes()
    }

    /// Gives up all fragments that still wait.
    pub fn finish(&mut self) {
        self.walker.fragments.clear();
    }

    /// What is known of tunnels.
    pub fn into_tunnels(self) -> Tunnels {
        let Walker { census, carriers, remotes, .. } = self.walker;
        let (carriers, carriers_shared) = carriers.into_reports();
        Tunnels { census, carriers, carriers_shared, remote_captures: remotes.into_reports() }
    }

    /// Decodes a frame of a file.
    pub fn frame<'a, E: Endpoints>(&'a mut self, frame: &Frame<'a>, endpoints: &E) -> Decoded<'a> {
        let egress = link::is_outgoing(frame.link, frame.bytes);
        let tap = Tap::new(frame.interface, egress);
        let seen = Seen::plain(frame.time, frame.number, tap, frame.link);
        self.bytes(seen, frame.bytes, frame.wire_len, endpoints)
    }

    /// The next datagram that the last frame's segment completed, after [`Decoded::Carrier`] until there is none. Each that
    /// is matched is a unit of its own.
    pub fn more<E: Endpoints>(&mut self, endpoints: &E) -> Option<Decoded<'_>> {
        let (level, range, found) = loop {
            let level = self.depth.checked_sub(1)?;
            let (outer, inner) = self.levels.split_at_mut_checked(self.depth)?;
            let Level { segment: Some(segment), messages } = outer.last_mut()? else { return None };
            let Some(range) = messages.next() else {
                self.depth = level;
                continue;
            };
            let message = messages.bytes.get(range.clone()).unwrap_or_default();
            let (within, found) = self.walker.message(segment, message, endpoints);
            match found {
                Found::Nothing(_) => {}
                // The first two may be beside the media; of others nothing can be ours.
                Found::Datagram { verdict: Verdict::MediaOther | Verdict::OtherUdp, .. } => {
                    break (level, range.start + within.start..range.start + within.end, found);
                }
                Found::Datagram { verdict, .. } if !verdict.is_matched() => {}
                Found::Segment { place, segment } => {
                    // Deeper than is followed: the segment is what was found, and nothing in it.
                    if let Some(next) = inner.first_mut() {
                        let given = message.get(within).unwrap_or_default();
                        next.take(&mut self.walker, given, &place, segment);
                        self.depth += 1;
                    }
                    return Some(Decoded::Carrier);
                }
                found => break (level, range.start + within.start..range.start + within.end, found),
            }
        };
        let given = self.levels.get(level)?.messages.bytes.get(range).unwrap_or_default();
        Some(self.walker.cut_out(found, given, endpoints))
    }

    fn bytes<'a, E: Endpoints>(
        &'a mut self,
        seen: Seen,
        bytes: &'a [u8],
        wire_len: u32,
        endpoints: &E,
    ) -> Decoded<'a> {
        self.depth = 0;
        let walker = &self.walker;
        match link::parse(seen.link, bytes) {
            Ok(layers) => {
                let verdict = walker.verdict(bytes, &layers, endpoints);
                if walker.is_final(verdict, bytes, &layers) {
                    return datagram::cut_out(seen, bytes, &layers, verdict, walker.heuristic(), endpoints);
                }
            }
            Err(refusal) if walker.is_final_refusal(refusal) => return Decoded::Nothing(refusal.into()),
            Err(_) => {}
        }
        self.deep(seen, bytes, wire_len, endpoints)
    }

    /// Everything that is not plain.
    #[cold]
    fn deep<'a, E: Endpoints>(
        &'a mut self,
        seen: Seen,
        bytes: &'a [u8],
        wire_len: u32,
        endpoints: &E,
    ) -> Decoded<'a> {
        // Those of the frame before, if nobody asked.
        self.walker.streams.take_parts();
        let wire_len = usize::try_from(wire_len).unwrap_or(usize::MAX);
        match self.walker.walk(seen, bytes, wire_len, endpoints) {
            Found::Segment { place, segment } => {
                if let Some(level) = self.levels.first_mut() {
                    level.take(&mut self.walker, bytes, &place, segment);
                    self.depth = 1;
                }
                Decoded::Carrier
            }
            found => {
                let is_opened = found.is_in_tunnel();
                match self.walker.cut_out(found, bytes, endpoints) {
                    Decoded::Nothing(_) if is_opened => Decoded::Nothing(Verdict::Tunnel),
                    decoded => decoded,
                }
            }
        }
    }
}

impl Level {
    fn take(&mut self, walker: &mut Walker, given: &[u8], place: &walk::Place, segment: Segment) {
        walker.take(given, place, &segment, &mut self.messages);
        self.segment = Some(segment);
    }
}

/// For the other modules of this folder: the fast parser on a whole Ethernet frame.
fn ethernet(bytes: &[u8]) -> Result<Layers, parse::Refusal> {
    parse::ethernet(bytes)
}
