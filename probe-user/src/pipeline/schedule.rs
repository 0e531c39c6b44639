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
//! around who has what; it is taken a few times a stretch, which is half a thousand frames. Memory is bounded by the
//! number of stretches, and of lanes that may wait for a worker.
//!
//! What another core has written costs several times as much to read as what this one has. So a stretch stays with its worker,
//! who reads, decodes and settles it, and fills it again. Others settle it only if they had nothing to do otherwise.
//!
//! Who finds nothing to do looks on for some microseconds, as what another is at takes not much longer, and then sleeps. Whoever
//! leaves something that can be done wakes one sleeper for it, and not before it has picked for itself: who is woken for
//! nothing has gone to sleep again by the time there is something.

use std::collections::VecDeque;
use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::stretch::{Lane, Stretch};

/// Lanes that may wait for a worker: what one is behind the others at most, besides the stretches.
const LANES: usize = 4;
/// Looks for something to do before a worker sleeps: some ten microseconds, about what another takes to read a block.
const LOOKS: u32 = 512;

/// A reader, a desk, and what there is to do.
pub(super) struct Schedule<R, D> {
    state: Mutex<State<R, D>>,
    /// How often somebody put something back.
    changes: AtomicU64,
    /// For each worker, where it sleeps.
    beds: Box<[Condvar]>,
}

/// What to do next.
pub(super) enum Job<R, D> {
    /// Fill a stretch, give the reader back, and decode.
    Read(R, Stretch),
    /// Settle a stretch, which is that worker's.
    Settle(D, usize, Stretch),
    /// Analyse what is the worker's own.
    Analyse(Lane),
}

