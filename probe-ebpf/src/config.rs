//! The configuration that userspace writes into the BPF object before it is loaded, and map keys.

/// Interfaces one probe can watch. Sixteen taps of one gateway; a record names its tap in four bits.
pub const MAX_INTERFACES: usize = 16;
/// SIP ports one probe can watch, UDP and TCP alike.
pub const MAX_SIP_PORTS: usize = 8;
/// Ports whose TCP traffic is counted as encrypted signalling.
pub const MAX_TLS_PORTS: usize = 4;
/// CPUs that can each have a ring of their own (the size of the outer map).
pub const MAX_CPUS: usize = 256;
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
    /// Lowest port of the media range, inclusive.
    pub rtp_low: u16,
    /// Highest port of the media range, inclusive.
    pub rtp_high: u16,
    /// A [`MediaRule`] as its number.
    pub media_rule: u8,
    /// Always zero; keeps the size explicit.
    pub reserved: [u8; 3],
}

impl Config {
    /// The defaults of the command line, without interfaces.
    pub const DEFAULT: Self = Self {
        ifindex: [0; MAX_INTERFACES],
        sip_ports: [5060, 5080, 0, 0, 0, 0, 0, 0],
        tls_ports: [5061, 0, 0, 0],
        rtp_low: 1024,
        rtp_high: 65_535,
        media_rule: MediaRule::Range as u8,
        reserved: [0; 3],
    };

    /// The memory image of this structure: what the loader writes over the object's default.
    pub fn to_ne_bytes(&self) -> [u8; size_of::<Self>()] {
        let Self { ifindex, sip_ports, tls_ports, rtp_low, rtp_high, media_rule, reserved } = self;
        let mut image = [0; size_of::<Self>()];
        let words = ifindex.iter().flat_map(|v| v.to_ne_bytes());
        let ports =
            sip_ports.iter().chain(tls_ports).chain([rtp_low, rtp_high]).flat_map(|v| v.to_ne_bytes());
        let rest = [*media_rule].into_iter().chain(*reserved);
        for (to, from) in image.iter_mut().zip(words.chain(ports).chain(rest)) {
            *to = from;
        }
        image
    }

    /// Is `port` one that carries SIP in clear?
    #[inline(always)]
    pub fn is_sip(&self, port: u16) -> bool {
        port != 0 && self.sip_ports.iter().any(|&p| p == port)
    }

    /// Is `port` one that carries SIP over TLS?
    #[inline(always)]
    pub fn is_tls(&self, port: u16) -> bool {
        port != 0 && self.tls_ports.iter().any(|&p| p == port)
    }

    /// Is `port` inside the media range?
    #[inline(always)]
    pub fn in_media_range(&self, port: u16) -> bool {
        self.rtp_low <= port && port <= self.rtp_high
    }
}

const _: () = {
    // Four-byte fields first, then two, then one: no padding anywhere, which `to_ne_bytes` relies on.
    assert!(size_of::<Config>() == 4 * MAX_INTERFACES + 2 * (MAX_SIP_PORTS + MAX_TLS_PORTS + 2) + 4);
    assert!(size_of::<EndpointKey>() == 20);
};

/// Key of the endpoint map: an address and UDP port that somebody announced in SDP.
///
/// IPv4 is stored as the IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2). Every byte is significant, as the
/// kernel hashes the key as memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct EndpointKey {
    /// Address in network byte order.
    pub address: [u32; 4],
    /// Port in host byte order; 32 bits so that the key has no padding.
    pub port: u32,
}

impl EndpointKey {
    /// The key as the words that the kernel hashes.
    pub const fn words(&self) -> [u32; 5] {
        let [a, b, c, d] = self.address;
        [a, b, c, d, self.port]
    }
}
