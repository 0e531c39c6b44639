//! The last step of decoding: what is ours, cut out of the frame around it, with the evidence of how it was seen.

use probe_ebpf::classify::{self, RTP_HEADER};
use probe_ebpf::record::HASHED_PAYLOAD;
use probe_ebpf::{Endpoints, Fingerprint, Layers, Verdict, fingerprint};

use super::tunnel::hep;
use super::{Datagram, Decoded, Seen, link, taken};
use crate::packet::{Endpoint, Evidence, Flow, FlowWords, MediaId, Nanos, RtpHeader, RtpPacket, Vlans};
use crate::rtp::demux;

const UDP_HEADER: usize = 8;
/// Octets of an RTP packet up to where the hash of its payload ends.
pub(super) const HASHED: usize = RTP_HEADER as usize + HASHED_PAYLOAD;

/// What unannounced UDP has to pass to be RTP, besides the classifier's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heuristic {
    /// Nothing: live, the classifier decides.
    None,
    /// What Wireshark's rtp_udp asks of the payload.
    Payload,
    /// All that Wireshark asks, down to the ports that other dissectors keep: for a ledger that has to equal its own.
    PayloadAndPorts,
}

/// Cuts the datagram out of the frame around it.
pub(super) fn cut_out<'a, E: Endpoints>(
    seen: Seen,
    bytes: &'a [u8],
    layers: &Layers,
    verdict: Verdict,
    heuristic: Heuristic,
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
        Datagram { time: seen.time, number: seen.number, flow, tcp_seq, payload, cut, claimed, evidence }
    };
    match verdict {
        Verdict::SipUdp => Decoded::Sip(datagram(8, None)),
        Verdict::SipTcp | Verdict::SipTls => {
            let header = bytes.get(layers.transport..).and_then(<[u8]>::first_chunk::<13>);
            let Some(&[_, _, _, _, s0, s1, s2, s3, .., offset]) = header else {
                return Decoded::Nothing(Verdict::Truncated);
            };
            let seq = u32::from_be_bytes([s0, s1, s2, s3]);
            let segment = datagram(usize::from(offset >> 4) * 4, Some(seq));
            if verdict == Verdict::SipTls { Decoded::Tls(segment, seq) } else { Decoded::Sip(segment) }
        }
        Verdict::Rtcp => Decoded::Rtcp(datagram(8, None)),
        Verdict::Rtp => match accept(bytes, layers, heuristic, endpoints) {
            Ok(accepted) => {
                let times = (seen.time, seen.tap_time);
                Decoded::Rtp(accepted.packet(times, seen.number, flow.into(), evidence, layers))
            }
            Err(verdict) => Decoded::Nothing(verdict),
        },
        Verdict::MediaOther => Decoded::Beside { datagram: datagram(8, None), is_announced: true },
        Verdict::OtherUdp => {
            let datagram = datagram(8, None);
            match demux::Other::of(datagram.payload) {
                demux::Other::Dtls | demux::Other::Zrtp => Decoded::Beside { datagram, is_announced: false },
                _ => Decoded::Nothing(verdict),
            }
        }
        other => Decoded::Nothing(other),
    }
}

/// What a HEP message carries. All that is known of how it was seen is how it came here.
pub(super) fn of_hep<'a>(seen: Seen, payload: &'a [u8], message: &hep::Message) -> Decoded<'a> {
    let evidence = Evidence {
        tap: seen.tap,
        dst_mac: [0; 6],
        src_mac: [0; 6],
        vlans: Vlans::from_tci(message.vlan, None),
        ttl: 0,
        tos: 0,
        ip_id: 0,
        encapsulation: seen.path,
        carrier: seen.carrier,
    };
    let datagram = Datagram {
        time: seen.time,
        number: seen.number,
        flow: message.flow,
        // Also of what came over TCP: an agent sends whole messages.
        tcp_seq: None,
        payload,
        cut: false,
        claimed: payload.len(),
        evidence,
    };
    match message.carries {
        hep::Carries::Sip => Decoded::Sip(datagram),
        hep::Carries::Rtcp => Decoded::Rtcp(datagram),
    }
}

