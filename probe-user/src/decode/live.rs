//! From the kernel's records to what the analysis takes.

use probe_ebpf::record::{MediaCommon, MediaHead4, MediaHead6, PacketHead, kind, point};
use probe_ebpf::{Endpoints, Fingerprint};

use super::{Decoded, Decoder, Seen};
use crate::capture::file::LinkType;
use crate::packet::{
    Carrier, Encapsulation, Endpoint, EndpointWords, Evidence, Flow, FlowWords, MediaId, Nanos, RtpHeader,
    RtpPacket, Tap, Vlans,
};

impl Decoder {
    /// Decodes a frame that the kernel handed over whole.
    pub fn packet<'a, E: Endpoints>(
        &'a mut self,
        head: &PacketHead,
        bytes: &'a [u8],
        number: u64,
        endpoints: &E,
    ) -> Decoded<'a> {
        let seen = Seen {
            offloaded_tag: (head.point & point::TAG_OFFLOADED != 0).then_some(head.outer_vlan),
            ..Seen::plain(Nanos(head.time_ns), number, tap(head.point), LinkType::Ethernet)
        };
        self.bytes(seen, bytes, head.wire_len, endpoints)
    }
}

/// The packet of an IPv4 head under at most one tag.
pub fn from_media4(head: &MediaHead4, number: u64) -> RtpPacket {
    let common = &head.common;
    let end = |address, port| EndpointWords::v4(u32::from_be_bytes(address), port);
    let flow = FlowWords::new(end(head.src, common.src_port), end(head.dst, common.dst_port));
    packet(common, number, flow, None, common.ip_id)
}

/// The packet of any other head.
pub fn from_media6(head: &MediaHead6, number: u64) -> RtpPacket {
    let common = &head.common;
    let inner = (head.inner_tagged != 0).then_some(head.inner_vlan);
    if common.kind & kind::MASK == kind::MEDIA4_TWO_TAGS {
        let v4 = |address: &[u8; 16]| address.first_chunk::<4>().copied().unwrap_or_default();
        let src = Endpoint::v4(v4(&head.src), common.src_port);
        let dst = Endpoint::v4(v4(&head.dst), common.dst_port);
        return packet(common, number, Flow { src, dst }.into(), inner, common.ip_id);
    }
    let src = Endpoint::v6(head.src, common.src_port);
    let dst = Endpoint::v6(head.dst, common.dst_port);
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of the flow label, as from a file")]
    let label = head.flow_label as u16;
    packet(common, number, Flow { src, dst }.into(), inner, label)
}

fn packet(common: &MediaCommon, number: u64, flow: FlowWords, inner: Option<u16>, ip_id: u16) -> RtpPacket {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = common.macs;
    RtpPacket {
        time: Nanos(common.time_ns),
        tap_time: Nanos(common.time_ns),
        number,
        flow,
        rtp: RtpHeader::from_wire(&common.rtp),
        udp_len: common.udp_len,
        payload_head: None,
        fingerprint: Fingerprint { value: common.fingerprint, hashed: common.kind & kind::HASHED != 0 },
        // The kernel reads the frame itself, which is whole.
        is_hash_cut: false,
        evidence: Evidence {
            tap: tap(common.point),
            dst_mac: [d0, d1, d2, d3, d4, d5],
            src_mac: [s0, s1, s2, s3, s4, s5],
            vlans: Vlans::from_tci((common.point & point::TAGGED != 0).then_some(common.outer_vlan), inner),
            ttl: common.ttl,
            tos: common.tos,
            ip_id,
            encapsulation: Encapsulation::NONE,
            carrier: Carrier::NONE,
        },
        media: MediaId::UNANNOUNCED,
    }
}

/// An interface that was not in the configuration is a tap of its own, after all others.
fn tap(point: u8) -> Tap {
    let interface = if point & point::UNKNOWN != 0 {
        u16::from(point::UNKNOWN)
    } else {
        u16::from(point & point::INTERFACE)
    };
    Tap::new(interface, point & point::EGRESS != 0)
}
