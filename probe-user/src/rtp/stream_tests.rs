//! Streams as packets of known faults make them.

use super::*;
use crate::packet::{Encapsulation, Layer};
use crate::rtp::testing::packet;
use crate::rtp::unique::LedgerReport;
use proptest::prelude::*;

fn run(packets: &[RtpPacket]) -> StreamParts {
    let epoch = packets[0].time;
    let mut stream = Stream::new(&packets[0], 0, epoch, Arc::default());
    packets[1..].iter().for_each(|packet| {
        stream.observe(packet, epoch);
    });
    stream.into_parts()
}

#[test]
fn mirrored_stream_is_lossless_and_explained() {
    let mut packets = Vec::new();
    for seq in 0..500 {
        let mut copy = packet(seq);
        packets.push(copy);
        copy.delay(38_000);
        copy.number += 10_000;
        copy.evidence.dst_mac = [9; 6];
        copy.evidence.ip_id = 0xffff;
        packets.push(copy);
    }
    let parts = run(&packets);
    assert_eq!((parts.unique.lost, parts.unique.packets, parts.raw.lost), (0, 500, -500));
    let causes = parts.copies.causes(500);
    assert_eq!((causes[0].cause.label(), causes[0].count, causes[0].delay_us.p50), ("re-emitted", 500, 38.0));
}

#[test]
fn a_hole_that_a_late_tunnel_fills_is_neither_reordering_nor_jitter() {
    for every in [4, 10, 40] {
        let mut frames = Vec::new();
        for seq in 0..400 {
            let near = packet(seq);
            let mut tunnelled = near;
            tunnelled.time.0 += 50_000_000;
            tunnelled.evidence.encapsulation = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
            if seq % every != 1 {
                frames.push(near);
            }
            frames.push(tunnelled);
        }
        frames.sort_by_key(|frame| frame.time);
        let parts = run(&frames);
        assert_eq!((parts.unique.packets, parts.unique.lost, parts.reordered), (400, 0, 0), "{every}");
        assert!(parts.unique.jitter_ms.max < 0.001, "{every}: {:?}", parts.unique.jitter_ms);
        assert!(parts.unique.delta_ms.min > 19.0, "{every}: {:?}", parts.unique.delta_ms);
    }
}

#[test]
fn a_restart_keeps_both_runs_and_invents_no_loss() {
    let packets: Vec<_> = (0..50).chain(30_000..30_050).map(packet).collect();
    let parts = run(&packets);
    assert_eq!((parts.unique.expected, parts.unique.lost, parts.restarts, parts.strays), (100, 0, 1, 0));
}

#[test]
fn a_restart_under_lagging_copies_keeps_every_packet() {
    let mut packets = Vec::new();
    for seq in (0..100).chain(30_000..30_400) {
        let mut original = packet(seq);
        original.time =
            Nanos(packet(0).time.0 + (seq % 30_000 + if seq < 100 { 0 } else { 100 }) * 20_000_000);
        original.tap_time = original.time;
        let mut copy = original;
        copy.delay(30_000_000);
        copy.evidence.dst_mac = [9; 6];
        packets.extend([original, copy]);
    }
    packets.sort_by_key(|packet| packet.time);
    let parts = run(&packets);
    assert_eq!((parts.unique.packets, parts.unique.lost, parts.restarts), (500, 0, 1));
    // The copies of the last packets before the restart come when their run is over.
    assert!(parts.strays <= 2 && parts.copies.total() >= 498, "{} {}", parts.strays, parts.copies.total());
}

#[test]
fn the_codec_is_what_most_frames_carry_and_digits_are_none() {
    let packets: Vec<_> = (0..100)
        .map(|seq| {
            let mut packet = packet(seq);
            packet.rtp.payload_type = if seq < 10 {
                101
            } else if seq < 13 {
                0
            } else {
                18
            };
            packet
        })
        .collect();
    let parts = run(&packets);
    assert_eq!((parts.codec.as_deref(), parts.payload_types), (Some("G729"), vec![0, 18, 101]));
}

#[test]
fn an_outage_after_many_pauses_is_still_the_one_that_is_told() {
    let mut packets: Vec<_> = (0..2_000).map(packet).collect();
    let mut shift = 0;
    for (at, packet) in packets.iter_mut().enumerate() {
        shift += if at % 80 == 79 { 500_000_000 } else { 0 };
        packet.delay(shift);
    }
    packets.drain(1_500..1_800);
    let parts = run(&packets);
    assert!(parts.interruption_count > 16);
    let worst =
        parts.interruptions.iter().max_by(|a, b| a.weight().partial_cmp(&b.weight()).unwrap()).unwrap();
    assert_eq!(worst.missing, 300);
}

#[test]
fn a_pause_is_an_interruption_and_not_jitter() {
    let mut packets: Vec<_> = (0..100).map(packet).collect();
    packets[50..].iter_mut().for_each(|packet| packet.delay(1_790_000_000));
    let parts = run(&packets);
    assert_eq!(parts.interruptions.len(), 1);
    assert!((parts.interruptions[0].silence_s - 1.81).abs() < 1e-9);
    assert_eq!((parts.interruptions[0].missing, parts.unique.lost), (0, 0));
    assert!(parts.unique.jitter_ms.max < 0.001 && parts.raw.jitter_ms.max > 100.0);
}

