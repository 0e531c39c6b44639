//! What was left out when: by it, a stream, a call or an interval learns whether the probe saw all there was of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use probe_ebpf::flow::BUCKETS;

use crate::packet::Nanos;

/// Changes that are remembered. Older ones are taken for one long time at the highest of their levels: a stream of that time
/// may be doubted without need, and none is believed without.
const MAX_CHANGES: usize = 1_024;

/// The levels of a run: media sessions of [buckets](probe_ebpf::flow) below the level are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// What configuration leaves out all the time.
    floor: u32,
    /// The highest level before the first of `changes`.
    forgotten: u32,
    /// When the first of those that are forgotten began, and for how long they shed anything.
    forgotten_since: Nanos,
    forgotten_ns: i64,
    /// From when on which level holds.
    changes: VecDeque<(Nanos, u32)>,
    /// The highest level of all.
    highest: u32,
}

/// A time in which a session was shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// From then on.
    pub from: Nanos,
    /// Until then, if it is over.
    pub until: Option<Nanos>,
}

impl Period {
    /// Does it touch the time between these two?
    fn touches(&self, first: Nanos, last: Nanos) -> bool {
        self.from <= last && self.until.is_none_or(|until| until >= first)
    }
}

impl History {
    /// Of a run that leaves out this by configuration, and sheds nothing so far.
    pub fn new(floor: u32) -> Self {
        Self {
            floor,
            forgotten: floor,
            forgotten_since: Nanos::default(),
            forgotten_ns: 0,
            changes: VecDeque::new(),
            highest: floor,
        }
    }

    /// The level that holds from `at` on.
    pub fn note(&mut self, at: Nanos, level: u32) {
        self.highest = self.highest.max(level);
        self.changes.push_back((at, level));
        if self.changes.len() > MAX_CHANGES
            && let Some((began, oldest)) = self.changes.pop_front()
        {
            if self.forgotten == self.floor {
                self.forgotten_since = began;
            }
            self.forgotten = self.forgotten.max(oldest);
            if oldest > self.floor {
                let ended = self.changes.front().map_or(began, |(at, _)| *at);
                self.forgotten_ns += ended.since(began).max(0);
            }
        }
    }

    /// The level now.
    pub fn level(&self) -> u32 {
        self.changes.back().map_or(self.floor, |(_, level)| *level)
    }

    /// Sessions of buckets below it are left out by configuration, all the time.
    pub fn floor(&self) -> u32 {
        self.floor
    }

    /// Is this bucket one of them?
    pub fn samples_out(&self, bucket: u8) -> bool {
        u32::from(bucket) < self.floor
    }

    /// What share of the media sessions configuration leaves out, in percent.
    pub fn sampled_out_percent(&self) -> f64 {
        f64::from(self.floor) * 100.0 / f64::from(BUCKETS)
    }

    /// What share of the sessions that configuration does not leave out is shed at this level, in percent.
    pub fn shed_percent(&self, level: u32) -> f64 {
        let of = BUCKETS - self.floor;
        f64::from(level.saturating_sub(self.floor)) * 100.0 / f64::from(of)
    }

    /// The highest level of all.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Was anything shed at any time?
    pub fn has_shed(&self) -> bool {
        self.highest > self.floor
    }

    /// Does configuration leave out anything?
    pub fn is_sampled(&self) -> bool {
        self.floor > 0
    }

    /// The changes that are remembered.
    pub fn changes(&self) -> impl Iterator<Item = (Nanos, u32)> {
        self.changes.iter().copied()
    }

    /// The highest level at any time between these two: media of buckets below it was left out then.
    pub fn highest_between(&self, first: Nanos, last: Nanos) -> u32 {
        let before = self.changes.iter().take_while(|(at, _)| *at <= first).last();
        let is_forgotten = last >= self.forgotten_since;
        let earlier = if is_forgotten { self.forgotten } else { self.floor };
        let at_first = before.map_or(earlier, |(_, level)| *level);
        let meanwhile = self.changes.iter().filter(|(at, _)| *at > first && *at <= last);
        meanwhile.map(|(_, level)| *level).fold(at_first, u32::max)
    }

    /// Was media of any bucket shed at any time between these two?
    pub fn is_any_shed(&self, first: Nanos, last: Nanos) -> bool {
        self.highest_between(first, last) > self.floor
    }

    /// When media of this bucket was shed, as far as that touches the time from `first` to `last`.
    pub fn periods_between(&self, bucket: u8, first: Nanos, last: Nanos) -> Vec<Period> {
        if self.highest <= u32::from(bucket) {
            return Vec::new();
        }
        let mut periods = self.periods_above(u32::from(bucket));
        periods.retain(|period| period.touches(first, last));
        periods
    }

