//! ERF, the format of Endace's capture cards, read as the pcapng that it would be.
//!
//! ```text
//!   record: time 8 (little-endian, 2^-32 s since 1970) | type 1 | flags 1 | length 2 | loss or colour 2 | wire length 2
//!           extension headers, 8 each, while the bit 0x80 of the type and then of each is set
//!           Ethernet: 2 octets of padding, then the frame;  IPv4, IPv6, HDLC: the frame
//!        ─▶ pcapng: an interface block for each port and kind of frame, an enhanced packet block for each record
//! ```
//!
//! A file is nothing but records, and has no magic number: what is one, is found by following a few
//! ([`looks_like_erf`]), as Wireshark does. Padding records are left out, so frame numbers are Wireshark's; times are
//! rounded to the nanosecond, as there. A record that is cut, or none, ends the blocks in the middle of one, which the
//! reader of blocks has a word for.
//!
//! Source: Endace, "ERF types reference guide"; wireshark.org/docs, wiretap/erf.

use std::io::{self, Read};

/// Octets of a record before its extension headers.
const HEADER: usize = 16;
/// Records that are followed before a file is believed, where it has so many.
const BELIEVED: usize = 16;
/// A year, in whole seconds: no two records of one file are further apart.
const YEAR_S: u64 = 366 * 24 * 3600;
/// Record type of padding, which is no frame.
const PADDING: u8 = 48;
/// Ticks of an ERF clock in a second, as a power of two.
const TICKS: u32 = 32;

/// LINKTYPE_ numbers (tcpdump.org/linktypes.html) that the kinds of records have here.
const ETHERNET: u16 = 1;
const PPP_HDLC: u16 = 50;
const IPV4: u16 = 228;
const IPV6: u16 = 229;
const ERF: u16 = 197;

/// One record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    ticks: u64,
    kind: u8,
    is_extended: bool,
    port: u8,
    record_len: usize,
    wire_len: u16,
}

impl Header {
    /// `None` for what cannot be one.
    fn read(octets: &[u8; HEADER]) -> Option<Self> {
        let [t0, t1, t2, t3, t4, t5, t6, t7, kind, flags, r0, r1, _, _, w0, w1] = *octets;
        let header = Self {
            ticks: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            kind: kind & 0x7f,
            is_extended: kind & 0x80 != 0,
            port: flags & 0x03,
            record_len: usize::from(u16::from_be_bytes([r0, r1])),
            wire_len: u16::from_be_bytes([w0, w1]),
        };
        let is_known = matches!(header.kind, 1..=27 | PADDING);
        (is_known && header.record_len >= HEADER).then_some(header)
    }

    /// To the nearest nanosecond.
    fn time_ns(self) -> u64 {
        let ns = (u128::from(self.ticks) * 1_000_000_000 + (1 << (TICKS - 1))) >> TICKS;
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// The link type of what is inside, and octets of padding before it.
    fn link(self) -> (u16, usize) {
        match self.kind {
            // Plain, coloured, by the coprocessor, with a hash.
            2 | 11 | 16 | 20 => (ETHERNET, 2),
            // HDLC of SONET, likewise: PPP or Cisco's.
            1 | 10 | 15 => (PPP_HDLC, 0),
            22 => (IPV4, 0),
            23 => (IPV6, 0),
            _ => (ERF, 0),
        }
    }
}

/// Are these the first octets of an ERF file, as far as they go?
pub(super) fn looks_like_erf(start: &[u8]) -> bool {
    let (mut rest, mut before, mut records) = (start, None::<u64>, 0);
    while records < BELIEVED {
        let Some(octets) = rest.first_chunk() else { break };
        let Some(header) = Header::read(octets) else { return false };
        let is_frame = header.kind != PADDING;
        if (is_frame && header.wire_len == 0) || (!is_frame && records == 0) {
            return false;
        }
        if is_frame {
            let seconds = header.ticks >> TICKS;
            // Cards with several ports may be out of order by a little.
            if before.is_some_and(|before| seconds + 1 < before || seconds > before + YEAR_S) {
                return false;
            }
            before = Some(seconds);
        }
        records += 1;
        let Some(next) = rest.get(header.record_len..) else { break };
        rest = next;
    }
    // One whole record is little to go by, unless it is all that there is.
    records >= 2 || (records == 1 && rest.is_empty())
}

/// The records of `input` as pcapng, in little-endian blocks.
pub(super) struct AsPcapng<R> {
    input: R,
    /// Interfaces that were described: port and link type.
    interfaces: Vec<(u8, u16)>,
    block: Vec<u8>,
    /// What of `block` was handed out.
    given: usize,
    record: Vec<u8>,
    is_over: bool,
}

impl<R: Read> AsPcapng<R> {
    pub(super) fn new(input: R) -> Self {
        let mut block = Vec::new();
        // Byte-order magic, version 1.0, length of the section unknown.
        let body = [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[0xff; 8]].concat();
        push_block(&mut block, 0x0a0d_0d0a, &body);
        Self { input, interfaces: Vec::new(), block, given: 0, record: Vec::new(), is_over: false }
    }

