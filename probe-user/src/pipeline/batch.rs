//! RTP between decoding and analysis: a batch of it, which is first given its lines, and then to the shards.
//!
//! ```text
//!   packet ─▶ an own flow? ──yes─▶ packets ─┐        every 32, and before anything that is no RTP:
//!                 └─no──┐                   ├─▶ settle: a line for each flow ─▶ Shards
//!                       └─▶ waiting: flow ──┘
//! ```
//!
//! Look-ups that follow each other closely wait for memory together, and those between much other work one by one. A
//! packet's line is that of its place in the capture all the same: what could change the table settles the batch first.
//! Packets of other workers' flows are looked up like one's own, because a line that is used is not silent.

use super::flows::Flows;
use super::shard::{Shards, share_of};
use crate::packet::{FlowWords, MediaId, Nanos, RtpPacket};
use crate::sip::media::MediaTable;

/// Packets of a batch: few enough to stay in the first-level cache, 4 KiB of it.
const BATCH: usize = 32;

/// Which media a receiver analyses, where several see all of it: that of its own flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose, from 0.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Share {
    /// All of it.
    pub(super) const ALL: Self = Self { index: 0, of: 1 };

    #[inline]
    fn has(self, flow: &FlowWords) -> bool {
        self.of == 1 || share_of(flow, self.of) == self.index
    }
}

/// A packet that has no line yet.
#[derive(Clone, Copy)]
struct Waiting {
    flow: FlowWords,
    time: Nanos,
    is_own: bool,
}

/// See the module.
pub(super) struct Batch {
    share: Share,
    flows: Flows,
    waiting: Vec<Waiting>,
    /// The own ones of those, in their order.
    packets: Vec<RtpPacket>,
}

impl Batch {
    pub(super) fn new(share: Share) -> Self {
        let (waiting, packets) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        Self { share, flows: Flows::new(), waiting, packets }
    }

    /// Takes a packet, which is made only if it is an own one. Who finds the batch full settles it.
    #[inline]
    pub(super) fn push(&mut self, flow: FlowWords, time: Nanos, packet: impl FnOnce() -> RtpPacket) {
        let is_own = self.share.has(&flow);
        if is_own {
            self.packets.push(packet());
        }
        self.waiting.push(Waiting { flow, time, is_own });
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH
    }

    /// Finds the lines of all packets, and empties the batch into `shards`. `news` is told of lines that own packets have and
    /// that were asked for anew.
    pub(super) fn settle(
        &mut self,
        table: &mut MediaTable,
        shards: &mut Shards,
        mut news: impl FnMut(&MediaTable, &mut Shards, MediaId),
    ) {
        let mut packets = self.packets.iter_mut();
        for Waiting { flow, time, is_own } in self.waiting.drain(..) {
            let (media, is_new) = line(&mut self.flows, table, flow, time);
            if is_own && let Some(packet) = packets.next() {
                packet.media = media;
                if is_new && media != MediaId::UNANNOUNCED {
                    news(table, shards, media);
                }
            }
        }
        shards.packets(&mut self.packets);
    }
}

/// The line of a flow's packet, and whether the table had to be asked.
#[inline]
fn line(flows: &mut Flows, table: &mut MediaTable, flow: FlowWords, time: Nanos) -> (MediaId, bool) {
    let generation = table.generation(&flow);
    if let Some(known) = flows.known(&flow, generation) {
        if known.is_due(time) {
            table.touch(known.media, time);
        }
        return (known.media, false);
    }
    let media = table.attribute(&flow.into(), time);
    // Asked for again, as the table may have learned from this packet.
    flows.learn(flow, table.generation(&flow), media, time);
    (media, true)
}
