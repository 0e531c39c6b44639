//! Who does what next, where several threads take a file from end to end.
//!
//! ```text
//!            ┌── reader ──┐                  ┌── desk ──┐                 ┌─▶ lane ─▶ shard 0, worker 0
//!   empty ─▶ │ read  n+2  │ ─▶ decode n+1 ─▶ │ settle n │ ─▶ empty        ├─▶ lane ─▶ shard 1, worker 1
//!            └────────────┘    by whoever    └──────────┘     └─ lanes ───┘
//!              one at a time   read it        one at a time,
//!                                             in order
//! ```
//!
//! Reader and desk are each used by one at a time: whoever has nothing more urgent to do takes them, and puts them back. The
//! most urgent is what is furthest on, so that it is still in the caches. A shard is its worker's alone. There is a lock
//! around who has what; it is taken a few times a stretch, which is a thousand frames. Memory is bounded by the
//! number of stretches, and of lanes that may wait for a worker.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::stretch::{Lane, Stretch};

/// Lanes that may wait for a worker: what one is behind the others at most, besides the stretches.
const LANES: usize = 4;

/// A reader, a desk, and what there is to do.
pub(super) struct Schedule<R, D> {
    state: Mutex<State<R, D>>,
    /// Somebody put something back.
    changed: Condvar,
}

/// What to do next.
pub(super) enum Job<R, D> {
    /// Fill a stretch, give the reader back, and decode.
    Read(R, Stretch),
    /// Settle a stretch.
    Settle(D, Stretch),
    /// Analyse what is the worker's own.
    Analyse(Lane),
}

struct State<R, D> {
    /// `None` while somebody reads.
    reader: Option<R>,
    /// `None` while somebody settles.
    desk: Option<D>,
    empty: Vec<Stretch>,
    /// By number, in no order; a few.
    decoded: Vec<(u64, Stretch)>,
    /// How many stretches there are.
    stretches: usize,
    /// How many were read, and settled.
    read: u64,
    settled: u64,
    /// For each worker.
    lanes: Vec<VecDeque<Lane>>,
    spare: Vec<Lane>,
    waiting: usize,
    is_over: bool,
    has_failed: bool,
}

