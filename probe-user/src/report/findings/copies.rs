//! Findings about copies: how often each frame was captured and why, and what that is not.

use super::super::contract::{Finding, Report, Severity, StreamReport};
use super::super::health::StreamEntry;
use super::super::words;
use super::EXAMPLES;
use crate::dedup::cause::Cause;
use crate::dedup::stats::{CauseReport, CopyStats, Session};
use crate::packet::Layer;
use crate::sip::totals::Retransmitted;

/// Copies a packet, beyond the first, from which "each frame" is said.
const MOST: f64 = 0.5;

/// All of them, what explains others first.
pub(super) fn find(report: &Report) -> Vec<Finding> {
    let copied = Copied::of(&report.streams, (report.sip.messages, report.sip.copies), &report.sip.causes);
    let mut found = Vec::new();
    found.extend(frames_copied(report, &copied));
    found.extend(own_transport(&copied));
    found.extend(delivered_twice(&copied));
    found.extend(copies_not_retransmissions(report));
    found.extend(retransmissions(report));
    found.extend(unscheduled(report));
    found
}

/// Copies of streams and of SIP together. The counts are of the same kind: frames beyond a first.
struct Copied {
    packets: u64,
    copies: u64,
    causes: Vec<CauseReport>,
}

impl Copied {
    fn of(streams: &[StreamReport], sip: (u64, u64), sip_causes: &[CauseReport]) -> Self {
        let all = streams.iter().flat_map(|stream| &stream.duplicates.causes).chain(sip_causes);
        Self {
            packets: streams.iter().map(|stream| stream.unique.packets).sum::<u64>() + sip.0,
            copies: streams.iter().map(|stream| stream.duplicates.total).sum::<u64>() + sip.1,
            causes: CopyStats::sum_up(all),
        }
    }

    /// Copies a packet, beyond the first.
    fn ratio(&self) -> f64 {
        self.copies as f64 / self.packets.max(1) as f64
    }

    /// Taps times tunnels, if both multiply: "2 taps (…) x 2 (again inside rpcap, TCP port 2002)". What is in a tunnel
    /// was seen outside of it, so the tunnel's factor is over all that was.
    fn product(&self) -> Option<String> {
        let in_tunnel = |cause: &&CauseReport| cause.cause == Cause::Encapsulated;
        let (tunnels, taps): (Vec<_>, Vec<_>) = self.causes.iter().partition(in_tunnel);
        let count = |causes: &[&CauseReport]| causes.iter().map(|cause| cause.count).sum::<u64>();
        let outside = self.packets + count(&taps);
        let by_taps = outside as f64 / self.packets.max(1) as f64;
        let by_tunnels = (outside + count(&tunnels)) as f64 / outside.max(1) as f64;
        let taps: Vec<_> =
            taps.into_iter().filter(|cause| self.is_frequent(cause)).map(words::cause).collect();
        let tunnels: Vec<_> =
            tunnels.into_iter().filter(|cause| self.is_frequent(cause)).map(again_inside).collect();
        match (taps.is_empty(), tunnels.is_empty()) {
            (true, true) => None,
            (false, true) => Some(format!("{} ({})", factor(by_taps, "taps"), taps.join("; "))),
            (true, false) => Some(tunnels.join("; ")),
            (false, false) => Some(format!(
                "{} ({}) x {} ({})",
                factor(by_taps, "taps"),
                taps.join("; "),
                words::number(by_tunnels),
                tunnels.join("; ")
            )),
        }
    }

    /// Is it one of those that make the number, not an accident beside them?
    fn is_frequent(&self, cause: &CauseReport) -> bool {
        cause.count * 20 >= self.copies
    }

    fn evidence(&self) -> Vec<u64> {
        let rounds = 0..EXAMPLES;
        let pairs = rounds.flat_map(|at| self.causes.iter().filter_map(move |cause| cause.examples.get(at)));
        let mut frames: Vec<u64> = Vec::new();
        for frame in pairs.flat_map(|(original, copy)| [*original, *copy]) {
            if frames.len() < EXAMPLES && !frames.contains(&frame) {
                frames.push(frame);
            }
        }
        frames
    }
}

fn factor(times: f64, of: &str) -> String {
    format!("{} {of}", words::number(times))
}

