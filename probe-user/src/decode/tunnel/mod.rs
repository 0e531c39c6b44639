//! Tunnels: what a header says of what is inside, believed only after it was checked.
//!
//! ```text
//!   Region: bytes that an outer layer handed over    Step: where the inside lies, and what it begins with
//!   ┌────────┬───────────────────────────┐
//!   │ header │ inside                    │   open(Begins::Vxlan, region) ─▶ Ok(Step { skip: 8, Ethernet, .. })
//!   └────────┴───────────────────────────┘                               └▶ Err(Reason::Reserved)
//! ```
//!
//! A port or a protocol number is a hint, never a proof: media runs on port 2152, too. So a layer is opened only if
//! its version, its reserved bits and its lengths are right and what follows has the shape of IP or Ethernet. What
//! is refused is counted by layer and reason ([`super::census`]) and taken for what it is otherwise.
//!
//! The openers hold no state and copy nothing. Each takes one layer; [`super::walk`] puts them together and bounds
//! the depth.

mod gre;
mod gtp;
pub(super) mod hep;
mod ip;
mod l2tp;
mod overlay;
pub(super) mod rpcap;
mod shim;
mod teredo;
mod tzsp;

use super::census::Reason;
use crate::capture::file::LinkType;
use crate::packet::{Layer, Nanos};

pub(super) use self::shim::unwrap_ethertype;

/// What the bytes at hand begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// A link layer, or an IP header: what the frame parser reads.
    Link(LinkType),
    /// An MPLS label stack.
    Mpls,
    /// A PPPoE header.
    Pppoe,
    /// The IP header inside IP protocol 4 or 41.
    IpInIp(IpVersion),
    /// A GRE header.
    Gre,
    /// GRE has said ERSPAN: one of its three kinds.
    Erspan(Erspan),
    /// A VXLAN header.
    Vxlan,
    /// A Geneve header.
    Geneve,
    /// A GTP-U header.
    Gtp,
    /// A TZSP header.
    Tzsp,
    /// An L2TP header.
    L2tp,
    /// What Teredo puts into UDP.
    Teredo,
    /// An rpcap message, one a datagram.
    Rpcap,
    /// A HEP message, which says itself what it carries.
    Hep,
}

/// Version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IpVersion {
    V4,
    V6,
}

/// Kinds of ERSPAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Erspan {
    /// The mirrored frame follows GRE directly.
    One,
    /// Behind a header of 8 octets.
    Two,
    /// Behind one of 12 or 20.
    Three,
}

impl Begins {
    /// The step of the path that it stands for.
    pub(super) const fn layer(self) -> Option<Layer> {
        Some(match self {
            Self::Link(_) => return None,
            Self::Mpls => Layer::Mpls,
            Self::Pppoe => Layer::Pppoe,
            Self::IpInIp(_) => Layer::IpIp,
            Self::Gre => Layer::Gre,
            Self::Erspan(Erspan::One) => Layer::Erspan1,
            Self::Erspan(Erspan::Two) => Layer::Erspan2,
            Self::Erspan(Erspan::Three) => Layer::Erspan3,
            Self::Vxlan => Layer::Vxlan,
            Self::Geneve => Layer::Geneve,
            Self::Gtp => Layer::Gtp,
            Self::Tzsp => Layer::Tzsp,
            Self::L2tp => Layer::L2tp,
            Self::Teredo => Layer::Teredo,
            Self::Rpcap => Layer::Rpcap,
            Self::Hep => Layer::Hep,
        })
    }
}

/// Bytes that an outer layer handed over, and how many it said there were: fewer may have been captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region<'a> {
    /// What was captured of them.
    pub(super) bytes: &'a [u8],
    /// How many the outer layer claims; never less than there are.
    pub(super) claimed: usize,
}

impl<'a> Region<'a> {
    /// The first `claimed` of `bytes`, or as many as there are.
    pub(super) fn new(bytes: &'a [u8], claimed: usize) -> Self {
        Self { bytes: bytes.get(..claimed).unwrap_or(bytes), claimed }
    }

    /// `N` bytes at an offset.
    fn octets<const N: usize>(&self, at: usize) -> Result<[u8; N], Reason> {
        let found = self.bytes.get(at..).and_then(<[u8]>::first_chunk).copied();
        found.ok_or(if at + N <= self.claimed { Reason::Truncated } else { Reason::Length })
    }

    fn be8(&self, at: usize) -> Result<u8, Reason> {
        self.octets(at).map(|[byte]| byte)
    }

    fn be16(&self, at: usize) -> Result<u16, Reason> {
        self.octets(at).map(u16::from_be_bytes)
    }

    fn be32(&self, at: usize) -> Result<u32, Reason> {
        self.octets(at).map(u32::from_be_bytes)
    }

