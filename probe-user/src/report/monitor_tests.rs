//! Which lines a round makes, and what a dropped event costs.

use std::sync::Arc;

use super::*;
use crate::capture::live::SocketLosses;
use crate::pipeline::shard::IntervalLine;
use crate::rtp::codec::Announcement;
use crate::rtp::quality::QualityInterval;
use crate::rtp::stream::{IntervalSummary, Stream, Totals};
use crate::rtp::testing::packet;
use crate::rtp::unique::Interruption;
use crate::sip::CallState;
use crate::sip::calls::{Moment, What};
use probe_ebpf::record::{Counters, KernelLoss};

const SECOND: u64 = 1_000_000_000;

/// Of a kernel that counted nothing: these tests are about the other losses.
fn counters() -> KernelCounters {
    KernelCounters { taps: Vec::new(), unknown: Counters::ZERO, sockets: SocketLosses::default() }
}

/// Of one that shed so many frames, and lost so many for want of room.
fn counters_of(shed: u64, ring_full: u64) -> KernelCounters {
    let mut counters = counters();
    counters.unknown.losses[KernelLoss::Shed as usize] = shed;
    counters.unknown.losses[KernelLoss::RingFull as usize] = ring_full;
    counters
}

fn line(round: u64, expected: u64) -> Event {
    let totals = Totals { frames: 50, packets: 50, expected, copies: 0 };
    Event::Interval(Box::new(IntervalLine {
        round,
        key: crate::rtp::StreamKey::from(&packet(0)),
        number: 1,
        encapsulation: crate::packet::Encapsulation::NONE,
        codec: Some("PCMU".to_owned()),
        codec_parameters: None,
        payload_type: 0,
        announcement: Arc::default(),
        summary: IntervalSummary { totals, quality: QualityInterval::default() },
        lifetime: totals,
        raw_lost_percent: 0.0,
        burst_ratio: 1.0,
        settings: Arc::default(),
        causes: Vec::new(),
        taps: Vec::new(),
    }))
}

fn done(shard: usize, round: u64) -> Event {
    Event::RoundDone(ShardStatus { shard, round, analysed: 50 * round, ..ShardStatus::default() })
}

fn receiver(round: u64, own_losses: u64) -> Event {
    let mut account = Account::default();
    account.lose(Loss::ShardQueueFull, own_losses);
    let now = Nanos(round * SECOND);
    Event::Receiver(ReceiverStatus {
        round,
        interval: round,
        part: Part::WHOLE,
        now,
        account,
        calls: 0,
        events_dropped: 0,
        announcements_given_up: 0,
    })
}

/// A stream with a hole, that ended.
fn ended(first: u64) -> Event {
    let mut stream = Stream::new(&packet(first), 1, packet(first).time, Arc::new(Announcement::default()));
    for seq in [1, 2, 3, 40, 41, 42] {
        stream.observe(&packet(first + seq), packet(first).time);
    }
    Event::Ended(Box::new(stream.into_parts()), End::Silent)
}

/// What the log got: type, time in seconds, status.
fn fed(monitor: &mut Monitor, events: impl IntoIterator<Item = Event>) -> Vec<(String, u64, String)> {
    let mut told = Vec::new();
    for event in events {
        if monitor.take(event) {
            monitor.close(&counters(), &[]);
        }
        told.extend(monitor.drain().map(|stamped| {
            let value = serde_json::to_value(&stamped.entry).unwrap();
            let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            (word("type"), stamped.at.map_or(0, |at| at.0 / SECOND), word("status"))
        }));
    }
    told
}

fn entry(name: &str, at: u64, status: &str) -> (String, u64, String) {
    (name.to_owned(), at, status.to_owned())
}

