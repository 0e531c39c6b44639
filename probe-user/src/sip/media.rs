//! Who has been announced as a receiver of media, by which call, and in which formats.
//!
//! ```text
//!   SDP ──announce──▶ lines by id ◀──info── report, stream table
//!                        │  ▲
//!                     owners of endpoints ◀──attribute, is_announced── every RTP packet
//!                        │                       └ from a stranger: learn where he is
//!                        └──changes──▶ kernel's endpoint map
//! ```
//!
//! A line's description never changes: the same endpoint with other formats is another line with another id, so
//! whoever holds an id may keep what it found. Ids ascend; the descriptions of the last 65,536 are kept, as far as 4 KiB each hold
//! them, so that a stream that outlives its call can still be named.
//!
//! Of two calls that announce one endpoint the later has it: a port is used again, and of two calls of one B2BUA the report
//! names both. When the later one ends and the earlier has not, the earlier has it back.
//!
//! Time is that of the packets. A line is taken out some seconds after its call ended (packets under way
//! still belong to it), after long silence, or, when the table is full, as the most silent of a few.

use std::collections::VecDeque;
use std::sync::Arc;

use super::bundle::merge;
use super::endpoints::{Claim, Owners, Rank};
use super::generations::Groups;
use super::ice::{Candidate, MAX_CANDIDATES};
use super::sdp::{MediaLine, Protocol};
use crate::packet::{Endpoint, Flow, MediaId, Nanos};

pub use super::endpoints::EndpointChange;
pub use super::line::MediaInfo;

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
/// Bytes of descriptions for each slot, past ones included. A browser's line with its candidates holds as much, a telephone's a
/// tenth; one made for the purpose 50 times that. 256 MiB by default, most of which calls share.
const LINE_BYTES: usize = 4_096;
/// Lines compared when one has to go.
const EVICTION_SAMPLE: usize = 16;
/// Lines looked at for silence in one [`MediaTable::advance`].
const SWEEP: usize = 8;

/// Addresses learned of one line: a NAT that binds anew, and the capture of both of its sides.
const MAX_LEARNED: usize = 2;

/// Announced lines. See the module's text.
#[derive(Debug)]
pub struct MediaTable {
    owners: Owners,
    slots: Vec<Slot>,
    next_id: u32,
    live: usize,
    max_lines: usize,
    /// Lines whose call has ended, with the time when they go. In order, as the grace is the same for all.
    closing: VecDeque<(Nanos, MediaId)>,
    /// Lines that are none any more, in the order in which they went.
    past: VecDeque<MediaId>,
    /// Bytes that all descriptions hold, and may.
    held_bytes: usize,
    max_bytes: usize,
    /// What is left of a description that had to go.
    nothing: Arc<MediaInfo>,
    hand: usize,
    is_literal: bool,
    grace: Nanos,
    evicted: u64,
    given_up: u64,
    silent: u64,
}

#[derive(Debug)]
struct Slot {
    id: MediaId,
    is_live: bool,
    closes: Option<Nanos>,
    last_seen: Nanos,
    /// Who sent to it last.
    peer: Endpoint,
    /// The line of the other party, if its answer was seen.
    opposite: MediaId,
    /// The line that had the endpoint before.
    displaced: MediaId,
    /// Where its author was found to be, too.
    learned: [Option<Endpoint>; MAX_LEARNED],
    info: Arc<MediaInfo>,
}

impl Slot {
    /// Had its description to go?
    fn is_forgotten(&self) -> bool {
        self.info.is_nothing()
    }
}

/// No endpoint of a packet: it has no port.
const NOBODY: Endpoint = Endpoint { address: [0; 16], port: 0 };

impl Default for MediaTable {
    fn default() -> Self {
        Self::new(MAX_LINES)
    }
}

