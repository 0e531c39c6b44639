//! The configuration that userspace writes into the BPF object before it is loaded, and map keys.

use crate::parse::{GRE, IPV4_IN_IP, IPV6_IN_IP, TCP};
use crate::record::MAX_PACKET;

/// Interfaces one probe can watch. Sixteen taps of one gateway; a record names its tap in four bits.
pub const MAX_INTERFACES: usize = 16;
/// Receive queues of an interface that can each have a socket in mirror mode.
pub const MAX_QUEUES: u32 = 64;
/// Entries of the socket map: [`MAX_QUEUES`] for each interface.
pub const SOCKET_ENTRIES: usize = MAX_INTERFACES * MAX_QUEUES as usize;
/// SIP ports one probe can watch, UDP and TCP alike.
pub const MAX_SIP_PORTS: usize = 8;
/// Ports whose TCP traffic is counted as encrypted signalling.
pub const MAX_TLS_PORTS: usize = 4;
/// UDP ports one probe can take for tunnels.
pub const MAX_TUNNEL_PORTS: usize = 12;
/// TCP ports one probe can take for carriers of captured frames.
pub const MAX_CARRIER_PORTS: usize = 4;
/// CPUs that can each have a ring of their own (the size of the outer map).
pub const MAX_CPUS: usize = 256;
/// Greatest [`Config::snap`].
#[expect(clippy::cast_possible_truncation, reason = "asserted below")]
pub const MAX_SNAP: u16 = MAX_PACKET as u16;
/// Least [`Config::snap`]: where the headers of most SIP messages are whole. Everything that tells a call is in them.
pub const MIN_SNAP: u16 = 512;
/// Endpoints the kernel remembers: two per announced media line (RTP and RTCP), so 32 k lines.
pub const MAX_ENDPOINTS: usize = 65_536;

/// What the kernel takes for media besides announced endpoints, which always count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MediaRule {
    /// Announced endpoints only.
    Announced = 0,
    /// Also RTP-looking UDP with both ports in the configured range.
    Range = 1,
    /// Also RTP-looking UDP on any port.
    Anything = 2,
}

/// Tunnels that are known by a number of the network or link layer, not by a port; bits of [`Config::tunnels`].
pub mod tunnels {
    /// IP protocols: GRE (47), IPv4 in IP (4), IPv6 in IP (41), fragments of them included.
    pub const PROTOCOLS: u8 = 1;
    /// Ethertypes: MPLS (0x8847, 0x8848) and PPPoE sessions (0x8864).
    pub const LABELS: u8 = 2;
    /// Both.
    pub const ALL: u8 = PROTOCOLS | LABELS;
    /// A tunnel is looked into, and what is certainly not ours is none: see [`crate::tunnel`].
    pub const LOOK_INSIDE: u8 = 4;
}

/// Constants of one run. Lives in the object's read-only data, so the verifier sees the values and
/// removes the branches they rule out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Interface index of each tap; zero where there is none.
    pub ifindex: [u32; MAX_INTERFACES],
    /// Ports that carry SIP in clear; zero where there is none.
    pub sip_ports: [u16; MAX_SIP_PORTS],
    /// TCP ports that carry SIP over TLS; zero where there is none.
    pub tls_ports: [u16; MAX_TLS_PORTS],
    /// UDP ports that carry tunnels; zero where there is none.
    pub tunnel_ports: [u16; MAX_TUNNEL_PORTS],
    /// TCP ports that carry captured frames (rpcap, HEP); zero where there is none.
    pub carrier_ports: [u16; MAX_CARRIER_PORTS],
    /// Lowest port of the media range, inclusive.
    pub rtp_low: u16,
    /// Highest port of the media range, inclusive.
    pub rtp_high: u16,
    /// Bytes taken of a frame that is taken whole, from [`MIN_SNAP`] to [`MAX_SNAP`].
    pub snap: u16,
    /// A [`MediaRule`] as its number.
    pub media_rule: u8,
    /// Which of [`tunnels`] count, as bits.
    pub tunnels: u8,
    /// Media sessions of [buckets](crate::flow) below this are left out, whatever the load.
    pub sampled_below: u8,
    /// Always zero; keeps the size explicit.
    pub reserved: [u8; 3],
}

