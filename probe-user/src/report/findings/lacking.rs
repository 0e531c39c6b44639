//! Findings about what a capture lacks through no fault of the network: a direction, packets of all streams at once, what a
//! remote capture says that it dropped.

use rustc_hash::FxHashSet;

use super::super::contract::{Finding, Report, Severity, StreamReport};
use super::super::words;
use super::EXAMPLES;

/// Packets from which a stream without its other direction says something: five seconds.
const ONE_WAY_PACKETS: u64 = 250;
/// SIP messages of which none comes back.
const ONE_WAY_MESSAGES: u64 = 3;
/// Holes that begin and end within this of each other are one hole.
const SAME_INSTANT_S: f64 = 0.05;
/// Streams with a hole at the same instant.
const STREAMS_WITH_HOLE: usize = 3;
/// Holes that are held against each other. Where more streams than that have theirs at one instant, the first of it is as good a
/// beginning as the next.
const MOST_LOOKED_AT: usize = 4_000_000;

pub(super) fn find(report: &Report) -> impl Iterator<Item = Finding> {
    [one_direction(report), holes_at_one_instant(report), remote_drops(report)].into_iter().flatten()
}

/// Nothing comes back, neither signalling nor media: no network is like that, but a mirror of one direction is.
fn one_direction(report: &Report) -> Option<Finding> {
    let long = || report.streams.iter().filter(|stream| stream.unique.packets >= ONE_WAY_PACKETS);
    let ways: FxHashSet<_> =
        report.streams.iter().map(|stream| (stream.src.address, stream.dst.address)).collect();
    let comes_back = |stream: &StreamReport| ways.contains(&(stream.dst.address, stream.src.address));
    let streams = long().count();
    let sip = &report.sip;
    let is_sip_one_way =
        sip.pairs_both_ways == 0 && sip.pairs_one_way > 0 && sip.messages >= ONE_WAY_MESSAGES;
    let no_sip = sip.messages == 0;
    // Where nothing shows that there was an answer, nobody may have answered; of what is cut, most is not known.
    let is_answered = streams > 0 || sip.proofs_of_answers > 0 || sip.kinds.has_responses();
    if long().any(comes_back)
        || !(is_sip_one_way && is_answered || no_sip && streams >= 2)
        || sip.captured.is_most()
    {
        return None;
    }
    let worst = report.streams.first();
    Some(Finding {
        id: "one-direction-only",
        severity: Severity::Warn,
        title: "only one direction of the calls is in the capture".to_owned(),
        detail: format!(
            "{}{}. A call needs both, so it is the capture that sees one: one direction of a mirror port, or one of two \
             asymmetric paths. Nothing can be said of the other direction.",
            if is_sip_one_way {
                format!("{}, and not one answers another", words::count(sip.messages, "SIP message"))
            } else {
                "No SIP".to_owned()
            },
            match worst {
                Some(stream) if streams > 0 => format!(
                    "; {}, none with its counterpart (as {} → {})",
                    words::count(streams as u64, "stream"),
                    stream.src,
                    stream.dst
                ),
                _ => String::new(),
            }
        ),
        advice: "mirror both directions of the port (received and transmitted), on one capture interface"
            .to_owned(),
        evidence: report.calls.iter().map(|of| of.call.first_frame).take(EXAMPLES).collect(),
    })
}

