//! Copy, retransmission, or neither: what it means that the same bytes were seen before.
//!
//! ```text
//!   t:  0    40us        500ms  500.04ms      1500ms
//!       ●────○            ●──────○              ●          ● a transmission   ○ its copy
//!       └ first           └ again: timer A      └ again: timer A
//! ```
//!
//! Copies are clustered first, by identity (flow and payload, and in TCP the sequence number), and by
//! time: nothing that an endpoint's timer could have made is a copy. What is left are transmissions, and only
//! those are held against RFC 3261's timers. Another branch makes other bytes, so a new transaction is never
//! taken for a retransmission, whatever its Call-ID and CSeq say.
//!
//! Whether an answer had already been seen is not asked: it was seen here, behind which it may have been lost,
//! and then the timer ran on.

use std::time::Duration;

use super::message::Message;
use crate::dedup::cluster::{Clusters, LATE_WINDOW_NS, Revised};
pub(super) use crate::dedup::cluster::{Key, Seen};
use crate::dedup::stats::Copy;
use crate::packet::{Evidence, Nanos};

/// Transmissions remembered: 32 s of 4,000 messages a second, 30 MB at most.
const MAX_SENDS: usize = 131_072;
/// Timers A to H end after 64 T1.
const MEMORY: Duration = Duration::from_secs(32);
const MILLISECOND: i64 = 1_000_000;
const T1: i64 = 500 * MILLISECOND;
const T2: i64 = 4_000 * MILLISECOND;
/// Copies remembered of a segment that is held.
const MAX_COPIES: usize = 8;
/// Repeats of one message that may still turn out to be copies.
const MAX_REPEATED: usize = 4;
/// Sends that the capture may have missed between two that it saw.
const MISSED: u32 = 2;

/// What carried the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A segment of a stream.
    Tcp {
        /// Sequence number of its first byte.
        seq: u32,
    },
}

/// A timer that makes an endpoint send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// INVITE, until any response (RFC 3261, 17.1.1.2).
    A,
    /// Any other request, until a final response (17.1.2.2).
    E,
    /// A final response that refuses an INVITE, until ACK (17.2.1).
    G,
    /// 2xx to INVITE, until ACK, over any transport (13.3.1.4).
    TwoHundred,
    /// A reliable provisional response, until PRACK (RFC 3262, 3).
    Provisional,
}

impl Timer {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::A, Self::E, Self::G, Self::TwoHundred, Self::Provisional];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::E => "E",
            Self::G => "G",
            Self::TwoHundred => "2xx",
            Self::Provisional => "1xx",
        }
    }

    /// The timer that may repeat this message; `None` if only another message does (an ACK answers each
    /// 2xx, a response to anything but INVITE answers each request).
    fn of(message: &Message<'_>, transport: Transport) -> Option<Self> {
        let timer = match (message.status(), message.method()) {
            (None, "ACK") => return None,
            (None, "INVITE") => Self::A,
            (None, _) => Self::E,
            (Some(100..=199), "INVITE") => {
                message.header("rseq", None)?;
                return Some(Self::Provisional);
            }
            (Some(200..=299), "INVITE") => return Some(Self::TwoHundred),
            (Some(_), "INVITE") => Self::G,
            (Some(_), _) => return None,
        };
        (transport == Transport::Udp).then_some(timer)
    }

    /// The cap of its interval.
    fn cap(self) -> i64 {
        match self {
            Self::A | Self::Provisional => i64::MAX,
            Self::E | Self::G | Self::TwoHundred => T2,
        }
    }

    /// From send `from` to send `to`, counted from 0, if the first interval is `t1`.
    fn between(self, t1: i64, from: u32, to: u32) -> i64 {
        (from..to)
            .map(|send| t1.saturating_mul(1 << send.min(16)).min(self.cap()))
            .fold(0, i64::saturating_add)
    }
}

