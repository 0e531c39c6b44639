//! The corpus: generated stories of every cause and composition, and what the analysis makes of each frame.
//!
//! ```text
//!   plans × recordings × seeds ─▶ Story ─▶ file ─▶ analysis ─┬▶ report  held against the truth's totals
//!                                                            └▶ classes held against each frame's: precision and recall
//! ```
//!
//! `cargo test --test corpus -- --nocapture` prints the tables; `VOXLAB_SEEDS=50` tries more seeds than three. A
//! difference is printed with the command that writes the same capture.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use voxlab::captures::{Scratch, shared_captures};
use voxlab::story::scene::Plan;
use voxlab::story::taps::{Step, Tap};
use voxlab::story::truth::Class;
use voxlab::story::{Recording, Rpcap, Story};
use voxlab::tunnels::Tunnel;
use voxprobe::dedup::FrameClass;
use voxprobe::pipeline::offline::{Options, analyze, analyze_and_classify};

/// Three seconds of talk in each of two calls.
const SHORT: Plan = Plan { calls: 2, packets: 150, ..Plan::PLAIN };
/// All that can happen over UDP.
const FULL: Plan = Plan {
    auth: true,
    transfer: true,
    hold: true,
    dtmf: true,
    retransmissions: true,
    loss_percent: 2.0,
    reorder_percent: 2.0,
    ..SHORT
};
/// Seeds of each story, unless the environment asks for more.
const SEEDS: u64 = 3;

