//! End to end: real calls through a forwarding gateway, with the probe attached to it.
//!
//! ```text
//!   phones ── gw-phones [gateway, probe] gw-pbx ── PBX        mir0: the mirror port, in two of the tests
//! ```
//!
//! What the probe says is held against what the lab knows that it sent. Every test has a lab of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use voxlab::calls::{CallPlan, CallState, CallTruth, DirectionTruth};
use voxlab::lab::{Lab, LabReport};
use voxlab::media::Impairment;
use voxlab::mirror::MirrorPlan;
use voxlab::privileges::{root_for, skipped};
use voxlab::probe::{Probe, output_within};
use voxlab::sip::sipp;
use voxlab::story::taps::Step;

const SEED: u64 = 20_260;
const PHONES: u8 = 4;

/// Of each four calls: one plain, one challenged, one transferred, one over IPv6; three seconds of talk.
fn plans(calls: u32) -> Vec<CallPlan> {
    let rough = Impairment { jitter: Duration::from_millis(4), loss: 0.02, reorder: 0.02 };
    (0..calls).map(|index| CallPlan::mixed(SEED, index, PHONES, 150, rough)).collect()
}

#[test]
fn no_call_fails_and_none_differs_with_the_probe_attached() {
    if !root_for("no_call_fails_and_none_differs_with_the_probe_attached") {
        return;
    }
    let alone = lab().place(plans(4));
    let watched = lab();
    let mut probe = Watching::start(&watched, &[]);
    let seen = watched.place(plans(4));
    probe.finish();

    assert_eq!(alone.failures(), [""; 0]);
    assert_eq!(facts(&seen), facts(&alone));
    assert_eq!(seen.rtp_received(), seen.rtp_sent());
    for call in &seen.calls {
        let [up, down] = &call.directions[..] else { panic!("call {} was not spoken both ways", call.index) };
        for direction in [up, down] {
            let truth = (direction.stream.sent, direction.stream.digest);
            assert_eq!((direction.received.packets, direction.received.digest), truth, "call {}", call.index);
        }
    }
}

#[test]
fn the_report_agrees_with_what_was_sent() {
    if !root_for("the_report_agrees_with_what_was_sent") {
        return;
    }
    let lab = lab();
    let mut probe = Watching::start(&lab, &[]);
    let truth = lab.place(plans(8));
    let report = probe.finish();

    assert_eq!(truth.failures(), [""; 0]);
    account_is_exact(&report);
    let matched = report["capture"]["matched"].as_u64();
    assert_eq!(
        matched,
        Some(truth.rtp_sent() + truth.rtcp_sent() + truth.sip_sent()),
        "{:#}",
        report["capture"]
    );
    assert_eq!(report["capture"]["losses"].as_object().map(sum), Some(0), "{:#}", report["capture"]);
    for direction in directions(&truth) {
        let stream = stream(&report, direction);
        let sent = direction.stream;
        let unique = &stream["unique"];
        let counted = [&unique["packets"], &unique["expected"], &unique["lost"]];
        assert_eq!(counted, [sent.sent, sent.sent + sent.dropped, sent.dropped], "{stream:#}");
        // Its `expected` is tshark's, which ends at the last frame and not at the highest number.
        assert_eq!(stream["raw"]["packets"], sent.sent, "{stream:#}");
        assert_eq!(stream["reordered"], sent.reordered, "{stream:#}");
        assert_eq!(stream["duplicates"]["total"], 0, "{stream:#}");
        assert_eq!(stream["payload_types"], serde_json::json!([sent.payload_type]));
        // Delays by the sender are below 4 ms; the rest is a busy machine's.
        let jitter = stream["jitter_percentiles_us"]["p50"].as_f64();
        assert!(jitter.is_some_and(|p50| p50 > 100.0 && p50 < 20_000.0), "{stream:#}");
    }
    assert_eq!(report["sip"]["messages"], truth.sip_sent(), "{:#}", report["sip"]);
    assert_eq!(report["sip"]["copies"], 0);
    assert_eq!(report["sip"]["auth_challenges"], 2);
}

