//! The protocol of an AF_XDP ring: one side produces, the other consumes, and they share two counters.
//!
//! ```text
//!   producer side                shared memory                     consumer side
//!   push: fill slots             [ producer | consumer | slots ]   peek: acquire producer, read slots
//!   publish: release producer  ─────▶                         ─────▶
//!   room:   acquire consumer   ◀─────                         ◀─────  release: release consumer
//! ```
//!
//! The kernel has the other side of each ring, and may be on another CPU at any instant (net/xdp/xsk_queue.h). Counters
//! are free-running `u32` and wrap; only differences mean anything. Each side keeps its own position and a copy of the
//! other's, looks at the other's only when the copy says that there is nothing to do, and writes its own once a batch:
//! a counter is a cache line that moves between two CPUs.
//!
//! Where counters and slots are is the [`Storage`]'s business: mapped from the kernel, or plain memory in tests, so that
//! loom can walk through every interleaving of the two sides.

use std::sync::atomic::{AtomicU32, Ordering};

/// A counter that two sides share.
pub(crate) trait Counter {
    /// Reads it.
    fn load(&self, order: Ordering) -> u32;
    /// Writes it. Only the side whose counter it is does.
    fn store(&self, value: u32, order: Ordering);
}

impl Counter for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        Self::load(self, order)
    }

    fn store(&self, value: u32, order: Ordering) {
        Self::store(self, value, order);
    }
}

/// The memory of a ring.
///
/// A slot is read and written without synchronisation. That is sound because [`Producer`] and [`Consumer`] hand it over
/// by their counters, and each is the only one of its side.
pub(crate) trait Storage {
    /// What a slot holds.
    type Entry: Copy;
    /// How the counters are held.
    type Counter: Counter;

    /// Slots: a power of two.
    fn size(&self) -> u32;
    /// How many entries were ever produced.
    fn producer(&self) -> &Self::Counter;
    /// How many were ever consumed.
    fn consumer(&self) -> &Self::Counter;
    /// Reads the slot `index & (size - 1)`.
    fn read(&self, index: u32) -> Self::Entry;
    /// Writes it.
    fn write(&self, index: u32, entry: Self::Entry);
}

/// The producing side: of a fill ring, ours.
pub(crate) struct Producer<S> {
    storage: S,
    /// Entries ever pushed.
    pushed: u32,
    /// The part of them that the other side knows.
    published: u32,
    /// How far the consumer was when last looked at.
    consumed: u32,
}

impl<S: Storage> Producer<S> {
    /// Takes the producing side, wherever it stands. There must be no other.
    pub(crate) fn new(storage: S) -> Self {
        let pushed = storage.producer().load(Ordering::Relaxed);
        let consumed = storage.consumer().load(Ordering::Acquire);
        Self { storage, pushed, published: pushed, consumed }
    }

    /// Slots that can be filled. Asks the other side if it seems that there are none.
    pub(crate) fn room(&mut self) -> u32 {
        if self.pushed.wrapping_sub(self.consumed) == self.storage.size() {
            // Acquire: the consumer has read the slots that we are about to overwrite. Pairs with the release store
            // in __xskq_cons_release.
            self.consumed = self.storage.consumer().load(Ordering::Acquire);
        }
        self.storage.size().saturating_sub(self.pushed.wrapping_sub(self.consumed))
    }

    /// Fills a slot. False if there is none. The other side sees it after [`publish`](Self::publish).
    #[must_use]
    pub(crate) fn push(&mut self, entry: S::Entry) -> bool {
        if self.room() == 0 {
            return false;
        }
        self.storage.write(self.pushed, entry);
        self.pushed = self.pushed.wrapping_add(1);
        true
    }

    /// Hands over what was pushed.
    pub(crate) fn publish(&mut self) {
        if self.pushed != self.published {
            // Release: the slots are written before they are announced. Pairs with the acquire load in
            // __xskq_cons_peek.
            self.storage.producer().store(self.pushed, Ordering::Release);
            self.published = self.pushed;
        }
    }

    /// The memory, for what else is in it.
    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }
}

/// The consuming side: of a receive ring, ours.
pub(crate) struct Consumer<S> {
    storage: S,
    /// Entries ever popped.
    popped: u32,
    /// The part of them that the other side knows.
    released: u32,
    /// How far the producer was when last looked at.
    produced: u32,
}

impl<S: Storage> Consumer<S> {
    /// Takes the consuming side, wherever it stands. There must be no other.
    pub(crate) fn new(storage: S) -> Self {
        let popped = storage.consumer().load(Ordering::Relaxed);
        Self { storage, popped, released: popped, produced: popped }
    }

    /// Learns how far the producer has come. Later looks see no further.
    pub(crate) fn refresh(&mut self) {
        // Acquire: the slots before this position are written. Pairs with the release store in __xskq_prod_submit.
        self.produced = self.storage.producer().load(Ordering::Acquire);
    }

    /// Entries that wait, as of the last refresh.
    pub(crate) fn waiting(&self) -> u32 {
        self.produced.wrapping_sub(self.popped)
    }

    /// The next entry, which stays.
    pub(crate) fn peek(&self) -> Option<S::Entry> {
        self.peek_ahead(0)
    }

    /// The entry that is `ahead` places behind the next one, which stays too.
    pub(crate) fn peek_ahead(&self, ahead: u32) -> Option<S::Entry> {
        (self.waiting() > ahead).then(|| self.storage.read(self.popped.wrapping_add(ahead)))
    }

    /// Takes the next entry. The other side may reuse its slot after [`release`](Self::release).
    pub(crate) fn pop(&mut self) -> Option<S::Entry> {
        let entry = self.peek()?;
        self.popped = self.popped.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of what was popped back.
    pub(crate) fn release(&mut self) {
        if self.popped != self.released {
            // Release: our reads come before the producer may overwrite the slots. Pairs with the load of the
            // consumer in xskq_prod_nb_free, ordered there by the control dependency on it.
            self.storage.consumer().store(self.popped, Ordering::Release);
            self.released = self.popped;
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
pub(crate) mod tests;
