//! From a frame to one inner datagram with its evidence.
//!
//! ```text
//!   file frame ─▶ link ─▶ ┐                                                ┌▶ Rtp
//!   PacketHead + frame ─▶ ├▶ probe_ebpf: parse, classify ─▶ fragment? ─▶ ──┼▶ Rtcp, Sip
//!   MediaHead4 | 6 ──────▶┘      (as in the kernel)         reassembly     └▶ Nothing, Held
//! ```
//!
//! The parser and the classifier are the kernel's own (`probe_ebpf`), so a file gets the verdicts that the
//! same frames would get live. What is slow and rare (cooked link layers, reassembly) is here.

pub mod fragment;
mod link;
mod live;
mod taken;

use probe_ebpf::classify::{self, RTP_HEADER};
use probe_ebpf::{Config, Endpoints, Layers, MediaRule, Verdict, fingerprint, parse};

use self::fragment::{Fragments, Outcome};
use crate::capture::file::{Frame, LinkType};
use crate::packet::{
    Carrier, Encapsulation, Endpoint, Evidence, Flow, MediaId, Nanos, RtpHeader, RtpPacket, Tap, Vlans,
};

pub use self::live::{from_media4, from_media6};

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decoded<'a> {
    /// RTP. `media` is the caller's to fill.
    Rtp(RtpPacket),
    /// RTCP, whole.
    Rtcp(Datagram<'a>),
    /// SIP, whole, or a segment of it.
    Sip(Datagram<'a>),
    /// A fragment that waits for others; it is accounted for when its datagram is, see [`fragment`].
    Held,
    /// Nothing for us, and why.
    Nothing(Verdict),
}

impl Decoded<'_> {
    /// The verdict that stands for it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Rtp(_) => Verdict::Rtp,
            Self::Rtcp(_) => Verdict::Rtcp,
            Self::Sip(datagram) if datagram.tcp_seq.is_some() => Verdict::SipTcp,
            Self::Sip(_) => Verdict::SipUdp,
            Self::Held => Verdict::Fragment,
            Self::Nothing(verdict) => *verdict,
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
    /// How it was seen.
    pub evidence: Evidence,
}

/// What of a frame is known before its bytes are looked at.
#[derive(Clone, Copy, Debug)]
struct Seen {
    time: Nanos,
    number: u64,
    tap: Tap,
    link: LinkType,
    /// A tag that the hardware took out of the frame.
    offloaded_tag: Option<u16>,
}

/// See the module.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    as_wireshark: bool,
    fragments: Fragments,
    /// A reassembled datagram, laid out as the frame it would have been.
    whole: Vec<u8>,
}

impl Decoder {
    /// A decoder for one capture. With `as_wireshark`, for files, two questions are asked of more than ports: what
    /// begins like a SIP message is SIP on any port, and unannounced UDP is RTP exactly where Wireshark's
    /// rtp_udp heuristic says so.
    pub fn new(config: Config, as_wireshark: bool) -> Self {
        // Tunnels are not opened yet; what may be one is judged as if it were none.
        let config = config.without_tunnels();
        Self { config, as_wireshark, fragments: Fragments::default(), whole: Vec::new() }
    }

    /// Fragments that were given up since the last call; they are lost.
    pub fn take_lost_fragments(&mut self) -> u64 {
        self.fragments.take_lost()
    }

    /// Fragments of datagrams that were completed since the last call; they are analysed.
    pub fn take_completed_fragments(&mut self) -> u64 {
        self.fragments.take_completed()
    }

    /// Gives up all fragments that still wait.
    pub fn finish(&mut self) {
        self.fragments.clear();
    }

    /// Decodes a frame of a file.
    pub fn frame<'a, E: Endpoints>(&'a mut self, frame: &Frame<'a>, endpoints: &E) -> Decoded<'a> {
        let seen = Seen {
            time: frame.time,
            number: frame.number,
            tap: Tap { interface: frame.interface, egress: link::is_outgoing(frame.link, frame.bytes) },
            link: frame.link,
            offloaded_tag: None,
        };
        self.bytes(seen, frame.bytes, endpoints)
    }

