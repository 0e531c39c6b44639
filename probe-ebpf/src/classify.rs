//! The verdict: what a frame is to this probe.

use crate::config::{Config, EndpointKey, MediaRule, Role};
use crate::parse::{self, Bytes, Fragment, Layers, Refusal, TCP, UDP};
use crate::tunnel::Inside;

/// What a frame is to this probe. The numbers index the per-CPU counters; every frame counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Neither IPv4 nor IPv6.
    NotIp = 0,
    /// The frame ends inside a header.
    Truncated = 1,
    /// A header contradicts itself.
    Malformed = 2,
    /// More IPv6 extension headers than are followed.
    TooDeep = 3,
    /// UDP that is not ours, seen inside of a tunnel too.
    OtherUdp = 4,
    /// TCP that is not ours, seen inside of a tunnel too, and segments without data on a carrier's port.
    OtherTcp = 5,
    /// IP that carries neither UDP nor TCP, and fragments of such.
    OtherIp = 6,
    /// Announced as media, but neither RTP nor RTCP: STUN, DTLS, T.38 (RFC 7983).
    MediaOther = 7,
    /// A TCP segment without data on a port of SIP, or of SIP over TLS: counted, not read.
    SipTcpEmpty = 8,
    /// SIP over UDP: forwarded whole.
    SipUdp = 9,
    /// SIP over TCP with data: forwarded whole. Text on a port of SIP over TLS, too.
    SipTcp = 10,
    /// Data on a port of SIP over TLS: its head is forwarded, as nobody can read the rest.
    SipTls = 11,
    /// RTP: its head is forwarded, or all of it if it is short ([`is_short_rtp`]).
    Rtp = 12,
    /// RTCP: forwarded whole.
    Rtcp = 13,
    /// A fragment of UDP or of a tunnel, first or later: forwarded whole, as only all of them together have ports.
    Fragment = 14,
    /// Something that may carry packets of ours: a tunnel's protocol, ethertype or port, or data of a connection that
    /// carries captured frames. Forwarded whole: what is inside, userspace finds out.
    Tunnel = 15,
}

/// Number of verdicts, and so of counters.
pub const VERDICTS: usize = 16;

impl Verdict {
    /// Does the kernel hand such a frame to userspace? Those are the *matched* frames of every report.
    #[inline(always)]
    pub const fn is_matched(self) -> bool {
        self as u8 >= Self::SipUdp as u8
    }

    /// All verdicts, in the order of their numbers.
    pub const ALL: [Self; VERDICTS] = [
        Self::NotIp,
        Self::Truncated,
        Self::Malformed,
        Self::TooDeep,
        Self::OtherUdp,
        Self::OtherTcp,
        Self::OtherIp,
        Self::MediaOther,
        Self::SipTcpEmpty,
        Self::SipUdp,
        Self::SipTcp,
        Self::SipTls,
        Self::Rtp,
        Self::Rtcp,
        Self::Fragment,
        Self::Tunnel,
    ];

    /// The name that reports, metrics and documents use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::TooDeep => "too_deep",
            Self::OtherUdp => "other_udp",
            Self::OtherTcp => "other_tcp",
            Self::OtherIp => "other_ip",
            Self::SipTls => "sip_tls",
            Self::MediaOther => "media_other",
            Self::SipTcpEmpty => "sip_tcp_empty",
            Self::SipUdp => "sip_udp",
            Self::SipTcp => "sip_tcp",
            Self::Rtp => "rtp",
            Self::Rtcp => "rtcp",
            Self::Fragment => "fragment",
            Self::Tunnel => "tunnel",
        }
    }
}

impl From<Refusal> for Verdict {
    /// The verdict where tunnels do not count; see [`refused`].
    #[inline(always)]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Truncated => Self::Truncated,
            Refusal::NotIp | Refusal::Labelled => Self::NotIp,
            Refusal::Malformed => Self::Malformed,
            Refusal::TooDeep => Self::TooDeep,
        }
    }
}

/// Who was found to be ours while the probe runs. In the kernel BPF maps, in userspace the tables behind them.
pub trait Endpoints {
    /// Has `key` been announced as a media endpoint?
    fn is_announced(&self, key: &EndpointKey) -> bool;

    /// Was `key` found to be an end of a TCP connection that carries captured frames (rpcap's data connection, whose
    /// port the control connection negotiates)?
    fn is_carrier(&self, _key: &EndpointKey) -> bool {
        false
    }

    /// What may this port of UDP or TCP mean? Asked first of every frame, where the rest is dear: what is not in the answer
    /// must be ruled out, what is in it need not be so.
    #[inline(always)]
    fn role(&self, _protocol: u8, _port: u16) -> Role {
        Role::ANY
    }
}

/// The verdict on a frame without usable layers.
#[inline(always)]
pub fn refused(refusal: Refusal, config: &Config) -> Verdict {
    if matches!(refusal, Refusal::Labelled) && config.follows_labels() {
        return Verdict::Tunnel;
    }
    refusal.into()
}

