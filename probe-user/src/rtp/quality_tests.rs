//! What is said of a stream as a whole, from packets in to figures out.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::pipeline::table::{Limits, StreamTable};
use crate::report::contract::StreamReport;
use crate::rtp::Stream;
use crate::rtp::codec::{Announcement, Payload};
use crate::rtp::stream::StreamParts;
use crate::rtp::testing::packet;

const MS: u64 = 1_000_000;

fn announced(payloads: &[(u8, &str, u32)]) -> Arc<Announcement> {
    let payload =
        |&(number, name, clock_rate): &(u8, &str, u32)| Payload { number, name: name.into(), clock_rate };
    Arc::new(Announcement { payloads: payloads.iter().map(payload).collect(), ..Announcement::default() })
}

fn run_as(packets: &[RtpPacket], announcement: Arc<Announcement>, settings: Settings) -> StreamParts {
    let epoch = packets[0].time;
    let mut stream = Stream::judged(&packets[0], 1, epoch, announcement, Arc::new(settings));
    for packet in &packets[1..] {
        stream.observe(packet, epoch);
    }
    stream.into_parts()
}

fn run(packets: &[RtpPacket]) -> StreamParts {
    run_as(packets, Arc::default(), Settings::USUAL)
}

fn report(parts: StreamParts) -> StreamReport {
    StreamReport::new(parts, 0.0)
}

/// Makes all that follow, from `at` on, arrive later.
fn pause(packets: &mut [RtpPacket], at: usize, ms: u64) {
    packets[at..].iter_mut().for_each(|packet| packet.delay(ms * MS));
}

/// Moves the timestamps from `at` on.
fn shift(packets: &mut [RtpPacket], at: usize, ticks: u32) {
    for packet in &mut packets[at..] {
        packet.rtp.timestamp = packet.rtp.timestamp.wrapping_add(ticks);
    }
}

#[test]
fn digits_and_talkspurts_make_no_jitter() {
    let mut packets: Vec<_> = (0..1_000).map(packet).collect();
    // A digit: eight packets of one timestamp, at the pace of speech, begun by a marker.
    let start = packets[200].rtp.timestamp;
    for packet in &mut packets[200..208] {
        (packet.rtp.payload_type, packet.rtp.timestamp) = (101, start);
    }
    packets[200].rtp.marker = true;
    // Silence that is counted, then one that is not, then one with comfort noise in it.
    pause(&mut packets, 400, 300);
    shift(&mut packets, 400, 2_400);
    packets[400].rtp.marker = true;
    pause(&mut packets, 600, 350);
    packets[600].rtp.marker = true;
    packets[800].rtp.payload_type = 13;
    pause(&mut packets, 801, 2_000);
    shift(&mut packets, 801, 16_000);
    let announcement = announced(&[(0, "PCMU", 8000), (101, "telephone-event", 8000)]);
    let parts = run_as(&packets, announcement, Settings::USUAL);
    assert_eq!((parts.unique.jitter_ms.max, parts.jitter.max_ns()), (0.0, Some(0)));
    assert_eq!((parts.quality.variation.max_ns(), parts.quality.discarded), (Some(0), 0));
    assert_eq!((parts.interruption_count, parts.quality.change_count), (0, 0));
    assert!(parts.unique.first_copies.unwrap().clock_drift_ppm.unwrap().abs() < 1e-6);
}

/// 656 packets of 13 s; for 1.8 s there is none, and the timestamp stands still. RTP analysis shows -19 % of drift.
#[test]
fn the_gap_of_the_story_is_an_event_and_no_drift() {
    let mut packets: Vec<_> = (0..656).map(packet).collect();
    pause(&mut packets, 330, 1_790);
    let report = report(run(&packets));
    assert!(report.raw.clock_drift_percent.unwrap() < -15.0, "{:?}", report.raw.clock_drift_percent);
    let own = report.unique.first_copies.unwrap();
    assert!(own.clock_drift_ppm.unwrap().abs() < 1e-6, "{own:?}");
    let found = &report.interruptions[0];
    assert_eq!((found.kind, found.gap.packet, found.gap.missing, report.unique.lost), ("gap", 331, 0, 0));
    assert!((found.jump_s.unwrap() + 1.79).abs() < 1e-9 && (found.time_s - 8.39).abs() < 1e-9, "{found:?}");
}