/// "again inside rpcap, TCP port 2002".
fn again_inside(cause: &CauseReport) -> String {
    let layer = cause.layer.unwrap_or("a tunnel");
    match &cause.carrier {
        Some(session) => format!("again inside {layer}, {}", port(session)),
        None => format!("again inside {layer}"),
    }
}

fn port(session: &Session) -> String {
    match session.port {
        Some(port) => format!("{} port {port}", session.transport.to_uppercase()),
        None => format!("from {} to {}", session.from, session.to),
    }
}

/// What to do about all of it: the tunnel first, because it is one word in a capture filter.
fn advice(causes: &[CauseReport]) -> String {
    let mut steps: Vec<String> = Vec::new();
    for cause in causes {
        let step = match &cause.carrier {
            Some(session) if cause.cause == Cause::Encapsulated => {
                format!("capture with the filter \"{}\"", session.filter())
            }
            // Those that one host shows arriving and leaving were asked for.
            _ if cause.differs.names().any(|name| name == "direction") => {
                "the capture watches what arrives and what leaves: without --egress each frame shows once"
                    .to_owned()
            }
            _ => cause.cause.advice().to_owned(),
        };
        if steps.len() < 3 && !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps.join("; ")
}

fn frames_copied(report: &Report, copied: &Copied) -> Option<Finding> {
    if copied.copies == 0 || copied.packets == 0 {
        return None;
    }
    let ratio = copied.ratio();
    let main = copied.causes.first().map(|cause| cause.cause);
    let kinds: Vec<_> = copied
        .causes
        .iter()
        .map(|cause| {
            let example = cause.examples.first();
            let example = example.map(|(a, b)| format!(" (frames {a} and {b})")).unwrap_or_default();
            format!("{} copies {}{example}", words::thousands(cause.count), words::cause(cause))
        })
        .collect();
    let seen = match kinds.as_slice() {
        [] => "By the time they came, their originals were no longer remembered, so no cause is given"
            .to_owned(),
        kinds => kinds.join("; "),
    };
    let mut meanings: Vec<_> = copied.causes.iter().filter(|cause| copied.is_frequent(cause)).collect();
    meanings.dedup_by_key(|cause| cause.cause);
    let meanings: Vec<_> = meanings.into_iter().map(|cause| cause.cause.meaning()).collect();
    let meaning =
        if meanings.is_empty() { String::new() } else { format!(" That means: {}.", meanings.join("; ")) };
    let (id, title, severity) = if ratio >= MOST {
        let product = copied.product().map(|product| format!(": {product}")).unwrap_or_default();
        let title = format!("each frame was captured {}{product}", words::times(1.0 + ratio));
        ("every-frame-copied", title, Severity::Warn)
    } else {
        let title = format!(
            "{} copies of {} packets were captured, {:.1} % on top",
            words::thousands(copied.copies),
            words::thousands(copied.packets),
            ratio * 100.0,
        );
        ("some-frames-copied", title, Severity::Info)
    };
    Some(Finding {
        id,
        severity,
        title,
        detail: format!("{seen}.{meaning}{}{}", blame(main), without_copies(&report.streams)),
        advice: advice(&copied.causes),
        evidence: copied.evidence(),
    })
}

/// Who made the copies, as far as their main cause says.
fn blame(main: Option<Cause>) -> &'static str {
    match main {
        None => "",
        Some(Cause::SentTwice) => " The capture shows what was there. It is no retransmission, either.",
        Some(Cause::Network) => " It is no retransmission: no timer is so short.",
        Some(Cause::SamePoint) => {
            " This is most likely the capture, not the network (or a loop on layer 2: compare interface counters): no \
             congestion, no retransmission."
        }
        Some(_) => " This is the capture, not the network: no congestion, no retransmission.",
    }
}

/// What the streams are like once their copies are gone: the answer to what the copies made people fear.
fn without_copies(streams: &[StreamReport]) -> String {
    let copied = streams.iter().filter(|stream| stream.duplicates.total > 0);
    let Some(worst) = copied.max_by(|a, b| a.unique.lost_percent.total_cmp(&b.unique.lost_percent)) else {
        return " Loss and jitter below are computed after the copies were removed.".to_owned();
    };
    let jitter = worst
        .jitter_percentiles_us
        .map(|jitter| format!(", jitter p99 {} ms", words::ms(jitter.p99)))
        .unwrap_or_default();
    format!(
        " After the copies were removed, the worst of these streams, {} → {}, lost {:.1} % (as captured {:.1} %){jitter}.",
        worst.src, worst.dst, worst.unique.lost_percent, worst.raw.lost_percent
    )
}

