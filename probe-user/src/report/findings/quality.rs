//! Findings about what a listener hears: clocks, bunches, late packets, codecs.

use super::EXAMPLES;
use crate::report::contract::{Finding, Report, Severity, StreamReport};
use crate::report::words;

/// A clock that is off by more, all of its confidence interval, is worth a word: 60 ms of buffer are gone within 200 s.
/// Crystals of telephones keep 100 ppm.
const DRIFT_PPM: f64 = 300.0;
/// From here it is no clock but another rate than announced: one percent.
const WRONG_RATE_PPM: f64 = 10_000.0;
/// A drift as captured that is worth explaining, in percent, if the clock is none of it.
const APPARENT_PERCENT: f64 = 0.5;
/// Jumps that are worth explaining, in seconds together: one interruption of the least length.
const APPARENT_S: f64 = 0.4;
/// Of it, what interruptions have to make up to be the explanation. A line through everything weighs them by where they
/// are, so the parts do not add up to the whole.
const EXPLAINED: f64 = 0.3;
/// Packets too late for the de-jitter buffer, in percent of those expected, that are heard.
const LATE_PERCENT: f64 = 1.0;

/// All of these.
pub(super) fn find(report: &Report) -> impl Iterator<Item = Finding> {
    [
        late_for_jitter_buffer(report),
        bursty_delivery(report),
        clock_rate_off(report),
        timestamp_jumps(report),
        codec_changed(report),
    ]
    .into_iter()
    .flatten()
}

/// "10.0.0.1:4000 → 10.0.0.2:5000".
fn who(stream: &StreamReport) -> String {
    format!("{} → {}", stream.src, stream.dst)
}

/// The stream for which `of` is greatest, of those for which it is something; and how many those are.
fn worst(report: &Report, of: impl Fn(&StreamReport) -> Option<f64>) -> Option<(&StreamReport, f64, u64)> {
    let found: Vec<_> =
        report.streams.iter().filter_map(|stream| of(stream).map(|value| (stream, value))).collect();
    let count = found.len() as u64;
    let (stream, value) = found.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some((stream, value, count))
}

fn discarded_percent(stream: &StreamReport) -> f64 {
    stream.delivery.discarded as f64 * 100.0 / stream.delivery.expected.max(1) as f64
}

fn late_for_jitter_buffer(report: &Report) -> Option<Finding> {
    let (stream, percent, count) =
        worst(report, |stream| Some(discarded_percent(stream)).filter(|percent| *percent >= LATE_PERCENT))?;
    let buffer = stream.jitter_buffer.as_ref()?;
    let depth = if buffer.judge == "fixed" {
        format!("A jitter buffer of {:.0} ms", buffer.fixed.depth_ms)
    } else {
        "An adaptive jitter buffer".to_owned()
    };
    let delay = stream.pdv_percentiles_us.map_or_else(String::new, |delay| {
        format!(
            " A buffer that holds 99 % of its packets is about {} ms deep; for 99.9 %, {} ms.",
            words::ms(delay.p99),
            words::ms(delay.p999)
        )
    });
    let steps: Vec<_> = stream.jitter_spikes.iter().filter(|spike| spike.is_step).collect();
    let stepped = steps.first().map_or_else(String::new, |first| {
        format!(
            " {} the delay rose from one packet to the next and stayed, first at frame {}: a queue fills and drains; this is a \
             sender that paused and did not count it in its timestamps, or a way that became longer.",
            match steps.len() {
                1 => "Once".to_owned(),
                times => format!("{times} times"),
            },
            first.packet,
        )
    });
    let queue = "find the queue that fills (priority for voice, Wi-Fi, an uplink that is full); a deeper buffer in the \
                 telephone helps at the price of delay";
    let step = "at the steps see whether the sender paused (silence suppression, another source), else whether the route \
                changed; a buffer that begins afresh plays what comes after them";
    let advice = match stream.jitter_spikes.len() - steps.len() {
        _ if steps.is_empty() => queue.to_owned(),
        0 => step.to_owned(),
        _ => format!("{step}; for the rest {queue}"),
    };
    let frames = steps.iter().map(|step| step.packet);
    Some(Finding {
        id: "late-for-jitter-buffer",
        severity: Severity::Warn,
        title: format!("{} with packets that came, but too late to be played", words::count(count, "stream")),
        detail: format!(
            "{depth} discards what comes after it is due; a listener hears that as loss. Worst: {}, {} of {} packets \
             ({percent:.1} %).{delay}{stepped}",
            who(stream),
            words::thousands(stream.delivery.discarded),
            words::thousands(stream.delivery.expected),
        ),
        advice,
        evidence: frames.chain(buffer.examples.iter().copied()).take(EXAMPLES).collect(),
    })
}

