//! A histogram in HdrHistogram's interchange form: V2, compressed.
//!
//! ```text
//!   cookie 4 | length 4 | zlib ( cookie 4 | length 4 | offset 4 | digits 4 | low 8 | high 8 | ratio 8 | counts )
//! ```
//!
//! It is what `hdrhistogram`'s serializers write of [`super::MicrosHistogram::to_hdr`], without 18 KiB of counters in between, and
//! without a compressor. One sets up hundreds of kilobytes for as many octets, however often it is used again: 119,000
//! instructions for a histogram, where this takes 14,000. So few octets are worth no code of their own: the block has the fixed one
//! (RFC 1951, 3.2.6), and is about as long as at zlib's best level.
//!
//! Source: HdrHistogram, `V2 encoding`; RFC 1950; RFC 1951.

use super::{DIGITS, MAX_VALUE_US};

/// Cookies of both forms; 0x10 says that words are packed.
const COMPRESSED: u32 = 0x1c84_9304 | 0x10;
const PLAIN: u32 = 0x1c84_9303 | 0x10;
/// Octets before the counts.
const HEADER: usize = 40;
/// Counters of the library's first octaves, which tell values of so many bits apart.
const PRECISION_BITS: u32 = 8;

/// Counts of values, in ascending order, none of them zero.
pub(super) fn v2_compressed(counts: impl Iterator<Item = (u64, u64)>) -> Vec<u8> {
    let plain = v2(counts);
    let mut bytes = Vec::with_capacity(plain.len() + 32);
    bytes.extend(COMPRESSED.to_be_bytes());
    bytes.extend([0; 4]);
    zlib(&plain, &mut bytes);
    let length = bytes.len() - 8;
    put_length(&mut bytes, length);
    bytes
}

