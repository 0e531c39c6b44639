//! A distribution of microseconds that is small enough to keep one for every stream.
//!
//! Log-linear buckets as HdrHistogram has them: exact below 16 us, then eight buckets an octave up to 67 s,
//! so a bucket is never wider than an eighth of its value. Only the span of buckets in use has counters, and they begin
//! with 8 bits: 16 to 192 bytes, where an `hdrhistogram::Histogram` of the same range and two digits would be 18 KiB. The
//! first that is full gives all of them 8 more; what runs over those is carried to a third row that few histograms
//! need. Merging adds counters, hence is exact, associative and commutative. Reports convert to `hdrhistogram` for export.

mod pair;

use std::cell::RefCell;
use std::fmt;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};

pub(crate) use pair::Pair;

/// Buckets below the first octave: one per microsecond.
const LINEAR: usize = 16;
/// Buckets an octave.
const PER_OCTAVE: usize = 8;
/// Bits of the largest value held apart: 2^26 us is 67 s.
const MAX_BITS: usize = 26;
const BUCKETS: usize = LINEAR + (MAX_BITS - 4) * PER_OCTAVE;
const MAX_VALUE_US: u64 = (1 << MAX_BITS) - 1;
/// Decimal digits that an exported histogram tells apart: more than these buckets do.
const DIGITS: u8 = 2;

/// Buckets that the span of a histogram grows by.
const GROUP: usize = 16;

/// Counts of values in microseconds. Values above 67 s count as 67 s, but [`MicrosHistogram::max_ns`] is exact.
#[derive(Clone, Default)]
pub struct MicrosHistogram {
    cells: Cells,
    /// What did not fit in a cell, in units of 2^16.
    carries: Option<Box<[u32; BUCKETS]>>,
    count: u64,
}

/// Counters of a span of buckets, and the range of what was counted.
#[derive(Clone, Debug)]
struct Cells {
    /// The low octet of each, and behind them, if they are tall, the high octet of each.
    counts: Box<[u8]>,
    min_ns: u64,
    max_ns: u64,
    /// The first bucket that has one.
    first: u8,
    is_tall: bool,
}

impl Default for Cells {
    fn default() -> Self {
        Self { counts: Box::default(), min_ns: u64::MAX, max_ns: 0, first: 0, is_tall: false }
    }
}

impl Cells {
    /// The place of a value's counter, if it has one that is not full.
    #[inline]
    fn place(&self, value_ns: u64) -> Option<usize> {
        let at = index(value_ns / 1000).wrapping_sub(usize::from(self.first));
        let span = self.span();
        let is_free = at < span && (*self.counts.get(at)? < u8::MAX || has_room(&self.counts, span + at));
        is_free.then_some(at)
    }

    /// Counts a value, whose counter is at that place.
    #[inline]
    fn count(&mut self, at: usize, value_ns: u64) {
        let high = self.span() + at;
        if let Some(low) = self.counts.get_mut(at) {
            *low = low.wrapping_add(1);
            if *low == 0 {
                carry(&mut self.counts, high);
            }
        }
        self.widen(value_ns);
    }

    #[inline]
    fn widen(&mut self, value_ns: u64) {
        self.min_ns = self.min_ns.min(value_ns);
        self.max_ns = self.max_ns.max(value_ns);
    }

    /// Buckets that have a counter.
    fn span(&self) -> usize {
        self.counts.len() >> u8::from(self.is_tall)
    }

    /// Widens the span to one with `bucket` in it.
    #[cold]
    fn reach(&mut self, bucket: usize) {
        let group = bucket / GROUP * GROUP;
        let (from, to) = if self.counts.is_empty() {
            (group, group + GROUP)
        } else {
            let from = usize::from(self.first);
            (from.min(group), (from + self.span()).max(group + GROUP))
        };
        self.lay_out(from, to - from, self.is_tall);
    }

    /// Gives the counters other room, which is no less.
    fn lay_out(&mut self, first: usize, span: usize, is_tall: bool) {
        let mut counts = vec![0; span << u8::from(is_tall)].into_boxed_slice();
        let before = usize::from(self.first).saturating_sub(first);
        if !self.counts.is_empty() {
            for (to, from) in counts.chunks_mut(span).zip(self.counts.chunks(self.span())) {
                for (count, old) in to.iter_mut().skip(before).zip(from) {
                    *count = *old;
                }
            }
        }
        (self.counts, self.is_tall) = (counts, is_tall);
        self.first = u8::try_from(first).unwrap_or(0);
    }

