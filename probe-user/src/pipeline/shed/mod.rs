//! Overload: whole media sessions are left out in the kernel before packets of all of them are lost at random.
//!
//! ```text
//!   receive thread, every 10 ms:  how full are the rings, what can it take? ─▶ Policy ─▶ a new level
//!        │ before the level sinks: streams that were shed are to end when they come back, so that none has a hole
//!        ├─▶ KernelShed: RTP of buckets below the level is counted and not copied
//!        └─▶ History ─▶ health log, report: who was shed, and when
//! ```
//!
//! A stream that comes back is a new entry, and what was shed lies between the two. So neither has a gap that the network
//! did not make, and what was seen of each can be judged.

mod effort;
mod history;
mod policy;

use probe_ebpf::flow::BUCKETS;

pub use self::history::{History, Period, SharedHistory};
pub use self::policy::{Policy, Pressure};

use crate::capture::clock;
use crate::capture::live::KernelShed;
use crate::packet::Nanos;

/// Sessions whose buckets are from `first` to below `end`, if nothing came of them since `silent_since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The first bucket.
    pub first: u32,
    /// Beyond the last.
    pub end: u32,
    /// What came later came another way: in a tunnel, where nothing is shed.
    pub silent_since: Nanos,
}

impl Resumed {
    /// Is it a stream of this bucket, with its last packet then?
    pub fn has(&self, bucket: u8, last_seen: Nanos) -> bool {
        (self.first..self.end).contains(&u32::from(bucket)) && last_seen <= self.silent_since
    }
}

/// The receive thread's hand on the level.
pub(super) struct Valve {
    policy: Policy,
    kernel: KernelShed,
    history: SharedHistory,
    raised: Nanos,
}

/// Packets that were on their way when the level rose.
const UNDER_WAY_NS: u64 = 1_000_000_000;

impl Valve {
    pub(super) fn new(kernel: KernelShed, floor: u32, history: SharedHistory, now: Nanos) -> Self {
        Self { policy: Policy::new(floor, now), kernel, history, raised: now }
    }

    /// Looks at the load. Before sessions come back, `resume` ends their streams.
    pub(super) fn look(&mut self, now: Nanos, pressure: Pressure, resume: impl FnOnce(Resumed)) {
        let before = self.policy.level();
        let Some(level) = self.policy.look(now, pressure) else { return };
        if level < before {
            let silent_since = Nanos(self.raised.0.saturating_add(UNDER_WAY_NS));
            resume(Resumed { first: level, end: before, silent_since });
        } else {
            self.raised = now;
        }
        let is_set = self.kernel.set(level);
        // Shed from before the write, or until after it.
        let at = if level > before { now } else { Nanos(clock::monotonic_ns()) };
        if is_set {
            self.history.note(at, level);
        }
    }
}

/// What one in so many sessions is as a level: the first bucket that is taken.
pub fn sample_floor(one_in: u32) -> u32 {
    BUCKETS - ((BUCKETS + one_in / 2) / one_in.max(1)).max(1)
}