    /// Puts the next record's blocks into `self.block`.
    fn refill(&mut self) -> io::Result<()> {
        self.block.clear();
        self.given = 0;
        while self.block.is_empty() && !self.is_over {
            let mut octets = [0; HEADER];
            match read_full(&mut self.input, &mut octets)? {
                0 => self.is_over = true,
                HEADER => match Header::read(&octets) {
                    Some(header) => self.take(header)?,
                    None => self.break_off(),
                },
                _ => self.break_off(),
            }
        }
        Ok(())
    }

    fn take(&mut self, header: Header) -> io::Result<()> {
        self.record.resize(header.record_len - HEADER, 0);
        let is_whole = read_full(&mut self.input, &mut self.record)? == self.record.len();
        if header.kind == PADDING && is_whole {
            return Ok(());
        }
        let (link, padding) = header.link();
        let Some(data) = self.record.get(extensions(header, &self.record) + padding..).filter(|_| is_whole)
        else {
            self.break_off();
            return Ok(());
        };
        // Records are padded to eight octets; the wire length tells where the frame ends.
        let data = data.get(..usize::from(header.wire_len)).unwrap_or(data);
        let described = self.interfaces.iter().position(|known| *known == (header.port, link));
        let interface = described.unwrap_or_else(|| {
            self.interfaces.push((header.port, link));
            push_block(&mut self.block, 1, &interface_block(header.port, link));
            self.interfaces.len() - 1
        });
        let time = header.time_ns();
        // At most four ports of five link types.
        let interface = u32::try_from(interface).unwrap_or(0);
        let captured = u32::try_from(data.len()).unwrap_or(0);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a number")]
        let fields = [interface, (time >> 32) as u32, time as u32, captured, u32::from(header.wire_len)];
        let mut body: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        body.extend_from_slice(data);
        body.resize(body.len().next_multiple_of(4), 0);
        push_block(&mut self.block, 6, &body);
        Ok(())
    }