/// Packets come in bunches if the middle one of all is off by half a packet time and more: then it is no spike now
/// and then.
fn bursty_delivery(report: &Report) -> Option<Finding> {
    let (stream, share, count) = worst(report, |stream| {
        let packet_us = stream.unique.delta_ms.mean * 1e3;
        let median_us = stream.jitter_percentiles_us?.p50;
        // One packet time and less is what conferences and transcoders do for a reason.
        let spread_us = stream.pdv_percentiles_us?.p99;
        let is_bursty = stream.unique.packets >= 50
            && median_us >= packet_us / 2.0
            && spread_us >= packet_us
            && packet_us > 0.0;
        is_bursty.then_some(median_us / packet_us)
    })?;
    Some(Finding {
        id: "bursty-delivery",
        // A buffer that plays all of it makes bunches good to know, and no more.
        severity: if stream.delivery.discarded > 0 { Severity::Warn } else { Severity::Info },
        title: format!("{} with packets that come in bunches", words::count(count, "stream")),
        detail: format!(
            "Every second packet or more is off by half a packet time. Worst: {}: packets every {:.1} ms on average, \
             but half of them are off by {:.0} % of that or more; shortest distance {:.1} ms, longest {:.1} ms.",
            who(stream),
            stream.unique.delta_ms.mean,
            share * 100.0,
            stream.unique.delta_ms.min,
            stream.unique.delta_ms.max,
        ),
        advice: "look at the sender: a virtual machine or a busy host that wakes too seldom, or interrupt coalescing; \
                 if all senders do it, at the host of the capture"
            .to_owned(),
        evidence: Some(stream.unique.delta_ms.max_packet).filter(|number| *number > 0).into_iter().collect(),
    })
}

/// The drift of a stream's clock, if it is certain that it is more than [`DRIFT_PPM`].
fn certain_drift(stream: &StreamReport) -> Option<(f64, [f64; 2])> {
    let own = stream.unique.first_copies?;
    let (ppm, interval) = own.clock_drift_ppm.zip(own.clock_drift_ppm_ci)?;
    let [low, high] = interval;
    (low > DRIFT_PPM || high < -DRIFT_PPM).then_some((ppm, interval))
}

fn clock_rate_off(report: &Report) -> Option<Finding> {
    let (stream, _, count) = worst(report, |stream| certain_drift(stream).map(|(ppm, _)| ppm.abs()))?;
    let (ppm, [low, high]) = certain_drift(stream)?;
    let (rate, hz) = stream.clock_rate.zip(stream.unique.clock_hz)?;
    let is_rate = ppm.abs() >= WRONG_RATE_PPM;
    let consequence = if is_rate {
        "That is no drift: the timestamps count at another rate than the payload type says, or packets carry more or \
         less time than their timestamps."
            .to_owned()
    } else {
        let buffer_s = 60e-3 / (ppm.abs() / 1e6);
        format!(
            "A buffer of 60 ms runs {} after {buffer_s:.0} s: a click, each time.",
            if ppm > 0.0 { "over" } else { "empty" }
        )
    };
    Some(Finding {
        id: "clock-rate-off",
        severity: Severity::Warn,
        title: format!("{} of a sender whose clock is off", words::count(count, "stream")),
        detail: format!(
            "Worst: {}: {ppm:+.0} ppm (95 % sure: {low:+.0} to {high:+.0}), {hz:.1} Hz in place of {rate}, interruptions \
             and timestamp jumps left out. {consequence}",
            who(stream),
        ),
        advice: if is_rate {
            "compare the clock rate in the SDP with what the sender does; some count G.722 at 16 kHz"
                .to_owned()
        } else {
            "the sender's clock needs a better source; or the capture's does, if all senders are off by as much"
                .to_owned()
        },
        evidence: Vec::new(),
    })
}