/// Frames of the streams' lines of an interval, and the causes of their copies.
#[derive(Debug, Default)]
pub(in crate::report) struct CopiedLines {
    packets: u64,
    frames: u64,
    causes: Vec<CauseReport>,
}

impl CopiedLines {
    /// Adds lines.
    pub(in crate::report) fn hear(&mut self, lines: &[StreamEntry]) {
        self.packets += lines.iter().map(|line| line.packets).sum::<u64>();
        self.frames += lines.iter().map(|line| line.frames).sum::<u64>();
        let causes = std::mem::take(&mut self.causes);
        self.causes = CopyStats::sum_up(causes.iter().chain(lines.iter().flat_map(|line| &line.causes)));
    }
}

/// What a running probe says as soon as it sees that most frames come more than once. `name` fills in a tunnel's session.
pub(in crate::report) fn live(lines: &CopiedLines, name: impl Fn(&mut CauseReport)) -> Option<Finding> {
    let CopiedLines { packets, frames, ref causes } = *lines;
    let mut causes = causes.clone();
    causes.iter_mut().for_each(name);
    let ratio = frames as f64 / packets.max(1) as f64;
    if packets == 0 || ratio < 1.0 + MOST || causes.is_empty() {
        return None;
    }
    // Causes are counted since their streams began, packets in this interval. The product has to say what "4 times" says,
    // so the packets are those that so many copies make at this interval's ratio.
    let main = causes.first()?.cause;
    let counted = causes.iter().map(|cause| cause.count).sum::<u64>();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of packets")]
    let copied = Copied { packets: (counted as f64 / (ratio - 1.0)).round() as u64, copies: counted, causes };
    let product = copied.product().map(|product| format!(": {product}")).unwrap_or_default();
    Some(Finding {
        id: "every-frame-copied",
        severity: Severity::Warn,
        title: format!("each frame is captured {}{product}", words::times(ratio)),
        detail: format!("{}.{} The streams' figures have copies removed.", main.meaning(), blame(Some(main))),
        advice: advice(&copied.causes),
        // Live, there is no file in which anybody could look up a frame.
        evidence: Vec::new(),
    })
}

/// Does it carry captures, and nothing else?
fn is_for_captures(layer: &str) -> bool {
    Layer::named(layer).is_some_and(Layer::is_for_captures)
}

fn own_transport(copied: &Copied) -> Option<Finding> {
    let found: Vec<_> = copied.causes.iter().filter(|cause| cause.cause == Cause::Encapsulated).collect();
    let main = found.first()?;
    let layer = main.layer.unwrap_or_default();
    let (over, between, advice) = match &main.carrier {
        Some(session) => (
            session.port.map_or_else(String::new, |_| format!(" on {}", port(session))),
            format!(" from {} to {}", session.from, session.to),
            format!(
                "capture with the filter \"{}\", or on an interface that does not carry it",
                session.filter()
            ),
        ),
        None => (String::new(), String::new(), format!("exclude {layer} from the capture")),
    };
    let count: u64 = found.iter().map(|cause| cause.count).sum();
    Some(Finding {
        id: "capture-includes-its-own-transport",
        severity: Severity::Warn,
        title: if is_for_captures(layer) {
            format!("the capture contains a capture on its way: {layer}{over}")
        } else {
            format!("the capture contains a tunnel and what is in it: {layer}{over}")
        },
        detail: format!(
            "{} frames were captured once where they were, and once more inside {layer}{between}: {}.",
            words::thousands(count),
            if is_for_captures(layer) {
                "somebody captures elsewhere and has the frames sent over a line that this capture watches"
            } else {
                "this capture watches the line before the tunnel and the one that the tunnel goes over"
            }
        ),
        advice,
        evidence: examples(&found),
    })
}

fn delivered_twice(copied: &Copied) -> Option<Finding> {
    let found: Vec<_> = copied.causes.iter().filter(|cause| cause.cause == Cause::Network).collect();
    let main = found.first()?;
    Some(Finding {
        id: "network-duplicates",
        severity: Severity::Warn,
        title: format!("the network delivered {} twice", words::count(main.count, "packet")),
        detail: format!(
            "{:.1} % of their streams' packets, at one place, {} to {} later. A capture that copies anything copies \
             nearly everything, and evenly; this is neither.",
            main.share * 100.0,
            words::delay(main.delay_us.min),
            words::delay(main.delay_us.max),
        ),
        advice: Cause::Network.advice().to_owned(),
        evidence: examples(&found),
    })
}

