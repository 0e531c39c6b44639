//! The streams of one shard, bounded.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use super::index::{Hash, Index};
use super::memory::{Slab, prefetch};
use super::shed::Resumed;
use super::wheel::{Part, Wheel};
use crate::dedup::FrameClass;
use crate::packet::{Encapsulation, MediaId, Nanos, RtpPacket};
use crate::rtp::KeyWords;
use crate::rtp::codec::Announcement;
use crate::rtp::quality::Settings;
use crate::rtp::run::{Look, Run};
use crate::rtp::stream::{IntervalSummary, Rest, Stream, StreamParts};

/// Entries looked at to find one to evict; a fixed price on the data path.
const EVICTION_PROBES: usize = 32;

/// How much a shard may hold, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams of this shard. One takes 1.1 KiB at first and about 2.3 once its window is full, and 6 or more where several taps
    /// see it.
    pub streams: usize,
    /// A stream silent for so long has ended; `None` in files, where only the end ends it.
    pub idle: Option<std::time::Duration>,
    /// How quality is judged.
    pub quality: Arc<Settings>,
}

/// Why a stream is no longer in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing came for [`Limits::idle`].
    Silent,
    /// The table was full and another needed the place.
    Evicted,
    /// Its session was shed, and comes back: what follows is another stream, and no gap in this one.
    Shed,
    /// The capture ended.
    Finished,
}

/// Packets whose memory is asked for before the first of them is observed. A line takes up to 100 ns to come; so many packets
/// take some 500 ns, and their lines fit in the first-level cache.
const AHEAD: usize = 16;
/// Streams whose memory is asked for before one is closed: two KiB each.
const CLOSED_AHEAD: usize = 4;
/// Buckets of sessions, as an index.
const BUCKETS: usize = probe_ebpf::flow::BUCKETS as usize;
/// Frames in a row, none of them a copy, after which a run begins.
const CALM: u8 = 4;

/// See the module.
#[derive(Debug)]
pub struct StreamTable {
    limits: Limits,
    epoch: Option<Nanos>,
    /// Depth of the fixed de-jitter buffer.
    depth_ns: f64,
    index: Index,
    /// What a packet of a stream touches nearly always, and the rest of it, at the same place.
    hot: Slab<Hot>,
    cold: Slab<Cold>,
    /// When each is looked at.
    wheel: Wheel,
    /// Places of the part that is looked at, or of those of it that end.
    places: Vec<usize>,
    /// By the media id's slot, so that ids which will not come again are replaced, not collected.
    announcements: HashMap<u32, (MediaId, Arc<Announcement>), FxBuildHasher>,
    unannounced: Arc<Announcement>,
    /// Until when nothing came of the sessions of each bucket that were shed; absent until some were.
    resumed: Option<Box<[Nanos; BUCKETS]>>,
    /// Streams that ended because they were, and that nobody has taken yet.
    shed: Vec<StreamParts>,
    probe: usize,
    evicted: u64,
}

/// A stream's key, and its run if it has one: eight lines of memory.
#[derive(Debug)]
#[repr(align(64))]
struct Hot {
    key: KeyWords,
    state: State,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a run lies beside its key, or it would be one line of memory more"
)]
enum State {
    /// Frames in a row that were no copies, up to [`CALM`].
    Calm(u8),
    /// Orderly packets.
    Run(Run),
}

/// What else there is of a stream.
#[derive(Debug)]
enum Cold {
    /// One packet came, which may be all that ever comes.
    First(RtpPacket, Arc<Announcement>),
    /// It has no run, or has had none for long.
    Whole(Box<Stream>),
    /// It has one.
    Beside(Rest),
    /// Whoever took it puts it back.
    Away,
}

