//! How a datagram was seen: all that may differ between two copies of one packet, and no part of what it is.

use std::fmt;

/// Where a frame was captured: the index of the interface in the source's list (of the command line, or of the pcapng file),
/// and whether the frame was leaving the host there (live, egress) or arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Tap(u16);

impl Tap {
    /// From index and direction. Interfaces beyond 32,767 are one.
    pub fn new(interface: u16, egress: bool) -> Self {
        Self(interface.min(u16::MAX >> 1) << 1 | u16::from(egress))
    }

    /// Index of the interface.
    pub const fn interface(self) -> u16 {
        self.0 >> 1
    }

    /// Leaving the host there?
    pub const fn is_egress(self) -> bool {
        self.0 & 1 != 0
    }
}

/// VLAN identifiers, outermost first. Priority bits are dropped: a switch may rewrite them without the frame being another
/// tap's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Vlans([u16; 2]);

impl Vlans {
    const ID: u16 = 0x0fff;
    /// There is a tag: an identifier may be 0.
    const IS_TAGGED: u16 = 1 << 12;

    /// From tag control information; the inner tag is that of a frame with two.
    pub fn from_tci(outer: Option<u16>, inner: Option<u16>) -> Self {
        Self([outer, inner].map(|tci| tci.map_or(0, |tci| Self::IS_TAGGED | tci & Self::ID)))
    }

    /// Those that there are.
    pub fn ids(self) -> impl Iterator<Item = u16> {
        self.0.into_iter().filter(|tag| tag & Self::IS_TAGGED != 0).map(|tag| tag & Self::ID)
    }
}

/// What carried a datagram, one step of an [`Encapsulation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Layer {
    /// 802.1Q or 802.1ad, outside of another encapsulation.
    Vlan = 1,
    /// MPLS label stack (RFC 3032).
    Mpls,
    /// PPP over Ethernet (RFC 2516).
    Pppoe,
    /// IP in IP, any pair of versions (RFC 2003, 2473, 4213).
    IpIp,
    /// GRE (RFC 2784, 2890).
    Gre,
    /// ERSPAN without a header of its own.
    Erspan1,
    /// ERSPAN type II.
    Erspan2,
    /// ERSPAN type III.
    Erspan3,
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GTP-U (3GPP TS 29.281).
    Gtp,
    /// TaZmen Sniffer Protocol.
    Tzsp,
    /// L2TP data (RFC 2661).
    L2tp,
    /// Teredo (RFC 4380).
    Teredo,
    /// HEP version 3.
    Hep,
    /// Remote capture protocol of libpcap, over TCP or UDP.
    Rpcap,
}

impl Layer {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Vlan,
        Self::Mpls,
        Self::Pppoe,
        Self::IpIp,
        Self::Gre,
        Self::Erspan1,
        Self::Erspan2,
        Self::Erspan3,
        Self::Vxlan,
        Self::Geneve,
        Self::Gtp,
        Self::Tzsp,
        Self::L2tp,
        Self::Teredo,
        Self::Hep,
        Self::Rpcap,
    ];

    /// The layer of that word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == word)
    }

    /// The word for it in a path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vlan => "vlan",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
            Self::IpIp => "ipip",
            Self::Gre => "gre",
            Self::Erspan1 => "erspan1",
            Self::Erspan2 => "erspan2",
            Self::Erspan3 => "erspan3",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gtp => "gtp",
            Self::Tzsp => "tzsp",
            Self::L2tp => "l2tp",
            Self::Teredo => "teredo",
            Self::Hep => "hep",
            Self::Rpcap => "rpcap",
        }
    }

    /// Does it carry captures, and nothing else? Then whatever comes in it was captured before.
    pub const fn is_for_captures(self) -> bool {
        matches!(self, Self::Rpcap | Self::Hep | Self::Tzsp | Self::Erspan1 | Self::Erspan2 | Self::Erspan3)
    }

    /// Does tshark 4.0 open it unasked, so that what is inside counts in the raw ledger?
    pub const fn is_opened_by_tshark(self) -> bool {
        !matches!(self, Self::Hep | Self::Rpcap)
    }
}

