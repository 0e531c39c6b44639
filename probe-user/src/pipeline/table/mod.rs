//! The streams of one shard, bounded.

mod entry;

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;

use self::entry::{Cold, Hot, State, whole};
use super::index::{Hash, Index};
use super::memory::{Slab, prefetch, prefetch_octets};
use super::shed::Resumed;
use super::wheel::{Part, Wheel};
use crate::dedup::FrameClass;
use crate::packet::{Encapsulation, MediaId, Nanos, RtpPacket};
use crate::rtp::KeyWords;
use crate::rtp::codec::Announcement;
use crate::rtp::quality::Settings;
use crate::rtp::run::{Look, Run};
use crate::rtp::stream::{IntervalSummary, Stream, StreamParts};

/// Entries looked at to find one to evict; a fixed price on the data path.
const EVICTION_PROBES: usize = 32;

/// How much a shard may hold, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Streams of this shard. One takes 1.1 KiB at first and about 2.1 once its window is full, and 6 or more where several taps
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
/// The place of a stream that is in none.
const NOWHERE: u32 = u32::MAX;
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
        let key = KeyWords::from(packet);
        let hash = self.index.hash(&key);
        let epoch = *self.epoch.get_or_insert(packet.time);
        match self.index.find(hash, |at| self.hot.get(at).is_some_and(|hot| hot.key == key)) {
            Some(at) => (self.observe_at(packet, at, epoch), None),
            None => (FrameClass::Unique, self.begin(key, hash, packet)),
        }
    }

    /// Counts packets, in order. Streams that had to leave for them go to `evicted`.
    ///
    /// Budget with `AHEAD` packets under way: 50 ns a packet with 2,000 streams, 80 with 20,000; `voxlab core-cost` measures.
    pub fn observe_batch(&mut self, packets: &[RtpPacket], mut evicted: impl FnMut(StreamParts)) {
        for packets in packets.chunks(AHEAD) {
            let places = self.ask_ahead(packets);
            for (packet, at) in packets.iter().zip(places) {
                // A packet before it may have begun its stream, or moved it.
                if self.hot.get(at as usize).is_some_and(|hot| hot.key == KeyWords::from(packet)) {
                    let epoch = *self.epoch.get_or_insert(packet.time);
                    self.observe_at(packet, at as usize, epoch);
                } else if let (_, Some(gone)) = self.observe(packet) {
                    evicted(gone);
                }
            }
        }
    }

    /// Has the memory of several packets on its way at once: first the index's lines, then the streams', then what those point
    /// to. Says where each packet's stream is, as far as its hash tells.
    #[inline]
    fn ask_ahead(&self, packets: &[RtpPacket]) -> [u32; AHEAD] {
        let mut hashes = [Hash::default(); AHEAD];
        for (hash, packet) in hashes.iter_mut().zip(packets) {
            *hash = self.index.hash(&packet.into());
            self.index.prefetch(*hash);
        }
        let count = packets.len().min(AHEAD);
        let mut places = [NOWHERE; AHEAD];
        for (place, hash) in places.iter_mut().zip(hashes.iter().take(count)) {
            // The first that has the hash: nearly always the one.
            let Some(found) = self.index.first(*hash) else { continue };
            *place = found;
            if let Some(hot) = self.hot.get(found as usize) {
                prefetch(hot);
            }
        }
        for place in places.iter().take(count) {
            if let Some(run) = self.hot.get(*place as usize).and_then(Hot::run) {
                let (slot, counters) = run.beyond();
                if let Some(slot) = slot {
                    prefetch(slot);
                }
                prefetch_octets(counters);
            }
        }
        places
    }

    #[inline]
    fn observe_at(&mut self, packet: &RtpPacket, at: usize, epoch: Nanos) -> FrameClass {
        if let Some(Hot { state: State::Run(run), .. }) = self.hot.get_mut(at) {
            let mut look = run.look(packet);
            if look == Look::Other && run.outgrows(packet) {
                look = run.look(packet);
            }
            if look == Look::Serve
                && let Some(cold) = self.cold.get_mut(at)
            {
                cold.serve(run, packet);
            }
            if look != Look::Other && run.take(packet, epoch, self.depth_ns) {
                return FrameClass::Unique;
            }
            if look == Look::Other && self.bridge(at, packet, epoch) {
                return FrameClass::Unique;
            }
        }
        self.observe_whole(at, packet, epoch)
    }

    /// Lets the run go on with a packet before which some are missing, if that is all there is about it.
    #[cold]
    fn bridge(&mut self, at: usize, packet: &RtpPacket, epoch: Nanos) -> bool {
        if self.is_back(at) {
            return false;
        }
        let (Some(hot), Some(Cold::Whole(stream))) = (self.hot.get_mut(at), self.cold.get_mut(at)) else {
            return false;
        };
        let State::Run(run) = &mut hot.state else { return false };
        run.look_beyond(packet)
            .is_some_and(|missing| stream.bridge(run, packet, missing, epoch, self.depth_ns))
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
mod tests;
