//! Runs of plain records: what nearly all of a capture is.
//!
//! A frame after the other, in the block at hand, on an interface that is known: the header of each is looked at once, and its
//! place noted. Whatever is anything else ends the run before it, and is read the general way ([`Frames::locate`]), which would
//! have found the same of every record of the run.

use pcap_parser::EPB_MAGIC;

use super::batch::Place;
use super::records::{AROUND_FRAME, BEFORE_FRAME, Classic, Interface, Layout};
use super::window::{At, BLOCK};
use super::{Frames, LinkType, MAX_FRAME};
use crate::packet::Nanos;

// What lies in a block is no longer than a frame may be, and its place has 32 bits.
const _: () = assert!(BLOCK <= MAX_FRAME);

/// An interface, as the records of a run need it.
struct Known<'a> {
    /// As the file numbers it, in the file's order of octets.
    number: [u8; 4],
    /// As frames do.
    index: u16,
    link: LinkType,
    is_skipped: u64,
    interface: &'a Interface,
}

/// A run as it grows.
struct Run<'a> {
    places: &'a mut Vec<Place>,
    /// What follows.
    rest: &'a [u8],
    /// Where the block ends.
    end: usize,
    skipped: u64,
}

impl Frames {
    /// Takes the plain records that are next in the block at hand.
    pub(super) fn take_run(&mut self, places: &mut Vec<Place>) {
        self.consume();
        let At::Block(at) = self.window.at() else { return };
        let (before, rest) = (places.len(), self.window.rest());
        let mut run = Run { places, rest, end: at + rest.len(), skipped: 0 };
        match self.layout {
            Layout::Blocks { big_endian: false } => self.blocks(&mut run, u32::from_le_bytes),
            Layout::Blocks { big_endian: true } => self.blocks(&mut run, u32::from_be_bytes),
            Layout::Classic(format) if format.big_endian => {
                self.records(&mut run, format, u32::from_be_bytes);
            }
            Layout::Classic(format) => self.records(&mut run, format, u32::from_le_bytes),
        }
        let Run { places, rest: behind, skipped, .. } = run;
        let consumed = rest.len() - behind.len();
        self.number += (places.len() - before) as u64;
        self.skipped += skipped;
        self.last_time = places.last().map_or(self.last_time, |place| place.time);
        self.window.consume(consumed);
    }

    /// Enhanced packet blocks without options.
    #[inline]
    fn blocks(&self, run: &mut Run<'_>, number: impl Fn([u8; 4]) -> u32) {
        let mut known: Option<Known<'_>> = None;
        while let Some(header) = run.rest.first_chunk::<BEFORE_FRAME>() {
            let (&[kind, length, interface, high, low, captured, wire_len], _) = header.as_chunks::<4>()
            else {
                break;
            };
            let (captured, whole) = (number(captured), number(length));
            // In 64 bits, where no length is too long to be rounded.
            let expected = ((u64::from(captured) + 3) & !3) + AROUND_FRAME as u64;
            if number(kind) != EPB_MAGIC || u64::from(whole) != expected {
                break;
            }
            let Some((block, behind)) = run.rest.split_at_checked(whole as usize) else { break };
            if block.last_chunk() != Some(&length) {
                break;
            }
            let on = match &known {
                Some(known) if known.number == interface => known,
                _ => match self.known(interface, number(interface)) {
                    Some(other) => known.insert(other),
                    None => break,
                },
            };
            let time = on.interface.time(number(high), number(low));
            run.take(on, time, BEFORE_FRAME, (captured, number(wire_len)), behind);
        }
    }

    /// Records of a pcap file.
    #[inline]
    fn records(&self, run: &mut Run<'_>, format: Classic, number: impl Fn([u8; 4]) -> u32) {
        let Some(on) = self.known([0; 4], 0) else { return };
        while let Some(header) = run.rest.first_chunk::<16>() {
            let (&[seconds, fraction, captured, wire_len], _) = header.as_chunks::<4>() else { break };
            let captured = number(captured);
            let Some(behind) = run.rest.get(format.header.saturating_add(captured as usize)..) else { break };
            let time = format.time(number(seconds), number(fraction));
            run.take(&on, time, format.header, (captured, number(wire_len)), behind);
        }
    }