#[test]
fn calls_transfers_and_the_pause_at_the_refer_are_recognised() {
    if !root_for("calls_transfers_and_the_pause_at_the_refer_are_recognised") {
        return;
    }
    let lab = lab();
    let mut probe = Watching::start(&lab, &[]);
    let truth = lab.place(plans(4));
    let report = probe.finish();

    for call in &truth.calls {
        assert_eq!(call.state, CallState::Completed);
        let told = call_of(&report, call);
        assert_eq!(told["messages"], call.messages, "{told:#}");
        assert_eq!(told["auth_challenges"], u64::from(call.authenticated), "{told:#}");
        assert_eq!(
            told["transfers"].as_array().map(Vec::len),
            Some(usize::from(call.transferred)),
            "{told:#}"
        );
        for direction in &call.directions {
            let stream = stream(&report, direction);
            assert_eq!(stream["call_id"], call.call_id, "{stream:#}");
            let longest = stream["unique"]["delta_ms"]["max"].as_f64().unwrap_or_default();
            assert_eq!(longest > 1700.0, call.transferred, "longest silence {longest} ms in {stream:#}");
        }
    }
    assert_eq!(truth.calls.iter().filter(|call| call.transferred).count(), 1);
}

#[test]
fn a_mirror_shows_every_frame_twice_and_is_explained() {
    if !root_for("a_mirror_shows_every_frame_twice_and_is_explained") {
        return;
    }
    let lab = mirrored(&MirrorPlan::after(Step::ReEmitted));
    let mut probe = Watching::start(&lab, &[]);
    let truth = lab.place(plans(4));
    let report = probe.finish();

    assert_eq!(truth.failures(), [""; 0]);
    assert_eq!(truth.rtp_received(), truth.rtp_sent(), "the gateway must not forward the copies");
    account_is_exact(&report);
    for direction in directions(&truth) {
        let stream = stream(&report, direction);
        let sent = direction.stream;
        assert_eq!(stream["raw"]["packets"], 2 * sent.sent, "{stream:#}");
        let unique = [&stream["unique"]["packets"], &stream["unique"]["lost"]];
        assert_eq!(unique, [sent.sent, sent.dropped], "{stream:#}");
        assert_eq!(stream["duplicates"]["total"], sent.sent, "{stream:#}");
        // IPv6 has no identification that could differ: there it looks like two ports of one switch.
        let cause = if direction.src.is_ipv4() { "re-emitted" } else { "l2-mirror" };
        assert_eq!(stream["duplicates"]["causes"][0]["cause"], cause, "{stream:#}");
    }
    assert_eq!(report["sip"]["messages"], truth.sip_sent(), "{:#}", report["sip"]);
    assert_eq!(report["sip"]["copies"], truth.sip_sent(), "{:#}", report["sip"]);
    assert_eq!(report["sip"]["retransmissions"], 0, "copies are not retransmissions");
}

#[test]
fn every_cause_at_the_mirror_port_is_named() {
    if !root_for("every_cause_at_the_mirror_port_is_named") {
        return;
    }
    let lab = mirrored(&"same-point,l2-mirror,vlan,routed,re-emitted".parse().expect("taps"));
    let (truth, report) = watched(&lab);
    for direction in directions(&truth) {
        let mut causes = vec!["l2-mirror", "re-emitted", "routed", "same-point", "vlan"];
        if direction.src.is_ipv6() {
            // IPv6 has no identification that could differ.
            causes.remove(1);
        }
        copied(&report, direction, 5, &causes);
    }
    told_from_retransmissions(&report, &truth, 5);
}

#[test]
fn tunnels_at_the_mirror_port_are_opened() {
    if !root_for("tunnels_at_the_mirror_port_are_opened") {
        return;
    }
    let lab = mirrored(&"gre,vlan+erspan2,vxlan,gtp,mpls".parse().expect("taps"));
    let (truth, report) = watched(&lab);
    for direction in directions(&truth) {
        copied(&report, direction, 5, &["encapsulated"]);
    }
    told_from_retransmissions(&report, &truth, 5);
}