    /// Ends in the middle of a block.
    fn break_off(&mut self) {
        self.block.extend([6, 0, 0, 0, 32, 0, 0, 0]);
        self.is_over = true;
    }
}

impl<R: Read> Read for AsPcapng<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.block.len() {
            self.refill()?;
        }
        let mut rest = self.block.get(self.given..).unwrap_or_default();
        let read = rest.read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

/// Octets of extension headers at the start of a record's rest.
fn extensions(header: Header, rest: &[u8]) -> usize {
    if !header.is_extended {
        return 0;
    }
    let more =
        rest.chunks(8).take_while(|extension| extension.first().is_some_and(|octet| octet & 0x80 != 0));
    (more.count() + 1) * 8
}

/// Interface description: a clock of nanoseconds, and the card's port as the name.
fn interface_block(port: u8, link: u16) -> Vec<u8> {
    let name = [b'p', b'o', b'r', b't', b' ', b'A' + port, 0, 0];
    let [l0, l1] = link.to_le_bytes();
    [
        &[l0, l1, 0, 0, 0, 0, 0, 0][..], // no snap length
        &[2, 0, 6, 0],                   // if_name, six octets and two of padding
        &name,
        &[9, 0, 1, 0, 9, 0, 0, 0], // if_tsresol: 10^-9
        &[0, 0, 0, 0],             // end of options
    ]
    .concat()
}

fn push_block(to: &mut Vec<u8>, kind: u32, body: &[u8]) {
    // A record's length has sixteen bits, so a block's fits.
    let length = u32::try_from(body.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
    to.extend(kind.to_le_bytes());
    to.extend(length);
    to.extend(body);
    to.extend(length);
}

/// Reads until the buffer is full or the input ends.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::super::{Frames, LinkType};
    use super::*;
    use crate::packet::Nanos;

    /// A record at so many ticks, of `kind` and with `flags`, around a body.
    fn record(ticks: u64, kind: u8, flags: u8, body: &[u8], wire_len: usize) -> Vec<u8> {
        let length = u16::try_from(HEADER + body.len()).unwrap().to_be_bytes();
        let wire_len = u16::try_from(wire_len).unwrap().to_be_bytes();
        [&ticks.to_le_bytes()[..], &[kind, flags], &length, &[0, 0], &wire_len, body].concat()
    }

    /// Ethernet, with its padding before and after.
    fn ethernet(ticks: u64, flags: u8, frame: &[u8]) -> Vec<u8> {
        record(ticks, 2, flags, &[&[0, 0], frame, &[0xee; 6]].concat(), frame.len())
    }

    type Seen = (u64, u64, u16, LinkType, Vec<u8>, u32);

    fn read(file: &[u8]) -> (Vec<Seen>, Option<&'static str>) {
        let reader = AsPcapng::new(io::Cursor::new(file.to_vec()));
        let mut frames = Frames::of(Box::new(reader));
        let mut seen = Vec::new();
        while let Some(frame) = frames.next_frame() {
            let Nanos(time) = frame.time;
            seen.push((
                time,
                frame.number,
                frame.interface,
                frame.link,
                frame.bytes.to_vec(),
                frame.wire_len,
            ));
        }
        (seen, frames.cut_short())
    }

    #[test]
    fn ethernet_records_are_frames_with_the_time_to_the_nanosecond_and_their_port() {
        let frame = [7; 61];
        let half = 1_700_000_000 << 32 | 1 << 31;
        // 3 ticks are 0.698 ns, 2 are 0.466.
        let file = [ethernet(half + 3, 0, &frame), ethernet(half + 2, 1, &frame)].concat();
        let ns = 1_700_000_000_500_000_000;
        let expected = vec![
            (ns + 1, 1, 0, LinkType::Ethernet, frame.to_vec(), 61),
            (ns, 2, 1, LinkType::Ethernet, frame.to_vec(), 61),
        ];
        assert_eq!(read(&file), (expected, None));
    }

    #[test]
    fn extension_headers_are_stepped_over_and_padding_records_are_no_frames() {
        let body = [&[0x81, 0, 0, 0, 0, 0, 0, 1, 0x01, 0, 0, 0, 0, 0, 0, 2][..], &[0, 0], &[9; 60]].concat();
        let padding = record(0, PADDING, 0, &[0; 16], 0);
        let file = [padding.clone(), record(1 << 32, 0x80 | 2, 0, &body, 60), padding].concat();
        let expected = vec![(1_000_000_000, 1, 0, LinkType::Ethernet, vec![9; 60], 60)];
        assert_eq!(read(&file), (expected, None));
    }

    #[test]
    fn other_kinds_of_records_have_their_link_type_and_one_that_is_not_read_counts() {
        let of = |kind| record(0, kind, 0, &[0x45; 40], 40);
        let file = [of(22), of(23), of(1), of(15), of(27)].concat();
        let (seen, cut) = read(&file);
        let links: Vec<_> = seen.iter().map(|(_, number, _, link, ..)| (*number, *link)).collect();
        let hdlc = LinkType::from_number(50);
        let ip = LinkType::RawIp;
        assert_eq!(links, [(1, ip), (2, ip), (3, hdlc), (4, hdlc), (5, LinkType::Other(197))]);
        assert_eq!(cut, None);
    }

    #[test]
    fn a_snapped_frame_keeps_its_wire_length() {
        let file = record(0, 2, 0, &[&[0, 0][..], &[1; 62]].concat(), 1_514);
        assert_eq!(read(&file).0, [(0, 1, 0, LinkType::Ethernet, vec![1; 62], 1_514)]);
    }

    #[test]
    fn a_record_that_is_cut_or_none_ends_the_capture_and_says_so() {
        let whole = ethernet(0, 0, &[5; 60]);
        let file = [whole.clone(), whole.clone()].concat();
        for length in whole.len() + 1..file.len() {
            let (seen, cut) = read(&file[..length]);
            assert_eq!((seen.len(), cut), (1, Some("the file ends inside a frame")), "{length}");
        }
        let (seen, cut) = read(&[&whole[..], &[0; 64]].concat());
        assert_eq!((seen.len(), cut), (1, Some("the file ends inside a frame")), "zeros");
        // An extension header that runs out of the record.
        let (seen, cut) = read(&record(0, 0x82, 0, &[0xff; 16], 60));
        assert_eq!((seen.len(), cut), (0, Some("the file ends inside a frame")));
    }

    #[test]
    fn an_erf_file_is_told_from_others_by_its_first_records() {
        let at = |seconds: u64| ethernet(seconds << 32, 0, &[5; 60]);
        let file = [at(1_000), at(1_000), at(1_001)].concat();
        assert!(looks_like_erf(&file) && looks_like_erf(&file[..200]) && looks_like_erf(&at(0)));
        assert!(!looks_like_erf(&[]) && !looks_like_erf(&at(0)[..60]));
        assert!(!looks_like_erf(&[at(1_000), at(998)].concat()), "back in time");
        assert!(!looks_like_erf(&[at(0), at(YEAR_S + 1)].concat()), "a year and a day later");
        for text in [&b"INVITE sip:bob@example.org SIP/2.0\r\n"[..], &[0; 64], &[0xff; 64]] {
            assert!(!looks_like_erf(&text.repeat(8)));
        }
    }
}
