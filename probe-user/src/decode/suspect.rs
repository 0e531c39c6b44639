//! What a frame may carry, by its ports and its first bytes: the hints that a walk follows.

use probe_ebpf::{Config, Endpoints, Layers, Verdict, classify};

use super::tunnel::{Begins, Region, hep, rpcap};

/// What is behind a transport header of so many bytes. `length` is what the transport says itself, header included; it
/// counts if it fits.
pub(super) fn region<'a>(bytes: &'a [u8], layers: &Layers, header: u16, length: u16) -> Option<Region<'a>> {
    let whole = if length < header { layers.transport_len } else { length.min(layers.transport_len) };
    let inside = bytes.get(layers.transport + usize::from(header)..)?;
    Some(Region::new(inside, usize::from(whole.checked_sub(header)?)))
}

/// The verdict of the shared classifier; `as_wireshark`, what begins like a SIP message is SIP on any port.
pub(super) fn judge<E: Endpoints>(
    config: &Config,
    as_wireshark: bool,
    bytes: &[u8],
    layers: &Layers,
    endpoints: &E,
) -> Verdict {
    let verdict = classify::classify(bytes, layers, config, endpoints);
    let begins_like_sip = |header_len: usize| {
        bytes.get(layers.transport + header_len..).is_some_and(crate::sip::message::begins_like_sip)
    };
    match verdict {
        Verdict::OtherUdp if as_wireshark && begins_like_sip(8) => Verdict::SipUdp,
        Verdict::OtherTcp if as_wireshark => {
            let header_len =
                bytes.get(layers.transport + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
            if header_len >= 20 && begins_like_sip(header_len) { Verdict::SipTcp } else { verdict }
        }
        other => other,
    }
}

/// Does what begins here look like rpcap or HEP at first sight?
pub(super) fn begins_like_carrier(bytes: &[u8], at: usize) -> bool {
    let first: Option<[u8; 4]> = bytes.get(at..).and_then(<[u8]>::first_chunk).copied();
    first == Some(hep::MAGIC) || first == Some([0, rpcap::kind::PACKET, 0, 0])
}

pub(super) const UDP_HEADER: u16 = 8;
pub(super) const TCP_HEADER: usize = 20;

/// What runs on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Tunnel(Begins),
    Hep,
}

/// Tunnels over UDP, those with the most to check first.
pub(super) const UDP_TUNNELS: [Begins; 7] =
    [Begins::Rpcap, Begins::Vxlan, Begins::Geneve, Begins::Gtp, Begins::Tzsp, Begins::L2tp, Begins::Teredo];

/// What a port stands for (IANA; 8472 was Linux's VXLAN before there was a number, 9060 is Homer's).
pub(super) fn of_port(port: u16) -> Option<Service> {
    Some(match port {
        4789 | 8472 => Service::Tunnel(Begins::Vxlan),
        6081 => Service::Tunnel(Begins::Geneve),
        2152 => Service::Tunnel(Begins::Gtp),
        37_008 => Service::Tunnel(Begins::Tzsp),
        1701 => Service::Tunnel(Begins::L2tp),
        3544 => Service::Tunnel(Begins::Teredo),
        2002 => Service::Tunnel(Begins::Rpcap),
        9060 => Service::Hep,
        _ => return None,
    })
}