#[test]
fn the_story_is_told_live_two_taps_and_the_remote_capture_of_both() {
    if !root_for("the_story_is_told_live_two_taps_and_the_remote_capture_of_both") {
        return;
    }
    let lab = mirrored(&MirrorPlan::story());
    let (truth, report) = watched(&lab);
    for direction in directions(&truth) {
        let elsewhere = if direction.src.is_ipv4() { "re-emitted" } else { "l2-mirror" };
        copied(&report, direction, 3, &["encapsulated", elsewhere]);
    }
    told_from_retransmissions(&report, &truth, 3);
    let copied = finding(&report, "every-frame-copied");
    let said = [&copied["title"], &copied["detail"], &copied["advice"]].map(ToString::to_string).concat();
    assert!(said.contains('4') && said.contains("rpcap") && said.contains("2002"), "{copied:#}");
    for id in ["copies-not-retransmissions", "capture-includes-its-own-transport"] {
        assert!(finding(&report, id)["advice"].is_string());
    }
}

#[test]
fn calls_of_another_sip_stack_are_seen_as_they_were() {
    if !root_for("calls_of_another_sip_stack_are_seen_as_they_were") {
        return;
    }
    if !sipp::is_installed() {
        skipped(
            "calls_of_another_sip_stack_are_seen_as_they_were",
            "sipp is not installed (package sip-tester)",
        );
        return;
    }
    let lab = lab().with_sipp();
    let mut probe = Watching::start(&lab, &[]);
    let truth = lab.place(plans(4));
    let report = probe.finish();

    assert_eq!(truth.failures(), [""; 0]);
    account_is_exact(&report);
    for call in &truth.calls {
        let told = call_of(&report, call);
        assert_eq!(told["messages"], call.messages, "{told:#}");
        assert_eq!(told["auth_challenges"], u64::from(call.authenticated), "{told:#}");
        for direction in &call.directions {
            assert_eq!(stream(&report, direction)["unique"]["packets"], direction.stream.sent);
        }
    }
}

#[test]
fn after_a_kill_traffic_continues_nothing_stays_attached_and_a_restart_works_at_once() {
    if !root_for("after_a_kill_traffic_continues_nothing_stays_attached_and_a_restart_works_at_once") {
        return;
    }
    let lab = lab();
    let mut first = Watching::start(&lab, &["--egress"]);
    let (truth, second) = thread::scope(|scope| {
        let calls = scope.spawn(|| lab.place(plans(4)));
        thread::sleep(Duration::from_millis(1500));
        first.kill();
        wait_until("the links of a dead probe go", || !any_attached(&lab));
        let mut second = Watching::start(&lab, &[]);
        let truth = calls.join().expect("the calls' thread does not panic");
        (truth, second.finish())
    });
    assert_eq!(truth.failures(), [""; 0]);
    assert_eq!(truth.rtp_received(), truth.rtp_sent());
    account_is_exact(&second);
    assert!(second["streams"].as_array().is_some_and(|streams| !streams.is_empty()), "{second:#}");
    assert!(!any_attached(&lab), "the second probe ended in order and must have detached");
}

