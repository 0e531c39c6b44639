//! A capture file again, without some of its frames, or with words about them.
//!
//! ```text
//!   pcapng:  block ─▶ a frame's? ──no──▶ out, byte for byte
//!                        └─yes─▶ judge ─▶ out, out with a comment, or gone
//!   pcap:    record ─▶ judge ─▶ an enhanced packet block of a pcapng file with one interface
//! ```
//!
//! Blocks are copied, not decoded and encoded: byte order, interfaces, clocks, names, secrets, options and kinds of blocks
//! that nobody here knows stay as they are. A comment is one more option of the frame's block. Libraries that write
//! pcapng encode anew what they understand, and lose what they do not.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::{BUFFER, Counted, LINK_TYPE, MAX_BUFFER, MAX_FRAME, Progress};

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Keep,
    /// It stays, with a comment.
    Comment(String),
    /// It goes.
    Remove,
}

const SECTION: u32 = 0x0a0d_0d0a;
const ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const COMMENT: u16 = 1;
const TIME_RESOLUTION: u16 = 9;
/// Header of a block, and the fixed part of a packet block, enhanced or obsolete: where its bytes begin.
const BLOCK_HEADER: usize = 8;
const PACKET_DATA: usize = 28;
const CAPTURED_LENGTH: usize = 20;
/// Length of an option, at most.
const MAX_COMMENT: usize = 65_532;

/// Opens a file for [`rewrite`], and tells how far reading has come.
///
/// # Errors
/// If it does not open, or its compression is damaged.
pub fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Progress)> {
    let file = File::open(path)?;
    let progress = Progress { size: file.metadata()?.len(), ..Progress::default() };
    let input: Box<dyn Read + Send> = Box::new(file);
    let counted = Counted { inner: input, read: progress.read.clone() };
    let (input, _) = super::open::unpack(counted)?;
    Ok((Box::new(BufReader::with_capacity(BUFFER, input)), progress))
}

/// Copies a capture of `frames` frames, as `judge` says of each, by its number. What follows the last of them is
/// damaged, and left out.
///
/// # Errors
/// If reading or writing fails, or the file is of no kind that can be rewritten.
pub fn rewrite(
    mut input: impl Read,
    mut output: impl Write,
    frames: u64,
    judge: impl FnMut(u64) -> Fate,
) -> io::Result<()> {
    let mut magic = [0; 4];
    input.read_exact(&mut magic)?;
    let mut frames = Judged { number: 0, frames, judge };
    match Classic::from_magic(magic) {
        Some(classic) => classic.rewrite(input, &mut output, &mut frames)?,
        None if u32::from_be_bytes(magic) == SECTION => blocks(input, &mut output, &mut frames)?,
        None => {
            let kind = "pcap and pcapng are rewritten; convert it first (editcap -F pcapng)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, kind));
        }
    }
    output.flush()
}

struct Judged<J> {
    number: u64,
    frames: u64,
    judge: J,
}

impl<J: FnMut(u64) -> Fate> Judged<J> {
    /// The next frame's fate; `None` after the last.
    fn next(&mut self) -> Option<Fate> {
        self.number += 1;
        (self.number <= self.frames).then(|| (self.judge)(self.number))
    }
}

