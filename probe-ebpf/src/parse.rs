//! From the first bytes of a frame to the offsets and fields that a verdict needs.
//!
//! Offsets are relative to the start of the byte source. Lengths that a header claims are never trusted
//! beyond the bytes that are there: a field either loads or the frame is refused.

/// A frame, or as much of it as can be read directly.
///
/// Multi-byte loads are big-endian. `None` means that the bytes are not there.
pub trait Bytes {
    /// One byte.
    fn be8(&self, offset: usize) -> Option<u8>;
    /// Two bytes.
    fn be16(&self, offset: usize) -> Option<u16>;
    /// Four bytes.
    fn be32(&self, offset: usize) -> Option<u32>;

    /// A whole header: `N` bytes, with one check instead of one for each field.
    fn header<const N: usize>(&self, offset: usize) -> Option<impl Header>;

    /// Are all bytes before `end` there?
    fn reaches(&self, end: usize) -> bool;

    /// `offset`, with its history forgotten. Identity, but the kernel's byte source uses it to tell the
    /// verifier that paths which differ only in this number are one path; else six optional headers of five
    /// kinds each would be walked in every combination. Offsets passed here stay below [`FORGOTTEN`].
    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        offset
    }
}

/// Bound of what [`Bytes::forget`] is given: `LONGEST_HEADERS`, inside of a tunnel too.
pub const FORGOTTEN: usize = 16_384;

/// The most that the parser steps over: two VLAN tags, an IPv6 header and six extension headers of 2,048 bytes.
pub(crate) const LONGEST_HEADERS: usize = 22 + 40 + MAX_EXTENSIONS * 2_048;

/// Fields of a header that is there, by their offsets in it; big-endian.
pub trait Header {
    /// One byte.
    fn be8<const AT: usize>(&self) -> u8;
    /// Two bytes.
    fn be16<const AT: usize>(&self) -> u16;
    /// Four bytes.
    fn be32<const AT: usize>(&self) -> u32;
}

impl<const N: usize> Header for &[u8; N] {
    #[inline(always)]
    fn be8<const AT: usize>(&self) -> u8 {
        let [byte] = field::<1, AT, N>(self);
        byte
    }

    #[inline(always)]
    fn be16<const AT: usize>(&self) -> u16 {
        u16::from_be_bytes(field::<2, AT, N>(self))
    }

    #[inline(always)]
    fn be32<const AT: usize>(&self) -> u32 {
        u32::from_be_bytes(field::<4, AT, N>(self))
    }
}

/// The assertion makes the zeros impossible; they stand where a panic would.
#[inline(always)]
fn field<const LEN: usize, const AT: usize, const N: usize>(header: &[u8; N]) -> [u8; LEN] {
    const { assert!(AT + LEN <= N) };
    header.get(AT..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; LEN])
}

impl Bytes for [u8] {
    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<impl Header> {
        self.get(offset..)?.first_chunk::<N>()
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        end <= self.len()
    }

    #[inline(always)]
    fn be8(&self, offset: usize) -> Option<u8> {
        self.get(offset).copied()
    }

    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.get(offset..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
    }

    #[inline(always)]
    fn be32(&self, offset: usize) -> Option<u32> {
        self.get(offset..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
    }
}

/// Why a frame has no usable layers. Each is a verdict of its own, so none hides in another's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The frame ends inside a header that it announced.
    Truncated,
    /// Neither IPv4 nor IPv6 under at most two VLAN tags, nor what comes next.
    NotIp,
    /// MPLS or a PPPoE session under at most two VLAN tags: what is inside, the tunnel's own headers tell.
    Labelled,
    /// A version or length field contradicts the header it stands in.
    Malformed,
    /// More IPv6 extension headers than are followed.
    TooDeep,
}

/// Is the datagram a fragment of a larger one, and which part?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Whole.
    None,
    /// The part with offset zero: it has the ports.
    First,
    /// Any other part: it has none.
    Later,
}

impl Fragment {
    /// From a fragment offset and whether more follow.
    #[inline(always)]
    fn of(offset: usize, more: bool) -> Self {
        if offset != 0 {
            Self::Later
        } else if more {
            Self::First
        } else {
            Self::None
        }
    }
}