/// The encapsulations around a datagram, outermost first: a path of at most twelve layers in one word, five bits
/// each, the innermost in the lowest. A VLAN tag directly around the datagram is evidence of its own
/// ([`Evidence::vlans`]) and no layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Encapsulation(u64);

impl Encapsulation {
    /// No encapsulation at all.
    pub const NONE: Self = Self(0);
    /// Layers that fit.
    pub const MAX_LAYERS: usize = 12;
    const BITS: usize = 5;

    /// This path with one more layer inside; `None` if it is full.
    #[must_use]
    pub const fn with(self, layer: Layer) -> Option<Self> {
        const FULL: usize = Encapsulation::BITS * (Encapsulation::MAX_LAYERS - 1);
        if self.0 >> FULL != 0 { None } else { Some(Self(self.0 << Self::BITS | layer as u64)) }
    }

    /// What of this path is around `inner`, if that is its inner part: all of it, if not.
    #[must_use]
    pub fn around(self, inner: Self) -> Self {
        let bits = Self::BITS * inner.layers().count();
        let is_inner_part = self.0 & ((1 << bits) - 1) == inner.0;
        if is_inner_part { Self(self.0 >> bits) } else { self }
    }

    /// The word: at most 60 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Is there none?
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The layers, outermost first.
    pub fn layers(self) -> impl Iterator<Item = Layer> {
        (0..Self::MAX_LAYERS)
            .rev()
            .map(move |at| (self.0 >> (at * Self::BITS)) & ((1 << Self::BITS) - 1))
            .filter_map(|number| Layer::ALL.into_iter().find(|layer| *layer as u64 == number))
    }

    /// The same without tags around a tunnel.
    #[must_use]
    pub fn without_vlans(self) -> Self {
        let tunnels = self.layers().filter(|layer| *layer != Layer::Vlan);
        tunnels.fold(Self::NONE, |path, layer| path.with(layer).unwrap_or(path))
    }

    /// Is `layer` one of them?
    pub fn has(self, layer: Layer) -> bool {
        self.layers().any(|each| each == layer)
    }

    /// Would tshark 4.0 have found the datagram by itself?
    pub fn is_opened_by_tshark(self) -> bool {
        self.is_none() || self.layers().all(Layer::is_opened_by_tshark)
    }
}

impl fmt::Display for Encapsulation {
    /// `none`, or `vlan/gre/erspan2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none");
        }
        for (index, layer) in self.layers().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            f.write_str(layer.name())?;
        }
        Ok(())
    }
}

/// Which carrier a tunnelled datagram came in: an index into the decoder's list of carriers (who sends what to
/// whom, on which port), 0 if there was none. Two sessions of one encapsulation are two taps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Carrier(pub u16);

impl Carrier {
    /// Nothing carried it.
    pub const NONE: Self = Self(0);
}

/// How a datagram was seen. Everything that may differ between two copies of one packet. It is laid out as `words`
/// says it, so that these are four loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Evidence {
    /// Encapsulation path.
    pub encapsulation: Encapsulation,
    /// Destination MAC of the frame directly around it, which in a tunnel is the inner one; zero where there is none.
    pub dst_mac: [u8; 6],
    /// Where.
    pub tap: Tap,
    /// Source MAC, likewise.
    pub src_mac: [u8; 6],
    /// What carried it.
    pub carrier: Carrier,
    /// VLAN tags.
    pub vlans: Vlans,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class octet.
    pub tos: u8,
    /// IPv4 identification, or the lower half of the IPv6 flow label.
    pub ip_id: u16,
}

impl Evidence {
    /// By how much the IP ID, the only field that is the packet's own and not its tap's, is shifted in the last word.
    pub(crate) const IP_ID: u32 = 48;