/// Byte order of a section.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn word(self, bytes: &[u8], at: usize) -> Option<u32> {
        let word = *bytes.get(at..)?.first_chunk()?;
        Some(if self == Self::Big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }

    fn put(self, word: u32) -> [u8; 4] {
        if self == Self::Big { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn put_short(self, short: u16) -> [u8; 2] {
        if self == Self::Big { short.to_be_bytes() } else { short.to_le_bytes() }
    }
}

/// Copies the blocks of a pcapng file, of which the first four bytes were read.
fn blocks<J: FnMut(u64) -> Fate>(
    mut input: impl Read,
    output: &mut impl Write,
    frames: &mut Judged<J>,
) -> io::Result<()> {
    let mut order = Order::Little;
    let mut block = SECTION.to_be_bytes().to_vec();
    while frames.number < frames.frames || block.len() == 4 {
        if !fill(&mut input, &mut block, BLOCK_HEADER)? {
            break;
        }
        let is_section = block.first_chunk() == Some(&SECTION.to_be_bytes());
        if is_section {
            if !fill(&mut input, &mut block, BLOCK_HEADER + 4)? {
                break;
            }
            order =
                if Order::Big.word(&block, BLOCK_HEADER) == Some(ORDER) { Order::Big } else { Order::Little };
        }
        let length = order.word(&block, 4).map_or(0, |length| length as usize).next_multiple_of(4);
        if !(BLOCK_HEADER + 4..=MAX_BUFFER).contains(&length) || !fill(&mut input, &mut block, length)? {
            break;
        }
        let kind = order.word(&block, 0).unwrap_or(0);
        if is_section {
            // The section's length, which is no longer true: not given.
            if let Some(field) = block.get_mut(16..24) {
                field.fill(0xff);
            }
        }
        if matches!(kind, SIMPLE_PACKET | ENHANCED_PACKET | super::PACKET_BLOCK) {
            match frames.next() {
                None => break,
                Some(Fate::Remove) => {}
                Some(Fate::Comment(text)) if kind != SIMPLE_PACKET => {
                    output.write_all(&commented(&block, order, &text))?;
                }
                Some(_) => output.write_all(&block)?,
            }
        } else {
            output.write_all(&block)?;
        }
        block.clear();
    }
    Ok(())
}

/// Reads on until the block has so many bytes. False at the end of the file.
fn fill(input: &mut impl Read, block: &mut Vec<u8>, length: usize) -> io::Result<bool> {
    let missing = length.saturating_sub(block.len());
    let read = input.take(missing as u64).read_to_end(block)?;
    Ok(read == missing)
}

/// A packet block with one more option, before those that it has.
fn commented(block: &[u8], order: Order, text: &str) -> Vec<u8> {
    let captured = order.word(block, CAPTURED_LENGTH).unwrap_or(0) as usize;
    let options = PACKET_DATA.saturating_add(captured.next_multiple_of(4));
    let end = block.len().saturating_sub(4);
    let (Some(head), Some(had)) = (block.get(..options), block.get(options..end)) else {
        return block.to_vec();
    };
    let mut out = head.to_vec();
    push_option(&mut out, order, COMMENT, text.as_bytes());
    if had.is_empty() {
        push_option(&mut out, order, 0, &[]);
    }
    out.extend_from_slice(had);
    finish(out, order)
}

fn push_option(out: &mut Vec<u8>, order: Order, code: u16, value: &[u8]) {
    let value = value.get(..MAX_COMMENT).unwrap_or(value);
    out.extend_from_slice(&order.put_short(code));
    out.extend_from_slice(&order.put_short(u16::try_from(value.len()).unwrap_or(0)));
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Writes the length of a block at both its ends.
fn finish(mut block: Vec<u8>, order: Order) -> Vec<u8> {
    let length = order.put(u32::try_from(block.len() + 4).unwrap_or(0));
    if let Some(field) = block.get_mut(4..8) {
        field.copy_from_slice(&length);
    }
    block.extend_from_slice(&length);
    block
}

/// A classic pcap file.
struct Classic {
    order: Order,
    nanoseconds: bool,
}

impl Classic {
    fn from_magic(magic: [u8; 4]) -> Option<Self> {
        let of = |order, nanoseconds| Some(Self { order, nanoseconds });
        match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => of(Order::Little, false),
            [0x4d, 0x3c, 0xb2, 0xa1] => of(Order::Little, true),
            [0xa1, 0xb2, 0xc3, 0xd4] => of(Order::Big, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => of(Order::Big, true),
            _ => None,
        }
    }

    fn rewrite<J: FnMut(u64) -> Fate>(
        &self,
        mut input: impl Read,
        output: &mut impl Write,
        frames: &mut Judged<J>,
    ) -> io::Result<()> {
        let mut header = [0; 20];
        input.read_exact(&mut header)?;
        let field = |at| self.order.word(&header, at).unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, reason = "the mask leaves sixteen bits")]
        let link = (field(16) & LINK_TYPE.cast_unsigned()) as u16;
        let out = Order::Little;
        output.write_all(&section())?;
        let mut interface = [out.put(INTERFACE), out.put(0)].concat();
        interface.extend_from_slice(&link.to_le_bytes());
        interface.extend_from_slice(&[0, 0]);
        interface.extend_from_slice(&out.put(field(12)));
        let digits: u8 = if self.nanoseconds { 9 } else { 6 };
        push_option(&mut interface, out, TIME_RESOLUTION, &[digits]);
        push_option(&mut interface, out, 0, &[]);
        output.write_all(&finish(interface, out))?;

        let mut record = Vec::new();
        while frames.number < frames.frames {
            record.clear();
            if !fill(&mut input, &mut record, 16)? {
                break;
            }
            let field = |at| self.order.word(&record, at).unwrap_or(0);
            let (seconds, fraction, captured, length) = (field(0), field(4), field(8), field(12));
            if captured as usize > MAX_FRAME || !fill(&mut input, &mut record, 16 + captured as usize)? {
                break;
            }
            let comment = match frames.next() {
                None => break,
                Some(Fate::Remove) => continue,
                Some(Fate::Keep) => None,
                Some(Fate::Comment(text)) => Some(text),
            };
            let scale = if self.nanoseconds { 1_000_000_000 } else { 1_000_000 };
            let ticks = u64::from(seconds) * scale + u64::from(fraction);
            #[expect(clippy::cast_possible_truncation, reason = "the two halves of it")]
            let (high, low) = ((ticks >> 32) as u32, ticks as u32);
            let words = [ENHANCED_PACKET, 0, 0, high, low, captured, length.max(captured)];
            let mut packet = words.map(|word| out.put(word)).concat();
            packet.extend_from_slice(record.get(16..).unwrap_or_default());
            packet.resize(packet.len().next_multiple_of(4), 0);
            if let Some(text) = comment {
                push_option(&mut packet, out, COMMENT, text.as_bytes());
                push_option(&mut packet, out, 0, &[]);
            }
            output.write_all(&finish(packet, out))?;
        }
        Ok(())
    }
}