#[test]
fn a_second_probe_on_an_interface_is_refused_and_told_who_holds_it() {
    if !root_for("a_second_probe_on_an_interface_is_refused_and_told_who_holds_it") {
        return;
    }
    let lab = lab();
    let mut first = Watching::start(&lab, &[]);
    let second = attempt(&lab, &["run", "--iface", "gw-phones"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success(), "{said}");
    assert!(said.contains("gw-phones") && said.contains("holds it"), "{said}");
    assert!(said.contains("voxprobe"), "the holder is named: {said}");
    assert!(any_attached(&lab), "the first one is still there");
    first.finish();
}

#[test]
fn an_interface_that_is_not_there_is_named_beside_those_that_are() {
    if !root_for("an_interface_that_is_not_there_is_named_beside_those_that_are") {
        return;
    }
    let lab = lab();
    let output = attempt(&lab, &["run", "--iface", "gw-phones", "--iface", "eth42"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("eth42") && said.contains("gw-pbx"), "{said}");
    assert!(!any_attached(&lab), "nothing is left behind on the interface that exists");
}

#[test]
fn without_capabilities_it_says_which_are_absent() {
    if !root_for("without_capabilities_it_says_which_are_absent") {
        return;
    }
    let lab = lab();
    let mut command = lab.topology.gw.command("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]);
    command.arg(Probe::binary().expect("the binary was built")).args(["run", "--iface", "gw-phones"]);
    let output = output_within(command, Duration::from_secs(10)).expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("CAP_BPF") && said.contains("absent"), "{said}");
    assert!(!any_attached(&lab));
}

#[test]
fn a_lab_leaves_nothing_behind_and_the_next_removes_what_a_killed_one_left() {
    if !root_for("a_lab_leaves_nothing_behind_and_the_next_removes_what_a_killed_one_left") {
        return;
    }
    let name = {
        let lab = mirrored(&MirrorPlan::story());
        lab.topology.gw.name().to_owned()
    };
    assert!(!namespaces().contains(&name), "{name} outlived its lab");

    // A process id that this machine does not hand out, so that its owner is certainly dead.
    let stale = format!("vl-4999999-1-{}-gw", unique());
    let added = Command::new("ip").args(["netns", "add", &stale]).status().expect("ip is there");
    assert!(added.success());
    let sleeper = Command::new("ip").args(["netns", "exec", &stale, "sleep", "600"]).spawn();
    let mut sleeper = sleeper.expect("ip is there");
    thread::sleep(Duration::from_millis(200));
    let next = lab();
    assert!(!namespaces().contains(&stale), "{stale} was not removed");
    let end = sleeper.wait().expect("it is ours");
    assert!(!end.success(), "what ran in it was ended");
    drop(next);
}

fn lab() -> Lab {
    mirrored(&MirrorPlan::NONE)
}

fn mirrored(plan: &MirrorPlan) -> Lab {
    Lab::start(PHONES, plan).expect("root can make a lab")
}

/// A probe on all of the gateway's interfaces, with its report in a file.
struct Watching {
    probe: Probe,
    report: PathBuf,
    log: PathBuf,
}

impl Watching {
    /// Returns when it is attached.
    fn start(lab: &Lab, more: &[&str]) -> Self {
        let base = std::env::temp_dir().join(format!("voxlab-test-{}-{}", std::process::id(), unique()));
        let (report, log) = (base.with_extension("report.json"), base.with_extension("log.json"));
        let mut args: Vec<String> = vec!["run".into(), "--interval".into(), "1s".into()];
        args.extend([
            "--report".into(),
            report.display().to_string(),
            "--log".into(),
            log.display().to_string(),
        ]);
        args.extend(["--log-format".into(), "json".into()]);
        for interface in lab.topology.watched() {
            args.extend(["--iface".into(), interface.into()]);
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let mut command = Probe::command(&lab.topology.gw, args).expect("the binary was built");
        command.stdout(Stdio::null());
        let mut watching = Self { probe: Probe::spawn(command).expect("it starts"), report, log };
        watching.probe.wait_attached(&lab.topology, || false).expect("it attaches");
        watching
    }

    /// Lets the last frames through, ends it, and returns its report.
    fn finish(&mut self) -> Value {
        thread::sleep(Duration::from_millis(300));
        let status = self.probe.finish().expect("it ends when asked");
        assert!(status.success(), "{status}");
        for line in fs::read_to_string(&self.log).expect("a log was written").lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(event["type"].is_string() && event["time"].is_string(), "{line}");
        }
        let report = fs::read_to_string(&self.report).expect("a report was written");
        serde_json::from_str(&report).expect("the report is JSON")
    }

    fn kill(&mut self) {
        self.probe.signal(Signal::KILL).expect("it is ours");
        self.probe.wait(Duration::from_secs(5)).expect("a killed process ends");
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.report);
        let _ = fs::remove_file(&self.log);
    }
}

/// What must not depend on who watches: all of the truth but addresses of time.
fn facts(report: &LabReport) -> Vec<CallTruth> {
    let mut calls = report.calls.clone();
    for call in &mut calls {
        // A timer that fired once more on a busy machine is no difference in the call.
        call.messages -= call.retransmissions;
        call.retransmissions = 0;
        for direction in &mut call.directions {
            direction.stream.reports = 0;
            direction.received.reports = 0;
        }
    }
    calls
}

fn directions(truth: &LabReport) -> impl Iterator<Item = &DirectionTruth> {
    truth.calls.iter().flat_map(|call| &call.directions)
}

fn stream<'a>(report: &'a Value, direction: &DirectionTruth) -> &'a Value {
    let ssrc = format!("0x{:08x}", direction.stream.ssrc);
    let key = (direction.src.to_string(), direction.dst.to_string(), ssrc);
    let found = report["streams"].as_array().into_iter().flatten().find(|stream| {
        (stream["src"].as_str(), stream["dst"].as_str(), stream["ssrc"].as_str())
            == (Some(&key.0), Some(&key.1), Some(&key.2))
    });
    found.unwrap_or_else(|| panic!("no stream {key:?} in {:#}", report["streams"]))
}

