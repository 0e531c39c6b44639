//! The protocol on plain memory, and under loom. The kernel's side is played by what makes the same accesses in the same
//! order.

use std::cell::UnsafeCell;
use std::thread;

use probe_ebpf::record::kind;

use super::*;

/// A ring in this process's memory. Both sides hold it.
pub(crate) struct Memory {
    reserved: AtomicU64,
    consumed: AtomicU64,
    slots: Box<[(UnsafeCell<[u8; HEAD]>, AtomicU64)]>,
}

// SAFETY: heads are handed from one side to the other by the words, which is what these tests are about.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        let slots = (0..slots).map(|_| (UnsafeCell::new([0; HEAD]), AtomicU64::new(0))).collect();
        Arc::new(Self { reserved: AtomicU64::new(0), consumed: AtomicU64::new(0), slots })
    }

    fn slot(&self, index: u64) -> &(UnsafeCell<[u8; HEAD]>, AtomicU64) {
        &self.slots[usize::try_from(index).unwrap() & (self.slots.len() - 1)]
    }

    /// As the program does: reserves so many slots, unless too few are free.
    pub(crate) fn reserve(&self, width: u64) -> Option<u64> {
        let index = self.reserved.load(Ordering::Relaxed);
        if index - self.consumed.load(Ordering::Acquire) + width > self.slots.len() as u64 {
            return None;
        }
        self.reserved.store(index + width, Ordering::Relaxed);
        Some(index)
    }

    /// Fills them with a record of this kind and time, and hands it over.
    pub(crate) fn commit(&self, index: u64, kind: u8, time_ns: u64) {
        let (head, sequence) = self.slot(index);
        // SAFETY: reserved, so nobody reads it.
        unsafe { *head.get() = head_of(kind, time_ns) };
        if width(kind) > 1 {
            // SAFETY: the same.
            unsafe { *self.slot(index + 1).0.get() = rest_of(time_ns) };
        }
        sequence.store(committed(index), Ordering::Release);
    }
}

/// A head of this kind and time, otherwise empty.
fn head_of(kind: u8, time_ns: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&time_ns.to_ne_bytes());
    head[8] = kind;
    head
}

/// What the second slot of such a record has: the time once more, at the end.
fn rest_of(time_ns: u64) -> [u8; HEAD] {
    let mut rest = [0; HEAD];
    rest[TAIL - 8..TAIL].copy_from_slice(&time_ns.to_ne_bytes());
    rest
}

/// Kinds of records of one slot and of two, in turns that meet the end of a ring in every way.
fn kind_of_turn(turn: u64) -> u8 {
    if turn % 3 == 1 { kind::MEDIA6 } else { kind::MEDIA4 }
}

/// Is this the whole record of a turn, whose time is its number?
fn assert_whole(turn: u64, head: &[u8; HEAD], rest: Option<&[u8; TAIL]>) {
    assert_eq!(*head, head_of(kind_of_turn(turn), turn));
    let expected = (width(kind_of_turn(turn)) > 1).then(|| rest_of(turn));
    assert_eq!(rest, expected.as_ref().and_then(|rest| rest.first_chunk()));
}

impl Storage for Arc<Memory> {
    type Word = AtomicU64;

    fn slots(&self) -> u64 {
        self.slots.len() as u64
    }

    fn reserved(&self) -> &AtomicU64 {
        &self.reserved
    }

    fn consumed(&self) -> &AtomicU64 {
        &self.consumed
    }

    fn sequence(&self, index: u64) -> &AtomicU64 {
        &self.slot(index).1
    }

    fn head<T>(&self, index: u64, read: impl FnOnce(&[u8; HEAD]) -> T) -> T {
        // SAFETY: committed, so nobody writes it.
        read(unsafe { &*self.slot(index).0.get() })
    }
}

fn taken(slots: &mut Slots<Arc<Memory>>, until: u64, limit: usize) -> (Vec<u64>, Next) {
    let mut times = Vec::new();
    let (count, next) = slots.take(until, limit, |head, _| times.push(time_of(head)));
    assert_eq!(count, times.len());
    (times, next)
}

