//! Holes of the capture itself: nothing of any kind was captured, and both directions of a conversation stopped and came back
//! together.
//!
//! One stream alone may be silent while nothing else is on the wire. That both directions of one conversation stop at one
//! time, and come back at one time, and no frame of anything else is captured between, is not the network's doing.

use rustc_hash::FxHashSet;

use super::contract::StreamReport;
use crate::packet::Flow;
use crate::pipeline::times::Silence;
use crate::rtp::unique::Interruption;

/// How much longer than the silence of all an interruption may be, at each end: packets come every 20 ms, but comfort noise more
/// seldom.
const AROUND_NS: i64 = 1_000_000_000;

/// See the module.
pub(super) struct Holes<'a> {
    silences: &'a [Silence],
    /// Who was interrupted by which, by the frame that ended it.
    interrupted: FxHashSet<(u64, Flow)>,
}

impl<'a> Holes<'a> {
    /// Of all streams, and the times in which nothing was captured.
    pub(super) fn of(streams: &[StreamReport], silences: &'a [Silence]) -> Self {
        let mut interrupted = FxHashSet::default();
        for stream in streams {
            let gaps = stream.interruptions.iter().filter_map(|found| around(silences, &found.gap));
            interrupted.extend(gaps.map(|silence| (silence.packet, stream.identity.key.flow)));
        }
        Self { silences, interrupted }
    }

    /// Was a stream of this flow interrupted because nothing was captured?
    pub(super) fn are_of_the_capture(&self, gap: &Interruption, flow: Flow) -> bool {
        let back = Flow { src: flow.dst, dst: flow.src };
        around(self.silences, gap).is_some_and(|silence| self.interrupted.contains(&(silence.packet, back)))
    }
}

/// The silence that an interruption is.
fn around<'a>(silences: &'a [Silence], gap: &Interruption) -> Option<&'a Silence> {
    let is_it = |silence: &&Silence| {
        let before = silence.from.since(gap.began());
        let after = gap.at.since(silence.until);
        before.abs() <= AROUND_NS && after.abs() <= AROUND_NS
    };
    silences.iter().find(is_it)
}