/// Streams that have nothing in common but the capture, and miss packets at the same instant.
fn holes_at_one_instant(report: &Report) -> Option<Finding> {
    let mut holes: Vec<(f64, f64, &StreamReport, u64, u64)> = Vec::new();
    for stream in &report.streams {
        for found in stream.interruptions.iter().filter(|found| found.gap.missing > 0) {
            let end_s = found.gap.at.0 as f64 / 1e9;
            holes.push((end_s, found.gap.silence_s, stream, found.gap.packet, found.gap.missing));
        }
    }
    holes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut worst = Vec::new();
    let mut looked_at = 0;
    for (from, first) in holes.iter().enumerate() {
        let (mut together, mut ends) = (Vec::new(), FxHashSet::default());
        let alike = holes.iter().skip(from).take_while(|hole| hole.0 - first.0 <= SAME_INSTANT_S);
        for hole in alike.inspect(|_| looked_at += 1) {
            // Neither the sender nor the receiver of another: those may share a line.
            let (src, dst) = (hole.2.src.address, hole.2.dst.address);
            let is_alike = (hole.1 - first.1).abs() <= 2.0 * SAME_INSTANT_S;
            if is_alike && !ends.contains(&src) && !ends.contains(&dst) {
                ends.extend([src, dst]);
                together.push(hole);
            }
        }
        if together.len() >= worst.len() {
            worst = together;
        }
        if looked_at > MOST_LOOKED_AT {
            break;
        }
    }
    if worst.len() < STREAMS_WITH_HOLE {
        return None;
    }
    let missing: u64 = worst.iter().map(|hole| hole.4).sum();
    Some(Finding {
        id: "loss-made-by-the-capture",
        severity: Severity::Bad,
        title: format!("{} unrelated streams miss packets at the same instant", worst.len()),
        detail: format!(
            "{} packets, for {:.2} s, in streams that share neither sender nor receiver. What they share is the capture: \
             it lost these packets (a full buffer, a busy disk, a mirror port that carries more than it can).",
            words::thousands(missing),
            worst.first().map_or(0.0, |hole| hole.1),
        ),
        advice: "do not hold this loss against the network; capture with a larger buffer (tcpdump -B), less load on the \
                 mirror port, or a filter"
            .to_owned(),
        evidence: worst.iter().map(|hole| hole.3).take(EXAMPLES).collect(),
    })
}

