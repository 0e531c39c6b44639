//! Opening: where the bytes are, how they are packed, and whether they are a capture at all.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use pcap_parser::nom::Err as Parsing;
use pcap_parser::{parse_pcap_header, parse_sectionheaderblock};

use super::records::{Classic, Interface, Layout};
use super::window::{Full, Source, Window};
use super::{BUFFER, Counted, FileError, Frames, LINK_TYPE, LinkType, Progress, erf, feeder};
use crate::packet::Nanos;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// How a section header begins, and the fewest octets of one.
const SECTION: &[u8] = &[0x0a, 0x0d, 0x0d, 0x0a];
const SECTION_HEADER: usize = 28;
/// Bytes of a file without a magic number that are looked at, to tell what it is.
const LOOKED_AT: u64 = 64 << 10;

impl Frames {
    /// Opens a capture file; `-` is standard input. What is compressed is decompressed by a thread of its own.
    ///
    /// # Errors
    /// If there is nothing to read in it: see [`FileError`]. A pcap file of an unreadable link type is one; in
    /// pcapng such interfaces are skipped and counted.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let Opened { input, progress, is_compressed, looks } = Opened::open(path)?;
        let input = Full::new(input);
        let source = if is_compressed {
            let fail = |source| FileError::Io { path: path.to_owned(), source };
            Source::Feed(feeder::start(input).map_err(fail)?)
        } else {
            Source::Reader(input)
        };
        Self::begin(path, Window::new(source), progress, &looks)
    }

    /// Reads the file's header.
    fn begin(path: &Path, mut window: Window, progress: Progress, looks: &str) -> Result<Self, FileError> {
        let other = || FileError::NotACapture { path: path.to_owned(), looks: looks.to_owned() };
        let reached = window.reach(SECTION_HEADER);
        let rest = window.rest();
        if rest.is_empty() && reached.is_err() {
            let damaged = io::Error::new(io::ErrorKind::InvalidData, "the compressed data is damaged");
            return Err(FileError::Io { path: path.to_owned(), source: damaged });
        }
        let (mut interfaces, mut header_len) = (Vec::new(), 0);
        let layout = if rest.starts_with(SECTION) {
            // Its order and length are read with it; here it has to be one.
            is_section(&mut window).then_some(Layout::Blocks { big_endian: false }).ok_or_else(other)?
        } else {
            match parse_pcap_header(rest) {
                Ok((_, header)) => {
                    header_len = header.size();
                    interfaces.push(Interface::of_classic(&header));
                    Layout::Classic(Classic::of(&header))
                }
                Err(Parsing::Incomplete(_)) => return Err(FileError::Header { path: path.to_owned() }),
                Err(_) => return Err(other()),
            }
        };
        if let (Layout::Classic(_), Some(LinkType::Other(number))) =
            (layout, interfaces.first().map(|interface: &Interface| interface.link))
        {
            return Err(FileError::LinkType { path: path.to_owned(), number });
        }
        window.consume(header_len);
        Ok(Self {
            window,
            pending: 0,
            layout,
            interfaces,
            section_base: 0,
            number: 0,
            skipped: 0,
            cut_short: None,
            progress,
            last_time: Nanos(0),
        })
    }

    /// Frames out of bytes, for tests of what comes before.
    #[cfg(test)]
    pub(super) fn of(input: Box<dyn Read + Send>) -> Self {
        let window = Window::new(Source::Reader(Full::new(input)));
        Self::begin(Path::new("a test's"), window, Progress::default(), "").unwrap()
    }
}

/// A file whose packing is known, from its first byte on.
struct Opened {
    input: Box<dyn Read + Send>,
    progress: Progress,
    is_compressed: bool,
    looks: String,
}

