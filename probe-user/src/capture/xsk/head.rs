//! From a frame and the program's word on it to the record that a tap would have given.
//!
//! The analysis takes the same records in both modes, so that it cannot tell them apart. Of plain RTP that is the head,
//! field by field as the tap's program fills it, without parsing the frame again: the offsets are in the metadata.

use probe_ebpf::classify::is_short_rtp;
use probe_ebpf::parse::{Bytes as _, UDP};
use probe_ebpf::record::{MediaCommon, MediaHead4, MediaHead6, PacketHead, TLS_HEAD, kind, point};
use probe_ebpf::{Layers, Meta, Verdict, fingerprint};

use super::exchange::Received;
use crate::capture::live::Record;

/// Hands the record of a frame out; of one that is taken whole no more than `snap` bytes.
pub(crate) fn hand_out(received: &Received<'_>, snap: usize, consume: impl FnOnce(Record<'_>)) {
    let Received { meta, frame, wire_len } = received;
    if meta.verdict == Verdict::Rtp as u8
        && let Some(media) = media(meta, frame)
    {
        match &media {
            Media::V4(head) => consume(Record::Media4(head)),
            Media::Other(head) => consume(Record::Media6(head)),
        }
        return;
    }
    // Of what nobody can read, no more than a tap hands over.
    let wanted = if meta.verdict == Verdict::SipTls as u8 { TLS_HEAD } else { snap };
    let bytes = frame.get(..wanted).unwrap_or(frame);
    let head = PacketHead {
        time_ns: meta.time_ns,
        kind: kind::PACKET,
        point: meta.point,
        outer_vlan: 0,
        wire_len: u32::try_from(*wire_len).unwrap_or(u32::MAX),
        captured_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        verdict: meta.verdict,
        reserved: [0; 3],
    };
    consume(Record::Packet(&head, bytes));
}

enum Media {
    V4(MediaHead4),
    Other(MediaHead6),
}

/// The head of an RTP packet that does not travel whole.
#[inline]
fn media(meta: &Meta, frame: &[u8]) -> Option<Media> {
    let layers = Layers {
        ip: usize::from(meta.ip),
        v6: meta.v6 != 0,
        protocol: UDP,
        transport: usize::from(meta.transport),
        transport_len: meta.transport_len,
        ..Layers::NONE
    };
    if is_short_rtp(frame, &layers) {
        return None;
    }
    let fingerprint = fingerprint::of_rtp(frame, &layers)?;
    let udp: &[u8; 20] = frame.get(layers.transport..)?.first_chunk()?;
    let (ports, rtp) = udp.split_first_chunk::<8>()?;
    let [s0, s1, d0, d1, l0, l1, ..] = *ports;
    // What stands before an IP header is there.
    let tag = |offset| frame.be16(offset).unwrap_or(0);
    let (tags, outer_vlan, inner_vlan) = match layers.ip {
        ..=14 => (0, 0, 0),
        15..=18 => (1, tag(14), 0),
        _ => (2, tag(14), tag(18)),
    };
    let common = MediaCommon {
        time_ns: meta.time_ns,
        kind: if fingerprint.hashed { kind::HASHED } else { 0 },
        point: meta.point | if tags > 0 { point::TAGGED } else { 0 },
        outer_vlan,
        udp_len: u16::from_be_bytes([l0, l1]),
        fingerprint: fingerprint.value,
        src_port: u16::from_be_bytes([s0, s1]),
        dst_port: u16::from_be_bytes([d0, d1]),
        ip_id: 0,
        ttl: 0,
        tos: 0,
        rtp: *rtp.first_chunk()?,
        macs: *frame.first_chunk()?,
    };
    let ip = frame.get(layers.ip..)?;
    if layers.v6 {
        let ip: &[u8; 40] = ip.first_chunk()?;
        let (&[a, b, c, d, _, _, _, ttl], addresses) = ip.split_first_chunk()?;
        let (src, dst) = addresses.split_first_chunk()?;
        return Some(Media::Other(MediaHead6 {
            common: MediaCommon { kind: common.kind | kind::MEDIA6, ttl, tos: a << 4 | b >> 4, ..common },
            src: *src,
            dst: *dst.first_chunk()?,
            inner_vlan,
            inner_tagged: u16::from(tags > 1),
            flow_label: u32::from_be_bytes([0, b & 0x0f, c, d]),
        }));
    }
    let &[_, tos, _, _, i0, i1, flags, _, ttl, _, _, _, a0, a1, a2, a3, b0, b1, b2, b3] = ip.first_chunk()?;
    let common = MediaCommon {
        kind: common.kind | if flags & 0x40 != 0 { kind::DONT_FRAGMENT } else { 0 },
        ip_id: u16::from_be_bytes([i0, i1]),
        ttl,
        tos,
        ..common
    };
    let (src, dst) = ([a0, a1, a2, a3], [b0, b1, b2, b3]);
    if tags < 2 {
        let common = MediaCommon { kind: common.kind | kind::MEDIA4, ..common };
        return Some(Media::V4(MediaHead4 { common, src, dst }));
    }
    let wide = |[a, b, c, d]: [u8; 4]| [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Some(Media::Other(MediaHead6 {
        common: MediaCommon { kind: common.kind | kind::MEDIA4_TWO_TAGS, ..common },
        src: wide(src),
        dst: wide(dst),
        inner_vlan,
        inner_tagged: 1,
        flow_label: 0,
    }))
}
