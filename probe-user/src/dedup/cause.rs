//! From the difference between two copies to the reason why there are two.

use serde::{Serialize, Serializer};

use crate::packet::{Carrier, Evidence, Layer};

/// Why a packet was seen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Every byte equal: one point mirrored twice, or captured on two interfaces that share it.
    SamePoint,
    /// Only a MAC differs: two ports of one switch.
    L2Mirror,
    /// A VLAN tag is there in one and not, or another, in the other: trunk and access.
    Vlan,
    /// The TTL differs: before and after a router.
    Routed,
    /// The IP header was written anew, not forwarded: IP ID differs, TTL equal, and it was seen elsewhere, too.
    ReEmitted,
    /// The IP ID alone differs, at the same place: it was sent twice.
    SentTwice,
    /// One came inside an encapsulation: the capture's own transport was captured.
    Encapsulated,
    /// The network delivered some packets twice. A judgement on many, never on one: see [`super::stats`].
    Network,
}

impl Cause {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 8] = [
        Self::SamePoint,
        Self::L2Mirror,
        Self::Vlan,
        Self::Routed,
        Self::ReEmitted,
        Self::SentTwice,
        Self::Encapsulated,
        Self::Network,
    ];

    /// The label of reports and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::SamePoint => "same-point",
            Self::L2Mirror => "l2-mirror",
            Self::Vlan => "vlan",
            Self::Routed => "routed",
            Self::ReEmitted => "re-emitted",
            Self::SentTwice => "sent-twice",
            Self::Encapsulated => "encapsulated",
            Self::Network => "network",
        }
    }

    /// What it means, for a person without much experience.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::SamePoint => "the same frame was handed to the capture more than once",
            Self::L2Mirror => "two ports of one switch are mirrored, so each frame shows once per port",
            Self::Vlan => {
                "the capture sees both sides of a VLAN trunk, with and without (or with another) tag"
            }
            Self::Routed => "the capture sees the packet before and after a router",
            Self::ReEmitted => {
                "a device between two capture points writes the IP header anew and sends it on"
            }
            Self::SentTwice => {
                "sent twice with a new IP header, by the sender or something in its path: redundancy, not the capture"
            }
            Self::Encapsulated => "a copy travels inside a tunnel, usually the capture's own transport",
            Self::Network => {
                "some packets, not all, came twice at the same place, unevenly late: the network delivered them twice"
            }
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::SamePoint => "mirror one direction only, and capture on one interface, not on \"any\"",
            Self::L2Mirror => "mirror one of the two ports",
            Self::Vlan => "capture the untagged side only, or filter one VLAN",
            Self::Routed => "choose one side of the router for the capture",
            Self::ReEmitted => {
                "capture on one of the two taps only; the device between them explains the difference"
            }
            Self::SentTwice => {
                "ask whether the sender, or a redundant path after it, is meant to send everything twice"
            }
            Self::Encapsulated => "exclude the tunnel from the capture",
            Self::Network => {
                "look for a loop or a bonding fault: compare interface counters, and spanning tree's changes"
            }
        }
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

/// The set of evidence fields in which two copies differ. What one of them does not have (the MACs of a tunnel without
/// inner link layer, the IP header of a message that HEP tells of) is not compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Differs(u16);

impl Differs {
    const FIELDS: [&'static str; 10] = [
        "dst_mac",
        "src_mac",
        "vlan",
        "ttl",
        "tos",
        "ip_id",
        "encapsulation",
        "interface",
        "direction",
        "carrier",
    ];
    const DST_MAC: u16 = 1 << 0;
    const SRC_MAC: u16 = 1 << 1;
    const VLAN: u16 = 1 << 2;
    const TTL: u16 = 1 << 3;
    const TOS: u16 = 1 << 4;
    const IP_ID: u16 = 1 << 5;
    const ENCAPSULATION: u16 = 1 << 6;
    const INTERFACE: u16 = 1 << 7;
    const DIRECTION: u16 = 1 << 8;
    const CARRIER: u16 = 1 << 9;
    /// Set between signatures whose IP IDs mean something to each other; never shown.
    const IP_COMPARABLE: u16 = 1 << 15;
    /// Set between signatures of which one has no link layer, so that MACs and tags say nothing; never shown.
    const LINK_UNKNOWN: u16 = 1 << 14;
    const SHOWN: u16 = (1 << Self::FIELDS.len()) - 1;
    /// What shows that two frames were seen at two places.
    const PLACE: u16 = Self::DST_MAC
        | Self::SRC_MAC
        | Self::VLAN
        | Self::INTERFACE
        | Self::DIRECTION
        | Self::ENCAPSULATION
        | Self::CARRIER;

