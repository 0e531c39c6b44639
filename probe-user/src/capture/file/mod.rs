//! Capture files: pcap and pcapng in all their variants, and ERF; plain, gzip or zstd.
//!
//! ```text
//!   path | stdin ─▶ compress: gzip? zstd? ─▶ pcap-parser: blocks ─▶ Frames::next: one frame at a time
//! ```
//!
//! Memory is one buffer, which grows to hold the largest block and no further than `MAX_BUFFER`. What is wrong
//! with a file is an error before the first frame; what goes wrong later ends the capture under a name
//! ([`Frames::cut_short`]), and everything before counts.

mod erf;
mod open;
pub mod rewrite;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{Block, PcapBlockOwned, PcapError};
use thiserror::Error;

use crate::packet::Nanos;

/// Bytes read at a time, and the largest block of an ordinary file.
const BUFFER: usize = 1 << 20;
/// The largest block accepted: a pcapng block of decryption secrets or of a giant frame fits.
const MAX_BUFFER: usize = 64 << 20;
/// Longest frame believed (libpcap's own limit, MAXIMUM_SNAPLEN).
const MAX_FRAME: usize = 262_144;
/// Bits of a classic header's last word that hold the link type; above them are FCS length and reserved bits
/// (draft-ietf-opsawg-pcap, 4).
const LINK_TYPE: i32 = 0xffff;
/// Type of the obsolete packet block (draft-ietf-opsawg-pcapng, appendix A), and the same in the other order.
const PACKET_BLOCK: u32 = 2;
const PACKET_BLOCK_SWAPPED: u32 = PACKET_BLOCK.swap_bytes();

const TOO_LONG: &str = "a frame claims to be longer than 256 KiB";
const UNDESCRIBED: &str = "a frame names an interface that is not described";

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
    reader: Box<dyn PcapReaderIterator + Send>,
    pending: usize,
    buffer_size: usize,
    interfaces: Vec<Interface>,
    /// Interfaces of the sections before this one: numbering goes on, so that taps stay apart.
    section_base: usize,
    nanoseconds: bool,
    layout: Layout,
    frame: Vec<u8>,
    number: u64,
    skipped: u64,
    cut_short: Option<&'static str>,
    progress: Progress,
    last_time: Nanos,
}

/// An interface that the capture names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, if the file says.
    pub name: Option<String>,
    /// Its link layer.
    pub link: LinkType,
    /// Ticks a second of its times.
    resolution: u64,
    /// Seconds to add to them.
    offset_s: i64,
    /// Most bytes it captured of a frame; zero for no limit.
    snap_len: u32,
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

/// How the file is laid out, once its header was read.
#[derive(Clone, Copy)]
enum Layout {
    Unknown,
    Classic { big_endian: bool },
    Blocks { big_endian: bool },
}

struct Located {
    time: Nanos,
    interface: usize,
    wire_len: u32,
}

impl Frames {
    fn new(reader: Box<dyn PcapReaderIterator + Send>, progress: Progress) -> Self {
        Self {
            reader,
            pending: 0,
            buffer_size: BUFFER,
            interfaces: Vec::new(),
            section_base: 0,
            nanoseconds: false,
            layout: Layout::Unknown,
            frame: Vec::with_capacity(2048),
            number: 0,
            skipped: 0,
            cut_short: None,
            progress,
            last_time: Nanos(0),
        }
    }

