//! Copies of what has no sequence number (SIP, RTCP), clustered by identity and by time.
//!
//! ```text
//!   t:  0    40us   90ms                500ms  500.04ms  590ms
//!       ●────○───────◇                   ●──────○─────────◇        ● transmission  ○ its copy  ◇ its copy in a tunnel
//!       └──── cluster ────┘              └──── cluster ────┘
//! ```
//!
//! Within [`WINDOW_NS`] the same bytes are a copy. A copy that another tap shows (another interface, MAC, VLAN, TTL, tunnel)
//! may be as late as [`LATE_WINDOW_NS`]. What is later still, or that late at the same tap, is a copy only if it is
//! always so late: that is learned for each pair of places, never up to where a timer of RFC 3261 could be, and what came
//! before it was known is set right. What came that late at the same tap under another IP ID was sent anew by its sender, whoever
//! is always so late. What is left is another transmission. Whether a timer made it is not asked here.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHasher};

use super::cause::{Differs, Explanation, distance, explain};
use super::reference::Recent;
use super::stats::Copy;
use crate::packet::{Carrier, Encapsulation, Evidence, Flow, Nanos, Tap, Vlans};

/// Copies arrive within this.
pub const WINDOW_NS: i64 = 20 * MILLISECOND;
/// A quarter of T1: a copy from another place may be this late before anything is known of that place.
pub const LATE_WINDOW_NS: i64 = 125 * MILLISECOND;
/// The longest lag that is learned: what is later may be timer A's first, 500 ms less its tolerance.
pub const MAX_LAG_NS: i64 = 390 * MILLISECOND;

/// Sightings of one transmission that are remembered besides the first.
const MAX_SIGHTINGS: usize = 7;
/// Ways to be late that are learned; a topology with more has none.
const MAX_LANES: usize = 256;
/// Sightings too late to be believed yet, of one way.
const MAX_SUSPECTS: usize = 4;
/// Sightings that must agree, within the window, before a long lag is believed.
const AGREEING: usize = 3;
const MILLISECOND: i64 = 1_000_000;

/// Identity on the wire. A 64-bit hash stands for the payload: among the messages of 32 s, on one flow,
/// of one length, a chance match is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    flow: Flow,
    carried: Carried,
    length: usize,
    hash: u64,
}

/// In what the bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Carried {
    Datagram,
    Segment { seq: u32 },
    Stream,
}

impl Key {
    /// Of a datagram.
    pub fn datagram(flow: Flow, payload: &[u8]) -> Self {
        Self::new(flow, Carried::Datagram, payload)
    }

    /// Of a TCP segment, whose first byte has the number `seq`.
    pub fn segment(flow: Flow, seq: u32, payload: &[u8]) -> Self {
        Self::new(flow, Carried::Segment { seq }, payload)
    }

    /// Of a message in a stream: an endpoint that sends it again does so under other sequence numbers.
    pub fn in_stream(flow: Flow, message: &[u8]) -> Self {
        Self::new(flow, Carried::Stream, message)
    }

    fn new(flow: Flow, carried: Carried, payload: &[u8]) -> Self {
        let mut hasher = FxHasher::default();
        hasher.write(payload);
        Self { flow, carried, length: payload.len(), hash: hasher.finish() }
    }
}

/// What a frame is among those seen before.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    /// New bytes.
    First,
    /// The same transmission, captured again: against the sighting that it resembles most.
    Copy(Copy),
    /// The same bytes, transmitted again.
    Again {
        /// Frame of the transmission before.
        of: u64,
        /// This long after it.
        gap_ns: i64,
        /// It was seen at another place.
        is_elsewhere: bool,
    },
}

/// An earlier frame that was taken for another transmission, and is a copy after all: its place turned out to be
/// always so late.
#[derive(Clone, Copy, Debug)]
pub struct Revised<K> {
    /// Whose.
    pub key: K,
    /// The copy, and its original.
    pub copy: Copy,
}

