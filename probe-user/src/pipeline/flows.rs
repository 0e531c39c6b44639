//! What does not change from one packet of a flow to the next: what the signalling said of it.
//!
//! Each packet's flow would be looked up in three tables (the endpoints, the line behind one, the lines that the shards
//! know), each a miss of the caches where there are many streams. Here it is one line of memory, which stays right until
//! the media table changes: that has a [generation](crate::sip::media::MediaTable::generation).

use super::memory::prefetch;
use crate::packet::{FlowWords, MediaId, Nanos};
use crate::sip::media::MediaTable;

/// Flows remembered, a power of two; of three in one place and the one beside it the two later stay. 2 MiB; a thousand
/// calls have 2,000 flows.
const PLACES: usize = 1 << 15;
/// How finely a line's silence is told, as a power of two of nanoseconds: 1.07 s of a limit of 1,800.
const TOUCH: u32 = 30;

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
struct Known {
    flow: FlowWords,
    /// Of the media table, when it was asked; 0 for a place that is free.
    generation: u64,
    /// The line it belongs to.
    media: MediaId,
    /// When the line was last told that it is not silent, in units of [`TOUCH`].
    touched: u32,
}

impl Known {
    /// Is it time to tell the line that it is not silent?
    #[inline]
    fn is_due(&mut self, time: Nanos) -> bool {
        let now = moment(time);
        let is_due = self.media != MediaId::UNANNOUNCED && now != self.touched;
        self.touched = now;
        is_due
    }
}

/// Where a flow is remembered: there, or in the place beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    /// Of a flow with this hash.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the upper bits, as many as there are places")]
    pub(super) fn of(hash: u64) -> Self {
        Self((hash >> (u64::BITS - PLACES.ilog2())) as u16)
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

    /// Asks for the memory of a flow whose packet comes soon.
    #[inline]
    pub(super) fn prefetch(&self, Place(place): Place) {
        if let Some(known) = self.places.get(usize::from(place)) {
            prefetch(known);
        }
    }

    /// The line of a flow's packet, and whether the table had to be asked.
    #[inline]
    pub(super) fn line(
        &mut self,
        table: &mut MediaTable,
        flow: &FlowWords,
        place: Place,
        time: Nanos,
    ) -> (MediaId, bool) {
        let generation = table.generation(flow);
        if let Some(known) = self.known(flow, place, generation) {
            let media = known.media;
            if known.is_due(time) {
                table.touch(media, time);
            }
            return (media, false);
        }
        let media = table.attribute(&(*flow).into(), time);
        // Asked for again, as the table may have learned from this packet.
        let generation = table.generation(flow);
        self.learn(place, Known { flow: *flow, generation, media, touched: moment(time) });
        (media, true)
    }

    /// What is known of a flow in this generation.
    #[inline]
    fn known(&mut self, flow: &FlowWords, Place(place): Place, generation: u64) -> Option<&mut Known> {
        let is_it = |known: &Known| known.generation == generation && known.flow == *flow;
        let (place, beside) = (usize::from(place), usize::from(place ^ 1));
        let at = if self.places.get(place).is_some_and(is_it) { place } else { beside };
        self.places.get_mut(at).filter(|known| is_it(known))
    }

    /// Remembers what the media table said of a flow. What was there moves aside, unless it was this flow.
    #[cold]
    fn learn(&mut self, Place(place): Place, known: Known) {
        let (place, beside) = (usize::from(place), usize::from(place ^ 1));
        let Some(before) = self.places.get_mut(place).map(|place| std::mem::replace(place, known)) else {
            return;
        };
        if before.flow != known.flow
            && let Some(beside) = self.places.get_mut(beside)
        {
            *beside = before;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only whether it is the same matters")]
fn moment(time: Nanos) -> u32 {
    (time.0 >> TOUCH) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::EndpointWords;

    fn flow(port: u16) -> FlowWords {
        let end = |port| EndpointWords::v4(0xc000_0201, port);
        FlowWords::new(end(port), end(6_000))
    }

    fn known(port: u16, generation: u64) -> Known {
        Known { flow: flow(port), generation, media: MediaId(u32::from(port)), touched: 0 }
    }

    /// By the line that it has; 0 for a flow that is not known.
    fn media(flows: &mut Flows, place: Place, port: u16, generation: u64) -> u32 {
        flows.known(&flow(port), place, generation).map_or(0, |known| known.media.0)
    }

    #[test]
    fn of_three_flows_in_one_place_the_later_two_are_known() {
        for place in [Place(6), Place(7)] {
            let mut flows = Flows::new();
            for port in [1, 2, 2, 3, 3] {
                flows.learn(place, known(port, 9));
            }
            let known: Vec<_> = (1..=3).map(|port| media(&mut flows, place, port, 9)).collect();
            assert_eq!(known, [0, 2, 3]);
        }
    }

    #[test]
    fn what_was_known_in_another_generation_is_not_known() {
        let mut flows = Flows::new();
        flows.learn(Place(6), known(1, 9));
        assert_eq!([8, 9, 10].map(|generation| media(&mut flows, Place(6), 1, generation)), [0, 1, 0]);
    }

    #[test]
    fn a_line_is_told_once_a_second_that_it_is_not_silent() {
        let mut known = known(1, 9);
        let due = [0, 1_000_000_000, 1_100_000_000, 1_900_000_000, 9_000_000_000];
        assert_eq!(due.map(|ns| known.is_due(Nanos(ns))), [false, false, true, false, true]);
    }
}