fn examples(causes: &[&CauseReport]) -> Vec<u64> {
    let pairs = causes.iter().flat_map(|cause| &cause.examples);
    pairs.flat_map(|(original, copy)| [*original, *copy]).take(EXAMPLES).collect()
}

fn copies_not_retransmissions(report: &Report) -> Option<Finding> {
    let sip = &report.sip;
    if sip.copies == 0 {
        return None;
    }
    let latest = sip.causes.iter().map(|cause| cause.delay_us.max).fold(0.0, f64::max);
    Some(Finding {
        id: "copies-not-retransmissions",
        severity: Severity::Info,
        title: format!(
            "{} repeated SIP frames are copies, not retransmissions",
            words::thousands(sip.copies)
        ),
        detail: format!(
            "{} SIP messages were sent; {} of them repeat an earlier one by a timer. A retransmission comes 500 ms \
             or more after the message it repeats (RFC 3261, timers A, E and G); the latest of these copies came \
             after {}.",
            words::thousands(sip.messages),
            words::thousands(sip.retransmissions),
            words::delay(latest),
        ),
        advice: String::new(),
        evidence: examples(&sip.causes.iter().collect::<Vec<_>>()),
    })
}

fn retransmissions(report: &Report) -> Option<Finding> {
    let sip = &report.sip;
    if sip.retransmissions == 0 {
        return None;
    }
    let calls = report.calls.iter().filter(|of| of.call.retransmissions > 0).count();
    let told: Vec<_> = sip
        .retransmitted
        .iter()
        .take(EXAMPLES / 2)
        .map(|again| {
            format!(
                "frame {} repeats frame {} after {} ({}, timer {}): {} had not answered",
                again.frame,
                again.of,
                words::delay(again.gap_ms * 1e3),
                words::printable(&again.message),
                again.timer,
                again.to,
            )
        })
        .collect();
    let told = if told.is_empty() { String::new() } else { format!(" {}.", told.join("; ")) };
    let who = sip.retransmitted.first().map(|again| again.to.to_string());
    Some(Finding {
        id: "real-retransmissions",
        severity: Severity::Warn,
        title: format!(
            "{} {} really sent again",
            words::count(sip.retransmissions, "SIP message"),
            if sip.retransmissions == 1 { "was" } else { "were" }
        ),
        detail: format!(
            "In {}. The sender's timer ran out before an answer came (RFC 3261, 17).{told}",
            words::count(calls as u64, "call")
        ),
        advice: format!(
            "look for loss or a slow answer on the way to {}",
            who.as_deref().unwrap_or("whoever should have answered")
        ),
        evidence: sip.retransmitted.iter().flat_map(|again| [again.of, again.frame]).take(EXAMPLES).collect(),
    })
}

