//! One AF_XDP socket: memory registered, rings made, bound to a queue.
//!
//! The bind ladder is per interface, tried on its first queue; the other queues share that one's memory, and with it the
//! rung. Zero-copy, then copy; each first with frames of several chunks, which needs Linux 6.6 and, for zero-copy, the
//! driver. A rung that failed leaves a socket in an unknown state, so each gets a new one.
//!
//! # Minimum kernel version
//!
//! 5.10, for memory that sockets of different queues share.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use libc::{
    c_int, c_void, sockaddr_xdp, socklen_t, xdp_desc, xdp_mmap_offsets, xdp_statistics, xdp_umem_reg,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::mapped::Mapped;
use super::umem::Umem;

/// Of include/uapi/asm-generic/socket.h, and not in `libc` for every architecture.
const SO_BUSY_POLL: c_int = 46;
const SO_PREFER_BUSY_POLL: c_int = 69;
const SO_BUSY_POLL_BUDGET: c_int = 70;
/// Frames that one busy poll takes at most: what the kernel allows without CAP_NET_ADMIN, and a NAPI round.
const BUSY_POLL_BUDGET: c_int = 64;
/// The kernel wants a completion ring even of those that never send.
const COMPLETION_SLOTS: u32 = 2;

/// How a socket gets its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rung {
    /// Does the card write into our memory, or does the kernel copy?
    pub(crate) is_zero_copy: bool,
    /// May a frame take several chunks?
    pub(crate) takes_pieces: bool,
}

/// From the best to the one that always works.
pub(crate) const LADDER: [Rung; 4] = [
    Rung { is_zero_copy: true, takes_pieces: true },
    Rung { is_zero_copy: true, takes_pieces: false },
    Rung { is_zero_copy: false, takes_pieces: true },
    Rung { is_zero_copy: false, takes_pieces: false },
];

impl Rung {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match (self.is_zero_copy, self.takes_pieces) {
            (true, true) => "zero-copy, multi-buffer",
            (true, false) => "zero-copy",
            (false, true) => "copy, multi-buffer",
            (false, false) => "copy",
        }
    }

    fn flags(self) -> u16 {
        let copy = if self.is_zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let pieces = if self.takes_pieces { libc::XDP_USE_SG } else { 0 };
        copy | pieces | libc::XDP_USE_NEED_WAKEUP
    }
}

/// A step that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The step.
    pub(crate) step: Step,
    /// Its errno.
    pub(crate) error: io::Error,
}

/// The steps to a bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The socket itself.
    Open,
    /// Registering the memory, which pins it.
    Register,
    /// Making and mapping the rings.
    Rings,
    /// Binding to the queue.
    Bind,
    /// Setting busy polling.
    BusyPoll,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Index of the interface.
    pub(crate) ifindex: u32,
    /// Its receive queue.
    pub(crate) queue: u32,
    /// Slots of each ring: a power of two.
    pub(crate) slots: u32,
    /// How long a look at the socket may poll the driver; zero for not at all.
    pub(crate) busy_poll: Duration,
}

/// A bound socket's rings, and the socket, which whoever counts holds too.
pub(crate) struct Bound {
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) rx: Mapped<xdp_desc>,
    pub(crate) fill: Mapped<u64>,
}