    /// The next frame; `None` at the end, or where the file breaks off (see [`Self::cut_short`]).
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let located = self.locate()?;
        self.number += 1;
        self.last_time = located.time;
        let link =
            self.interfaces.get(located.interface).map_or(LinkType::Ethernet, |interface| interface.link);
        self.skipped += u64::from(matches!(link, LinkType::Other(_)));
        Some(Frame {
            time: located.time,
            number: self.number,
            interface: u16::try_from(located.interface).unwrap_or(u16::MAX),
            link,
            bytes: &self.frame,
            wire_len: located.wire_len,
        })
    }

    /// Reads blocks up to and including the next frame, whose bytes are then in `self.frame`.
    fn locate(&mut self) -> Option<Located> {
        while self.cut_short.is_none() {
            self.reader.consume(std::mem::take(&mut self.pending));
            let (length, found) = match self.reader.next() {
                Ok((length, block)) => {
                    let section = Section {
                        interfaces: &mut self.interfaces,
                        base: &mut self.section_base,
                        nanoseconds: &mut self.nanoseconds,
                        layout: &mut self.layout,
                        frame: &mut self.frame,
                        last_time: self.last_time,
                    };
                    (length, section.take(&block))
                }
                Err(PcapError::Eof) => return None,
                Err(PcapError::Incomplete(_)) => {
                    // Said now, not after 64 MiB were read in the hope of more.
                    self.cut_short = self.lie();
                    if self.cut_short.is_none() && self.reader.refill().is_err() {
                        self.cut_short = Some("a read failed, or the compressed data is damaged");
                    }
                    continue;
                }
                Err(PcapError::BufferTooSmall) => {
                    self.buffer_size *= 2;
                    self.cut_short = self.lie();
                    if self.cut_short.is_some() {
                        continue;
                    }
                    if self.buffer_size > MAX_BUFFER || !self.reader.grow(self.buffer_size) {
                        self.cut_short = Some("a block claims to be larger than 64 MiB");
                    } else if self.reader.refill().is_err() {
                        self.cut_short = Some("a read failed, or the compressed data is damaged");
                    }
                    continue;
                }
                Err(PcapError::UnexpectedEof) => {
                    self.cut_short = self.lie().or(Some("the file ends inside a frame"));
                    continue;
                }
                Err(_) => {
                    self.cut_short = Some("a block is damaged");
                    continue;
                }
            };
            self.pending = length;
            match found {
                Ok(Some(located)) => return Some(located),
                Ok(None) => {}
                Err(reason) => self.cut_short = Some(reason),
            }
        }
        None
    }

    /// What is wrong with the lengths of the next block, if the parser asks for more bytes in vain.
    fn lie(&self) -> Option<&'static str> {
        let data = self.reader.data();
        let field = |at: usize, big_endian: bool| {
            let field = data.get(at..).and_then(<[u8]>::first_chunk).copied()?;
            Some(if big_endian { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) } as usize)
        };
        match self.layout {
            Layout::Unknown => None,
            Layout::Classic { big_endian } => (field(8, big_endian)? > MAX_FRAME).then_some(TOO_LONG),
            Layout::Blocks { big_endian } => {
                (field(4, big_endian)? <= data.len()).then_some("a frame claims to be longer than its block")
            }
        }
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

/// The state that a block may change, apart from the reader that lends the block.
struct Section<'a> {
    interfaces: &'a mut Vec<Interface>,
    base: &'a mut usize,
    nanoseconds: &'a mut bool,
    layout: &'a mut Layout,
    frame: &'a mut Vec<u8>,
    last_time: Nanos,
}

