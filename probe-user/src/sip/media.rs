//! Who has been announced as a receiver of media, by which call, and in which formats.
//!
//! ```text
//!   SDP ──announce──▶ lines by id ◀──info── report, stream table
//!                        │  ▲
//!                 endpoint table ◀──lookup, is_announced── every RTP packet
//!                        │
//!                        └──changes──▶ kernel's endpoint map
//! ```
//!
//! A line's description never changes: the same endpoint with other formats is another line with another id, so
//! whoever holds an id may keep what it found. Ids ascend; the descriptions of the last 65,536 are kept, so
//! that a stream that outlives its call can still be named.
//!
//! Time is that of the packets. A line is taken out some seconds after its call ended (packets under way
//! still belong to it), after long silence, or, when the table is full, as the most silent of a few.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::generations::Generations;
use super::sdp::{Codec, Direction, Format, MediaKind, MediaLine};
use crate::packet::{Endpoint, Flow, FlowWords, MediaId, Nanos};
use crate::rtp::codec::Redundancy;

/// Lines that are announced at one time: the kernel's map has room for two endpoints each.
pub const MAX_LINES: usize = probe_ebpf::config::MAX_ENDPOINTS / 2;
/// How long packets still belong to a call that has ended: what a jitter buffer and a slow path hold.
pub const GRACE: Nanos = Nanos(5_000_000_000);
/// How long a line may be silent. A call that is only refreshed every 1,800 s (RFC 4028) may be on hold
/// that long; its refresh announces it anew.
pub const MAX_SILENCE: Nanos = Nanos(1_800_000_000_000);

/// Slots for descriptions: twice the lines, so that half of them can be past ones.
const SLOTS: u32 = 65_536;
const _: () = assert!(SLOTS as usize == 2 * MAX_LINES);
/// Lines compared when one has to go.
const EVICTION_SAMPLE: usize = 16;
/// Lines looked at for silence in one [`MediaTable::advance`].
const SWEEP: usize = 8;

/// What one media line announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaInfo {
    /// Call-ID of the dialog.
    pub call_id: Arc<str>,
    /// What kind of media.
    pub kind: MediaKind,
    /// Where RTP is wanted.
    pub endpoint: Endpoint,
    /// Where RTCP is wanted, if not there.
    pub rtcp: Option<Endpoint>,
    /// Payload types that the author wants to receive, in order of preference.
    pub formats: Box<[Format]>,
    /// Milliseconds of media in a packet, as wished.
    pub ptime_ms: Option<u16>,
    /// Encrypted.
    pub srtp: bool,
    /// Declared to be sent twice.
    pub redundancy: Option<Redundancy>,
    /// Who sends, in the first announcement.
    pub direction: Direction,
    /// Number of the frame that announced it.
    pub announced_at: u64,
    /// Its time.
    pub announced_time: Nanos,
}

impl MediaInfo {
    /// The `a=rtpmap` of a payload type.
    pub fn codec(&self, payload_type: u8) -> Option<&Codec> {
        self.formats.iter().find(|f| f.payload_type == payload_type)?.codec.as_ref()
    }

    fn says_the_same(&self, call_id: &str, line: &MediaLine) -> bool {
        *self.call_id == *call_id
            && self.rtcp == line.rtcp
            && *self.formats == *line.formats
            && self.srtp == line.srtp
            && self.redundancy == line.redundancy
            && self.kind == line.kind
            && self.ptime_ms == line.ptime_ms
    }
}

/// What the kernel's endpoint map has to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointChange {
    /// Announced.
    Added(Endpoint),
    /// No longer.
    Removed(Endpoint),
}

/// Announced lines. See the module's text.
#[derive(Debug)]
pub struct MediaTable {
    endpoints: FxHashMap<Key, Announced>,
    generations: Generations,
    slots: Vec<Slot>,
    next_id: u32,
    live: usize,
    max_lines: usize,
    /// Lines whose call has ended, with the time when they go. In order, as the grace is the same for all.
    closing: VecDeque<(Nanos, MediaId)>,
    hand: usize,
    changes: Vec<EndpointChange>,
    is_followed: bool,
    grace: Nanos,
    evicted: u64,
    given_up: u64,
    silent: u64,
}

