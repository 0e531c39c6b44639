//! The record that a frame must give, put together from its bytes.

use probe_ebpf::record::{MAX_PACKET, MediaCommon, MediaHead4, MediaHead6, PacketHead, kind, point};
use probe_ebpf::{Layers, Meta, Verdict, classify, fingerprint, flow};
use voxprobe::capture::live::Record;
use voxprobe::capture::xsk::record_of;

/// A record, owned.
#[derive(Debug, PartialEq)]
pub(crate) enum Owned {
    Media4(MediaHead4),
    Media6(MediaHead6),
    Packet(PacketHead, Vec<u8>),
}

/// The record without its time, which is checked to be there.
pub(crate) fn own(record: Record<'_>) -> Owned {
    assert!(record.time_ns() > 0);
    match record {
        Record::Media4(head) => {
            Owned::Media4(MediaHead4 { common: MediaCommon { time_ns: 0, ..head.common }, ..*head })
        }
        Record::Media6(head) => {
            Owned::Media6(MediaHead6 { common: MediaCommon { time_ns: 0, ..head.common }, ..*head })
        }
        Record::Packet(head, bytes) => Owned::Packet(PacketHead { time_ns: 0, ..*head }, bytes.to_vec()),
    }
}

/// The record that a frame gives in mirror mode, with what the program would say of it.
pub(crate) fn mirrored(frame: &[u8], verdict: Verdict, layers: Option<&Layers>) -> Vec<Owned> {
    let layers = layers.copied().unwrap_or(Layers::NONE);
    let meta = Meta {
        time_ns: 1,
        flow: flow::of_frame(frame, &layers).unwrap_or(0),
        verdict: verdict as u8,
        point: 0,
        ip: u8::try_from(layers.ip).unwrap(),
        v6: u8::from(layers.v6),
        transport: u16::try_from(layers.transport).unwrap(),
        transport_len: layers.transport_len,
    };
    let mut records = Vec::new();
    // As the reader cuts what it puts together.
    record_of(meta, &frame[..frame.len().min(MAX_PACKET)], frame.len(), |record| records.push(own(record)));
    records
}

/// The record that a frame must give, put together field by field from its bytes.
pub(crate) fn expected(
    frame: &[u8],
    verdict: Verdict,
    layers: Option<&Layers>,
    egress: bool,
) -> Option<Owned> {
    let at = if egress { point::EGRESS } else { 0 };
    let wire_len = u32::try_from(frame.len()).unwrap();
    match (verdict, layers) {
        (Verdict::Rtp, Some(layers)) if !classify::is_short_rtp(frame, layers) => {
            Some(media_head(frame, layers, at))
        }
        _ if verdict.is_matched() => {
            let limit = if verdict == Verdict::SipTls { 128 } else { 16_384 };
            let head = PacketHead {
                time_ns: 0,
                kind: kind::PACKET,
                point: at,
                outer_vlan: 0,
                wire_len,
                captured_len: wire_len.min(limit),
                verdict: verdict as u8,
                reserved: [0; 3],
            };
            Some(Owned::Packet(head, frame[..head.captured_len as usize].to_vec()))
        }
        _ => None,
    }
}

fn media_head(frame: &[u8], layers: &Layers, at: u8) -> Owned {
    let print = fingerprint::of_rtp(frame, layers).unwrap();
    let be16 = |offset: usize| u16::from_be_bytes([frame[offset], frame[offset + 1]]);
    let (ip, udp) = (layers.ip, layers.transport);
    let hashed = if print.hashed { kind::HASHED } else { 0 };
    let tagged = if layers.vlan_tags > 0 { point::TAGGED } else { 0 };
    let common = MediaCommon {
        time_ns: 0,
        kind: hashed,
        point: at | tagged,
        outer_vlan: if layers.vlan_tags > 0 { be16(14) } else { 0 },
        udp_len: be16(udp + 4),
        fingerprint: print.value,
        src_port: be16(udp),
        dst_port: be16(udp + 2),
        ip_id: 0,
        ttl: 0,
        tos: 0,
        rtp: frame[udp + 8..udp + 20].try_into().unwrap(),
        macs: frame[..12].try_into().unwrap(),
    };
    let inner_vlan = if layers.vlan_tags > 1 { be16(18) } else { 0 };
    let inner_tagged = u16::from(layers.vlan_tags > 1);
    if layers.v6 {
        return Owned::Media6(MediaHead6 {
            common: MediaCommon {
                kind: kind::MEDIA6 | hashed,
                ttl: frame[ip + 7],
                tos: frame[ip] << 4 | frame[ip + 1] >> 4,
                ..common
            },
            src: frame[ip + 8..ip + 24].try_into().unwrap(),
            dst: frame[ip + 24..ip + 40].try_into().unwrap(),
            inner_vlan,
            inner_tagged,
            flow_label: u32::from(frame[ip + 1] & 0xf) << 16 | u32::from(be16(ip + 2)),
        });
    }
    let whole = if frame[ip + 6] & 0x40 != 0 { kind::DONT_FRAGMENT } else { 0 };
    let common = MediaCommon { ip_id: be16(ip + 4), ttl: frame[ip + 8], tos: frame[ip + 1], ..common };
    let src: [u8; 4] = frame[ip + 12..ip + 16].try_into().unwrap();
    let dst: [u8; 4] = frame[ip + 16..ip + 20].try_into().unwrap();
    if inner_tagged == 1 {
        let wide = |v4: [u8; 4]| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&v4);
            address
        };
        let kind = kind::MEDIA4_TWO_TAGS | hashed | whole;
        return Owned::Media6(MediaHead6 {
            common: MediaCommon { kind, ..common },
            src: wide(src),
            dst: wide(dst),
            inner_vlan,
            inner_tagged,
            flow_label: 0,
        });
    }
    let kind = kind::MEDIA4 | hashed | whole;
    Owned::Media4(MediaHead4 { common: MediaCommon { kind, ..common }, src, dst })
}
