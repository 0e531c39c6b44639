//! Memory in the largest pages that can be had.
//!
//! | tried | what it takes |
//! |---|---|
//! | huge pages that are set aside | `sysctl vm.nr_hugepages`; nobody else gets them |
//! | transparent huge pages | `/sys/kernel/mm/transparent_hugepage/enabled` not `never`, and memory that is not in pieces |
//! | ordinary pages | nothing |
//!
//! The second is advice, and the kernel does not say what came of it; so it is looked up afterwards.
//!
//! # Minimum kernel version
//!
//! 5.14, for `MADV_POPULATE_WRITE`.

use std::ffi::c_void;
use std::fmt;
use std::fs;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A huge page of x86-64, and of most others.
const HUGE: usize = 2 << 20;

/// Zeroed memory, all of it there already: the data path shall meet no fault.
pub(crate) struct Area {
    mapping: NonNull<c_void>,
    mapped_bytes: usize,
    start: NonNull<c_void>,
    bytes: usize,
    pages: Pages,
}

/// What pages an area is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// Huge ones, set aside for whoever asks.
    SetAside,
    /// So many bytes of it, all or some or none, in transparent huge pages, which the kernel makes where it can.
    Transparent { bytes: usize, of: usize },
}

impl Area {
    /// At least so many bytes: whole huge pages.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.checked_next_multiple_of(HUGE).ok_or(io::ErrorKind::InvalidInput)?;
        match map(bytes, MapFlags::HUGETLB | MapFlags::POPULATE) {
            Ok(start) => {
                Ok(Self { mapping: start, mapped_bytes: bytes, start, bytes, pages: Pages::SetAside })
            }
            Err(_) => Self::transparent(bytes),
        }
    }

    fn transparent(bytes: usize) -> io::Result<Self> {
        // Before Linux 6.7 nothing aligns a mapping for huge pages: one more is mapped, never to be touched.
        let mapped_bytes = bytes.checked_add(HUGE).ok_or(io::ErrorKind::InvalidInput)?;
        let mapping = map(mapped_bytes, MapFlags::empty())?;
        let skipped = mapping.addr().get().next_multiple_of(HUGE) - mapping.addr().get();
        // SAFETY: less than HUGE is skipped, and the mapping is HUGE longer than the area.
        let start = unsafe { mapping.byte_add(skipped) };
        let mut area =
            Self { mapping, mapped_bytes, start, bytes, pages: Pages::Transparent { bytes: 0, of: bytes } };
        // SAFETY: inside of the mapping, and the advice changes nothing in it. A kernel without huge pages refuses.
        let _ = unsafe { madvise(start.as_ptr(), bytes, Advice::LinuxHugepage) };
        // SAFETY: inside of the mapping, which holds only zeros.
        unsafe { madvise(start.as_ptr(), bytes, Advice::LinuxPopulateWrite) }?;
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let huge = huge_bytes_at(&smaps, start.addr().get());
        area.pages = Pages::Transparent { bytes: huge.min(bytes), of: bytes };
        Ok(area)
    }

    /// Its first byte.
    pub(crate) fn start(&self) -> NonNull<c_void> {
        self.start
    }

    /// Bytes of it.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it is in.
    pub(crate) fn pages(&self) -> Pages {
        self.pages
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: ours since `new`, and no reference into it outlives `self`. A failure could only leak.
        let _ = unsafe { munmap(self.mapping.as_ptr(), self.mapped_bytes) };
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SetAside => out.write_str("in huge pages"),
            Self::Transparent { bytes: 0, .. } => out.write_str("in ordinary pages"),
            Self::Transparent { bytes, of } if bytes == of => out.write_str("in transparent huge pages"),
            Self::Transparent { bytes, .. } => {
                write!(out, "of which {} in transparent huge pages", bytes / 1024)
            }
        }
    }
}

fn map(bytes: usize, flags: MapFlags) -> io::Result<NonNull<c_void>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint lets the kernel choose an address where nothing of ours is.
    let start = unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, flags | MapFlags::PRIVATE) }?;
    NonNull::new(start).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Bytes in transparent huge pages of the mapping around `address`, by proc(5)'s `smaps`: a line of hexadecimal bounds, then
/// lines of names and kilobytes.
fn huge_bytes_at(smaps: &str, address: usize) -> usize {
    let is_around = |line: &&str| {
        let bounds = line.split(' ').next().and_then(|bounds| bounds.split_once('-'));
        let [begin, end] = bounds.map_or([Err(()); 2], |(begin, end)| {
            [begin, end].map(|bound| usize::from_str_radix(bound, 16).map_err(drop))
        });
        begin.is_ok_and(|begin| begin <= address) && end.is_ok_and(|end| address < end)
    };
    let kilobytes = smaps
        .lines()
        .skip_while(|line| !is_around(line))
        .find_map(|line| line.strip_prefix("AnonHugePages:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_whole_huge_pages_of_zeros_at_the_boundary_of_one() {
        let area = Area::new(HUGE + 1).unwrap();
        assert_eq!((area.bytes(), area.start().addr().get() % HUGE), (2 * HUGE, 0));
        // SAFETY: as many bytes as the area has, nobody else's.
        let bytes = unsafe { std::slice::from_raw_parts(area.start().cast::<u8>().as_ptr(), area.bytes()) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_than_there_is_address_space_is_refused() {
        assert!(Area::new(usize::MAX).is_err());
        assert!(Area::new(usize::MAX / 4).is_err());
    }

    #[test]
    fn what_pages_it_is_in_is_said() {
        let of = 32 << 20;
        assert_eq!(Pages::SetAside.to_string(), "in huge pages");
        assert_eq!(Pages::Transparent { bytes: 0, of }.to_string(), "in ordinary pages");
        assert_eq!(Pages::Transparent { bytes: of, of }.to_string(), "in transparent huge pages");
        let some = Pages::Transparent { bytes: 30 << 20, of };
        assert_eq!(some.to_string(), "of which 30720 in transparent huge pages");
    }

    #[test]
    fn the_mapping_around_an_address_tells_its_own_huge_pages() {
        let smaps = "7f0000000000-7f0000200000 rw-p 00000000 00:00 0\nSize: 2048 kB\nAnonHugePages:      2048 kB\n\
                     7f0000400000-7f0000a00000 rw-p 00000000 00:00 0  [heap]\nAnonHugePages:      4096 kB\n\
                     VmFlags: rd wr\n";
        assert_eq!(huge_bytes_at(smaps, 0x7f00_0000_0000), 2 << 20);
        assert_eq!(huge_bytes_at(smaps, 0x7f00_0090_0000), 4 << 20);
        assert_eq!(huge_bytes_at(smaps, 0x7f00_00a0_0000), 0);
        assert_eq!(huge_bytes_at("", 0x7f00_0000_0000), 0);
    }
}