impl Config {
    /// The defaults of the command line, without interfaces.
    pub const DEFAULT: Self = Self {
        ifindex: [0; MAX_INTERFACES],
        sip_ports: [5060, 5080, 0, 0, 0, 0, 0, 0],
        tls_ports: [5061, 0, 0, 0],
        // VXLAN by IANA and as Linux had it first, Geneve, GTP-U; TZSP, L2TP, Teredo, HEP; rpcap over UDP.
        tunnel_ports: [4789, 8472, 6081, 2152, 37_008, 1701, 3544, 9060, 2002, 0, 0, 0],
        // rpcap, HEP.
        carrier_ports: [2002, 9060, 0, 0],
        rtp_low: 1024,
        rtp_high: 65_535,
        snap: MAX_SNAP,
        media_rule: MediaRule::Range as u8,
        tunnels: tunnels::ALL,
        sampled_below: 0,
        reserved: [0; 3],
    };

    /// The same for what is no tunnel after all: a frame whose tunnel was refused is judged once more, with this.
    #[must_use]
    pub const fn without_tunnels(self) -> Self {
        Self {
            tunnel_ports: [0; MAX_TUNNEL_PORTS],
            carrier_ports: [0; MAX_CARRIER_PORTS],
            tunnels: 0,
            ..self
        }
    }

    /// The memory image of this structure: what the loader writes over the object's default.
    pub fn to_ne_bytes(&self) -> [u8; size_of::<Self>()] {
        let Self { ifindex, sip_ports, tls_ports, tunnel_ports, carrier_ports, .. } = self;
        let Self { rtp_low, rtp_high, snap, media_rule, tunnels, sampled_below, reserved, .. } = self;
        let mut image = [0; size_of::<Self>()];
        let words = ifindex.iter().flat_map(|v| v.to_ne_bytes());
        let ports = sip_ports.iter().chain(tls_ports).chain(tunnel_ports).chain(carrier_ports);
        let ports = ports.chain([rtp_low, rtp_high, snap]).flat_map(|v| v.to_ne_bytes());
        let rest = [*media_rule, *tunnels, *sampled_below].into_iter().chain(*reserved);
        for (to, from) in image.iter_mut().zip(words.chain(ports).chain(rest)) {
            *to = from;
        }
        image
    }

    /// Is one of the ports one that carries SIP in clear?
    #[inline(always)]
    pub fn is_sip(&self, src: u16, dst: u16) -> bool {
        let [p0, p1, p2, p3, p4, p5, p6, p7] = self.sip_ports;
        let second = lanes([p4, p5, p6, p7]);
        // With four ports or fewer the verifier knows that this is zero, and removes the rest.
        (second != 0 && holds_either(second, src, dst)) || holds_either(lanes([p0, p1, p2, p3]), src, dst)
    }

    /// Is one of the ports one that carries SIP over TLS?
    #[inline(always)]
    pub fn is_tls(&self, src: u16, dst: u16) -> bool {
        holds_either(lanes(self.tls_ports), src, dst)
    }

    /// Is one of the UDP ports one that carries a tunnel?
    #[inline(always)]
    pub fn is_tunnel(&self, src: u16, dst: u16) -> bool {
        let [p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11] = self.tunnel_ports;
        let (second, third) = (lanes([p4, p5, p6, p7]), lanes([p8, p9, p10, p11]));
        holds_either(lanes([p0, p1, p2, p3]), src, dst)
            || (second != 0 && holds_either(second, src, dst))
            || (third != 0 && holds_either(third, src, dst))
    }

    /// Is one of the TCP ports one that carries captured frames?
    #[inline(always)]
    pub fn is_carrier(&self, src: u16, dst: u16) -> bool {
        holds_either(lanes(self.carrier_ports), src, dst)
    }

    /// Can there be connections that carry captured frames? None is learned where no control port is known.
    #[inline(always)]
    pub fn follows_carriers(&self) -> bool {
        lanes(self.carrier_ports) != 0
    }

    /// Is the IP protocol one that carries packets, and do such count?
    #[inline(always)]
    pub fn is_tunnel_protocol(&self, protocol: u8) -> bool {
        self.tunnels & tunnels::PROTOCOLS != 0 && matches!(protocol, IPV4_IN_IP | IPV6_IN_IP | GRE)
    }

    /// The same for the kernel, which looks into tunnels before it forwards them, if it forwards them at all.
    #[must_use]
    pub const fn looking_inside(self) -> Self {
        let tunnels = if self.tunnels == 0 { 0 } else { self.tunnels | tunnels::LOOK_INSIDE };
        Self { tunnels, ..self }
    }

    /// Are tunnels looked into?
    #[inline(always)]
    pub fn looks_inside(&self) -> bool {
        self.tunnels & tunnels::LOOK_INSIDE != 0
    }