/// A remote capture that says itself what it dropped.
fn remote_drops(report: &Report) -> Option<Finding> {
    let dropped = |capture: &&crate::decode::RemoteCapture| {
        capture.statistics.map_or(0, |said| said.kernel_dropped.saturating_add(said.interface_dropped))
    };
    let worst = report.capture.remote_captures.iter().max_by_key(dropped).filter(|one| dropped(one) > 0)?;
    Some(Finding {
        id: "loss-made-by-the-capture",
        severity: Severity::Warn,
        title: format!("the remote capture on {} dropped {} frames", worst.server, dropped(&worst)),
        detail: "Its own statistics say so. Packets that are missing inside it may have been on the wire."
            .to_owned(),
        advice: "do not hold loss that only the remote capture shows against the network".to_owned(),
        evidence: worst.statistics.iter().map(|said| said.frame).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::contract::testing::{found, interrupted, report, stream};
    use super::*;
    use crate::packet::{Endpoint, Nanos};

    #[test]
    fn media_and_signalling_that_nobody_answers_is_half_a_capture() {
        let mut one_way = stream();
        one_way.unique.packets = 500;
        let mut half = report(vec![one_way.clone()]);
        half.sip.messages = 5;
        half.sip.pairs_one_way = 1;
        assert_eq!(found(&find(&half).collect::<Vec<_>>(), "one-direction-only").severity, Severity::Warn);
        half.sip.captured.cut = 1;
        assert!(find(&half).next().is_none(), "what is cut says nothing of the direction");
        half.sip.captured.cut = 0;
        half.streams.clear();
        assert!(find(&half).next().is_none(), "there was no answer, as far as is known");
        half.sip.proofs_of_answers = 1;
        assert_eq!(found(&find(&half).collect::<Vec<_>>(), "one-direction-only").severity, Severity::Warn);
        half.streams.push(one_way.clone());
        half.sip.pairs_both_ways = 1;
        assert!(find(&half).next().is_none(), "one-way audio is the call's, not the capture's");
        let back = StreamReport { src: one_way.dst, dst: one_way.src, ..one_way.clone() };
        let whole = report(vec![one_way, back]);
        assert!(find(&whole).next().is_none());
    }

    #[test]
    fn holes_of_unrelated_streams_at_one_instant_are_the_captures() {
        let hole = |host: u8, peer: u8| {
            let mut stream = interrupted(1.0, 50, false);
            stream.src = Endpoint::v4([10, 0, 0, host], 4000);
            stream.dst = Endpoint::v4([10, 0, 1, peer], 4000);
            stream
        };
        let unrelated = report((0..4).map(|host| hole(host, host)).collect());
        let found_it = found(&unrelated.findings, "loss-made-by-the-capture");
        assert!(found_it.title.starts_with("4 unrelated streams"), "{}", found_it.title);
        // All to one receiver: that is its line.
        let one_line = report((0..4).map(|host| hole(host, 1)).collect());
        assert!(one_line.findings.iter().all(|finding| finding.id != "loss-made-by-the-capture"));
    }

    /// Streams with a hole each: who sends and who receives, when it ended, how long it was.
    fn holes(all: &[([u8; 4], [u8; 4], u64, f64)]) -> Report {
        let hole = |(src, dst, ended_ms, silence_s): &([u8; 4], [u8; 4], u64, f64)| {
            let mut stream = interrupted(*silence_s, 50, false);
            (stream.src, stream.dst) = (Endpoint::v4(*src, 4000), Endpoint::v4(*dst, 4000));
            stream.interruptions[0].gap.at = Nanos(ended_ms * 1_000_000);
            stream
        };
        report(all.iter().map(hole).collect())
    }

    /// By the definition: from each hole on, those alike that share no address with one before.
    fn most_at_one_instant(all: &[([u8; 4], [u8; 4], u64, f64)]) -> usize {
        let mut all = all.to_vec();
        all.sort_by_key(|hole| hole.2);
        let count = |from: usize| {
            let mut ends: Vec<[u8; 4]> = Vec::new();
            let mut count = 0;
            for hole in all.iter().skip(from) {
                let is_alike = hole.2 - all[from].2 <= 50 && (hole.3 - all[from].3).abs() <= 0.1;
                if is_alike && !ends.contains(&hole.0) && !ends.contains(&hole.1) {
                    ends.extend([hole.0, hole.1]);
                    count += 1;
                }
            }
            count
        };
        (0..all.len()).map(count).max().unwrap_or(0)
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        #[test]
        fn as_many_streams_are_told_as_the_definition_finds(
            all in proptest::collection::vec((0..12_u8, 0..12_u8, 0..60_u64, 0..4_u8), 0..40),
        ) {
            let all: Vec<_> = all
                .into_iter()
                .map(|(src, dst, at, length)| {
                    ([10, 0, 0, src], [10, 0, 1, dst], 1_000 + 3 * at, 1.0 + f64::from(length) * 0.07)
                })
                .collect();
            let most = most_at_one_instant(&all);
            let told = holes_at_one_instant(&holes(&all)).map(|finding| finding.title);
            let expected = (most >= STREAMS_WITH_HOLE)
                .then(|| format!("{most} unrelated streams miss packets at the same instant"));
            proptest::prop_assert_eq!(told, expected);
        }
    }

    /// A switch that restarts: each with each would be 27 thousand millions.
    #[test]
    fn thousands_of_streams_with_a_hole_at_one_instant_are_told_at_once() {
        let host = |network: u8, n: u16| {
            let [high, low] = n.to_be_bytes();
            [10, network, high, low]
        };
        let all: Vec<_> =
            (0..3_000).map(|n| (host(0, n), host(1, n), 1_000 + u64::from(n % 40), 1.0)).collect();
        let told = holes_at_one_instant(&holes(&all)).unwrap();
        assert_eq!(told.title, "3000 unrelated streams miss packets at the same instant");
    }
}