#[test]
fn a_timestamp_that_jumps_is_an_event_and_no_jitter() {
    let mut packets: Vec<_> = (0..1_200).map(packet).collect();
    shift(&mut packets, 600, 80_000);
    let report = report(run(&packets));
    let kinds: Vec<_> = report.interruptions.iter().map(|found| (found.kind, found.gap.packet)).collect();
    assert_eq!(kinds, [("timestamp_jump", 601)]);
    assert_eq!((report.unique.jitter_ms.max, report.unique.skew_ms.max), (0.0, 0.0));
    assert!(report.unique.first_copies.unwrap().clock_drift_ppm.unwrap().abs() < 1e-6);
}

#[test]
fn a_sender_that_is_fast_drifts_and_the_contract_says_so_in_all_its_units() {
    let packets: Vec<_> = (0..3_000)
        .map(|n| {
            let mut packet = packet(n);
            // 500 ppm fast: each packet 10 us early.
            packet.tap_time.0 -= n * 10_000;
            packet
        })
        .collect();
    let report = report(run(&packets));
    let own = report.unique.first_copies.unwrap();
    assert!((own.clock_drift_ppm.unwrap() - 500.25).abs() < 0.1, "{own:?}");
    assert!((report.unique.clock_drift_percent.unwrap() - 0.050_025).abs() < 1e-5);
    assert!((report.unique.clock_hz.unwrap() - 8_004.002).abs() < 0.01);
    assert!((report.unique.clock_drift_ms.unwrap() - 29.99).abs() < 0.01);
}

#[test]
fn time_is_that_of_the_tap_not_of_the_tunnel_it_came_by() {
    let packets: Vec<_> = (0..500)
        .map(|n| {
            let mut packet = packet(n);
            packet.time.0 += n * n % 97 * MS;
            packet
        })
        .collect();
    let parts = run(&packets);
    assert_eq!((parts.unique.jitter_ms.max, parts.quality.variation.max_ns()), (0.0, Some(0)));
    assert_eq!((parts.unique.duration_s, parts.unique.skew_ms.max), (9.98, 0.0));
}

#[test]
fn an_unannounced_rate_is_estimated_and_marked() {
    let packets: Vec<_> = (0..500)
        .map(|n| {
            let mut packet = packet(n);
            packet.rtp.payload_type = 111;
            packet.rtp.timestamp = packet.rtp.timestamp.wrapping_mul(6);
            packet
        })
        .collect();
    let estimated = report(run(&packets));
    assert_eq!(
        (estimated.clock_rate, estimated.clock_rate_source),
        (Some(48_000), Some(crate::rtp::rate::RateSource::Estimated))
    );
    let reason = "no SDP, and a dynamic payload type; timestamps advance by 48000 a second, over 1.0 s";
    assert_eq!(estimated.clock_rate_because.as_deref(), Some(reason));
    // All but the second that it took.
    assert_eq!(estimated.jitter_buffer.map(|buffer| buffer.packets), Some(450));
    let brief = report(run(&packets[..40]));
    assert_eq!((brief.clock_rate, brief.clock_rate_source), (None, None));
    assert!(brief.jitter_absent_because.unwrap().contains("less than 1 s to estimate it from"));
}

