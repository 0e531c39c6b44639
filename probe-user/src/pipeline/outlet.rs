//! Where a receiver's packets go: to the shards at once, or into a stretch of a file, from where a shard takes them.

use std::sync::Arc;

use super::account::Account;
use super::shard::Shards;
use crate::dedup::FrameClass;
use crate::packet::{MediaId, Nanos, RtpPacket};
use crate::rtp::codec::Announcement;

/// See the module.
pub trait Outlet {
    /// Takes packets, in order; the list is empty then.
    fn packets(&mut self, packets: &mut Vec<RtpPacket>);
    /// Takes one packet, and says what it is if that is known at once.
    fn packet(&mut self, packet: &RtpPacket) -> FrameClass;
    /// The time from which raw ledgers count; before the first packet.
    fn set_epoch(&mut self, epoch: Nanos);
    /// What a media id stands for; before the first packet that carries it.
    fn announce(&mut self, media: MediaId, announcement: &Arc<Announcement>);
    /// There is nothing more. What could not be taken, and the names of threads that failed.
    fn finish(self) -> (Account, Vec<String>);
}

impl Outlet for Shards {
    #[inline]
    fn packets(&mut self, packets: &mut Vec<RtpPacket>) {
        Self::packets(self, packets);
    }

    fn packet(&mut self, packet: &RtpPacket) -> FrameClass {
        Self::packet(self, packet)
    }

    fn set_epoch(&mut self, epoch: Nanos) {
        Self::set_epoch(self, epoch);
    }

    fn announce(&mut self, media: MediaId, announcement: &Arc<Announcement>) {
        Self::announce(self, media, announcement);
    }

    fn finish(self) -> (Account, Vec<String>) {
        Self::finish(self)
    }
}
