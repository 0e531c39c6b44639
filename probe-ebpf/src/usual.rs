//! The usual frame, judged in one go.
//!
//! ```text
//!   Ethernet │ at most one tag │ IPv4 of 20 octets, IPv6 of 40 │ TCP, UDP, others that are no tunnel │ RTP
//!            └ every field where it always is, so one check of the length suffices for all of them
//! ```
//!
//! Nearly every frame is one of TCP, UDP or ICMP that means nothing to the probe, or RTP. Parser and classifier get there as well, but
//! they have to be ready for options, extension headers, fragments and tunnels at each step. This asks for what is usual,
//! and gives up at the first thing that is not: whoever gets no answer here asks them. Whoever gets one gets the answer that they
//! would have given; that is what the tests are about.

use crate::classify::{self, Endpoints, Verdict};
use crate::config::{Config, EndpointKey, MediaRule};
use crate::parse::{self, Bytes, Header as _, Layers, TCP, UDP};

/// Octets of the part of UDP and RTP that is always there.
const MEDIA: usize = 8 + 12;
/// The least that IPv4 of TCP has, and that of UDP, with both headers.
const TCP_OVER_IPV4: u16 = 20 + 20;
const UDP_OVER_IPV4: u16 = 20 + 8;

/// Judges an Ethernet frame, if it is usual. The layers do not tell of a tag.
#[inline(always)]
pub fn ethernet<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    config: &Config,
    endpoints: &E,
) -> Option<(Verdict, Layers)> {
    match network(frame)? {
        Network::Ipv4 => ipv4(frame, UNTAGGED, config, endpoints),
        Network::TaggedIpv4 => ipv4(frame, TAGGED, config, endpoints),
        Network::Ipv6 => ipv6(frame, UNTAGGED, config, endpoints),
    }
}

/// Which of the usual networks a frame claims to be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 at [`UNTAGGED`].
    Ipv4,
    /// IPv4 at [`TAGGED`].
    TaggedIpv4,
    /// IPv6 at [`UNTAGGED`].
    Ipv6,
}

/// Where IP begins without a tag.
pub const UNTAGGED: usize = 14;
/// Where IP begins behind one tag.
pub const TAGGED: usize = 18;

/// Which of the usual networks a frame claims to be of, if any.
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(frame: &B) -> Option<Network> {
    let ethertype = frame.be16(12)?;
    if ethertype == parse::ETHERTYPE_IPV4 {
        return Some(Network::Ipv4);
    }
    if ethertype == parse::ETHERTYPE_IPV6 {
        return Some(Network::Ipv6);
    }
    let is_tagged = parse::is_vlan(ethertype) && frame.be16(16)? == parse::ETHERTYPE_IPV4;
    is_tagged.then_some(Network::TaggedIpv4)
}

/// Judges an IPv4 packet at `ip`, if it is usual: [`OtherTcp`](Verdict::OtherTcp), [`OtherUdp`](Verdict::OtherUdp),
/// [`OtherIp`](Verdict::OtherIp), or [`Rtp`](Verdict::Rtp) that is not [short](classify::is_short_rtp) and all there.
#[inline(always)]
pub fn ipv4<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    ip: usize,
    config: &Config,
    endpoints: &E,
) -> Option<(Verdict, Layers)> {
    let header = frame.header::<{ 20 + MEDIA }>(ip)?;
    let total_len = header.be16::<2>();
    // Neither options, nor a fragment; the flag "don't fragment" and the reserved one do not matter.
    if header.be8::<0>() != 0x45 || header.be16::<6>() & 0x3fff != 0 {
        return None;
    }
    let layers = |protocol| Layers {
        ip,
        protocol,
        transport: ip + 20,
        transport_len: total_len.wrapping_sub(20),
        src_port: header.be16::<20>(),
        dst_port: header.be16::<22>(),
        ..Layers::NONE
    };
    match header.be8::<9>() {
        TCP if total_len >= TCP_OVER_IPV4 => tcp(layers(TCP), endpoints),
        UDP if total_len >= UDP_OVER_IPV4 && frame.reaches(ip + usize::from(total_len)) => {
            let key = |address: u32, port: u16| EndpointKey {
                address: [0, 0, 0xffff_u32.to_be(), address.to_be()],
                port: u32::from(port),
            };
            let destination = |port| key(header.be32::<16>(), port);
            let source = |port| key(header.be32::<12>(), port);
            udp(frame, header.be16::<28>(), layers(UDP), config, endpoints, destination, source)
        }
        TCP | UDP => None,
        other if total_len < 20 || config.is_tunnel_protocol(other) => None,
        other => Some((Verdict::OtherIp, without_ports(layers(other)))),
    }
}

