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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_in_every_slot_and_nowhere_else() {
        let config = Config {
            sip_ports: [5060, 5061, 1, 65_535, 0x8000, 0x7fff, 256, 0],
            tls_ports: [5061, 5060, 0, 0],
            ..Config::DEFAULT
        };
        for port in 0..=u16::MAX {
            let is_sip = port != 0 && config.sip_ports.contains(&port);
            assert_eq!(config.is_sip(port, 9), is_sip, "source {port}");
            assert_eq!(config.is_sip(9, port), is_sip, "destination {port}");
            assert_eq!(config.is_sip(port, 0), is_sip, "source {port}, destination 0");
            let is_tls = port == 5060 || port == 5061;
            assert_eq!(config.is_tls(port, 9), is_tls, "source {port}");
        }
    }

    #[test]
    fn no_port_matches_an_empty_list() {
        let config = Config { sip_ports: [0; 8], tls_ports: [0; 4], ..Config::DEFAULT };
        for port in 0..=u16::MAX {
            assert!(!config.is_sip(port, port) && !config.is_tls(port, port), "{port}");
        }
    }

    #[test]
    fn the_image_has_every_field_where_the_kernel_reads_it() {
        let mut config = Config { rtp_low: 0x1122, rtp_high: 0x3344, media_rule: 2, ..Config::DEFAULT };
        config.ifindex[15] = 0xdead_beef;
        let image = config.to_ne_bytes();
        assert_eq!(image[60..64], 0xdead_beef_u32.to_ne_bytes());
        assert_eq!(image[64..66], 5060_u16.to_ne_bytes());
        assert_eq!(image[80..82], 5061_u16.to_ne_bytes());
        assert_eq!(image[88..90], 0x1122_u16.to_ne_bytes());
        assert_eq!(image[90..92], 0x3344_u16.to_ne_bytes());
        assert_eq!(image[92..96], [2, 0, 0, 0]);
    }
}
