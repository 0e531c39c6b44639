//! Announced endpoints once more, in buckets of no more than a cache line, so that most are found without a call.
//!
//! ```text
//!   endpoint ─▶ words ─▶ hash ─▶ bucket   one of those in it is it: announced
//!                                         it is CROWDED:            ask the map of all endpoints
//!                                         anything else:            not announced
//!
//!   of IPv4   [ word | word | word | word ]
//!   of IPv6   [ three ports | address of two words | address | address | – ]
//! ```
//!
//! A look-up in the map of all endpoints is a call that hashes 20 octets, and costs as much as the clock. The words of an
//! endpoint tell it exactly, so there is nothing to compare behind them. A bucket to which more belong than it has room
//! for sends whoever asks to the map: of 10,000 endpoints hardly any, of 65,536 over IPv4 one in twenty, over IPv6 a third.

use crate::config::EndpointKey;

/// How many buckets of each kind there are: one MiB of IPv4, two of IPv6.
pub const BUCKETS: usize = 32_768;

/// What a bucket says of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is announced.
    Yes,
    /// It is not.
    No,
    /// The map knows.
    Ask,
}

/// An endpoint in words that tell it from all others of its kind.
pub trait Words: Copy + Eq {
    /// Endpoints of one hash. All zeros where there is none.
    type Bucket: Copy;

    /// Those of an endpoint, if it is of this kind.
    fn of(key: &EndpointKey) -> Option<Self>;

    /// The bucket that it belongs to.
    fn bucket(self) -> u32;

    /// What the bucket says, if it is read so. Without a branch for each endpoint in it: the verifier would walk them all.
    fn ask(self, bucket: Self::Bucket) -> Answer;

    /// The bucket of all that belong to it.
    fn together(all: &[Self]) -> Self::Bucket;
}

/// An IPv4 endpoint, TCP told from UDP: never below two, and never with the top bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4(u64);

/// The first word of a bucket of IPv4 to which more endpoints belong than fit. No endpoint has it.
const CROWDED: u64 = 1;

impl Words for Ipv4 {
    type Bucket = [u64; 4];

    #[inline(always)]
    fn of(key: &EndpointKey) -> Option<Self> {
        let EndpointKey { address: [a, b, c, d], port } = *key;
        if a != 0 || b != 0 || c != 0xffff_u32.to_be() {
            return None;
        }
        Some(Self(1 << 62 | u64::from(u32::from_be(d)) << 17 | u64::from(port & PORT)))
    }

    #[inline(always)]
    fn bucket(self) -> u32 {
        hashed(self.0)
    }

    #[inline(always)]
    fn ask(self, [a, b, c, d]: [u64; 4]) -> Answer {
        let Self(word) = self;
        answer([a ^ word, b ^ word, c ^ word, d ^ word], a == CROWDED)
    }

    fn together(all: &[Self]) -> [u64; 4] {
        let mut bucket = [0; 4];
        if all.len() > bucket.len() {
            return [CROWDED, 0, 0, 0];
        }
        bucket.iter_mut().zip(all).for_each(|(to, Self(word))| *to = *word);
        bucket
    }
}

/// Any other endpoint, which is one of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    high: u64,
    low: u64,
    /// With a bit that is always set, TCP told from UDP.
    port: u64,
}

/// Endpoints that a bucket of IPv6 has room for.
const PLACES: usize = 3;
/// Bits of its first word that a port has.
const PORT_BITS: usize = 20;
/// Says of a place that it is taken.
const TAKEN: u64 = 1 << 17;
/// Says in the first word of a bucket of IPv6 that more endpoints belong to it than fit.
const CROWDED_IPV6: u64 = 1 << 63;

impl Words for Ipv6 {
    type Bucket = [u64; 8];

