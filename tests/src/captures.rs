//! Capture files for tests, in every format and both byte orders, and the real ones that lie beside the project.
//!
//! ```text
//!   Writer { big_endian: true, ..Writer::PCAP_NG }.file(&[(time_ns, udp().ethernet())])
//! ```
//!
//! Frames are built by [`crate::frames`]. Everything is deterministic: the same calls give the same bytes.

use std::path::{Path, PathBuf};

use crate::privileges::skipped;

/// The captures that lie beside the project, or where `VOXPROBE_SHARED_CAPTURES` says; `None`, said loudly, if
/// they are not there.
///
/// # Panics
/// If the variable names no folder: who sets it wants the comparison.
pub fn shared_captures() -> Option<PathBuf> {
    const VARIABLE: &str = "VOXPROBE_SHARED_CAPTURES";
    if let Some(named) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        assert!(named.is_dir(), "{VARIABLE}: {} is no folder", named.display());
        return Some(named);
    }
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures");
    if beside.is_dir() {
        return Some(beside);
    }
    // A test's thread has the test's name.
    let thread = std::thread::current();
    skipped(
        thread.name().unwrap_or("comparison"),
        &format!("../shared/captures is not there, so nothing was compared with real captures ({VARIABLE})"),
    );
    None
}

/// All pcap and pcapng files below a folder, sorted.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    files_with(folder, &["pcap", "pcapng", "cap"])
}

/// All files below a folder whose names end like this, sorted.
pub fn files_with(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, extensions));
        } else if path.extension().is_some_and(|kind| extensions.iter().any(|known| kind == *known)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A frame and when it was captured, in nanoseconds since 1970.
pub type Timed = (u64, Vec<u8>);

/// File formats that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic, microseconds.
    Micros,
    /// Classic, nanoseconds.
    Nanos,
    /// pcapng, enhanced packet blocks, nanoseconds.
    Enhanced,
    /// pcapng, obsolete packet blocks, nanoseconds.
    Obsolete,
}

/// How to write a capture file.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    /// Format.
    pub format: Format,
    /// Byte order.
    pub big_endian: bool,
    /// Link type by number.
    pub link: u16,
}

impl Writer {
    /// Classic pcap as tcpdump writes it here.
    pub const PCAP: Self = Self { format: Format::Micros, big_endian: false, link: 1 };
    /// pcapng with nanoseconds.
    pub const PCAP_NG: Self = Self { format: Format::Enhanced, big_endian: false, link: 1 };

    /// The bytes of a file with these frames.
    pub fn file(&self, frames: &[Timed]) -> Vec<u8> {
        let mut file = match self.format {
            Format::Micros | Format::Nanos => self.classic_header(),
            Format::Enhanced | Format::Obsolete => {
                [self.section(), self.interface("tap0", Some(9), None, 0)].concat()
            }
        };
        for (time_ns, frame) in frames {
            file.extend(match self.format {
                Format::Micros => {
                    self.classic(time_ns / 1_000_000_000, time_ns % 1_000_000_000 / 1000, frame)
                }
                Format::Nanos => self.classic(time_ns / 1_000_000_000, time_ns % 1_000_000_000, frame),
                Format::Enhanced => self.enhanced(0, *time_ns, frame),
                Format::Obsolete => self.obsolete(0, *time_ns, frame),
            });
        }
        file
    }

    /// A classic file header.
    pub fn classic_header(&self) -> Vec<u8> {
        let magic = if self.format == Format::Nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let version = [self.short(2), self.short(4)].concat();
        let rest: Vec<u8> =
            [0, 0, 262_144, u64::from(self.link)].iter().flat_map(|n| self.word(*n)).collect();
        [self.word(magic).to_vec(), version, rest].concat()
    }

    /// A classic record; `fraction` in the unit of the format.
    pub fn classic(&self, seconds: u64, fraction: u64, frame: &[u8]) -> Vec<u8> {
        let length = frame.len() as u64;
        let header = [seconds, fraction, length, length].map(|n| self.word(n)).concat();
        [header, frame.to_vec()].concat()
    }

    /// A section header block of unknown length.
    pub fn section(&self) -> Vec<u8> {
        let body = [self.word(0x1a2b_3c4d).to_vec(), [self.short(1), self.short(0)].concat(), vec![0xff; 8]];
        self.block(0x0a0d_0d0a, &body.concat())
    }

    /// An interface description block; `resolution` and `offset_s` as in its options.
    pub fn interface(
        &self,
        name: &str,
        resolution: Option<u8>,
        offset_s: Option<i64>,
        snap_len: u64,
    ) -> Vec<u8> {
        let mut body = [self.short(self.link), self.short(0)].concat();
        body.extend(self.word(snap_len));
        body.extend(self.option(2, name.as_bytes()));
        if let Some(resolution) = resolution {
            body.extend(self.option(9, &[resolution]));
        }
        if let Some(offset) = offset_s {
            let offset = if self.big_endian { offset.to_be_bytes() } else { offset.to_le_bytes() };
            body.extend(self.option(14, &offset));
        }
        body.extend([0; 4]);
        self.block(1, &body)
    }

    /// An enhanced packet block; `ticks` in the unit of its interface.
    pub fn enhanced(&self, interface: u32, ticks: u64, frame: &[u8]) -> Vec<u8> {
        self.block(6, &[self.word(u64::from(interface)).to_vec(), self.timed(ticks, frame)].concat())
    }

    /// An obsolete packet block.
    pub fn obsolete(&self, interface: u16, ticks: u64, frame: &[u8]) -> Vec<u8> {
        self.block(2, &[self.short(interface).to_vec(), vec![0xff; 2], self.timed(ticks, frame)].concat())
    }

    /// A simple packet block of a frame that was `wire_len` bytes long.
    pub fn simple(&self, wire_len: u64, captured: &[u8]) -> Vec<u8> {
        self.block(3, &[self.word(wire_len).to_vec(), padded(captured)].concat())
    }

    fn timed(self, ticks: u64, frame: &[u8]) -> Vec<u8> {
        let length = frame.len() as u64;
        let header = [ticks >> 32, ticks & 0xffff_ffff, length, length].map(|n| self.word(n)).concat();
        [header, padded(frame)].concat()
    }

    fn block(self, kind: u64, body: &[u8]) -> Vec<u8> {
        let length = self.word(body.len() as u64 + 12);
        [&self.word(kind)[..], &length, body, &length].concat()
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        [self.short(code).to_vec(), self.short(length).to_vec(), padded(value)].concat()
    }

    fn short(self, n: u16) -> [u8; 2] {
        if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    }

    fn word(self, n: u64) -> [u8; 4] {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        if self.big_endian { n.to_be_bytes() } else { n.to_le_bytes() }
    }
}

/// To a multiple of four.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A directory for the files of one test, which goes when the test ends.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory; `name` tells tests of one process apart.
    pub fn new(name: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("voxprobe-files-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it.
    pub fn file(&self, name: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