struct State<R, D> {
    /// `None` while somebody reads.
    reader: Option<R>,
    /// `None` while somebody settles.
    desk: Option<D>,
    /// Each with the worker that used it last.
    empty: Vec<(usize, Stretch)>,
    /// By number and worker, in no order; a few.
    decoded: Vec<(u64, usize, Stretch)>,
    /// How many stretches there are.
    stretches: usize,
    /// How many were read, and settled.
    read: u64,
    settled: u64,
    /// For each worker.
    lanes: Vec<VecDeque<Lane>>,
    spare: Vec<Lane>,
    /// Which workers sleep, and were not woken.
    asleep: Vec<bool>,
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
            empty: (0..workers).cycle().zip(empty).collect(),
            read: 0,
            settled: 0,
            lanes: (0..workers).map(|_| VecDeque::with_capacity(LANES)).collect(),
            spare: Vec::new(),
            asleep: vec![false; workers],
            is_over: false,
            has_failed: false,
        };
        let beds = (0..workers).map(|_| Condvar::new()).collect();
        Self { state: Mutex::new(state), changes: AtomicU64::new(0), beds }
    }

    /// Waits for something to do; `None` when there will be nothing more. What else can be done, sleepers are woken for.
    pub(super) fn next(&self, worker: usize) -> Option<Job<R, D>> {
        let mut state = self.lock();
        loop {
            let job = if state.has_failed { None } else { state.pick(worker) };
            self.wake(&mut state);
            if job.is_some() || state.has_failed || state.is_done(worker) {
                return job;
            }
            let changes = self.changes.load(Ordering::Relaxed);
            drop(state);
            let is_unchanged = |_| {
                hint::spin_loop();
                self.changes.load(Ordering::Relaxed) == changes
            };
            let has_changed = !(0..LOOKS).all(is_unchanged);
            state = self.lock();
            // Changes are made under the lock: there is none between this look and the sleep.
            if has_changed || self.changes.load(Ordering::Relaxed) != changes {
                continue;
            }
            let (Some(bed), Some(is_asleep)) = (self.beds.get(worker), state.asleep.get_mut(worker)) else {
                return None;
            };
            *is_asleep = true;
            state = bed.wait(state).unwrap_or_else(PoisonError::into_inner);
            if let Some(is_asleep) = state.asleep.get_mut(worker) {
                *is_asleep = false;
            }
        }
    }

    /// The reader is free; it filled a stretch, whose number this is.
    pub(super) fn has_read(&self, reader: R) -> u64 {
        let mut state = self.lock();
        state.reader = Some(reader);
        state.read += 1;
        let number = state.read - 1;
        self.has_changed();
        // Who read decodes next.
        self.wake(&mut state);
        number
    }

    /// The reader is free, and the file is over.
    pub(super) fn is_over(&self, reader: R, worker: usize, stretch: Stretch) {
        self.change(|state| {
            state.reader = Some(reader);
            state.is_over = true;
            state.empty.push((worker, stretch));
        });
    }

    /// A worker has decoded a stretch.
    pub(super) fn has_decoded(&self, number: u64, worker: usize, stretch: Stretch) {
        self.change(|state| state.decoded.push((number, worker, stretch)));
    }

    /// The desk is free, and what it settled goes to the workers.
    pub(super) fn has_settled(&self, desk: D, worker: usize, mut stretch: Stretch) {
        self.change(|state| {
            state.desk = Some(desk);
            state.settled += 1;
            for (lane, waiting) in stretch.lanes.iter_mut().zip(&mut state.lanes) {
                waiting.push_back(std::mem::replace(lane, state.spare.pop().unwrap_or_default()));
            }
            state.empty.push((worker, stretch));
        });
    }

    /// A lane is empty.
    pub(super) fn has_analysed(&self, lane: Lane) {
        self.change(|state| state.spare.push(lane));
    }

    /// Nobody shall wait for anybody any more.
    pub(super) fn fail(&self) {
        self.change(|state| state.has_failed = true);
        self.wake(&mut self.lock());
    }

    /// The stretches, when there is nothing more to do.
    pub(super) fn into_stretches(self) -> Vec<Stretch> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.empty.into_iter().map(|(_, stretch)| stretch).collect()
    }

    /// Changes what there is to do. Whoever does asks for the next job at once, and wakes others then.
    fn change(&self, change: impl FnOnce(&mut State<R, D>)) {
        let mut state = self.lock();
        change(&mut state);
        self.has_changed();
    }

    /// Tells those who look on. Relaxed: what has changed they see under the lock, which is held.
    fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Wakes as many sleepers as there is something to do for.
    fn wake(&self, state: &mut State<R, D>) {
        if !state.asleep.contains(&true) {
            return;
        }
        let is_over = state.has_failed || state.is_drained();
        let mut shared = state.shared_jobs();
        let State { asleep, lanes, .. } = state;
        for ((is_asleep, lanes), bed) in asleep.iter_mut().zip(lanes).zip(&self.beds) {
            if !*is_asleep {
                continue;
            }
            let has_own = !lanes.is_empty();
            if is_over || has_own || shared > 0 {
                shared -= usize::from(!is_over && !has_own);
                *is_asleep = false;
                bed.notify_one();
            }
        }
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
        let turn = self.turn().filter(|_| self.desk.is_some());
        let is_own = |turn| self.decoded.get(turn).is_some_and(|(_, home, _)| *home == worker);
        let can_read = self.reader.is_some() && self.can_read();
        if let Some(turn) = turn.filter(|turn| is_own(*turn) || !can_read) {
            let (_, home, stretch) = self.decoded.swap_remove(turn);
            return Some(Job::Settle(self.desk.take()?, home, stretch));
        }
        if !can_read {
            return None;
        }
        let own = self.empty.iter().rposition(|(home, _)| *home == worker);
        let (_, stretch) = self.empty.swap_remove(own.unwrap_or(self.empty.len() - 1));
        Some(Job::Read(self.reader.take()?, stretch))
    }

    /// Where the stretch is that is settled next, if there is room for what comes of it.
    fn turn(&self) -> Option<usize> {
        let has_room = self.lanes.iter().all(|lanes| lanes.len() < LANES);
        self.decoded.iter().position(|(number, ..)| *number == self.settled).filter(|_| has_room)
    }

    fn can_read(&self) -> bool {
        !self.is_over && !self.empty.is_empty()
    }

    /// What can be done by anybody.
    fn shared_jobs(&self) -> usize {
        let can_settle = self.desk.is_some() && self.turn().is_some();
        let can_read = self.reader.is_some() && self.can_read();
        usize::from(can_settle) + usize::from(can_read)
    }

    /// Can nothing more come for this worker?
    fn is_done(&self, worker: usize) -> bool {
        self.is_drained() && self.lanes.get(worker).is_none_or(VecDeque::is_empty)
    }

    /// Is all that was read settled, and nothing left to read?
    fn is_drained(&self) -> bool {
        self.is_over && self.empty.len() == self.stretches
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
            let stretches = (0..2 * workers).map(|_| Stretch::new(workers)).collect();
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
                    schedule.is_over((), worker, stretch);
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
                    schedule.has_decoded(number, worker, stretch);
                    None
                }
                Some(Doing::Job(Job::Settle((), home, stretch))) => {
                    settled.push(stretch.totals.packets);
                    schedule.has_settled((), home, stretch);
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
                prop_assert!(state.read - state.settled <= 2 * workers as u64);
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
    fn workers_that_sleep_are_woken_for_all_there_is_to_do() {
        const STRETCHES: u64 = 400;
        for workers in 1..=4 {
            let stretches = (0..=workers).map(|_| Stretch::new(workers)).collect();
            let schedule = Schedule::new((), (), workers, stretches);
            // Some jobs take longer than anybody looks on.
            let take_time = |number: u64| {
                if number % 7 < 2 {
                    thread::sleep(std::time::Duration::from_micros(100 * (number % 3)));
                }
            };
            let work = |worker: usize| {
                let (mut settled, mut analysed) = (Vec::new(), 0);
                while let Some(job) = schedule.next(worker) {
                    match job {
                        Job::Read((), stretch) if schedule.lock().read == STRETCHES => {
                            schedule.is_over((), worker, stretch);
                        }
                        Job::Read((), mut stretch) => {
                            take_time(worker as u64);
                            let number = schedule.has_read(());
                            take_time(number);
                            stretch.totals.packets = number;
                            schedule.has_decoded(number, worker, stretch);
                        }
                        Job::Settle((), home, stretch) => {
                            settled.push(stretch.totals.packets);
                            take_time(stretch.totals.packets + 3);
                            schedule.has_settled((), home, stretch);
                        }
                        Job::Analyse(lane) => {
                            take_time(analysed);
                            analysed += 1;
                            schedule.has_analysed(lane);
                        }
                    }
                }
                (settled, analysed)
            };
            let work = &work;
            let done: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let mut settled: Vec<_> = done.iter().flat_map(|(settled, _)| settled).copied().collect();
            settled.sort_unstable();
            assert!(settled.into_iter().eq(0..STRETCHES), "{workers}");
            assert!(done.iter().all(|(_, analysed)| *analysed == STRETCHES), "{workers}");
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
