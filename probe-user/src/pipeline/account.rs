//! Every matched unit is analysed or lost under a name.
//!
//! A unit is a frame, whatever it carries: a datagram tunnel holds exactly one datagram. A segment of a byte stream that
//! carries frames (rpcap, HEP over TCP) is one unit for itself, and each datagram found in the stream is one more.

use std::collections::BTreeMap;

/// A way in which a matched frame can fail to be analysed. The kernel's own come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The CPU's BPF ring was full.
    RingFull,
    /// The frame ran on a CPU without a ring.
    NoRing,
    /// The kernel could not copy the frame's bytes.
    CopyFailed,
    /// The frame came by a queue without an AF_XDP socket, and went on to the host.
    NoSocket,
    /// The driver left no room for metadata, and the frame went on to the host.
    NoMetadata,
    /// The AF_XDP socket had no chunk for the frame.
    SocketDropped,
    /// The AF_XDP socket's receive ring was full.
    SocketRingFull,
    /// RTP of a session that was left out because the probe did not keep up.
    Shed,
    /// RTP of a session that was left out by configuration.
    SampledOut,
    /// A record in a ring that is none of ours.
    BadRecord,
    /// A whole frame from the kernel that did not decode to what its verdict said.
    Undecodable,
    /// A shard's queue was full.
    ShardQueueFull,
    /// A fragment whose datagram was never completed, or was refused.
    FragmentIncomplete,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::RingFull,
        Self::NoRing,
        Self::CopyFailed,
        Self::NoSocket,
        Self::NoMetadata,
        Self::SocketDropped,
        Self::SocketRingFull,
        Self::Shed,
        Self::SampledOut,
        Self::BadRecord,
        Self::Undecodable,
        Self::ShardQueueFull,
        Self::FragmentIncomplete,
    ];

    /// Was the frame left out by decision, and was that told?
    pub const fn is_on_purpose(self) -> bool {
        matches!(self, Self::Shed | Self::SampledOut)
    }

    /// Did the probe lose the frame, and may it be any stream's? An incomplete datagram was incomplete before it came here;
    /// whose what is left out was, is known.
    pub const fn is_own(self) -> bool {
        !self.is_on_purpose() && !matches!(self, Self::FragmentIncomplete)
    }

    /// The name in reports, logs and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::NoRing => "no_ring",
            Self::CopyFailed => "copy_failed",
            Self::NoSocket => "no_socket",
            Self::NoMetadata => "no_metadata",
            Self::SocketDropped => "xsk_rx_dropped",
            Self::SocketRingFull => "xsk_rx_ring_full",
            Self::Shed => "shed",
            Self::SampledOut => "sampled_out",
            Self::BadRecord => "bad_record",
            Self::Undecodable => "undecodable",
            Self::ShardQueueFull => "shard_queue_full",
            Self::FragmentIncomplete => "fragment_incomplete",
        }
    }

    /// What it means and what helps.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::RingFull => "the probe did not keep up with a burst: raise --ring-size, or give it a core",
            Self::NoRing => "a CPU came online after the start: restart the probe",
            Self::CopyFailed => {
                "the kernel refused to copy a frame: please report this with the kernel version"
            }
            Self::NoSocket => "the interface got more receive queues after the start: restart the probe",
            Self::NoMetadata => "the driver cannot put metadata before a frame: use --mode tap",
            Self::SocketDropped => {
                "the probe did not keep up with a burst: raise --frames, or give it a core"
            }
            Self::SocketRingFull => "the probe did not keep up with a burst: raise --frames",
            Self::Shed => {
                "more media than the probe can take: give it a core, raise --shards, or choose by --sample what is kept"
            }
            Self::SampledOut => "what --sample asks for",
            Self::BadRecord => "the BPF object and the binary do not belong together: rebuild both",
            Self::Undecodable => "the frame changed between two reads, or was cut: please report it",
            Self::ShardQueueFull => "one shard is overloaded: raise --shards",
            Self::FragmentIncomplete => {
                "parts of fragmented datagrams are missing: look for loss before the probe"
            }
        }
    }
}

/// The account of one run, or of one thread's part in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Units that the filter matched: frames, and the datagrams that were found in byte streams.
    pub matched: u64,
    /// Of those, datagrams found in byte streams (rpcap, HEP over TCP), besides the frames that carried them.
    pub unpacked: u64,
    /// Units that reached the analysis.
    pub analysed: u64,
    losses: [u64; Loss::ALL.len()],
}

impl Account {
    /// Books a loss.
    pub fn lose(&mut self, loss: Loss, frames: u64) {
        if let Some(count) = self.losses.get_mut(loss as usize) {
            *count += frames;
        }
    }

    /// Frames lost under one name.
    pub fn lost_to(&self, loss: Loss) -> u64 {
        self.losses.get(loss as usize).copied().unwrap_or(0)
    }

    /// Frames lost under any name.
    pub fn lost(&self) -> u64 {
        self.losses.iter().sum()
    }

    /// Frames that the probe itself lost: holes in streams may be its own.
    pub fn lost_by_the_probe(&self) -> u64 {
        Loss::ALL.into_iter().filter(|loss| loss.is_own()).map(|loss| self.lost_to(loss)).sum()
    }

    /// Frames that are neither: zero at the end of a run, in flight during it.
    pub fn unaccounted(&self) -> i64 {
        self.matched.wrapping_sub(self.analysed).wrapping_sub(self.lost()).cast_signed()
    }

    /// Adds another thread's part.
    pub fn merge(&mut self, other: &Self) {
        self.matched += other.matched;
        self.unpacked += other.unpacked;
        self.analysed += other.analysed;
        for (mine, theirs) in self.losses.iter_mut().zip(&other.losses) {
            *mine += theirs;
        }
    }

    /// The losses by name, as the contract has them; all names, so that a zero is a statement.
    pub fn losses(&self) -> BTreeMap<&'static str, u64> {
        Loss::ALL.iter().map(|&loss| (loss.name(), self.lost_to(loss))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_has_its_own_counter_and_name() {
        let mut account = Account { matched: 100, analysed: 9, ..Account::default() };
        for (index, loss) in Loss::ALL.into_iter().enumerate() {
            account.lose(loss, index as u64 + 1);
        }
        assert_eq!((account.lost(), account.unaccounted()), (91, 0));
        assert_eq!(account.losses().len(), Loss::ALL.len());
        assert_eq!(account.lost_to(Loss::FragmentIncomplete), 13);
        assert_eq!(
            account.lost_by_the_probe(),
            91 - 13 - account.lost_to(Loss::Shed) - account.lost_to(Loss::SampledOut)
        );
    }
}