/// Drift as a tool shows it that fits one line through everything, when the clock is fine.
fn timestamp_jumps(report: &Report) -> Option<Finding> {
    let jumped_s = |stream: &StreamReport| -> f64 {
        stream.interruptions.iter().filter_map(|found| found.jump_s).map(f64::abs).sum()
    };
    let (stream, percent, count) = worst(report, |stream| {
        let apparent = stream.raw.clock_drift_percent?.abs();
        let apparent_s = stream.raw.clock_drift_ms?.abs() / 1e3;
        let is_jump = apparent >= APPARENT_PERCENT
            && jumped_s(stream) >= APPARENT_S
            && jumped_s(stream) >= EXPLAINED * apparent_s
            && certain_drift(stream).is_none();
        is_jump.then_some(apparent)
    })?;
    let largest = stream
        .interruptions
        .iter()
        .max_by(|a, b| a.jump_s.unwrap_or(0.0).abs().total_cmp(&b.jump_s.unwrap_or(0.0).abs()))?;
    let own = stream.unique.first_copies?;
    let clock = match (own.clock_drift_ppm, own.clock_drift_absent_because) {
        (Some(ppm), _) => format!("Between them its clock is off by {} ppm.", words::signed(ppm, 0)),
        (None, Some(reason)) => format!("Between them its clock cannot be measured ({reason})."),
        (None, None) => String::new(),
    };
    let raw = stream.raw.clock_drift_percent.unwrap_or(percent);
    Some(Finding {
        id: "timestamp-jumps",
        severity: Severity::Info,
        title: format!(
            "the clock drift of {raw:.2} % that RTP analysis shows is no drift: {}",
            if largest.jump_s.unwrap_or(0.0) < 0.0 { "the sender paused" } else { "the timestamp jumped" },
        ),
        detail: format!(
            "{}: {}, {:.2} s together; the largest at frame {}: the timestamp moved {:+.2} s in {:.2} s. {clock} A \
             line through all of it, as RTP analysis draws one, shows that as drift.{}",
            who(stream),
            words::count(stream.interruption_count, "interruption"),
            jumped_s(stream),
            largest.gap.packet,
            largest.gap.timestamp_s.unwrap_or(0.0),
            largest.gap.silence_s,
            if count > 1 {
                format!(" {} more likewise.", words::count(count - 1, "stream"))
            } else {
                String::new()
            },
        ),
        advice: "look at what the call did at these frames (hold, transfer, another source), not at clocks"
            .to_owned(),
        evidence: stream.interruptions.iter().map(|found| found.gap.packet).take(EXAMPLES).collect(),
    })
}