fn call_of<'a>(report: &'a Value, call: &CallTruth) -> &'a Value {
    let found = report["calls"].as_array().into_iter().flatten().find(|told| told["call_id"] == call.call_id);
    found.unwrap_or_else(|| panic!("no call {} in {:#}", call.call_id, report["calls"]))
}

/// Places four calls before a probe.
fn watched(lab: &Lab) -> (LabReport, Value) {
    let mut probe = Watching::start(lab, &[]);
    let truth = lab.place(plans(4));
    let report = probe.finish();
    assert_eq!(truth.failures(), [""; 0]);
    assert_eq!(truth.rtp_received(), truth.rtp_sent(), "the gateway must not forward the copies");
    account_is_exact(&report);
    (truth, report)
}

/// Each packet of a direction was seen this often beyond the first time, for these reasons, in order of their names.
fn copied(report: &Value, direction: &DirectionTruth, copies: u64, causes: &[&str]) {
    let stream = stream(report, direction);
    let sent = direction.stream;
    let unique = [&stream["unique"]["packets"], &stream["unique"]["lost"]];
    assert_eq!(unique, [sent.sent, sent.dropped], "{stream:#}");
    assert_eq!(stream["duplicates"]["total"], copies * sent.sent, "{stream:#}");
    let told = stream["duplicates"]["causes"].as_array().into_iter().flatten();
    let told: BTreeSet<_> = told.filter_map(|cause| cause["cause"].as_str()).collect();
    assert_eq!(told, causes.iter().copied().collect(), "{stream:#}");
}

/// Copies of SIP are copies, and nothing else.
fn told_from_retransmissions(report: &Value, truth: &LabReport, copies: u64) {
    let sip = &report["sip"];
    assert_eq!(sip["messages"], truth.sip_sent(), "{sip:#}");
    assert_eq!(sip["copies"], copies * truth.sip_sent(), "{sip:#}");
    assert_eq!(sip["retransmissions"], 0, "copies are not retransmissions");
}

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let found = report["findings"].as_array().into_iter().flatten().find(|finding| finding["id"] == id);
    found.unwrap_or_else(|| panic!("no finding {id} in {:#}", report["findings"]))
}

/// The law: what the kernel matched was analysed, or is counted under a name.
fn account_is_exact(report: &Value) {
    let capture = &report["capture"];
    let losses = capture["losses"].as_object().map(sum);
    let (matched, analysed) = (capture["matched"].as_u64(), capture["analysed"].as_u64());
    assert_eq!(matched, analysed.zip(losses).map(|(analysed, losses)| analysed + losses), "{capture:#}");
    assert!(matched > Some(0), "{capture:#}");
}

fn sum(counts: &serde_json::Map<String, Value>) -> u64 {
    counts.values().filter_map(Value::as_u64).sum()
}

/// Runs the probe in the gateway; it is expected to end by itself.
fn attempt(lab: &Lab, args: &[&str]) -> Output {
    let command = Probe::command(&lab.topology.gw, args).expect("the binary was built");
    output_within(command, Duration::from_secs(10)).expect("it ends by itself")
}

fn any_attached(lab: &Lab) -> bool {
    lab.topology.watched().iter().any(|interface| lab.topology.carries_xdp(interface))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within 10 s");
        thread::sleep(Duration::from_millis(20));
    }
}

fn namespaces() -> BTreeSet<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().expect("ip is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

fn unique() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}