/// The same of IPv6.
#[inline(always)]
pub fn ipv6<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    ip: usize,
    config: &Config,
    endpoints: &E,
) -> Option<(Verdict, Layers)> {
    let header = frame.header::<{ 40 + MEDIA }>(ip)?;
    let transport_len = header.be16::<4>();
    if header.be8::<0>() >> 4 != 6 {
        return None;
    }
    let layers = |protocol| Layers {
        ip,
        v6: true,
        protocol,
        transport: ip + 40,
        transport_len,
        src_port: header.be16::<40>(),
        dst_port: header.be16::<42>(),
        ..Layers::NONE
    };
    match header.be8::<6>() {
        TCP if transport_len >= TCP_OVER_IPV4 - 20 => tcp(layers(TCP), endpoints),
        UDP if transport_len >= UDP_OVER_IPV4 - 20 && frame.reaches(ip + 40 + usize::from(transport_len)) => {
            let key = |a: u32, b: u32, c: u32, d: u32, port: u16| EndpointKey {
                address: [a.to_be(), b.to_be(), c.to_be(), d.to_be()],
                port: u32::from(port),
            };
            let destination = |port| {
                key(header.be32::<24>(), header.be32::<28>(), header.be32::<32>(), header.be32::<36>(), port)
            };
            let source = |port| {
                key(header.be32::<8>(), header.be32::<12>(), header.be32::<16>(), header.be32::<20>(), port)
            };
            udp(frame, header.be16::<48>(), layers(UDP), config, endpoints, destination, source)
        }
        TCP | UDP => None,
        other if parse::is_extension(other) || config.is_tunnel_protocol(other) => None,
        other => Some((Verdict::OtherIp, without_ports(layers(other)))),
    }
}

/// Those of neither TCP nor UDP.
#[inline(always)]
fn without_ports(layers: Layers) -> Layers {
    Layers { src_port: 0, dst_port: 0, ..layers }
}

#[inline(always)]
fn tcp<E: Endpoints>(layers: Layers, endpoints: &E) -> Option<(Verdict, Layers)> {
    let role = endpoints.role(TCP, layers.src_port).and(endpoints.role(TCP, layers.dst_port));
    if role.matters() { None } else { Some((Verdict::OtherTcp, layers)) }
}

/// `first` is what the payload begins with: RTP's version, contributors, marker and type.
#[inline(always)]
fn udp<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    first: u16,
    layers: Layers,
    config: &Config,
    endpoints: &E,
    destination: impl FnOnce(u16) -> EndpointKey,
    source: impl FnOnce(u16) -> EndpointKey,
) -> Option<(Verdict, Layers)> {
    let Layers { src_port, dst_port, transport_len, .. } = layers;
    let (src, dst) = (endpoints.role(UDP, src_port), endpoints.role(UDP, dst_port));
    let role = src.and(dst);
    // What the table of endpoints has, is ours even if it is no RTP.
    let other = if role.matters() { None } else { Some((Verdict::OtherUdp, layers)) };
    if first >> 14 != 2 {
        return other;
    }
    let payload_len = transport_len - 8;
    let contributors = (first >> 8) & 0x0f;
    // RTCP shares the range of types (RFC 5761, 4).
    if role.is_named() || first & 0xe0 == 0xc0 || payload_len < classify::RTP_HEADER + contributors * 4 {
        return None;
    }
    let allowed = config.media_rule == MediaRule::Anything as u8
        || (config.media_rule == MediaRule::Range as u8
            && config.in_media_range(src_port)
            && config.in_media_range(dst_port));
    let is_known = allowed
        || (dst.is_found() && endpoints.is_announced(&destination(dst_port)))
        || (src.is_found() && endpoints.is_announced(&source(src_port)));
    if !is_known {
        return Some((Verdict::OtherUdp, layers));
    }
    if classify::is_short_rtp(frame, &layers) { None } else { Some((Verdict::Rtp, layers)) }
}

#[cfg(test)]
#[path = "usual_tests.rs"]
mod tests;