impl Opened {
    fn open(path: &Path) -> Result<Self, FileError> {
        let fail = |source| FileError::Io { path: path.to_owned(), source };
        let mut progress = Progress::default();
        let input: Box<dyn Read + Send> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).map_err(fail)?;
            let meta = file.metadata().map_err(fail)?;
            if meta.is_dir() {
                return Err(fail(io::ErrorKind::IsADirectory.into()));
            }
            progress.size = meta.len();
            Box::new(file)
        };
        let counted = Counted { inner: input, read: progress.read.clone() };
        let (mut input, is_compressed) = unpack(counted).map_err(fail)?;

        let mut start = Vec::new();
        (&mut input).take(32).read_to_end(&mut start).map_err(fail)?;
        if start.is_empty() {
            return Err(empty(path));
        }
        let looks = looks_like(&start);
        if !has_magic(&start) {
            (&mut input).take(LOOKED_AT).read_to_end(&mut start).map_err(fail)?;
        }
        let is_erf = !has_magic(&start) && erf::looks_like_erf(&start);
        let whole = Cursor::new(start).chain(input);
        let input: Box<dyn Read + Send> = if is_erf {
            Box::new(erf::AsPcapng::new(BufReader::with_capacity(BUFFER, whole)))
        } else {
            Box::new(whole)
        };
        Ok(Self { input, progress, is_compressed, looks })
    }
}

fn empty(path: &Path) -> FileError {
    FileError::Empty { path: path.to_owned() }
}

/// Is what begins as a section header one?
fn is_section(window: &mut Window) -> bool {
    let length = window.rest().get(4..8).and_then(<[u8]>::first_chunk).map_or(0, |octets| {
        let (little, big) = (u32::from_le_bytes(*octets), u32::from_be_bytes(*octets));
        // In its own order; the other way round it is far too long.
        little.min(big) as usize
    });
    // What cannot be read is not there.
    let _ = window.reach(length.min(BUFFER));
    parse_sectionheaderblock(window.rest()).is_ok()
}

/// Takes gzip or zstd off, by magic number; and whether there was any.
pub(super) fn unpack(mut input: Counted<Box<dyn Read + Send>>) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut magic = Vec::new();
    (&mut input).take(4).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(GZIP);
    let is_zstd = magic == ZSTD;
    let whole = Cursor::new(magic).chain(input);
    if is_gzip {
        return Ok((Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole))), true));
    }
    if is_zstd {
        let packed = BufReader::with_capacity(BUFFER, whole);
        let decoder = ruzstd::decoding::StreamingDecoder::new(packed).map_err(io::Error::other)?;
        return Ok((Box::new(decoder), true));
    }
    Ok((Box::new(whole), false))
}

/// Does it begin as pcap or pcapng does?
fn has_magic(start: &[u8]) -> bool {
    start.starts_with(SECTION) || legacy_link_type(start).is_some()
}

/// The link type of a classic pcap header, whatever its byte order.
fn legacy_link_type(start: &[u8]) -> Option<LinkType> {
    let word = |at: usize| start.get(at..)?.first_chunk::<4>().copied();
    let field = word(20)?;
    let number = match word(0)? {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => u32::from_le_bytes(field),
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => u32::from_be_bytes(field),
        _ => return None,
    };
    Some(LinkType::from_number(number.cast_signed() & LINK_TYPE))
}

/// What a person would say it is.
fn looks_like(start: &[u8]) -> String {
    let known: [(&[u8], &str); 11] = [
        (b"\n\r\r\n", "pcapng that ends inside its header"),
        (b"\xd4\xc3\xb2\xa1", "pcap that ends inside its header"),
        (b"\xa1\xb2\xc3\xd4", "pcap that ends inside its header"),
        (b"\x7fELF", "an ELF program"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\xfd7zXZ", "xz data"),
        (b"BZh", "bzip2 data"),
        (b"%PDF", "a PDF"),
        (b"{", "JSON"),
        (b"<", "XML or HTML"),
        (b"\x89PNG", "a picture"),
    ];
    if let Some((_, name)) = known.iter().find(|(magic, _)| start.starts_with(magic)) {
        return (*name).to_owned();
    }
    if start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return "text".to_owned();
    }
    let hex: Vec<_> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("unknown data ({})", hex.join(" "))
}
