//! RTP in a plain Ethernet frame, whole and in no tunnel: of most captures, nearly every frame.
//!
//! The same parser, classifier and tests as for any other frame ([`super::datagram`]), without what only others need: one
//! pass over the headers, and a packet is made only for whoever wants it. What is not accepted here is decoded from its
//! beginning by [`Decoder::frame`], so nothing is decided twice.

use probe_ebpf::parse::{self, Bytes as _};
use probe_ebpf::{Config, EndpointKey, Endpoints, Layers, Verdict, classify};

use super::datagram::{self, Accepted, Heuristic};
use super::{Decoder, Seen};
use crate::capture::file::{Frame, LinkType};
use crate::packet::{EndpointWords, Evidence, FlowWords, RtpPacket, Tap};

/// A frame that is RTP, before it was cut out.
pub struct PlainRtp<'a> {
    /// From whom to whom.
    pub flow: FlowWords,
    frame: &'a Frame<'a>,
    layers: Layers,
    accepted: Accepted<'a>,
    evidence: Evidence,
}

/// Tells plain RTP by the frame and the configuration alone: whoever has it may look at any frame, in any order.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    config: Config,
    heuristic: Heuristic,
    /// Is media only what was announced? Then nothing is plain.
    asks_for_announcements: bool,
}

impl Decoder {
    /// What tells plain RTP as this decoder would.
    pub fn plain(&self) -> Plain {
        let Self { walker, .. } = self;
        Plain {
            config: *walker.config(),
            heuristic: walker.heuristic(),
            asks_for_announcements: walker.asks_for_announcements(),
        }
    }
}

impl Plain {
    /// Is it plain RTP, whatever was announced?
    #[inline]
    pub fn rtp<'a>(&self, frame: &'a Frame<'a>) -> Option<PlainRtp<'a>> {
        if frame.link != LinkType::Ethernet || self.asks_for_announcements {
            return None;
        }
        let bytes = frame.bytes;
        let layers = parse::ethernet(bytes).ok()?;
        if classify::classify(bytes, &layers, &self.config, &Nobody) != Verdict::Rtp {
            return None;
        }
        let accepted = datagram::accept(bytes, &layers, self.heuristic, &Nobody).ok()?;
        let tap = Tap::new(frame.interface, false);
        let seen = Seen::plain(frame.time, frame.number, tap, LinkType::Ethernet);
        let evidence = datagram::evidence(seen, bytes, &layers)?;
        Some(PlainRtp { flow: words(bytes, &layers)?, frame, layers, accepted, evidence })
    }
}

/// Nobody announced anything: who is not sure without is asked again with all that is known.
struct Nobody;

impl Endpoints for Nobody {
    #[inline]
    fn is_announced(&self, _: &EndpointKey) -> bool {
        false
    }
}

impl PlainRtp<'_> {
    /// The packet; the signalling was not asked about it.
    #[inline]
    pub fn packet(&self) -> RtpPacket {
        let Self { flow, frame, layers, accepted, evidence } = self;
        accepted.packet((frame.time, frame.time), frame.number, *flow, *evidence, layers)
    }
}

/// From whom to whom.
#[inline]
pub(super) fn words(bytes: &[u8], layers: &Layers) -> Option<FlowWords> {
    let word = |at| bytes.be32(layers.ip + at);
    let long = |at| Some(u64::from(word(at)?) << 32 | u64::from(word(at + 4)?));
    Some(if layers.v6 {
        let end = |at, port| Some(EndpointWords { address: [long(at)?, long(at + 8)?], port });
        FlowWords::new(end(8, layers.src_port)?, end(24, layers.dst_port)?)
    } else {
        let end = |at, port| Some(EndpointWords::v4(word(at)?, port));
        FlowWords::new(end(12, layers.src_port)?, end(16, layers.dst_port)?)
    })
}
