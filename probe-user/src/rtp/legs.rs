//! One stream under two addresses: both sides of a NAT or of a relay that passes media on as it is.
//!
//! ```text
//!   10.0.0.9:4000 ─▶ NAT ─▶ 192.0.2.1:61000 ─▶ far end        the same RTP twice in one capture: neither a copy
//!      leg 1                    leg 2                          (other addresses) nor two senders (same payload)
//! ```
//!
//! What survives a rewrite of addresses and ports is the RTP header and the payload. The UDP checksum sums both with the
//! addresses and ports; taking those away in ones' complement leaves a sum of the rest, without a look at the payload.
//!
//! Each stream keeps a sketch: of all its packets, the `SKETCH` whose identities hash to the smallest numbers. Two sketches
//! name the same packets wherever both legs had them, however long either ran, so two sketches tell what share of
//! packets two streams have in common, and how long after the other each came by (A. Broder, "On the resemblance and
//! containment of documents", 1997).

use serde::Serialize;

use super::StreamKey;
use crate::packet::{Endpoint, EndpointWords, Nanos, RtpPacket};

/// Packets in a sketch: a share is known to about an eighth.
const SKETCH: usize = 16;
/// Common packets that make two streams one. Each agrees in header and sum, so even one is hardly chance.
const ENOUGH: usize = 3;
/// Streams of one SSRC that are compared with each other: more is a flood, not a path.
const MAX_COMPARED: usize = 32;

/// The packets of a stream whose identities hash lowest, and when each came by. In one piece and without a pointer, as every
/// stream has one.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// By identity, ascending, as far as there are some.
    lowest: [Sample; SKETCH],
    held: u8,
}

/// A packet of a sketch, in 12 octets: its identity, of which 32 bits rank the RTP header and the lowest 16 are the payload's
/// sum, and the lower 48 bits of its time. Two legs' sightings of a packet are not 39 hours apart.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    identity: [u16; 3],
    time: [u16; 3],
}

impl Sample {
    fn new(rank: u32, payload_sum: u16, time: Nanos) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "takes a word out of a number")]
        let word = |number: u64, at: u32| (number >> (16 * at)) as u16;
        let rank = u64::from(rank);
        Self {
            identity: [payload_sum, word(rank, 0), word(rank, 1)],
            time: [word(time.0, 0), word(time.0, 1), word(time.0, 2)],
        }
    }

    fn identity(self) -> u64 {
        number(self.identity)
    }

    fn rank(self) -> u32 {
        let [_, low, high] = self.identity;
        u32::from(high) << 16 | u32::from(low)
    }

    /// How long after that one it came, in nanoseconds.
    fn since(self, earlier: Self) -> i64 {
        let upper = |sample: Self| number(sample.time) << 16;
        upper(self).wrapping_sub(upper(earlier)).cast_signed() >> 16
    }
}

/// Of its words, the lowest first.
fn number([low, middle, high]: [u16; 3]) -> u64 {
    u64::from(high) << 32 | u64::from(middle) << 16 | u64::from(low)
}

impl Default for Sketch {
    fn default() -> Self {
        Self { lowest: [Sample::default(); SKETCH], held: 0 }
    }
}

impl Sketch {
    /// Takes a packet; the first copy of it. Nearly always a hash of its RTP header and one comparison: the payload's sum is
    /// only taken of those that stay.
    #[inline]
    pub fn observe(&mut self, packet: &RtpPacket) {
        let rank = rank(packet);
        if rank <= self.most() {
            self.insert(Sample::new(rank, payload_sum(packet), packet.time));
        }
    }

    /// The highest rank that may belong in it: below the highest of a full one.
    #[inline]
    pub(super) fn most(&self) -> u32 {
        self.samples().get(SKETCH - 1).map_or(u32::MAX, |highest| highest.rank().saturating_sub(1))
    }

    fn samples(&self) -> &[Sample] {
        self.lowest.get(..usize::from(self.held)).unwrap_or_default()
    }

    #[cold]
    fn insert(&mut self, mut sample: Sample) {
        let held = self.samples();
        let Err(at) = held.binary_search_by_key(&sample.identity(), |known| known.identity()) else { return };
        // Each takes the place of the next above; of a full sketch the highest leaves.
        let end = SKETCH.min(held.len() + 1);
        for place in self.lowest.get_mut(at..end).into_iter().flatten() {
            std::mem::swap(place, &mut sample);
        }
        self.held += u8::from(usize::from(self.held) < end);
    }