    fn known(&self, number: [u8; 4], at: u32) -> Option<Known<'_>> {
        let at = self.section_base + at as usize;
        let interface = self.interfaces.get(at)?;
        let (index, link) = (u16::try_from(at).unwrap_or(u16::MAX), interface.link);
        let is_skipped = u64::from(matches!(link, LinkType::Other(_)));
        Some(Known { number, index, link, is_skipped, interface })
    }
}

impl<'a> Run<'a> {
    /// Takes the frame that begins so far from here, captured and on the wire that long; `behind` it the run goes on.
    #[inline]
    fn take(
        &mut self,
        on: &Known<'_>,
        time: Nanos,
        before: usize,
        (len, wire_len): (u32, u32),
        behind: &'a [u8],
    ) {
        let start = self.end - self.rest.len() + before;
        self.skipped += on.is_skipped;
        self.places.push(Place::new(start, len, time, wire_len.max(len), (on.index, on.link)));
        self.rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::FrameBatch;
    use super::*;

    /// What a reader tells of a frame: time, number, interface, link layer, octets, length on the wire.
    type Seen = (u64, u64, u16, LinkType, Vec<u8>, u32);

    /// And of the file: frames of links that are not read, the last time, where it broke off.
    type End = (u64, Nanos, Option<&'static str>);

    fn end(frames: &Frames) -> End {
        (frames.skipped, frames.last_time, frames.cut_short)
    }

    fn see(frame: super::super::Frame<'_>) -> Seen {
        (frame.time.0, frame.number, frame.interface, frame.link, frame.bytes.to_vec(), frame.wire_len)
    }

    fn one_by_one(file: &[u8]) -> (Vec<Seen>, End) {
        let (mut frames, mut seen) = (Frames::of(Box::new(Cursor::new(file.to_vec()))), Vec::new());
        while let Some(frame) = frames.next_frame() {
            seen.push(see(frame));
        }
        (seen, end(&frames))
    }

    fn in_batches(file: &[u8]) -> (Vec<Seen>, End) {
        let (mut frames, mut seen) = (Frames::of(Box::new(Cursor::new(file.to_vec()))), Vec::new());
        let mut batch = FrameBatch::default();
        while frames.fill(&mut batch) {
            seen.extend(batch.iter().map(see));
        }
        (seen, end(&frames))
    }

    /// Words in an order of octets, and octets.
    struct Writing(bool, Vec<u8>);

    impl Writing {
        fn words(&mut self, words: &[u32]) {
            let Self(big_endian, bytes) = self;
            for word in words {
                bytes.extend(if *big_endian { word.to_be_bytes() } else { word.to_le_bytes() });
            }
        }

        fn section(&mut self) {
            self.words(&[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 0, u32::MAX, u32::MAX, 28]);
            // The versions are 16 bits each: 1 and 0.
            let at = self.1.len() - 16;
            self.1[at..at + 4].copy_from_slice(if self.0 { &[0, 1, 0, 0] } else { &[1, 0, 0, 0] });
        }

        fn interface(&mut self, link: u32) {
            self.words(&[1, 20, 0, 65_535, 20]);
            let at = self.1.len() - 12;
            let [low, high, ..] = link.to_le_bytes();
            self.1[at..at + 4].copy_from_slice(&if self.0 { [high, low, 0, 0] } else { [low, high, 0, 0] });
        }

        fn block(&mut self, kind: u32, body: &[u32], data: &[u8]) {
            let padded = data.len().next_multiple_of(4);
            let length = u32::try_from(12 + 4 * body.len() + padded).unwrap();
            self.words(&[kind, length]);
            self.words(body);
            self.1.extend(data);
            self.1.extend(vec![0; padded - data.len()]);
            self.words(&[length]);
        }
    }

    /// A frame's interface, length, and length on the wire.
    type Record = (u32, u32, u32);

    fn pcapng(big_endian: bool, records: &[Record]) -> Vec<u8> {
        let mut to = Writing(big_endian, Vec::new());
        to.section();
        for link in [1, 147, 101] {
            to.interface(link);
        }
        for ((interface, captured, wire_len), at) in records.iter().zip(1_u32..) {
            let data = vec![at.to_le_bytes()[0]; *captured as usize];
            match at % 16 {
                // A simple packet block, one that is skipped, another section, a frame with options.
                13 => to.block(3, &[*captured], &data),
                14 => to.block(0x0bad, &[at], &data),
                15 if at % 3 == 0 => {
                    to.section();
                    for link in [101, 1, 147] {
                        to.interface(link);
                    }
                }
                15 => to.block(6, &[*interface, 0, at, *captured, *wire_len], &[&data[..], &[0; 8]].concat()),
                _ => to.block(6, &[*interface, at >> 3, at, *captured, *wire_len], &data),
            }
        }
        to.1
    }

    fn pcap(big_endian: bool, magic: u32, records: &[Record]) -> Vec<u8> {
        let mut to = Writing(big_endian, Vec::new());
        to.words(&[magic, 0, 0, 0, 65_535, 1]);
        to.1[4..8].copy_from_slice(if big_endian { &[0, 2, 0, 4] } else { &[2, 0, 4, 0] });
        for ((fraction, captured, wire_len), at) in records.iter().zip(1_u32..) {
            to.words(&[at, *fraction, *captured, *wire_len]);
            if magic == 0xa1b2_cd34 {
                to.words(&[0, 0]);
            }
            to.1.extend(vec![at.to_le_bytes()[0]; *captured as usize]);
        }
        to.1
    }

    #[test]
    fn a_run_ends_before_what_is_not_plain_and_goes_on_behind_it() {
        let records: Vec<Record> = (0..3_000).map(|n| (n % 3, n % 300, n)).collect();
        for file in [
            pcapng(false, &records),
            pcapng(true, &records),
            pcap(false, 0xa1b2_c3d4, &records),
            pcap(true, 0xa1b2_3c4d, &records),
            pcap(false, 0xa1b2_cd34, &records),
        ] {
            let (seen, end) = in_batches(&file);
            assert_eq!(end.2, None);
            assert!(seen.len() > 2_500, "{}", seen.len());
            assert_eq!((&seen, end), (&one_by_one(&file).0, one_by_one(&file).1));
        }
    }

    proptest! {
        /// Whatever is wrong with a record, and wherever blocks end.
        #[test]
        fn runs_find_what_is_found_one_by_one(
            records in vec((0..4_u32, 0..400_u32, any::<u32>()), 1..200),
            // Shifts what follows against the ends of blocks.
            large in prop_oneof![Just(0), 120_000..140_000_u32],
            // The modified format is read in one order only.
            kind in 0..5_u8,
            damage in vec((any::<Index>(), prop_oneof![any::<u8>(), 0..8_u8]), 0..3),
            cut in prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)],
        ) {
            let records = [&[(0, large, large)], &records[..]].concat();
            let big_endian = kind % 2 == 1;
            let (mut file, header) = match kind / 2 {
                0 => (pcapng(big_endian, &records), 28),
                1 => (pcap(big_endian, 0xa1b2_c3d4, &records), 24),
                _ => (pcap(big_endian, 0xa1b2_cd34, &records), 24),
            };
            for (at, value) in damage {
                let at = header + at.index(file.len() - header);
                file[at] = value;
            }
            if let Some(cut) = cut {
                file.truncate(header + cut.index(file.len() - header));
            }
            prop_assert_eq!(in_batches(&file), one_by_one(&file));
        }
    }
}