/// Parses an Ethernet frame and gives its verdict, with the layers where there are any.
#[inline(always)]
pub fn ethernet<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    config: &Config,
    endpoints: &E,
) -> (Verdict, Option<Layers>) {
    let parsed = parse::ethernet(frame);
    let verdict = match &parsed {
        Ok(layers) => classify(frame, layers, config, endpoints),
        Err(refusal) => refused(*refusal, config),
    };
    if !matches!(verdict, Verdict::Tunnel) || !config.looks_inside() {
        return (verdict, parsed.ok());
    }
    let inside = match &parsed {
        Ok(layers) => Inside::of(frame, layers),
        Err(_) => Inside::of_labels(frame),
    };
    (inside.verdict(frame, config, endpoints), parsed.ok())
}

/// The verdict on a frame whose layers are known.
///
/// The order is the product's: signalling ports first, then tunnels, then announced endpoints, then what merely looks
/// like RTP, if [`Config::media_rule`] allows it. A tunnel is only suspected: where userspace finds none, it judges
/// the frame again by [`Config::without_tunnels`].
#[inline(always)]
pub fn classify<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    layers: &Layers,
    config: &Config,
    endpoints: &E,
) -> Verdict {
    if !matches!(layers.fragment, Fragment::None) {
        let may_be_ours = layers.protocol == UDP || config.is_tunnel_protocol(layers.protocol);
        return if may_be_ours { Verdict::Fragment } else { Verdict::OtherIp };
    }
    match layers.protocol {
        UDP => udp(frame, layers, config, endpoints),
        TCP => tcp(frame, layers, config, endpoints),
        protocol if config.is_tunnel_protocol(protocol) => Verdict::Tunnel,
        _ => Verdict::OtherIp,
    }
}

#[inline(always)]
fn tcp<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    layers: &Layers,
    config: &Config,
    endpoints: &E,
) -> Verdict {
    let matters = Matters::of(TCP, layers, endpoints);
    if !matters.any() {
        return Verdict::OtherTcp;
    }
    let (with_data, without) = if config.is_sip(layers.src_port, layers.dst_port) {
        (Verdict::SipTcp, Verdict::SipTcpEmpty)
    } else if config.is_tls(layers.src_port, layers.dst_port) {
        (Verdict::SipTls, Verdict::SipTcpEmpty)
    } else if config.is_carrier(layers.src_port, layers.dst_port)
        || is_carrier(frame, layers, matters, config, endpoints)
    {
        (Verdict::Tunnel, Verdict::OtherTcp)
    } else {
        return Verdict::OtherTcp;
    };
    let Some(data_offset) = frame.be8(layers.transport + 12) else { return Verdict::Truncated };
    let header_len = u16::from(data_offset >> 4) * 4;
    if header_len < 20 || header_len > layers.transport_len {
        return Verdict::Malformed;
    }
    if header_len == layers.transport_len {
        return without;
    }
    // Some speak SIP in clear there.
    if matches!(with_data, Verdict::SipTls) && is_text(frame, layers.transport + usize::from(header_len)) {
        return Verdict::SipTcp;
    }
    with_data
}

/// Do four octets look like text? A TLS record never does, as its second octet is 3; a segment that begins inside of one
/// does once in twenty.
#[inline(always)]
fn is_text<B: Bytes + ?Sized>(frame: &B, at: usize) -> bool {
    const ONES: u32 = 0x0101_0101;
    const TOPS: u32 = 0x8080_8080;
    const FIRST: u32 = b'\t' as u32;
    let Some(octets) = frame.be32(frame.forget(at)) else { return false };
    // No octet has its top bit set, and none is below FIRST: no lane borrows.
    octets & TOPS == 0 && octets.wrapping_sub(FIRST * ONES) & TOPS == 0
}

#[inline(always)]
fn udp<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    layers: &Layers,
    config: &Config,
    endpoints: &E,
) -> Verdict {
    let matters = Matters::of(UDP, layers, endpoints);
    if matters.any() {
        if config.is_sip(layers.src_port, layers.dst_port) {
            return Verdict::SipUdp;
        }
        if config.is_tunnel(layers.src_port, layers.dst_port) {
            return Verdict::Tunnel;
        }
    }
    // The rule before the table: where the rule suffices, the table cannot change the verdict, and a look-up
    // costs as much as everything up to here.
    let allowed = config.media_rule == MediaRule::Anything as u8
        || (config.media_rule == MediaRule::Range as u8
            && config.in_media_range(layers.src_port)
            && config.in_media_range(layers.dst_port));
    let shape = media_shape(frame, layers);
    let known =
        (allowed && !matches!(shape, Shape::Neither)) || is_announced(frame, layers, matters, endpoints);
    match shape {
        _ if !known => Verdict::OtherUdp,
        Shape::Rtp => Verdict::Rtp,
        Shape::Rtcp => Verdict::Rtcp,
        Shape::Neither => Verdict::MediaOther,
    }
}