    fn get(&self, bucket: usize) -> u16 {
        let at = bucket.wrapping_sub(usize::from(self.first));
        if at >= self.span() {
            return 0;
        }
        let octet = |at: usize| self.counts.get(at).copied().unwrap_or(0);
        u16::from_le_bytes([octet(at), octet(self.span() + at)])
    }

    /// Sets a bucket's counter, which is there.
    fn set(&mut self, bucket: usize, count: u16) {
        let [low, high] = count.to_le_bytes();
        if high > 0 && !self.is_tall {
            self.lay_out(usize::from(self.first), self.span(), true);
        }
        let (at, span) = (bucket.wrapping_sub(usize::from(self.first)), self.span());
        for (at, octet) in [(at, low), (span + at, high)] {
            if let Some(place) = self.counts.get_mut(at) {
                *place = octet;
            }
        }
    }

    /// The same span, with nothing counted.
    fn cleared(&self) -> Self {
        let counts = vec![0; self.counts.len()].into_boxed_slice();
        Self { counts, first: self.first, is_tall: self.is_tall, ..Self::default() }
    }
}

/// What of a distribution is left beside an orderly run, if there is more than a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    range_ns: (u64, u64),
    carries: Option<Box<[u32; BUCKETS]>>,
}

impl Default for Rest {
    fn default() -> Self {
        let Cells { min_ns, max_ns, .. } = Cells::default();
        Self { range_ns: (min_ns, max_ns), carries: None }
    }
}

impl PartialEq for MicrosHistogram {
    /// The same values were counted, whatever room there is for more.
    fn eq(&self, other: &Self) -> bool {
        let Self { cells, carries: _, count } = self;
        *count == other.count
            && (cells.min_ns, cells.max_ns) == (other.cells.min_ns, other.cells.max_ns)
            && self.buckets().eq(other.buckets())
    }
}

impl Eq for MicrosHistogram {}

impl fmt::Debug for MicrosHistogram {
    /// What was counted, whatever room there is for more: range in nanoseconds, and the counts of buckets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cells, carries: _, count } = self;
        let buckets = self.buckets().enumerate().filter(|(_, count)| *count > 0);
        f.debug_map()
            .entry(&"count", count)
            .entry(&"range", &(cells.min_ns, cells.max_ns))
            .entries(buckets)
            .finish()
    }
}

impl MicrosHistogram {
    /// Counts one value.
    pub fn record_ns(&mut self, value_ns: u64) {
        if let Some(at) = self.cells.place(value_ns) {
            self.cells.count(at, value_ns);
        } else {
            self.add(index(value_ns / 1000), 1);
            self.cells.widen(value_ns);
        }
        self.count += 1;
    }

    /// Adds to one bucket, whatever is in it.
    #[cold]
    fn add(&mut self, bucket: usize, more: u64) {
        if bucket.wrapping_sub(usize::from(self.cells.first)) >= self.cells.span() {
            self.cells.reach(bucket);
        }
        let sum = u64::from(self.cells.get(bucket)) + more;
        #[expect(clippy::cast_possible_truncation, reason = "the rest is carried")]
        self.cells.set(bucket, sum as u16);
        let carry = u32::try_from(sum >> 16).unwrap_or(u32::MAX);
        if carry > 0
            && let Some(carried) = self.carries.get_or_insert_with(|| Box::new([0; BUCKETS])).get_mut(bucket)
        {
            *carried = carried.saturating_add(carry);
        }
    }

    /// The count of each bucket.
    fn buckets(&self) -> impl Iterator<Item = u64> {
        (0..BUCKETS).map(|bucket| {
            let carried = self.carries.as_ref().and_then(|carries| carries.get(bucket)).copied();
            u64::from(carried.unwrap_or(0)) << 16 | u64::from(self.cells.get(bucket))
        })
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.buckets().enumerate().filter(|(_, count)| *count > 0) {
            self.add(bucket, count);
        }
        self.count += other.count;
        self.cells.min_ns = self.cells.min_ns.min(other.cells.min_ns);
        self.cells.max_ns = self.cells.max_ns.max(other.cells.max_ns);
    }