#[test]
fn a_pause_is_told_with_the_refer_at_its_beginning() {
    let call_id: Arc<str> = "a84b4c76@phone".into();
    let Event::Interval(mut line) = line(1, 50) else { panic!("a line is one") };
    line.announcement =
        Arc::new(Announcement { call_id: Some(Arc::clone(&call_id)), ..Announcement::default() });
    line.summary.quality.interruption = Some(Interruption {
        at: Nanos(1_793_000_000),
        packet: 9,
        silence_s: 1.79,
        timestamp_s: Some(0.02),
        missing: 0,
        restarted: false,
    });
    let moment = Moment { time: Nanos(0), number: 7, what: What::Refer };
    let call = Event::Call(CallEvent {
        call_id,
        moment,
        flow: packet(0).flow.into(),
        state: CallState::Answered,
        figures: crate::sip::report::Figures::default(),
    });
    let mut monitor = Monitor::new(Nanos(0), 1, 100);
    let events = [call, Event::Interval(line), done(0, 1), receiver(1, 0)];
    for event in events {
        if monitor.take(event) {
            monitor.close(&counters(), &[]);
        }
    }
    let told: Vec<_> = monitor
        .drain()
        .filter_map(|stamped| match stamped.entry {
            Entry::Stream(line) => {
                line.explanation.and_then(|found| found.began_at).map(|began| (began.event, began.after_ms))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [("REFER: transfer".to_owned(), 3.0)]);
}

#[test]
fn a_round_is_closed_when_all_have_told_it_and_stamped_with_its_end() {
    let mut monitor = Monitor::new(Nanos(0), 2, 100);
    let told = fed(&mut monitor, [line(1, 50), done(0, 1), receiver(1, 0), line(1, 50)]);
    assert_eq!(told, []);
    let told = fed(&mut monitor, [done(1, 1)]);
    assert_eq!(told, [entry("stream", 1, "ok"), entry("stream", 1, "ok"), entry("summary", 1, "")]);
}

#[test]
fn a_dropped_event_costs_its_own_round_and_no_other() {
    let mut monitor = Monitor::new(Nanos(0), 1, 100);
    // The shard's word on round 1, the receiver's on 3, and all of 4 were dropped.
    let told = fed(
        &mut monitor,
        [
            line(1, 50),
            receiver(1, 0),
            line(2, 50),
            done(0, 2),
            receiver(2, 0),
            line(3, 50),
            done(0, 3),
            line(5, 50),
            done(0, 5),
            receiver(5, 0),
        ],
    );
    let round = |at| [entry("stream", at, "ok"), entry("summary", at, "")];
    assert_eq!(told, [round(1), round(2), round(5)].concat());
}

#[test]
fn a_late_word_of_a_closed_round_changes_no_line() {
    let mut monitor = Monitor::new(Nanos(0), 2, 100);
    let told = fed(&mut monitor, [done(0, 1), receiver(1, 0), done(0, 2), line(1, 50), done(1, 1)]);
    assert_eq!(told, [entry("summary", 1, "")]);
    let told = fed(&mut monitor, [done(1, 2), receiver(2, 0)]);
    assert_eq!(told, [entry("summary", 2, "")]);
}

#[test]
fn loss_is_doubted_in_the_round_of_the_probes_own_and_in_the_one_after_it() {
    let mut monitor = Monitor::new(Nanos(0), 1, 100);
    let rounds = [(1, 0), (2, 7), (3, 7), (4, 7)];
    let events = rounds.map(|(round, lost)| [line(round, 100), done(0, round), receiver(round, lost)]);
    let told = fed(&mut monitor, events.into_iter().flatten());
    let statuses: Vec<_> = told.iter().filter(|(kind, ..)| kind == "stream").map(|told| &*told.2).collect();
    assert_eq!(statuses, ["loss", "hole", "hole", "loss"]);
}

#[test]
fn a_streams_end_is_doubted_only_if_it_lived_when_the_probe_lost_frames() {
    let mut monitor = Monitor::new(Nanos(0), 1, 100);
    let mut bounds = Vec::new();
    // The second began 10 s after the losses of the first round.
    for (round, first) in [(1, 0), (2, 500)] {
        let began = packet(first).time;
        let now = if round == 1 { Nanos(began.0 + SECOND) } else { Nanos(u64::MAX / 2) };
        let mut events = vec![ended(first), done(0, round)];
        let Event::Receiver(status) = receiver(round, 7) else { unreachable!() };
        events.push(Event::Receiver(ReceiverStatus { now, ..status }));
        for event in events {
            if monitor.take(event) {
                monitor.close(&counters(), &[]);
            }
        }
        bounds.extend(monitor.drain().filter_map(|stamped| match stamped.entry {
            Entry::StreamEnd(end) => Some((end.report.unique.lost, end.report.loss_is_upper_bound)),
            _ => None,
        }));
    }
    assert_eq!(bounds, [(36, true), (36, false)]);
}

/// A history in which the session of `packet` was shed in this time, in seconds; of the sessions that it leaves out, `level`.
fn shed(level: u32, from: u64, until: u64) -> SharedHistory {
    let mut history = History::new(0);
    history.note(Nanos(from * SECOND), level);
    history.note(Nanos(until * SECOND), 0);
    SharedHistory::new(history)
}

#[test]
fn only_lines_of_sessions_that_were_shed_are_holes_and_only_while_they_were() {
    let bucket = u32::from(packet(0).flow.bucket());
    for (level, expected) in [(bucket, ["ok", "ok", "ok", "ok"]), (bucket + 1, ["ok", "hole", "hole", "ok"])]
    {
        // A second of doubt after it, for what was under way.
        let mut monitor = Monitor::new(Nanos(0), 1, 100).following(shed(level, 2, 3));
        let events = [1, 3, 4, 6].map(|round| {
            let Event::Receiver(status) = receiver(round, 0) else { unreachable!() };
            [line(round, 50), done(0, round), Event::Receiver(status)]
        });
        let told = fed(&mut monitor, events.into_iter().flatten());
        let statuses: Vec<_> =
            told.iter().filter(|(kind, ..)| kind == "stream").map(|told| &*told.2).collect();
        assert_eq!(statuses, expected, "{level}");
    }
}

#[test]
fn a_stream_that_was_shed_ends_with_that_word_and_without_a_score() {
    let at = packet(0).time.0 / SECOND;
    let bucket = u32::from(packet(0).flow.bucket());
    for (level, from, word) in
        [(bucket + 1, at, "shed"), (bucket + 1, at + 60, "silent"), (bucket, at, "silent")]
    {
        let mut monitor = Monitor::new(Nanos(0), 1, 100).following(shed(level, from, from + 9));
        for event in [ended(0), done(0, 1), receiver(1, 0)] {
            if monitor.take(event) {
                monitor.close(&counters(), &[]);
            }
        }
        let ends: Vec<_> = monitor
            .drain()
            .filter_map(|stamped| match stamped.entry {
                Entry::StreamEnd(end) => Some(end),
                _ => None,
            })
            .collect();
        let [end] = ends.as_slice() else { panic!("{} ends", ends.len()) };
        let is_shed = word == "shed";
        assert_eq!((end.ended, end.report.loss_is_upper_bound), (word, is_shed), "{level} from {from}");
        assert_eq!((end.report.mos.is_none(), end.report.shed.len()), (is_shed, usize::from(is_shed)));
    }
}

/// Its fragments are taken, and the rest is not: what is missing is neither the network's nor shed.
#[test]
fn a_stream_of_a_session_that_is_sampled_out_has_no_score_and_was_not_shed() {
    let bucket = u32::from(packet(0).flow.bucket());
    for (floor, is_left_out) in [(bucket, false), (bucket + 1, true)] {
        let mut monitor = Monitor::new(Nanos(0), 1, 100).following(SharedHistory::new(History::new(floor)));
        for event in [line(1, 50), ended(0), done(0, 1), receiver(1, 0)] {
            if monitor.take(event) {
                monitor.close(&counters(), &[]);
            }
        }
        let reason = is_left_out.then_some("--sample leaves out this session, but for its fragments");
        let mut told = 0;
        for stamped in monitor.drain() {
            match stamped.entry {
                Entry::Stream(line) => {
                    assert_eq!((line.is_shed, line.mos.is_none()), (false, is_left_out));
                    assert_eq!(line.mos_absent_because.as_deref(), reason);
                }
                Entry::StreamEnd(end) => {
                    assert_eq!((end.ended, end.report.shed.len()), ("silent", 0));
                    assert_eq!(
                        (end.report.loss_is_upper_bound, end.report.mos.is_none()),
                        (is_left_out, is_left_out)
                    );
                    assert_eq!(end.report.mos_absent_because.as_deref(), reason);
                }
                _ => continue,
            }
            told += 1;
        }
        assert_eq!(told, 2);
    }
}

#[test]
fn each_change_of_what_is_shed_is_told_once() {
    let history = SharedHistory::new(History::new(0));
    let mut monitor = Monitor::new(Nanos(0), 1, 100).following(history.clone());
    let mut told = Vec::new();
    for (at, level) in [(1, 0), (2, 64), (3, 64), (4, 128), (5, 64), (6, 0), (7, 32), (8, 0)] {
        history.note(Nanos(at * SECOND), level);
        monitor.tell_shedding(|| Ok::<_, ()>(counters_of(at.saturating_sub(2) * 100, 0))).unwrap();
        told.extend(monitor.drain().map(|stamped| {
            let Entry::Shed(shed) = stamped.entry else { panic!("{:?}", stamped.entry) };
            (stamped.at.unwrap().0 / SECOND, shed.change, shed.percent, shed.frames)
        }));
    }
    let expected = [
        (2, "began", 25.0, 0),
        (4, "raised", 50.0, 200),
        (5, "lowered", 25.0, 300),
        (6, "ended", 0.0, 400),
        (7, "began", 12.5, 100),
        (8, "ended", 0.0, 200),
    ];
    assert_eq!(told, expected);
}

/// While the probe sheds, interval by interval, that is not told as a loss again and again; what was lost beside it is.
#[test]
fn what_is_shed_is_no_loss_that_each_interval_tells() {
    let mut monitor = Monitor::new(Nanos(0), 1, 100);
    let mut told = Vec::new();
    for (round, shed, ring_full) in [(1, 500, 0), (2, 1_000, 7), (3, 1_500, 7)] {
        for event in [done(0, round), receiver(round, 0)] {
            if monitor.take(event) {
                monitor.close(&counters_of(shed, ring_full), &[]);
            }
        }
        told.extend(monitor.drain().filter_map(|stamped| match stamped.entry {
            Entry::Loss(loss) => Some((round, loss.losses, loss.advice)),
            _ => None,
        }));
    }
    assert_eq!(told, [(2, BTreeMap::from([("ring_full", 7)]), Loss::RingFull.advice())]);
}

#[test]
fn a_flood_of_ends_is_counted_not_told() {
    let mut monitor = Monitor::new(Nanos(0), 1, 3);
    let ends = (0..10).map(|_| ended(0));
    for event in ends.chain([done(0, 1), receiver(1, 0)]) {
        if monitor.take(event) {
            monitor.close(&counters(), &[]);
        }
    }
    let entries: Vec<_> = monitor.drain().map(|stamped| stamped.entry).collect();
    let Some(Entry::Summary(summary)) = entries.last() else { panic!("{entries:?}") };
    assert_eq!((entries.len(), summary.lines_left_out), (4, 7));
}

/// The rounds of an interval in four parts, each with a line, and with so many frames lost so far.
fn quarters(interval: u64, lost: [u64; 4]) -> Vec<Event> {
    let of = |(index, lost)| {
        let round = 4 * (interval - 1) + u64::from(index) + 1;
        let Event::Receiver(status) = receiver(round, lost) else { unreachable!() };
        let part = Part { index, of: 4 };
        [line(round, 100), done(0, round), Event::Receiver(ReceiverStatus { interval, part, ..status })]
    };
    (0..4).zip(lost).flat_map(of).collect()
}

#[test]
fn an_interval_of_several_rounds_has_one_sum_and_lines_stamped_with_their_rounds() {
    let mut monitor = Monitor::new(Nanos(0), 1, 100);
    let mut lines: Vec<_> = (1..=4).map(|at| entry("stream", at, "loss")).collect();
    lines.push(entry("summary", 4, ""));
    assert_eq!(fed(&mut monitor, quarters(1, [0; 4])), lines);
}

#[test]
fn where_all_lines_are_shown_a_round_does_not_wait_for_the_others() {
    let mut monitor = Monitor::new(Nanos(0), 1, usize::MAX);
    let told = fed(&mut monitor, quarters(1, [0; 4]).into_iter().take(6));
    assert_eq!(told, [entry("stream", 1, "loss"), entry("stream", 2, "loss")]);
}

#[test]
fn the_worst_lines_are_those_of_the_whole_interval() {
    let mut monitor = Monitor::new(Nanos(0), 1, 2);
    let mut events = quarters(1, [0; 4]);
    // The third round's line is the worst, the last one's the best.
    events[6] = line(3, 500);
    events[9] = line(4, 50);
    for event in events {
        if monitor.take(event) {
            monitor.close(&counters(), &[]);
        }
    }
    let entries: Vec<_> = monitor.drain().map(|stamped| stamped.entry).collect();
    let Some(Entry::Summary(summary)) = entries.last() else { panic!("{entries:?}") };
    let shown = |entry: &Entry| if let Entry::Stream(line) = entry { Some(line.lost) } else { None };
    let mut lost: Vec<_> = entries.iter().filter_map(shown).collect();
    lost.sort_unstable();
    assert_eq!((lost, summary.streams, summary.lines_left_out), (vec![50, 450], 4, 2));
    assert_eq!(summary.by_status, BTreeMap::from([("loss", 3), ("ok", 1)]));
}

#[test]
fn loss_is_doubted_in_every_line_whose_stream_may_have_its_hole_from_the_probe() {
    let mut monitor = Monitor::new(Nanos(0), 1, 100);
    // Lost between the second round of the first interval and the third.
    let lost = [[0, 0, 7, 7], [7; 4], [7; 4], [7; 4]];
    let events: Vec<_> = (1..).zip(lost).flat_map(|(interval, lost)| quarters(interval, lost)).collect();
    let told = fed(&mut monitor, events);
    let statuses: Vec<_> = told.iter().filter(|(kind, ..)| kind == "stream").map(|told| &*told.2).collect();
    // Those of the first two parts had been closed before: it is in their next interval, and may be found in the one after.
    let expected = [&["loss"; 2][..], &["hole"; 2], &["hole"; 8], &["loss"; 4]].concat();
    assert_eq!(statuses, expected);
}
