//! Capture files: pcap and pcapng in all their variants, and ERF; plain, gzip or zstd.
//!
//! ```text
//!   path | stdin ─▶ compressed? ──no──▶ window: large blocks ─▶ records ─┬▶ Frames::next_frame: lent from the block
//!                       └──yes─▶ feeder: a thread of its own ─▶ window   └▶ Frames::fill: a FrameBatch, block and all
//! ```
//!
//! The record of a frame is read here, field by field; the blocks of pcapng that hold no frame are pcap-parser's. Memory is
//! a block, and a buffer for what lies across two, which grows to hold the largest record and no further than
//! `MAX_BUFFER`. What is wrong with a file is an error before the first frame; what goes wrong later ends the capture
//! under a name ([`Frames::cut_short`]), and everything before counts.

mod batch;
mod erf;
mod feeder;
mod open;
mod records;
pub mod rewrite;
mod run;
mod window;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

use self::records::{Layout, Located, Step};
use self::window::Window;
use crate::packet::Nanos;

pub use self::batch::FrameBatch;
pub use self::records::Interface;

/// Bytes read at a time where a file is copied.
const BUFFER: usize = 1 << 20;
/// The largest block accepted: a pcapng block of decryption secrets or of a giant frame fits.
const MAX_BUFFER: usize = 64 << 20;
/// Longest frame believed (libpcap's own limit, MAXIMUM_SNAPLEN).
const MAX_FRAME: usize = 262_144;
/// Bits of a classic header's last word that hold the link type; above them are FCS length and reserved bits
/// (draft-ietf-opsawg-pcap, 4).
const LINK_TYPE: i32 = 0xffff;
/// Type of the obsolete packet block (draft-ietf-opsawg-pcapng, appendix A).
const PACKET_BLOCK: u32 = 2;

/// Why a file cannot be read at all.
#[derive(Debug, Error)]
pub enum FileError {
    /// It does not open or read.
    #[error("cannot read {path}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Zero bytes.
    #[error("{path} is empty: the capture was never written, or its disk was full", path = path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// Something else.
    #[error(
        "{path} is not a capture file: it looks like {looks}; pcap, pcapng and ERF are read, also gzip and zstd",
        path = path.display()
    )]
    NotACapture {
        /// Which.
        path: PathBuf,
        /// What it looks like.
        looks: String,
    },
    /// A file header that is there and makes no sense.
    #[error("{path}: the file header is damaged", path = path.display())]
    Header {
        /// Which.
        path: PathBuf,
    },
    /// It begins like a capture and breaks before its first frame.
    #[error("{path}: no frame can be read: {reason}", path = path.display())]
    NoFrame {
        /// Which.
        path: PathBuf,
        /// What is wrong there.
        reason: &'static str,
    },
    /// No frame of a readable kind.
    #[error(
        "{path}: link type {number} is not read; Ethernet, Linux cooked, raw IP, PPP and loopback are \
         (convert it with editcap -T, or capture on the Ethernet interface)",
        path = path.display()
    )]
    LinkType {
        /// Which.
        path: PathBuf,
        /// LINKTYPE_ number (tcpdump.org/linktypes.html).
        number: i32,
    },
}

/// Link layers that are read (tcpdump.org/linktypes.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// LINKTYPE_ETHERNET.
    Ethernet,
    /// LINKTYPE_LINUX_SLL: Linux cooked, interface "any".
    LinuxCooked,
    /// LINKTYPE_LINUX_SLL2.
    LinuxCooked2,
    /// LINKTYPE_RAW and its relatives: an IP header comes first.
    RawIp,
    /// LINKTYPE_NULL and LINKTYPE_LOOP: an address family comes first, in either byte order.
    Loopback,
    /// LINKTYPE_PPP: PPP, with or without the HDLC address in front.
    Ppp,
    /// LINKTYPE_PPP_HDLC and LINKTYPE_C_HDLC: PPP or Cisco's encapsulation, as the address says.
    Hdlc,
    /// LINKTYPE_PPP_ETHER: a PPPoE header comes first.
    PppOverEthernet,
    /// Anything else, by number; its frames count and are not read.
    Other(i32),
}