fn seeds() -> std::ops::RangeInclusive<u64> {
    1..=std::env::var("VOXLAB_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

/// Truth against finding, in frames.
#[derive(Default)]
struct Confusion(BTreeMap<(String, String), u64>);

impl Confusion {
    fn add(&mut self, truth: String, found: String) {
        *self.0.entry((truth, found)).or_default() += 1;
    }

    fn merge(&mut self, other: Self) {
        for (key, count) in other.0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    /// Class, frames, precision, recall.
    fn table(&self) -> String {
        let mut text = format!("{:<28}{:>9}{:>11}{:>9}\n", "class", "frames", "precision", "recall");
        let sum = |keep: &dyn Fn(&(String, String)) -> bool| -> u64 {
            self.0.iter().filter(|(key, _)| keep(key)).map(|(_, count)| count).sum()
        };
        let mut names: Vec<&String> = self.0.keys().flat_map(|(truth, found)| [truth, found]).collect();
        names.sort();
        names.dedup();
        for name in names {
            let right = sum(&|(truth, found)| truth == name && found == name);
            let (true_ones, found_ones) =
                (sum(&|(truth, _)| truth == name), sum(&|(_, found)| found == name));
            let share = |of: u64| if of == 0 { f64::NAN } else { right as f64 / of as f64 };
            let _ = writeln!(
                text,
                "{name:<28}{true_ones:>9}{:>11.4}{:>9.4}",
                share(found_ones),
                share(true_ones)
            );
        }
        text
    }
}

/// What was wrong with some stories.
#[derive(Default)]
struct Trial {
    confusion: Confusion,
    wrong: Vec<String>,
    stories: u64,
    frames: u64,
}

impl Trial {
    fn run(name: &str, plan: Plan, recordings: &[Recording]) -> Self {
        let scratch = Scratch::new(&format!("corpus-{name}")).unwrap();
        let mut trial = Self::default();
        for recording in recordings {
            for seed in seeds() {
                let plan = Plan { seed, ..plan };
                trial.story(&scratch, &plan, recording);
            }
        }
        trial
    }

    fn story(&mut self, scratch: &Scratch, plan: &Plan, recording: &Recording) {
        let story = Story::new(plan, recording);
        let path = scratch.file("story.pcapng", &story.pcapng()).unwrap();
        let (report, classes) =
            analyze_and_classify(std::slice::from_ref(&path), &Options::default(), |_, _| ()).unwrap();
        let report = serde_json::to_value(report).unwrap();
        let found = classes.into_list(story.truth.totals.frames);
        let mut wrong = totals(&story, &report);
        wrong.extend(self.frames(&story, &found));
        if !wrong.is_empty() {
            let shown = wrong.iter().take(8).cloned().collect::<Vec<_>>().join("\n    ");
            self.wrong.push(format!(
                "{}\n    {shown}\n    … {} differences",
                command(plan, recording),
                wrong.len()
            ));
        }
        self.stories += 1;
        self.frames += story.truth.totals.frames;
    }

    /// Holds every frame's class against the truth.
    fn frames(&mut self, story: &Story, found: &[FrameClass]) -> Vec<String> {
        let truth = &story.truth.frames;
        let place = |number: u64| usize::try_from(number - 1).unwrap();
        // The frame that stands for the same transmission; and for the same message, however often it was sent.
        let packet = |number: u64| match &truth[place(number)].class {
            Class::Copy { of, .. } => *of,
            _ => number,
        };
        let message = |number: u64| match &truth[place(packet(number))].class {
            Class::Retransmission { of, .. } | Class::Echo { of } | Class::TcpRetransmission { of } => *of,
            _ => packet(number),
        };
        let mut wrong = Vec::new();
        let found_all = found;
        for (number, (frame, found)) in (1..).zip(truth.iter().zip(found)) {
            let (expected, right) = match (&frame.class, found) {
                // Of several copies, which one is named is not said.
                (Class::Copy { .. }, found) if frame.holds > 1 => {
                    ("copies, several".to_owned(), found.is_copy())
                }
                (Class::Copy { cause, others, of }, FrameClass::Copy { cause: told, of: named, .. }) => {
                    let is_right = *cause == told.label() || others.contains(&told.label());
                    let expected = if is_right { told.label() } else { cause };
                    let same = *named < number && packet(*named) == *of;
                    (format!("copy: {expected}"), is_right && same)
                }
                (Class::Copy { cause, .. }, _) => (format!("copy: {cause}"), false),
                (
                    Class::Retransmission { timer, of },
                    FrameClass::Retransmission { timer: told, of: named },
                ) => (format!("timer {timer}"), *timer == told.name() && message(*named) == *of),
                (Class::Retransmission { timer, .. }, _) => (format!("timer {timer}"), false),
                (Class::Echo { of }, FrameClass::Echo { of: named }) => {
                    ("echo".to_owned(), message(*named) == *of)
                }
                // A leg is a packet of its own: no copy.
                (Class::Leg { .. }, found) => {
                    ("leg".to_owned(), matches!(found, FrameClass::Unique | FrameClass::AuthRetry))
                }
                // It shares the fate of its whole, or that of a copy of it, whose parts are its own as well.
                (Class::Part { whole }, told) => {
                    let wholes = (1..).zip(truth).filter(|(number, frame)| {
                        !matches!(frame.class, Class::Part { .. }) && packet(*number) == packet(*whole)
                    });
                    let mut fates = wholes.filter_map(|(number, _)| found_all.get(place(number)));
                    ("part".to_owned(), fates.any(|fate| fate == told))
                }
                (class, found) => (class.name().to_owned(), class.name() == found.name()),
            };
            let told = match found {
                FrameClass::Copy { cause, .. } => format!("copy: {}", cause.label()),
                FrameClass::Retransmission { timer, .. } => format!("timer {}", timer.name()),
                other => other.name().to_owned(),
            };
            let told = if right {
                expected.clone()
            } else if told == expected {
                format!("{told}, of another")
            } else {
                told
            };
            if !right {
                wrong.push(format!("frame {number}: {:?}, found {found:?}", frame.class));
            }
            self.confusion.add(expected, told);
        }
        wrong
    }
}

/// Holds the report's counts against the truth's.
fn totals(story: &Story, report: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let truth = &story.truth;
    let mut check = |what: String, told: &Value, is: u64| {
        if *told != is {
            wrong.push(format!("{what}: {is}, reported {told}"));
        }
    };
    let sip = &report["sip"];
    let totals = &truth.totals;
    check("frames".into(), &report["capture"]["packets"], totals.frames);
    check("sip.messages".into(), &sip["messages"], totals.sip_messages);
    check("sip.copies".into(), &sip["copies"], totals.sip_copies);
    check("sip.retransmissions".into(), &sip["retransmissions"], totals.retransmissions);
    check("sip.auth_challenges".into(), &sip["auth_challenges"], totals.auth_challenges);
    check("sip.malformed".into(), &sip["malformed"], 0);
    check("sip.repeats.echoes".into(), &sip["repeats"]["echoes"], totals.echoes);
    check("sip.repeats.unscheduled".into(), &sip["repeats"]["unscheduled"], 0);
    check("sip.tcp_retransmissions".into(), &sip["tcp_retransmissions"], totals.tcp_retransmissions);
    check("streams".into(), &report["streams"].as_array().unwrap().len().into(), truth.streams.len() as u64);
    for stream in &truth.streams {
        let key = [&stream.src, &stream.dst, &stream.ssrc].map(String::as_str);
        let found = report["streams"].as_array().unwrap().iter().find(|found| {
            [&found["src"], &found["dst"], &found["ssrc"]].map(|field| field.as_str().unwrap()) == key
        });
        let found = found.unwrap_or(&Value::Null);
        let name = format!("stream {}", key.join(" "));
        check(format!("{name}: packets"), &found["unique"]["packets"], stream.packets);
        check(format!("{name}: lost"), &found["unique"]["lost"], stream.lost);
        check(format!("{name}: late"), &found["reordered"], stream.late);
        check(format!("{name}: copies"), &found["duplicates"]["total"], stream.copies);
        let its = found["call_id"].as_str() == stream.call_id.as_deref();
        check(format!("{name}: of its call"), &u64::from(its).into(), 1);
    }
    for call in &truth.calls {
        let found = report["calls"].as_array().unwrap().iter().find(|found| found["call_id"] == call.call_id);
        let found = found.unwrap_or(&Value::Null);
        let name = format!("call {}", call.call_id);
        check(format!("{name}: messages"), &found["messages"], call.messages);
        check(format!("{name}: copies"), &found["message_copies"], call.message_copies);
        check(format!("{name}: retransmissions"), &found["retransmissions"], call.retransmissions);
        check(format!("{name}: challenges"), &found["auth_challenges"], call.auth_challenges);
    }
    let capture = &report["capture"];
    let lost: u64 = capture["losses"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let accounted = capture["analysed"].as_u64().unwrap() + lost;
    check("matched = analysed + losses".into(), &capture["matched"], accounted);
    for id in &truth.findings {
        if !report["findings"].as_array().unwrap().iter().any(|finding| finding["id"] == *id) {
            wrong.push(format!("finding {id} is missing"));
        }
    }
    wrong
}

/// What writes the same capture.
fn command(plan: &Plan, recording: &Recording) -> String {
    let mut text =
        format!("voxlab story --seed {} --calls {} --talk {}ms", plan.seed, plan.calls, plan.packets * 20);
    let switches = [
        (plan.auth, "auth"),
        (plan.transfer, "transfer"),
        (plan.hold, "hold"),
        (plan.dtmf, "dtmf"),
        (plan.retransmissions, "retransmissions"),
        (plan.ipv6, "ipv6"),
        (plan.tcp, "tcp"),
        (plan.large, "large"),
        (recording.shuffled, "shuffled"),
        (recording.interfaces, "interfaces"),
        (recording.rpcap.is_some(), "rpcap"),
        (recording.rpcap.is_some_and(|rpcap| rpcap.data_connection), "rpcap-data"),
        (recording.rpcap.is_some_and(|rpcap| rpcap.mid_stream), "rpcap-mid-stream"),
    ];
    for (_, name) in switches.iter().filter(|(on, _)| *on) {
        let _ = write!(text, " --{name}");
    }
    let numbers = [
        (plan.loss_percent, "loss"),
        (plan.reorder_percent, "reorder"),
        (recording.misses_percent, "misses"),
    ];
    for (percent, name) in numbers.iter().filter(|(percent, _)| *percent > 0.0) {
        let _ = write!(text, " --{name} {percent}");
    }
    if plan.guesses > 0 {
        let _ = write!(text, " --guesses {}", plan.guesses);
    }
    if plan.t1_ms != 500 {
        let _ = write!(text, " --t1 {}", plan.t1_ms);
    }
    if recording.delay_ns > 0 {
        let _ = write!(text, " --delay {}us", recording.delay_ns / 1_000);
    }
    if !recording.taps.is_empty() {
        let taps: Vec<_> = recording.taps.iter().map(Tap::to_string).collect();
        let _ = write!(text, " --copies {}", taps.join(","));
    }
    if let Some(rpcap) = recording.rpcap {
        let _ = write!(text, " --rpcap-delay {}us", rpcap.delay_ns / 1_000);
        if rpcap.batch_ns > 0 {
            let _ = write!(text, " --rpcap-batch {}us", rpcap.batch_ns / 1_000);
        }
    }
    text + " --out story.pcapng --truth story.json"
}

/// All of them must be right, to the last frame.
fn all_right(trials: Vec<(String, Trial)>) {
    let mut confusion = Confusion::default();
    let mut wrong = Vec::new();
    for (name, trial) in trials {
        println!(
            "{name:<44}{:>4} stories{:>8} frames{:>6} wrong",
            trial.stories,
            trial.frames,
            trial.wrong.len()
        );
        confusion.merge(trial.confusion);
        wrong.extend(trial.wrong);
    }
    let table = confusion.table();
    println!("{table}");
    for story in &wrong {
        println!("{story}");
    }
    let count = wrong.len();
    let shown = wrong.into_iter().take(4).collect::<Vec<_>>().join("\n");
    assert_eq!(count, 0, "stories are wrong:\n{shown}\n{table}");
}

const CAUSES: [Step; 6] =
    [Step::SamePoint, Step::L2Mirror, Step::Vlan, Step::Routed, Step::ReEmitted, Step::SentTwice];

/// Each cause alone, and three in one.
fn recordings() -> Vec<Recording> {
    let mut recordings = vec![Recording::default()];
    recordings.extend(CAUSES.map(|step| Recording::by(&[step])));
    recordings.push(Recording::by(&[Step::ReEmitted, Step::Vlan, Step::Routed]));
    recordings.push(Recording::by(&[Step::SamePoint, Step::SamePoint, Step::SamePoint]));
    recordings
}

/// The story's, and three in one.
fn few() -> Vec<Recording> {
    vec![Recording::by(&[Step::ReEmitted]), Recording::by(&[Step::SamePoint, Step::Vlan, Step::Routed])]
}

#[test]
fn every_cause_is_found_in_every_kind_of_story() {
    let plans = [
        ("plain", SHORT),
        ("full", FULL),
        ("ipv6", Plan { ipv6: true, ..FULL }),
        ("tcp", Plan { tcp: true, ..FULL }),
    ];
    let trial = |(name, plan)| (format!("{name}, one to four taps"), Trial::run(name, plan, &recordings()));
    all_right(plans.map(trial).into());
}

#[test]
fn taps_that_miss_frames_make_no_loss_and_no_false_cause() {
    let missing = |recording| Recording { misses_percent: 5.0, ..recording };
    let recordings: Vec<_> = recordings().into_iter().skip(1).map(missing).collect();
    all_right(vec![("taps that miss 5 %".into(), Trial::run("misses", FULL, &recordings))]);
}

#[test]
fn taps_on_interfaces_of_their_own_change_no_cause() {
    let apart = |recording| Recording { interfaces: true, ..recording };
    let recordings: Vec<_> = recordings().into_iter().map(apart).collect();
    all_right(vec![("an interface for each tap".into(), Trial::run("interfaces", FULL, &recordings))]);
}

#[test]
fn taps_that_are_late_or_out_of_order_change_nothing() {
    let late = |ms: u64, interfaces: bool| -> Vec<Recording> {
        let late = |one| Recording { delay_ns: ms * 1_000_000, interfaces, ..one };
        recordings().into_iter().skip(1).map(late).collect()
    };
    let shuffled =
        recordings().into_iter().map(|one| Recording { shuffled: true, ..one }).collect::<Vec<_>>();
    all_right(vec![
        ("the first tap among the others".into(), Trial::run("shuffled", FULL, &shuffled)),
        ("taps 15 ms late".into(), Trial::run("late-15", FULL, &late(15, false))),
        // At one place, nothing tells a copy as late as this from a sender that repeats itself.
        ("taps 50 ms late, each an interface".into(), Trial::run("late-50", FULL, &late(50, true))),
    ]);
}

#[test]
fn a_shorter_t1_fragments_and_guessed_passwords_are_what_they_are() {
    all_right(vec![
        ("T1 of 200 ms".into(), Trial::run("t1", Plan { t1_ms: 200, ..FULL }, &recordings())),
        ("offers in fragments".into(), Trial::run("large", Plan { large: true, ..FULL }, &recordings())),
        (
            "offers in fragments, IPv6".into(),
            Trial::run("large6", Plan { large: true, ipv6: true, ..FULL }, &recordings()),
        ),
        ("guessed passwords".into(), Trial::run("guesses", Plan { guesses: 13, ..FULL }, &recordings())),
    ]);
}

#[test]
fn all_at_once_is_still_told_apart() {
    let plan = Plan { loss_percent: 10.0, reorder_percent: 4.0, guesses: 5, jitter_ms: 12.0, ..FULL };
    let chaos = |one| Recording {
        rpcap: Some(Rpcap::default()),
        misses_percent: 8.0,
        shuffled: true,
        interfaces: true,
        ..one
    };
    let recordings: Vec<_> = few().into_iter().map(chaos).collect();
    all_right(vec![
        ("all at once".into(), Trial::run("chaos", plan, &recordings)),
        ("all at once, TCP".into(), Trial::run("chaos-tcp", Plan { tcp: true, ..plan }, &recordings)),
    ]);
}

#[test]
fn the_other_side_of_a_translator_is_a_leg_and_no_copy() {
    let recordings = [Recording::by(&[Step::Nat]), Recording::by(&[Step::Nat, Step::ReEmitted])];
    all_right(vec![("behind a translator".into(), Trial::run("nat", FULL, &recordings))]);
}

#[test]
fn a_copy_in_a_tunnel_is_encapsulated_whatever_the_tunnel() {
    let through = |plan: Plan| -> Vec<Recording> {
        let steps = Tunnel::ALL.map(Step::Tunnel).into_iter().chain([Step::Mpls, Step::Pppoe]);
        let steps = steps.filter(|step| plan.ipv6 || *step != Step::Tunnel(Tunnel::Teredo));
        steps.map(|step| Recording::by(&[step])).collect()
    };
    let six = Plan { ipv6: true, ..FULL };
    let nested = ["vlan+erspan2", "gre+vlan", "re-emitted+vxlan", "gtp+ipip+erspan3"];
    let nested = nested.map(|chain| Recording { taps: vec![chain.parse().unwrap()], ..Recording::default() });
    all_right(vec![
        ("each tunnel".into(), Trial::run("tunnels", FULL, &through(FULL))),
        ("each tunnel, IPv6".into(), Trial::run("tunnels6", six, &through(six))),
        ("tunnels in tunnels".into(), Trial::run("nested", FULL, &nested)),
    ]);
}

#[test]
fn a_remote_capture_that_was_captured_is_seen_through() {
    let with = |rpcap: Rpcap, recordings: Vec<Recording>| -> Vec<Recording> {
        recordings.into_iter().map(|one| Recording { rpcap: Some(rpcap), ..one }).collect()
    };
    let each = Rpcap::default();
    let ms = 1_000_000;
    let variants = [
        ("rpcap, mid-stream", Rpcap { mid_stream: true, ..each }),
        ("rpcap, data connection", Rpcap { data_connection: true, ..each }),
        ("rpcap, 90 ms late", Rpcap { delay_ns: 90 * ms, ..each }),
        ("rpcap, several in a segment", Rpcap { batch_ns: 15 * ms, delay_ns: 0, ..each }),
    ];
    let mut trials = vec![
        ("rpcap".to_owned(), Trial::run("rpcap", FULL, &with(each, recordings()))),
        (
            "rpcap, 200 ms late".to_owned(),
            Trial::run(
                "rpcap-200",
                FULL,
                &with(Rpcap { delay_ns: 200 * ms, ..each }, vec![Recording::default()]),
            ),
        ),
        ("rpcap, IPv6".to_owned(), Trial::run("rpcap6", Plan { ipv6: true, ..FULL }, &with(each, few()))),
    ];
    trials
        .extend(variants.map(|(name, rpcap)| (name.to_owned(), Trial::run(name, FULL, &with(rpcap, few())))));
    all_right(trials);
}

#[test]
fn real_captures_show_copies_and_no_false_resends() {
    let Some(captures) = shared_captures() else { return };
    let report = |name: &str| {
        let found = voxlab::captures::files_below(&captures).into_iter().find(|path| path.ends_with(name));
        let path = found.unwrap_or_else(|| panic!("{name} is not among the shared captures"));
        serde_json::to_value(analyze(&[path], &Options::default(), |_, _| ()).unwrap()).unwrap()
    };
    // A mirror port that shows both directions of some streams twice: tshark says -94 % and -100 % lost.
    let skinny = report("skinny.pcap");
    let streams = skinny["streams"].as_array().unwrap();
    let copied: Vec<_> = streams.iter().filter(|one| one["duplicates"]["total"].as_u64() > Some(0)).collect();
    assert!(!copied.is_empty());
    for stream in copied {
        assert_eq!(stream["unique"]["lost"], 0, "{stream:#}");
        assert!(stream["raw"]["lost"].as_i64().unwrap() < 0);
        assert!(!stream["duplicates"]["causes"].as_array().unwrap().is_empty());
    }
    // 23 identical frames, of which tshark calls 14 resent.
    let fax = &report("FAX-Call-t38-CA-TDM-SIP-FB-1.pcap")["sip"];
    assert_eq!((&fax["copies"], &fax["retransmissions"]), (&23.into(), &0.into()), "{fax:#}");
    // Guessed passwords: tshark calls 13 of them resent, but every branch differs.
    let guesses = &report("CESNET+ipfixprobe/sip.pcap")["sip"];
    assert_eq!((&guesses["copies"], &guesses["retransmissions"]), (&0.into(), &0.into()), "{guesses:#}");
}