#[test]
fn too_late_is_received_but_counts_in_bursts_and_in_the_score() {
    let mut packets: Vec<_> = (0..1_000).map(packet).collect();
    for at in [300, 301, 302] {
        packets[at].delay(150 * MS);
    }
    packets.sort_by_key(|packet| packet.time);
    let judged = |jitter_buffer: &str| {
        let settings = Settings { jitter_buffer: jitter_buffer.parse().unwrap(), ..Settings::USUAL };
        report(run_as(&packets, Arc::default(), settings))
    };
    let usual = judged("60ms");
    assert_eq!((usual.unique.lost, usual.delivery.discarded, usual.bursts.discarded), (0, 3, 3));
    assert_eq!((usual.delivery.late, usual.bursts.loss_runs[0]), (3, 0));
    // 0.3 % in one run of three: BurstR is 3 * 0.997.
    let heard = &usual.heard;
    assert!((heard.loss_percent - 0.3).abs() < 1e-9 && (heard.burst_ratio - 2.991).abs() < 1e-9, "{heard:?}");
    let deep = judged("200ms");
    assert_eq!((deep.delivery.discarded, deep.bursts.discarded), (0, 0));
    let (worse, better) = (usual.mos.unwrap(), deep.mos.unwrap());
    assert!(worse.r_factor < better.r_factor - 1.0 && (better.r_factor - 93.2).abs() < 1e-9);
    assert!(worse.assumptions.contains("a jitter buffer of 60 ms"), "{}", worse.assumptions);
}

#[test]
fn three_cycles_of_sequence_numbers_lose_exactly_what_was_dropped() {
    let packets: Vec<_> = (0..200_000).filter(|n| n % 100 != 50).map(packet).collect();
    let parts = run(&packets);
    assert_eq!((parts.unique.expected, parts.unique.lost, parts.loss.runs()[0]), (200_000, 2_000, 2_000));
    assert!((parts.loss.burst_ratio() - 1.0).abs() < 0.02);
}

#[test]
fn a_change_of_codec_is_named_and_noise_and_digits_are_none() {
    let mut packets: Vec<_> = (0..300).map(packet).collect();
    packets[50].rtp.payload_type = 13;
    packets[60..64].iter_mut().for_each(|packet| packet.rtp.payload_type = 101);
    packets[100..200].iter_mut().for_each(|packet| packet.rtp.payload_type = 18);
    let announcement = announced(&[(0, "PCMU", 8000), (18, "G729", 8000), (101, "telephone-event", 8000)]);
    let report = report(run_as(&packets, announcement, Settings::USUAL));
    let changes: Vec<_> = report
        .codec_changes
        .iter()
        .map(|found| (found.change.packet, found.from_codec.as_deref(), found.to_codec.as_deref()))
        .collect();
    assert_eq!(changes, [(101, Some("PCMU"), Some("G729")), (201, Some("G729"), Some("PCMU"))]);
}

#[test]
fn intervals_add_up_to_the_life() {
    let packets: Vec<_> = (0..500)
        .map(|n| {
            let mut packet = packet(n);
            packet.delay(if n % 50 == 49 { 90 * MS } else { n % 7 * MS });
            packet
        })
        .collect();
    let epoch = packets[0].time;
    let mut stream = Stream::new(&packets[0], 1, epoch, Arc::default());
    let (mut discarded, mut variation) = (0, MicrosHistogram::default());
    for (at, packet) in packets.iter().enumerate().skip(1) {
        stream.observe(packet, epoch);
        if at % 120 == 0 || at == 499 {
            let interval = stream.close_interval().quality;
            discarded += interval.discarded;
            variation.merge(&interval.variation);
        }
    }
    let parts = stream.into_parts();
    assert_eq!((parts.quality.discarded, discarded), (10, 10));
    assert_eq!(parts.quality.variation, variation);
}

/// Packets with their own lateness, in order of arrival.
fn late_packets() -> impl Strategy<Value = Vec<RtpPacket>> {
    prop::collection::vec((0_u64..200 * MS, prop::bool::weighted(0.1)), 2..600).prop_map(|list| {
        let mut packets: Vec<_> = (65_300..)
            .zip(&list)
            .filter(|(seq, (_, dropped))| *seq == 65_300 || !dropped)
            .map(|(seq, (late_ns, _))| {
                let mut packet = packet(seq);
                packet.delay(*late_ns);
                packet
            })
            .collect();
        packets.sort_by_key(|packet| packet.time);
        packets
    })
}

