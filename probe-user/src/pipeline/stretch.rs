//! A stretch of a file, on its way from the reader to the shards.
//!
//! ```text
//!   read      frames     │ rtp │ rtp │ sip │ rtp │ …             where each is, in one block
//!   decoded   takers     │  0  │  1  │  -  │  0  │ …             plain RTP of shard 0 or 1, or not
//!             lanes      0: packet, packet …   1: packet …       in order, without a line
//!   settled   lanes      the same with their lines, what came out of other frames put in between, and the news
//!                        that go before
//! ```
//!
//! Plain RTP is decoded by whoever has the stretch, in whatever order: that depends on nothing but the frame. What depends
//! on the frames before (signalling, tunnels, the line of a packet) is settled in the order of the file, by one at a time.

use std::sync::Arc;

use super::account::Account;
use super::outlet::Outlet;
use super::shard::{Shard, share_of};
use super::times::FrameTimes;
use crate::capture::file::{Frame, FrameBatch};
use crate::decode::{Predicted, Predictor};
use crate::dedup::FrameClass;
use crate::memo::Hash;
use crate::packet::{MediaId, Nanos, RtpPacket};
use crate::rtp::codec::Announcement;

/// See the module.
pub(super) struct Stretch {
    pub(super) frames: FrameBatch,
    pub(super) takers: Vec<Taker>,
    pub(super) lanes: Lanes,
    pub(super) totals: Totals,
}

/// Whose packet a frame is, and by what its flow is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taker {
    share: u8,
    pub(super) flow: Hash,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub(super) packets: u64,
    /// On the wire.
    pub(super) bytes: u64,
    pub(super) first: Option<Nanos>,
    /// The latest: captures are not always in order.
    pub(super) last: Nanos,
    pub(super) times: FrameTimes,
}

/// Packets for each of the shards.
#[derive(Default)]
pub(super) struct Lanes(Vec<Lane>);

/// Packets for one shard.
#[derive(Default)]
pub(super) struct Lane {
    /// And behind them some of stretches before, whose memory is written over.
    packets: Vec<RtpPacket>,
    len: usize,
    /// How many of them have their line.
    settled: usize,
    /// What comes out of frames that are no plain RTP, and before which of `packets`.
    between: Vec<(usize, RtpPacket)>,
    news: Vec<News>,
}

/// What a shard has to know before it takes the packets.
enum News {
    Epoch(Nanos),
    Announced(MediaId, Arc<Announcement>),
}

impl Stretch {
    /// An empty one for so many shards: no more than a [`Taker`] can name, of which far fewer are started.
    pub(super) fn new(shards: usize) -> Self {
        let lanes = Lanes((0..shards.min(usize::from(u8::MAX))).map(|_| Lane::default()).collect());
        Self { frames: FrameBatch::default(), takers: Vec::new(), lanes, totals: Totals::default() }
    }

    /// Finds the plain RTP among the frames.
    // Apart from what else a worker does: its loop needs the registers.
    #[inline(never)]
    pub(super) fn decode(&mut self, predictor: &mut Predictor) {
        let Self { frames, takers, lanes: Lanes(lanes), totals } = self;
        takers.clear();
        let mut bytes = 0;
        let mut times = FrameTimes::default();
        takers.reserve(frames.len());
        let (mut soon, mut now) = (frames.iter(), frames.iter().zip(1..));
        while takers.len() < frames.len() {
            for (at, (frame, number)) in predictor.ask_ahead(soon.by_ref()).into_iter().zip(now.by_ref()) {
                bytes += u64::from(frame.wire_len);
                times.observe(frame.time, number);
                takers.push(match predictor.predict(&frame, at) {
                    Some(rtp) => Self::give(lanes, rtp.hash(), |lane| lane.predicted(&rtp)),
                    None => Self::decode_whole(lanes, predictor, frame),
                });
            }
        }
        *totals = Totals {
            packets: frames.len() as u64,
            bytes,
            first: frames.get(0).map(|frame| frame.time),
            last: times.latest().unwrap_or_default(),
            times,
        };
    }