    /// All of it in words, for comparing it with every packet's.
    #[inline]
    pub(crate) fn words(&self) -> [u64; 4] {
        let Self { encapsulation, dst_mac, tap, src_mac, carrier, vlans, ttl, tos, ip_id } = *self;
        let mac = |[a, b, c, d, e, f]: [u8; 6]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let Vlans([outer, inner]) = vlans;
        let tags = u64::from(outer) | u64::from(inner) << 16;
        [
            encapsulation.0,
            mac(dst_mac) | u64::from(tap.0) << 48,
            mac(src_mac) | u64::from(carrier.0) << 48,
            tags | u64::from(ttl) << 32 | u64::from(tos) << 40 | u64::from(ip_id) << Self::IP_ID,
        ]
    }

    /// What has these words.
    #[expect(clippy::cast_possible_truncation, reason = "takes the fields out of the words")]
    pub(crate) fn of_words([path, to, from, rest]: [u64; 4]) -> Self {
        let mac = |word: u64| word.to_le_bytes().first_chunk().copied().unwrap_or_default();
        Self {
            encapsulation: Encapsulation(path),
            dst_mac: mac(to),
            tap: Tap((to >> 48) as u16),
            src_mac: mac(from),
            carrier: Carrier((from >> 48) as u16),
            vlans: Vlans([rest as u16, (rest >> 16) as u16]),
            ttl: (rest >> 32) as u8,
            tos: (rest >> 40) as u8,
            ip_id: (rest >> Self::IP_ID) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_from_the_outside_in_and_is_bounded() {
        let path = [Layer::Vlan, Layer::Gre, Layer::Erspan2]
            .into_iter()
            .try_fold(Encapsulation::NONE, Encapsulation::with)
            .unwrap();
        assert_eq!(path.to_string(), "vlan/gre/erspan2");
        assert_eq!(Encapsulation::NONE.to_string(), "none");
        assert!(path.has(Layer::Gre) && !path.has(Layer::Rpcap) && path.is_opened_by_tshark());
        let full = (0..Encapsulation::MAX_LAYERS)
            .try_fold(Encapsulation::NONE, |path, _| path.with(Layer::Rpcap))
            .unwrap();
        assert_eq!((full.layers().count(), full.with(Layer::Gre)), (12, None));
        assert!(!full.is_opened_by_tshark());
    }

    #[test]
    fn what_is_around_a_path_is_what_only_the_longer_one_has() {
        let path = |layers: &[Layer]| {
            layers.iter().copied().try_fold(Encapsulation::NONE, Encapsulation::with).unwrap()
        };
        let long = path(&[Layer::Rpcap, Layer::Gre]);
        assert_eq!(long.around(path(&[Layer::Gre])), path(&[Layer::Rpcap]));
        assert_eq!((long.around(Encapsulation::NONE), long.around(long)), (long, Encapsulation::NONE));
        assert_eq!(long.around(path(&[Layer::Rpcap])), long);
    }

    #[test]
    fn a_tap_and_its_tags_are_told_from_their_words() {
        for interface in [0, 1, 32_766, 32_767] {
            for egress in [false, true] {
                let tap = Tap::new(interface, egress);
                assert_eq!((tap.interface(), tap.is_egress()), (interface, egress));
            }
        }
        assert_eq!(Tap::new(u16::MAX, true), Tap::new(32_767, true));
        let ids = |outer, inner| Vlans::from_tci(outer, inner).ids().collect::<Vec<_>>();
        assert_eq!((ids(None, None), ids(Some(0), None)), (vec![], vec![0]));
        assert_eq!(ids(Some(0xafff), Some(7)), [0xfff, 7]);
    }

    #[test]
    fn every_layer_survives_the_word() {
        for layer in Layer::ALL {
            let path = Encapsulation::NONE.with(layer).unwrap();
            assert_eq!(path.layers().collect::<Vec<_>>(), [layer]);
        }
    }
}