/// Opens a socket that has the memory to itself, or shares `sharing`'s.
pub(crate) fn open(
    place: &Place,
    umem: &Umem,
    rung: Rung,
    sharing: Option<BorrowedFd<'_>>,
) -> Result<Bound, Refused> {
    let at = |step| move |error| Refused { step, error };
    // SAFETY: no pointers; the result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(at(Step::Open)(io::Error::last_os_error()));
    }
    // SAFETY: the kernel just returned it, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let fd = socket.as_fd();
    if sharing.is_none() {
        register(fd, umem).map_err(at(Step::Register))?;
    }
    for (option, slots) in [
        (libc::XDP_UMEM_FILL_RING, place.slots),
        (libc::XDP_UMEM_COMPLETION_RING, COMPLETION_SLOTS),
        (libc::XDP_RX_RING, place.slots),
    ] {
        set(fd, libc::SOL_XDP, option, &slots).map_err(at(Step::Rings))?;
    }
    let offsets: xdp_mmap_offsets = get(fd, libc::XDP_MMAP_OFFSETS).map_err(at(Step::Rings))?;
    let rx_page = libc::XDP_PGOFF_RX_RING.cast_unsigned();
    let rx = Mapped::new(fd, rx_page, place.slots, &offsets.rx).map_err(at(Step::Rings))?;
    let fill =
        Mapped::new(fd, libc::XDP_UMEM_PGOFF_FILL_RING, place.slots, &offsets.fr).map_err(at(Step::Rings))?;
    if !place.busy_poll.is_zero() {
        prefer_busy_poll(fd, place.busy_poll).map_err(at(Step::BusyPoll))?;
    }
    bind(fd, place, rung, sharing).map_err(at(Step::Bind))?;
    Ok(Bound { socket: Arc::new(socket), rx, fill })
}

fn register(socket: BorrowedFd<'_>, umem: &Umem) -> io::Result<()> {
    let chunk_size = u32::try_from(umem.chunk_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let area = xdp_umem_reg {
        addr: umem.start(),
        len: umem.bytes() as u64,
        chunk_size,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &area)
}

fn bind(
    socket: BorrowedFd<'_>,
    place: &Place,
    rung: Rung,
    sharing: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let family = u16::try_from(libc::AF_XDP).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut address = sockaddr_xdp {
        sxdp_family: family,
        sxdp_flags: rung.flags(),
        sxdp_ifindex: place.ifindex,
        sxdp_queue_id: place.queue,
        sxdp_shared_umem_fd: 0,
    };
    if let Some(first) = sharing {
        // The rung is the first one's: the kernel refuses to be told again.
        address.sxdp_flags = libc::XDP_SHARED_UMEM;
        address.sxdp_shared_umem_fd = first.as_raw_fd().cast_unsigned();
    }
    // SAFETY: `address` is initialised and as long as it says.
    let result =
        unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<sockaddr_xdp>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the driver polled by whoever looks at the socket, instead of by interrupts. Linux 5.11.
fn prefer_busy_poll(socket: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let micros = c_int::try_from(time.as_micros()).unwrap_or(c_int::MAX);
    set(socket, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1_i32)?;
    set(socket, libc::SOL_SOCKET, SO_BUSY_POLL, &micros)?;
    set(socket, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &BUSY_POLL_BUDGET)
}

/// Tells the kernel that the fill ring was refilled, or with busy polling lets it look for frames.
pub(crate) fn wake(socket: BorrowedFd<'_>) {
    // SAFETY: nothing is to be received; AF_XDP only takes the call as a hint. Nobody could act on an error: what does
    // not come is counted where it is lost.
    let _ = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

/// Waits until one of the sockets has a frame, or the time is over.
pub(crate) fn wait<'a>(
    sockets: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: Duration,
) -> rustix::io::Result<()> {
    let mut all: Vec<_> = sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    poll(&mut all, Some(&timeout))?;
    Ok(())
}

/// What the kernel counted for a socket.
pub(crate) fn statistics(socket: BorrowedFd<'_>) -> io::Result<xdp_statistics> {
    get(socket, libc::XDP_STATISTICS)
}

fn set<T>(socket: BorrowedFd<'_>, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is initialised and as long as it says.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast::<c_void>(),
            length_of::<T>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An option of SOL_XDP. `T` is one of the kernel's structures of integers; an older kernel's is refused.
fn get<T>(socket: BorrowedFd<'_>, option: c_int) -> io::Result<T> {
    let mut value = mem::MaybeUninit::<T>::zeroed();
    let mut length = length_of::<T>();
    // SAFETY: `value` is writable for the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if length != length_of::<T>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: zeroed before, written by the kernel, and made of integers.
    Ok(unsafe { value.assume_init() })
}

#[expect(clippy::cast_possible_truncation, reason = "structures of a few bytes")]
fn length_of<T>() -> socklen_t {
    mem::size_of::<T>() as socklen_t
}