    /// By value, or the frames that were predicted would have to be in memory too.
    #[inline(never)]
    fn decode_whole(lanes: &mut [Lane], predictor: &mut Predictor, frame: Frame<'_>) -> Taker {
        let Some(rtp) = predictor.decode(&frame) else { return Taker::NOBODY };
        Self::give(lanes, rtp.flow.hash(), |lane| lane.push(rtp.packet()))
    }

    /// Has a packet put where its flow's are.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "there are no more lanes")]
    fn give(lanes: &mut [Lane], hash: u64, put: impl FnOnce(&mut Lane)) -> Taker {
        let share = share_of(hash, lanes.len());
        let Some(lane) = lanes.get_mut(share) else { return Taker::NOBODY };
        put(lane);
        Taker { share: share as u8, flow: hash.into() }
    }
}

impl Taker {
    /// Of a frame that is no plain RTP.
    const NOBODY: Self = Self { share: u8::MAX, flow: Hash::NONE };
}

impl Totals {
    #[inline]
    pub(super) fn count(&mut self, time: Nanos, wire_len: u32) {
        self.packets += 1;
        self.bytes += u64::from(wire_len);
        self.first.get_or_insert(time);
        self.last = self.last.max(time);
        self.times.observe(time, self.packets);
    }

    /// Adds what was read next.
    pub(super) fn add(&mut self, next: &Self) {
        self.times.add(next.first, &next.times, self.packets);
        self.packets += next.packets;
        self.bytes += next.bytes;
        self.first = self.first.or(next.first);
        self.last = self.last.max(next.last);
    }
}

impl Lanes {
    /// The packet that a plain frame is, the next of its taker's that has no line; `None` if the frame is none.
    #[inline]
    pub(super) fn next(&mut self, Taker { share, .. }: Taker) -> Option<&mut RtpPacket> {
        let lane = self.0.get_mut(usize::from(share))?;
        if lane.settled == lane.len {
            return None;
        }
        let packet = lane.packets.get_mut(lane.settled)?;
        lane.settled += 1;
        Some(packet)
    }

    /// Each shard's.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.0.iter_mut()
    }
}

impl Outlet for Lanes {
    fn packets(&mut self, packets: &mut Vec<RtpPacket>) {
        for packet in packets.drain(..) {
            self.packet(&packet);
        }
    }

    /// What it is, its shard will know.
    fn packet(&mut self, packet: &RtpPacket) -> FrameClass {
        let share = share_of(packet.flow.hash(), self.0.len());
        if let Some(lane) = self.0.get_mut(share) {
            lane.between.push((lane.settled, *packet));
        }
        FrameClass::Other
    }

    fn set_epoch(&mut self, epoch: Nanos) {
        for Lane { news, .. } in &mut self.0 {
            news.push(News::Epoch(epoch));
        }
    }

    fn announce(&mut self, media: MediaId, announcement: &Arc<Announcement>) {
        for Lane { news, .. } in &mut self.0 {
            news.push(News::Announced(media, Arc::clone(announcement)));
        }
    }

    fn finish(self) -> (Account, Vec<String>) {
        (Account::default(), Vec::new())
    }
}

impl Lane {
    /// Appends a packet.
    fn push(&mut self, packet: RtpPacket) {
        match self.packets.get_mut(self.len) {
            Some(place) => *place = packet,
            None => self.packets.push(packet),
        }
        self.len += 1;
    }

    /// Appends one that was predicted: made in its place, or it would be copied twice.
    #[inline]
    fn predicted(&mut self, rtp: &Predicted<'_>) {
        match self.packets.get_mut(self.len) {
            Some(place) => rtp.write_to(place),
            None => self.packets.push(rtp.packet()),
        }
        self.len += 1;
    }

