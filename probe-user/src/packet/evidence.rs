//! How a datagram was seen: all that may differ between two copies of one packet, and no part of what it is.

use std::fmt;

/// Where a frame was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tap {
    /// Index of the interface in the source's list: of the command line, or of the pcapng file.
    pub interface: u16,
    /// Leaving the host there (live, egress), or arriving.
    pub egress: bool,
}

/// VLAN identifiers, outermost first; `None` where there is no such tag. Priority bits are dropped: a switch
/// may rewrite them without the frame being another tap's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vlans {
    /// Outer tag, or the only one.
    pub outer: Option<u16>,
    /// Inner tag.
    pub inner: Option<u16>,
}

impl Vlans {
    /// From tag control information.
    pub fn from_tci(outer: Option<u16>, inner: Option<u16>) -> Self {
        Self { outer: outer.map(|tci| tci & 0x0fff), inner: inner.map(|tci| tci & 0x0fff) }
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

    /// The path that has this word.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
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
pub struct Carrier(pub u16);

impl Carrier {
    /// Nothing carried it.
    pub const NONE: Self = Self(0);
}

/// How a datagram was seen. Everything that may differ between two copies of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where.
    pub tap: Tap,
    /// Destination MAC of the frame directly around it, which in a tunnel is the inner one; zero where there is none.
    pub dst_mac: [u8; 6],
    /// Source MAC, likewise.
    pub src_mac: [u8; 6],
    /// VLAN tags.
    pub vlans: Vlans,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class octet.
    pub tos: u8,
    /// IPv4 identification, or the lower half of the IPv6 flow label.
    pub ip_id: u16,
    /// Encapsulation path.
    pub encapsulation: Encapsulation,
    /// What carried it.
    pub carrier: Carrier,
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
    fn every_layer_survives_the_word() {
        for layer in Layer::ALL {
            let path = Encapsulation::NONE.with(layer).unwrap();
            assert_eq!(path.layers().collect::<Vec<_>>(), [layer]);
        }
    }
}