    /// Do MPLS and PPPoE count?
    #[inline(always)]
    pub fn follows_labels(&self) -> bool {
        self.tunnels & tunnels::LABELS != 0
    }

    /// Is `port` inside the media range?
    #[inline(always)]
    pub fn in_media_range(&self, port: u16) -> bool {
        self.rtp_low <= port && port <= self.rtp_high
    }
}

/// Four ports side by side: one load.
#[inline(always)]
fn lanes([a, b, c, d]: [u16; 4]) -> u64 {
    u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48
}

/// Is one of the ports in a lane? Port zero never is: it marks an unused lane. All lanes are compared at once,
/// without a branch, as this is asked of every TCP and UDP frame: a lane is zero where its borrow reaches the
/// top bit that was not set before. (A lane above a zero one may be misread as zero too, never a lane below the
/// lowest match, so the answer for all lanes together is exact.)
#[inline(always)]
fn holds_either(lanes: u64, src: u16, dst: u16) -> bool {
    const ONES: u64 = 0x0001_0001_0001_0001;
    const TOPS: u64 = 0x8000_8000_8000_8000;
    let zero_lanes = |port: u16| {
        let difference = lanes ^ u64::from(port).wrapping_mul(ONES);
        difference.wrapping_sub(ONES) & !difference & TOPS
    };
    if src == 0 || dst == 0 {
        return (src != 0 && zero_lanes(src) != 0) || (dst != 0 && zero_lanes(dst) != 0);
    }
    zero_lanes(src) | zero_lanes(dst) != 0
}

/// Where the socket map has the socket of an interface's queue. `None` for a queue beyond the last.
#[inline(always)]
pub const fn socket_slot(interface: u8, queue: u32) -> Option<u32> {
    if interface as usize >= MAX_INTERFACES || queue >= MAX_QUEUES {
        return None;
    }
    Some(interface as u32 * MAX_QUEUES + queue)
}

const _: () = {
    // Four-byte fields first, then two, then one: no padding anywhere, which `to_ne_bytes` relies on.
    const PORTS: usize = MAX_SIP_PORTS + MAX_TLS_PORTS + MAX_TUNNEL_PORTS + MAX_CARRIER_PORTS + 2;
    assert!(size_of::<Config>() == 4 * MAX_INTERFACES + 2 * (PORTS + 1) + 6);
    assert!(MAX_PACKET <= u16::MAX as usize);
    assert!(size_of::<EndpointKey>() == 20);
    assert!(port_place(TCP, u16::MAX).0 as usize == PORT_WORDS - 1);
};

/// Words of the kernel's port map: a [`Role`] of two bits for each UDP port, then for each TCP port.
pub const PORT_WORDS: usize = 2 * 65_536 / 32;

/// Where the port map has the role of a port: the word's index, and how far up in it the two bits are.
#[inline(always)]
pub const fn port_place(protocol: u8, port: u16) -> (u32, u32) {
    let half = if protocol == TCP { 2048 } else { 0 };
    (half | (port >> 5) as u32, (port & 31) as u32 * 2)
}

/// What a port of UDP or TCP may mean to this probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(u64);

impl Role {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Somebody found while the probe runs may be at it.
    pub const FOUND: Self = Self(1);
    /// The configuration names it.
    pub const NAMED: Self = Self(2);
    /// Whatever it may be.
    pub const ANY: Self = Self(3);

    /// The role in a word of the port map, moved down to its lowest bits.
    #[inline(always)]
    #[must_use]
    pub const fn of_bits(word: u64) -> Self {
        Self(word & Self::ANY.0)
    }

    /// As it is in the port map.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// This role, and the other.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// May it mean anything?
    #[inline(always)]
    pub const fn matters(self) -> bool {
        self.0 != 0
    }

    /// May somebody be at it that was found?
    #[inline(always)]
    pub const fn is_found(self) -> bool {
        self.0 & Self::FOUND.0 != 0
    }

    /// Does the configuration name it?
    #[inline(always)]
    pub const fn is_named(self) -> bool {
        self.0 & Self::NAMED.0 != 0
    }
}

/// Key of the endpoint map: an address and UDP port that somebody announced in SDP, or an address and TCP port of a
/// connection that was found to carry captured frames ([`Self::of_carrier`]).
///
/// IPv4 is stored as the IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2). Every byte is significant, as the
/// kernel hashes the key as memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct EndpointKey {
    /// Address in network byte order.
    pub address: [u32; 4],
    /// Port in host byte order; 32 bits so that the key has no padding. Bit 16 tells TCP from UDP.
    pub port: u32,
}

