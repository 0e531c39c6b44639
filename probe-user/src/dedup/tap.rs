//! Where a stream's packets are seen: its taps, told apart by everything in the evidence but the IP ID.

use super::window::MAX_TAPS;
use crate::packet::{Carrier, Encapsulation, Evidence, Tap, Vlans};

/// The taps of one stream, in order of appearance: one or more, and [`MAX_TAPS`] at most.
#[derive(Clone, Debug)]
pub(super) struct Taps {
    first: Evidence,
    /// Of the first, as most streams have no other.
    signature: Option<Signature>,
    others: Vec<Evidence>,
}

impl Taps {
    /// Begins with the tap that saw a packet.
    pub(super) fn new(evidence: &Evidence) -> Self {
        Self { first: of_the_tap(evidence), signature: Signature::of(evidence), others: Vec::new() }
    }

    /// The tap of that signature, and no other.
    pub(super) fn only_one(signature: Signature) -> Self {
        Self { first: signature.evidence(), signature: Some(signature), others: Vec::new() }
    }

    /// The index of the tap that saw this; [`MAX_TAPS`] if there is no room for one more.
    pub(super) fn find(&mut self, evidence: &Evidence) -> usize {
        let signature = Signature::of(evidence);
        if signature.is_some() && signature == self.signature {
            return 0;
        }
        let evidence = of_the_tap(evidence);
        if let Some(at) = self.iter().position(|tap| tap == evidence) {
            return at;
        }
        if self.len() < MAX_TAPS {
            self.others.push(evidence);
            return self.len() - 1;
        }
        MAX_TAPS
    }

    /// The tap of that index.
    pub(super) fn get(&self, at: usize) -> Option<&Evidence> {
        match at.checked_sub(1) {
            None => Some(&self.first),
            Some(at) => self.others.get(at),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Evidence> + Clone {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }

    pub(super) fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// The signature of the only tap, if there is but one.
    pub(super) fn only(&self) -> Option<Signature> {
        self.signature.filter(|_| self.others.is_empty())
    }
}

/// What of the evidence is the tap's: all but the IP ID, which is the packet's own.
fn of_the_tap(evidence: &Evidence) -> Evidence {
    Evidence { ip_id: 0, ..*evidence }
}

/// The same in three words, for comparing it with every packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature([u64; 3]);

impl Signature {
    /// Bits for the encapsulation: the path of four layers.
    const PATH: u32 = 20;

    /// `None` where the path is longer: what comes through five tunnels is compared field by field.
    #[inline]
    pub(crate) fn of(evidence: &Evidence) -> Option<Self> {
        let Evidence { tap, dst_mac, src_mac, vlans, ttl, tos, ip_id: _, encapsulation, carrier } = evidence;
        let mac = |[a, b, c, d, e, f]: [u8; 6]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        // Most frames have no tag.
        let tags = if *vlans == Vlans::default() { 0 } else { tags(*vlans)? };
        if encapsulation.bits() >> Self::PATH != 0 {
            return None;
        }
        let path = encapsulation.bits() << 43 | u64::from(tap.egress) << 42;
        Some(Self([
            mac(*dst_mac) | u64::from(tap.interface) << 48,
            mac(*src_mac) | u64::from(carrier.0) << 48,
            path | tags | u64::from(*ttl) << 8 | u64::from(*tos),
        ]))
    }

    /// Is it what that evidence has? All words are compared at once, as they are nearly always equal.
    #[inline]
    pub(crate) fn is_of(self, evidence: &Evidence) -> bool {
        let Self([to, from, rest]) = self;
        Self::of(evidence).is_some_and(|Self([a, b, c])| (to ^ a) | (from ^ b) | (rest ^ c) == 0)
    }

    /// What it was made of.
    #[expect(clippy::cast_possible_truncation, reason = "takes the fields out of the words")]
    fn evidence(self) -> Evidence {
        let Self([to, from, rest]) = self;
        let mac = |word: u64| word.to_le_bytes().first_chunk().copied().unwrap_or_default();
        let vlan = |bits: u64| (bits >> 12 & 1 != 0).then_some(bits as u16 & 0xfff);
        Evidence {
            tap: Tap { interface: (to >> 48) as u16, egress: rest >> 42 & 1 != 0 },
            dst_mac: mac(to),
            src_mac: mac(from),
            vlans: Vlans { outer: vlan(rest >> 29), inner: vlan(rest >> 16) },
            ttl: (rest >> 8) as u8,
            tos: rest as u8,
            ip_id: 0,
            encapsulation: Encapsulation::from_bits(rest >> 43),
            carrier: Carrier((from >> 48) as u16),
        }
    }
}

/// Tags, in their place in a signature; `None` of identifiers that do not fit.
#[inline]
fn tags(vlans: Vlans) -> Option<u64> {
    // An identifier has twelve bits; the thirteenth says that there is one.
    let tag = |id: Option<u16>| id.map_or(0, |id| 1 << 12 | u64::from(id));
    let (outer, inner) = (tag(vlans.outer), tag(vlans.inner));
    ((outer | inner) >> 13 == 0).then_some(outer << 29 | inner << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Layer;
    use crate::rtp::testing::packet;

    fn path(layers: usize) -> Encapsulation {
        (0..layers).try_fold(Encapsulation::NONE, |path, _| path.with(Layer::Rpcap)).unwrap()
    }

    /// Every field, and each in the places of others.
    #[test]
    fn a_signature_differs_wherever_the_tap_does_and_nowhere_else() {
        let usual = packet(0).evidence;
        let tap = |interface, egress| Evidence { tap: Tap { interface, egress }, ..usual };
        let vlan = |outer, inner| Evidence { vlans: Vlans { outer, inner }, ..usual };
        let seen = [
            usual,
            tap(1, false),
            tap(0, true),
            Evidence { dst_mac: [9; 6], ..usual },
            Evidence { src_mac: [9; 6], ..usual },
            Evidence { dst_mac: usual.src_mac, src_mac: usual.dst_mac, ..usual },
            vlan(Some(0), None),
            vlan(Some(0xfff), None),
            vlan(None, Some(0xfff)),
            vlan(Some(1), Some(1)),
            Evidence { ttl: 63, ..usual },
            Evidence { tos: 63, ..usual },
            Evidence { encapsulation: path(1), ..usual },
            Evidence { encapsulation: path(4), ..usual },
            Evidence { encapsulation: path(4), carrier: Carrier(1), ..usual },
        ];
        for (at, one) in seen.iter().enumerate() {
            let alike = |other: &&Evidence| Signature::of(other) == Signature::of(one);
            assert_eq!(Signature::of(one).map(Signature::evidence), Some(of_the_tap(one)));
            assert_eq!(seen.iter().position(|other| alike(&other)), Some(at), "{one:?}");
            let is_of =
                |other: &&Evidence| Signature::of(one).is_some_and(|signature| signature.is_of(other));
            assert!(seen.iter().all(|other| is_of(&other) == alike(&other)), "{one:?}");
        }
        assert_eq!(Signature::of(&Evidence { ip_id: 7, ..usual }), Signature::of(&usual));
    }

    #[test]
    fn taps_behind_five_tunnels_are_told_apart_too() {
        let deep = Evidence { encapsulation: path(5), ..packet(0).evidence };
        let other = Evidence { ttl: 1, ..deep };
        let mut taps = Taps::new(&deep);
        assert_eq!((Signature::of(&deep), taps.find(&deep), taps.find(&other), taps.len()), (None, 0, 1, 2));
        assert_eq!(taps.only(), None);
    }
}
