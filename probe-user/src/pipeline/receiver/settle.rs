//! Where the stretches of a file are settled: frame by frame in their order, as live, but that plain RTP was decoded
//! before and only lacks its line.

use probe_ebpf::Verdict;
use probe_ebpf::classify::VERDICTS;

use super::super::stretch::{Lanes, Stretch, Taker};
use super::{Analysis, EndpointSink, Receiver};
use crate::memo::{AHEAD, Number};

impl<S: EndpointSink> Receiver<S, Lanes> {
    /// Takes a stretch's frames in order: plain RTP is given its line, all others are decoded. `verdicts` counts them.
    // Apart from what else a worker does: its loop needs the registers.
    #[inline(never)]
    pub(in crate::pipeline) fn stretch(&mut self, stretch: &mut Stretch, verdicts: &mut [u64; VERDICTS]) {
        let Stretch { frames, takers, lanes, .. } = stretch;
        std::mem::swap(&mut self.analysis.outlet, lanes);
        if let Some(first) = frames.get(0) {
            self.begin(first.time);
        }
        let mut plain = 0;
        for (takers, from) in takers.chunks(AHEAD).zip((0..).step_by(AHEAD)) {
            let numbers = self.analysis.flows.ask_ahead(takers.iter().map(|taker| taker.flow));
            for ((taker, number), at) in takers.iter().zip(numbers).zip(from..) {
                if self.analysis.plain(*taker, number) {
                    plain += 1;
                } else if let Some(frame) = frames.get(at) {
                    verdicts[self.frame(&frame) as usize] += 1;
                    self.analysis.settle();
                }
            }
        }
        self.analysis.follow_endpoints();
        self.analysis.account.matched += plain;
        verdicts[Verdict::Rtp as usize] += plain;
        if let Some(last) = frames.len().checked_sub(1).and_then(|at| frames.get(at)) {
            self.last = last.time;
        }
        std::mem::swap(&mut self.analysis.outlet, lanes);
    }
}

impl<S: EndpointSink> Analysis<S, Lanes> {
    /// Gives the next packet of a plain frame's taker its line; `false` if the frame is not plain.
    #[inline]
    fn plain(&mut self, taker: Taker, at: Number) -> bool {
        let Self { flows, signalling, outlet, .. } = self;
        let Some(packet) = outlet.next(taker) else { return false };
        let (media, is_new) = flows.line(signalling.media_mut(), &packet.flow, at, packet.time);
        packet.media = media;
        if is_new {
            self.announce(media);
        }
        true
    }
}