impl EndpointKey {
    /// The same address and port, of TCP: a carrier learned while the probe runs.
    #[inline(always)]
    #[must_use]
    pub const fn of_carrier(self) -> Self {
        Self { port: self.port | 1 << 16, ..self }
    }

    /// The key as the words that the kernel hashes.
    pub const fn words(&self) -> [u32; 5] {
        let [a, b, c, d] = self.address;
        [a, b, c, d, self.port]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_in_every_slot_and_nowhere_else() {
        let config = Config {
            sip_ports: [5060, 5061, 1, 65_535, 0x8000, 0x7fff, 256, 0],
            tls_ports: [5061, 5060, 0, 0],
            tunnel_ports: [4789, 1, 65_535, 0x8000, 0, 256, 0x7fff, 0, 0, 0, 0, 9060],
            carrier_ports: [0, 0, 65_535, 2002],
            ..Config::DEFAULT
        };
        for port in 0..=u16::MAX {
            let is_sip = port != 0 && config.sip_ports.contains(&port);
            assert_eq!(config.is_sip(port, 9), is_sip, "source {port}");
            assert_eq!(config.is_sip(9, port), is_sip, "destination {port}");
            assert_eq!(config.is_sip(port, 0), is_sip, "source {port}, destination 0");
            let is_tls = port == 5060 || port == 5061;
            assert_eq!(config.is_tls(port, 9), is_tls, "source {port}");
            let is_tunnel = port != 0 && config.tunnel_ports.contains(&port);
            let is_carrier = port != 0 && config.carrier_ports.contains(&port);
            for (src, dst) in [(port, 9), (9, port), (port, 0)] {
                assert_eq!(config.is_tunnel(src, dst), is_tunnel, "{src} to {dst}");
                assert_eq!(config.is_carrier(src, dst), is_carrier, "{src} to {dst}");
            }
        }
    }

    #[test]
    fn no_port_matches_an_empty_list() {
        let config = Config { sip_ports: [0; 8], tls_ports: [0; 4], ..Config::DEFAULT }.without_tunnels();
        for port in 0..=u16::MAX {
            assert!(!config.is_sip(port, port) && !config.is_tls(port, port), "{port}");
            assert!(!config.is_tunnel(port, port) && !config.is_carrier(port, port), "{port}");
        }
    }

    #[test]
    fn every_queue_has_a_slot_of_its_own_and_none_is_beyond_the_map() {
        assert_eq!(socket_slot(0, 0), Some(0));
        assert_eq!(socket_slot(0, 63), Some(63));
        assert_eq!(socket_slot(1, 0), Some(64));
        assert_eq!(socket_slot(15, 63), u32::try_from(SOCKET_ENTRIES - 1).ok());
        assert_eq!((socket_slot(0, 64), socket_slot(16, 0)), (None, None));
    }

    #[test]
    fn every_port_of_either_protocol_has_a_place_of_its_own() {
        let mut words = crate::sample::vec![0_u64; PORT_WORDS];
        for protocol in [crate::parse::UDP, TCP] {
            for port in 0..=u16::MAX {
                let (word, shift) = port_place(protocol, port);
                assert!(!Role::of_bits(words[word as usize] >> shift).matters(), "{protocol} {port}");
                words[word as usize] |= Role::ANY.bits() << shift;
            }
        }
        assert!(words.iter().all(|word| *word == u64::MAX));
    }

    #[test]
    fn the_image_has_every_field_where_the_kernel_reads_it() {
        let mut config =
            Config { rtp_low: 0x1122, rtp_high: 0x3344, media_rule: 2, sampled_below: 9, ..Config::DEFAULT };
        config.ifindex[15] = 0xdead_beef;
        let image = config.to_ne_bytes();
        assert_eq!(image[60..64], 0xdead_beef_u32.to_ne_bytes());
        assert_eq!(image[64..66], 5060_u16.to_ne_bytes());
        assert_eq!(image[80..82], 5061_u16.to_ne_bytes());
        assert_eq!(image[88..90], 4789_u16.to_ne_bytes());
        assert_eq!(image[112..114], 2002_u16.to_ne_bytes());
        assert_eq!(image[120..122], 0x1122_u16.to_ne_bytes());
        assert_eq!(image[122..124], 0x3344_u16.to_ne_bytes());
        assert_eq!(image[124..126], 16_384_u16.to_ne_bytes());
        assert_eq!(image[126..132], [2, tunnels::ALL, 9, 0, 0, 0]);
    }
}