/// What parsing found. Plain numbers, no references, so that it lives in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Tag control information of the outer VLAN tag; meaningful if `vlan_tags` > 0.
    pub outer_vlan: u16,
    /// Tag control information of the inner VLAN tag; meaningful if `vlan_tags` > 1.
    pub inner_vlan: u16,
    /// VLAN tags found: 0, 1 or 2.
    pub vlan_tags: u8,
    /// Offset of the IP header.
    pub ip: usize,
    /// Is it IPv6?
    pub v6: bool,
    /// Next protocol after all IP headers.
    pub protocol: u8,
    /// Fragmentation of the datagram.
    pub fragment: Fragment,
    /// Offset of the transport header, or of the fragment's data.
    pub transport: usize,
    /// Bytes from the transport header to the end of the IP datagram, by the IP length field.
    pub transport_len: u16,
    /// Source port; zero where there is none.
    pub src_port: u16,
    /// Destination port; zero where there is none.
    pub dst_port: u16,
}

impl Layers {
    /// What a frame without usable layers has.
    pub const NONE: Self = Self {
        outer_vlan: 0,
        inner_vlan: 0,
        vlan_tags: 0,
        ip: 0,
        v6: false,
        protocol: 0,
        fragment: Fragment::None,
        transport: 0,
        transport_len: 0,
        src_port: 0,
        dst_port: 0,
    };
}

/// IP protocol number of IPv4 in IP (RFC 2003).
pub const IPV4_IN_IP: u8 = 4;
/// IP protocol number of IPv6 in IP (RFC 2473, RFC 4213).
pub const IPV6_IN_IP: u8 = 41;
/// IP protocol number of GRE (RFC 2784).
pub const GRE: u8 = 47;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_MPLS: u16 = 0x8847;
const ETHERTYPE_MPLS_UPSTREAM: u16 = 0x8848;
pub(crate) const ETHERTYPE_PPPOE: u16 = 0x8864;
const ETHERNET: usize = 14;
const UDP_HEADER: u16 = 8;
const TCP_HEADER: u16 = 20;
/// IPv6 extension headers followed before giving up. RFC 8200 4.1 lists six that may precede a transport.
const MAX_EXTENSIONS: usize = 6;

/// Parses an Ethernet frame.
#[inline(always)]
pub fn ethernet<B: Bytes + ?Sized>(frame: &B) -> Result<Layers, Refusal> {
    let Link { ethertype, end, outer_vlan, inner_vlan, vlan_tags } = link(frame, 0)?;
    let layers = network(frame, ethertype, frame.forget(end))?;
    Ok(Layers { outer_vlan, inner_vlan, vlan_tags, ..layers })
}

/// What an Ethernet header and up to two VLAN tags tell.
pub(crate) struct Link {
    pub(crate) ethertype: u16,
    /// Where what it announces begins.
    pub(crate) end: usize,
    outer_vlan: u16,
    inner_vlan: u16,
    vlan_tags: u8,
}

/// Parses an Ethernet header at `start`.
#[inline(always)]
pub(crate) fn link<B: Bytes + ?Sized>(frame: &B, start: usize) -> Result<Link, Refusal> {
    let mut end = start + ETHERNET;
    let mut ethertype = frame.be16(start + 12).ok_or(Refusal::Truncated)?;
    let (mut outer_vlan, mut inner_vlan, mut vlan_tags) = (0, 0, 0);
    if is_vlan(ethertype) {
        let tag = frame.header::<4>(start + 14).ok_or(Refusal::Truncated)?;
        (outer_vlan, ethertype) = (tag.be16::<0>(), tag.be16::<2>());
        vlan_tags = 1;
        end = start + 18;
        if is_vlan(ethertype) {
            let tag = frame.header::<4>(start + 18).ok_or(Refusal::Truncated)?;
            (inner_vlan, ethertype) = (tag.be16::<0>(), tag.be16::<2>());
            vlan_tags = 2;
            end = start + 22;
        }
    }
    Ok(Link { ethertype, end, outer_vlan, inner_vlan, vlan_tags })
}

/// Parses from an IP header at `offset`, for link layers that are not Ethernet.
#[inline(always)]
pub fn network<B: Bytes + ?Sized>(frame: &B, ethertype: u16, offset: usize) -> Result<Layers, Refusal> {
    let layers = match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset)?,
        ETHERTYPE_IPV6 => ipv6(frame, offset)?,
        ETHERTYPE_MPLS | ETHERTYPE_MPLS_UPSTREAM | ETHERTYPE_PPPOE => return Err(Refusal::Labelled),
        _ => return Err(Refusal::NotIp),
    };
    ports(frame, layers)
}