#[test]
fn records_come_in_order_up_to_the_horizon_and_the_limit() {
    let memory = Memory::new(8);
    let mut slots = Slots::new(Arc::clone(&memory));
    assert_eq!(slots.next(), Next::Empty);
    for time_ns in [10, 20, 30, 40] {
        memory.commit(memory.reserve(1).unwrap(), kind::MEDIA4, time_ns);
    }
    assert_eq!(slots.next(), Next::Empty, "nobody looked");
    slots.refresh();
    assert_eq!((slots.waiting(), slots.next()), (4, Next::At(10)));
    assert_eq!(taken(&mut slots, 30, 2), (vec![10, 20], Next::At(30)));
    assert_eq!(taken(&mut slots, 30, 9), (vec![30], Next::At(40)));
    assert_eq!(taken(&mut slots, u64::MAX, 9), (vec![40], Next::Empty));
}

#[test]
fn a_record_that_is_still_written_holds_up_those_behind_it() {
    let memory = Memory::new(8);
    let mut slots = Slots::new(Arc::clone(&memory));
    let (first, second) = (memory.reserve(1).unwrap(), memory.reserve(2).unwrap());
    memory.commit(second, kind::MEDIA6, 20);
    slots.refresh();
    assert_eq!(taken(&mut slots, 100, 9), (vec![], Next::Busy));
    memory.commit(first, kind::MEDIA4, 10);
    assert_eq!(taken(&mut slots, 100, 9), (vec![10, 20], Next::Empty));
}

#[test]
fn a_full_ring_refuses_until_what_was_read_is_published_and_a_lap_is_not_read_twice() {
    let memory = Memory::new(32);
    let mut slots = Slots::new(Arc::clone(&memory));
    for lap in 0..5 {
        let reserved: Vec<_> = std::iter::from_fn(|| memory.reserve(1)).collect();
        assert_eq!(reserved.len(), 32, "lap {lap}");
        for &index in &reserved {
            memory.commit(index, kind::MEDIA4, index);
        }
        slots.refresh();
        assert_eq!(taken(&mut slots, u64::MAX, 1), (vec![lap * 32], Next::At(lap * 32 + 1)));
        assert_eq!(memory.reserve(1), None, "read, and not published");
        let (times, next) = taken(&mut slots, u64::MAX, 99);
        assert_eq!((times, next), ((lap * 32 + 1..lap * 32 + 32).collect(), Next::Empty));
        slots.publish();
    }
}

#[test]
fn two_slots_need_two_that_are_free_and_may_be_the_last_and_the_first() {
    let memory = Memory::new(4);
    let mut slots = Slots::new(Arc::clone(&memory));
    let mut turn = 0;
    for _ in 0..50 {
        while let Some(index) = memory.reserve(2) {
            memory.commit(index, kind::MEDIA6, turn);
            turn += 1;
        }
        slots.refresh();
        let before = turn - slots.waiting() / 2;
        let (times, next) = taken(&mut slots, u64::MAX, 9);
        assert_eq!((times, next), ((before..turn).collect(), Next::Empty));
        slots.publish();
        // Next time everything is one slot further.
        memory.commit(memory.reserve(1).unwrap(), kind::MEDIA4, turn);
        slots.refresh();
        assert_eq!(taken(&mut slots, u64::MAX, 9), (vec![turn], Next::Empty));
        turn += 1;
        slots.publish();
    }
    memory.reserve(1).unwrap();
    memory.reserve(2).unwrap();
    assert_eq!((memory.reserve(2), memory.reserve(1)), (None, Some(253)));
}

#[test]
fn positions_that_make_no_sense_read_nothing_that_was_not_committed() {
    let memory = Memory::new(8);
    let mut slots = Slots::new(Arc::clone(&memory));
    memory.reserved.store(u64::MAX, Ordering::Relaxed);
    slots.refresh();
    assert_eq!((slots.waiting(), slots.next()), (8, Next::Busy));
}

