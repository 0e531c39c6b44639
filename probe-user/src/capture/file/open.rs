//! Opening: where the bytes are, how they are packed, and whether they are a capture at all.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use pcap_parser::{PcapError, create_reader};

use super::{BUFFER, Counted, FileError, Frames, LINK_TYPE, LinkType, Progress, erf};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Bytes of a file without a magic number that are looked at, to tell what it is.
const LOOKED_AT: u64 = 64 << 10;

impl Frames {
    /// Opens a capture file; `-` is standard input.
    ///
    /// # Errors
    /// If there is nothing to read in it: see [`FileError`]. A pcap file of an unreadable link type is one; in
    /// pcapng such interfaces are skipped and counted.
    pub fn open(path: &Path) -> Result<Self, FileError> {
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
        let mut input = unpack(BufReader::with_capacity(BUFFER, counted)).map_err(fail)?;

        let mut start = Vec::new();
        (&mut input).take(32).read_to_end(&mut start).map_err(fail)?;
        if start.is_empty() {
            return Err(FileError::Empty { path: path.to_owned() });
        }
        let looks = looks_like(&start);
        let link = legacy_link_type(&start);
        if !has_magic(&start) {
            (&mut input).take(LOOKED_AT).read_to_end(&mut start).map_err(fail)?;
        }
        let is_erf = !has_magic(&start) && erf::looks_like_erf(&start);
        let whole = Cursor::new(start).chain(input);
        let whole: Box<dyn Read + Send> =
            if is_erf { Box::new(erf::AsPcapng::new(whole)) } else { Box::new(whole) };
        let reader = match create_reader(BUFFER, Full { input: whole, failed: None }) {
            Ok(reader) => reader,
            Err(PcapError::HeaderNotRecognized | PcapError::Eof) => {
                return Err(FileError::NotACapture { path: path.to_owned(), looks });
            }
            Err(PcapError::ReadError) => {
                return Err(fail(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the compressed data is damaged",
                )));
            }
            Err(_) => return Err(FileError::Header { path: path.to_owned() }),
        };
        if let Some(LinkType::Other(number)) = link {
            return Err(FileError::LinkType { path: path.to_owned(), number });
        }
        Ok(Self::new(reader, progress))
    }
}

/// Takes gzip or zstd off, by magic number.
pub(super) fn unpack(
    mut input: BufReader<Counted<Box<dyn Read + Send>>>,
) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::new();
    (&mut input).take(4).read_to_end(&mut magic)?;
    let is_gzip = magic.starts_with(GZIP);
    let is_zstd = magic == ZSTD;
    let whole = Cursor::new(magic).chain(input);
    if is_gzip {
        return Ok(Box::new(MultiGzDecoder::new(whole)));
    }
    if is_zstd {
        let decoder = ruzstd::decoding::StreamingDecoder::new(whole).map_err(io::Error::other)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

/// Does it begin as pcap or pcapng does?
fn has_magic(start: &[u8]) -> bool {
    const SECTION: &[u8] = &[0x0a, 0x0d, 0x0d, 0x0a];
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

/// Reads until the buffer is full or the input ends. The parser takes a short read for "no more for now".
struct Full<R> {
    input: R,
    /// What went wrong after something was read: that counts first. A decoder tells of a wrong checksum once.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Full<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }
}