/// Why a message was transmitted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Repeat {
    /// A timer ran out: a retransmission.
    Timer(Timer),
    /// Something else was repeated, and this answers it once more.
    Echo,
    /// No timer and no message explains it.
    Unscheduled,
}

/// A message that a frame completed: where it was counted, so that copies are counted there too.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub(super) tally: usize,
    pub(super) is_defective: bool,
    pub(super) call: Option<u64>,
    /// Its place in the transcript, if there is one and it is in it.
    pub(super) line: Option<u32>,
}

/// Transmissions of the last 32 s.
#[derive(Debug)]
pub(super) struct Transmissions {
    clusters: Clusters<Key, Send>,
}

/// How one payload was repeated so far.
#[derive(Debug)]
struct Send {
    /// Where in the timer's schedule the latest transmission stands.
    index: u32,
    t1: i64,
    /// The gap before the latest transmission, if no timer explained it.
    unexplained: Option<Unexplained>,
    /// The last few repeats: their frames, and what they were taken for.
    repeated: Vec<(u64, Again)>,
    noted: Vec<Noted>,
    /// Copies of a segment that came before anything was read of it.
    copies: Vec<(Copy, Evidence)>,
}

/// What a repeat was taken for.
#[derive(Clone, Debug)]
pub(super) enum Again {
    /// A message that was sent again.
    Message(Repeat),
    /// A segment that TCP sent again: how it was seen, and what the first one was counted as.
    Segment(Evidence, Vec<Noted>),
}

impl Default for Send {
    fn default() -> Self {
        Self {
            index: 0,
            t1: T1,
            unexplained: None,
            repeated: Vec::new(),
            noted: Vec::new(),
            copies: Vec::new(),
        }
    }
}

/// A repeat that no timer explains yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unexplained {
    pub(super) gap_ns: i64,
    pub(super) number: u64,
    /// What it repeats.
    pub(super) of: u64,
    /// It was seen at another place than that.
    pub(super) is_elsewhere: bool,
}

impl Default for Transmissions {
    fn default() -> Self {
        Self { clusters: Clusters::new(MAX_SENDS, MEMORY) }
    }
}

impl Transmissions {
    /// Sorts a frame in. A first one or a repeat becomes the latest transmission.
    pub(super) fn observe(&mut self, key: Key, time: Nanos, number: u64, evidence: &Evidence) -> Seen {
        self.clusters.observe(key, time, number, evidence)
    }

    /// Earlier repeats that were copies after all: what each had been taken for, and where it had been counted.
    pub(super) fn drain_revised(&mut self) -> Vec<(Copy, Again, Vec<Noted>)> {
        let revised: Vec<_> = self.clusters.drain_revised().collect();
        let counted = |found: Revised<Key>| {
            let send = self.clusters.state_mut(&found.key)?;
            // One that a timer explained since stays explained.
            let at = send.repeated.iter().position(|(number, repeat)| {
                *number == found.copy.number && !matches!(repeat, Again::Message(Repeat::Timer(_)))
            })?;
            let (number, repeat) = send.repeated.swap_remove(at);
            send.unexplained.take_if(|repeat| repeat.number == number);
            Some((found.copy, repeat, send.noted.clone()))
        };
        revised.into_iter().filter_map(counted).collect()
    }

    /// Holds a repeat against the timer of its message. Also names the earlier repeat, unexplained
    /// until now, that this one explains, and what that repeats: a doubled gap shows another T1 than RFC 3261's.
    pub(super) fn classify(
        &mut self,
        key: &Key,
        message: &Message<'_>,
        transport: Transport,
        again: Unexplained,
    ) -> (Repeat, Option<(u64, u64)>) {
        let found = self.explain(key, message, transport, again);
        self.repeat(key, again.number, Again::Message(found.0));
        found
    }

    /// Remembers that a segment was taken for one that TCP sent again. Its copies are copies of no message.
    pub(super) fn repeat_segment(&mut self, key: &Key, number: u64, evidence: &Evidence) {
        let noted = self.clusters.state_mut(key).map(|send| std::mem::take(&mut send.noted));
        self.repeat(key, number, Again::Segment(*evidence, noted.unwrap_or_default()));
    }