impl Cold {
    /// Does what a run asks for before it takes `packet`. A stream whose run is long goes to rest.
    #[cold]
    fn serve(&mut self, run: &mut Run, packet: &RtpPacket) {
        match self {
            Self::Beside(rest) => rest.serve(run, packet),
            Self::Whole(stream) => {
                stream.serve(run, packet);
                if stream.is_at_rest(run) {
                    self.go_to_rest(run);
                }
            }
            Self::First(..) | Self::Away => {}
        }
    }

    /// Keeps of a stream what it must beside its run.
    fn go_to_rest(&mut self, run: &Run) {
        if let Self::Whole(stream) = std::mem::replace(self, Self::Away)
            && let Some(rest) = stream.into_rest(run)
        {
            *self = Self::Beside(rest);
        }
    }
}

impl Hot {
    /// Of a stream that begins: nothing has disturbed it yet.
    fn new(key: KeyWords) -> Self {
        Self { key, state: State::Calm(CALM) }
    }

    #[inline]
    fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Calm(_) => None,
            State::Run(run) => Some(run),
        }
    }
}

/// A stream in one piece, whatever became of its parts. `None` if there is none.
fn whole(
    state: State,
    cold: Cold,
    key: KeyWords,
    epoch: Nanos,
    settings: &Arc<Settings>,
) -> Option<Box<Stream>> {
    let settings = Arc::clone(settings);
    match (state, cold) {
        (_, Cold::First(packet, announcement)) => {
            Some(Box::new(Stream::judged(&packet, packet.number, epoch, announcement, settings)))
        }
        (State::Calm(_), Cold::Whole(stream)) => Some(stream),
        (State::Run(run), Cold::Whole(mut stream)) => {
            stream.take_back(run);
            Some(stream)
        }
        (State::Run(run), Cold::Beside(rest)) => Some(rest.join(run, key.into(), settings)),
        (State::Calm(_), Cold::Beside(_)) | (_, Cold::Away) => None,
    }
}

