//! What does not change from one packet of a flow to the next: what the signalling said of it.
//!
//! Each packet's flow would be looked up in three tables (the endpoints, the line behind one, the lines that the shards
//! know), each a miss of the caches where there are many streams. Here it is one line of memory, which stays right until
//! the media table changes: that has a [generation](crate::sip::media::MediaTable::generation).

use super::memory::prefetch;
use crate::packet::{FlowWords, MediaId, Nanos};
use crate::sip::{Groups, MediaTable};

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
    /// Whose changes its line depends on.
    groups: Groups,
    /// Of the media table, when it was asked; 0 for a place that is free.
    generation: u64,
    /// The line it belongs to.
    media: MediaId,
    /// When the line was last told that it is not silent, in units of [`TOUCH`].
    touched: u32,
}

impl Known {
    /// What the media table says of a flow in this generation.
    fn new(flow: &FlowWords, generation: u64, media: MediaId, time: Nanos) -> Self {
        Self { flow: *flow, groups: flow.into(), generation, media, touched: moment(time) }
    }

    /// Is it this flow, and has nothing changed since?
    #[inline]
    fn is_of(&self, flow: &FlowWords, table: &MediaTable) -> bool {
        self.flow == *flow && self.generation == table.generation(self.groups)
    }

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
    /// Of what has no flow.
    pub(super) const NONE: Self = Self(0);

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
        match self.places.get(usize::from(place.0)) {
            Some(known) if known.is_of(flow, table) && known.touched == moment(time) => (known.media, false),
            _ => self.line_of(table, flow, place, time),
        }
    }

    /// The same where there is something to do, or where it is not the first that is asked.
    fn line_of(
        &mut self,
        table: &mut MediaTable,
        flow: &FlowWords,
        place: Place,
        time: Nanos,
    ) -> (MediaId, bool) {
        if let Some(known) = self.known(flow, place, table) {
            let media = known.media;
            if known.is_due(time) {
                table.touch(media, time);
            }
            return (media, false);
        }
        let media = table.attribute(&(*flow).into(), time);
        // Asked for now, as the table may have learned from this packet.
        let generation = table.generation(flow.into());
        self.learn(place, Known::new(flow, generation, media, time));
        (media, true)
    }

    /// What is known of a flow.
    fn known(&mut self, flow: &FlowWords, Place(place): Place, table: &MediaTable) -> Option<&mut Known> {
        let is_it = |known: &Known| known.is_of(flow, table);
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
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{Endpoint, EndpointWords, Flow};
    use crate::sip::sdp::Description;

    fn flow(port: u16) -> FlowWords {
        let end = |port| EndpointWords::v4(0xc000_0201, port);
        FlowWords::new(end(port), end(6_000))
    }

    /// As the table says it now, by a line that it does not have.
    fn known(port: u16, table: &MediaTable) -> Known {
        let generation = table.generation((&flow(port)).into());
        Known::new(&flow(port), generation, MediaId(u32::from(port)), Nanos(0))
    }

    /// By the line that it has; 0 for a flow that is not known.
    fn media(flows: &mut Flows, place: Place, port: u16, table: &MediaTable) -> u32 {
        flows.known(&flow(port), place, table).map_or(0, |known| known.media.0)
    }

    #[test]
    fn of_three_flows_in_one_place_the_later_two_are_known() {
        let table = MediaTable::default();
        for place in [Place(6), Place(7)] {
            let mut flows = Flows::new();
            for port in [1, 2, 2, 3, 3] {
                flows.learn(place, known(port, &table));
            }
            let known: Vec<_> = (1..=3).map(|port| media(&mut flows, place, port, &table)).collect();
            assert_eq!(known, [0, 2, 3]);
        }
    }

    #[test]
    fn what_was_known_in_another_generation_is_not_known() {
        let table = MediaTable::default();
        let mut flows = Flows::new();
        for (generation, expected) in [(1, 0), (2, 1), (3, 0)] {
            flows.learn(Place(6), Known { generation, ..known(1, &table) });
            assert_eq!(media(&mut flows, Place(6), 1, &table), expected, "{generation}");
        }
    }

    proptest! {
        /// What is remembered is what the table says, whatever was announced, went and was learned meanwhile.
        #[test]
        fn a_flows_line_is_the_tables(steps in vec((0..4_u16, 0..4_u16, 0..6_u8, 0..3_u64), 0..200)) {
            let (mut table, mut flows) = (MediaTable::default(), Flows::new());
            let mut now = Nanos(1);
            let mut lines = Vec::new();
            for (number, (from, to, what, steps)) in (1..).zip(steps) {
                now = Nanos(now.0 + steps * 400_000_000);
                match what {
                    0 => {
                        let port = 5_000 + 2 * to;
                        let text = format!("v=0\nc=IN IP4 10.0.0.1\nm=audio {port} RTP/AVP 0\n");
                        let line = Description::parse(text.as_bytes()).lines.remove(0);
                        lines.extend(table.announce(&format!("{from}").into(), &line, now, number));
                    }
                    1 => {
                        lines.drain(..).for_each(|line| table.withdraw(line, now));
                    }
                    2 => table.advance(now),
                    _ => {
                        let end = |port| Endpoint::v4([10, 0, 0, 1], 5_000 + 2 * port);
                        let flow = Flow { src: end(from), dst: end(to) };
                        let (words, expected) = (FlowWords::from(flow), table.lookup(&flow));
                        let (media, _) = flows.line(&mut table, &words, Place::of(words.hash()), now);
                        prop_assert_eq!(media, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn a_line_is_told_once_a_second_that_it_is_not_silent() {
        let mut known = known(1, &MediaTable::default());
        let due = [0, 1_000_000_000, 1_100_000_000, 1_900_000_000, 9_000_000_000];
        assert_eq!(due.map(|ns| known.is_due(Nanos(ns))), [false, false, true, false, true]);
    }
}