#[test]
fn two_threads_pass_a_million_records_in_order() {
    const RECORDS: u64 = 1_000_000;
    let memory = Memory::new(64);
    let mut slots = Slots::new(Arc::clone(&memory));
    let sender = thread::spawn(move || {
        for time_ns in 0..RECORDS {
            let index = loop {
                match memory.reserve(width(kind_of_turn(time_ns))) {
                    Some(index) => break index,
                    None => thread::yield_now(),
                }
            };
            memory.commit(index, kind_of_turn(time_ns), time_ns);
        }
    });
    let mut expected = 0;
    while expected < RECORDS {
        slots.refresh();
        let (count, _) = slots.take(u64::MAX, usize::MAX, |head, rest| {
            assert_whole(expected, head, rest);
            expected += 1;
        });
        slots.publish();
        if count == 0 {
            thread::yield_now();
        }
    }
    sender.join().unwrap();
}

/// The same protocol on loom's memory, which knows when a head is touched by two threads without an order between them,
/// and lets a load see every value that the orderings allow.
mod under_loom {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64;
    use loom::thread;

    use super::super::{HEAD, Ordering, Slots, Storage, Word, committed, width};
    use super::{assert_whole, head_of, kind_of_turn, rest_of};

    struct Memory {
        reserved: AtomicU64,
        consumed: AtomicU64,
        slots: [(UnsafeCell<[u8; HEAD]>, AtomicU64); 2],
    }

    impl Word for AtomicU64 {
        fn load(&self, order: Ordering) -> u64 {
            Self::load(self, order)
        }

        fn store(&self, value: u64, order: Ordering) {
            Self::store(self, value, order);
        }
    }

    impl Storage for Arc<Memory> {
        type Word = AtomicU64;

        fn slots(&self) -> u64 {
            2
        }

        fn reserved(&self) -> &AtomicU64 {
            &self.reserved
        }

        fn consumed(&self) -> &AtomicU64 {
            &self.consumed
        }

        fn sequence(&self, index: u64) -> &AtomicU64 {
            &self.slots[(index & 1) as usize].1
        }

        fn head<T>(&self, index: u64, read: impl FnOnce(&[u8; HEAD]) -> T) -> T {
            // SAFETY: loom panics if anybody can be writing.
            self.slots[(index & 1) as usize].0.with(|head| read(unsafe { &*head }))
        }
    }

    /// `records` of one slot or two through two slots, each batch as large as it comes.
    fn pass(records: u64) {
        let slot = || (UnsafeCell::new([0; HEAD]), AtomicU64::new(0));
        let memory = Arc::new(Memory {
            reserved: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            slots: [slot(), slot()],
        });
        let mut slots = Slots::new(Arc::clone(&memory));
        let sender = thread::spawn(move || {
            let (mut next, mut turn) = (0, 0);
            while turn < records {
                let width = width(kind_of_turn(turn));
                // The acquire stands for the dependency of the program's stores on this load.
                if next - memory.consumed.load(Ordering::Acquire) + width > 2 {
                    thread::yield_now();
                    continue;
                }
                memory.reserved.store(next + width, Ordering::Relaxed);
                let (head, sequence) = &memory.slots[(next & 1) as usize];
                // SAFETY: loom panics if anybody else can be there.
                head.with_mut(|head| unsafe { *head = head_of(kind_of_turn(turn), turn) });
                if width > 1 {
                    let (rest, _) = &memory.slots[((next + 1) & 1) as usize];
                    // SAFETY: the same.
                    rest.with_mut(|rest| unsafe { *rest = rest_of(turn) });
                }
                sequence.store(committed(next), Ordering::Release);
                (next, turn) = (next + width, turn + 1);
            }
        });
        let mut expected = 0;
        while expected < records {
            slots.refresh();
            let (taken, _) = slots.take(u64::MAX, usize::MAX, |head, rest| {
                assert_whole(expected, head, rest);
                expected += 1;
            });
            slots.publish();
            if taken == 0 {
                thread::yield_now();
            }
        }
        sender.join().unwrap();
    }

    #[test]
    fn no_interleaving_loses_doubles_or_tears_a_record() {
        let mut model = loom::model::Builder::new();
        // More preemptions than there are accesses to one word find nothing new, and take minutes.
        model.preemption_bound = Some(3);
        model.check(|| pass(3));
    }
}
