//! The lab's network: phones and a PBX on either side of a gateway that really forwards.
//!
//! ```text
//!   phones                     gw                          pbx
//!   phones0 ─────────── gw-phones   gw-pbx ─────────────── pbx0
//!   10.60.1.11 …        10.60.1.1   10.60.2.1              10.60.2.10
//!   2001:db8:60:1::b …         ::1  2001:db8:60:2::1       2001:db8:60:2::a
//!                             mir0 ─────────────────────── span0 (in span, only with a mirror)
//! ```
//!
//! The probe runs in `gw`. A frame that crosses the gateway arrives at exactly one of its interfaces, so it is
//! seen once; what the mirror adds arrives at `mir0`, as from a switch's mirror port.
//!
//! Neighbours are static and checksums are computed by the sender: on a veth pair they would otherwise stay
//! unfinished, and frames would not look as they do on a wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;

use crate::link;
use crate::netns::{self, End, LabName, Namespace};

/// Phones of one lab; each has an address of its own.
pub const MAX_PHONES: u8 = 64;

const PHONES_MAC: &str = "02:60:01:00:00:0b";
const GW_PHONES_MAC: &str = "02:60:01:00:00:01";
const GW_PBX_MAC: &str = "02:60:02:00:00:01";
const PBX_MAC: &str = "02:60:02:00:00:0a";

/// The namespaces, in the order of their removal.
#[derive(Debug)]
pub struct Topology {
    /// Where the callers are.
    pub phones: Namespace,
    /// The gateway, and the probe's place.
    pub gw: Namespace,
    /// Where the calls go.
    pub pbx: Arc<Namespace>,
    /// The far side of the mirror port.
    pub span: Option<Namespace>,
}

impl Topology {
    /// Makes the network for `phones` phones, after removing what dead labs left behind.
    pub fn create(phones: u8, mirror: bool) -> Result<Self> {
        netns::remove_stale()?;
        let lab = LabName::unique()?;
        let topology = Self {
            phones: Namespace::create(&lab, "phones")?,
            gw: Namespace::create(&lab, "gw")?,
            pbx: Arc::new(Namespace::create(&lab, "pbx")?),
            span: mirror.then(|| Namespace::create(&lab, "span")).transpose()?,
        };
        topology.link()?;
        topology.address(phones.clamp(1, MAX_PHONES))?;
        Ok(topology)
    }

    /// The gateway's interfaces that a probe should watch.
    pub fn watched(&self) -> Vec<&'static str> {
        let mut watched = vec!["gw-phones", "gw-pbx"];
        if self.span.is_some() {
            watched.push("mir0");
        }
        watched
    }

    /// Whether an XDP program is attached to an interface of the gateway.
    pub fn carries_xdp(&self, interface: &str) -> bool {
        self.gw.ip(&["-d", "link", "show", interface]).is_ok_and(|text| text.contains("prog/xdp"))
    }

    fn link(&self) -> Result<()> {
        netns::join(
            End { namespace: &self.phones, interface: "phones0", mac: PHONES_MAC },
            End { namespace: &self.gw, interface: "gw-phones", mac: GW_PHONES_MAC },
        )?;
        netns::join(
            End { namespace: &self.pbx, interface: "pbx0", mac: PBX_MAC },
            End { namespace: &self.gw, interface: "gw-pbx", mac: GW_PBX_MAC },
        )?;
        if let Some(span) = &self.span {
            // The port takes no part in IP: no address, and nothing on it may be answered.
            span.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            netns::join(
                End { namespace: span, interface: "span0", mac: "02:60:03:00:00:02" },
                End { namespace: &self.gw, interface: "mir0", mac: "02:60:03:00:00:01" },
            )?;
            self.gw.sysctl("net/ipv6/conf/mir0/disable_ipv6", "1")?;
        }
        self.phones.within(|| link::finish_checksums("phones0"))??;
        self.pbx.within(|| link::finish_checksums("pbx0"))??;
        Ok(())
    }

    fn address(&self, phones: u8) -> Result<()> {
        self.gw.sysctl("net/ipv4/ip_forward", "1")?;
        self.gw.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        if self.span.is_some() {
            // After the switch above, which sets it for every interface.
            self.gw.sysctl("net/ipv4/conf/mir0/forwarding", "0")?;
        }

        let mut phone_side = Vec::new();
        let mut gw = vec![
            "addr add 10.60.1.1/24 dev gw-phones".to_owned(),
            "addr add 2001:db8:60:1::1/64 dev gw-phones nodad".to_owned(),
            "addr add 10.60.2.1/24 dev gw-pbx".to_owned(),
            "addr add 2001:db8:60:2::1/64 dev gw-pbx nodad".to_owned(),
            format!("neigh replace 10.60.2.10 lladdr {PBX_MAC} dev gw-pbx nud permanent"),
            format!("neigh replace 2001:db8:60:2::a lladdr {PBX_MAC} dev gw-pbx nud permanent"),
        ];
        for phone in 0..phones {
            let (v4, v6) = (phone_address(phone, false), phone_address(phone, true));
            phone_side.push(format!("addr add {v4}/24 dev phones0"));
            phone_side.push(format!("addr add {v6}/64 dev phones0 nodad"));
            gw.push(format!("neigh replace {v4} lladdr {PHONES_MAC} dev gw-phones nud permanent"));
            gw.push(format!("neigh replace {v6} lladdr {PHONES_MAC} dev gw-phones nud permanent"));
        }
        phone_side.extend(leave_by("phones0", "10.60.1.1", "2001:db8:60:1::1", GW_PHONES_MAC));
        let mut pbx_side = vec![
            "addr add 10.60.2.10/24 dev pbx0".to_owned(),
            "addr add 2001:db8:60:2::a/64 dev pbx0 nodad".to_owned(),
        ];
        pbx_side.extend(leave_by("pbx0", "10.60.2.1", "2001:db8:60:2::1", GW_PBX_MAC));

        self.gw.configure(&gw)?;
        self.phones.configure(&phone_side)?;
        self.pbx.configure(&pbx_side)
    }
}

/// The address of phone number `phone`.
pub fn phone_address(phone: u8, v6: bool) -> IpAddr {
    let host = 11 + phone;
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x60, 1, 0, 0, 0, u16::from(host)))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 60, 1, host))
    }
}

/// The address of the PBX.
pub fn pbx_address(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x60, 2, 0, 0, 0, 10))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 60, 2, 10))
    }
}

/// Default routes through the gateway, whose MAC is given rather than asked for.
fn leave_by(interface: &str, v4: &str, v6: &str, mac: &str) -> [String; 4] {
    [
        format!("neigh replace {v4} lladdr {mac} dev {interface} nud permanent"),
        format!("neigh replace {v6} lladdr {mac} dev {interface} nud permanent"),
        format!("route add default via {v4} dev {interface}"),
        format!("route add ::/0 via {v6} dev {interface}"),
    ]
}