/// Who owns an endpoint, and as what.
#[derive(Clone, Copy, Debug)]
struct Announced {
    id: MediaId,
    is_rtcp: bool,
}

#[derive(Debug)]
struct Slot {
    id: MediaId,
    is_live: bool,
    closes: Option<Nanos>,
    last_seen: Nanos,
    info: Arc<MediaInfo>,
}

impl Default for MediaTable {
    fn default() -> Self {
        Self::new(MAX_LINES)
    }
}

impl MediaTable {
    /// A table of at most `max_lines` lines at one time, and never more than [`MAX_LINES`].
    pub fn new(max_lines: usize) -> Self {
        Self {
            endpoints: FxHashMap::default(),
            generations: Generations::default(),
            slots: Vec::new(),
            next_id: 1,
            live: 0,
            max_lines: max_lines.clamp(1, MAX_LINES),
            closing: VecDeque::new(),
            hand: 0,
            changes: Vec::new(),
            is_followed: false,
            grace: GRACE,
            evicted: 0,
            given_up: 0,
            silent: 0,
        }
    }

    /// Records changes for [`Self::drain_changes`] from now on. Whoever asks for it must drain.
    #[must_use]
    pub fn followed(mut self) -> Self {
        self.is_followed = true;
        self
    }

    /// Keeps lines of ended calls this long instead of [`GRACE`].
    #[must_use]
    pub fn with_grace(mut self, grace: Nanos) -> Self {
        self.grace = grace;
        self
    }

    /// Announces a line. The same call saying the same of the same endpoint again keeps its id.
    /// `None` if the line has no endpoint: refused, or on hold.
    pub fn announce(
        &mut self,
        call_id: &Arc<str>,
        line: &MediaLine,
        time: Nanos,
        number: u64,
    ) -> Option<MediaId> {
        let endpoint = line.endpoint?;
        if let Some(known) = self.endpoints.get(&Key::from(endpoint)).filter(|known| !known.is_rtcp) {
            let id = known.id;
            if let Some(slot) = self.slot_mut(id).filter(|slot| slot.info.says_the_same(call_id, line)) {
                slot.last_seen = slot.last_seen.max(time);
                slot.closes = None;
                return Some(id);
            }
        }
        let info = MediaInfo {
            call_id: Arc::clone(call_id),
            kind: line.kind,
            endpoint,
            rtcp: line.rtcp,
            formats: line.formats.clone().into(),
            ptime_ms: line.ptime_ms,
            srtp: line.srtp,
            redundancy: line.redundancy.clone(),
            direction: line.direction,
            announced_at: number,
            announced_time: time,
        };
        if self.live >= self.max_lines {
            self.evict();
        }
        Some(self.insert(info, time))
    }

    /// The call ended: takes the line out after the grace, unless it is announced again before.
    pub fn withdraw(&mut self, id: MediaId, time: Nanos) {
        let deadline = Nanos(time.0.saturating_add(self.grace.0));
        if let Some(slot) = self.slot_mut(id).filter(|slot| slot.is_live && slot.closes.is_none()) {
            slot.closes = Some(deadline);
            self.closing.push_back((deadline, id));
        }
    }