/// What the classifier takes for RTP, and is.
pub(super) struct Accepted<'a> {
    header: &'a [u8; RTP_HEADER as usize],
    /// With the header, as far as it was captured.
    payload: &'a [u8],
    /// Its length by the UDP header.
    claimed: usize,
    fingerprint: Fingerprint,
}

/// Asks of RTP what is more than a verdict, and says what it is otherwise.
#[inline]
pub(super) fn accept<'a, E: Endpoints>(
    bytes: &'a [u8],
    layers: &Layers,
    heuristic: Heuristic,
    endpoints: &E,
) -> Result<Accepted<'a>, Verdict> {
    let there = bytes.get(layers.transport + UDP_HEADER..).unwrap_or_default();
    let claimed = usize::from(layers.transport_len).saturating_sub(UDP_HEADER);
    let payload = there.get(..claimed).unwrap_or(there);
    let is_kept = |first: &u8| taken::is_taken(layers.src_port, layers.dst_port, *first);
    let is_passed = match heuristic {
        Heuristic::None => true,
        Heuristic::Payload => wireshark_accepts(payload, claimed),
        Heuristic::PayloadAndPorts => {
            wireshark_accepts(payload, claimed) && !payload.first().is_some_and(is_kept)
        }
    };
    if !is_passed && !is_announced(bytes, layers, endpoints) {
        return Err(Verdict::OtherUdp);
    }
    let header = payload.first_chunk::<{ RTP_HEADER as usize }>().ok_or(Verdict::Truncated)?;
    // tshark gives up on padding that the capture cut off; so must the ledger that equals it.
    if header[0] & 0x20 != 0 && payload.len() < claimed {
        return Err(Verdict::Truncated);
    }
    let fingerprint = fingerprint::of_rtp(bytes, layers).ok_or(Verdict::Truncated)?;
    Ok(Accepted { header, payload, claimed, fingerprint })
}

#[cold]
fn is_announced<E: Endpoints>(bytes: &[u8], layers: &Layers, endpoints: &E) -> bool {
    let ends = [classify::destination(bytes, layers), classify::source(bytes, layers)];
    ends.iter().flatten().any(|key| endpoints.is_announced(key))
}

impl Accepted<'_> {
    /// The packet, seen then by the capture's clock and by its tap's.
    #[inline]
    pub(super) fn packet(
        &self,
        (time, tap_time): (Nanos, Nanos),
        number: u64,
        flow: FlowWords,
        evidence: Evidence,
        layers: &Layers,
    ) -> RtpPacket {
        let Self { header, payload, claimed, fingerprint } = *self;
        RtpPacket {
            time,
            tap_time,
            number,
            flow,
            rtp: RtpHeader::from_wire(header),
            udp_len: layers.transport_len,
            payload_head: payload_head(payload),
            fingerprint,
            is_hash_cut: fingerprint.hashed && payload.len() < claimed.min(HASHED),
            evidence,
            media: MediaId::UNANNOUNCED,
        }
    }
}

/// The first octets after the header, its contributors and its extension.
#[inline]
fn payload_head(payload: &[u8]) -> Option<[u8; 4]> {
    let first = *payload.first()?;
    let mut at = usize::from(RTP_HEADER) + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        let words = payload.get(at + 2..)?.first_chunk()?;
        at += 4 + 4 * usize::from(u16::from_be_bytes(*words));
    }
    payload.get(at..)?.first_chunk().copied()
}

/// Wireshark's rtp_udp heuristic (`../shared/reference/wireshark_rtp.md`, 1). `claimed` is the length by the UDP header.
#[inline]
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

#[inline]
pub(super) fn evidence(seen: Seen, bytes: &[u8], layers: &Layers) -> Option<Evidence> {
    let (dst_mac, src_mac) = seen.macs.unwrap_or_else(|| link::macs(seen.link, bytes));
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
        encapsulation: seen.path,
        carrier: seen.carrier,
    })
}

/// From whom to whom.
pub(super) fn flow(bytes: &[u8], layers: &Layers) -> Option<Flow> {
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