    /// Has a shard analyse the packets, and is empty then. `merged` is room for those that have others between them.
    pub(super) fn hand_over(&mut self, shard: &mut Shard, merged: &mut Vec<RtpPacket>) {
        for news in self.news.drain(..) {
            match news {
                News::Epoch(epoch) => shard.set_epoch(epoch),
                News::Announced(media, announcement) => shard.announce(media, announcement),
            }
        }
        shard.packets(self.merge(merged));
        self.len = 0;
        self.between.clear();
        self.settled = 0;
    }

    /// All packets in the order of the file.
    fn merge<'a>(&'a self, merged: &'a mut Vec<RtpPacket>) -> &'a [RtpPacket] {
        let Self { packets, len, between, .. } = self;
        let packets = packets.get(..*len).unwrap_or_default();
        if between.is_empty() {
            return packets;
        }
        merged.clear();
        let mut from = 0;
        for (before, packet) in between {
            merged.extend_from_slice(packets.get(from..*before).unwrap_or_default());
            merged.push(*packet);
            from = *before;
        }
        merged.extend_from_slice(packets.get(from..).unwrap_or_default());
        merged
    }

    /// The numbers of all its packets.
    #[cfg(test)]
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.merge(&mut Vec::new()).iter().map(|packet| packet.number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::testing::packet;

    fn numbered(number: u64, port: u16) -> RtpPacket {
        let mut packet = RtpPacket { number, ..packet(1) };
        packet.send_from(port);
        packet
    }

    #[test]
    fn what_comes_out_of_other_frames_stands_where_they_stood() {
        let mut lanes = Lanes(vec![Lane::default()]);
        let taker = Taker { share: 0, flow: Hash::NONE };
        // What was there before is written over, and not seen.
        lanes.0[0].packets.extend([8, 9, 8, 9, 8].map(|number| numbered(number, 1)));
        for number in [2, 3, 5] {
            lanes.0[0].push(numbered(number, 1));
        }
        lanes.packet(&numbered(1, 2));
        assert_eq!([(); 2].map(|()| lanes.next(taker).unwrap().number), [2, 3]);
        lanes.packets(&mut vec![numbered(4, 2), numbered(4, 3)]);
        assert_eq!(lanes.next(taker).map(|packet| packet.number), Some(5));
        lanes.packet(&numbered(6, 2));
        assert!(lanes.next(taker).is_none());
        assert_eq!(lanes.0[0].numbers(), [1, 2, 3, 4, 4, 5, 6]);
    }

    #[test]
    fn each_packet_goes_to_the_shard_that_has_its_flow() {
        let mut lanes = Lanes((0..3).map(|_| Lane::default()).collect());
        lanes.packets(&mut (0..300).map(|port| numbered(1, port)).collect());
        let shares: Vec<_> = lanes.iter_mut().map(|lane| lane.numbers().len()).collect();
        assert!(shares.iter().sum::<usize>() == 300 && shares.iter().all(|share| *share > 50), "{shares:?}");
        for (share, lane) in lanes.0.iter().enumerate() {
            let owner = |packet: &RtpPacket| share_of(packet.flow.hash(), 3);
            assert!(lane.between.iter().all(|(_, packet)| owner(packet) == share));
        }
    }

    #[test]
    fn totals_of_parts_add_up_to_those_of_the_whole() {
        let frames = [(5, 60), (3, 70), (9, 80), (8, 90)].map(|(time, len)| (Nanos(time), len));
        let of = |frames: &[(Nanos, u32)]| {
            let mut totals = Totals::default();
            for (time, len) in frames {
                totals.count(*time, *len);
            }
            totals
        };
        for cut in 0..=frames.len() {
            let mut sum = of(&frames[..cut]);
            sum.add(&of(&frames[cut..]));
            assert_eq!(sum, of(&frames), "{cut}");
        }
    }
}