    /// The call did not end after all (another branch of a fork answered).
    pub fn reopen(&mut self, id: MediaId, time: Nanos) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.closes = None;
        slot.last_seen = slot.last_seen.max(time);
        if slot.is_live {
            return;
        }
        let info = Arc::clone(&slot.info);
        if self.live >= self.max_lines {
            self.evict();
        }
        if let Some(slot) = self.slot_mut(id) {
            slot.is_live = true;
        }
        self.live += 1;
        self.claim_both(id, &info);
    }

    /// A packet of the line was seen: it is not silent.
    pub fn touch(&mut self, id: MediaId, time: Nanos) {
        if let Some(slot) = self.slot_mut(id) {
            slot.last_seen = slot.last_seen.max(time);
        }
    }

    /// When a packet or an announcement of the line was last seen.
    pub fn last_seen(&self, id: MediaId) -> Option<Nanos> {
        Some(self.slots.get(slot_index(id)).filter(|slot| slot.id == id)?.last_seen)
    }

    /// Lets packet time pass: takes out what ended, and a few lines at a time of what is silent.
    pub fn advance(&mut self, now: Nanos) {
        while let Some(&(deadline, id)) = self.closing.front()
            && deadline <= now
        {
            self.closing.pop_front();
            if self.slot_mut(id).is_some_and(|slot| slot.closes == Some(deadline)) {
                self.remove(id);
            }
        }
        for _ in 0..SWEEP.min(self.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = self.slots.get(self.hand) else { continue };
            if slot.is_live && now.since(slot.last_seen) > MAX_SILENCE.0.cast_signed() {
                self.silent += 1;
                self.remove(slot.id);
            }
        }
    }

    /// The line a packet belongs to: that of its destination, else that of its source, which is the one
    /// of the other direction (symmetric RTP) and still names the call.
    #[inline]
    pub fn lookup(&self, flow: &Flow) -> MediaId {
        let found =
            self.endpoints.get(&Key::from(flow.dst)).or_else(|| self.endpoints.get(&Key::from(flow.src)));
        found.map_or(MediaId::UNANNOUNCED, |announced| announced.id)
    }

    /// As long as this is the same for a flow, so is what [`Self::attribute`] says of it. Never 0.
    #[inline]
    pub fn generation(&self, flow: &FlowWords) -> u64 {
        self.generations.of(flow)
    }

    /// The line of a packet at `time`, which is thereby not silent.
    #[inline]
    pub fn attribute(&mut self, flow: &Flow, time: Nanos) -> MediaId {
        let id = self.lookup(flow);
        if id != MediaId::UNANNOUNCED {
            self.touch(id, time);
        }
        id
    }

    /// The description behind an id, also for some time after the line is gone.
    pub fn info(&self, id: MediaId) -> Option<Arc<MediaInfo>> {
        let slot = self.slots.get(slot_index(id)).filter(|slot| slot.id == id)?;
        Some(Arc::clone(&slot.info))
    }

    /// What changed since the last call. Empty if the table is not [followed](Self::followed).
    pub fn drain_changes(&mut self) -> std::vec::Drain<'_, EndpointChange> {
        self.changes.drain(..)
    }

    /// Lines that are announced now.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Is nothing announced?
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Lines that had to go because the table was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Counts lines of a description that had too many to be read.
    pub fn give_up(&mut self, lines: usize) {
        self.given_up += lines as u64;
    }

    /// Lines that were never taken up.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Lines taken out after [`MAX_SILENCE`].
    pub fn expired(&self) -> u64 {
        self.silent
    }

    fn insert(&mut self, info: MediaInfo, time: Nanos) -> MediaId {
        let id = self.free_id();
        self.live += 1;
        self.claim_both(id, &info);
        let slot = Slot { id, is_live: true, closes: None, last_seen: time, info: Arc::new(info) };
        match self.slots.get_mut(slot_index(id)) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        id
    }

    /// The next id whose slot holds no live line. Half of the slots hold none.
    fn free_id(&mut self) -> MediaId {
        loop {
            let id = MediaId(self.next_id);
            // 0 is "unannounced", also after a wrap.
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.slots.get(slot_index(id)).is_some_and(|slot| slot.is_live) {
                return id;
            }
        }
    }

    fn claim_both(&mut self, id: MediaId, info: &MediaInfo) {
        self.claim(info.endpoint, Announced { id, is_rtcp: false });
        if let Some(rtcp) = info.rtcp {
            self.claim(rtcp, Announced { id, is_rtcp: true });
        }
    }

    /// The latest announcement owns an endpoint, but a guessed RTCP port never takes another line's RTP port.
    fn claim(&mut self, endpoint: Endpoint, by: Announced) {
        use std::collections::hash_map::Entry;
        self.generations.change(endpoint);
        match self.endpoints.entry(Key::from(endpoint)) {
            Entry::Vacant(free) => {
                free.insert(by);
                if self.is_followed {
                    self.changes.push(EndpointChange::Added(endpoint));
                }
            }
            Entry::Occupied(mut held) if held.get().is_rtcp || !by.is_rtcp => {
                let before = held.insert(by);
                if !before.is_rtcp && before.id != by.id {
                    self.orphan(before.id);
                }
            }
            Entry::Occupied(_) => {}
        }
    }

    /// A line that lost its RTP endpoint to a later announcement is past.
    fn orphan(&mut self, id: MediaId) {
        let Some(slot) = self.slot_mut(id).filter(|slot| slot.is_live) else { return };
        slot.is_live = false;
        let rtcp = slot.info.rtcp;
        self.live -= 1;
        if let Some(rtcp) = rtcp {
            self.release(rtcp, id);
        }
    }

    fn remove(&mut self, id: MediaId) {
        let Some(slot) = self.slot_mut(id).filter(|slot| slot.is_live) else { return };
        slot.is_live = false;
        slot.closes = None;
        let info = Arc::clone(&slot.info);
        self.live -= 1;
        self.release(info.endpoint, id);
        if let Some(rtcp) = info.rtcp {
            self.release(rtcp, id);
        }
    }

    fn release(&mut self, endpoint: Endpoint, id: MediaId) {
        self.generations.change(endpoint);
        let key = Key::from(endpoint);
        if self.endpoints.get(&key).is_some_and(|held| held.id == id) {
            self.endpoints.remove(&key);
            if self.is_followed {
                self.changes.push(EndpointChange::Removed(endpoint));
            }
        }
    }

    /// Takes out, of the next live lines round the table, the one that has been silent longest. A sample
    /// costs the same at every size; a full order would cost every packet a write to a list.
    fn evict(&mut self) {
        let mut victim: Option<(Nanos, MediaId)> = None;
        let mut compared = 0;
        for _ in 0..self.slots.len() {
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = self.slots.get(self.hand).filter(|slot| slot.is_live) else { continue };
            if victim.is_none_or(|(seen, _)| slot.last_seen < seen) {
                victim = Some((slot.last_seen, slot.id));
            }
            compared += 1;
            if compared == EVICTION_SAMPLE {
                break;
            }
        }
        if let Some((_, id)) = victim {
            self.evicted += 1;
            self.remove(id);
        }
    }

    fn slot_mut(&mut self, id: MediaId) -> Option<&mut Slot> {
        self.slots.get_mut(slot_index(id)).filter(|slot| slot.id == id)
    }
}