/// Which of a datagram's ports may mean anything. Nearly every frame that is not ours has none, and is done with.
#[derive(Clone, Copy)]
struct Matters {
    src: bool,
    dst: bool,
}

impl Matters {
    #[inline(always)]
    fn of<E: Endpoints>(protocol: u8, layers: &Layers, endpoints: &E) -> Self {
        let matters = |port| endpoints.role(protocol, port).matters();
        Self { src: matters(layers.src_port), dst: matters(layers.dst_port) }
    }

    #[inline(always)]
    fn any(self) -> bool {
        self.src | self.dst
    }
}

#[inline(always)]
fn is_announced<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    layers: &Layers,
    matters: Matters,
    endpoints: &E,
) -> bool {
    (matters.dst && destination(frame, layers).is_some_and(|key| endpoints.is_announced(&key)))
        || (matters.src && source(frame, layers).is_some_and(|key| endpoints.is_announced(&key)))
}

#[inline(always)]
fn is_carrier<B: Bytes + ?Sized, E: Endpoints>(
    frame: &B,
    layers: &Layers,
    matters: Matters,
    config: &Config,
    endpoints: &E,
) -> bool {
    config.follows_carriers()
        && ((matters.dst && destination(frame, layers).is_some_and(|key| endpoints.is_carrier(&key)))
            || (matters.src && source(frame, layers).is_some_and(|key| endpoints.is_carrier(&key))))
}

/// The source as a key of the endpoint map.
#[inline(always)]
pub fn source<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Option<EndpointKey> {
    endpoint(frame, layers, if layers.v6 { 8 } else { 12 }, layers.src_port)
}

/// The destination as a key of the endpoint map.
#[inline(always)]
pub fn destination<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Option<EndpointKey> {
    endpoint(frame, layers, if layers.v6 { 24 } else { 16 }, layers.dst_port)
}

#[inline(always)]
fn endpoint<B: Bytes + ?Sized>(frame: &B, layers: &Layers, field: usize, port: u16) -> Option<EndpointKey> {
    let at = layers.ip + field;
    let address = if layers.v6 {
        [
            frame.be32(at)?.to_be(),
            frame.be32(at + 4)?.to_be(),
            frame.be32(at + 8)?.to_be(),
            frame.be32(at + 12)?.to_be(),
        ]
    } else {
        [0, 0, 0xffff_u32.to_be(), frame.be32(at)?.to_be()]
    };
    Some(EndpointKey { address, port: u32::from(port) })
}

/// What the payload of a UDP datagram could be, by the ranges of RFC 7983 and RFC 5761.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Rtp,
    Rtcp,
    Neither,
}

/// Length of the fixed RTP header (RFC 3550, 5.1).
pub const RTP_HEADER: u16 = 12;
const UDP_HEADER: u16 = 8;

#[inline(always)]
fn media_shape<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> Shape {
    let payload = layers.transport + usize::from(UDP_HEADER);
    let payload_len = layers.transport_len - UDP_HEADER;
    let Some(first) = frame.be16(payload) else { return Shape::Neither };
    if first >> 14 != 2 {
        return Shape::Neither;
    }
    match first & 0xff {
        // RFC 5761, 4: these payload types with the marker set are RTCP.
        192..=223 if payload_len >= 8 => Shape::Rtcp,
        192..=223 => Shape::Neither,
        _ => {
            let contributors = (first >> 8) & 0x0f;
            // The whole fixed header must be there to be copied, and the claimed one must fit.
            if payload_len < RTP_HEADER + contributors * 4 || frame.be32(payload + 8).is_none() {
                return Shape::Neither;
            }
            Shape::Rtp
        }
    }
}

/// Longest RTP payload that makes its packet short: a telephone event (RFC 4733, 2.3), comfort noise (RFC 3389) of
/// three coefficients.
const SHORT_PAYLOAD: u16 = 4;
/// What a header extension (RFC 8285) is taken to be at most, header and all, where there is one.
const SHORT_EXTENSION: u16 = 16;

/// Is this datagram, classified as RTP, so short that it travels whole?
///
/// Its payload may be an event rather than sound, which has to be read and not only timed. Speech is longer: ten
/// milliseconds of G.729 are ten bytes.
#[inline(always)]
pub fn is_short_rtp<B: Bytes + ?Sized>(frame: &B, layers: &Layers) -> bool {
    const LONGEST: u16 = UDP_HEADER + RTP_HEADER + 15 * 4 + SHORT_EXTENSION + SHORT_PAYLOAD;
    // Of most media the length alone decides.
    if layers.transport_len > LONGEST {
        return false;
    }
    let Some(first) = frame.be8(layers.transport + usize::from(UDP_HEADER)) else { return false };
    let contributors = u16::from(first & 0x0f) * 4;
    let extension = if first & 0x10 == 0 { 0 } else { SHORT_EXTENSION };
    layers.transport_len <= UDP_HEADER + RTP_HEADER + contributors + extension + SHORT_PAYLOAD
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