impl MediaTable {
    /// A table of at most `max_lines` lines at one time, and never more than [`MAX_LINES`].
    pub fn new(max_lines: usize) -> Self {
        Self {
            owners: Owners::new(2 * max_lines.clamp(1, MAX_LINES)),
            slots: Vec::new(),
            next_id: 1,
            live: 0,
            max_lines: max_lines.clamp(1, MAX_LINES),
            closing: VecDeque::new(),
            past: VecDeque::new(),
            held_bytes: 0,
            max_bytes: 2 * max_lines.clamp(1, MAX_LINES) * LINE_BYTES,
            nothing: Arc::new(MediaInfo::nothing()),
            hand: 0,
            is_literal: false,
            grace: GRACE,
            evicted: 0,
            given_up: 0,
            silent: 0,
        }
    }

    /// Records changes for [`Self::drain_changes`] from now on. Whoever asks for it must drain.
    #[must_use]
    pub fn followed(mut self) -> Self {
        self.owners.follow();
        self
    }

    /// Takes as announced what the lines `m=` and `c=` say and nothing else, as tshark does: no ICE candidates, and
    /// nothing that packets tell.
    #[must_use]
    pub fn literal(mut self) -> Self {
        self.is_literal = true;
        self
    }

    /// Keeps lines of ended calls this long instead of [`GRACE`].
    #[must_use]
    pub fn with_grace(mut self, grace: Nanos) -> Self {
        self.grace = grace;
        self
    }

    /// Announces a line. The same call saying the same of the same endpoint again keeps its id; so does fax on the port of
    /// the call's audio, whose RTP may go on or come back.
    /// `None` if the line has no endpoint (refused, or on hold), or is not carried by UDP.
    pub fn announce(
        &mut self,
        call_id: &Arc<str>,
        line: &MediaLine,
        time: Nanos,
        number: u64,
    ) -> Option<MediaId> {
        let is_wanted = line.protocol.is_media() && !(self.is_literal && line.is_guessed);
        let endpoint = line.endpoint.filter(|_| is_wanted)?;
        if let Some(known) = self.owners.owner(endpoint).filter(|known| known.rank == Rank::Media)
            && let Some(slot) = self.slot_mut(known.id)
        {
            let is_beside = line.protocol == Protocol::Udptl && slot.info.call_id == *call_id;
            if is_beside || slot.info.is_said_again(call_id, line) {
                slot.last_seen = slot.last_seen.max(time);
                slot.closes = None;
                return Some(known.id);
            }
        }
        Some(self.insert(MediaInfo::new(call_id, line, endpoint, time, number), time))
    }

    /// More candidates of a line: its successor, which knows them too. `None` if all were known.
    pub fn extend(&mut self, id: MediaId, more: &[Candidate], time: Nanos) -> Option<MediaId> {
        let slot = self.slot_mut(id).filter(|slot| slot.is_live)?;
        let mut candidates = slot.info.candidates.to_vec();
        merge(&mut candidates, more, MAX_CANDIDATES);
        if candidates.len() == slot.info.candidates.len() {
            return None;
        }
        let info = MediaInfo { candidates: candidates.into(), ..MediaInfo::clone(&slot.info) };
        let opposite = slot.opposite;
        let successor = self.insert(info, time);
        self.withdraw(id, time);
        self.pair(successor, opposite);
        Some(successor)
    }

    /// What one of these lines sends, the other receives.
    pub fn pair(&mut self, one: MediaId, other: MediaId) {
        for (of, opposite) in [(one, other), (other, one)] {
            if let Some(slot) = self.slot_mut(of) {
                slot.opposite = opposite;
            }
        }
    }

    /// The call ended: takes the line out after the grace, unless it is announced again before.
    pub fn withdraw(&mut self, id: MediaId, time: Nanos) {
        let deadline = Nanos(time.0.saturating_add(self.grace.0));
        let Some(slot) = self.slot_mut(id).filter(|slot| slot.closes.is_none()) else { return };
        slot.closes = Some(deadline);
        // One that lost its endpoint only has to know that it does not get it back.
        if slot.is_live {
            self.closing.push_back((deadline, id));
        }
    }

