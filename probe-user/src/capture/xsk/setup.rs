//! A socket for every queue of every interface, and what it means if there is none.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use aya::maps::{MapData, MapError, XskMap};
use probe_ebpf::config::{MAX_QUEUES, socket_slot};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::MirrorOptions;
use super::reader::{Endowed, MirrorReader};
use super::socket::{self, LADDER, Place, Refused, Step};
use super::umem::Umem;
use crate::capture::live::{LiveError, Rung, SocketLosses, Tap, diagnose};

/// Room that the kernel leaves before a frame (XDP_PACKET_HEADROOM).
const HEADROOM: usize = 256;
/// Ethernet header and two tags.
const LINK_HEADERS: usize = 14 + 8;

/// The sockets, for whoever counts. They stay open until this is dropped, so that the counts outlive the reader.
pub(crate) struct Sockets {
    open: Vec<Arc<OwnedFd>>,
    /// Where the program looks for them.
    map: XskMap<MapData>,
    /// Where in it each is.
    slots: Vec<u32>,
}

/// Opens a socket for every queue of `taps`. Nothing comes before [`Sockets::connect`].
pub(crate) fn open(
    taps: &[Tap],
    options: MirrorOptions,
    snap: usize,
    map: XskMap<MapData>,
    ladder: &mut Vec<Rung>,
) -> Result<(MirrorReader, Sockets), LiveError> {
    if let Some(chunks) = options.chunks.filter(|chunks| !chunks.is_power_of_two()) {
        return Err(LiveError::Chunks { chunks });
    }
    let mut sockets = Sockets { open: Vec::new(), map, slots: Vec::new() };
    let mut endowed = Vec::new();
    for (index, tap) in (0_u8..).zip(taps) {
        let first = endowed.len();
        open_interface(tap, options, &mut endowed, ladder)?;
        for (queue, endowed) in (0..).zip(endowed.iter().skip(first)) {
            sockets.open.push(Arc::clone(&endowed.bound.socket));
            sockets.slots.extend(socket_slot(index, queue));
        }
    }
    Ok((MirrorReader::new(endowed, snap, !options.busy_poll.is_zero()), sockets))
}

impl Sockets {
    /// Shows the program all sockets: from now on frames come.
    pub(crate) fn connect(&mut self) -> Result<(), LiveError> {
        for (socket, &slot) in self.open.iter().zip(&self.slots) {
            self.map.set(slot, socket.as_raw_fd(), 0).map_err(|error| cannot_connect(slot, &error))?;
        }
        Ok(())
    }

    /// What the kernel lost on the way into the sockets, all together.
    pub(crate) fn losses(&self) -> Result<SocketLosses, LiveError> {
        let mut sum = SocketLosses::default();
        for socket in &self.open {
            let counted = socket::statistics(socket.as_fd()).map_err(|error| LiveError::Refused {
                act: "cannot read the statistics of an AF_XDP socket".into(),
                diagnosis: diagnose::refusal(&error),
                error,
            })?;
            sum.dropped += counted.rx_dropped;
            sum.ring_full += counted.rx_ring_full;
            sum.fill_ring_empty += counted.rx_fill_ring_empty_descs;
        }
        Ok(sum)
    }
}

/// All queues of one interface, on the first rung that works for the first of them.
fn open_interface(
    tap: &Tap,
    options: MirrorOptions,
    endowed: &mut Vec<Endowed>,
    ladder: &mut Vec<Rung>,
) -> Result<(), LiveError> {
    let (queues, most) = (queues(&tap.name).unwrap_or(1), MAX_QUEUES as usize);
    if queues > most {
        return Err(LiveError::TooManyQueues { interface: tap.name.clone(), queues, most });
    }
    let slots = options.chunks_of(queues);
    let chunks = slots as usize;
    let umem = Umem::new(queues * chunks, chunk_bytes(tap.mtu)).map_err(|error| LiveError::Refused {
        act: format!(
            "cannot map {} KiB for the frames of {}",
            queues * chunks * chunk_bytes(tap.mtu) / 1024,
            tap.name
        ),
        diagnosis: "use fewer --frames".into(),
        error,
    })?;
    let umem = Arc::new(umem);
    let place = |queue| Place { ifindex: tap.index, queue, slots, busy_poll: options.busy_poll };
    let own = |queue: usize| umem.chunks(queue * chunks, chunks).collect();

    let mut rungs = LADDER.iter();
    let (rung, first) = loop {
        let Some(&rung) = rungs.next() else { return Err(LiveError::NoRung { interface: tap.name.clone() }) };
        let what = format!("{}: AF_XDP, {}", tap.name, rung.name());
        match socket::open(&place(0), &umem, rung, None) {
            Ok(bound) => {
                let noun = if queues == 1 { "queue" } else { "queues" };
                let outcome = format!(
                    "{queues} {noun} x {chunks} frames of {} bytes, {} KiB {}",
                    umem.chunk_bytes(),
                    umem.bytes() / 1024,
                    umem.pages()
                );
                ladder.push(Rung { what, outcome, ok: true });
                break (rung, bound);
            }
            Err(refused) if refused.step == Step::Bind && is_next_rung_worth(&refused.error) => {
                ladder.push(Rung { what, outcome: refused.error.to_string(), ok: false });
            }
            Err(refused) => return Err(explain(tap, 0, &umem, refused)),
        }
    };
    let sharing = Arc::clone(&first.socket);
    endowed.push(Endowed { bound: first, umem: Arc::clone(&umem), chunks: own(0) });
    for (queue, number) in (1..queues).zip(1..) {
        let bound = socket::open(&place(number), &umem, rung, Some(sharing.as_fd()))
            .map_err(|refused| explain(tap, number, &umem, refused))?;
        endowed.push(Endowed { bound, umem: Arc::clone(&umem), chunks: own(queue) });
    }
    Ok(())
}