impl Section<'_> {
    fn take(self, block: &PcapBlockOwned<'_>) -> Result<Option<Located>, &'static str> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                *self.nanoseconds = header.is_nanosecond_precision();
                *self.layout = Layout::Classic { big_endian: header.is_bigendian() };
                let link = LinkType::from_number(header.network.0 & LINK_TYPE);
                let snap_len = header.snaplen;
                self.interfaces.push(Interface { name: None, link, resolution: 0, offset_s: 0, snap_len });
                Ok(None)
            }
            PcapBlockOwned::Legacy(block) => {
                let scale = if *self.nanoseconds { 1 } else { 1000 };
                let time = u64::from(block.ts_sec) * 1_000_000_000 + u64::from(block.ts_usec) * scale;
                self.keep(block.data, block.caplen, block.origlen, Nanos(time), 0)
            }
            PcapBlockOwned::NG(Block::SectionHeader(header)) => {
                *self.layout = Layout::Blocks { big_endian: header.big_endian() };
                *self.base = self.interfaces.len();
                Ok(None)
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                // The parser reads neither powers of two nor, in big-endian sections, the offset.
                let resolution =
                    resolution(interface.if_tsresol).ok_or("an interface's clock is finer than 64 bits")?;
                let offset_s = match interface.block_type {
                    pcap_parser::IDB_MAGIC => interface.if_tsoffset,
                    _ => interface.if_tsoffset.swap_bytes(),
                };
                self.interfaces.push(Interface {
                    name: interface.if_name().and_then(Result::ok).map(ToOwned::to_owned),
                    link: LinkType::from_number(interface.linktype.0),
                    resolution,
                    offset_s,
                    snap_len: interface.snaplen,
                });
                Ok(None)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                let at = *self.base + block.if_id as usize;
                let time = self.interfaces.get(at).ok_or(UNDESCRIBED)?.time(block.ts_high, block.ts_low);
                self.keep(block.packet_data(), block.caplen, block.origlen, time, at)
            }
            PcapBlockOwned::NG(Block::SimplePacket(block)) => {
                // It has no time; the last one keeps the order. Its length is what the snap length left of it.
                let at = *self.base;
                let interface = self.interfaces.get(at).ok_or(UNDESCRIBED)?;
                let limit = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
                let data = block.packet_data();
                let captured = u32::try_from(data.len()).unwrap_or(u32::MAX).min(limit);
                let time = self.last_time;
                self.keep(data, captured, block.origlen, time, at)
            }
            PcapBlockOwned::NG(Block::Unknown(block)) => match block.block_type {
                PACKET_BLOCK => self.obsolete(block.data, u16::from_le_bytes, u32::from_le_bytes),
                PACKET_BLOCK_SWAPPED => self.obsolete(block.data, u16::from_be_bytes, u32::from_be_bytes),
                _ => Ok(None),
            },
            PcapBlockOwned::NG(_) => Ok(None),
        }
    }

    /// The packet block of before 2009, which the parser does not know: interface and drops in 16 bits each,
    /// then as in the enhanced one.
    fn obsolete(
        self,
        body: &[u8],
        short: fn([u8; 2]) -> u16,
        word: fn([u8; 4]) -> u32,
    ) -> Result<Option<Located>, &'static str> {
        let Some((header, data)) = body.split_first_chunk::<20>() else {
            return Err("a block is damaged");
        };
        let [i0, i1, _, _, fields @ ..] = *header;
        let (fields, _) = fields.as_chunks::<4>();
        let &[high, low, captured, wire_len] = fields else { return Err("a block is damaged") };
        let at = *self.base + usize::from(short([i0, i1]));
        let time = self.interfaces.get(at).ok_or(UNDESCRIBED)?.time(word(high), word(low));
        self.keep(data, word(captured), word(wire_len), time, at)
    }

    fn keep(
        self,
        data: &[u8],
        captured: u32,
        wire_len: u32,
        time: Nanos,
        interface: usize,
    ) -> Result<Option<Located>, &'static str> {
        if captured as usize > MAX_FRAME {
            return Err(TOO_LONG);
        }
        let bytes = data.get(..captured as usize).ok_or("a frame is shorter than it claims")?;
        self.frame.clear();
        self.frame.extend_from_slice(bytes);
        Ok(Some(Located { time, interface, wire_len: wire_len.max(captured) }))
    }
}

/// Ticks a second: the upper bit of `if_tsresol` tells a power of two from one of ten.
fn resolution(if_tsresol: u8) -> Option<u64> {
    let base: u64 = if if_tsresol & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(u32::from(if_tsresol & 0x7f))
}

impl Interface {
    fn time(&self, high: u32, low: u32) -> Nanos {
        let ticks = (u64::from(high) << 32) | u64::from(low);
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.resolution.max(1));
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        Nanos(ns.wrapping_add_signed(self.offset_s.saturating_mul(1_000_000_000)))
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
