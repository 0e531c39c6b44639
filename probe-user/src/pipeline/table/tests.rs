//! The table by what it says of streams, and against streams that were never in one.

use std::collections::BTreeMap;

use super::*;
use crate::rtp::testing::packet;
use proptest::prelude::*;

fn stream(ssrc: u32, seq: u64) -> RtpPacket {
    let mut packet = packet(seq);
    packet.rtp.ssrc = ssrc;
    packet
}

fn table(streams: usize, idle_s: u64) -> StreamTable {
    let idle = Some(std::time::Duration::from_secs(idle_s));
    StreamTable::new(Limits { streams, idle, quality: Arc::default() })
}

#[test]
fn a_flood_of_sources_stays_bounded_and_spares_the_streams_that_proved_themselves() {
    let mut table = table(20, 30);
    for ssrc in 0..10 {
        assert!(table.observe(&stream(ssrc, 1)).1.is_none());
        assert!(table.observe(&stream(ssrc, 2)).1.is_none());
    }
    for ssrc in 1_000..6_000 {
        if let Some(evicted) = table.observe(&stream(ssrc, 3)).1 {
            assert!(!evicted.valid, "{:#x} had proved itself", evicted.key.ssrc);
        }
    }
    assert_eq!((table.len(), table.evicted()), (20, 5_000 - 10));
    let mut valid = 0;
    table.finish(|parts| valid += u32::from(parts.valid));
    assert_eq!(valid, 10);
}

#[test]
fn a_silent_stream_ends_once_and_begins_anew_when_it_comes_back() {
    let mut table = table(20, 30);
    table.observe(&stream(1, 1));
    table.observe(&stream(2, 1));
    table.observe(&stream(2, 1_600)); // 32 s later
    let mut ended = Vec::new();
    table.sweep(Part::WHOLE, stream(2, 1_600).time, |parts| ended.push(parts.key.ssrc));
    assert_eq!(ended, [1]);
    table.observe(&stream(1, 1_601));
    assert_eq!(table.len(), 2);
}

#[test]
fn a_stream_that_was_shed_ends_without_a_gap_when_it_comes_back() {
    let mut table = table(20, 1_000);
    for seq in 1..=100 {
        table.observe(&stream(1, seq));
        table.observe(&stream(2, seq));
    }
    let silent_since = stream(1, 150).time;
    table.end_shed(Resumed { first: 0, end: 256, silent_since });
    table.observe(&stream(1, 160));
    assert_eq!((table.take_shed().len(), table.len()), (1, 2));
    table.observe(&stream(1, 161));
    assert_eq!((table.observe(&stream(2, 400)).0, table.len()), (FrameClass::Unique, 2));
    let shed = table.take_shed();
    let figures = |parts: &StreamParts| (parts.key.ssrc, parts.unique.packets, parts.unique.lost);
    assert_eq!(shed.iter().map(figures).collect::<Vec<_>>(), [(2, 100, 0)]);
    let mut rest = Vec::new();
    table.finish(|parts| rest.push(figures(&parts)));
    assert_eq!(rest, [(1, 2, 0), (2, 1, 0)]);
}

#[test]
fn an_announcement_reaches_streams_that_began_before_it() {
    let mut table = table(20, 30);
    table.observe(&stream(1, 1));
    let announced = Announcement { call_id: Some("call".into()), ..Announcement::default() };
    table.announce(MediaId(7), Arc::new(announced));
    table.observe(&RtpPacket { media: MediaId(7), ..stream(1, 2) });
    let mut call_id = None;
    table.finish(|parts| call_id = parts.announcement.call_id.clone());
    assert_eq!(call_id.as_deref(), Some("call"));
}

#[test]
fn sizes_are_what_the_documents_say() {
    assert_eq!((size_of::<Hot>(), size_of::<Cold>()), (8 * 64, 296));
}

/// Where its octets are: eight lines, five, 1 KiB of window, and nothing for what did not happen.
#[test]
fn an_orderly_stream_is_a_run_and_a_rest_without_troubles() {
    let mut table = table(20, 30);
    for seq in 1..=200 {
        table.observe(&stream(1, seq));
    }
    let is_calm = |table: &StreamTable| match table.cold.get(0) {
        Some(Cold::Beside(rest)) => rest.has_no_troubles(),
        _ => false,
    };
    assert!(is_calm(&table));
    // An interval leaves no trace in it.
    table.close_intervals(Part::WHOLE, |_, _| ());
    assert!(is_calm(&table));
    // After a loss it is whole beside its run, until that is long.
    table.observe(&stream(1, 202));
    assert!(matches!(table.cold.get(0), Some(Cold::Whole(_))));
    for seq in 203..=1_000 {
        table.observe(&stream(1, seq));
    }
    assert!(matches!(table.cold.get(0), Some(Cold::Beside(rest)) if !rest.has_no_troubles()));
}

