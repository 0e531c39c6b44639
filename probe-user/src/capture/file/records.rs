//! Records: what stands around each frame, in pcap and in pcapng.
//!
//! ```text
//!   pcap:    seconds 4 | fraction 4 | captured 4 | on the wire 4 | frame                              (16, or 24)
//!   pcapng:  6 | length | interface | time, high | low | captured | on the wire | frame, padded | length    (32)
//! ```
//!
//! These two are read here. Other blocks of pcapng, and packet blocks with options, go to pcap-parser.
//!
//! Source: draft-ietf-opsawg-pcap, 4 and 5; draft-ietf-opsawg-pcapng, 4.3.

use std::ops::Range;

use pcap_parser::nom::{Err as Parsing, Offset as _};
use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{
    BOM_MAGIC, Block, EPB_MAGIC, IDB_MAGIC, PcapHeader, SHB_MAGIC, SPB_MAGIC, parse_block_be, parse_block_le,
};

use super::window::Window;
use super::{Frames, LINK_TYPE, LinkType, MAX_BUFFER, MAX_FRAME, PACKET_BLOCK};
use crate::packet::Nanos;

const PACKET_BLOCK_SWAPPED: u32 = PACKET_BLOCK.swap_bytes();
/// Octets of a packet block before its frame, enhanced or obsolete, and around it; of a simple one before it.
pub(super) const BEFORE_FRAME: usize = 28;
pub(super) const AROUND_FRAME: usize = 32;
const BEFORE_SIMPLE_FRAME: usize = 12;
/// A block's kind and its length, at both ends.
const AROUND_BLOCK: usize = 12;
/// Interfaces of a file, those of all its sections together: as many as evidence can tell apart.
const MAX_INTERFACES: usize = 1 << 16;
/// Octets of an interface's name: four times what Windows makes of one. No longer one is kept.
const MAX_NAME: usize = 256;

const DAMAGED: &str = "a block is damaged";
const INSIDE: &str = "the file ends inside a frame";
const LONGER_THAN_BLOCK: &str = "a frame claims to be longer than its block";
const SHORTER: &str = "a frame is shorter than it claims";
const TOO_LARGE: &str = "a block claims to be larger than 64 MiB";
const TOO_MANY: &str = "more than 65,536 interfaces are described";
const TOO_LONG: &str = "a frame claims to be longer than 256 KiB";
const UNDESCRIBED: &str = "a frame names an interface that is not described";
const UNREADABLE: &str = "a read failed, or the compressed data is damaged";

/// How the file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Classic(Classic),
    Blocks { big_endian: bool },
}

/// The records of a pcap file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Classic {
    pub(super) big_endian: bool,
    /// Octets of a record before its frame.
    pub(super) header: usize,
    /// Nanoseconds in one of the fraction of a second.
    fraction_ns: u64,
}

impl Classic {
    pub(super) fn of(header: &PcapHeader) -> Self {
        Self {
            big_endian: header.is_bigendian(),
            header: if header.is_modified_format() { 24 } else { 16 },
            fraction_ns: if header.is_nanosecond_precision() { 1 } else { 1_000 },
        }
    }

    #[inline]
    pub(super) fn time(self, seconds: u32, fraction: u32) -> Nanos {
        Nanos(u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.fraction_ns)
    }
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
    /// Nanoseconds in a tick, where that is a whole number.
    tick_ns: Option<u64>,
    /// Seconds to add to its times.
    offset_s: i64,
    /// Most bytes it captured of a frame; zero for no limit.
    snap_len: u32,
}

impl Interface {
    /// That of a pcap file, whose records need no more.
    pub(super) fn of_classic(header: &PcapHeader) -> Self {
        let link = LinkType::from_number(header.network.0 & LINK_TYPE);
        Self { name: None, link, resolution: 0, tick_ns: None, offset_s: 0, snap_len: header.snaplen }
    }

    #[inline]
    pub(super) fn time(&self, high: u32, low: u32) -> Nanos {
        let ticks = (u64::from(high) << 32) | u64::from(low);
        let ns = match self.tick_ns {
            Some(tick_ns) => ticks.saturating_mul(tick_ns),
            None => self.odd_ticks(ticks),
        };
        Nanos(ns.wrapping_add_signed(self.offset_s.saturating_mul(1_000_000_000)))
    }

