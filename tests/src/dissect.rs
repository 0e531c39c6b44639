//! From a frame back to the [`Datagram`] that makes it, so that taps can show real traffic as they show stories.

use std::net::SocketAddr;

use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice};

use crate::frames::{Datagram, UDP, udp};

/// The UDP datagram in an untagged Ethernet frame; `None` for anything else, and for what [`Datagram`] could not write
/// again byte for byte.
pub fn datagram(frame: &[u8]) -> Option<Datagram> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(LinkSlice::Ethernet2(link)) = packet.link else { return None };
    let Some(TransportSlice::Udp(transport)) = packet.transport else { return None };
    let (from, to) = (transport.source_port(), transport.destination_port());
    let carried = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let fragment = u16::from(header.dont_fragment()) << 14;
            Datagram {
                src: SocketAddr::new(header.source_addr().into(), from),
                dst: SocketAddr::new(header.destination_addr().into(), to),
                ttl: header.ttl(),
                tos: header.dcp().value() << 2 | header.ecn().value(),
                ip_id: header.identification(),
                fragment,
                ..udp()
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Datagram {
                src: SocketAddr::new(header.source_addr().into(), from),
                dst: SocketAddr::new(header.destination_addr().into(), to),
                ttl: header.hop_limit(),
                tos: header.traffic_class(),
                flow_label: header.flow_label().value(),
                ..udp()
            }
        }
        NetSlice::Arp(_) => return None,
    };
    let found = Datagram {
        protocol: UDP,
        checksum: Some(transport.checksum()),
        payload: transport.payload().to_vec(),
        src_mac: link.source(),
        dst_mac: link.destination(),
        ..carried
    };
    (found.ethernet() == frame).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{rtp, sip, tcp};

    #[test]
    fn what_was_built_is_found_again() {
        for built in
            [rtp().over(udp()), rtp().over(udp()).v6().flow_label(0xabcde), sip("OPTIONS").fragment(0x4000)]
        {
            let frame = built.ethernet();
            let found = datagram(&frame).expect("a UDP datagram");
            assert_eq!(
                (found.src, found.dst, found.payload.clone()),
                (built.src, built.dst, built.payload.clone())
            );
            assert_eq!(found.ethernet(), frame);
        }
    }

    #[test]
    fn what_a_tap_could_not_show_is_left_alone() {
        let arp = [[0xff; 12].to_vec(), vec![0x08, 0x06], vec![0; 46]].concat();
        for frame in [arp, tcp().ethernet(), udp().vlan(7).ethernet(), udp().ip_options(&[1; 4]).ethernet()] {
            assert!(datagram(&frame).is_none());
        }
    }
}