    /// What two streams have in common; `None` if it is too little to speak of.
    fn compare(&self, other: &Self, packets: (u64, u64)) -> Option<Common> {
        let (mine, theirs) = (self.samples(), other.samples());
        let mut delays: Vec<i64> = mine
            .iter()
            .filter_map(|sample| {
                let at = theirs.binary_search_by_key(&sample.identity(), |their| their.identity()).ok()?;
                theirs.get(at).map(|their| their.since(*sample))
            })
            .collect();
        if delays.len() < ENOUGH {
            return None;
        }
        // Both sketches together are one of the union, as far as both reach: half-full ones hold everything.
        let reach = [mine, theirs]
            .into_iter()
            .filter_map(|samples| samples.get(SKETCH - 1).map(|highest| highest.identity()))
            .min()
            .unwrap_or(u64::MAX);
        let within = |samples: &[Sample]| samples.iter().filter(|sample| sample.identity() <= reach).count();
        let union = within(mine) + within(theirs) - delays.len();
        let resemblance = delays.len() as f64 / union.max(1) as f64;
        let common = resemblance * (packets.0 + packets.1) as f64 / (1.0 + resemblance);
        delays.sort_unstable();
        Some(Common {
            percent: (common * 100.0 / packets.0.min(packets.1).max(1) as f64).min(100.0),
            delay_ms: Delay {
                min: delays.first().map_or(0.0, |ns| *ns as f64 / 1e6),
                p50: delays.get(delays.len() / 2).map_or(0.0, |ns| *ns as f64 / 1e6),
                max: delays.last().map_or(0.0, |ns| *ns as f64 / 1e6),
            },
            compared: delays.len(),
        })
    }
}

struct Common {
    percent: f64,
    delay_ms: Delay,
    compared: usize,
}

/// What two streams are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// One of their endpoints is the same, the other was rewritten.
    Nat,
    /// Both endpoints differ: an SBC, a B2BUA or a TURN server passes it on.
    Relay,
    /// Sent back to where it came from: an echo test, or a loop. It tells nothing of another path.
    Echo,
    /// Sent twice on purpose, on two paths (RFC 7198, SMPTE ST 2022-7).
    Redundant,
}

impl Relation {
    fn of(a: &StreamKey, b: &StreamKey, is_declared: bool) -> Self {
        let is_multicast = |endpoint: &Endpoint| endpoint.ip().is_multicast();
        let both_multicast = is_multicast(&a.flow.dst) && is_multicast(&b.flow.dst);
        if is_declared || both_multicast && a.flow.dst != b.flow.dst {
            Self::Redundant
        } else if a.flow.src == b.flow.dst && a.flow.dst == b.flow.src {
            Self::Echo
        } else if a.flow.src == b.flow.src || a.flow.dst == b.flow.dst {
            Self::Nat
        } else {
            Self::Relay
        }
    }
}

/// Another leg of a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LegReport {
    /// Its sender.
    pub src: Endpoint,
    /// Its receiver.
    pub dst: Endpoint,
    /// "nat", "relay", "echo" or "redundant".
    pub relation: Relation,
    /// Packets that both have, in percent of the shorter of the two: an estimate.
    pub matched_percent: f64,
    /// How long after this stream's packets the other's came by; negative if they came first.
    pub delay_ms: Delay,
    /// Packets that were found in both.
    pub compared: usize,
}

/// Delays in ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Delay {
    /// Shortest.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// Longest.
    pub max: f64,
}

/// What is needed of a stream to find its other legs.
#[derive(Clone, Copy, Debug)]
pub struct Leg<'a> {
    /// Identity.
    pub key: StreamKey,
    /// Its sketch.
    pub sketch: &'a Sketch,
    /// First copies.
    pub packets: u64,
    /// Does the signalling declare it to be sent twice?
    pub is_redundant: bool,
}

