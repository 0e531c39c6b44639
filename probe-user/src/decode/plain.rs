//! RTP in a plain Ethernet frame, whole and in no tunnel: of most captures, nearly every frame.
//!
//! The same parser, classifier and tests as for any other frame ([`super::datagram`]), without what only others need: one
//! pass over the headers, and a packet is made only for whoever wants it. What is not accepted here is decoded from its
//! beginning by [`Decoder::frame`], so nothing is decided twice.

use probe_ebpf::parse::{self, Bytes as _};
use probe_ebpf::{Endpoints, Verdict};

use super::datagram::{self, Accepted};
use super::{Decoder, Seen};
use crate::capture::file::{Frame, LinkType};
use crate::packet::{EndpointWords, FlowWords, MediaId, RtpPacket, Tap};

/// A frame that is RTP, before it was cut out.
pub struct PlainRtp<'a> {
    frame: &'a Frame<'a>,
    layers: probe_ebpf::Layers,
    accepted: Accepted<'a>,
}

impl Decoder {
    /// Is it plain RTP?
    #[inline]
    pub fn plain_rtp<'a, E: Endpoints>(&self, frame: &'a Frame<'a>, endpoints: &E) -> Option<PlainRtp<'a>> {
        if frame.link != LinkType::Ethernet {
            return None;
        }
        let layers = parse::ethernet(frame.bytes).ok()?;
        if self.walker.classify(frame.bytes, &layers, endpoints) != Verdict::Rtp {
            return None;
        }
        let accepted = datagram::accept(frame.bytes, &layers, self.walker.heuristic(), endpoints).ok()?;
        Some(PlainRtp { frame, layers, accepted })
    }
}

impl PlainRtp<'_> {
    /// From whom to whom.
    #[inline]
    pub fn flow(&self) -> Option<FlowWords> {
        let Self { frame, layers, .. } = self;
        let word = |at| frame.bytes.be32(layers.ip + at);
        let long = |at| Some(u64::from(word(at)?) << 32 | u64::from(word(at + 4)?));
        let (src_port, dst_port) = (layers.src_port, layers.dst_port);
        Some(if layers.v6 {
            let end = |at, port| Some(EndpointWords { address: [long(at)?, long(at + 8)?], port });
            FlowWords::new(end(8, src_port)?, end(24, dst_port)?)
        } else {
            FlowWords::new(EndpointWords::v4(word(12)?, src_port), EndpointWords::v4(word(16)?, dst_port))
        })
    }

    /// The packet.
    #[inline]
    pub fn packet(&self, flow: &FlowWords, media: MediaId) -> Option<RtpPacket> {
        let Self { frame, layers, accepted } = self;
        let tap = Tap { interface: frame.interface, egress: false };
        let seen = Seen::plain(frame.time, frame.number, tap, LinkType::Ethernet);
        let evidence = datagram::evidence(seen, frame.bytes, layers)?;
        Some(RtpPacket { media, ..accepted.packet(seen, (*flow).into(), evidence, layers) })
    }
}