/// Transmissions of the recent past. See the module.
#[derive(Debug)]
pub struct Clusters<K, S> {
    sends: FxHashMap<K, Cluster<S>>,
    oldest: VecDeque<(Nanos, K)>,
    lags: FxHashMap<Lane, Lag<K>>,
    revised: Vec<Revised<K>>,
    forgotten: u64,
    bound: usize,
    memory_ns: i64,
}

/// The latest transmission of some bytes, and what the caller knows of it.
#[derive(Debug)]
struct Cluster<S> {
    first: Sighting,
    further: Vec<Sighting>,
    state: S,
}

#[derive(Clone, Copy, Debug)]
struct Sighting {
    time: Nanos,
    number: u64,
    evidence: Evidence,
}

/// Where something was seen, as far as it makes things late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    tap: Tap,
    vlans: Vlans,
    encapsulation: Encapsulation,
    carrier: Carrier,
}

impl Place {
    fn of(evidence: &Evidence) -> Self {
        let Evidence { tap, vlans, encapsulation, carrier, .. } = *evidence;
        Self { tap, vlans, encapsulation, carrier }
    }
}

/// One way to be late: from where to where, what differs, and which sighting there it is. MACs and TTLs are many phones',
/// so they take part as a difference only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lane {
    from: Place,
    to: Place,
    differs: Differs,
    rank: usize,
}

impl Lane {
    fn of<S>(cluster: &Cluster<S>, evidence: &Evidence) -> Self {
        let from = &cluster.first.evidence;
        let between = |seen: &Evidence| Differs::between(seen, evidence).with_ip_id(false);
        let same = |sighting: &&Sighting| !between(&sighting.evidence).is_elsewhere();
        Self {
            from: Place::of(from),
            to: Place::of(evidence),
            differs: between(from),
            rank: cluster.further.iter().filter(same).count(),
        }
    }

    fn is_elsewhere(&self) -> bool {
        self.differs.is_elsewhere()
    }
}

/// How late one place is after another.
#[derive(Debug)]
struct Lag<K> {
    recent: Recent,
    /// Sightings too late to be believed yet.
    suspects: Vec<Suspect<K>>,
}

#[derive(Debug)]
struct Suspect<K> {
    key: K,
    original: Sighting,
    copy: Sighting,
}

impl<K: std::marker::Copy + Hash + Eq, S: Default> Clusters<K, S> {
    /// Remembers at most `bound` transmissions, each for `memory`; the oldest give way, and are counted.
    pub fn new(bound: usize, memory: std::time::Duration) -> Self {
        Self {
            sends: FxHashMap::default(),
            oldest: VecDeque::new(),
            lags: FxHashMap::default(),
            revised: Vec::new(),
            forgotten: 0,
            bound: bound.max(1),
            memory_ns: i64::try_from(memory.as_nanos()).unwrap_or(i64::MAX),
        }
    }

    /// Sorts a frame in. A first one or a repeat becomes the latest transmission.
    pub fn observe(&mut self, key: K, time: Nanos, number: u64, evidence: &Evidence) -> Seen {
        self.forget(time, !self.sends.contains_key(&key));
        let sighting = Sighting { time, number, evidence: *evidence };
        let cluster = match self.sends.entry(key) {
            Entry::Vacant(free) => {
                free.insert(Cluster { first: sighting, further: Vec::new(), state: S::default() });
                self.oldest.push_back((time, key));
                return Seen::First;
            }
            Entry::Occupied(held) => held.into_mut(),
        };
        let gap_ns = time.since(cluster.first.time);
        let lane = Lane::of(cluster, evidence);
        let limit_ns = if lane.is_elsewhere() && lane.rank == 0 { MAX_LAG_NS } else { LATE_WINDOW_NS };
        let is_near = gap_ns.abs() <= if lane.is_elsewhere() { LATE_WINDOW_NS } else { WINDOW_NS };
        let is_anew = !is_near && !lane.is_elsewhere() && cluster.first.has_other_ip_id(evidence);
        if is_anew || !is_near && !(0..=limit_ns).contains(&gap_ns) {
            return cluster.transmit(sighting, &lane);
        }
        if self.lags.len() >= MAX_LANES && !self.lags.contains_key(&lane) {
            return if is_near {
                Seen::Copy(cluster.add(sighting))
            } else {
                cluster.transmit(sighting, &lane)
            };
        }
        let lag = self.lags.entry(lane).or_insert_with(Lag::new);
        lag.recent.push(gap_ns);
        if !is_near && !lag.explains(gap_ns) {
            if lag.suspects.len() == MAX_SUSPECTS {
                lag.suspects.remove(0);
            }
            lag.suspects.push(Suspect { key, original: cluster.first, copy: sighting });
            return cluster.transmit(sighting, &lane);
        }
        let settled = if is_near { Vec::new() } else { std::mem::take(&mut lag.suspects) };
        let seen = Seen::Copy(cluster.add(sighting));
        self.settle(settled, gap_ns);
        seen
    }