#[test]
fn a_run_goes_on_behind_a_gap_beside_a_stream_that_is_whole() {
    let mut table = table(20, 30);
    for seq in (1..=200).chain([202]) {
        table.observe(&stream(1, seq));
    }
    let epoch = stream(1, 1).time;
    let bridges = |table: &mut StreamTable, seq| table.bridge(0, &stream(1, seq), epoch);
    // Neither what comes late, nor too many that are missing, nor what is no gap.
    assert_eq!([201, 203, 300].map(|seq| bridges(&mut table, seq)), [false; 3]);
    assert!(bridges(&mut table, 210) && bridges(&mut table, 212));
    assert!(!table.bridge(0, &RtpPacket { media: MediaId(7), ..stream(1, 214) }, epoch));
    let mut lost = Vec::new();
    table.finish(|parts| lost.push((parts.unique.packets, parts.unique.lost, parts.raw.lost)));
    assert_eq!(lost, [(203, 9, 9)]);
}

/// What a network, taps and a sender do to one packet of a sequence.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Lost,
    Late,
    Copied,
    CopiedByAnotherTap,
    Marked,
    OfAnotherType,
    Jump,
    Delayed(u64),
    TakenElsewhere,
    IntervalEnds,
    TimestampJumps,
}

fn trouble() -> impl Strategy<Value = Trouble> {
    use Trouble::*;
    let plain = [
        Lost,
        Late,
        Copied,
        CopiedByAnotherTap,
        Marked,
        OfAnotherType,
        Jump,
        TakenElsewhere,
        IntervalEnds,
        TimestampJumps,
    ];
    prop_oneof![prop::sample::select(plain.to_vec()), (0_u64..500_000_000).prop_map(Delayed)]
}

/// The packets of a stream that starts at `first`, and after how many of them an interval ends.
fn played(first: u16, troubles: &[(u16, Trouble)]) -> (Vec<RtpPacket>, Vec<usize>) {
    let (mut packets, mut ends) = (Vec::new(), Vec::new());
    let (mut seq, mut shift) = (u64::from(first), 0_u32);
    for (calm, trouble) in troubles {
        for _ in 0..*calm {
            seq += 1;
            let mut packet = packet(seq);
            packet.rtp.timestamp = packet.rtp.timestamp.wrapping_add(shift);
            packet.delay(seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 42);
            packets.push(packet);
        }
        seq += 1;
        let mut packet = packet(seq);
        packet.rtp.timestamp = packet.rtp.timestamp.wrapping_add(shift);
        match *trouble {
            Trouble::Lost => continue,
            Trouble::Late => packets.insert(packets.len().saturating_sub(2), packet),
            Trouble::Copied => packets.push(packet),
            Trouble::CopiedByAnotherTap => {
                packets.push(packet);
                packet.evidence.dst_mac = [9; 6];
                packet.delay(40_000);
            }
            Trouble::Marked => packet.rtp.marker = true,
            Trouble::OfAnotherType => packet.rtp.payload_type = 13,
            Trouble::Jump => seq += 5_000,
            Trouble::Delayed(ns) => packet.delay(ns),
            Trouble::TakenElsewhere => packet.tap_time.0 += 7,
            Trouble::IntervalEnds => ends.push(packets.len()),
            Trouble::TimestampJumps => shift = shift.wrapping_add(40_000),
        }
        packets.push(packet);
    }
    (1..).zip(&mut packets).for_each(|(number, packet)| packet.number = number);
    (packets, ends)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A run is a way to the same figures: whatever interrupts it, a stream that never had one says the same.
    #[test]
    fn a_stream_with_runs_is_the_same_stream(
        first in prop_oneof![Just(0_u16), Just(65_000), any::<u16>()],
        troubles in prop::collection::vec((0_u16..400, trouble()), 1..12),
    ) {
        is_the_same_alone(played(first, &troubles))?;
    }

    /// The same of one that loses packets all the time, so that its runs go from gap to gap: in a narrow window, and in a wide
    /// one.
    #[test]
    fn a_stream_full_of_gaps_is_the_same_stream(
        first in prop_oneof![Just(0_u16), Just(65_000), any::<u16>()],
        troubles in prop::collection::vec(
            (0_u16..12, prop_oneof![20 => Just(Trouble::Lost), 1 => trouble()]),
            1..300,
        ),
        is_wide: bool,
    ) {
        let (mut packets, ends) = played(first, &troubles);
        for packet in packets.iter_mut().filter(|_| is_wide) {
            packet.udp_len += packet.rtp.seq % 3;
        }
        is_the_same_alone((packets, ends))?;
    }
}

