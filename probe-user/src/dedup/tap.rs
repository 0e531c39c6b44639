//! Where a stream's packets are seen: its taps, told apart by everything in the evidence but the IP ID.

use super::window::MAX_TAPS;
use crate::packet::Evidence;

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
        if self.signature.is_some_and(|signature| signature.is_of(evidence)) {
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

/// The same in three words, for comparing it with every packet's: those of the evidence, with the encapsulation in the
/// IP ID's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature([u64; 3]);

impl Signature {
    /// `None` where the path of encapsulations has more than 16 bits, which are three layers: what comes through four tunnels
    /// is compared field by field.
    pub(crate) fn of(evidence: &Evidence) -> Option<Self> {
        let ip_id = u16::try_from(evidence.encapsulation.bits()).ok()?;
        let [_, to, from, rest] = Evidence { ip_id, ..*evidence }.words();
        Some(Self([to, from, rest]))
    }

    /// Is it what that evidence has? All words are compared at once, as they are nearly always equal.
    #[inline]
    pub(crate) fn is_of(self, evidence: &Evidence) -> bool {
        let Self([to, from, rest]) = self;
        let [its_path, its_to, its_from, its_rest] = evidence.words();
        let of_the_tap = (rest ^ its_rest) << (u64::BITS - Evidence::IP_ID);
        (rest >> Evidence::IP_ID ^ its_path) | (to ^ its_to) | (from ^ its_from) | of_the_tap == 0
    }

    /// What it was made of.
    fn evidence(self) -> Evidence {
        let Self([to, from, rest]) = self;
        of_the_tap(&Evidence::of_words([rest >> Evidence::IP_ID, to, from, rest]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Carrier, Encapsulation, Layer, Tap, Vlans};
    use crate::rtp::testing::packet;

    fn path(layers: usize) -> Encapsulation {
        (0..layers).try_fold(Encapsulation::NONE, |path, _| path.with(Layer::Rpcap)).unwrap()
    }

    /// Every field, and each in the places of others.
    #[test]
    fn a_signature_differs_wherever_the_tap_does_and_nowhere_else() {
        let usual = packet(0).evidence;
        let tap = |interface, egress| Evidence { tap: Tap::new(interface, egress), ..usual };
        let vlan = |outer, inner| Evidence { vlans: Vlans::from_tci(outer, inner), ..usual };
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
            Evidence { encapsulation: path(3), ..usual },
            Evidence { encapsulation: path(3), carrier: Carrier(1), ..usual },
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
    fn taps_behind_four_tunnels_are_told_apart_too() {
        let deep = Evidence { encapsulation: path(4), ..packet(0).evidence };
        let other = Evidence { ttl: 1, ..deep };
        let mut taps = Taps::new(&deep);
        assert_eq!((Signature::of(&deep), taps.find(&deep), taps.find(&other), taps.len()), (None, 0, 1, 2));
        assert_eq!(taps.only(), None);
    }
}