impl probe_ebpf::Endpoints for MediaTable {
    #[inline]
    fn is_announced(&self, key: &probe_ebpf::EndpointKey) -> bool {
        self.endpoints.contains_key(&Key::from(*key))
    }
}

/// Ids begin at 1, slots at 0; they are handed out in order, so a slot is at most one past the end.
fn slot_index(id: MediaId) -> usize {
    (id.0.wrapping_sub(1) % SLOTS) as usize
}

/// An endpoint as the table hashes it: three words, where the derived hash would walk sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    high: u64,
    low: u64,
    port: u16,
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // IPv4 differs in the low word only; folding the words saves a round.
        state.write_u64(self.high ^ self.low.rotate_left(17) ^ (u64::from(self.port) << 1));
    }
}

impl From<Endpoint> for Key {
    #[inline]
    fn from(endpoint: Endpoint) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = endpoint.address;
        Self {
            high: u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            low: u64::from_ne_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            port: endpoint.port,
        }
    }
}

impl From<probe_ebpf::EndpointKey> for Key {
    #[inline]
    fn from(key: probe_ebpf::EndpointKey) -> Self {
        let [a, b, c, d] = key.address.map(u32::to_ne_bytes);
        let [high, low] = [[a, b], [c, d]].map(|[a, b]| {
            let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a, b);
            u64::from_ne_bytes([a0, a1, a2, a3, b0, b1, b2, b3])
        });
        #[expect(clippy::cast_possible_truncation, reason = "a port, widened for the kernel's key")]
        Self { high, low, port: key.port as u16 }
    }
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod tests;