    /// Takes out all that was counted; room stays for as much.
    fn take(&mut self) -> Self {
        let empty = Self { cells: self.cells.cleared(), ..Self::default() };
        std::mem::replace(self, empty)
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Smallest value, exact; `None` if there is none.
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.cells.min_ns)
    }

    /// Largest value, exact; `None` if there is none.
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.cells.max_ns)
    }

    /// The value that `percent` of all values do not exceed, in microseconds: the middle of its bucket, but
    /// never outside of what was seen. `None` if nothing was.
    pub fn percentile_us(&self, percent: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank: 1..=count")]
        let rank = ((percent * self.count as f64 / 100.0 - 1e-9).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        let (mut low, mut width) = (MAX_VALUE_US, 1);
        for (bucket, count) in self.buckets().enumerate() {
            seen += count;
            if seen >= rank {
                (low, width) = range(bucket);
                break;
            }
        }
        let middle = low as f64 + (width - 1) as f64 / 2.0;
        Some(middle.clamp(self.cells.min_ns as f64 / 1000.0, self.cells.max_ns as f64 / 1000.0))
    }

    /// As an `hdrhistogram`, for merging and export beyond this program.
    pub fn to_hdr(&self) -> Histogram<u64> {
        let mut hdr = empty_hdr();
        self.add_to(&mut hdr);
        hdr
    }

    fn add_to(&self, hdr: &mut Histogram<u64>) {
        for (value, count) in self.middles() {
            hdr.saturating_record_n(value, count);
        }
    }

    /// HdrHistogram's own interchange form: V2, compressed, in base64, in microseconds.
    /// `None` only of a histogram too large for it, which this is not.
    pub fn to_v2_base64(&self) -> Option<String> {
        use base64::Engine as _;
        let bytes = EXPORTER.with_borrow_mut(|exporter| exporter.v2_compressed(self))?;
        Some(base64::engine::general_purpose::STANDARD.encode(bytes))
    }

    /// Each bucket with something in it: a value in its middle, and the count.
    fn middles(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets().enumerate().filter(|(_, count)| *count > 0).map(|(bucket, count)| {
            let (low, width) = range(bucket);
            (low + (width - 1) / 2, count)
        })
    }
}

/// # Panics
/// Never: the bounds are constants that the library accepts.
fn empty_hdr() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_VALUE_US, DIGITS).expect("constant bounds are valid")
}

thread_local! {
    /// The library's counters are 18 KiB for a histogram of a hundred bytes: each thread has them once.
    static EXPORTER: RefCell<Exporter> = RefCell::new(Exporter::new());
}

/// Writes what `hdrhistogram`'s `V2DeflateSerializer` does, with a compressor for short texts: a general one sets up 300 KiB
/// for each histogram, which was a twelfth of analysing a file.
struct Exporter {
    hdr: Histogram<u64>,
    serializer: V2Serializer,
    plain: Vec<u8>,
}

impl Exporter {
    /// Cookie of the V2 compressed form (HdrHistogram's format, V2; 0x10 says that words are packed).
    const COOKIE: u32 = 0x1c84_9304 | 0x10;

    fn new() -> Self {
        Self { hdr: empty_hdr(), serializer: V2Serializer::new(), plain: Vec::new() }
    }

    fn v2_compressed(&mut self, histogram: &MicrosHistogram) -> Option<Vec<u8>> {
        let Self { hdr, serializer, plain } = self;
        hdr.reset();
        histogram.add_to(hdr);
        plain.clear();
        serializer.serialize(hdr, plain).ok()?;
        let zlib = fdeflate::compress_to_vec(plain);
        let length = u32::try_from(zlib.len()).ok()?;
        Some([&Self::COOKIE.to_be_bytes(), &length.to_be_bytes(), zlib.as_slice()].concat())
    }
}

/// A distribution of one interval, and of the whole life before it.
///
/// The part for the life is made when the first interval closes: files have none, and pay for one histogram.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    interval: MicrosHistogram,
    before: Option<Box<MicrosHistogram>>,
}

impl Distribution {
    /// Counts one value.
    pub fn record_ns(&mut self, value_ns: u64) {
        self.interval.record_ns(value_ns);
    }

    /// So many values were counted by the [`Pair`] that it was lent to.
    pub(crate) fn count(&mut self, values: u64) {
        self.interval.count += values;
    }

