//! The protocol on plain memory, and under loom.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::thread;

use super::*;

/// A ring in this process's memory. Both sides hold it.
pub(crate) struct Memory<T> {
    producer: AtomicU32,
    consumer: AtomicU32,
    slots: Box<[UnsafeCell<T>]>,
}

// SAFETY: slots are handed from one side to the other by the counters, which is what these tests are about.
unsafe impl<T: Send> Sync for Memory<T> {}

impl<T: Copy + Default> Memory<T> {
    /// An empty ring whose counters stand at `start`, once for each side.
    pub(crate) fn storages(size: u32, start: u32) -> (Arc<Self>, Arc<Self>) {
        let slots = (0..size).map(|_| UnsafeCell::new(T::default())).collect();
        let memory =
            Arc::new(Self { producer: AtomicU32::new(start), consumer: AtomicU32::new(start), slots });
        (Arc::clone(&memory), memory)
    }

    /// Both sides of it.
    fn pair(size: u32, start: u32) -> (Producer<Arc<Self>>, Consumer<Arc<Self>>) {
        let (one, other) = Self::storages(size, start);
        (Producer::new(one), Consumer::new(other))
    }
}

impl<T: Copy> Storage for Arc<Memory<T>> {
    type Entry = T;
    type Counter = AtomicU32;

    fn size(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap()
    }

    fn producer(&self) -> &AtomicU32 {
        &self.producer
    }

    fn consumer(&self) -> &AtomicU32 {
        &self.consumer
    }

    fn read(&self, index: u32) -> T {
        // SAFETY: the protocol gives the slot to the reader.
        unsafe { *self.slots[(index & (self.size() - 1)) as usize].get() }
    }

    fn write(&self, index: u32, entry: T) {
        // SAFETY: the protocol gives the slot to the writer.
        unsafe { *self.slots[(index & (self.size() - 1)) as usize].get() = entry };
    }
}

#[test]
fn counters_wrap_and_nothing_is_lost_or_comes_twice() {
    let (mut producer, mut consumer) = Memory::<u64>::pair(8, u32::MAX - 20);
    let (mut sent, mut received) = (0, Vec::new());
    for round in 0..40_usize {
        for _ in 0..=round % 8 {
            sent += u64::from(producer.push(sent));
        }
        producer.publish();
        consumer.refresh();
        received.extend(std::iter::from_fn(|| consumer.pop()).take(round % 5));
        consumer.release();
    }
    consumer.refresh();
    received.extend(std::iter::from_fn(|| consumer.pop()));
    assert!(sent > 60);
    assert_eq!(received, (0..sent).collect::<Vec<_>>());
}

#[test]
fn a_full_ring_refuses_and_has_room_only_after_the_release() {
    let (mut producer, mut consumer) = Memory::<u64>::pair(4, u32::MAX);
    assert_eq!((0..6).filter(|&entry| producer.push(entry)).count(), 4);
    consumer.refresh();
    assert_eq!(consumer.waiting(), 0, "nothing was published");
    producer.publish();
    consumer.refresh();
    assert_eq!((consumer.waiting(), consumer.peek(), consumer.pop()), (4, Some(0), Some(0)));
    assert_eq!(producer.room(), 0, "popped, and not released");
    consumer.release();
    assert_eq!(producer.room(), 1);
}

#[test]
fn two_threads_pass_a_million_entries_in_order() {
    const ENTRIES: u64 = 1_000_000;
    let (mut producer, mut consumer) = Memory::<u64>::pair(64, u32::MAX - 500_000);
    let sender = thread::spawn(move || {
        let mut next = 0;
        while next < ENTRIES {
            if producer.push(next) {
                next += 1;
            } else {
                producer.publish();
                thread::yield_now();
            }
        }
        producer.publish();
    });
    let mut expected = 0;
    while expected < ENTRIES {
        consumer.refresh();
        if consumer.waiting() == 0 {
            thread::yield_now();
        }
        while let Some(entry) = consumer.pop() {
            assert_eq!(entry, expected);
            expected += 1;
        }
        consumer.release();
    }
    sender.join().unwrap();
}

/// The same protocol on loom's memory, which knows when a slot is touched by two threads without an order between them,
/// and lets a load see every value that the orderings allow. The kernel's side is played by our own of that side: it
/// makes the same accesses in the same order.
mod under_loom {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;
    use loom::thread;

    use super::super::{Consumer, Counter, Ordering, Producer, Storage};

    struct Memory {
        producer: AtomicU32,
        consumer: AtomicU32,
        slots: [UnsafeCell<u64>; 2],
    }

    impl Counter for AtomicU32 {
        fn load(&self, order: Ordering) -> u32 {
            Self::load(self, order)
        }

        fn store(&self, value: u32, order: Ordering) {
            Self::store(self, value, order);
        }
    }

    impl Storage for Arc<Memory> {
        type Entry = u64;
        type Counter = AtomicU32;

        fn size(&self) -> u32 {
            2
        }

        fn producer(&self) -> &AtomicU32 {
            &self.producer
        }

        fn consumer(&self) -> &AtomicU32 {
            &self.consumer
        }

        fn read(&self, index: u32) -> u64 {
            // SAFETY: loom panics if anybody can be writing.
            self.slots[(index & 1) as usize].with(|slot| unsafe { *slot })
        }

        fn write(&self, index: u32, entry: u64) {
            // SAFETY: loom panics if anybody else can be there.
            self.slots[(index & 1) as usize].with_mut(|slot| unsafe { *slot = entry });
        }
    }

    /// `entries` through two slots, each batch as large as it comes, over the wrap of the counters.
    fn pass(entries: u64) {
        let memory = Arc::new(Memory {
            producer: AtomicU32::new(u32::MAX),
            consumer: AtomicU32::new(u32::MAX),
            slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
        });
        let mut producer = Producer::new(Arc::clone(&memory));
        let mut consumer = Consumer::new(memory);
        let sender = thread::spawn(move || {
            let mut next = 0;
            while next < entries {
                if producer.push(next) {
                    next += 1;
                    producer.publish();
                } else {
                    thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < entries {
            consumer.refresh();
            if consumer.waiting() == 0 {
                thread::yield_now();
            }
            while let Some(entry) = consumer.pop() {
                assert_eq!(entry, expected);
                expected += 1;
            }
            consumer.release();
        }
        sender.join().unwrap();
    }

    #[test]
    fn no_interleaving_loses_doubles_or_tears_an_entry() {
        let mut model = loom::model::Builder::new();
        // More preemptions than there are accesses to one counter find nothing new, and take minutes.
        model.preemption_bound = Some(3);
        model.check(|| pass(3));
    }
}
