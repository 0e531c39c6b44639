//! What does not change from one packet of a flow to the next: what the signalling said of it.
//!
//! Each packet's flow would be looked up in three tables (the endpoints, the line behind one, the lines that the shards
//! know), each a miss of the caches where there are many streams. Here it is one line of memory, which stays right until
//! the media table changes: that has a [generation](crate::sip::media::MediaTable::generation).

use crate::memo::{AHEAD, Hash, Kept, Memo, Number};
use crate::packet::{FlowWords, MediaId, Nanos};
use crate::sip::{Groups, MediaTable};

/// How finely a line's silence is told, as a power of two of nanoseconds: 1.07 s of a limit of 1,800.
const TOUCH: u32 = 30;

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
struct Known {
    flow: FlowWords,
    /// Whose changes its line depends on.
    groups: Groups,
    /// Of the media table, when it was asked.
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

    /// Has nothing changed since?
    #[inline]
    fn is_current(&self, table: &MediaTable) -> bool {
        self.generation == table.generation(self.groups)
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

impl Kept for Known {
    fn hash(&self) -> Hash {
        self.flow.hash().into()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flows(Memo<Known>);

impl Flows {
    /// Of so many at most.
    pub(super) fn new(most: usize) -> Self {
        Self(Memo::new(most))
    }

    /// Asks for the flows of the next packets, and says where each is, as far as its hash tells.
    #[inline]
    pub(super) fn ask_ahead(&self, flows: impl Iterator<Item = Hash>) -> [Number; AHEAD] {
        self.0.ask_ahead(flows)
    }

    /// The line of a flow's packet, and whether the table had to be asked. `at` is where the flow was.
    #[inline]
    pub(super) fn line(
        &mut self,
        table: &mut MediaTable,
        flow: &FlowWords,
        at: Number,
        time: Nanos,
    ) -> (MediaId, bool) {
        match self.0.get(at) {
            Some(known)
                if known.flow == *flow && known.is_current(table) && known.touched == moment(time) =>
            {
                (known.media, false)
            }
            _ => self.line_of(table, flow, time),
        }
    }

    /// The same where there is something to do, or where another has the flow's tag.
    fn line_of(&mut self, table: &mut MediaTable, flow: &FlowWords, time: Nanos) -> (MediaId, bool) {
        let Self(memo) = self;
        let at = memo.find(flow.hash().into(), |known| known.flow == *flow);
        if let Some(known) = at.and_then(|at| memo.get_mut(at)).filter(|known| known.is_current(table)) {
            let media = known.media;
            if known.is_due(time) {
                table.touch(media, time);
            }
            return (media, false);
        }
        let media = table.attribute(&(*flow).into(), time);
        // Asked for now, as the table may have learned from this packet.
        let known = Known::new(flow, table.generation(flow.into()), media, time);
        match at.and_then(|at| memo.get_mut(at)) {
            Some(before) => *before = known,
            None => memo.keep(known),
        }
        (media, true)
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

    fn known(port: u16, table: &MediaTable) -> Known {
        Known::new(&flow(port), table.generation((&flow(port)).into()), MediaId(7), Nanos(0))
    }

    #[test]
    fn the_table_is_asked_once_for_each_flow_wherever_it_is_looked_for() {
        let (mut table, mut flows) = (MediaTable::default(), Flows::new(100));
        let mut lines = |port: u16, at: u16| {
            let at = flows.0.find(flow(at).hash().into(), |_| true).unwrap_or(Number::NONE);
            flows.line(&mut table, &flow(port), at, Nanos(1)).1
        };
        let asked = [(1, 1), (1, 1), (2, 1), (1, 2), (2, 2), (2, 3)].map(|(port, at)| lines(port, at));
        assert_eq!(asked, [true, false, true, false, false, false]);
        assert_eq!(flows.0.len(), 2);
    }

    #[test]
    fn what_was_known_in_another_generation_is_asked_again_and_kept_once() {
        let (mut table, mut flows) = (MediaTable::default(), Flows::new(100));
        flows.0.keep(Known { generation: 1, ..known(1, &table) });
        let at = flows.ask_ahead(std::iter::once(flow(1).hash().into()))[0];
        let mut line = || flows.line(&mut table, &flow(1), at, Nanos(1));
        assert_eq!([line(), line()], [(MediaId::UNANNOUNCED, true), (MediaId::UNANNOUNCED, false)]);
        assert_eq!(flows.0.len(), 1);
    }

    proptest! {
        /// What is remembered is what the table says, whatever was announced, went and was learned meanwhile.
        #[test]
        fn a_flows_line_is_the_tables(steps in vec((0..4_u16, 0..4_u16, 0..6_u8, 0..3_u64), 0..200)) {
            // Fewer than there are flows, so that some are forgotten.
            let (mut table, mut flows) = (MediaTable::default(), Flows::new(9));
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
                        let at = flows.ask_ahead(std::iter::once(words.hash().into()))[0];
                        let (media, _) = flows.line(&mut table, &words, at, now);
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