    #[inline(always)]
    fn of(key: &EndpointKey) -> Option<Self> {
        if Ipv4::of(key).is_some() {
            return None;
        }
        let EndpointKey { address: [a, b, c, d], port } = *key;
        let word = |high, low| u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low));
        Some(Self { high: word(a, b), low: word(c, d), port: TAKEN | u64::from(port & PORT) })
    }

    #[inline(always)]
    fn bucket(self) -> u32 {
        let Self { high, low, port } = self;
        // Turned, so that the port does not meet the number of a subnet; folded, so that all of it meets the host's.
        let mixed = (high.rotate_left(16) ^ port).wrapping_mul(ODD);
        hashed(mixed ^ mixed >> 32 ^ low)
    }

    #[inline(always)]
    fn ask(self, [ports, high_0, low_0, high_1, low_1, high_2, low_2, _]: [u64; 8]) -> Answer {
        let Self { high, low, port } = self;
        let other = |place: usize, its_high: u64, its_low: u64| {
            let its_port = ports >> (place * PORT_BITS) & ((1 << PORT_BITS) - 1);
            let differs = (its_port ^ port) | (its_high ^ high) | (its_low ^ low);
            // Without the top bit, and zero only if all of it is.
            differs >> 1 | differs & 1
        };
        answer(
            [other(0, high_0, low_0), other(1, high_1, low_1), other(2, high_2, low_2), 1],
            ports & CROWDED_IPV6 != 0,
        )
    }

    fn together(all: &[Self]) -> [u64; 8] {
        let mut bucket = [0; 8];
        if all.len() > PLACES {
            return [CROWDED_IPV6, 0, 0, 0, 0, 0, 0, 0];
        }
        let [ports, addresses @ ..] = &mut bucket;
        for (place, (address, endpoint)) in addresses.chunks_exact_mut(2).zip(all).enumerate() {
            *ports |= endpoint.port << (place * PORT_BITS);
            address.copy_from_slice(&[endpoint.high, endpoint.low]);
        }
        bucket
    }
}

/// Bits of [`EndpointKey::port`] that can be set.
const PORT: u32 = 0x1_ffff;

/// Of the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
const fn hashed(word: u64) -> u32 {
    (word.wrapping_mul(ODD) >> 49) as u32
}

const _: () = assert!(BUCKETS == 1 << (64 - 49));

/// By what an endpoint differs from each of a bucket, where the top bit never does.
#[inline(always)]
const fn answer([a, b, c, d]: [u64; 4], is_crowded: bool) -> Answer {
    // Only nothing less one has the top bit.
    let same = a.wrapping_sub(1) | b.wrapping_sub(1) | c.wrapping_sub(1) | d.wrapping_sub(1);
    if same >> 63 != 0 {
        Answer::Yes
    } else if is_crowded {
        Answer::Ask
    } else {
        Answer::No
    }
}

#[cfg(test)]
mod tests {
    use core::fmt::Debug;

    use super::*;

    fn v4(address: u32, port: u32) -> EndpointKey {
        EndpointKey { address: [0, 0, 0xffff_u32.to_be(), address.to_be()], port }
    }

    fn v6(subnet: u32, host: u32, port: u32) -> EndpointKey {
        EndpointKey { address: [0x2001_0db8_u32.to_be(), subnet.to_be(), 0, host.to_be()], port }
    }

    /// Those of an endpoint that is of this kind.
    fn words<W: Words>(key: &EndpointKey) -> W {
        W::of(key).unwrap()
    }

    /// Every endpoint that differs in one bit of the address or the port, and the carrier at the same.
    fn neighbours(key: EndpointKey) -> impl Iterator<Item = EndpointKey> {
        let addresses = (0..128).map(move |bit| {
            let mut other = key;
            other.address[bit / 32] ^= 1 << (bit % 32);
            other
        });
        let ports = (0..16).map(move |bit| EndpointKey { port: key.port ^ 1 << bit, ..key });
        addresses.chain(ports).chain([key.of_carrier()]).filter(move |other| *other != key)
    }

