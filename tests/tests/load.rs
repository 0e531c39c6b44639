//! A thousand calls by sipp, fifty a second, with RTP, through the gateway of the lab with the probe on it: each is found,
//! each has come to what it came to, and no frame is missing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use voxlab::captures::Scratch;
use voxlab::privileges::{root_for, skipped};
use voxlab::probe::Probe;
use voxlab::sip::load::{self, Outcome, PACKETS};
use voxlab::sip::sipp;
use voxlab::topology::Topology;

/// Of each of the five outcomes; and as many of each in a second.
const CALLS: u32 = 200;
const RATE: u32 = 10;

#[test]
fn a_thousand_calls_at_fifty_a_second_are_all_found_and_none_is_left_open() {
    const TEST: &str = "a_thousand_calls_at_fifty_a_second_are_all_found_and_none_is_left_open";
    if !root_for(TEST) {
        return;
    }
    if !sipp::is_installed() {
        return skipped(TEST, "sipp is not installed: `cargo xtask setup --with-peers`");
    }
    let topology = Topology::create(5, false).unwrap();
    let scratch = Scratch::new("load-report").unwrap();
    let (path, log) = (scratch.path().join("report.json"), scratch.path().join("log.json"));
    let mut args: Vec<String> = ["run", "--interval", "1s", "--log-format", "json"].map(str::to_owned).into();
    args.extend([
        "--report".to_owned(),
        path.display().to_string(),
        "--log".to_owned(),
        log.display().to_string(),
    ]);
    args.extend(
        topology.watched().iter().flat_map(|interface| ["--iface".to_owned(), (*interface).to_owned()]),
    );
    let mut command = Probe::command(&topology.gw, args).unwrap();
    command.stdout(Stdio::null());
    let mut probe = Probe::spawn(command).unwrap();
    probe.wait_attached(&topology, || false).unwrap();
    let placed = load::place(&topology, CALLS, RATE);
    thread::sleep(Duration::from_millis(300));
    assert!(probe.finish().unwrap().success());
    let spoken = placed.unwrap();
    assert_eq!(spoken.received, spoken.packets, "the lab itself lost packets: {spoken:?}");

    let report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let capture = &report["capture"];
    let losses: u64 = capture["losses"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(losses, 0, "{:#}", capture["losses"]);
    assert_eq!(capture["matched"], capture["analysed"], "{capture:#}");

    let mut found: BTreeMap<(String, String), u32> = BTreeMap::new();
    let calls = report["calls"].as_array().unwrap();
    for call in calls {
        let outcome = call["call_id"].as_str().unwrap().split('-').next().unwrap().to_owned();
        *found.entry((outcome, fate(call))).or_default() += 1;
    }
    let expected =
        Outcome::ALL.map(|outcome| ((outcome.name().to_owned(), expected(outcome).to_owned()), CALLS));
    assert_eq!(found, BTreeMap::from(expected));

    let answered =
        u64::from(CALLS) * Outcome::ALL.iter().filter(|outcome| outcome.is_answered()).count() as u64;
    assert_eq!((spoken.streams, spoken.packets), (2 * answered, 2 * answered * u64::from(PACKETS)));
    let streams = report["streams"].as_array().unwrap();
    assert_eq!(streams.len() as u64, spoken.streams);
    let strangers: Vec<_> = streams.iter().filter(|stream| !stream["call_id"].is_string()).collect();
    assert!(strangers.is_empty(), "{} streams have no call: {:#}", strangers.len(), strangers[0]);
    let sum = |what: &str| streams.iter().filter_map(|stream| stream["unique"][what].as_u64()).sum::<u64>();
    assert_eq!((sum("packets"), sum("lost")), (spoken.packets, 0));
    assert_eq!(
        capture["matched"],
        spoken.packets + spoken.reports + report["sip"]["messages"].as_u64().unwrap()
    );
    for call in calls {
        let has = call["streams"].as_array().unwrap().len();
        let is_answered = call["setup_ms"].is_number();
        assert_eq!(has, if is_answered { 2 } else { 0 }, "{call:#}");
    }
}

/// State, code and who hung up, as the report says.
fn fate(call: &Value) -> String {
    match (call["state"].as_str().unwrap(), call["final_code"].as_u64(), call["ended_by"].as_str()) {
        ("ended", None, Some(by)) => format!("ended by {by}"),
        (state, code, _) => {
            format!("{state} {}", code.map_or("without a code".to_owned(), |code| code.to_string()))
        }
    }
}

fn expected(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::EndedByCaller => "ended by caller",
        Outcome::EndedByCalled => "ended by called",
        Outcome::Busy => "failed 486",
        Outcome::NotFound => "failed 404",
        Outcome::Cancelled => "cancelled 487",
    }
}