proptest! {
    /// Each packet is judged when it arrives and settled, in sequence, long after: nothing is lost on the way.
    #[test]
    fn every_discard_is_settled_at_its_own_number(packets in late_packets()) {
        // A second tap sees each packet 38 us later, and its sightings change nothing.
        let mut copied = Vec::new();
        for packet in &packets {
            let mut copy = *packet;
            copy.delay(38_000);
            copy.evidence.dst_mac = [9; 6];
            copied.extend([*packet, copy]);
        }
        copied.sort_by_key(|packet| packet.time);
        let parts = run(&packets);
        let bursts = parts.loss.bursts(20.0);
        prop_assert_eq!(&run(&copied).loss.bursts(20.0), &bursts);
        prop_assert_eq!(bursts.discarded, parts.quality.discarded);
        prop_assert_eq!(bursts.lost.cast_signed(), parts.unique.lost);
        // The same by definition: too late against the packet that set the pace, afresh after 16 in a row.
        let transit = |packet: &RtpPacket| {
            let nominal = f64::from(packet.rtp.timestamp.wrapping_sub(packets[0].rtp.timestamp).cast_signed());
            packet.tap_time.since(packets[0].tap_time) as f64 / 1e6 - nominal / 8.0
        };
        let (mut pace, mut in_a_row, mut late) = (0.0, 0, 0);
        for packet in &packets {
            if in_a_row == 16 {
                (pace, in_a_row) = (transit(packet), 0);
            } else if transit(packet) - pace > 60.0 {
                (late, in_a_row) = (late + 1, in_a_row + 1);
            } else {
                in_a_row = 0;
            }
        }
        prop_assert_eq!(parts.quality.discarded, late);
    }

    #[test]
    fn how_streams_are_interleaved_changes_nothing(
        a in late_packets(),
        b in late_packets(),
        order in prop::collection::vec(any::<bool>(), 1_200),
    ) {
        let mut b = b;
        for packet in &mut b {
            packet.rtp.ssrc = 2;
        }
        let figures = |order: &mut dyn Iterator<Item = bool>| {
            let mut table = StreamTable::new(Limits { streams: 10, idle: None, quality: Arc::default() });
            table.set_epoch(Nanos(0));
            let (mut a, mut b) = (a.iter(), b.iter());
            loop {
                let next = if order.next() == Some(true) {
                    a.next().or_else(|| b.next())
                } else {
                    b.next().or_else(|| a.next())
                };
                let Some(packet) = next else { break };
                table.observe(packet);
            }
            let mut found = HashMap::new();
            table.finish(|parts| {
                let ssrc = parts.key.ssrc;
                let report = serde_json::to_value(StreamReport::new(parts, 0.0)).unwrap();
                found.insert(ssrc, report);
            });
            found
        };
        prop_assert_eq!(figures(&mut order.iter().copied()), figures(&mut std::iter::repeat(true)));
    }

    /// What a run counts in 32 bits is what the whole stream does in 64.
    #[test]
    fn less_than_a_second_is_the_same_in_half_the_bits(amount in prop_oneof![0.0..1e9, 0.0..10.0]) {
        prop_assert_eq!(u64::from(few_ns(amount)), whole_ns(amount));
    }

    /// Sequence storms, timestamps at random, clocks that go back: bounded memory, finite figures, no panic.
    #[test]
    fn whatever_comes_is_bounded(
        storm in prop::collection::vec((any::<u16>(), any::<u32>(), 0_u64..1 << 42, 0_u8..128, any::<bool>()), 2..400)
    ) {
        let packets: Vec<_> = storm
            .iter()
            .map(|(seq, timestamp, at, payload_type, marker)| {
                let mut packet = packet(u64::from(*seq));
                packet.rtp.timestamp = *timestamp;
                packet.rtp.payload_type = *payload_type;
                packet.rtp.marker = *marker;
                (packet.time, packet.tap_time) = (Nanos(*at), Nanos(at ^ 0xffff));
                packet
            })
            .collect();
        let parts = run(&packets);
        prop_assert!(parts.interruptions.len() <= 16 && parts.quality.changes.len() <= MAX_CHANGES);
        let text = serde_json::to_string(&StreamReport::new(parts, 0.0)).unwrap();
        // JSON has no word for what is not a number: serde writes null.
        prop_assert!(!text.contains("\"value\":null") && !text.contains("_ms\":null,\"skew"), "{}", text);
    }
}