    pub(super) fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Names of the fields, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::FIELDS
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 & (1 << bit) != 0)
            .map(|(_, name)| name)
    }

    /// All but that one of them came in a tunnel.
    #[must_use]
    pub fn besides_tunnel(self) -> Self {
        Self(self.0 & !(Self::ENCAPSULATION | Self::CARRIER))
    }

    /// Do they not differ at all?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Do they show that two frames were seen at two places?
    pub(super) fn is_elsewhere(self) -> bool {
        self.has(Self::PLACE | Self::TTL)
    }

    fn has(self, field: u16) -> bool {
        self.0 & field != 0
    }

    /// Between two signatures; what IP IDs say is added by [`Self::with_ip_id`].
    pub(super) fn between(a: &Evidence, b: &Evidence) -> Self {
        let mut set = 0;
        let mut mark = |differs: bool, field: u16| set |= if differs { field } else { 0 };
        let none = [0; 6];
        let macs_differ = |a: [u8; 6], b: [u8; 6]| a != b && a != none && b != none;
        mark(macs_differ(a.dst_mac, b.dst_mac), Self::DST_MAC);
        mark(macs_differ(a.src_mac, b.src_mac), Self::SRC_MAC);
        let has_link = |seen: &Evidence| seen.dst_mac != none || seen.src_mac != none;
        let tunnels_differ = a.encapsulation.without_vlans() != b.encapsulation.without_vlans();
        mark(has_link(a) != has_link(b), Self::LINK_UNKNOWN);
        mark(has_link(a) == has_link(b) && a.vlans != b.vlans, Self::VLAN);
        // A tag outside of the same tunnel: the tunnel itself is seen on both sides of a trunk.
        mark(!tunnels_differ && a.encapsulation != b.encapsulation, Self::VLAN);
        // No IP packet travels with a TTL of zero: one that has it was told of, not carried.
        let has_ip = a.ttl != 0 && b.ttl != 0;
        mark(has_ip && a.ttl != b.ttl, Self::TTL);
        mark(has_ip && a.tos != b.tos, Self::TOS);
        mark(has_ip, Self::IP_COMPARABLE);
        mark(tunnels_differ, Self::ENCAPSULATION);
        mark(!tunnels_differ && a.carrier != b.carrier, Self::CARRIER);
        // Where a tunnel was seen says nothing of where its inside was.
        mark(!tunnels_differ && a.tap.interface() != b.tap.interface(), Self::INTERFACE);
        mark(!tunnels_differ && a.tap.is_egress() != b.tap.is_egress(), Self::DIRECTION);
        Self(set)
    }

    pub(super) fn with_ip_id(self, differs: bool) -> Self {
        let shown = self.0 & !Self::IP_COMPARABLE;
        Self(if differs && self.has(Self::IP_COMPARABLE) { shown | Self::IP_ID } else { shown })
    }

    /// How unlike two sightings are, for choosing the one that a copy resembles most. A tunnel changes nothing
    /// inside, so it weighs least; what a device does to a packet weighs more than where it was seen. A device that
    /// changes the tag, the TTL or the IP ID changes MACs too, which then weigh little. What cannot be compared weighs as
    /// much as what differs, or a tunnel without MACs would resemble everything.
    pub(super) fn distance(self) -> u32 {
        const WEIGHTS: [(u16, u32); 8] = [
            (Differs::ENCAPSULATION | Differs::CARRIER, 2),
            (Differs::INTERFACE, 1),
            (Differs::DIRECTION, 1),
            (Differs::TOS, 2),
            (Differs::VLAN, 3),
            (Differs::IP_ID, 4),
            (Differs::TTL, 4),
            (Differs::LINK_UNKNOWN, 4),
        ];
        let is_forwarded = self.has(Self::VLAN | Self::IP_ID | Self::TTL);
        let macs = match self.has(Self::DST_MAC | Self::SRC_MAC) {
            false => 0,
            true if is_forwarded => 1,
            true => 3,
        };
        WEIGHTS.into_iter().map(|(fields, weight)| if self.has(fields) { weight } else { 0 }).sum::<u32>()
            + macs
    }

    /// Without what is only for choosing.
    fn shown(self) -> Self {
        Self(self.0 & Self::SHOWN)
    }
}

impl Serialize for Differs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