    fn bytes<'a, E: Endpoints>(&'a mut self, seen: Seen, bytes: &'a [u8], endpoints: &E) -> Decoded<'a> {
        let layers = match link::parse(seen.link, bytes) {
            Ok(layers) => layers,
            Err(refusal) => return Decoded::Nothing(refusal.into()),
        };
        let verdict = self.verdict(bytes, &layers, endpoints);
        if verdict != Verdict::Fragment {
            return self.datagram(seen, bytes, &layers, verdict, endpoints);
        }
        match self.fragments.observe(seen.time, bytes, &layers, &mut self.whole) {
            Outcome::Held | Outcome::Refused => Decoded::Held,
            Outcome::Complete => {
                let whole = &self.whole;
                let layers = match link::parse(seen.link, whole) {
                    Ok(layers) => layers,
                    Err(refusal) => return Decoded::Nothing(refusal.into()),
                };
                let verdict = self.verdict(whole, &layers, endpoints);
                self.datagram(seen, whole, &layers, verdict, endpoints)
            }
        }
    }

    fn verdict<E: Endpoints>(&self, bytes: &[u8], layers: &Layers, endpoints: &E) -> Verdict {
        let verdict = classify::classify(bytes, layers, &self.config, endpoints);
        let begins_like_sip = |header_len: usize| {
            bytes.get(layers.transport + header_len..).is_some_and(crate::sip::message::begins_like_sip)
        };
        match verdict {
            Verdict::OtherUdp if self.as_wireshark && begins_like_sip(8) => Verdict::SipUdp,
            Verdict::OtherTcp if self.as_wireshark => {
                let header_len =
                    bytes.get(layers.transport + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
                if header_len >= 20 && begins_like_sip(header_len) { Verdict::SipTcp } else { verdict }
            }
            other => other,
        }
    }

    fn datagram<'a, E: Endpoints>(
        &self,
        seen: Seen,
        bytes: &'a [u8],
        layers: &Layers,
        verdict: Verdict,
        endpoints: &E,
    ) -> Decoded<'a> {
        let Some(evidence) = evidence(seen, bytes, layers) else {
            return Decoded::Nothing(Verdict::Truncated);
        };
        let Some(flow) = flow(bytes, layers) else { return Decoded::Nothing(Verdict::Truncated) };
        let datagram = |header_len: usize, tcp_seq| {
            let start = layers.transport + header_len;
            let claimed = usize::from(layers.transport_len).saturating_sub(header_len);
            let there = bytes.get(start..).unwrap_or_default();
            let payload = there.get(..claimed).unwrap_or(there);
            let cut = payload.len() < claimed;
            Datagram { time: seen.time, number: seen.number, flow, tcp_seq, payload, cut, evidence }
        };
        match verdict {
            Verdict::SipUdp => Decoded::Sip(datagram(8, None)),
            Verdict::SipTcp => {
                let Some(offset) = bytes.get(layers.transport + 12) else {
                    return Decoded::Nothing(Verdict::Truncated);
                };
                let seq = bytes.get(layers.transport + 4..).and_then(<[u8]>::first_chunk);
                Decoded::Sip(datagram(usize::from(offset >> 4) * 4, seq.map(|b| u32::from_be_bytes(*b))))
            }
            Verdict::Rtcp => Decoded::Rtcp(datagram(8, None)),
            Verdict::Rtp => {
                let announced = || {
                    [classify::destination(bytes, layers), classify::source(bytes, layers)]
                        .iter()
                        .flatten()
                        .any(|key| endpoints.is_announced(key))
                };
                let payload = datagram(8, None).payload;
                let claimed = usize::from(layers.transport_len) - 8;
                // What only has to look like RTP is asked for as Wireshark does, down to the ports.
                let any = self.config.media_rule == MediaRule::Anything as u8;
                let is_taken = |first: &u8| any && taken::is_taken(layers.src_port, layers.dst_port, *first);
                let accepts =
                    || wireshark_accepts(payload, claimed) && !payload.first().is_some_and(is_taken);
                if self.as_wireshark && !accepts() && !announced() {
                    return Decoded::Nothing(Verdict::OtherUdp);
                }
                rtp(seen, flow, evidence, bytes, layers, payload, claimed)
            }
            other => Decoded::Nothing(other),
        }
    }
}