impl<R, D> Schedule<R, D> {
    /// For as many workers as stretches have lanes.
    pub(super) fn new(reader: R, desk: D, workers: usize, empty: Vec<Stretch>) -> Self {
        let state = State {
            reader: Some(reader),
            desk: Some(desk),
            decoded: Vec::with_capacity(empty.len()),
            stretches: empty.len(),
            empty,
            read: 0,
            settled: 0,
            lanes: (0..workers).map(|_| VecDeque::with_capacity(LANES)).collect(),
            spare: Vec::new(),
            waiting: 0,
            is_over: false,
            has_failed: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for something to do; `None` when there will be nothing more.
    pub(super) fn next(&self, worker: usize) -> Option<Job<R, D>> {
        let mut state = self.lock();
        loop {
            if state.has_failed {
                return None;
            }
            if let Some(job) = state.pick(worker) {
                return Some(job);
            }
            if state.is_done(worker) {
                return None;
            }
            state.waiting += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// The reader is free; it filled a stretch, whose number this is.
    pub(super) fn has_read(&self, reader: R) -> u64 {
        self.change(|state| {
            state.reader = Some(reader);
            state.read += 1;
            state.read - 1
        })
    }

    /// The reader is free, and the file is over.
    pub(super) fn is_over(&self, reader: R, stretch: Stretch) {
        self.change(|state| {
            state.reader = Some(reader);
            state.is_over = true;
            state.empty.push(stretch);
        });
    }

    /// A stretch is decoded.
    pub(super) fn has_decoded(&self, number: u64, stretch: Stretch) {
        self.change(|state| state.decoded.push((number, stretch)));
    }

    /// The desk is free, and what it settled goes to the workers.
    pub(super) fn has_settled(&self, desk: D, mut stretch: Stretch) {
        self.change(|state| {
            state.desk = Some(desk);
            state.settled += 1;
            for (lane, waiting) in stretch.lanes.iter_mut().zip(&mut state.lanes) {
                waiting.push_back(std::mem::replace(lane, state.spare.pop().unwrap_or_default()));
            }
            state.empty.push(stretch);
        });
    }

    /// A lane is empty.
    pub(super) fn has_analysed(&self, lane: Lane) {
        self.change(|state| state.spare.push(lane));
    }

    /// Nobody shall wait for anybody any more.
    pub(super) fn fail(&self) {
        self.change(|state| state.has_failed = true);
    }

    /// The stretches, when there is nothing more to do.
    pub(super) fn into_stretches(self) -> Vec<Stretch> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).empty
    }

    fn change<T>(&self, change: impl FnOnce(&mut State<R, D>) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State<R, D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R, D> State<R, D> {
    fn pick(&mut self, worker: usize) -> Option<Job<R, D>> {
        if let Some(lane) = self.lanes.get_mut(worker)?.pop_front() {
            return Some(Job::Analyse(lane));
        }
        let has_room = self.lanes.iter().all(|lanes| lanes.len() < LANES);
        let turn = self.decoded.iter().position(|(number, _)| *number == self.settled);
        if let Some(turn) = turn.filter(|_| has_room)
            && let Some(desk) = self.desk.take()
        {
            return Some(Job::Settle(desk, self.decoded.swap_remove(turn).1));
        }
        if self.is_over || self.empty.is_empty() {
            return None;
        }
        let reader = self.reader.take()?;
        Some(Job::Read(reader, self.empty.pop()?))
    }

    /// Can nothing more come for this worker?
    fn is_done(&self, worker: usize) -> bool {
        let is_settled = self.is_over && self.empty.len() == self.stretches;
        is_settled && self.lanes.get(worker).is_none_or(VecDeque::is_empty)
    }
}

/// Sees to it that a worker which dies is not waited for.
pub(super) struct Alarm<'a, R, D>(pub(super) &'a Schedule<R, D>);

impl<R, D> Drop for Alarm<'_, R, D> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::outlet::Outlet as _;
    use super::*;
    use crate::packet::RtpPacket;
    use crate::rtp::testing::packet;

    /// What a worker is at.
    enum Doing {
        Job(Job<(), ()>),
        Decoding(u64, Stretch),
    }

    /// Workers that take turns in some order, each turn a step of a job. The reader has so many stretches.
    struct Simulated {
        schedule: Schedule<(), ()>,
        workers: Vec<Option<Doing>>,
        to_read: u64,
        settled: Vec<u64>,
        analysed: Vec<Vec<u64>>,
    }

    impl Simulated {
        fn new(workers: usize, to_read: u64) -> Self {
            let stretches = (0..=workers).map(|_| Stretch::new(workers)).collect();
            Self {
                schedule: Schedule::new((), (), workers, stretches),
                workers: (0..workers).map(|_| None).collect(),
                to_read,
                settled: Vec::new(),
                analysed: vec![Vec::new(); workers],
            }
        }

        /// One step of a worker; `false` if there is nothing for it now.
        fn step(&mut self, worker: usize) -> bool {
            let Self { schedule, workers, to_read, settled, analysed } = self;
            workers[worker] = match workers[worker].take() {
                None => {
                    let job = schedule.lock().pick(worker);
                    if job.is_none() {
                        return false;
                    }
                    job.map(Doing::Job)
                }
                Some(Doing::Job(Job::Read((), stretch))) if schedule.lock().read == *to_read => {
                    schedule.is_over((), stretch);
                    None
                }
                Some(Doing::Job(Job::Read((), mut stretch))) => {
                    let number = schedule.has_read(());
                    stretch.totals.packets = number;
                    // Ports enough for every shard to have some.
                    for port in 0..64 {
                        let mut packet = RtpPacket { number, ..packet(1) };
                        packet.send_from(port);
                        stretch.lanes.packet(&packet);
                    }
                    Some(Doing::Decoding(number, stretch))
                }
                Some(Doing::Decoding(number, stretch)) => {
                    schedule.has_decoded(number, stretch);
                    None
                }
                Some(Doing::Job(Job::Settle((), stretch))) => {
                    settled.push(stretch.totals.packets);
                    schedule.has_settled((), stretch);
                    None
                }
                Some(Doing::Job(Job::Analyse(lane))) => {
                    analysed[worker].extend(lane.numbers());
                    schedule.has_analysed(Lane::default());
                    None
                }
            };
            true
        }
    }

    proptest! {
        /// However long each job takes, stretches are settled once and in order, every worker gets its part of each in
        /// order, nobody waits for ever, and no more lie about than there is room for.
        #[test]
        fn every_stretch_is_settled_in_order_and_analysed_by_all(
            workers in 1_usize..5,
            to_read in 0_u64..30,
            turns in prop::collection::vec(any::<prop::sample::Index>(), 0..400),
        ) {
            let mut simulated = Simulated::new(workers, to_read);
            for turn in turns {
                simulated.step(turn.index(workers));
                let state = simulated.schedule.lock();
                prop_assert!(state.lanes.iter().all(|lanes| lanes.len() <= LANES));
                prop_assert!(state.read - state.settled <= workers as u64 + 1);
            }
            // Whatever was begun, it comes to its end.
            while (0..workers).filter(|worker| simulated.step(*worker)).count() > 0 {}
            let state = simulated.schedule.lock();
            prop_assert!((0..workers).all(|worker| state.is_done(worker)));
            drop(state);
            prop_assert_eq!(simulated.settled, (0..to_read).collect::<Vec<_>>());
            for mut analysed in simulated.analysed {
                prop_assert!(analysed.is_sorted());
                analysed.dedup();
                prop_assert_eq!(analysed, (0..to_read).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn nobody_waits_for_a_worker_that_died() {
        let schedule = Schedule::new((), (), 2, vec![Stretch::new(2)]);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| while schedule.next(0).is_some() {});
            let dying = scope.spawn(|| {
                let _alarm = Alarm(&schedule);
                std::panic::resume_unwind(Box::new("a test's"));
            });
            assert!(dying.join().is_err() && waiting.join().is_ok());
        });
        assert!(schedule.next(1).is_none());
    }
}