    /// What is left of it beside the [`Pair`] that it was lent to, and what was before the interval.
    pub(crate) fn into_rest(self) -> (Rest, Option<Box<MicrosHistogram>>) {
        let Cells { min_ns, max_ns, .. } = self.interval.cells;
        (Rest { range_ns: (min_ns, max_ns), carries: self.interval.carries }, self.before)
    }

    /// The same, whole again: so many values were counted in its life.
    pub(crate) fn of_rest(values: u64, rest: Rest, before: Option<Box<MicrosHistogram>>) -> Self {
        let Rest { range_ns: (min_ns, max_ns), carries } = rest;
        let cells = Cells { min_ns, max_ns, ..Cells::default() };
        let count = values - before.as_ref().map_or(0, |before| before.count);
        Self { interval: MicrosHistogram { cells, carries, count }, before }
    }

    /// The interval's; the next one begins.
    pub fn close_interval(&mut self) -> MicrosHistogram {
        let closed = self.interval.take();
        self.before.get_or_insert_default().merge(&closed);
        closed
    }

    /// All of it.
    pub fn into_life(mut self) -> MicrosHistogram {
        if let Some(before) = self.before {
            self.interval.merge(&before);
        }
        self.interval
    }
}

/// May a counter whose low octet is full still count? Its high octet, if there is one, is there.
#[cold]
fn has_room(counts: &[u8], high: usize) -> bool {
    counts.get(high).is_some_and(|high| *high < u8::MAX)
}

/// Takes what ran over a low octet.
#[cold]
fn carry(counts: &mut [u8], high: usize) {
    if let Some(high) = counts.get_mut(high) {
        *high += 1;
    }
}

/// The bucket of a value.
#[inline]
fn index(value_us: u64) -> usize {
    bucket(u32::try_from(value_us.min(MAX_VALUE_US)).unwrap_or(0))
}

/// The same of a value in the range. Below 16 each value is a bucket; from there on, an octave's buckets are the value's three
/// bits after the first. Both are one sum: so many octaves of eight, and the value's first four bits.
#[inline]
fn bucket(value_us: u32) -> usize {
    let octaves = (value_us | 1 << 3).ilog2() - 3;
    octaves as usize * PER_OCTAVE + (value_us >> octaves) as usize
}

