//! Who sees a transmission, where, and how it looks there.
//!
//! ```text
//!   Sent ─┬─ the first tap ───────────────── as it was sent
//!         ├─ re-emitted ──────────────────── other destination MAC, IP ID 0, some 40 us later
//!         ├─ vlan+erspan2 ────────────────── with a tag, and then inside the mirror's tunnel
//!         └─ rpcap ── captures what the plain taps saw, and sends it on: the capture of the capture
//! ```
//!
//! A tap is a chain of [`Step`]s. Each view of a packet carries its [`Look`]: what an analysis could compare. From
//! looks alone, and from no code of the analysis, [`Look::cause_after`] says why there are two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::frames::{Datagram, Shim};
use crate::tunnels::{self, Tunnel};

/// What happens to a packet between two taps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the same frame once more.
    SamePoint,
    /// Another port of a switch.
    L2Mirror,
    /// A trunk: with a tag.
    Vlan,
    /// A router.
    Routed,
    /// A device that writes the IP header anew.
    ReEmitted,
    /// Nothing between them, but sent twice with a new IP header.
    SentTwice,
    /// A network address translator: the other side of it.
    Nat,
    /// Between labels (RFC 3032).
    Mpls,
    /// Inside a PPPoE session.
    Pppoe,
    /// A tunnel.
    Tunnel(Tunnel),
}

impl Step {
    /// What can be named on a command line.
    pub fn all() -> impl Iterator<Item = Self> {
        use Step::{L2Mirror, Mpls, Nat, Pppoe, ReEmitted, Routed, SamePoint, SentTwice, Vlan};
        [SamePoint, L2Mirror, Vlan, Routed, ReEmitted, SentTwice, Nat, Mpls, Pppoe]
            .into_iter()
            .chain(Tunnel::ALL.map(Step::Tunnel))
    }

    /// Its name there.
    pub fn name(self) -> &'static str {
        match self {
            Self::SamePoint => "same-point",
            Self::L2Mirror => "l2-mirror",
            Self::Vlan => "vlan",
            Self::Routed => "routed",
            Self::ReEmitted => "re-emitted",
            Self::SentTwice => "sent-twice",
            Self::Nat => "nat",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
            Self::Tunnel(tunnel) => tunnel.name(),
        }
    }
}

/// One more tap: a chain of steps from where the first one is, written `vlan+erspan2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// From the first tap on.
    pub steps: Vec<Step>,
}

impl Tap {
    /// The first tap.
    pub const FIRST: Self = Self { steps: Vec::new() };

    /// A tap after one step.
    pub fn after(step: Step) -> Self {
        Self { steps: vec![step] }
    }

    /// Behind a translator a packet has other addresses, and so is a leg of its own.
    pub fn is_translated(&self) -> bool {
        self.steps.contains(&Step::Nat)
    }

    /// Does what it sees come inside something else?
    pub fn is_tunnelled(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Tunnel(_) | Step::Mpls | Step::Pppoe))
    }

    /// Does it come in a tunnel that only captures take?
    pub fn is_remote(&self) -> bool {
        use Tunnel::{Erspan1, Erspan2, Erspan3, Hep, RpcapUdp, Tzsp};
        let is_for_captures =
            |step: &Step| matches!(step, Step::Tunnel(Erspan1 | Erspan2 | Erspan3 | Hep | RpcapUdp | Tzsp));
        self.steps.iter().any(is_for_captures)
    }

    /// Can it show this packet at all?
    pub fn shows(&self, datagram: &Datagram) -> bool {
        self.steps.iter().all(|step| match step {
            Step::Tunnel(tunnel) => tunnel.carries(datagram),
            _ => true,
        })
    }

    /// What the tap sees of a packet, as a frame. `number` is the tap's own, `at` its place in the list of taps.
    pub fn view(&self, datagram: &Datagram, at: u8, time_ns: u64, number: u32) -> (Datagram, Look) {
        let mut seen = datagram.clone();
        let mut look = Look::of(datagram);
        for step in &self.steps {
            seen = apply(*step, seen, at, time_ns, number);
            match step {
                Step::Tunnel(tunnel) => look.carry(*tunnel, at),
                Step::Mpls => look.carrier = Some(("mpls", at)),
                Step::Pppoe => look.carrier = Some(("pppoe", at)),
                // Outside of a tunnel it no longer matters how the inner packet looks.
                _ if look.carrier.is_none() => look = Look::of(&seen),
                _ => {}
            }
        }
        (seen, look)
    }
}

impl FromStr for Tap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let step = |name: &str| {
            Step::all().find(|step| step.name() == name).ok_or_else(|| {
                let known: Vec<_> = Step::all().map(Step::name).collect();
                format!("{name}: one of {}, or several with + between", known.join(", "))
            })
        };
        Ok(Self { steps: text.split('+').map(step).collect::<Result<_, _>>()? })
    }
}

impl std::fmt::Display for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.steps.iter().map(|step| step.name()).collect();
        f.write_str(&names.join("+"))
    }
}