/// The other legs of each stream, in their order.
pub fn find(streams: &[Leg<'_>]) -> Vec<Vec<LegReport>> {
    let mut legs = vec![Vec::new(); streams.len()];
    let mut order: Vec<usize> = (0..streams.len()).collect();
    order.sort_by_key(|at| streams.get(*at).map(|stream| stream.key.ssrc));
    let same = |a: &usize, b: &usize| {
        streams.get(*a).map(|stream| stream.key.ssrc) == streams.get(*b).map(|stream| stream.key.ssrc)
    };
    for group in order.chunk_by(same).filter(|group| (2..=MAX_COMPARED).contains(&group.len())) {
        for &at in group {
            let Some(stream) = streams.get(at) else { continue };
            let others = group.iter().filter(|other| **other != at).filter_map(|other| streams.get(*other));
            let found = others.filter_map(|other| {
                let common = stream.sketch.compare(other.sketch, (stream.packets, other.packets))?;
                Some(LegReport {
                    src: other.key.flow.src,
                    dst: other.key.flow.dst,
                    relation: Relation::of(
                        &stream.key,
                        &other.key,
                        stream.is_redundant && other.is_redundant,
                    ),
                    matched_percent: common.percent,
                    delay_ms: common.delay_ms,
                    compared: common.compared,
                })
            });
            if let Some(legs) = legs.get_mut(at) {
                legs.extend(found);
            }
        }
    }
    legs
}

/// Where a packet stands in an order that has nothing to do with time, by what both legs' sightings of it share: SSRC, sequence
/// number, timestamp and payload type.
#[inline]
pub(super) fn rank(packet: &RtpPacket) -> u32 {
    let rtp = &packet.rtp;
    let mut hash = u64::from(rtp.timestamp) << 32 | u64::from(rtp.payload_type) << 16 | u64::from(rtp.seq);
    hash ^= u64::from(rtp.ssrc).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // SplitMix64's finish: every bit of the input moves half of those that come out.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((hash ^ (hash >> 31)) >> 32) as u32
}

/// May it belong in a sketch whose highest rank is this: [`Sketch::most`]?
#[inline]
pub(super) fn may_belong(packet: &RtpPacket, most: u32) -> bool {
    rank(packet) <= most
}

/// The UDP checksum without what a NAT rewrites (RFC 1624): a sum modulo 65,535, of which 0xffff is the other zero. A hash
/// of payload bytes has nothing to take away.
fn payload_sum(packet: &RtpPacket) -> u16 {
    if packet.fingerprint.hashed {
        return packet.fingerprint.value;
    }
    // IPv4 is mapped: its prefix of zeros and 0xffff is nothing modulo 65,535. Modulo that, a word is the sum of its halves.
    let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
    let endpoint =
        |EndpointWords { address: [high, low], port }| halves(high) + halves(low) + u64::from(port);
    let sum = u64::from(!packet.fingerprint.value);
    let rewritten = (endpoint(packet.flow.src()) + endpoint(packet.flow.dst())) % 65_535;
    ((sum + 65_535 - rewritten) % 65_535) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Flow;
    use crate::rtp::testing::packet;
    use proptest::prelude::*;

    /// A packet as it is on the wire: a payload that sums to `payload`, under these addresses.
    fn under(seq: u64, payload: u16, src: Endpoint, dst: Endpoint) -> RtpPacket {
        let mut packet = packet(seq);
        packet.flow = Flow { src, dst }.into();
        let words = |endpoint: &Endpoint| {
            let words = endpoint.address.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
            words.sum::<u32>() + u32::from(endpoint.port)
        };
        let mut sum = words(&src) + words(&dst) + u32::from(payload);
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let checksum = !u16::try_from(sum).unwrap();
        packet.fingerprint.value = if checksum == 0 { 0xffff } else { checksum };
        packet
    }

    const INSIDE: ([u8; 4], u16) = ([10, 0, 0, 9], 4_000);
    const OUTSIDE: ([u8; 4], u16) = ([192, 0, 2, 1], 61_000);
    const FAR: ([u8; 4], u16) = ([198, 51, 100, 7], 20_000);

    fn at((address, port): ([u8; 4], u16)) -> Endpoint {
        Endpoint::v4(address, port)
    }

    fn sketch(packets: impl IntoIterator<Item = RtpPacket>) -> (StreamKey, Sketch, u64) {
        let mut sketch = Sketch::default();
        let packets: Vec<_> = packets.into_iter().collect();
        for packet in &packets {
            sketch.observe(packet);
        }
        ((&packets[0]).into(), sketch, packets.len() as u64)
    }

    fn legs(streams: &[(StreamKey, Sketch, u64)]) -> Vec<Vec<LegReport>> {
        let legs: Vec<_> = streams
            .iter()
            .map(|(key, sketch, packets)| Leg { key: *key, sketch, packets: *packets, is_redundant: false })
            .collect();
        find(&legs)
    }

    fn payload(seq: u64) -> u16 {
        u16::try_from(seq.wrapping_mul(0x9e37) % 0xffff).unwrap()
    }

    #[test]
    fn both_sides_of_a_nat_are_one_stream_with_its_delay() {
        let inside = sketch((0..500).map(|seq| under(seq, payload(seq), at(INSIDE), at(FAR))));
        let outside = sketch((0..500).map(|seq| {
            let mut packet = under(seq, payload(seq), at(OUTSIDE), at(FAR));
            packet.time.0 += 250_000;
            packet
        }));
        let found = legs(&[inside, outside]);
        let delay = |ms| Delay { min: ms, p50: ms, max: ms };
        let leg = |src, ms| LegReport {
            src: at(src),
            dst: at(FAR),
            relation: Relation::Nat,
            matched_percent: 100.0,
            delay_ms: delay(ms),
            compared: SKETCH,
        };
        assert_eq!(found, [vec![leg(OUTSIDE, 0.25)], vec![leg(INSIDE, -0.25)]]);
    }

    #[test]
    fn a_relay_that_began_later_still_matches() {
        let near = sketch((0..2_000).map(|seq| under(seq, payload(seq), at(INSIDE), at(OUTSIDE))));
        let far = sketch((1_000..2_000).map(|seq| under(seq, payload(seq), at(OUTSIDE), at(FAR))));
        let found = legs(&[near, far]);
        let leg = &found[0][0];
        assert_eq!(leg.relation, Relation::Relay);
        assert!(leg.matched_percent > 60.0, "{}", leg.matched_percent);
    }

    #[test]
    fn what_comes_back_to_its_sender_is_an_echo_and_no_relay() {
        let there = sketch((0..500).map(|seq| under(seq, payload(seq), at(INSIDE), at(FAR))));
        let back = sketch((0..500).map(|seq| under(seq, payload(seq), at(FAR), at(INSIDE))));
        let relations: Vec<_> = legs(&[there, back]).iter().map(|legs| legs[0].relation).collect();
        assert_eq!(relations, [Relation::Echo, Relation::Echo]);
    }

    #[test]
    fn the_same_ssrc_with_another_payload_is_another_stream() {
        let one = sketch((0..500).map(|seq| under(seq, payload(seq), at(INSIDE), at(FAR))));
        let other = sketch((0..500).map(|seq| under(seq, payload(seq + 7), at(OUTSIDE), at(FAR))));
        assert_eq!(legs(&[one, other]), [vec![], vec![]]);
    }

    #[test]
    fn two_multicast_groups_are_redundancy() {
        let group = |last| at(([239, 0, 0, last], 5_004));
        let one = sketch((0..500).map(|seq| under(seq, payload(seq), at(INSIDE), group(1))));
        let other = sketch((0..500).map(|seq| under(seq, payload(seq), at(OUTSIDE), group(2))));
        assert_eq!(legs(&[one, other])[0][0].relation, Relation::Redundant);
    }

    #[test]
    fn a_sample_tells_its_identity_and_how_far_another_is_to_the_nanosecond() {
        let day = 86_400_000_000_000_u64;
        let sample = |ns: u64| Sample::new(0x0123_4567, 0x89ab, Nanos(1_700_000_000_000_000_000 + ns));
        assert_eq!((size_of::<Sample>(), size_of::<Sketch>()), (12, 12 * SKETCH + 2));
        assert_eq!((sample(0).identity(), sample(0).rank()), (0x0123_4567_89ab, 0x0123_4567));
        for ns in [0, 1, 250_000, day] {
            let signed = i64::try_from(ns).unwrap();
            assert_eq!((sample(ns).since(sample(0)), sample(0).since(sample(ns))), (signed, -signed));
        }
    }

    proptest! {
        #[test]
        fn a_sketch_holds_the_lowest_of_all_whatever_their_order(
            seqs in prop::collection::vec(0_u64..60, 1..80),
        ) {
            let packets = || seqs.iter().map(|seq| under(*seq, payload(*seq), at(INSIDE), at(FAR)));
            let (_, sketch, _) = sketch(packets());
            let mut lowest: Vec<_> = packets().map(|packet| (rank(&packet), payload_sum(&packet))).collect();
            lowest.sort_unstable();
            lowest.dedup();
            lowest.truncate(SKETCH);
            let held: Vec<_> =
                sketch.samples().iter().map(|sample| (sample.rank(), sample.identity[0])).collect();
            prop_assert_eq!(held, lowest);
        }

        #[test]
        fn the_sum_survives_any_rewrite(
            sum in 0_u16..0xffff, a in any::<[u8; 4]>(), b in any::<[u8; 4]>(), v6 in any::<[u8; 16]>(), port in any::<u16>(),
        ) {
            let first = under(1, sum, Endpoint::v4(a, port), at(FAR));
            let second = under(1, sum, Endpoint::v6(v6, port ^ 0x1111), Endpoint::v4(b, 9));
            prop_assert_eq!(payload_sum(&first), payload_sum(&second));
        }
    }
}