    /// Keeps a copy of a segment of which nothing was read yet.
    pub(super) fn keep_copy(&mut self, key: &Key, copy: Copy, evidence: &Evidence) {
        if let Some(send) = self.clusters.state_mut(key).filter(|send| send.copies.len() < MAX_COPIES) {
            send.copies.push((copy, *evidence));
        }
    }

    /// Those that were kept.
    pub(super) fn take_copies(&mut self, key: &Key) -> Vec<(Copy, Evidence)> {
        self.clusters.state_mut(key).map(|send| std::mem::take(&mut send.copies)).unwrap_or_default()
    }

    fn repeat(&mut self, key: &Key, number: u64, again: Again) {
        if let Some(send) = self.clusters.state_mut(key) {
            if send.repeated.len() == MAX_REPEATED {
                send.repeated.remove(0);
            }
            send.repeated.push((number, again));
        }
    }

    fn explain(
        &mut self,
        key: &Key,
        message: &Message<'_>,
        transport: Transport,
        again: Unexplained,
    ) -> (Repeat, Option<(u64, u64)>) {
        let gap_ns = again.gap_ns;
        let Some(timer) = Timer::of(message, transport) else { return (Repeat::Echo, None) };
        let Some(send) = self.clusters.state_mut(key) else { return (Repeat::Unscheduled, None) };
        let near = |expected: i64| (gap_ns - expected).abs() <= expected / 10 + 60 * MILLISECOND;
        // Asked first: a T1 of 200 ms doubles to 400 ms, which is not far from 500 ms either. What is shorter than a copy may be
        // late doubles at one place only, and within half of itself.
        let doubled = |before: &Unexplained| {
            let is_short = before.gap_ns <= LATE_WINDOW_NS;
            let is_here = !before.is_elsewhere && !again.is_elsewhere;
            let is_exact = (gap_ns - 2 * before.gap_ns).abs() <= before.gap_ns / 2;
            near(2 * before.gap_ns) && (!is_short || is_here && is_exact)
        };
        if let Some(before) = send.unexplained.filter(doubled) {
            (send.t1, send.index, send.unexplained) = (before.gap_ns, 2, None);
            return (Repeat::Timer(timer), Some((before.number, before.of)));
        }
        let next = send.index + 1..=send.index + 1 + MISSED;
        let found = next.into_iter().find(|&to| near(timer.between(send.t1, send.index, to)));
        if let Some(index) = found.or((timer.cap() == T2 && near(T2)).then_some(send.index + 1)) {
            send.index = index;
            send.unexplained = None;
            return (Repeat::Timer(timer), None);
        }
        send.unexplained = Some(again);
        (Repeat::Unscheduled, None)
    }

    /// Remembers what the latest transmission of `key` was counted as.
    pub(super) fn note(&mut self, key: &Key, noted: Noted) {
        if let Some(send) = self.clusters.state_mut(key) {
            // A datagram holds one message.
            if send.noted.is_empty() {
                send.noted.reserve_exact(1);
            }
            send.noted.push(noted);
        }
    }

    /// What a transmission of `key` was counted as.
    pub(super) fn noted(&self, key: &Key) -> &[Noted] {
        self.clusters.state(key).map_or(&[], |send| &send.noted)
    }

    /// Forgets a transmission. Gives what it was counted as.
    pub(super) fn remove(&mut self, key: &Key) -> Vec<Noted> {
        self.clusters.remove(key).map(|send| send.noted).unwrap_or_default()
    }

    /// Forgets what it noted, before a repeat is counted.
    pub(super) fn clear_noted(&mut self, key: &Key) {
        if let Some(send) = self.clusters.state_mut(key) {
            send.noted.clear();
        }
    }

    /// Transmissions forgotten before their timers could have ended, for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.clusters.forgotten()
    }
}
