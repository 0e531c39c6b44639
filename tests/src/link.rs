//! What neither `ip` nor the standard library can do: ethtool's switches, raw frames, numbered datagrams.
//!
//! The only module of the lab with `unsafe`: each call is one ioctl or one packet-socket call of `libc`.

use std::ffi::CString;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// From include/uapi/linux/ethtool.h; a kernel contract, and not in `libc`.
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// `libc` has them in the width of other calls.
const AF_PACKET: u16 = 17;
const ETH_P_ALL: u16 = 0x0003;

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Makes the sender compute checksums and segment, in the calling thread's namespace.
pub fn finish_checksums(interface: &str) -> Result<()> {
    for (command, what) in
        [(ETHTOOL_STSO, "TCP segmentation"), (ETHTOOL_SGSO, "segmentation"), (ETHTOOL_STXCSUM, "checksum")]
    {
        switch_off(interface, command)
            .with_context(|| format!("cannot switch {what} offload of {interface} off"))?;
    }
    Ok(())
}

fn switch_off(interface: &str, command: u32) -> Result<()> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    let socket = owned(raw)?;
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: `request` and the `value` it points to live until the call returns; the kernel writes only there.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

/// Binds a socket whose datagrams may be fragmented, and so are numbered in the IP header as those of most
/// phones are. By default Linux forbids fragmentation and leaves the number of an unconnected socket zero.
pub fn bind_numbered(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))?;
    if address.is_ipv4() {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
            .with_context(|| format!("cannot allow fragments from {address}"))?;
    }
    Ok(socket)
}

/// A packet socket on one interface: frames in and out, with their link-layer headers.
#[derive(Debug)]
pub struct RawSocket {
    socket: OwnedFd,
}

impl RawSocket {
    /// Sees every frame of `interface`, in the calling thread's namespace.
    pub fn reader(interface: &str) -> Result<Self> {
        Self::open(interface, ETH_P_ALL)
    }

    /// Sees none, and so never fills its queue.
    pub fn writer(interface: &str) -> Result<Self> {
        Self::open(interface, 0)
    }

    fn open(interface: &str, protocol: u16) -> Result<Self> {
        let name = CString::new(interface).context("an interface's name holds no zero byte")?;
        // SAFETY: `name` is a terminated string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("no interface {interface}"));
        }
        // Protocol 0: nothing is delivered before the socket is bound to its interface.
        // SAFETY: no pointers; the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        let socket = owned(raw).context("cannot open a packet socket (needs CAP_NET_RAW)")?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)
            .context("cannot enlarge the packet socket's buffer")?;

        // SAFETY: sockaddr_ll is plain data for which all zeroes is valid.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = AF_PACKET;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = index.cast_signed();
        // SAFETY: `address` is initialised and as long as it says.
        let result = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of::<libc::sockaddr_ll>())
        };
        if result < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("cannot bind to {interface}"));
        }
        Ok(Self { socket })
    }

    /// After this long without a frame, reading gives up for now.
    pub fn set_timeout(&self, timeout: Duration) -> Result<()> {
        let value = libc::timeval {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_usec: i64::from(timeout.subsec_micros()),
        };
        // SAFETY: `value` is initialised and as long as it says.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const value).cast(),
                length_of::<libc::timeval>(),
            )
        };
        if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
    }

    /// The next frame that this host sends by the interface; its length.
    pub fn receive_outgoing(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
            let mut address_len = length_of::<libc::sockaddr_ll>();
            // SAFETY: `frame` and `address` are writable for the lengths given.
            let length = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    address.as_mut_ptr().cast(),
                    &raw mut address_len,
                )
            };
            let Ok(length) = usize::try_from(length) else {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(None),
                    io::ErrorKind::Interrupted => continue,
                    _ => Err(error),
                };
            };
            // SAFETY: zeroed before, and the kernel wrote a sockaddr_ll over it.
            let address = unsafe { address.assume_init() };
            if address.sll_pkttype == libc::PACKET_OUTGOING {
                return Ok(Some(length));
            }
        }
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: `frame` is readable for its length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "structures of a few bytes")]
fn length_of<T>() -> libc::socklen_t {
    mem::size_of::<T>() as libc::socklen_t
}

fn owned(raw: libc::c_int) -> io::Result<OwnedFd> {
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` is initialised and as long as it says.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length_of::<libc::c_int>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
