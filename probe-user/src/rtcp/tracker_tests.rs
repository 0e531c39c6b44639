#![expect(clippy::cast_possible_truncation, reason = "what the wire has room for")]

use super::*;
use crate::packet::Endpoint;
use crate::rtcp::report::{Joinable, RoundTripReport, StreamRtcp, join};
use crate::rtp::StreamKey;
use crate::rtp::testing::{flow, packet};

const A: u32 = 0xaaaa_0001;
const B: u32 = 0xbbbb_0002;
const MS: u64 = 1_000_000;

/// RTCP between 10.0.0.1:4001 and 10.0.0.2:5001, as the media of `rtp::testing` has it.
fn there() -> Flow {
    Flow { src: Endpoint::v4([10, 0, 0, 1], 4_001), dst: Endpoint::v4([10, 0, 0, 2], 5_001) }
}

fn back() -> Flow {
    Flow { src: there().dst, dst: there().src }
}

fn datagram(flow: Flow, ms: u64, payload: &[u8]) -> Datagram<'_> {
    Datagram {
        time: Nanos(ms * MS),
        number: ms,
        flow,
        tcp_seq: None,
        payload,
        cut: false,
        claimed: payload.len(),
        evidence: packet(0).evidence,
    }
}

/// Report `ntp_ms` by its sender's clock, with one block: about whom, lost of 256, in all, highest, the report that it
/// answers and how long that was held.
fn report(ssrc: u32, ntp_ms: u64, block: Option<(u32, u8, u32, u32, u64, u64)>) -> Vec<u8> {
    let ntp = ntp_of(ntp_ms);
    let count = u8::from(block.is_some());
    let mut words = vec![ssrc, (ntp >> 32) as u32, ntp as u32, (ntp_ms * 8) as u32, 10, 1_600];
    if let Some((about, fraction, lost, highest, answers, held_ms)) = block {
        let middle = if answers == 0 { 0 } else { (ntp_of(answers) >> 16) as u32 };
        words.extend([about, u32::from(fraction) << 24 | lost, highest, 40, middle]);
        words.push(((held_ms << 16) / 1_000) as u32);
    }
    let mut packet = vec![0x80 | count, 200, 0, words.len() as u8];
    packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    packet
}

fn ntp_of(ms: u64) -> u64 {
    (3_900_000_000 << 32) + (ms << 32) / 1_000
}

fn joined(tracker: &Tracker, ssrc: u32, flow: Flow) -> Result<StreamRtcp, &'static str> {
    let key = StreamKey { flow, ssrc };
    let last_seen = Nanos(30_000 * MS);
    join(tracker, &[Joinable { key, clock_rate: Some(8_000), last_seen, is_encrypted: false }]).remove(0)
}

#[test]
fn the_round_trip_is_the_sum_of_both_sides_of_the_probe() {
    let mut tracker = Tracker::default();
    // 20 ms from here to B and back, 30 ms from here to A and back; neither clock is ours.
    tracker.observe(&datagram(there(), 1_000, &report(A, 777_000, None)));
    tracker.observe(&datagram(back(), 1_520, &report(B, 5_000, Some((A, 0, 0, 100, 777_000, 500)))));
    tracker.observe(&datagram(there(), 6_550, &report(A, 782_550, Some((B, 0, 0, 100, 5_000, 5_000)))));
    let rtcp = joined(&tracker, A, flow()).unwrap();
    let is = |found: Option<RoundTripReport>, ms: f64| {
        found.is_some_and(|found| (found.mean - ms).abs() < 0.1 && found.samples == 1)
    };
    assert!(is(rtcp.round_trip_to_receiver_ms, 20.0), "{:?}", rtcp.round_trip_to_receiver_ms);
    assert!(is(rtcp.round_trip_to_sender_ms, 30.0), "{:?}", rtcp.round_trip_to_sender_ms);
    assert!(is(rtcp.round_trip_ms, 50.0), "{:?}", rtcp.round_trip_ms);
    assert_eq!(rtcp.one_way_delay().map(|delay| delay.as_millis()), Some(25));
}

#[test]
fn an_answer_that_comes_before_its_question_gives_no_round_trip() {
    let mut tracker = Tracker::default();
    tracker.observe(&datagram(there(), 1_000, &report(A, 777_000, None)));
    tracker.observe(&datagram(back(), 1_020, &report(B, 5_000, Some((A, 0, 0, 100, 777_000, 500)))));
    assert_eq!(tracker.totals().implausible_round_trips, 1);
    let rtcp = joined(&tracker, A, flow()).unwrap();
    assert_eq!(rtcp.round_trip_absent_because, Some("no report answers another one that was seen here"));
}

