//! AF_XDP: frames of a mirror port, received in place.
//!
//! ```text
//!   NIC queue ─▶ voxprobe_mirror ─ ours: redirect ─▶ socket of the queue ─▶ receive ring ─▶ MirrorReader ─▶ Record
//!                      └─ not ours: the host                 ▲ fill ring ◀── chunks, after the analysis ──┘
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `ring` | the protocol of a ring, over any memory |
//! | `mapped` | a ring in the kernel's memory |
//! | `pages` | memory in the largest pages that can be had |
//! | `umem` | the memory that frames are in, and the right to each chunk of it |
//! | `exchange` | a queue's two rings, and where its chunks are |
//! | `head` | a frame as the record that a tap would have given |
//! | `reader` | all queues as one sequence |
//! | `socket` | the system calls |
//! | `setup` | queues of an interface, the ladder, what a refusal means |
//! | `steal` | whether the interface is the host's own |
//!
//! # Minimum kernel version
//!
//! 5.18, as for everything live; frames of several chunks 6.6.

mod exchange;
mod head;
mod mapped;
mod pages;
mod reader;
mod ring;
mod setup;
mod socket;
mod steal;
mod umem;

use std::time::Duration;

use probe_ebpf::Meta;
use probe_ebpf::record::MAX_PACKET;

pub use self::reader::MirrorReader;
pub(crate) use self::setup::{Sockets, open};
pub(crate) use self::steal::check;

use crate::capture::live::Record;

/// How to receive from a mirror port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorOptions {
    /// Chunks of each queue: frames that the kernel may receive while the reader is away. A power of two. `None` is 65,536
    /// for all queues together, but 16,384 at least for each.
    ///
    /// 65,536 last 12 ms at 5.25 Mpps (10 Gb/s of G.711): a reader that shares its CPU waits for its turn for up to 9 ms, as
    /// measured. They take 128 MiB where the MTU is 1,500. Double it for every doubling of the longest pause of the reader.
    pub chunks: Option<u32>,
    /// How long a look at a socket may poll the driver; zero leaves that to interrupts.
    pub busy_poll: Duration,
    /// Take the frames of an interface even if the host uses it.
    pub steal: bool,
}

impl MirrorOptions {
    /// Defaults of the command line.
    pub const DEFAULT: Self = Self { chunks: None, busy_poll: Duration::ZERO, steal: false };

    /// Chunks of each of so many queues.
    pub(crate) fn chunks_of(self, queues: usize) -> u32 {
        const TOGETHER: u32 = 65_536;
        const LEAST: u32 = 16_384;
        let share = TOGETHER / u32::try_from(queues.next_power_of_two()).unwrap_or(TOGETHER);
        self.chunks.unwrap_or(share.max(LEAST))
    }
}

/// The record that a frame of `wire_len` bytes gives with what the program said of it: what the reader does, for tests that
/// have no socket.
pub fn record_of(meta: Meta, frame: &[u8], wire_len: usize, consume: impl FnOnce(Record<'_>)) {
    head::hand_out(&exchange::Received { meta, frame, wire_len }, MAX_PACKET, consume);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_share_the_default_and_each_has_enough() {
        let shares = [1, 2, 3, 4, 64].map(|queues| MirrorOptions::DEFAULT.chunks_of(queues));
        assert_eq!(shares, [65_536, 32_768, 16_384, 16_384, 16_384]);
        let asked = MirrorOptions { chunks: Some(1_024), ..MirrorOptions::DEFAULT };
        assert_eq!(asked.chunks_of(64), 1_024);
    }
}