fn rtp<'a>(
    seen: Seen,
    flow: Flow,
    evidence: Evidence,
    bytes: &[u8],
    layers: &Layers,
    payload: &[u8],
    claimed: usize,
) -> Decoded<'a> {
    let Some(header) = payload.first_chunk::<{ RTP_HEADER as usize }>() else {
        return Decoded::Nothing(Verdict::Truncated);
    };
    // tshark gives up on padding that the capture cut off; so must the ledger that equals it.
    if header[0] & 0x20 != 0 && payload.len() < claimed {
        return Decoded::Nothing(Verdict::Truncated);
    }
    let Some(fingerprint) = fingerprint::of_rtp(bytes, layers) else {
        return Decoded::Nothing(Verdict::Truncated);
    };
    Decoded::Rtp(RtpPacket {
        time: seen.time,
        tap_time: seen.time,
        number: seen.number,
        flow,
        rtp: RtpHeader::from_wire(header),
        udp_len: layers.transport_len,
        fingerprint,
        evidence,
        media: MediaId::UNANNOUNCED,
    })
}

/// Wireshark's rtp_udp heuristic (`../shared/reference/wireshark_rtp.md`, 1). `claimed` is the length by the UDP header.
fn wireshark_accepts(payload: &[u8], claimed: usize) -> bool {
    let &[first, second, ..] = payload else { return false };
    if first >> 6 != 2 || matches!(second & 0x7f, 72..=76) {
        return false;
    }
    let mut needed = usize::from(RTP_HEADER) + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let Some(words) = payload.get(needed + 2..).and_then(<[u8]>::first_chunk) else { return false };
        needed += 4 + 4 * usize::from(u16::from_be_bytes(*words));
    }
    if claimed < needed {
        return false;
    }
    if first & 0x20 != 0 && payload.len() == claimed {
        let padding = usize::from(payload.last().copied().unwrap_or(0));
        return (1..=claimed - needed).contains(&padding);
    }
    true
}

fn evidence(seen: Seen, bytes: &[u8], layers: &Layers) -> Option<Evidence> {
    let (dst_mac, src_mac) = link::macs(seen.link, bytes);
    let (mut outer, mut inner) = (
        (layers.vlan_tags > 0).then_some(layers.outer_vlan),
        (layers.vlan_tags > 1).then_some(layers.inner_vlan),
    );
    if seen.offloaded_tag.is_some() {
        (outer, inner) = (seen.offloaded_tag, outer);
    }
    let ip = bytes.get(layers.ip..)?;
    let (tos, ttl, ip_id) = if layers.v6 {
        let &[a, b, c, d, _, _, _, hops, ..] = ip else { return None };
        ((a << 4) | (b >> 4), hops, u16::from_be_bytes([c, d]))
    } else {
        let &[_, tos, _, _, i, d, _, _, ttl, ..] = ip else { return None };
        (tos, ttl, u16::from_be_bytes([i, d]))
    };
    Some(Evidence {
        tap: seen.tap,
        dst_mac,
        src_mac,
        vlans: Vlans::from_tci(outer, inner),
        ttl,
        tos,
        ip_id,
        encapsulation: Encapsulation::NONE,
        carrier: Carrier::NONE,
    })
}

fn flow(bytes: &[u8], layers: &Layers) -> Option<Flow> {
    let ip = bytes.get(layers.ip..)?;
    if layers.v6 {
        let src = ip.get(8..)?.first_chunk()?;
        let dst = ip.get(24..)?.first_chunk()?;
        return Some(Flow {
            src: Endpoint::v6(*src, layers.src_port),
            dst: Endpoint::v6(*dst, layers.dst_port),
        });
    }
    let src = ip.get(12..)?.first_chunk()?;
    let dst = ip.get(16..)?.first_chunk()?;
    Some(Flow { src: Endpoint::v4(*src, layers.src_port), dst: Endpoint::v4(*dst, layers.dst_port) })
}

/// For the other modules of this folder: the fast parser on a whole Ethernet frame.
fn ethernet(bytes: &[u8]) -> Result<Layers, parse::Refusal> {
    parse::ethernet(bytes)
}