    /// What the caller keeps with the latest transmission of `key`.
    pub fn state(&self, key: &K) -> Option<&S> {
        self.sends.get(key).map(|cluster| &cluster.state)
    }

    /// The same, to change it.
    pub fn state_mut(&mut self, key: &K) -> Option<&mut S> {
        self.sends.get_mut(key).map(|cluster| &mut cluster.state)
    }

    /// Forgets a transmission. Gives what the caller kept with it.
    pub fn remove(&mut self, key: &K) -> Option<S> {
        self.sends.remove(key).map(|cluster| cluster.state)
    }

    /// Earlier frames that turned out to be copies, since the last call.
    pub fn drain_revised(&mut self) -> std::vec::Drain<'_, Revised<K>> {
        self.revised.drain(..)
    }

    /// Transmissions forgotten early, for want of room.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// A place's lag has been learned: what came by it as late before was a copy, too.
    fn settle(&mut self, suspects: Vec<Suspect<K>>, lag_ns: i64) {
        for Suspect { key, original, copy } in suspects {
            if (copy.time.since(original.time) - lag_ns).abs() > WINDOW_NS {
                continue;
            }
            if let Some(cluster) = self.sends.get_mut(&key).filter(|held| held.first.number == copy.number) {
                cluster.first = original;
                cluster.further.insert(0, copy);
                cluster.further.truncate(MAX_SIGHTINGS);
            }
            self.revised.push(Revised { key, copy: original.copied_by(&copy) });
        }
    }

    fn forget(&mut self, now: Nanos, needs_room: bool) {
        while let Some(&(queued, key)) = self.oldest.front() {
            let is_full = needs_room && self.oldest.len() >= self.bound;
            if now.since(queued) <= self.memory_ns && !is_full {
                break;
            }
            self.oldest.pop_front();
            let Some(latest) = self.sends.get(&key).map(|send| send.first.time) else { continue };
            let is_recent = now.since(latest) <= self.memory_ns;
            if is_recent && !is_full {
                self.oldest.push_back((latest, key));
                continue;
            }
            self.sends.remove(&key);
            self.forgotten += u64::from(is_recent);
        }
    }
}

impl<S> Cluster<S> {
    /// Another transmission of the same bytes.
    fn transmit(&mut self, sighting: Sighting, lane: &Lane) -> Seen {
        let gap_ns = sighting.time.since(self.first.time);
        let of = std::mem::replace(&mut self.first, sighting).number;
        self.further.clear();
        Seen::Again { of, gap_ns, is_elsewhere: lane.is_elsewhere() }
    }

    /// Another sighting of the same transmission.
    fn add(&mut self, copy: Sighting) -> Copy {
        let all = std::iter::once(&self.first).chain(&self.further);
        let nearest = all.min_by_key(|seen| distance(&seen.evidence, &copy.evidence));
        let copied = nearest.unwrap_or(&self.first).copied_by(&copy);
        if self.further.len() < MAX_SIGHTINGS {
            self.further.push(copy);
        }
        copied
    }
}

impl Sighting {
    /// Does the IP ID show another packet? Many senders leave it zero, and what is told of (HEP) has none.
    fn has_other_ip_id(&self, evidence: &Evidence) -> bool {
        let ids = [self.evidence.ip_id, evidence.ip_id];
        self.evidence.ttl != 0 && evidence.ttl != 0 && !ids.contains(&0) && ids[0] != ids[1]
    }