impl StreamTable {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            epoch: None,
            depth_ns: limits.quality.jitter_buffer.depth_ns(),
            index: Index::new(limits.streams),
            hot: Slab::new(),
            cold: Slab::new(),
            wheel: Wheel::new(limits.streams),
            places: Vec::new(),
            announcements: HashMap::default(),
            unannounced: Arc::default(),
            resumed: None,
            shed: Vec::new(),
            probe: 0,
            evicted: 0,
            limits,
        }
    }

    /// The time of the capture's first frame, from which the raw ledger counts.
    pub fn set_epoch(&mut self, epoch: Nanos) {
        self.epoch = Some(epoch);
    }

    /// What a media id stands for; comes before the first packet that carries it.
    pub fn announce(&mut self, media: MediaId, announcement: Arc<Announcement>) {
        self.announcements.insert(media.slot(), (media, announcement));
    }

    fn announcement(&self, media: MediaId) -> Arc<Announcement> {
        let known = self.announcements.get(&media.slot()).filter(|(id, _)| *id == media);
        Arc::clone(known.map_or(&self.unannounced, |(_, announcement)| announcement))
    }

    /// Counts one packet, and says what it is. A stream that had to leave for it is returned, too.
    pub fn observe(&mut self, packet: &RtpPacket) -> (FrameClass, Option<StreamParts>) {
        self.observe_at(packet, self.index.hash(&packet.into()))
    }

    /// Counts packets, in order. Streams that had to leave for them go to `evicted`.
    ///
    /// The memory of several packets is on its way at once: first the index's lines, then the streams', then what those
    /// point to. Budget with `AHEAD` packets under way: 50 ns a packet with 2,000 streams, 80 with 20,000; `voxlab core-cost`
    /// measures.
    pub fn observe_batch(&mut self, packets: &[RtpPacket], mut evicted: impl FnMut(StreamParts)) {
        let mut hashes = [Hash::default(); AHEAD];
        for packets in packets.chunks(AHEAD) {
            for (hash, packet) in hashes.iter_mut().zip(packets) {
                *hash = self.index.hash(&packet.into());
                self.index.prefetch(*hash);
            }
            let mut places = [None; AHEAD];
            for (place, hash) in places.iter_mut().zip(hashes.iter().take(packets.len())) {
                // The first that has the hash: nearly always the one.
                *place = self.index.find(*hash, |_| true);
                if let Some(hot) = place.and_then(|at| self.hot.get(at)) {
                    prefetch(hot);
                }
            }
            for run in places.into_iter().flatten().filter_map(|at| self.hot.get(at)?.run()) {
                let (slot, counters) = run.beyond();
                slot.map(prefetch);
                counters.into_iter().for_each(prefetch);
            }
            for (packet, hash) in packets.iter().zip(hashes) {
                if let (_, Some(gone)) = self.observe_at(packet, hash) {
                    evicted(gone);
                }
            }
        }
    }

    #[inline]
    fn observe_at(&mut self, packet: &RtpPacket, hash: Hash) -> (FrameClass, Option<StreamParts>) {
        let epoch = *self.epoch.get_or_insert(packet.time);
        let key = KeyWords::from(packet);
        let Some(at) = self.index.find(hash, |at| self.hot.get(at).is_some_and(|hot| hot.key == key)) else {
            return (FrameClass::Unique, self.begin(key, hash, packet));
        };
        if let Some(Hot { state: State::Run(run), .. }) = self.hot.get_mut(at) {
            let look = run.look(packet);
            if look == Look::Serve
                && let Some(cold) = self.cold.get_mut(at)
            {
                cold.serve(run, packet);
            }
            if look != Look::Other && run.take(packet, epoch, self.depth_ns) {
                return (FrameClass::Unique, None);
            }
        }
        (self.observe_whole(at, packet, epoch), None)
    }

    /// What is not the next packet of a run: the whole stream looks at it.
    #[cold]
    fn observe_whole(&mut self, at: usize, packet: &RtpPacket, epoch: Nanos) -> FrameClass {
        if self.is_back(at) {
            let shed = self.remove(at);
            self.shed.extend(shed);
            let key = KeyWords::from(packet);
            // Nobody has to make room: there is some now.
            self.begin(key, self.index.hash(&key), packet);
            return FrameClass::Unique;
        }
        let Some((calm, mut stream)) = self.take(at) else { return FrameClass::Other };
        if packet.media != stream.media() && packet.media != MediaId::UNANNOUNCED {
            stream.announce(packet.media, self.announcement(packet.media));
        }
        let class = stream.observe(packet, epoch);
        let calm = if class == FrameClass::Unique { CALM.min(calm + 1) } else { 0 };
        let run = if calm == CALM { stream.lend(packet) } else { None };
        let may_rest = stream.is_young_and_calm();
        self.put(at, calm, stream, run, may_rest);
        class
    }

    /// Takes a stream out in one piece, its run ended, and says how calm it was; [`StreamTable::put`] brings it back.
    fn take(&mut self, at: usize) -> Option<(u8, Box<Stream>)> {
        let (hot, cold) = (self.hot.get_mut(at)?, self.cold.get_mut(at)?);
        let state = std::mem::replace(&mut hot.state, State::Calm(0));
        let cold = std::mem::replace(cold, Cold::Away);
        let calm = if let State::Calm(calm) = state { calm } else { CALM };
        let stream = whole(state, cold, hot.key, self.epoch.unwrap_or_default(), &self.limits.quality)?;
        Some((calm, stream))
    }

    /// Puts a stream back with the run that it was lent to, if there is one, beside which it may rest.
    fn put(&mut self, at: usize, calm: u8, stream: Box<Stream>, run: Option<Run>, may_rest: bool) {
        let (Some(hot), Some(cold)) = (self.hot.get_mut(at), self.cold.get_mut(at)) else { return };
        *cold = Cold::Whole(stream);
        hot.state = match run {
            Some(run) => {
                if may_rest {
                    cold.go_to_rest(&run);
                }
                State::Run(run)
            }
            None => State::Calm(calm),
        };
    }

    #[cold]
    fn begin(&mut self, key: KeyWords, hash: Hash, packet: &RtpPacket) -> Option<StreamParts> {
        let evicted = if self.len() >= self.limits.streams { self.evict() } else { None };
        self.index.insert(hash, self.len());
        let announcement = self.announcement(packet.media);
        self.cold.push(Cold::First(*packet, announcement));
        self.hot.push(Hot::new(key));
        self.wheel.push(packet.number);
        evicted
    }

    /// Makes room: of a few entries, one that never proved to be RTP, else the one silent for longest.
    #[cold]
    fn evict(&mut self) -> Option<StreamParts> {
        let count = self.len();
        let candidate = (0..EVICTION_PROBES.min(count))
            .map(|step| (self.probe + step) % count)
            .min_by_key(|&at| (self.is_valid(at), self.last_seen(at)))?;
        self.probe = (self.probe + EVICTION_PROBES) % count;
        self.evicted += 1;
        self.remove(candidate)
    }

    fn last_seen(&self, at: usize) -> Option<Nanos> {
        match self.cold.get(at)? {
            Cold::First(packet, _) => Some(packet.time),
            Cold::Whole(stream) => {
                Some(self.hot.get(at)?.run().map_or_else(|| stream.last_seen(), Run::last_seen))
            }
            Cold::Beside(_) => self.hot.get(at)?.run().map(Run::last_seen),
            Cold::Away => None,
        }
    }

    /// Is it more than a byte pattern?
    fn is_valid(&self, at: usize) -> bool {
        let run = self.hot.get(at).and_then(Hot::run);
        match self.cold.get(at) {
            Some(Cold::First(packet, _)) => packet.media != MediaId::UNANNOUNCED,
            Some(Cold::Whole(stream)) => {
                run.map_or_else(|| stream.is_valid(), |run| stream.is_valid_with(run))
            }
            Some(Cold::Beside(rest)) => run.is_some_and(|run| rest.is_valid(run)),
            Some(Cold::Away) | None => false,
        }
    }

    /// Encapsulation of the first frame.
    fn encapsulation(&self, at: usize) -> Option<Encapsulation> {
        match self.cold.get(at)? {
            Cold::First(packet, _) => Some(packet.evidence.encapsulation),
            Cold::Whole(stream) => Some(stream.encapsulation()),
            Cold::Beside(rest) => Some(rest.encapsulation()),
            Cold::Away => None,
        }
    }

    fn remove(&mut self, at: usize) -> Option<StreamParts> {
        let stream = self.take(at);
        let key = self.hot.swap_remove(at)?.key;
        self.wheel.swap_remove(at);
        self.index.remove(self.index.hash(&key), at);
        if let Some(moved) = self.hot.get(at) {
            self.index.relocate(self.index.hash(&moved.key), self.hot.len(), at);
        }
        self.cold.swap_remove(at);
        stream.map(|(_, stream)| stream.into_parts())
    }

    /// Ends what of a part has been silent for too long.
    pub fn sweep(&mut self, part: Part, now: Nanos, ended: impl FnMut(StreamParts)) {
        let Some(idle) = self.limits.idle else { return };
        let idle_ns = i64::try_from(idle.as_nanos()).unwrap_or(i64::MAX);
        let mut silent = std::mem::take(&mut self.places);
        let is_silent = |at: &usize| self.last_seen(*at).is_some_and(|last| now.since(last) > idle_ns);
        silent.extend(self.wheel.places(part).filter(is_silent));
        // From the end, so that those that move up are none of them.
        silent.sort_unstable();
        silent.drain(..).rev().filter_map(|at| self.remove(at)).for_each(ended);
        self.places = silent;
    }

    /// Sessions that were shed come back. A stream of theirs ends when its next packet comes, which begins another: to look for
    /// all of them now would keep packets waiting.
    pub fn end_shed(&mut self, resumed: Resumed) {
        let silent_since = self.resumed.get_or_insert_with(|| Box::new([Nanos::default(); BUCKETS]));
        for (bucket, since) in (0..=u8::MAX).zip(silent_since.iter_mut()) {
            if resumed.has(bucket, Nanos::default()) {
                *since = (*since).max(resumed.silent_since);
            }
        }
    }

    /// Streams that were shed and have come back as others, since the last call.
    pub fn take_shed(&mut self) -> Vec<StreamParts> {
        std::mem::take(&mut self.shed)
    }

    /// Was a stream shed before the packet that comes now? What came in a tunnel was not.
    fn is_back(&self, at: usize) -> bool {
        let Some(silent_since) = &self.resumed else { return false };
        let since = self.hot.get(at).and_then(|hot| silent_since.get(usize::from(hot.key.flow.bucket())));
        since.zip(self.last_seen(at)).is_some_and(|(since, last_seen)| last_seen <= *since)
            && self.encapsulation(at) == Some(Encapsulation::NONE)
    }

    /// Closes the interval of every stream of a part that is more than a byte pattern.
    ///
    /// Budget: 4 us a stream that has left the caches, a third of it the allocator's for its line; `voxlab core-cost --interval`
    /// measures.
    pub fn close_intervals(&mut self, part: Part, mut closed: impl FnMut(&Stream, IntervalSummary)) {
        let mut places = std::mem::take(&mut self.places);
        places.extend(self.wheel.places(part));
        for (next, at) in places.iter().enumerate() {
            if let Some(ahead) = places.get(next + CLOSED_AHEAD) {
                self.hot.get(*ahead).into_iter().for_each(prefetch);
                self.cold.get(*ahead).into_iter().for_each(prefetch);
            }
            self.close_interval(*at, &mut closed);
        }
        places.clear();
        self.places = places;
    }

    fn close_interval(&mut self, at: usize, closed: &mut impl FnMut(&Stream, IntervalSummary)) {
        if !self.is_valid(at) {
            return;
        }
        let has_run = self.hot.get(at).is_some_and(|hot| hot.run().is_some());
        let is_resting = matches!(self.cold.get(at), Some(Cold::Beside(_)));
        let Some((calm, mut stream)) = self.take(at) else { return };
        let summary = stream.close_interval();
        closed(&stream, summary);
        let run = if has_run { stream.lend_again() } else { None };
        self.put(at, calm, stream, run, is_resting);
    }

    /// Empties the table.
    pub fn finish(&mut self, ended: impl FnMut(StreamParts)) {
        self.index.clear();
        self.wheel.clear();
        let epoch = self.epoch.unwrap_or_default();
        let parts = self.hot.drain().zip(self.cold.drain());
        let streams =
            parts.filter_map(|(hot, cold)| whole(hot.state, cold, hot.key, epoch, &self.limits.quality));
        streams.map(|stream| stream.into_parts()).for_each(ended);
    }

    /// Streams now.
    pub fn len(&self) -> usize {
        self.hot.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Streams that had to make room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rtp::testing::packet;
    use proptest::prelude::*;

    fn stream(ssrc: u32, seq: u64) -> RtpPacket {
        let mut packet = packet(seq);
        packet.rtp.ssrc = ssrc;
        packet
    }

    fn table(streams: usize, idle_s: u64) -> StreamTable {
        let idle = Some(std::time::Duration::from_secs(idle_s));
        StreamTable::new(Limits { streams, idle, quality: Arc::default() })
    }

    #[test]
    fn a_flood_of_sources_stays_bounded_and_spares_the_streams_that_proved_themselves() {
        let mut table = table(20, 30);
        for ssrc in 0..10 {
            assert!(table.observe(&stream(ssrc, 1)).1.is_none());
            assert!(table.observe(&stream(ssrc, 2)).1.is_none());
        }
        for ssrc in 1_000..6_000 {
            if let Some(evicted) = table.observe(&stream(ssrc, 3)).1 {
                assert!(!evicted.valid, "{:#x} had proved itself", evicted.key.ssrc);
            }
        }
        assert_eq!((table.len(), table.evicted()), (20, 5_000 - 10));
        let mut valid = 0;
        table.finish(|parts| valid += u32::from(parts.valid));
        assert_eq!(valid, 10);
    }

    #[test]
    fn a_silent_stream_ends_once_and_begins_anew_when_it_comes_back() {
        let mut table = table(20, 30);
        table.observe(&stream(1, 1));
        table.observe(&stream(2, 1));
        table.observe(&stream(2, 1_600)); // 32 s later
        let mut ended = Vec::new();
        table.sweep(Part::WHOLE, stream(2, 1_600).time, |parts| ended.push(parts.key.ssrc));
        assert_eq!(ended, [1]);
        table.observe(&stream(1, 1_601));
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_stream_that_was_shed_ends_without_a_gap_when_it_comes_back() {
        let mut table = table(20, 1_000);
        for seq in 1..=100 {
            table.observe(&stream(1, seq));
            table.observe(&stream(2, seq));
        }
        let silent_since = stream(1, 150).time;
        table.end_shed(Resumed { first: 0, end: 256, silent_since });
        table.observe(&stream(1, 160));
        assert_eq!((table.take_shed().len(), table.len()), (1, 2));
        table.observe(&stream(1, 161));
        assert_eq!((table.observe(&stream(2, 400)).0, table.len()), (FrameClass::Unique, 2));
        let shed = table.take_shed();
        let figures = |parts: &StreamParts| (parts.key.ssrc, parts.unique.packets, parts.unique.lost);
        assert_eq!(shed.iter().map(figures).collect::<Vec<_>>(), [(2, 100, 0)]);
        let mut rest = Vec::new();
        table.finish(|parts| rest.push(figures(&parts)));
        assert_eq!(rest, [(1, 2, 0), (2, 1, 0)]);
    }

    #[test]
    fn an_announcement_reaches_streams_that_began_before_it() {
        let mut table = table(20, 30);
        table.observe(&stream(1, 1));
        let announced = Announcement { call_id: Some("call".into()), ..Announcement::default() };
        table.announce(MediaId(7), Arc::new(announced));
        table.observe(&RtpPacket { media: MediaId(7), ..stream(1, 2) });
        let mut call_id = None;
        table.finish(|parts| call_id = parts.announcement.call_id.clone());
        assert_eq!(call_id.as_deref(), Some("call"));
    }

    #[test]
    fn sizes_are_what_the_documents_say() {
        assert_eq!(size_of::<Hot>(), 8 * 64);
        assert!(size_of::<Cold>() <= 3 * 64, "{}", size_of::<Cold>());
    }

    /// Where its octets are: eight lines, three, 1 KiB of window, and nothing for what did not happen.
    #[test]
    fn an_orderly_stream_is_a_run_and_a_rest_without_troubles() {
        let mut table = table(20, 30);
        for seq in 1..=200 {
            table.observe(&stream(1, seq));
        }
        let is_calm = |table: &StreamTable| match table.cold.get(0) {
            Some(Cold::Beside(rest)) => rest.has_no_troubles(),
            _ => false,
        };
        assert!(is_calm(&table));
        // An interval leaves no trace in it.
        table.close_intervals(Part::WHOLE, |_, _| ());
        assert!(is_calm(&table));
        // After a loss it is whole beside its run, until that is long.
        table.observe(&stream(1, 202));
        assert!(matches!(table.cold.get(0), Some(Cold::Whole(_))));
        for seq in 203..=1_000 {
            table.observe(&stream(1, seq));
        }
        assert!(matches!(table.cold.get(0), Some(Cold::Beside(rest)) if !rest.has_no_troubles()));
    }

    /// What a network, taps and a sender do to one packet of a sequence.
    #[derive(Clone, Copy, Debug)]
    enum Trouble {
        Lost,
        Late,
        Copied,
        CopiedByAnotherTap,
        Marked,
        OfAnotherType,
        Jump,
        Delayed(u64),
        TakenElsewhere,
        IntervalEnds,
        TimestampJumps,
    }

    fn trouble() -> impl Strategy<Value = Trouble> {
        use Trouble::*;
        let plain = [
            Lost,
            Late,
            Copied,
            CopiedByAnotherTap,
            Marked,
            OfAnotherType,
            Jump,
            TakenElsewhere,
            IntervalEnds,
            TimestampJumps,
        ];
        prop_oneof![prop::sample::select(plain.to_vec()), (0_u64..500_000_000).prop_map(Delayed)]
    }

    /// The packets of a stream that starts at `first`, and after how many of them an interval ends.
    fn played(first: u16, troubles: &[(u16, Trouble)]) -> (Vec<RtpPacket>, Vec<usize>) {
        let (mut packets, mut ends) = (Vec::new(), Vec::new());
        let (mut seq, mut shift) = (u64::from(first), 0_u32);
        for (calm, trouble) in troubles {
            for _ in 0..*calm {
                seq += 1;
                let mut packet = packet(seq);
                packet.rtp.timestamp = packet.rtp.timestamp.wrapping_add(shift);
                packet.delay(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 42);
                packets.push(packet);
            }
            seq += 1;
            let mut packet = packet(seq);
            packet.rtp.timestamp = packet.rtp.timestamp.wrapping_add(shift);
            match *trouble {
                Trouble::Lost => continue,
                Trouble::Late => packets.insert(packets.len().saturating_sub(2), packet),
                Trouble::Copied => packets.push(packet),
                Trouble::CopiedByAnotherTap => {
                    packets.push(packet);
                    packet.evidence.dst_mac = [9; 6];
                    packet.delay(40_000);
                }
                Trouble::Marked => packet.rtp.marker = true,
                Trouble::OfAnotherType => packet.rtp.payload_type = 13,
                Trouble::Jump => seq += 5_000,
                Trouble::Delayed(ns) => packet.delay(ns),
                Trouble::TakenElsewhere => packet.tap_time.0 += 7,
                Trouble::IntervalEnds => ends.push(packets.len()),
                Trouble::TimestampJumps => shift = shift.wrapping_add(40_000),
            }
            packets.push(packet);
        }
        (1..).zip(&mut packets).for_each(|(number, packet)| packet.number = number);
        (packets, ends)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// A run is a way to the same figures: whatever interrupts it, a stream that never had one says the same.
        #[test]
        fn a_stream_with_runs_is_the_same_stream(
            first in prop_oneof![Just(0_u16), Just(65_000), any::<u16>()],
            troubles in prop::collection::vec((0_u16..400, trouble()), 1..12),
        ) {
            let (packets, ends) = played(first, &troubles);
            prop_assume!(!packets.is_empty());
            let epoch = packets[0].time;
            let mut table = table(1, 1_000);
            let mut alone = Stream::new(&packets[0], packets[0].number, epoch, Arc::default());
            table.observe(&packets[0]);
            for (at, packet) in packets.iter().enumerate().skip(1) {
                if ends.contains(&at) {
                    let mut closed = String::new();
                    table.close_intervals(Part::WHOLE, |_, summary| closed = format!("{summary:?}"));
                    if alone.is_valid() {
                        prop_assert_eq!(closed, format!("{:?}", alone.close_interval()));
                    }
                }
                prop_assert_eq!(table.observe(packet).0, alone.observe(packet, epoch));
            }
            let mut parts = String::new();
            table.finish(|stream| parts = format!("{stream:?}"));
            prop_assert_eq!(parts, format!("{:?}", alone.into_parts()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Where an interval of a stream ends depends on the rounds alone: not on what else its table holds.
        #[test]
        fn a_round_closes_a_stream_between_the_same_packets_whatever_else_there_is(
            streams in 1_u32..20,
            of in (0_u32..=10).prop_map(|power| 1_u16 << power),
            packets in 1_u64..60,
            every in 10_u64..200,
        ) {
            let (mut together, mut apart) = (table(40, 1_000), BTreeMap::new());
            let (mut number, mut index) = (0, 0);
            let (mut lines, mut lines_apart) = (BTreeMap::new(), BTreeMap::new());
            for seq in 0..packets {
                for ssrc in 0..streams {
                    number += 1;
                    let packet = RtpPacket { number, ..stream(ssrc, seq) };
                    together.observe(&packet);
                    apart.entry(ssrc).or_insert_with(|| table(1, 1_000)).observe(&packet);
                    if number % every == 0 {
                        let part = Part { index, of };
                        index = (index + 1) % of;
                        together.close_intervals(part, |stream, summary| note(&mut lines, stream, &summary));
                        for alone in apart.values_mut() {
                            alone.close_intervals(part, |stream, summary| note(&mut lines_apart, stream, &summary));
                        }
                    }
                }
            }
            prop_assert_eq!(lines, lines_apart);
        }

        /// As a scan of all streams finds them, if a turn of the wheel takes no time.
        #[test]
        fn a_turn_ends_the_silent_streams_and_no_others(
            heard in prop::collection::vec(0_u64..3_000, 1..200),
            of in (0_u32..=10).prop_map(|power| 1_u16 << power),
        ) {
            let mut table = table(200, 30);
            for (ssrc, seq) in (0..).zip(&heard) {
                table.observe(&RtpPacket { number: u64::from(ssrc) + 1, ..stream(ssrc, *seq) });
            }
            let now = stream(0, 3_000).time;
            let silent = |seq: u64| now.since(stream(0, seq).time) > 30_000_000_000;
            let mut ended = Vec::new();
            for index in 0..of {
                table.sweep(Part { index, of }, now, |parts| ended.push(parts.key.ssrc));
            }
            ended.sort_unstable();
            let naive: Vec<u32> =
                (0..).zip(&heard).filter(|(_, seq)| silent(**seq)).map(|(ssrc, _)| ssrc).collect();
            prop_assert_eq!((table.len(), ended), (heard.len() - naive.len(), naive));
            // Those that stayed, and moved up, are found.
            for (ssrc, seq) in (0..).zip(&heard).filter(|(_, seq)| !silent(**seq)) {
                table.observe(&stream(ssrc, seq + 1));
            }
            prop_assert_eq!(table.len(), heard.iter().filter(|seq| !silent(**seq)).count());
        }
    }

    fn note(lines: &mut BTreeMap<u32, Vec<String>>, stream: &Stream, summary: &IntervalSummary) {
        lines.entry(stream.key().ssrc).or_default().push(format!("{summary:?}"));
    }

    #[test]
    fn a_batch_is_its_packets_one_after_the_other() {
        let packets: Vec<_> = (0..40_u64)
            .flat_map(|seq| (0..50_u32).map(move |ssrc| RtpPacket { number: seq, ..stream(ssrc % 30, seq) }))
            .collect();
        let (mut batched, mut single) = (table(20, 30), table(20, 30));
        let (mut from_batch, mut one_by_one) = (Vec::new(), Vec::new());
        batched.observe_batch(&packets, |gone| from_batch.push(format!("{gone:?}")));
        one_by_one.extend(
            packets.iter().filter_map(|packet| single.observe(packet).1).map(|gone| format!("{gone:?}")),
        );
        batched.finish(|parts| from_batch.push(format!("{parts:?}")));
        single.finish(|parts| one_by_one.push(format!("{parts:?}")));
        assert_eq!(from_batch, one_by_one);
    }
}