/// Sent again, but not as RFC 3261 does it.
fn unscheduled(report: &Report) -> Option<Finding> {
    let sip = &report.sip;
    let first = sip.unscheduled.first().filter(|_| sip.repeats.unscheduled > 0)?;
    let told = |again: &Retransmitted| {
        format!(
            "frame {} repeats frame {} after {} ({} from {})",
            again.frame,
            again.of,
            words::delay(again.gap_ms * 1e3),
            words::printable(&again.message),
            again.from,
        )
    };
    let told: Vec<_> = sip.unscheduled.iter().take(EXAMPLES / 2).map(told).collect();
    Some(Finding {
        id: "sip-repeats-unscheduled",
        severity: Severity::Info,
        title: format!(
            "{} {} repeated at times that are no timer's",
            words::count(sip.repeats.unscheduled, "SIP message"),
            if sip.repeats.unscheduled == 1 { "was" } else { "were" }
        ),
        detail: format!(
            "{}. Neither the timers of RFC 3261 nor gaps that double explain it, and it came too late for a copy.",
            told.join("; ")
        ),
        advice: format!(
            "look at the gaps: always the same, they are a timer of {}'s own, so it got no answer in time; or one tap is \
             that far behind another",
            first.from
        ),
        evidence: sip.unscheduled.iter().flat_map(|again| [again.of, again.frame]).take(EXAMPLES).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::contract::testing::{found, report, stream};
    use super::*;
    use crate::dedup::cause::explain;
    use crate::dedup::stats::Copy;
    use crate::packet::{Carrier, Encapsulation, Endpoint, Evidence, Nanos};
    use crate::rtp::testing::packet;

    #[test]
    fn repeats_that_no_timer_explains_are_told_with_their_gaps() {
        let mut report = report(vec![stream()]);
        assert!(unscheduled(&report).is_none());
        report.sip.repeats.unscheduled = 2;
        report.sip.unscheduled = vec![Retransmitted {
            timer: "none",
            message: "OPTIONS".to_owned(),
            of: 7,
            frame: 9,
            gap_ms: 900.0,
            from: Endpoint::v4([10, 0, 0, 1], 5060),
            to: Endpoint::v4([10, 0, 0, 2], 5060),
            call_id: "ping".to_owned(),
        }];
        let told = unscheduled(&report).unwrap();
        assert_eq!(told.title, "2 SIP messages were repeated at times that are no timer's");
        assert!(
            told.detail.starts_with("frame 9 repeats frame 7 after 900.0 ms (OPTIONS from 10.0.0.1:5060).")
        );
        assert_eq!(told.evidence, [7, 9]);
    }

    /// Copies of ten packets, as (original, copy, delay).
    fn causes(pairs: &[(Evidence, Evidence, u64)]) -> Vec<CauseReport> {
        let mut copies = CopyStats::default();
        for number in 1..=10 {
            for (at, (original, copy, delay_us)) in (1..).zip(pairs) {
                let original_time = Nanos(number * 20_000_000);
                copies.observe(&Copy {
                    explanation: explain(original, copy),
                    original_time,
                    original: number * 10,
                    time: Nanos(original_time.0 + delay_us * 1_000),
                    number: number * 10 + at,
                });
            }
        }
        copies.causes(10)
    }

    fn copied(causes: Vec<CauseReport>) -> Vec<Finding> {
        let total = causes.iter().map(|cause| cause.count).sum();
        let mut stream = stream();
        stream.duplicates.causes = causes;
        stream.duplicates.total = total;
        report(vec![stream]).findings
    }

    #[test]
    fn the_story_is_told_as_a_product_with_the_filter_that_ends_it() {
        let first = Evidence { ip_id: 7, ..packet(1).evidence };
        let second = Evidence { dst_mac: [9; 6], ip_id: 0, ..first };
        let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
        let inside = |seen| Evidence { encapsulation: rpcap, carrier: Carrier(1), ..seen };
        let mut causes =
            causes(&[(first, second, 38), (first, inside(first), 4_000), (second, inside(second), 4_010)]);
        for cause in causes.iter_mut().filter(|cause| cause.cause == Cause::Encapsulated) {
            cause.carrier = Some(Session {
                transport: "tcp",
                port: Some(2002),
                from: "192.0.2.1".to_owned(),
                to: "192.0.2.9".to_owned(),
            });
        }
        let findings = copied(causes);
        let copied = found(&findings, "every-frame-copied");
        assert_eq!(
            copied.title,
            "each frame was captured 4 times: 2 taps (re-emitted: destination MAC and IP ID differ, +38 us) x 2 \
             (again inside rpcap, TCP port 2002)"
        );
        assert!(copied.detail.contains("no congestion, no retransmission"), "{}", copied.detail);
        assert!(copied.advice.contains("not (tcp port 2002)"), "{}", copied.advice);
        let own = found(&findings, "capture-includes-its-own-transport");
        assert_eq!(own.title, "the capture contains a capture on its way: rpcap on TCP port 2002");
        assert!(!own.evidence.is_empty() && own.detail.contains("from 192.0.2.1 to 192.0.2.9"));
    }

    #[test]
    fn the_capture_is_blamed_only_where_it_is_to_blame() {
        let first = packet(1).evidence;
        let table = [
            (Evidence { ip_id: 0, ..first }, "the capture, not the network", false),
            (Evidence { ttl: 9, ..first }, "This is the capture, not the network", true),
            (first, "or a loop on layer 2: compare interface counters", true),
        ];
        for (copy, words, said) in table {
            let findings = copied(causes(&[(first, copy, 1)]));
            let finding = found(&findings, "every-frame-copied");
            assert!(
                finding.title.starts_with("each frame was captured twice: 2 taps ("),
                "{}",
                finding.title
            );
            assert_eq!(finding.detail.contains(words), said, "{}", finding.detail);
        }
    }
}