    /// The call did not end after all (another branch of a fork answered).
    pub fn reopen(&mut self, id: MediaId, time: Nanos) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.closes = None;
        slot.last_seen = slot.last_seen.max(time);
        if slot.is_live || slot.is_forgotten() {
            return;
        }
        self.make_room();
        self.revive(id);
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
            if self.slot_mut(id).is_some_and(|slot| slot.is_live && slot.closes == Some(deadline)) {
                self.remove(id);
                self.give_back(id);
            }
        }
        for _ in 0..SWEEP.min(self.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = self.slots.get(self.hand) else { continue };
            if slot.is_live && now.since(slot.last_seen) > MAX_SILENCE.0.cast_signed() {
                let id = slot.id;
                self.silent += 1;
                self.remove(id);
                self.give_back(id);
            }
        }
    }

    /// The line a packet belongs to: that of its destination, else that of its source, which is the one
    /// of the other direction (symmetric RTP) and still names the call.
    #[inline]
    pub fn lookup(&self, flow: &Flow) -> MediaId {
        let found = self.owners.owner(flow.dst).or_else(|| self.owners.owner(flow.src));
        found.map_or(MediaId::UNANNOUNCED, |claim| claim.id)
    }

    /// As long as this is the same for a flow, so is what [`Self::attribute`] says of it. Never 0.
    #[inline]
    pub fn generation(&self, groups: Groups) -> u64 {
        self.owners.generation(groups)
    }

    /// The line of an RTP packet at `time`, which is thereby not silent. Who sends to a line and was not announced is
    /// where he sends from: learned with his first packet, at the price of one comparison for the others.
    #[inline]
    pub fn attribute(&mut self, flow: &Flow, time: Nanos) -> MediaId {
        let Some(claim) = self.owners.owner(flow.dst) else {
            let Some(claim) = self.owners.owner(flow.src) else { return MediaId::UNANNOUNCED };
            self.touch(claim.id, time);
            return claim.id;
        };
        if let Some(slot) = self.slot_mut(claim.id) {
            slot.last_seen = slot.last_seen.max(time);
            if slot.peer != flow.src {
                slot.peer = flow.src;
                self.meet(claim, flow.src);
            }
        }
        claim.id
    }

    /// Somebody else sends to a line. If nobody announced him he is the other party, behind a NAT or on another port, and
    /// what is sent to him belongs to that party's line.
    #[cold]
    fn meet(&mut self, claim: Claim, source: Endpoint) {
        if self.is_literal || claim.rank == Rank::Rtcp || self.owners.owner(source).is_some() {
            return;
        }
        let opposite = self.slot_mut(claim.id).map_or(MediaId::UNANNOUNCED, |slot| slot.opposite);
        let is_known = self.slot_mut(opposite).is_some_and(|slot| slot.is_live);
        let id = if is_known { opposite } else { claim.id };
        let Some(slot) = self.slot_mut(id) else { return };
        let [newest, older] = slot.learned;
        slot.learned = [Some(source), newest];
        if let Some(older) = older {
            self.owners.release(older, id);
        }
        self.owners.claim(source, Claim { id, rank: Rank::Learned });
    }

    /// The description behind an id, also for some time after the line is gone.
    pub fn info(&self, id: MediaId) -> Option<Arc<MediaInfo>> {
        let slot = self.slots.get(slot_index(id)).filter(|slot| slot.id == id && !slot.is_forgotten())?;
        Some(Arc::clone(&slot.info))
    }

    /// What changed since the last call. Empty if the table is not [followed](Self::followed).
    pub fn drain_changes(&mut self) -> std::vec::Drain<'_, EndpointChange> {
        self.owners.drain_changes()
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

    /// ICE candidates and learned addresses for which there was no room.
    pub fn endpoints_refused(&self) -> u64 {
        self.owners.refused()
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
        self.make_room();
        let bytes = info.held_bytes();
        self.make_room_for(bytes);
        self.held_bytes += bytes;
        let id = self.free_id();
        let slot = Slot {
            id,
            is_live: false,
            closes: None,
            last_seen: time,
            peer: NOBODY,
            opposite: MediaId::UNANNOUNCED,
            displaced: MediaId::UNANNOUNCED,
            learned: [None; MAX_LEARNED],
            info: Arc::new(info),
        };
        match self.slots.get_mut(slot_index(id)) {
            Some(old) => {
                self.held_bytes -= old.info.held_bytes();
                *old = slot;
            }
            None => self.slots.push(slot),
        }
        self.revive(id);
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

    /// Gives a line its endpoints.
    fn revive(&mut self, id: MediaId) {
        let Some(slot) = self.slot_mut(id) else { return };
        slot.is_live = true;
        let info = Arc::clone(&slot.info);
        self.live += 1;
        if let Some(before) = self.owners.claim(info.endpoint, Claim { id, rank: Rank::Media }) {
            self.remove(before);
            if let Some(slot) = self.slot_mut(id) {
                slot.displaced = before;
            }
        }
        if let Some(rtcp) = info.rtcp {
            self.owners.claim(rtcp, Claim { id, rank: Rank::Rtcp });
        }
        for candidate in info.candidates.iter().filter(|_| !self.is_literal) {
            let rank = if candidate.is_rtcp { Rank::Rtcp } else { Rank::Candidate };
            self.owners.claim(candidate.endpoint, Claim { id, rank });
        }
    }

    /// Takes the endpoints of a line away, as far as they are still its own.
    fn remove(&mut self, id: MediaId) {
        let Some(slot) = self.slot_mut(id).filter(|slot| slot.is_live) else { return };
        slot.is_live = false;
        let learned = std::mem::take(&mut slot.learned);
        let info = Arc::clone(&slot.info);
        self.live -= 1;
        if self.past.len() == SLOTS as usize {
            self.past.pop_front();
        }
        self.past.push_back(id);
        let candidates = info.candidates.iter().map(|candidate| candidate.endpoint);
        for endpoint in
            [Some(info.endpoint), info.rtcp].into_iter().chain(learned).flatten().chain(candidates)
        {
            self.owners.release(endpoint, id);
        }
    }

    /// The line that had the endpoint of one that is gone has it again, if its call goes on.
    fn give_back(&mut self, id: MediaId) {
        let displaced =
            self.slot_mut(id).map(|slot| std::mem::replace(&mut slot.displaced, MediaId::UNANNOUNCED));
        let goes_on = |slot: &&mut Slot| !slot.is_live && slot.closes.is_none() && !slot.is_forgotten();
        if let Some(before) = displaced
            && let Some(endpoint) = self.slot_mut(before).filter(goes_on).map(|slot| slot.info.endpoint)
            && self.owners.owner(endpoint).is_none_or(|claim| claim.rank < Rank::Media)
        {
            self.revive(before);
        }
    }

    fn make_room(&mut self) {
        while (self.live >= self.max_lines || !self.owners.has_room()) && self.evict() {}
    }

    /// Lets descriptions of past lines go, the oldest first, and then lines, until there is room for so many bytes.
    fn make_room_for(&mut self, bytes: usize) {
        while self.held_bytes + bytes > self.max_bytes {
            let Some(id) = self.past.pop_front() else {
                if self.evict() {
                    continue;
                }
                return;
            };
            let nothing = Arc::clone(&self.nothing);
            if let Some(slot) = self.slot_mut(id).filter(|slot| !slot.is_live) {
                let gone = std::mem::replace(&mut slot.info, nothing);
                self.held_bytes -= gone.held_bytes();
            }
        }
    }

    /// Takes out, of the next live lines round the table, the one that has been silent longest. A sample
    /// costs the same at every size; a full order would cost every packet a write to a list.
    fn evict(&mut self) -> bool {
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
        let Some((_, id)) = victim else { return false };
        self.evicted += 1;
        self.remove(id);
        true
    }

    fn slot_mut(&mut self, id: MediaId) -> Option<&mut Slot> {
        self.slots.get_mut(slot_index(id)).filter(|slot| slot.id == id)
    }
}

impl probe_ebpf::Endpoints for MediaTable {
    #[inline]
    fn is_announced(&self, key: &probe_ebpf::EndpointKey) -> bool {
        self.owners.is_owned(key)
    }
}

/// Ids begin at 1, slots at 0; they are handed out in order, so a slot is at most one past the end.
fn slot_index(id: MediaId) -> usize {
    (id.0.wrapping_sub(1) % SLOTS) as usize
}

#[cfg(test)]
#[path = "media_tests.rs"]
mod tests;