    /// Without its first bytes.
    pub(super) fn after(&self, skip: usize) -> Result<Self, Reason> {
        let claimed = self.claimed.checked_sub(skip).ok_or(Reason::Length)?;
        Ok(Self { bytes: self.bytes.get(skip..).ok_or(Reason::Truncated)?, claimed })
    }

    /// No more than `len` bytes of it; more than it claims is a lie.
    fn first(&self, len: usize) -> Result<Self, Reason> {
        if len > self.claimed { Err(Reason::Length) } else { Ok(Self::new(self.bytes, len)) }
    }

    /// Was some of it not captured?
    fn is_cut(&self) -> bool {
        self.bytes.len() < self.claimed
    }
}

/// An opened layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// From the beginning of the region to the inside.
    pub(super) skip: usize,
    /// How long the inside is, by the layer's own length or the region's.
    pub(super) claimed: usize,
    /// What it begins with.
    pub(super) begins: Begins,
    /// What tells apart sessions between the same two ends: a key, a network identifier; zero where there is none.
    pub(super) session: u32,
    /// When the far end saw what is inside, if it says so.
    pub(super) tap_time: Option<Nanos>,
}

impl Step {
    /// Nothing but what is inside.
    pub(super) fn whole(claimed: usize, begins: Begins) -> Self {
        Self { skip: 0, claimed, begins, session: 0, tap_time: None }
    }

    /// Everything behind the first `skip` bytes.
    fn rest(region: &Region<'_>, skip: usize, begins: Begins) -> Self {
        Self { skip, claimed: region.claimed.saturating_sub(skip), begins, session: 0, tap_time: None }
    }
}

/// Opens one layer. `link` is what is known of the link type inside rpcap, which does not say it itself.
pub(super) fn open(begins: Begins, region: Region<'_>, link: Option<LinkType>) -> Result<Step, Reason> {
    match begins {
        // No headers of one layer: the walk reads them itself.
        Begins::Link(_) | Begins::Hep => Err(Reason::NotIp),
        Begins::Mpls => shim::mpls(region),
        Begins::Pppoe => shim::pppoe(region),
        Begins::IpInIp(version) => ip::in_ip(region, version),
        Begins::Gre => gre::gre(region),
        Begins::Erspan(kind) => gre::erspan(region, kind),
        Begins::Vxlan => overlay::vxlan(region),
        Begins::Geneve => overlay::geneve(region),
        Begins::Gtp => gtp::open(region),
        Begins::Tzsp => tzsp::open(region),
        Begins::L2tp => l2tp::open(region),
        Begins::Teredo => teredo::open(region),
        Begins::Rpcap => rpcap::datagram(region, link),
    }
}

/// Does an Ethernet frame with IP in it begin here? A mirrored frame may have been cut by who mirrored it, so the
/// length that its IP header claims is not held against it.
fn expect_ethernet(region: Region<'_>) -> Result<(), Reason> {
    let ethertype = region.be16(12)?;
    expect_ethertype(region, ethertype, 14)
}

/// Does what `ethertype` says begin at `at`?
fn expect_ethertype(region: Region<'_>, mut ethertype: u16, mut at: usize) -> Result<(), Reason> {
    // As many tags as the path has room for.
    for _ in 0..crate::packet::Encapsulation::MAX_LAYERS {
        match ethertype {
            shim::VLAN | shim::PROVIDER_VLAN | shim::OLD_PROVIDER_VLAN => {
                ethertype = region.be16(at + 2)?;
                at += 4;
            }
            0x0800 => return ip::expect(region.after(at)?, Some(IpVersion::V4), ip::Fit::MayBeCut),
            0x86dd => return ip::expect(region.after(at)?, Some(IpVersion::V6), ip::Fit::MayBeCut),
            // Checked when it is opened.
            shim::MPLS | shim::MPLS_MULTICAST | shim::PPPOE => return Ok(()),
            _ => return Err(Reason::NotIp),
        }
    }
    Err(Reason::TooDeep)
}

/// The link type of the frame that begins here, of those that libpcap's remote captures have.
pub(super) fn guess_link(region: Region<'_>) -> Option<LinkType> {
    if expect_ethernet(region).is_ok() {
        return Some(LinkType::Ethernet);
    }
    if ip::expect(region, None, ip::Fit::MayBeCut).is_ok() {
        return Some(LinkType::RawIp);
    }
    // The cooked header of version 1 has its protocol in the last two of 16 octets, that of version 2 in the first
    // two of 20.
    let cooked = |protocol: usize, header: usize| {
        region.be16(protocol).and_then(|ethertype| expect_ethertype(region, ethertype, header)).is_ok()
    };
    if cooked(14, 16) {
        return Some(LinkType::LinuxCooked);
    }
    cooked(0, 20).then_some(LinkType::LinuxCooked2)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