/// Lowest value of a bucket, and how many values it holds.
fn range(bucket: usize) -> (u64, u64) {
    if bucket < LINEAR {
        return (bucket as u64, 1);
    }
    let octave = 4 + (bucket - LINEAR) / PER_OCTAVE;
    let step = 1_u64 << (octave - 3);
    ((1 << octave) + ((bucket - LINEAR) % PER_OCTAVE) as u64 * step, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values_us: &[u64]) -> MicrosHistogram {
        let mut histogram = MicrosHistogram::default();
        for value in values_us {
            histogram.record_ns(value * 1000);
        }
        histogram
    }

    #[test]
    fn buckets_tile_the_range_without_gap_or_overlap() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, width) = range(bucket);
            assert_eq!(low, next);
            assert_eq!((index(low), index(low + width - 1)), (bucket, bucket));
            next = low + width;
        }
        assert_eq!(next, MAX_VALUE_US + 1);
    }

    #[test]
    fn a_histogram_is_as_wide_as_what_it_counts() {
        let counters = |histogram: &MicrosHistogram| histogram.cells.span();
        assert_eq!(counters(&of(&[3, 15])), GROUP);
        assert_eq!((counters(&of(&[900, 700])), counters(&of(&[900, 1_200, 700]))), (GROUP, 2 * GROUP));
        assert_eq!(counters(&of(&[0, u64::MAX / 1_000])), BUCKETS);
    }

    #[test]
    fn the_first_full_counter_makes_all_of_them_tall_and_changes_none() {
        let mut histogram = of(&[3; 255]);
        assert_eq!((histogram.cells.counts.len(), histogram.cells.place(3_000)), (GROUP, None));
        histogram.record_ns(3_000);
        histogram.record_ns(70_000);
        assert_eq!(histogram.cells.counts.len(), 2 * histogram.cells.span());
        assert_eq!([3, index(70), 4].map(|bucket| histogram.cells.get(bucket)), [256, 1, 0]);
        assert_eq!(histogram.cells.cleared().get(3), 0);
    }

    #[test]
    fn a_full_counter_carries_on() {
        let mut histogram = of(&[5]);
        for _ in 0..200_000 {
            histogram.record_ns(900_000);
        }
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!((histogram.buckets().sum::<u64>(), twice.buckets().sum::<u64>()), (200_001, 400_002));
        assert_eq!(histogram.percentile_us(50.0), Some(900.0));
        assert_eq!(twice.to_hdr().len(), 400_002);
    }

    #[test]
    fn values_beyond_the_range_keep_their_maximum() {
        let histogram = of(&[100_000_000]);
        assert_eq!(histogram.max_ns(), Some(100_000_000_000));
        assert_eq!(histogram.percentile_us(50.0), Some(100_000_000.0));
    }

    #[test]
    fn export_decodes_with_the_reference_library() {
        use base64::Engine as _;
        let text = of(&[3, 3, 900, 70_000]).to_v2_base64().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let decoded: Histogram<u64> =
            hdrhistogram::serialization::Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!((decoded.len(), decoded.value_at_percentile(50.0)), (4, 3));
    }

    #[test]
    fn intervals_add_up_to_the_life() {
        let mut distribution = Distribution::default();
        let mut intervals = MicrosHistogram::default();
        for n in 1..=100_u64 {
            distribution.record_ns(n * n * 1000);
            if n % 30 == 0 {
                intervals.merge(&distribution.close_interval());
            }
        }
        intervals.merge(&distribution.clone().close_interval());
        assert_eq!(distribution.into_life(), intervals);
        assert_eq!(intervals.count(), 100);
    }

    proptest! {
        /// Counters that are used again leave nothing of one histogram in the next.
        #[test]
        fn each_export_decodes_to_its_histogram(
            values in prop::collection::vec(prop::collection::vec(0_u64..90_000_000, 0..2_000), 1..4),
        ) {
            use base64::Engine as _;
            for values in &values {
                let histogram = of(values);
                let text = histogram.to_v2_base64().unwrap();
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
                let mut library = hdrhistogram::serialization::Deserializer::new();
                let decoded: Histogram<u64> = library.deserialize(&mut bytes.as_slice()).unwrap();
                prop_assert_eq!(decoded, histogram.to_hdr());
            }
        }

        /// Probes exchange the V2 form: adding up what they export is the export of what they saw together.
        #[test]
        fn merging_exports_is_exporting_the_merged(
            a in prop::collection::vec(0_u64..90_000_000, 0..50),
            b in prop::collection::vec(0_u64..90_000_000, 0..50),
        ) {
            let (a, b) = (of(&a), of(&b));
            let mut exported = a.to_hdr();
            exported.add(b.to_hdr()).unwrap();
            let mut merged = a;
            merged.merge(&b);
            prop_assert_eq!(exported, merged.to_hdr());
        }

        /// Spelled out: a bucket a microsecond below the first octave, then eight an octave.
        #[test]
        fn a_bucket_is_an_octave_and_three_bits(value_us in prop_oneof![0_u64..64, 0..2 * MAX_VALUE_US]) {
            let value = value_us.min(MAX_VALUE_US);
            let octave = u64::from(value.max(1).ilog2());
            let spelled_out =
                if value < 16 { value } else { 16 + (octave - 4) * 8 + (value >> (octave - 3) & 7) };
            prop_assert_eq!(index(value_us) as u64, spelled_out);
        }

        #[test]
        fn percentiles_are_within_a_sixteenth(mut values in prop::collection::vec(0_u64..60_000_000, 1..200)) {
            let histogram = of(&values);
            values.sort_unstable();
            for per_mille in [500_u16, 900, 990, 999] {
                let percent = f64::from(per_mille) / 10.0;
                let rank = (values.len() * usize::from(per_mille)).div_ceil(1000);
                let exact = values[rank - 1] as f64;
                let got = histogram.percentile_us(percent).unwrap();
                prop_assert!((got - exact).abs() <= exact / 16.0 + 0.5, "{percent}: {got} for {exact}");
            }
        }

        #[test]
        fn merge_is_associative_and_commutative(
            a in prop::collection::vec(0_u64..90_000_000, 0..50),
            b in prop::collection::vec(0_u64..90_000_000, 0..50),
            c in prop::collection::vec(0_u64..90_000_000, 0..50),
        ) {
            let (a, b, c) = (of(&a), of(&b), of(&c));
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut right = c;
            right.merge(&b);
            right.merge(&a);
            prop_assert_eq!(left, right);
        }
    }
}