#[test]
fn frames_inside_rpcap_are_copies_and_never_in_the_ledger_that_equals_tsharks() {
    let rpcap = crate::packet::Encapsulation::NONE.with(crate::packet::Layer::Rpcap);
    let inside = |seq| {
        let mut frame = packet(seq);
        frame.delay(4_000_000);
        frame.evidence.encapsulation = rpcap.unwrap();
        frame
    };
    let both: Vec<_> = (0..100).flat_map(|seq| [packet(seq), inside(seq)]).collect();
    let parts = run(&both);
    assert_eq!((parts.raw.packets, parts.raw.lost, parts.unique.packets), (100, 0, 100));
    assert_eq!((parts.copies.total(), parts.taps.len()), (100, 2));
    let only: Vec<_> = (0..100).map(inside).collect();
    let parts = run(&only);
    assert_eq!((parts.raw, parts.unique.packets), (LedgerReport::nothing(), 100));
}

fn jittered() -> impl Strategy<Value = Vec<RtpPacket>> {
    prop::collection::vec((0_u64..4_000_000, prop::bool::weighted(0.05)), 2..400).prop_map(|list| {
        let mut packets: Vec<_> = list
            .iter()
            .enumerate()
            .filter(|(seq, (_, dropped))| *seq == 0 || !dropped)
            .map(|(seq, (late_ns, _))| {
                let mut packet = packet(seq as u64 + 65_400);
                packet.delay(*late_ns);
                packet
            })
            .collect();
        packets.sort_by_key(|packet| packet.time);
        packets
    })
}

proptest! {
    /// Copies by taps of their own, each as late as it likes, up to 1.2 s: other packets come before them.
    #[test]
    fn k_copies_of_every_frame_change_nothing_in_the_unique_ledger(
        packets in jittered(),
        delays in prop::collection::vec(prop::collection::vec(0_u64..1_200_000_000, 400), 1..4),
    ) {
        let alone = run(&packets);
        let mut frames = packets.clone();
        for (tap, delays) in delays.iter().enumerate() {
            for (original, delay) in packets.iter().zip(delays) {
                let mut frame = *original;
                frame.delay(*delay);
                frame.evidence.dst_mac[5] = 100 + u8::try_from(tap).unwrap();
                frames.push(frame);
            }
        }
        frames.sort_by_key(|frame| frame.time);
        let together = run(&frames);
        prop_assert_eq!(&together.unique, &alone.unique);
        prop_assert_eq!((together.jitter, together.filled_in), (alone.jitter, 0));
        prop_assert_eq!(together.copies.total(), delays.len() as u64 * packets.len() as u64);
    }

    /// A second tap that is late, evenly, and sees what the first missed.
    #[test]
    fn what_one_tap_missed_another_fills_in(
        packets in jittered(),
        missed in prop::collection::vec(prop::bool::weighted(0.1), 400),
    ) {
        let alone = run(&packets);
        let mut frames = Vec::new();
        let mut filled = 0;
        for (at, (original, missed)) in packets.iter().zip(&missed).enumerate() {
            // Both taps are known by then; and a tap that missed more is no reference any more.
            let missed = *missed && at > 20 && filled < 12;
            filled += u64::from(missed);
            if !missed {
                frames.push(*original);
            }
            let mut late = *original;
            late.time.0 += 9_000_000;
            late.tap_time = late.time;
            late.evidence.dst_mac[5] = 100;
            frames.push(late);
        }
        frames.sort_by_key(|frame| frame.time);
        let together = run(&frames);
        let counts = |parts: &StreamParts| (parts.unique.packets, parts.unique.lost, parts.reordered);
        prop_assert_eq!(counts(&together), counts(&alone));
        prop_assert_eq!(together.filled_in, filled);
        let close = (together.unique.jitter_ms.max - alone.unique.jitter_ms.max).abs() < 1e-9;
        prop_assert!(close, "{} for {}", together.unique.jitter_ms.max, alone.unique.jitter_ms.max);
    }

    #[test]
    fn jitter_matches_rfc3550_in_floating_point(packets in jittered()) {
        let mut reference = 0.0_f64;
        let mut greatest = 0.0_f64;
        for pair in packets.windows(2) {
            let arrival = (pair[1].time.0 as f64 - pair[0].time.0 as f64) / 1e6;
            let nominal = f64::from(pair[1].rtp.timestamp.wrapping_sub(pair[0].rtp.timestamp).cast_signed()) / 8.0;
            if arrival < 400.0 {
                reference += ((arrival - nominal).abs() - reference) / 16.0;
                greatest = greatest.max(reference);
            }
        }
        let got = run(&packets).unique.jitter_ms.max;
        prop_assert!((got - greatest).abs() < 1e-6, "{} for {}", got, greatest);
    }
}
