//! All queues' sockets as one sequence of records.
//!
//! One thread reads all of them, merged by the time at which the program saw each frame. A flow comes by one queue, where
//! it is in order. Between queues the order is exact but for what one softirq takes in at once, since the kernel announces
//! frames to a socket at its end: a SIP answer may come up to 64 frames of its queue late beside media of another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use libc::xdp_desc;

use super::exchange::Exchange;
use super::head::hand_out;
use super::mapped::Mapped;
use super::socket::{self, Bound};
use super::umem::{Chunk, Umem};
use crate::capture::clock;
use crate::capture::live::{Gauges, Occupancies, Record, Records};
use crate::capture::pace::Pace;

/// The longest nap, whatever came before: half of what 16,384 chunks, the fewest by default, last at 5.25 Mpps, 10 Gb/s of G.711.
const LONGEST: Duration = Duration::from_micros(1_500);
/// How long a reader waits for a frame, after a round without one, before flags and clocks are looked at again.
const WAIT: Duration = Duration::from_millis(10);

/// The sockets of all queues. Lives on the thread that receives.
pub struct MirrorReader {
    queues: Vec<Queue>,
    /// The next frame of each queue that has one in this round.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    gauges: Gauges,
    /// Bytes of a frame that is taken whole.
    snap: usize,
    polls_driver: bool,
    pace: Pace,
    /// Did the last round find anything?
    found: bool,
}

/// What a reader does until the next round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing: it is its own interrupt.
    None,
    /// Sleeps, as [`Pace`] has it. Frames that come meanwhile wake nobody, which costs their sender nothing.
    Nap,
    /// Sleeps until a frame comes: on an idle port hardly ever anything is done.
    Wait,
}

impl Rest {
    fn after(found: bool, polls_driver: bool) -> Self {
        match (polls_driver, found) {
            (true, _) => Self::None,
            (false, true) => Self::Nap,
            (false, false) => Self::Wait,
        }
    }
}

struct Queue {
    socket: Arc<OwnedFd>,
    exchange: Exchange<Mapped<xdp_desc>, Mapped<u64>>,
    chunk_bytes: u64,
}

/// A socket and the chunks that are its own.
pub(crate) struct Endowed {
    pub(crate) bound: Bound,
    pub(crate) umem: Arc<Umem>,
    pub(crate) chunks: Vec<Chunk>,
}

impl MirrorReader {
    /// Gives the kernel every chunk. With `polls_driver` every look at the sockets asks the driver for frames.
    pub(crate) fn new(sockets: Vec<Endowed>, snap: usize, polls_driver: bool) -> Self {
        let sizes = sockets.iter().map(|endowed| (endowed.chunks.len() * endowed.umem.chunk_bytes()) as u64);
        let gauges = Gauges::new(sizes);
        let queues: Vec<_> = sockets.into_iter().map(Queue::new).collect();
        let heads = BinaryHeap::with_capacity(queues.len());
        Self { heads, queues, gauges, snap, polls_driver, pace: Pace::default(), found: true }
    }

    /// A handle for whoever reports how full the sockets are.
    pub fn occupancies(&self) -> Occupancies {
        self.gauges.handle()
    }

    fn nap(&self) -> Duration {
        let nap = self.pace.nap(clock::monotonic_ns()).min(LONGEST);
        thread::sleep(nap);
        nap
    }
}

impl Records for MirrorReader {
    /// Hands out what up to `limit` descriptors hold, and gives their chunks back to the kernel while it goes on. A
    /// record is only lent for the call of `consume`. Returns the descriptors taken.
    fn poll(&mut self, limit: usize, mut consume: impl FnMut(Record<'_>)) -> usize {
        let began_ns = clock::monotonic_ns();
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if self.polls_driver {
                socket::wake(queue.socket.as_fd());
            }
            let waiting = u64::from(queue.exchange.refresh()) * queue.chunk_bytes;
            self.gauges.note(index, waiting);
        }
        let snap = self.snap;
        let mut taking = self.gauges.taking();
        let mut consume = |record: Record<'_>| {
            let stamp_ns = record.time_ns();
            consume(record);
            taking.taken(stamp_ns);
        };
        let taken = match self.queues.as_mut_slice() {
            [queue] => {
                let exchange = &mut queue.exchange;
                let take = |_: &usize| exchange.take(|received| hand_out(&received, snap, &mut consume));
                (0..limit).take_while(take).count()
            }
            queues => merge(queues, &mut self.heads, limit, snap, &mut consume),
        };
        for queue in &mut self.queues {
            queue.exchange.refill();
            if queue.exchange.fill_storage().needs_wakeup() {
                socket::wake(queue.socket.as_fd());
            }
        }
        self.pace.count(taken, began_ns);
        self.found = taken > 0;
        taken
    }

    fn malformed(&self) -> u64 {
        self.queues.iter().map(|queue| queue.exchange.strays()).sum()
    }

    fn fullest(&self) -> u64 {
        self.gauges.fullest()
    }

    fn rest(&mut self) -> Duration {
        match Rest::after(self.found, self.polls_driver) {
            Rest::None => Duration::ZERO,
            Rest::Nap => self.nap(),
            Rest::Wait => {
                let sockets = self.queues.iter().map(|queue| queue.socket.as_fd());
                if socket::wait(sockets, WAIT).is_err() {
                    self.nap();
                }
                WAIT
            }
        }
    }
}

/// Of several queues: the earliest frame of all first.
fn merge(
    queues: &mut [Queue],
    heads: &mut BinaryHeap<Reverse<(u64, usize)>>,
    limit: usize,
    snap: usize,
    consume: &mut impl FnMut(Record<'_>),
) -> usize {
    let mut left = limit;
    heads.clear();
    for (index, queue) in queues.iter().enumerate() {
        heads.extend(queue.exchange.next_time_ns().map(|time_ns| Reverse((time_ns, index))));
    }
    while left > 0
        && let Some(mut head) = heads.peek_mut()
    {
        let Reverse((_, index)) = *head;
        let Some(queue) = queues.get_mut(index) else { break };
        queue.exchange.take(|received| hand_out(&received, snap, &mut *consume));
        left -= 1;
        match queue.exchange.next_time_ns() {
            Some(time_ns) => *head = Reverse((time_ns, index)),
            None => drop(PeekMut::pop(head)),
        }
    }
    limit - left
}

impl Queue {
    fn new(endowed: Endowed) -> Self {
        let Endowed { bound: Bound { socket, rx, fill }, umem, chunks } = endowed;
        let chunk_bytes = umem.chunk_bytes() as u64;
        let mut exchange = Exchange::new(umem, rx, fill, chunks);
        exchange.refill();
        Self { socket, exchange, chunk_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_naps_between_frames_and_waits_where_there_are_none() {
        assert_eq!((Rest::after(true, false), Rest::after(false, false)), (Rest::Nap, Rest::Wait));
        assert_eq!((Rest::after(true, true), Rest::after(false, true)), (Rest::None, Rest::None));
    }
}