/// 802.1Q, 802.1ad, and the 0x9100 that older provider bridges use.
#[inline(always)]
pub(crate) fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

/// RFC 791, 3.1.
#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(frame: &B, ip: usize) -> Result<Layers, Refusal> {
    let header = frame.header::<20>(ip).ok_or(Refusal::Truncated)?;
    let (version_ihl, total_len) = (header.be8::<0>(), header.be16::<2>());
    let (fragment, protocol) = (header.be16::<6>(), header.be8::<9>());
    let header_len = u16::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_len < 20 || total_len < header_len {
        return Err(Refusal::Malformed);
    }
    Ok(Layers {
        ip,
        v6: false,
        protocol,
        fragment: Fragment::of(usize::from(fragment & 0x1fff), fragment & 0x2000 != 0),
        transport: ip + usize::from(header_len),
        transport_len: total_len - header_len,
        ..Layers::NONE
    })
}

/// RFC 8200, 3 and 4.
#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(frame: &B, ip: usize) -> Result<Layers, Refusal> {
    let header = frame.header::<40>(ip).ok_or(Refusal::Truncated)?;
    let (version, mut transport_len, mut protocol) =
        (header.be8::<0>(), header.be16::<4>(), header.be8::<6>());
    if version >> 4 != 6 {
        return Err(Refusal::Malformed);
    }
    // Offset and "more fragments", as one number: zero is whole, as is an atomic fragment (RFC 6946).
    let mut part = frame.forget(0);
    let mut transport = frame.forget(ip + 40);
    let mut followed = 0;
    while followed < MAX_EXTENSIONS {
        let extension_len = match protocol {
            // Hop-by-hop, routing, destination options: length in 8-byte units beyond the first.
            0 | 43 | 60 => (u16::from(frame.be8(transport + 1).ok_or(Refusal::Truncated)?) + 1) * 8,
            44 => {
                let field = frame.be16(transport + 2).ok_or(Refusal::Truncated)?;
                part = usize::from(field >> 3 << 1 | field & 1);
                8
            }
            // Authentication header: length in 4-byte units, minus two (RFC 4302, 2.2).
            51 => (u16::from(frame.be8(transport + 1).ok_or(Refusal::Truncated)?) + 2) * 4,
            _ => break,
        };
        if transport_len < extension_len {
            return Err(Refusal::Malformed);
        }
        protocol = frame.be8(transport).ok_or(Refusal::Truncated)?;
        transport = frame.forget(transport + usize::from(extension_len));
        transport_len -= extension_len;
        followed += 1;
        // What follows a later fragment's header is data, whatever its first byte looks like.
        if part > 1 {
            break;
        }
    }
    if is_extension(protocol) && part <= 1 {
        return Err(Refusal::TooDeep);
    }
    let fragment = Fragment::of(part >> 1, part & 1 != 0);
    Ok(Layers { ip, v6: true, protocol, fragment, transport, transport_len, ..Layers::NONE })
}

/// Is it the number of an extension header that is followed?
#[inline(always)]
pub(crate) fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60)
}

/// Reads the ports where the datagram has them. A transport header that the IP length cannot hold is
/// refused; so is one that the capture cut off.
#[inline(always)]
fn ports<B: Bytes + ?Sized>(frame: &B, layers: Layers) -> Result<Layers, Refusal> {
    if matches!(layers.fragment, Fragment::Later) {
        return Ok(layers);
    }
    let needed = match layers.protocol {
        UDP => UDP_HEADER,
        TCP => TCP_HEADER,
        _ => return Ok(layers),
    };
    if layers.transport_len < needed {
        return Err(Refusal::Malformed);
    }
    let ports = if needed == UDP_HEADER {
        frame.header::<8>(layers.transport).ok_or(Refusal::Truncated)?.be32::<0>()
    } else {
        frame.header::<20>(layers.transport).ok_or(Refusal::Truncated)?.be32::<0>()
    };
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a 32-bit load")]
    Ok(Layers { src_port: (ports >> 16) as u16, dst_port: ports as u16, ..layers })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