fn apply(step: Step, seen: Datagram, at: u8, time_ns: u64, number: u32) -> Datagram {
    let here = |which: u8| [2, 0x20, 0, 0, at, which];
    match step {
        Step::SamePoint => seen,
        Step::L2Mirror => Datagram { dst_mac: here(1), ..seen },
        Step::Vlan => seen.vlan(100 + u16::from(at)),
        Step::Routed => {
            Datagram { dst_mac: here(1), src_mac: here(2), ttl: seen.ttl.saturating_sub(1), ..seen }
        }
        Step::ReEmitted => Datagram { dst_mac: here(1), ip_id: 0, ..seen },
        Step::SentTwice => Datagram { ip_id: 0, ..seen },
        Step::Nat => translated(seen, at),
        Step::Mpls => seen.mpls(&[1_000 + u32::from(at), 16]),
        Step::Pppoe => seen.pppoe(u16::from(at) + 1),
        Step::Tunnel(tunnel) => {
            // Each tunnel has ends of its own, and a sender that counts.
            let mut outer = tunnels::tunnel().ip_id(u16::try_from(number & 0xffff).unwrap_or(0));
            let end = |last: u8| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
            outer.src.set_ip(end(2 * at + 1));
            outer.dst.set_ip(end(2 * at + 2));
            tunnel.carry(&seen, time_ns, number, outer)
        }
    }
}

/// A flow as the other side of a translator knows it: phones have another address and port there.
pub(super) fn translated_ends(src: SocketAddr, dst: SocketAddr) -> (SocketAddr, SocketAddr) {
    (translated_end(src), translated_end(dst))
}

fn translated_end(mut end: SocketAddr) -> SocketAddr {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(v4) if v4.octets()[1] >= 16 => {
            Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, v4.octets()[3])))
        }
        IpAddr::V6(v6) if v6.segments()[3] == 16 => {
            Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xaa, 0, 0, 0, v6.segments()[6], v6.segments()[7])))
        }
        _ => None,
    };
    if let Some(outside) = address(end.ip()) {
        end.set_ip(outside);
        end.set_port(end.port() ^ 0x0800);
    }
    end
}

fn translated(seen: Datagram, at: u8) -> Datagram {
    let (src, dst) = translated_ends(seen.src, seen.dst);
    Datagram {
        dst_mac: [2, 0x20, 0, 0, at, 1],
        src_mac: [2, 0x20, 0, 0, at, 2],
        ttl: seen.ttl.saturating_sub(1),
        src,
        dst,
        ..seen
    }
}

/// What of a sighting can be compared. `None` where it is not there to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Of the capture. Shows a place, but makes two sightings no less similar.
    interface: u16,
    macs: Option<([u8; 6], [u8; 6])>,
    tags: Vec<(u16, u16)>,
    ttl: Option<u8>,
    ip_id: Option<u16>,
    /// The innermost tunnel and whose it is.
    carrier: Option<(&'static str, u8)>,
}

impl Look {
    fn of(datagram: &Datagram) -> Self {
        Self {
            interface: 0,
            macs: (datagram.shim == Shim::None).then_some((datagram.dst_mac, datagram.src_mac)),
            tags: datagram.tags.clone(),
            ttl: Some(datagram.ttl),
            ip_id: datagram.src.is_ipv4().then_some(datagram.ip_id),
            carrier: None,
        }
    }

    fn carry(&mut self, tunnel: Tunnel, at: u8) {
        self.carrier = Some((tunnel.name(), at));
        match tunnel {
            Tunnel::Hep => (self.macs, self.ttl, self.ip_id) = (None, None, None),
            Tunnel::IpIp | Tunnel::Gre | Tunnel::Gtp | Tunnel::L2tp | Tunnel::Teredo => {
                self.macs = None;
                self.tags.clear();
            }
            _ => {}
        }
    }

    /// The same on this interface.
    #[must_use]
    pub fn on(self, interface: u16) -> Self {
        Self { interface, ..self }
    }

    /// The same inside an rpcap session.
    #[must_use]
    pub fn captured_again(&self, session: u8, interface: u16) -> Self {
        Self { carrier: Some(("rpcap", session)), interface, ..self.clone() }
    }

    /// Why this sighting exists beside those before it: the cause that the most similar of them shows. If several are
    /// equally similar and show different causes, there are as many answers; the first is the likeliest.
    ///
    /// What came in a tunnel was seen outside of it, too: if anything was, that is its cause.
    pub fn cause_after<'a>(&self, earlier: impl IntoIterator<Item = &'a Self>) -> Vec<&'static str> {
        let mut found: Vec<_> = earlier.into_iter().map(|one| self.difference(one)).collect();
        let least = found.iter().map(|(count, _)| *count).min();
        found.retain(|(count, _)| Some(*count) == least);
        let mut causes: Vec<_> = found.into_iter().map(|(_, cause)| cause).collect();
        causes.sort_by_key(|cause| *cause != "encapsulated");
        causes.dedup();
        causes
    }

    /// In how many ways two sightings differ, and the cause that the strongest of these shows.
    fn difference(&self, other: &Self) -> (usize, &'static str) {
        let both = |differs: bool, comparable: bool| differs && comparable;
        let carrier = self.carrier != other.carrier;
        let ttl = both(self.ttl != other.ttl, self.ttl.is_some() && other.ttl.is_some());
        let ip_id = both(self.ip_id != other.ip_id, self.ip_id.is_some() && other.ip_id.is_some());
        let tags = both(self.tags != other.tags, self.macs.is_some() && other.macs.is_some());
        let (mut dst_mac, mut src_mac) = (false, false);
        if let (Some(mine), Some(theirs)) = (self.macs, other.macs) {
            (dst_mac, src_mac) = (mine.0 != theirs.0, mine.1 != theirs.1);
        }
        let count =
            [carrier, ttl, ip_id, tags, dst_mac, src_mac].into_iter().filter(|differs| *differs).count();
        let cause = match () {
            () if carrier => "encapsulated",
            () if ttl => "routed",
            () if ip_id => {
                if tags || dst_mac || src_mac || self.interface != other.interface {
                    "re-emitted"
                } else {
                    "sent-twice"
                }
            }
            () if tags => "vlan",
            () if dst_mac || src_mac => "l2-mirror",
            () => "same-point",
        };
        (count, cause)
    }
}