/// Why there are two, and in what they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Why.
    pub cause: Cause,
    /// In what.
    pub differs: Differs,
    /// What one of them came in and the other did not: the innermost such layer that carries captures, else the
    /// innermost.
    pub layer: Option<Layer>,
    /// The innermost session around it: that of `layer`, or inside of it.
    pub carrier: Carrier,
}

impl Explanation {
    /// Differences compose: a frame that was routed has other MACs and often another VLAN, one that was
    /// re-emitted has other MACs. The label is that of the strongest: what a lesser device cannot do names the
    /// device. A switch does not touch the TTL or the IP ID, and a router keeps the IP ID. A new IP ID at the very same
    /// place shows no device at all: whoever sends to this place sent twice.
    pub(super) fn new(differs: Differs, original: &Evidence, copy: &Evidence) -> Self {
        let cause = if differs.has(Differs::ENCAPSULATION) {
            Cause::Encapsulated
        } else if differs.has(Differs::TTL) {
            Cause::Routed
        } else if differs.has(Differs::IP_ID) {
            if differs.has(Differs::PLACE) { Cause::ReEmitted } else { Cause::SentTwice }
        } else if differs.has(Differs::VLAN) {
            Cause::Vlan
        } else if differs.has(Differs::DST_MAC | Differs::SRC_MAC) {
            Cause::L2Mirror
        } else if differs.has(Differs::CARRIER) {
            Cause::Encapsulated
        } else {
            Cause::SamePoint
        };
        let (mut layer, mut carrier) = (None, Carrier::NONE);
        if cause == Cause::Encapsulated {
            // Of two, the one with more around it: the capture may well see a tunnel's copy first.
            let count = |seen: &Evidence| seen.encapsulation.layers().count();
            let (tunnelled, other) =
                if count(original) > count(copy) { (original, copy) } else { (copy, original) };
            // What both came in says nothing; of the rest, what carries captures says most.
            let path = |seen: &Evidence| seen.encapsulation.without_vlans();
            let added = path(tunnelled).around(path(other));
            layer = added.layers().filter(|layer| layer.is_for_captures()).last().or(added.layers().last());
            carrier = tunnelled.carrier;
        }
        Self { cause, differs: differs.shown(), layer, carrier }
    }
}

/// Why there are two, and in what they differ.
pub fn explain(original: &Evidence, copy: &Evidence) -> Explanation {
    let differs = Differs::between(original, copy).with_ip_id(original.ip_id != copy.ip_id);
    Explanation::new(differs, original, copy)
}

