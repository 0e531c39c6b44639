//! Announced IPv4 endpoints once more, in buckets of half a cache line, so that most are found without a call.
//!
//! ```text
//!   endpoint ─▶ word ─▶ hash ─▶ bucket [ word | word | word | word ]   one of them is it: announced
//!                                      [ CROWDED | … ]                 ask the map of all endpoints
//!                                      anything else                   not announced
//! ```
//!
//! A look-up in the map of all endpoints is a call that hashes 20 octets, and costs as much as the clock. The word of an
//! endpoint tells it exactly, so there is nothing to compare behind it. A bucket to which more belong than it has room
//! for sends whoever asks to the map: with 10,000 endpoints hardly any, with 65,536 one in twenty.

use crate::config::EndpointKey;

/// Endpoints of one hash; zero where there is none.
pub type Bucket = [u64; 4];

/// How many buckets there are: one MiB.
pub const BUCKETS: usize = 32_768;

/// The first word of a bucket to which more endpoints belong than fit. No endpoint has it.
pub const CROWDED: u64 = 1;

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

/// An IPv4 endpoint as one word, TCP told from UDP; never zero, and never with the top bit. `None` for IPv6.
#[inline(always)]
pub fn word(key: &EndpointKey) -> Option<u64> {
    let EndpointKey { address: [a, b, c, d], port } = *key;
    if a != 0 || b != 0 || c != 0xffff_u32.to_be() {
        return None;
    }
    Some(1 << 62 | u64::from(u32::from_be(d)) << 17 | u64::from(port & 0x1_ffff))
}

/// The bucket that a word belongs to.
#[inline(always)]
pub const fn bucket(word: u64) -> u32 {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49) as u32
}

/// What a bucket says of a word that belongs to it. Without a branch for each word: the verifier would walk them all.
#[inline(always)]
pub const fn ask(bucket: Bucket, word: u64) -> Answer {
    let [a, b, c, d] = bucket;
    // No word has the top bit, so only nothing less one has it.
    let same = (a ^ word).wrapping_sub(1)
        | (b ^ word).wrapping_sub(1)
        | (c ^ word).wrapping_sub(1)
        | (d ^ word).wrapping_sub(1);
    if same >> 63 != 0 {
        Answer::Yes
    } else if a == CROWDED {
        Answer::Ask
    } else {
        Answer::No
    }
}

const _: () = assert!(BUCKETS == 1 << (64 - 49));

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: u32, port: u32) -> EndpointKey {
        EndpointKey { address: [0, 0, 0xffff_u32.to_be(), address.to_be()], port }
    }

    #[test]
    fn a_word_tells_every_bit_of_an_endpoint() {
        let original = word(&key(0x0a00_0002, 30_000)).unwrap();
        assert_ne!(word(&key(0x0a00_0002, 30_000).of_carrier()), Some(original));
        for bit in 0..32 {
            assert_ne!(word(&key(0x0a00_0002 ^ 1 << bit, 30_000)), Some(original), "address {bit}");
        }
        for bit in 0..16 {
            assert_ne!(word(&key(0x0a00_0002, 0x7530 ^ 1 << bit)), Some(original), "port {bit}");
        }
        for key in [key(0, 0), key(u32::MAX, 0x1_ffff)] {
            let word = word(&key).unwrap();
            assert!(word > CROWDED && word >> 63 == 0);
        }
    }

    #[test]
    fn ipv6_has_no_word() {
        let v4 = key(0x0a00_0002, 30_000);
        for at in 0..3 {
            let mut v6 = v4;
            v6.address[at] ^= 0x0100;
            assert_eq!(word(&v6), None);
        }
    }

    #[test]
    fn a_bucket_knows_what_is_in_it_wherever_it_is() {
        let words = [1, 2, 3, 4].map(|port| word(&key(0x0a00_0002, port)).unwrap());
        let other = word(&key(0x0a00_0003, 1)).unwrap();
        for word in words {
            assert_eq!(ask(words, word), Answer::Yes);
        }
        assert_eq!(ask(words, other), Answer::No);
        assert_eq!(ask([0; 4], other), Answer::No);
        assert_eq!(ask([0, 0, 0, other], other), Answer::Yes);
        assert_eq!(ask([CROWDED, 0, 0, 0], other), Answer::Ask);
    }

    #[test]
    fn endpoints_of_a_gateway_are_spread_over_the_buckets() {
        let mut counts = crate::sample::vec![0_u8; BUCKETS];
        for at in 0..10_000 {
            let (host, port) = (at / 2_500, 10_000 + 2 * (at % 2_500));
            counts[bucket(word(&key(0x0a00_0001 + host, port)).unwrap()) as usize] += 1;
        }
        let crowded = counts.iter().filter(|count| **count > 4).count();
        assert!(crowded < 10, "{crowded} buckets are crowded");
    }
}