    fn copied_by(&self, copy: &Self) -> Copy {
        let explanation: Explanation = explain(&self.evidence, &copy.evidence);
        Copy {
            explanation,
            original_time: self.time,
            original: self.number,
            time: copy.time,
            number: copy.number,
        }
    }
}

impl<K> Lag<K> {
    fn new() -> Self {
        Self { recent: Recent::default(), suspects: Vec::new() }
    }

    /// Is this place always so late?
    fn explains(&self, gap_ns: i64) -> bool {
        let median = self.recent.quantile(50).unwrap_or(0);
        let agree = self.recent.values().filter(|value| (*value - median).abs() <= WINDOW_NS).count();
        agree >= AGREEING && 2 * agree > self.recent.len() && (gap_ns - median).abs() <= WINDOW_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Layer;
    use crate::rtp::testing::packet;
    use std::time::Duration;

    fn clusters() -> Clusters<u32, ()> {
        Clusters::new(100, Duration::from_secs(32))
    }

    fn tunnelled() -> Evidence {
        let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
        Evidence { encapsulation: rpcap, carrier: Carrier(1), ..packet(0).evidence }
    }

    fn ms(time: u64) -> Nanos {
        Nanos(1_000_000_000_000 + time * 1_000_000)
    }

    #[test]
    fn a_tunnel_that_is_always_late_is_learned_and_what_it_showed_before_is_set_right() {
        let (here, there) = (packet(0).evidence, tunnelled());
        let mut clusters = clusters();
        let mut again = 0;
        for message in 0..6_u32 {
            let at = u64::from(message) * 3_000;
            assert!(matches!(clusters.observe(message, ms(at), at + 1, &here), Seen::First));
            let late = at + 200 + u64::from(message % 3);
            match clusters.observe(message, ms(late), at + 2, &there) {
                Seen::Copy(copy) => assert_eq!(copy.original, at + 1),
                Seen::Again { .. } => again += 1,
                Seen::First => panic!("seen before"),
            }
        }
        let revised: Vec<_> = clusters.drain_revised().map(|found| (found.key, found.copy.number)).collect();
        assert_eq!((again, revised), (2, vec![(0, 2), (1, 3_002)]));
    }

    #[test]
    fn a_retransmission_has_copies_of_its_own_and_is_none_itself() {
        let (here, there) = (packet(0).evidence, tunnelled());
        let mut clusters = clusters();
        let mut seen =
            |time, number, evidence: &Evidence| match clusters.observe(7, ms(time), number, evidence) {
                Seen::First => "first",
                Seen::Copy(_) => "copy",
                Seen::Again { .. } => "again",
            };
        assert_eq!([seen(0, 1, &here), seen(90, 2, &there)], ["first", "copy"]);
        assert_eq!([seen(500, 3, &here), seen(590, 4, &there)], ["again", "copy"]);
        assert_eq!([seen(1_500, 5, &here), seen(1_590, 6, &there)], ["again", "copy"]);
    }

    #[test]
    fn uneven_lateness_is_not_learned_and_a_timers_gap_never() {
        let (here, there) = (packet(0).evidence, tunnelled());
        for lags in [[130, 260, 190, 330, 385, 220], [500; 6], [400; 6]] {
            let mut clusters = clusters();
            for (message, lag) in (0..).zip(lags) {
                let at = u64::from(message) * 3_000;
                clusters.observe(message, ms(at), 1, &here);
                let seen = clusters.observe(message, ms(at + lag), 2, &there);
                assert!(matches!(seen, Seen::Again { .. }), "{lag} ms: {seen:?}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_what_it_gave_up_is_counted() {
        let mut clusters = clusters();
        for message in 0..1_000 {
            let evidence =
                Evidence { ttl: 1, tap: Tap::new(u16::try_from(message).unwrap(), false), ..tunnelled() };
            clusters.observe(message, ms(0), 1, &packet(0).evidence);
            clusters.observe(message, ms(1), 1, &evidence);
        }
        assert!(clusters.sends.len() <= 100 && clusters.lags.len() <= MAX_LANES);
        assert_eq!(clusters.forgotten(), 900);
    }
}