fn codec_changed(report: &Report) -> Option<Finding> {
    let (stream, _, count) =
        worst(report, |stream| (stream.codec_change_count > 0).then_some(stream.codec_change_count as f64))?;
    let first = stream.codec_changes.first()?;
    let name = |codec: &Option<String>, number: u8| {
        codec.as_ref().map_or_else(|| format!("payload type {number}"), |name| words::printable(name))
    };
    Some(Finding {
        id: "codec-changed",
        severity: Severity::Info,
        title: format!("{} changed the codec on the way", words::count(count, "stream")),
        detail: format!(
            "{}: {} times, first at frame {}: {} to {}. A change is heard as a click at most, unless the far end did \
             not expect it.",
            who(stream),
            stream.codec_change_count,
            first.change.packet,
            name(&first.from_codec, first.change.from),
            name(&first.to_codec, first.change.to),
        ),
        advice: "both payload types have to be in the far end's SDP".to_owned(),
        evidence: stream.codec_changes.iter().map(|change| change.change.packet).take(EXAMPLES).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::packet::RtpPacket;
    use crate::report::contract::testing::report;
    use crate::rtp::Stream;
    use crate::rtp::testing::packet;

    /// What is found in one stream of so many packets, changed one by one, in their order of arrival.
    fn found(count: u64, change: impl Fn(u64, &mut RtpPacket)) -> Vec<Finding> {
        let mut packets: Vec<_> = (0..count).map(packet).collect();
        for (n, packet) in (0..).zip(&mut packets) {
            change(n, packet);
        }
        packets.sort_by_key(|packet| packet.time);
        let epoch = packets[0].time;
        let mut stream = Stream::new(&packets[0], 1, epoch, Arc::default());
        for packet in &packets[1..] {
            stream.observe(packet, epoch);
        }
        find(&report(vec![StreamReport::new(stream.into_parts(), 0.0)])).collect()
    }

    fn ids(findings: &[Finding]) -> Vec<&'static str> {
        findings.iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn a_healthy_stream_has_none() {
        assert_eq!(ids(&found(1_000, |n, packet| packet.delay(n * 7 % 3 * 1_000_000))), [""; 0]);
    }

    #[test]
    fn late_packets_are_named_with_the_depth_that_would_have_held_them() {
        let findings = found(1_000, |n, packet| packet.delay(if n % 50 == 49 { 90_000_000 } else { 0 }));
        assert_eq!(ids(&findings), ["late-for-jitter-buffer"]);
        let finding = &findings[0];
        assert_eq!(finding.title, "1 stream with packets that came, but too late to be played");
        for part in ["20 of 1,000 packets (2.0 %)", "about 86.0 ms deep"] {
            assert!(finding.detail.contains(part), "{part} in {}", finding.detail);
        }
        assert_eq!(finding.evidence, [50, 100, 150, 200]);
    }

    /// Pauses of 200 ms, without a marker: what comes after them is late by as much for good, until the reference forgets.
    #[test]
    fn a_sender_that_does_not_count_its_pauses_is_no_queue() {
        let paused = |pauses: u64| {
            move |n: u64, packet: &mut RtpPacket| {
                packet.delay((n / 300).min(pauses) * 200_000_000 + n * 7 % 3 * 1_000_000);
            }
        };
        let findings = found(1_000, paused(2));
        assert_eq!(ids(&findings), ["late-for-jitter-buffer"]);
        let Finding { detail, advice, evidence, .. } = &findings[0];
        assert!(detail.contains("and stayed, first at frame 301: a queue fills and drains"), "{detail}");
        assert!(advice.starts_with("at the steps") && !advice.contains("queue"), "{advice}");
        assert_eq!(evidence[0], 301);
    }

    #[test]
    fn a_queue_that_fills_and_drains_is_no_pause_however_long_it_stands() {
        // It holds up packets for 300 ms at once, or it fills slowly, stands for three seconds, and drains.
        let held_up = |n: u64| if n % 100 < 80 { 0 } else { (100 - n % 100) * 15_000_000 };
        let filled = |n: u64| match n % 500 {
            at @ 0..50 => at * 4_000_000,
            50..200 => 200_000_000,
            at @ 200..250 => (250 - at) * 4_000_000,
            _ => 0,
        };
        for delay in [&held_up as &dyn Fn(u64) -> u64, &filled] {
            let findings = found(2_000, |n, packet| packet.delay(delay(n)));
            let late = findings.iter().find(|finding| finding.id == "late-for-jitter-buffer").unwrap();
            assert!(late.advice.starts_with("find the queue"), "{late:?}");
            assert!(!late.detail.contains("stayed"), "{}", late.detail);
        }
    }

    #[test]
    fn packets_that_wait_for_each_other_are_bunches() {
        // A sender that wakes every 80 ms.
        let findings = found(1_000, |n, packet| packet.delay((3 - n % 4) * 20_000_000));
        assert_eq!(ids(&findings), ["bursty-delivery"]);
        assert!(
            findings[0].detail.contains("shortest distance 0.0 ms, longest 80.0 ms"),
            "{}",
            findings[0].detail
        );
    }

    #[test]
    fn a_clock_and_a_wrong_rate_are_told_apart() {
        let slow = found(2_000, |n, packet| packet.delay(n * 20_000));
        assert_eq!(ids(&slow), ["clock-rate-off"]);
        assert!(
            slow[0].detail.contains("-999 ppm") && slow[0].detail.contains("runs empty"),
            "{}",
            slow[0].detail
        );
        // Announced 8 kHz, sent 8.1.
        let wrong = found(2_000, |n, packet| packet.rtp.timestamp = u32::try_from(n).unwrap() * 162);
        assert_eq!(ids(&wrong), ["clock-rate-off"]);
        assert!(wrong[0].detail.contains("8100.0 Hz in place of 8000"), "{}", wrong[0].detail);
        assert!(wrong[0].advice.contains("G.722"));
    }

    #[test]
    fn the_drift_of_the_story_is_said_to_be_a_jump() {
        let findings = found(656, |n, packet| packet.delay(if n >= 330 { 1_790_000_000 } else { 0 }));
        assert_eq!(ids(&findings), ["timestamp-jumps"]);
        let finding = &findings[0];
        assert!(finding.title.contains("is no drift: the "), "{}", finding.title);
        assert!(finding.detail.contains("the timestamp moved +0.02 s in 1.81 s"), "{}", finding.detail);
        assert_eq!(finding.evidence, [331]);
    }

    #[test]
    fn a_change_of_codec_names_both() {
        let findings = found(100, |n, packet| packet.rtp.payload_type = if n < 50 { 0 } else { 8 });
        assert_eq!(ids(&findings), ["codec-changed"]);
        assert!(findings[0].detail.contains("first at frame 51: PCMU to PCMA"), "{}", findings[0].detail);
    }
}