/// The form without compression.
fn v2(counts: impl Iterator<Item = (u64, u64)>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend(PLAIN.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(u32::from(DIGITS).to_be_bytes());
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(MAX_VALUE_US.to_be_bytes());
    bytes.extend(1.0_f64.to_be_bytes());
    let mut next = 0;
    for (value, count) in counts {
        let at = counter(value);
        match at - next {
            0 => {}
            1 => bytes.push(0),
            // Below zero it is as many empty ones. Zigzag: the sign is the lowest bit.
            empty => put_packed(&mut bytes, 2 * empty - 1),
        }
        put_packed(&mut bytes, 2 * count);
        next = at + 1;
    }
    if next == 0 {
        bytes.push(0);
    }
    let length = bytes.len() - HEADER;
    put_length(&mut bytes, length);
    bytes
}

/// The library's counter of a value: with two digits, the first 256 are one for each value, and then 128 an octave.
fn counter(value: u64) -> u64 {
    let octave = (u64::BITS - PRECISION_BITS).saturating_sub((value | 0xff).leading_zeros());
    (u64::from(octave) << (PRECISION_BITS - 1)) + (value >> octave)
}

/// The length of what follows, in the second word.
fn put_length(bytes: &mut [u8], length: usize) {
    // A histogram has no more than some kilobytes.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(place) = bytes.get_mut(4..8) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Seven bits an octet, the lowest first. (A ninth octet would have eight, of a count that nobody lives to see.)
fn put_packed(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// Zlib's form (RFC 1950): a window of 32 KiB, the quickest level; one block; a checksum.
fn zlib(data: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend([0x78, 0x01]);
    let mut block = Bits { bytes, held: 0, count: 0 };
    deflate(data, &mut block);
    block.fill_up();
    bytes.extend(adler32(data).to_be_bytes());
}

/// RFC 1950, 8.2.
fn adler32(data: &[u8]) -> u32 {
    const BASE: u32 = 65_521;
    // So many octets before a sum could be too large.
    let (a, b) = data.chunks(4_096).fold((1, 0), |(a, b), part| {
        let add = |(a, b), octet: &u8| (a + u32::from(*octet), b + a + u32::from(*octet));
        let (a, b) = part.iter().fold((a, b), add);
        (a % BASE, b % BASE)
    });
    b << 16 | a
}

/// The longest repetition that is written; the one more that there is has a code of its own.
const LONGEST: usize = 257;
/// The farthest back that one may lie.
const FARTHEST: usize = 32 << 10;
const END_OF_BLOCK: u32 = 256;

/// One block, the last one, in the fixed code.
fn deflate(data: &[u8], to: &mut Bits<'_>) {
    to.put(0b011, 3);
    // Where three octets of that hash were last.
    let mut seen = [usize::MAX; 256];
    let mut rest = data;
    while let [first, behind @ ..] = rest {
        let at = data.len() - rest.len();
        let (mut length, mut back) = (0, 0);
        if let Some(&[a, b, c]) = rest.first_chunk() {
            let hash = a.wrapping_mul(31) ^ b.wrapping_mul(149) ^ c;
            let before = std::mem::replace(&mut seen[usize::from(hash)], at);
            let earlier = data.get(before..).filter(|_| at - before <= FARTHEST).unwrap_or_default();
            length = rest.iter().zip(earlier).take(LONGEST).take_while(|(a, b)| a == b).count();
            back = at.wrapping_sub(before);
        }
        if length < 3 {
            to.symbol(u32::from(*first));
            rest = behind;
        } else {
            to.repetition(length, back);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    to.symbol(END_OF_BLOCK);
}

/// Bits in octets, the lowest first.
struct Bits<'a> {
    bytes: &'a mut Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits<'_> {
    /// The lowest bits of a number, up to sixteen.
    fn put(&mut self, bits: u32, count: u32) {
        self.held |= bits << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.held.to_le_bytes()[0]);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// Ends the octet that was begun.
    fn fill_up(&mut self) {
        self.put(0, (8 - self.count) % 8);
    }

    /// A code, whose highest bit comes first.
    fn code(&mut self, code: u32, count: u32) {
        self.put(code.reverse_bits() >> (32 - count), count);
    }

    /// An octet, a length or the end, in the fixed code (RFC 1951, 3.2.6).
    fn symbol(&mut self, symbol: u32) {
        match symbol {
            0..144 => self.code(0x30 + symbol, 8),
            144..256 => self.code(0x190 - 144 + symbol, 9),
            256..280 => self.code(symbol - 256, 7),
            _ => self.code(symbol - (280 - 0xc0), 8),
        }
    }

    /// The same `length` octets as `back` octets before. Codes stand for ranges, four lengths or two distances to a power of
    /// two, and more bits say which in the range (RFC 1951, 3.2.5).
    fn repetition(&mut self, length: usize, back: usize) {
        let (class, more) = ranged(length - 3, 2);
        self.symbol(257 + class);
        self.put(more.0, more.1);
        let (class, more) = ranged(back - 1, 1);
        self.code(class, 5);
        self.put(more.0, more.1);
    }
}

/// The range of a number, of which there are 2^`bits` to a power of two; and its place in the range, with as many bits as that has.
fn ranged(number: usize, bits: u32) -> (u32, (u32, u32)) {
    // Repetitions are within `FARTHEST`.
    let number = u32::try_from(number).unwrap_or(0);
    let more = number.checked_ilog2().unwrap_or(0).saturating_sub(bits);
    ((more << bits) + (number >> more), (number & ((1 << more) - 1), more))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use hdrhistogram::serialization::{Serializer as _, V2Serializer};
    use proptest::prelude::*;

    use super::super::MicrosHistogram;
    use super::*;

    fn inflate(zlib: &[u8]) -> Vec<u8> {
        let (mut decoder, mut data) = (flate2::bufread::ZlibDecoder::new(zlib), Vec::new());
        decoder.read_to_end(&mut data).unwrap();
        assert!(decoder.into_inner().is_empty(), "nothing is behind the checksum");
        data
    }

    fn deflated(data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        zlib(data, &mut bytes);
        bytes
    }

    #[test]
    fn what_repeats_is_written_once_however_long_and_far_back() {
        for (data, at_most) in [
            (vec![], 8),
            (vec![255], 10),
            (vec![0; 40], 12),
            (vec![7; 100_000], 1_300),
            ((0..=255).cycle().take(70_000).collect(), 1_700),
        ] {
            let bytes = deflated(&data);
            assert!(bytes.len() <= at_most, "{} for {}", bytes.len(), data.len());
            assert_eq!(inflate(&bytes), data);
        }
    }

    #[test]
    fn every_length_and_distance_has_its_code() {
        for length in 3..=300 {
            let data: Vec<u8> =
                (0..300_u32).map(|n| if n < length { 1 } else { (n % 250).to_le_bytes()[0] }).collect();
            assert_eq!(inflate(&deflated(&data)), data, "{length}");
        }
        for back in (4..40_000_u32).step_by(499) {
            // Nothing else in it repeats three octets.
            let noise = (0..back).map(|n| (n.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]);
            let data: Vec<u8> =
                [250, 251, 252, 253].into_iter().chain(noise).chain([250, 251, 252, 253]).collect();
            assert_eq!(inflate(&deflated(&data)), data, "{back}");
        }
    }

    proptest! {
        #[test]
        fn what_is_deflated_is_what_is_inflated(
            data in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..3_000),
                prop::collection::vec(prop_oneof![Just(0_u8), Just(29), 0..4_u8], 0..6_000),
            ],
        ) {
            prop_assert_eq!(inflate(&deflated(&data)), data);
        }

        /// Octet for octet what the library writes before it compresses, whatever counters have run over.
        #[test]
        fn the_export_is_that_of_the_reference_library(
            values in prop::collection::vec((0_u64..90_000_000, 1_u64..200_000), 0..40),
        ) {
            let mut histogram = MicrosHistogram::default();
            for (value, count) in values {
                let mut part = MicrosHistogram::default();
                part.record_ns(value * 1_000);
                (0..u64::BITS - count.leading_zeros()).for_each(|_| part.merge(&part.clone()));
                histogram.merge(&part);
            }
            let mut expected = Vec::new();
            V2Serializer::new().serialize(&histogram.to_hdr(), &mut expected).unwrap();
            let bytes = v2_compressed(histogram.middles());
            prop_assert_eq!(&bytes[..4], &COMPRESSED.to_be_bytes());
            prop_assert_eq!(bytes[4..8].to_vec(), u32::try_from(bytes.len() - 8).unwrap().to_be_bytes());
            prop_assert_eq!(inflate(&bytes[8..]), expected);
        }
    }
}