    fn odd_ticks(&self, ticks: u64) -> u64 {
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.resolution.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// Where a frame is, from the first byte of its record.
pub(super) struct Located {
    pub(super) time: Nanos,
    pub(super) interface: usize,
    pub(super) wire_len: u32,
    pub(super) bytes: Range<usize>,
}

/// What the next record is.
pub(super) enum Step {
    Frame(Located),
    /// A block without a frame.
    Other,
    /// The file ends, where it may.
    End,
}

/// Four octets as a number, in the order of the file.
#[inline]
fn number(octets: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
}

fn word(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    Some(number(*bytes.get(at..)?.first_chunk()?, big_endian))
}

impl Frames {
    /// Is all that [`Self::step`] may look at in the block at hand? After a frame that was handed out, the next record.
    pub(super) fn is_whole(&mut self) -> bool {
        self.consume();
        let there = self.window.rest().len();
        let needed = match self.layout {
            Layout::Classic(format) => {
                let captured = word(self.window.rest(), 8, format.big_endian);
                captured.map_or(usize::MAX, |captured| format.header.saturating_add(captured as usize))
            }
            Layout::Blocks { big_endian } => claimed_length(&self.window, big_endian).max(AROUND_FRAME),
        };
        needed <= there
    }

    /// The next record of a pcap file.
    #[inline]
    pub(super) fn record(&mut self, format: Classic) -> Result<Step, &'static str> {
        let is_there = self.window.reach(format.header).map_err(|_| UNREADABLE)?;
        let rest = self.window.rest();
        let Some(header) = rest.first_chunk::<16>().filter(|_| is_there) else {
            return if rest.is_empty() { Ok(Step::End) } else { Err(INSIDE) };
        };
        let [s0, s1, s2, s3, f0, f1, f2, f3, c0, c1, c2, c3, w0, w1, w2, w3] = *header;
        let number = |octets| number(octets, format.big_endian);
        let (seconds, fraction) = (number([s0, s1, s2, s3]), number([f0, f1, f2, f3]));
        let (captured, wire_len) = (number([c0, c1, c2, c3]), number([w0, w1, w2, w3]));
        if captured as usize > MAX_FRAME {
            return Err(TOO_LONG);
        }
        self.pending = format.header + captured as usize;
        if !self.window.reach(self.pending).map_err(|_| UNREADABLE)? {
            return Err(INSIDE);
        }
        let time = format.time(seconds, fraction);
        let wire_len = wire_len.max(captured);
        Ok(Step::Frame(Located { time, interface: 0, wire_len, bytes: format.header..self.pending }))
    }

    /// The next block of a pcapng file.
    #[inline]
    pub(super) fn block(&mut self, big_endian: bool) -> Result<Step, &'static str> {
        match self.plain_packet(big_endian) {
            Some((located, length)) => {
                self.pending = length;
                Ok(Step::Frame(located))
            }
            None => self.any_block(big_endian),
        }
    }

    /// An enhanced packet block without options that is at hand and right in every respect, and its length.
    #[inline]
    fn plain_packet(&self, big_endian: bool) -> Option<(Located, usize)> {
        let rest = self.window.rest();
        let (words, _) = rest.first_chunk::<BEFORE_FRAME>()?.as_chunks::<4>();
        let &[kind, length, interface, high, low, captured, wire_len] = words else { return None };
        let number = |octets| number(octets, big_endian);
        let (length, captured) = (number(length), number(captured));
        if number(kind) != EPB_MAGIC || captured as usize > MAX_FRAME {
            return None;
        }
        let (whole, end) = (length as usize, BEFORE_FRAME + captured as usize);
        if whole != AROUND_FRAME + (captured as usize).next_multiple_of(4)
            || word(rest, whole - 4, big_endian) != Some(length)
        {
            return None;
        }
        let interface = self.section_base + number(interface) as usize;
        let time = self.interfaces.get(interface)?.time(number(high), number(low));
        let wire_len = number(wire_len).max(captured);
        Some((Located { time, interface, wire_len, bytes: BEFORE_FRAME..end }, whole))
    }

    /// Any other: read once more, and in full.
    #[cold]
    fn any_block(&mut self, big_endian: bool) -> Result<Step, &'static str> {
        let Self { window, interfaces, section_base, layout, last_time, .. } = self;
        // The longest fixed part of any block.
        window.reach(AROUND_FRAME).map_err(|_| UNREADABLE)?;
        if window.rest().is_empty() {
            return Ok(Step::End);
        }
        let claimed = claimed_length(window, big_endian);
        let is_whole = window.reach(claimed.min(MAX_BUFFER)).map_err(|_| UNREADABLE)?;
        let rest = window.rest();
        let parse = if big_endian { parse_block_be } else { parse_block_le };
        let block = match parse(rest) {
            Ok((behind, block)) => {
                self.pending = rest.offset(behind);
                block
            }
            Err(_) if is_passable(rest, claimed, big_endian) => {
                self.pending = claimed;
                return Ok(Step::Other);
            }
            // More is asked for than the block has: what it holds is too long for it.
            Err(Parsing::Incomplete(_)) if claimed <= rest.len() => return Err(LONGER_THAN_BLOCK),
            Err(Parsing::Incomplete(_)) if is_whole => return Err(TOO_LARGE),
            Err(Parsing::Incomplete(_)) => return Err(INSIDE),
            Err(Parsing::Error(_) | Parsing::Failure(_)) => return Err(DAMAGED),
        };
        let mut section = Section { interfaces, base: section_base, layout, last_time: *last_time };
        let found = section.take(&block)?;
        Ok(found.map_or(Step::Other, Step::Frame))
    }
}

/// How long the block at hand says it is. A section header is in an order of its own.
fn claimed_length(window: &Window, big_endian: bool) -> usize {
    let rest = window.rest();
    let big_endian = match word(rest, 0, false) {
        Some(SHB_MAGIC) => word(rest, 8, false) != Some(BOM_MAGIC),
        _ => big_endian,
    };
    word(rest, 4, big_endian).map_or(usize::MAX, |length| length as usize)
}