/// How unlike two sightings are: see [`explain`]. Zero if they are alike in everything.
pub fn distance(original: &Evidence, copy: &Evidence) -> u32 {
    Differs::between(original, copy).with_ip_id(original.ip_id != copy.ip_id).distance()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Encapsulation, Tap, Vlans};

    fn seen() -> Evidence {
        Evidence {
            tap: Tap::new(0, false),
            dst_mac: [2, 0, 0, 0, 0, 1],
            src_mac: [2, 0, 0, 0, 0, 2],
            vlans: Vlans::default(),
            ttl: 64,
            tos: 0xb8,
            ip_id: 0x1234,
            encapsulation: Encapsulation::NONE,
            carrier: Carrier::NONE,
        }
    }

    #[test]
    fn every_row_of_the_taxonomy_gets_its_label() {
        let tagged = Vlans::from_tci(Some(7), None);
        let elsewhere = Tap::new(1, false);
        let gre = Encapsulation::NONE.with(Layer::Gre).unwrap();
        let leaving = Tap::new(0, true);
        let table: [(Evidence, Cause, &[&str]); 13] = [
            (seen(), Cause::SamePoint, &[]),
            (Evidence { dst_mac: [9; 6], ..seen() }, Cause::L2Mirror, &["dst_mac"]),
            (Evidence { vlans: tagged, ..seen() }, Cause::Vlan, &["vlan"]),
            (Evidence { ttl: 63, src_mac: [8; 6], ..seen() }, Cause::Routed, &["src_mac", "ttl"]),
            (
                Evidence { ttl: 63, src_mac: [8; 6], vlans: tagged, ..seen() },
                Cause::Routed,
                &["src_mac", "vlan", "ttl"],
            ),
            (Evidence { ip_id: 0, dst_mac: [9; 6], ..seen() }, Cause::ReEmitted, &["dst_mac", "ip_id"]),
            (Evidence { ip_id: 0, vlans: tagged, ..seen() }, Cause::ReEmitted, &["vlan", "ip_id"]),
            (Evidence { ip_id: 0, tap: elsewhere, ..seen() }, Cause::ReEmitted, &["ip_id", "interface"]),
            (Evidence { ip_id: 0, tap: leaving, ..seen() }, Cause::ReEmitted, &["ip_id", "direction"]),
            (Evidence { ip_id: 0, ..seen() }, Cause::SentTwice, &["ip_id"]),
            (Evidence { ip_id: 0, tos: 0, ..seen() }, Cause::SentTwice, &["tos", "ip_id"]),
            (Evidence { encapsulation: gre, ..seen() }, Cause::Encapsulated, &["encapsulation"]),
            (Evidence { tap: Tap::new(1, true), ..seen() }, Cause::SamePoint, &["interface", "direction"]),
        ];
        for (copy, cause, fields) in table {
            let found = explain(&seen(), &copy);
            assert_eq!((found.cause, found.differs.names().collect::<Vec<_>>().as_slice()), (cause, fields));
        }
    }

    #[test]
    fn what_a_device_did_is_not_laid_to_a_tunnel_without_macs() {
        let ipip = Encapsulation::NONE.with(Layer::IpIp).unwrap();
        let tunnelled = Evidence { dst_mac: [0; 6], src_mac: [0; 6], encapsulation: ipip, ..seen() };
        let tagged = Vlans::from_tci(Some(7), None);
        for copy in [
            Evidence { dst_mac: [9; 6], ..seen() },
            Evidence { vlans: tagged, ..seen() },
            Evidence { ttl: 63, dst_mac: [9; 6], src_mac: [8; 6], ..seen() },
            Evidence { ttl: 63, ip_id: 0, dst_mac: [9; 6], src_mac: [8; 6], ..seen() },
            Evidence { ip_id: 0, dst_mac: [9; 6], ..seen() },
        ] {
            assert!(distance(&seen(), &copy) < distance(&tunnelled, &copy), "{copy:?}");
        }
        // Two ports of a switch are nearer than the trunk's side of one and the other.
        let (mirrored, trunk) =
            (Evidence { dst_mac: [9; 6], ..seen() }, Evidence { vlans: tagged, ..seen() });
        assert!(distance(&seen(), &mirrored) < distance(&trunk, &mirrored));
        // Of two taps and their rpcap, each one's tunnelled frame is its own.
        let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
        let second = Evidence { dst_mac: [9; 6], ip_id: 0, ..seen() };
        let inside = |of: Evidence| Evidence { encapsulation: rpcap, carrier: Carrier(1), ..of };
        assert!(distance(&second, &inside(second)) < distance(&inside(seen()), &inside(second)));
    }

    #[test]
    fn priority_bits_of_a_tag_are_no_difference() {
        let low = Evidence { vlans: Vlans::from_tci(Some(0x0007), None), ..seen() };
        let high = Evidence { vlans: Vlans::from_tci(Some(0xa007), None), ..seen() };
        assert_eq!(explain(&low, &high).cause, Cause::SamePoint);
    }

    #[test]
    fn what_one_side_does_not_have_is_not_compared() {
        let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
        let bare = Evidence { dst_mac: [0; 6], src_mac: [0; 6], encapsulation: rpcap, ..seen() };
        let told = Evidence { ttl: 0, tos: 0, ip_id: 0, ..bare };
        let elsewhere = Evidence { tap: Tap::new(3, true), ..told };
        for copy in [bare, told, elsewhere] {
            for (a, b) in [(seen(), copy), (copy, seen())] {
                let found = explain(&a, &b);
                assert_eq!(found.differs.names().collect::<Vec<_>>(), ["encapsulation"]);
                assert_eq!((found.cause, found.layer), (Cause::Encapsulated, Some(Layer::Rpcap)));
            }
        }
    }

    #[test]
    fn a_tag_around_the_same_tunnel_is_a_trunk_and_another_session_is_another_tunnel() {
        let path = |layers: &[Layer]| {
            layers.iter().try_fold(Encapsulation::NONE, |path, layer| path.with(*layer)).unwrap()
        };
        let inside = Evidence { encapsulation: path(&[Layer::Rpcap]), carrier: Carrier(1), ..seen() };
        let tagged = Evidence { encapsulation: path(&[Layer::Vlan, Layer::Rpcap]), ..inside };
        assert_eq!(explain(&inside, &tagged).cause, Cause::Vlan);
        let session = Evidence { carrier: Carrier(2), ..inside };
        let found = explain(&inside, &session);
        assert_eq!((found.cause, found.carrier), (Cause::Encapsulated, Carrier(2)));
    }
}