    /// For how long anything was shed, until `now`, in seconds: exactly, whatever was forgotten.
    pub fn seconds(&self, now: Nanos) -> f64 {
        let ends = self.changes.iter().skip(1).map(|(at, _)| *at).chain([now]);
        let shed = self.changes.iter().zip(ends).filter(|((_, level), _)| *level > self.floor);
        let ns = shed.map(|((began, _), ended)| ended.since(*began).max(0)).sum::<i64>();
        self.forgotten_ns.saturating_add(ns) as f64 / 1e9
    }

    /// When the level was above this one.
    fn periods_above(&self, level: u32) -> Vec<Period> {
        let mut periods: Vec<Period> = Vec::new();
        let mut begun = (self.forgotten > level).then_some(self.forgotten_since);
        for &(at, now) in &self.changes {
            match begun {
                None if now > level => begun = Some(at),
                Some(from) if now <= level => {
                    periods.push(Period { from, until: Some(at) });
                    begun = None;
                }
                _ => {}
            }
        }
        periods.extend(begun.map(|from| Period { from, until: None }));
        periods
    }
}

/// The history of a run that goes on: written by the receive thread when the level changes, read by who reports.
#[derive(Clone, Debug, Default)]
pub struct SharedHistory(Arc<Mutex<History>>);

impl SharedHistory {
    /// To be shared.
    pub fn new(history: History) -> Self {
        Self(Arc::new(Mutex::new(history)))
    }

    /// As it is now.
    pub fn read(&self) -> History {
        self.lock().clone()
    }

    /// Asks it something, without a copy.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&History) -> T) -> T {
        ask(&self.lock())
    }

    pub(crate) fn note(&self, at: Nanos, level: u32) {
        self.lock().note(at, level);
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        // Nothing in there can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(floor: u32, changes: &[(u64, u32)]) -> History {
        let mut history = History::new(floor);
        for (at, level) in changes {
            history.note(Nanos(*at), *level);
        }
        history
    }

    fn period(from: u64, until: Option<u64>) -> Period {
        Period { from: Nanos(from), until: until.map(Nanos) }
    }

    #[test]
    fn a_bucket_is_shed_while_the_level_is_above_it() {
        let history = history(0, &[(10, 64), (20, 128), (30, 32), (40, 0), (50, 256)]);
        let periods = |bucket| history.periods_between(bucket, Nanos(0), Nanos(99));
        assert_eq!(periods(31), [period(10, Some(40)), period(50, None)]);
        assert_eq!(periods(32), [period(10, Some(30)), period(50, None)]);
        assert_eq!(periods(64), [period(20, Some(30)), period(50, None)]);
        assert_eq!(periods(200), [period(50, None)]);
        assert_eq!(history.periods_between(31, Nanos(41), Nanos(49)), []);
        let highest = |first, last| history.highest_between(Nanos(first), Nanos(last));
        let levels = [highest(0, 9), highest(0, 19), highest(15, 20), highest(31, 39), highest(41, 50)];
        assert_eq!(levels, [0, 64, 128, 32, 256]);
        assert_eq!((history.level(), history.highest()), (256, 256));
        assert_eq!((history.seconds(Nanos(60)) * 1e9).round().to_string(), "40");
    }

    #[test]
    fn what_configuration_leaves_out_is_not_shed() {
        let history = history(128, &[(10, 192), (20, 128)]);
        assert!(history.is_sampled() && history.has_shed());
        assert!(history.is_any_shed(Nanos(12), Nanos(13)) && !history.is_any_shed(Nanos(21), Nanos(99)));
        assert_eq!((history.sampled_out_percent(), history.shed_percent(192)), (50.0, 50.0));
        assert!(!History::new(128).has_shed());
    }

    #[test]
    fn what_is_forgotten_is_taken_for_shed_all_the_time() {
        let mut history = history(0, &[(1, 40), (2, 0)]);
        for at in 0..2_000 {
            history.note(Nanos(1_000 + 2 * at), 10);
            history.note(Nanos(1_001 + 2 * at), 0);
        }
        assert_eq!(history.changes.len(), MAX_CHANGES);
        assert_eq!(history.highest_between(Nanos(500), Nanos(500)), 40);
        let periods = |bucket| history.periods_between(bucket, Nanos(0), Nanos(9_999));
        let first = history.changes[0].0;
        assert_eq!(periods(39), [Period { from: Nanos(1), until: Some(first) }]);
        assert_eq!(periods(40), []);
        // Before the first of all there was nothing; and how long it was in all is not forgotten.
        assert_eq!(history.highest_between(Nanos(0), Nanos(0)), 0);
        assert_eq!((history.seconds(Nanos(9_999)) * 1e9).round().to_string(), "2001");
    }
}