/// Is a stream of a table what it is without one?
fn is_the_same_alone((packets, ends): (Vec<RtpPacket>, Vec<usize>)) -> Result<(), TestCaseError> {
    prop_assume!(!packets.is_empty());
    let epoch = packets[0].time;
    let mut table = table(1, 1_000);
    let mut alone = Stream::new(&packets[0], packets[0].number, epoch, Arc::default());
    table.observe(&packets[0]);
    for (at, packet) in packets.iter().enumerate().skip(1) {
        if ends.contains(&at) {
            let mut closed = String::new();
            table.close_intervals(Part::WHOLE, |_, summary| closed = format!("{summary:?}"));
            if alone.is_valid() {
                prop_assert_eq!(closed, format!("{:?}", alone.close_interval()));
            }
        }
        prop_assert_eq!(table.observe(packet).0, alone.observe(packet, epoch));
    }
    let mut parts = String::new();
    table.finish(|stream| parts = format!("{stream:?}"));
    prop_assert_eq!(parts, format!("{:?}", alone.into_parts()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Where an interval of a stream ends depends on the rounds alone: not on what else its table holds.
    #[test]
    fn a_round_closes_a_stream_between_the_same_packets_whatever_else_there_is(
        streams in 1_u32..20,
        of in (0_u32..=10).prop_map(|power| 1_u16 << power),
        packets in 1_u64..60,
        every in 10_u64..200,
    ) {
        let (mut together, mut apart) = (table(40, 1_000), BTreeMap::new());
        let (mut number, mut index) = (0, 0);
        let (mut lines, mut lines_apart) = (BTreeMap::new(), BTreeMap::new());
        for seq in 0..packets {
            for ssrc in 0..streams {
                number += 1;
                let packet = RtpPacket { number, ..stream(ssrc, seq) };
                together.observe(&packet);
                apart.entry(ssrc).or_insert_with(|| table(1, 1_000)).observe(&packet);
                if number % every == 0 {
                    let part = Part { index, of };
                    index = (index + 1) % of;
                    together.close_intervals(part, |stream, summary| note(&mut lines, stream, &summary));
                    for alone in apart.values_mut() {
                        alone.close_intervals(part, |stream, summary| note(&mut lines_apart, stream, &summary));
                    }
                }
            }
        }
        prop_assert_eq!(lines, lines_apart);
    }

    /// As a scan of all streams finds them, if a turn of the wheel takes no time.
    #[test]
    fn a_turn_ends_the_silent_streams_and_no_others(
        heard in prop::collection::vec(0_u64..3_000, 1..200),
        of in (0_u32..=10).prop_map(|power| 1_u16 << power),
    ) {
        let mut table = table(200, 30);
        for (ssrc, seq) in (0..).zip(&heard) {
            table.observe(&RtpPacket { number: u64::from(ssrc) + 1, ..stream(ssrc, *seq) });
        }
        let now = stream(0, 3_000).time;
        let silent = |seq: u64| now.since(stream(0, seq).time) > 30_000_000_000;
        let mut ended = Vec::new();
        for index in 0..of {
            table.sweep(Part { index, of }, now, |parts| ended.push(parts.key.ssrc));
        }
        ended.sort_unstable();
        let naive: Vec<u32> =
            (0..).zip(&heard).filter(|(_, seq)| silent(**seq)).map(|(ssrc, _)| ssrc).collect();
        prop_assert_eq!((table.len(), ended), (heard.len() - naive.len(), naive));
        // Those that stayed, and moved up, are found.
        for (ssrc, seq) in (0..).zip(&heard).filter(|(_, seq)| !silent(**seq)) {
            table.observe(&stream(ssrc, seq + 1));
        }
        prop_assert_eq!(table.len(), heard.iter().filter(|seq| !silent(**seq)).count());
    }
}

fn note(lines: &mut BTreeMap<u32, Vec<String>>, stream: &Stream, summary: &IntervalSummary) {
    lines.entry(stream.key().ssrc).or_default().push(format!("{summary:?}"));
}

#[test]
fn a_batch_is_its_packets_one_after_the_other() {
    let packets: Vec<_> = (0..40_u64)
        .flat_map(|seq| (0..50_u32).map(move |ssrc| RtpPacket { number: seq, ..stream(ssrc % 30, seq) }))
        .collect();
    let (mut batched, mut single) = (table(20, 30), table(20, 30));
    let (mut from_batch, mut one_by_one) = (Vec::new(), Vec::new());
    batched.observe_batch(&packets, |gone| from_batch.push(format!("{gone:?}")));
    one_by_one
        .extend(packets.iter().filter_map(|packet| single.observe(packet).1).map(|gone| format!("{gone:?}")));
    batched.finish(|parts| from_batch.push(format!("{parts:?}")));
    single.finish(|parts| one_by_one.push(format!("{parts:?}")));
    assert_eq!(from_batch, one_by_one);
}