    fn tells_every_bit<W: Words + Debug>(key: EndpointKey) {
        let original: W = words(&key);
        assert_eq!(original.ask(W::together(&[original])), Answer::Yes);
        for (bit, other) in neighbours(key).enumerate() {
            let Some(other) = W::of(&other) else { continue };
            assert_eq!(other.ask(W::together(&[original])), Answer::No, "{bit}: {original:?} {other:?}");
        }
    }

    #[test]
    fn words_tell_every_bit_of_an_endpoint() {
        tells_every_bit::<Ipv4>(v4(0x0a00_0002, 30_000));
        tells_every_bit::<Ipv6>(v6(7, 2, 30_000));
        tells_every_bit::<Ipv6>(EndpointKey { address: [0; 4], port: 0 });
        tells_every_bit::<Ipv6>(EndpointKey { address: [u32::MAX; 4], port: 0x1_ffff });
        for key in [v4(0, 0), v4(u32::MAX, 0x1_ffff)] {
            let Ipv4(word) = words(&key);
            assert!(word > CROWDED && word >> 63 == 0);
        }
    }

    #[test]
    fn every_endpoint_is_of_one_kind() {
        for key in neighbours(v4(0x0a00_0002, 30_000)).chain(neighbours(v6(7, 2, 30_000))) {
            assert!(Ipv4::of(&key).is_some() != Ipv6::of(&key).is_some(), "{key:?}");
        }
    }

    fn knows_what_is_in_it<W: Words + Debug>(places: usize, key: impl Fn(u32) -> EndpointKey) {
        let all: [W; 6] = [1, 2, 3, 4, 5, 6].map(|port| words(&key(port)));
        let other: W = words(&key(7));
        for count in 0..=all.len() {
            let bucket = W::together(&all[..count]);
            for (at, endpoint) in all.into_iter().chain([other]).enumerate() {
                let expected = match (count > places, at < count) {
                    (true, _) => Answer::Ask,
                    (false, true) => Answer::Yes,
                    (false, false) => Answer::No,
                };
                assert_eq!(endpoint.ask(bucket), expected, "{at} of {count}");
            }
        }
    }

    #[test]
    fn a_bucket_knows_what_is_in_it_until_it_is_crowded() {
        knows_what_is_in_it::<Ipv4>(4, |port| v4(0x0a00_0002, port));
        knows_what_is_in_it::<Ipv6>(PLACES, |port| v6(7, 2, port));
        knows_what_is_in_it::<Ipv6>(PLACES, |host| v6(7, host, 30_000));
        knows_what_is_in_it::<Ipv6>(PLACES, |subnet| v6(subnet, 2, 30_000));
    }

    /// How many of these endpoints are in buckets to which more belong than fit.
    fn crowded<W: Words>(places: u8, keys: impl Iterator<Item = EndpointKey> + Clone) -> usize {
        let mut counts = crate::sample::vec![0_u8; BUCKETS];
        let bucket = |key| words::<W>(&key).bucket() as usize;
        keys.clone().for_each(|key| counts[bucket(key)] = counts[bucket(key)].saturating_add(1));
        keys.filter(|key| counts[bucket(*key)] > places).count()
    }

    /// On hosts of one subnet, and on one host of each of many.
    #[test]
    fn endpoints_of_a_gateway_are_spread_over_the_buckets() {
        let each = |count: u32| (0..count).map(move |at| (at / 2_500, 10_000 + 2 * (at % 2_500)));
        assert!(crowded::<Ipv4>(4, each(10_000).map(|(host, port)| v4(0x0a00_0001 + host, port))) < 50);
        let hosts = |count| crowded::<Ipv6>(3, each(count).map(|(host, port)| v6(7, 1 + host, port)));
        let subnets = |count| crowded::<Ipv6>(3, each(count).map(|(subnet, port)| v6(subnet << 8, 1, port)));
        for (of_10_000, of_65_536) in [(hosts(10_000), hosts(65_536)), (subnets(10_000), subnets(65_536))] {
            assert!(of_10_000 < 300 && of_65_536 < 30_000, "{of_10_000} {of_65_536}");
        }
    }
}