/// Is the block at hand as long as it says at both its ends, and one that neither holds a frame nor says how to read one?
/// Then what is wrong in it does not matter.
fn is_passable(rest: &[u8], claimed: usize, big_endian: bool) -> bool {
    let number = |at| word(rest, at, big_endian);
    let kinds = [SHB_MAGIC, IDB_MAGIC, EPB_MAGIC, SPB_MAGIC, PACKET_BLOCK];
    claimed >= AROUND_BLOCK
        && claimed.is_multiple_of(4)
        && number(0).is_some_and(|kind| !kinds.contains(&kind))
        && number(claimed - 4).is_some_and(|length| length as usize == claimed)
}

/// The state that a block may change.
struct Section<'a> {
    interfaces: &'a mut Vec<Interface>,
    base: &'a mut usize,
    layout: &'a mut Layout,
    last_time: Nanos,
}

impl Section<'_> {
    fn take(&mut self, block: &Block<'_>) -> Result<Option<Located>, &'static str> {
        match block {
            Block::SectionHeader(header) => {
                *self.layout = Layout::Blocks { big_endian: header.big_endian() };
                *self.base = self.interfaces.len();
                Ok(None)
            }
            Block::InterfaceDescription(interface) => {
                // The parser reads neither powers of two nor, in big-endian sections, the offset.
                let resolution =
                    resolution(interface.if_tsresol).ok_or("an interface's clock is finer than 64 bits")?;
                let offset_s = match interface.block_type {
                    IDB_MAGIC => interface.if_tsoffset,
                    _ => interface.if_tsoffset.swap_bytes(),
                };
                if self.interfaces.len() == MAX_INTERFACES {
                    return Err(TOO_MANY);
                }
                let name = interface.if_name().and_then(Result::ok).filter(|name| name.len() <= MAX_NAME);
                self.interfaces.push(Interface {
                    name: name.map(ToOwned::to_owned),
                    link: LinkType::from_number(interface.linktype.0),
                    resolution,
                    tick_ns: 1_000_000_000_u64.is_multiple_of(resolution).then(|| 1_000_000_000 / resolution),
                    offset_s,
                    snap_len: interface.snaplen,
                });
                Ok(None)
            }
            Block::EnhancedPacket(block) => {
                let at = *self.base + block.if_id as usize;
                let time = self.interfaces.get(at).ok_or(UNDESCRIBED)?.time(block.ts_high, block.ts_low);
                let there = block.packet_data().len();
                keep((BEFORE_FRAME, there), block.caplen, block.origlen, time, at)
            }
            Block::SimplePacket(block) => {
                // It has no time; the last one keeps the order. Its length is what the snap length left of it.
                let at = *self.base;
                let interface = self.interfaces.get(at).ok_or(UNDESCRIBED)?;
                let limit = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
                let there = block.packet_data().len();
                let captured = u32::try_from(there).unwrap_or(u32::MAX).min(limit);
                keep((BEFORE_SIMPLE_FRAME, there), captured, block.origlen, self.last_time, at)
            }
            Block::Unknown(block) => match block.block_type {
                PACKET_BLOCK => self.obsolete(block.data, u16::from_le_bytes, u32::from_le_bytes),
                PACKET_BLOCK_SWAPPED => self.obsolete(block.data, u16::from_be_bytes, u32::from_be_bytes),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The packet block of before 2009, which the parser does not know: interface and drops in 16 bits each,
    /// then as in the enhanced one.
    fn obsolete(
        &self,
        body: &[u8],
        short: fn([u8; 2]) -> u16,
        word: fn([u8; 4]) -> u32,
    ) -> Result<Option<Located>, &'static str> {
        let Some((header, data)) = body.split_first_chunk::<20>() else { return Err(DAMAGED) };
        let [i0, i1, _, _, fields @ ..] = *header;
        let (fields, _) = fields.as_chunks::<4>();
        let &[high, low, captured, wire_len] = fields else { return Err(DAMAGED) };
        let at = *self.base + usize::from(short([i0, i1]));
        let time = self.interfaces.get(at).ok_or(UNDESCRIBED)?.time(word(high), word(low));
        keep((BEFORE_FRAME, data.len()), word(captured), word(wire_len), time, at)
    }
}

/// The frame that begins `before` bytes into its block, of which so many can be there.
fn keep(
    (before, there): (usize, usize),
    captured: u32,
    wire_len: u32,
    time: Nanos,
    interface: usize,
) -> Result<Option<Located>, &'static str> {
    let length = captured as usize;
    if length > MAX_FRAME {
        return Err(TOO_LONG);
    }
    if length > there {
        return Err(SHORTER);
    }
    let wire_len = wire_len.max(captured);
    Ok(Some(Located { time, interface, wire_len, bytes: before..before + length }))
}

/// Ticks a second: the upper bit of `if_tsresol` tells a power of two from one of ten.
fn resolution(if_tsresol: u8) -> Option<u64> {
    let base: u64 = if if_tsresol & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(u32::from(if_tsresol & 0x7f))
}