/// The header of a section of this program's, of unknown length.
fn section() -> Vec<u8> {
    const APPLICATION: u16 = 4;
    let order = Order::Little;
    let mut block = [SECTION, 0, ORDER, 1, u32::MAX, u32::MAX].map(|word| order.put(word)).concat();
    push_option(&mut block, order, APPLICATION, concat!("voxprobe ", env!("CARGO_PKG_VERSION")).as_bytes());
    push_option(&mut block, order, 0, &[]);
    finish(block, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big_endian_section() -> Vec<u8> {
        let order = Order::Big;
        let header = [SECTION, 0, ORDER, 0x0001_0000, 0, 4_711].map(|word| order.put(word)).concat();
        finish(header, order)
    }

    fn packet(order: Order, data: &[u8], options: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        let mut block = [ENHANCED_PACKET, 0, 0, 1, 2, length, length].map(|word| order.put(word)).concat();
        block.extend_from_slice(data);
        block.resize(block.len().next_multiple_of(4), 0);
        block.extend_from_slice(options);
        finish(block, order)
    }

    fn run(input: &[u8], judge: impl FnMut(u64) -> Fate) -> Vec<u8> {
        let mut output = Vec::new();
        rewrite(input, &mut output, u64::MAX, judge).unwrap();
        output
    }

    #[test]
    fn what_is_kept_is_kept_byte_for_byte_in_any_order_and_unknown_blocks_too() {
        let order = Order::Big;
        let unknown = finish([0x0bad, 0, 7].map(|word: u32| order.put(word)).concat(), order);
        let (a, b) =
            (packet(order, b"first", &[]), packet(order, b"second", &[0, 2, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0]));
        let input = [big_endian_section(), a.clone(), unknown.clone(), b.clone()].concat();
        let mut section = big_endian_section();
        section[16..24].fill(0xff);
        assert_eq!(run(&input, |_| Fate::Keep), [section.clone(), a, unknown.clone(), b.clone()].concat());
        let removed = run(&input, |number| if number == 1 { Fate::Remove } else { Fate::Keep });
        assert_eq!(removed, [section, unknown, b].concat());
    }

    #[test]
    fn a_comment_stands_before_the_options_that_were_there() {
        let order = Order::Big;
        let flags = [0, 2, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0];
        let comment = [&[0, 1, 0, 3][..], b"why", &[0]].concat();
        let with = packet(order, b"data!", &[comment.clone(), flags.to_vec()].concat());
        assert_eq!(commented(&packet(order, b"data!", &flags), order, "why"), with);
        let alone = packet(order, b"data!", &[comment, vec![0; 4]].concat());
        assert_eq!(commented(&packet(order, b"data!", &[]), order, "why"), alone);
    }

    #[test]
    fn a_file_that_lies_about_lengths_ends_there_and_not_in_a_panic() {
        for length in [0, 3, 11, 13, u32::MAX] {
            let mut broken = packet(Order::Big, b"data", &[]);
            broken[4..8].copy_from_slice(&length.to_be_bytes());
            run(&[big_endian_section(), broken].concat(), |_| Fate::Comment("x".to_owned()));
        }
        let mut lying = packet(Order::Big, b"data", &[]);
        lying[20..24].copy_from_slice(&u32::MAX.to_be_bytes());
        run(&[big_endian_section(), lying].concat(), |_| Fate::Comment("x".to_owned()));
    }
}