#[test]
fn the_far_end_is_reported_beside_us_and_the_copy_changes_nothing() {
    let mut tracker = Tracker::default();
    for step in 0..5_u32 {
        let at = u64::from(step) * 5_000 + 1_000;
        let sent = report(A, at, None);
        let answer = report(B, at, Some((A, 26, step * 25, 1_000 + step * 250, 0, 0)));
        for copy_ms in [0, 1] {
            tracker.observe(&datagram(there(), at + copy_ms, &sent));
            tracker.observe(&datagram(back(), at + 100 + copy_ms, &answer));
        }
    }
    assert_eq!((tracker.totals().read, tracker.totals().copies), (10, 10));
    let rtcp = joined(&tracker, A, flow()).unwrap();
    assert_eq!((rtcp.sender_reports, rtcp.receiver_reports, rtcp.joined_by), (5, 5, "addresses"));
    let far = rtcp.far_end.unwrap();
    assert_eq!((far.lost_percent, far.cumulative_lost, far.highest_seq), (Some(10.0), 100, 2_000));
    assert_eq!(far.jitter_ms.map(|jitter| jitter.max), Some(5.0));
    assert!((far.silent_s - 8.9).abs() < 1e-9, "{}", far.silent_s);
    assert!(rtcp.sender_clock.is_some_and(|clock| clock.skew_ppm.abs() < 0.01 && clock.reports == 5));
}

#[test]
fn a_receiver_that_fills_in_nothing_is_no_proof_of_a_perfect_call() {
    let mut tracker = Tracker::default();
    for step in 0..4 {
        tracker.observe(&datagram(there(), step * 5_000, &report(A, step * 5_000, None)));
        let mut empty = report(B, step * 5_000, Some((A, 0, 0, 100, 0, 0)));
        // Its jitter, too.
        empty[40..44].fill(0);
        tracker.observe(&datagram(back(), step * 5_000 + 9, &empty));
    }
    let rtcp = joined(&tracker, A, flow()).unwrap();
    assert_eq!((rtcp.receiver_reports, rtcp.far_end), (4, None));
    assert!(rtcp.far_end_absent_because.unwrap().contains("empty"));
}

#[test]
fn reports_of_other_hosts_are_not_a_streams_own() {
    let mut tracker = Tracker::default();
    tracker.observe(&datagram(there(), 1_000, &report(A, 1_000, None)));
    let mut elsewhere = flow();
    elsewhere.src.address[15] = 77;
    let keys = [flow(), elsewhere].map(|flow| Joinable {
        key: StreamKey { flow, ssrc: A },
        clock_rate: None,
        last_seen: Nanos(0),
        is_encrypted: false,
    });
    let found: Vec<_> =
        join(&tracker, &keys).into_iter().map(|rtcp| rtcp.map(|rtcp| rtcp.joined_by)).collect();
    assert_eq!(found, [Ok("addresses"), Err("no RTCP was seen")]);
    // Alone with its SSRC, the second one's hosts do not matter.
    assert_eq!(join(&tracker, &keys[1..])[0].as_ref().map(|rtcp| rtcp.joined_by), Ok("ssrc"));
}

#[test]
fn a_flood_of_participants_stays_bounded_and_is_counted() {
    let mut tracker = Tracker::default();
    let more = 5_000;
    for ssrc in 0..MAX_PARTICIPANTS as u32 + more {
        tracker.observe(&datagram(there(), u64::from(ssrc), &report(ssrc, 1_000, None)));
    }
    assert_eq!(tracker.totals().participants_evicted, u64::from(more));
    assert_eq!((tracker.participants.len(), tracker.order.len()), (MAX_PARTICIPANTS, MAX_PARTICIPANTS));
}

#[test]
fn floods_of_streams_and_of_participants_under_one_ssrc_do_not_multiply() {
    // A pair of ports each: 400 million matches, if each were tried with each.
    let ports = |flow: Flow, nth: u16| Flow {
        src: Endpoint { port: 10_000 + nth, ..flow.src },
        dst: Endpoint { port: 10_000 + nth, ..flow.dst },
    };
    let mut tracker = Tracker::default();
    for nth in 0..20_000 {
        tracker.observe(&datagram(ports(there(), nth), 1_000, &report(A, 1_000, None)));
    }
    tracker.observe(&datagram(ports(there(), 7), 2_000, &report(A, 2_000, None)));
    let keys: Vec<_> = (0..20_000)
        .map(|nth| Joinable {
            key: StreamKey { flow: ports(flow(), nth), ssrc: A },
            clock_rate: None,
            last_seen: Nanos(0),
            is_encrypted: false,
        })
        .collect();
    let found = join(&tracker, &keys);
    let is_joined = |rtcp: &Result<StreamRtcp, _>| {
        rtcp.as_ref().is_ok_and(|rtcp| (rtcp.joined_by, rtcp.sender_reports) == ("addresses", 2))
    };
    assert!(found.len() == 20_000 && found.iter().all(is_joined));
}

#[test]
fn control_characters_of_a_name_are_not_printed() {
    assert_eq!(&*text(b"a\x1b[31mb"), "a\u{fffd}[31mb");
    assert_eq!(text(&[b'x'; 300]).len(), MAX_TEXT);
}
