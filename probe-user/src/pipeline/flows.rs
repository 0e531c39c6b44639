//! What does not change from one packet of a flow to the next: what the signalling said of it.
//!
//! Each packet's flow would be looked up in three tables (the endpoints, the line behind one, the lines that the shards
//! know), each a miss of the caches where there are many streams. Here it is one line of memory, which stays right until
//! the media table changes: that has a [generation](crate::sip::media::MediaTable::generation).

use crate::packet::{FlowWords, MediaId, Nanos};

/// Flows remembered, a power of two; of two in one place the later stays. 2 MiB; a thousand calls have 2,000 flows.
const PLACES: usize = 1 << 15;
/// How finely a line's silence is told, as a power of two of nanoseconds: 1.07 s of a limit of 1,800.
const TOUCH: u32 = 30;

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Known {
    flow: FlowWords,
    /// Of the media table, when it was asked; 0 for a place that is free.
    generation: u64,
    /// The line it belongs to.
    pub(super) media: MediaId,
    /// When the line was last told that it is not silent, in units of [`TOUCH`].
    touched: u32,
}

impl Known {
    /// Is it time to tell the line that it is not silent?
    #[inline]
    pub(super) fn is_due(&mut self, time: Nanos) -> bool {
        let now = moment(time);
        let is_due = self.media != MediaId::UNANNOUNCED && now != self.touched;
        self.touched = now;
        is_due
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flows {
    places: Box<[Known]>,
}

impl Flows {
    pub(super) fn new() -> Self {
        Self { places: vec![Known::default(); PLACES].into_boxed_slice() }
    }

    /// What is known of a flow in this generation.
    #[inline]
    pub(super) fn known(&mut self, flow: &FlowWords, generation: u64) -> Option<&mut Known> {
        let place = self.places.get_mut(place(flow))?;
        (place.generation == generation && place.flow == *flow).then_some(place)
    }

    /// Remembers what the media table said of a flow's packet at `time`.
    #[cold]
    pub(super) fn learn(&mut self, flow: FlowWords, generation: u64, media: MediaId, time: Nanos) {
        if let Some(known) = self.places.get_mut(place(&flow)) {
            *known = Known { flow, generation, media, touched: moment(time) };
        }
    }
}

#[inline]
fn place(flow: &FlowWords) -> usize {
    usize::try_from(flow.hash() >> (u64::BITS - PLACES.ilog2())).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "only whether it is the same matters")]
fn moment(time: Nanos) -> u32 {
    (time.0 >> TOUCH) as u32
}
