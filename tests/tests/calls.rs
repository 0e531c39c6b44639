//! Every scene of the library, as some taps captured it: what the report says of its calls is what happened.
//!
//! The scenes and their truth come from the generator, which shares no code with the analysis. A field of the truth must
//! stand in the report under the same name; a difference names the scene, the call and the field, and
//! `voxlab scenes NAME --out FILE --truth FILE` writes what shows it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use voxlab::captures::Scratch;
use voxlab::privileges::skipped;
use voxlab::probe::Probe;
use voxlab::scenes::truth::{CallTruth, SceneTruth};
use voxlab::scenes::{Played, Scene};
use voxlab::story::Recording;
use voxlab::story::taps::Step;
use voxprobe::pipeline::offline::{Options, analyze};

const SEED: u64 = 20_260;

#[test]
fn each_scene_is_told_as_it_was() {
    check("x1", &Recording::default());
}

#[test]
fn two_taps_change_nothing_of_it() {
    check("x2", &Recording::by(&[Step::ReEmitted]));
}

#[test]
fn nor_do_two_taps_and_their_remote_capture() {
    check("x4", &Recording::by(&[Step::ReEmitted]).and_rpcap());
}

#[test]
fn nor_do_tags_and_tunnels() {
    check("tunnelled", &Recording { taps: vec!["vlan+erspan2".parse().unwrap()], ..Recording::default() });
}

fn check(name: &str, recording: &Recording) {
    let scratch = Scratch::new(&format!("scenes-{name}")).unwrap();
    let mut found = Vec::new();
    for scene in chosen() {
        let played = scene.play(SEED, recording);
        let path = scratch.path().join(format!("{}.pcapng", scene.name));
        played.story.write(&path).unwrap();
        let report = analyze(std::slice::from_ref(&path), &Options::default(), |_, _| ()).unwrap();
        let report = serde_json::to_value(report).unwrap();
        let differences = differences(&played, &report, recording);
        found.extend(differences.into_iter().map(|difference| format!("{}: {difference}", scene.name)));
    }
    assert!(found.is_empty(), "{} differences before {name}:\n{}", found.len(), found.join("\n"));
}

/// All, or the one that `VOXLAB_SCENE` names.
fn chosen() -> Vec<Scene> {
    let only = std::env::var("VOXLAB_SCENE").ok();
    Scene::all().filter(|scene| only.as_ref().is_none_or(|only| only == scene.name)).collect()
}