/// The smallest chunk that holds a whole frame, or a page: longer frames take several.
fn chunk_bytes(mtu: u32) -> usize {
    let whole = HEADROOM + LINK_HEADERS + mtu as usize;
    if whole <= 2_048 { 2_048 } else { rustix::param::page_size() }
}

/// Is it the rung that was refused, not the place?
fn is_next_rung_worth(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::BUSY | Errno::PERM | Errno::ACCESS | Errno::NODEV | Errno::NETDOWN)
    )
}

/// What a refusal means.
fn explain(tap: &Tap, queue: u32, umem: &Umem, refused: Refused) -> LiveError {
    let Refused { step, error } = refused;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let interface = tap.name.clone();
    if step == Step::Bind && errno == Some(Errno::BUSY) {
        return LiveError::QueueBusy { interface, queue };
    }
    let (act, diagnosis) = match (step, errno) {
        (Step::Open, Some(Errno::AFNOSUPPORT)) => (
            "open",
            "this kernel was built without AF_XDP (CONFIG_XDP_SOCKETS): leave --mode mirror out".into(),
        ),
        (Step::Open, _) => ("open", diagnose::socket_capability()),
        (Step::Register, Some(Errno::NOBUFS)) => ("register the memory of", memory_lock(umem.bytes())),
        (Step::Register, _) => ("register the memory of", diagnose::refusal(&error)),
        (Step::Rings, _) => ("make the rings of", "use fewer --frames".into()),
        (Step::Bind, Some(Errno::NETDOWN)) => {
            ("bind", format!("{interface} is down: `ip link set {interface} up`"))
        }
        (Step::Bind, _) => ("bind", diagnose::refusal(&error)),
        (Step::BusyPoll, _) => ("set busy polling of", "it needs Linux 5.11: leave --busy-poll out".into()),
    };
    LiveError::Refused {
        act: format!("cannot {act} the AF_XDP socket of {interface} queue {queue}"),
        error,
        diagnosis,
    }
}

/// The kernel counts pinned memory against RLIMIT_MEMLOCK of all who lack CAP_IPC_LOCK.
fn memory_lock(needed: usize) -> String {
    let limit = getrlimit(Resource::Memlock)
        .current
        .map_or("unlimited".into(), |bytes| format!("{} KiB", bytes / 1024));
    format!(
        "{} KiB are needed in locked memory, RLIMIT_MEMLOCK is {limit}: raise it (`ulimit -l`, LimitMEMLOCK= of \
         systemd), give the binary cap_ipc_lock, or use fewer --frames",
        needed / 1024
    )
}

fn cannot_connect(slot: u32, error: &MapError) -> LiveError {
    LiveError::Object {
        act: format!("cannot put an AF_XDP socket into slot {slot} of the BPF map"),
        reason: error.to_string(),
    }
}

/// Receive queues in use, by ethtool. `None` where the driver does not tell: then there is one.
fn queues(interface: &str) -> Option<usize> {
    /// Of include/uapi/linux/ethtool.h: kernel contracts, and not in `libc`.
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        most: [u32; 4],
        receiving: u32,
        sending: u32,
        other: u32,
        combined: u32,
    }

    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).ok()?;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        // Signed or not, as the architecture has it.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: `request` and the `channels` it points to live until the call returns; the kernel writes only there.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    let count = channels.receiving.saturating_add(channels.combined) as usize;
    (result == 0 && count > 0).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_holds_a_whole_frame_of_the_usual_mtu_and_a_page_at_most() {
        assert_eq!((chunk_bytes(1_500), chunk_bytes(1_770)), (2_048, 2_048));
        assert_eq!(chunk_bytes(1_771), rustix::param::page_size());
        assert_eq!(chunk_bytes(9_000), rustix::param::page_size());
    }

    #[test]
    fn a_refusal_of_locked_memory_names_the_limit_and_the_need() {
        let text = memory_lock(32 << 20);
        assert!(text.contains("32768 KiB") && text.contains("RLIMIT_MEMLOCK"), "{text}");
    }

    #[test]
    fn a_taken_queue_is_no_reason_for_the_next_rung() {
        let errno = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!(is_next_rung_worth(&errno(Errno::OPNOTSUPP)) && is_next_rung_worth(&errno(Errno::INVAL)));
        assert!(!is_next_rung_worth(&errno(Errno::BUSY)));
    }
}