impl LinkType {
    /// From the number in the file.
    pub fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Ethernet,
            113 => Self::LinuxCooked,
            276 => Self::LinuxCooked2,
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            0 | 108 => Self::Loopback,
            9 => Self::Ppp,
            50 | 104 => Self::Hdlc,
            51 => Self::PppOverEthernet,
            other => Self::Other(other),
        }
    }
}

/// One frame of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it was captured: nanoseconds since 1970.
    pub time: Nanos,
    /// Its number, from 1, as Wireshark shows it.
    pub number: u64,
    /// Index of its interface.
    pub interface: u16,
    /// What its bytes begin with.
    pub link: LinkType,
    /// The bytes that were captured.
    pub bytes: &'a [u8],
    /// How many there were on the wire.
    pub wire_len: u32,
}

/// A file's frames, one after the other.
pub struct Frames {
    window: Window,
    /// Bytes of the record that was handed out last.
    pending: usize,
    layout: Layout,
    interfaces: Vec<Interface>,
    /// Interfaces of the sections before this one: numbering goes on, so that taps stay apart.
    section_base: usize,
    number: u64,
    skipped: u64,
    cut_short: Option<&'static str>,
    progress: Progress,
    last_time: Nanos,
}

/// How far reading has come, for a progress bar on another thread.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    read: Arc<AtomicU64>,
    /// Size of the file on disk; zero for standard input.
    pub size: u64,
}

impl Progress {
    /// Bytes of the file (as on disk) that were read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl Frames {
    /// The next frame; `None` at the end, or where the file breaks off (see [`Self::cut_short`]).
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let located = self.locate()?;
        let link = self.count(located.time, located.interface);
        Some(Frame {
            time: located.time,
            number: self.number,
            interface: u16::try_from(located.interface).unwrap_or(u16::MAX),
            link,
            bytes: self.window.rest().get(located.bytes).unwrap_or_default(),
            wire_len: located.wire_len,
        })
    }

    /// Counts a frame, and tells its link layer.
    #[inline]
    fn count(&mut self, time: Nanos, interface: usize) -> LinkType {
        self.number += 1;
        self.last_time = time;
        let link = self.interfaces.get(interface).map_or(LinkType::Ethernet, |interface| interface.link);
        self.skipped += u64::from(matches!(link, LinkType::Other(_)));
        link
    }

    /// Reads records up to and including the next frame's, which is then at hand.
    fn locate(&mut self) -> Option<Located> {
        loop {
            match self.step()? {
                Step::Frame(located) => return Some(located),
                Step::Other => {}
                Step::End => return None,
            }
        }
    }

    /// Reads the next record. `None` where the file breaks off.
    fn step(&mut self) -> Option<Step> {
        if self.cut_short.is_some() {
            return None;
        }
        self.consume();
        let step = match self.layout {
            Layout::Classic(format) => self.record(format),
            Layout::Blocks { big_endian } => self.block(big_endian),
        };
        step.map_err(|reason| self.cut_short = Some(reason)).ok()
    }

    /// Goes on behind the record that was handed out last.
    #[inline]
    fn consume(&mut self) {
        self.window.consume(std::mem::take(&mut self.pending));
    }

    /// Why the capture ended before the file said so, if it did.
    pub fn cut_short(&self) -> Option<&'static str> {
        self.cut_short
    }

    /// Interfaces seen so far.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Frames of link types that are not read.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The link type to blame if there was no frame but of kinds that are not read. A classic file of such a kind
    /// does not even open; in pcapng every frame has its interface's, so it shows at the end.
    pub fn unreadable(&self) -> Option<i32> {
        let number = |interface: &Interface| match interface.link {
            LinkType::Other(number) => Some(number),
            _ => None,
        };
        if self.skipped == 0 || self.skipped < self.number {
            return None;
        }
        self.interfaces.iter().find_map(number)
    }

    /// How far reading has come.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// Counts what passes through.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