/// What the report says otherwise.
fn differences(played: &Played, report: &Value, recording: &Recording) -> Vec<String> {
    let truth = &played.truth;
    let mut said = Vec::new();
    let mut same = |what: &str, expected: &Value, told: &Value| {
        if expected != told {
            said.push(format!("{what}: {expected} is true, {told} is told"));
        }
    };
    let capture = &report["capture"];
    let lost: u64 = capture["losses"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    same("matched", &(capture["analysed"].as_u64().unwrap() + lost).into(), &capture["matched"]);
    same("losses", &0.into(), &lost.into());

    let sip = &report["sip"];
    same("sip.messages", &truth.messages.into(), &sip["messages"]);
    same("sip.malformed", &0.into(), &sip["malformed"]);
    let totals = &played.story.truth.totals;
    if !truth.is_segmented {
        same("sip.copies", &totals.sip_copies.into(), &sip["copies"]);
    }
    let kinds: BTreeMap<String, u64> = sip["kinds"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(kind, tally)| (kind.clone(), tally["messages"].as_u64().unwrap()))
        .filter(|(_, messages)| *messages > 0)
        .collect();
    same("sip.kinds", &serde_json::to_value(&truth.kinds).unwrap(), &serde_json::to_value(kinds).unwrap());
    // Datagrams that are counted and not taken apart count with their copies.
    let is_plain = recording.taps.is_empty() && recording.rpcap.is_none();
    for (pointer, fact) in &truth.facts {
        if is_plain || !pointer.contains("media_other") {
            same(pointer, fact, report.pointer(pointer).unwrap_or(&Value::Null));
        }
    }

    let calls = report["calls"].as_array().unwrap();
    same("calls", &truth.calls.len().into(), &calls.len().into());
    let mut used: BTreeMap<&str, usize> = BTreeMap::new();
    for call in &truth.calls {
        let nth = used.entry(&call.call_id).or_default();
        let told = calls.iter().filter(|told| told["call_id"] == *call.call_id).nth(*nth);
        *nth += 1;
        match told {
            Some(told) => said.extend(call_differences(truth, call, told)),
            None => said.push(format!("call {} is missing", call.call_id)),
        }
    }
    said.extend(stream_differences(truth, report));
    said
}

fn call_differences(truth: &SceneTruth, call: &CallTruth, told: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let expected = serde_json::to_value(call).unwrap();
    for (field, expected) in expected.as_object().unwrap() {
        let told = &told[field];
        let agrees = match field.as_str() {
            "disconnect_reason" => {
                told.as_str().is_some_and(|told| told.contains(expected.as_str().unwrap()))
            }
            "timers" => timers(told) == timers(expected),
            "transfers" => transfers_agree(expected, told),
            "related" => related(told) == related(expected),
            "media_findings" => ids(told) == ids(expected),
            "media_absent_because" => {
                told.as_str().is_some_and(|told| told.contains(expected.as_str().unwrap()))
            }
            field if field.ends_with("_ms") => times_agree(expected, told),
            _ => expected == told,
        };
        if !agrees {
            said.push(format!("call {}… {field}: {expected} is true, {told} is told", &call.call_id[..6]));
        }
    }
    if call.forks.is_none() && told["forks"].as_u64().unwrap_or(0) > 1 {
        said.push(format!("call {}… was not forked, {} is told", &call.call_id[..6], told["forks"]));
    }
    let has_media = truth.streams.iter().any(|stream| stream.call_id.as_ref() == Some(&call.call_id));
    if has_media == told["media_absent_because"].is_string() {
        said.push(format!(
            "call {}… media_absent_because: it has {} media, {} is told",
            &call.call_id[..6],
            if has_media { "some" } else { "no" },
            told["media_absent_because"]
        ));
    }
    said
}

fn times_agree(expected: &Value, told: &Value) -> bool {
    match (expected.as_f64(), told.as_f64()) {
        (Some(expected), Some(told)) => (expected - told).abs() < 1.0,
        (expected, told) => expected == told,
    }
}

/// By letter: `A`, `timer_a` and `a` are one.
fn timers(value: &Value) -> BTreeMap<String, u64> {
    let letter = |name: &str| match name.to_lowercase().trim_start_matches("timer_") {
        "two_hundred" => "2xx".to_owned(),
        name => name.to_owned(),
    };
    let counts = value.as_object().into_iter().flatten();
    let counts = counts.map(|(name, count)| (letter(name), count.as_u64().unwrap_or(0)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn transfers_agree(expected: &Value, told: &Value) -> bool {
    let (Some(expected), Some(told)) = (expected.as_array(), told.as_array()) else { return false };
    expected.len() == told.len()
        && expected.iter().zip(told).all(|(expected, told)| {
            expected.as_object().unwrap().iter().all(|(field, value)| told[field] == *value)
        })
}

fn related(value: &Value) -> BTreeSet<(String, String)> {
    let word = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let all = value.as_array().into_iter().flatten();
    all.map(|one| (word(one, "call_id"), word(one, "relation"))).collect()
}

/// Of findings, or of words that are ids themselves.
fn ids(value: &Value) -> BTreeSet<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|one| one["id"].as_str().or(one.as_str()).map(str::to_owned)).collect()
}

fn stream_differences(truth: &SceneTruth, report: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let streams = report["streams"].as_array().unwrap();
    if streams.len() != truth.streams.len() {
        said.push(format!("{} streams are true, {} are told", truth.streams.len(), streams.len()));
    }
    for stream in &truth.streams {
        let name = format!("stream {} -> {}", stream.src, stream.dst);
        let is_it = |told: &&Value| {
            told["src"] == stream.src && told["dst"] == stream.dst && told["ssrc"] == stream.ssrc
        };
        let told = streams.iter().find(is_it);
        let Some(told) = told else {
            said.push(format!("{name} is missing"));
            continue;
        };
        if told["call_id"].as_str() != stream.call_id.as_deref() {
            let because = &told["call_absent_because"];
            said.push(format!(
                "{name}: call {:?} is true, {} is told ({because})",
                stream.call_id, told["call_id"]
            ));
        }
        if told["unique"]["packets"] != stream.packets {
            said.push(format!(
                "{name}: {} packets are true, {} are told",
                stream.packets, told["unique"]["packets"]
            ));
        }
        if let Some(words) = stream.call_absent_because
            && !told["call_absent_because"].as_str().is_some_and(|told| told.contains(words))
        {
            said.push(format!(
                "{name}: no call because of {words:?}, {} is told",
                told["call_absent_because"]
            ));
        }
        if let Some(reports) = stream.sender_reports
            && told["rtcp"]["sender_reports"] != reports
        {
            said.push(format!("{name}: {reports} sender reports, {} is told", told["rtcp"]));
        }
    }
    said
}

/// `voxprobe calls` and `voxprobe flow`, as an operator meets them.
#[test]
fn the_list_and_the_ladder_show_every_call_within_a_hundred_columns() {
    const TEST: &str = "the_list_and_the_ladder_show_every_call_within_a_hundred_columns";
    let Ok(binary) = Probe::binary() else { return skipped(TEST, "no voxprobe binary: `cargo xtask build`") };
    let scratch = Scratch::new("scenes-shown").unwrap();
    let recording = Recording::by(&[Step::ReEmitted]);
    let mut wrong = Vec::new();
    for scene in chosen() {
        let played = scene.play(SEED, &recording);
        let path = scratch.path().join(format!("{}.pcapng", scene.name));
        played.story.write(&path).unwrap();
        let mut expect = |holds: bool, what: &str, text: &str| {
            if !holds {
                wrong.push((scene.name, format!("{what} in\n{text}")));
            }
        };
        let list = shown(&binary, &["calls"], &path);
        expect(is_narrow(&list), "more than 100 columns", &list);
        for call in &played.truth.calls {
            expect(list.contains(&call.call_id[..8]), "the call is missing", &list);
            expect(list.contains(call.state), &format!("nothing is {}", call.state), &list);
            let ladder = shown(&binary, &["flow", "--call", &call.call_id], &path);
            expect(is_narrow(&ladder), "the ladder: more than 100 columns", &ladder);
            expect(ladder.contains("BYE") || call.state != "ended", "the ladder: no BYE", &ladder);
            let begins = call.seen_from_the_middle || ladder.contains("INVITE");
            expect(begins, "the ladder: no INVITE", &ladder);
            let collapsed = ladder.contains("x2") || played.truth.is_segmented;
            expect(collapsed, "the ladder: copies are not told", &ladder);
        }
    }
    let wrong: Vec<_> = wrong.into_iter().map(|(scene, text)| format!("{scene}: {text}")).collect();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// What it prints, or how it fails.
fn shown(binary: &Path, words: &[&str], path: &Path) -> String {
    let output = Command::new(binary).args(words).arg(path).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8(text).unwrap()
}

fn is_narrow(text: &str) -> bool {
    text.lines().all(|line| line.chars().count() <= 100)
}
