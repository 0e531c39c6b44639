//! Memory of very many calls, in a process as an operator would run it. The budget is issue 5's: 1 GiB.
//!
//! What fills the probe's room takes minutes in a debug build and runs only if asked for (`-- --ignored`); `voxlab crowd`
//! writes a hundred thousand calls and a million INVITEs, and what was measured stands in `docs/measurements/2026-11-24-calls.md`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use voxlab::captures::Scratch;
use voxlab::privileges::skipped;
use voxlab::probe::Probe;
use voxlab::scenes::crowd;

const BUDGET_KIB: i64 = 1 << 20;
/// Calls that are kept.
const ROOM: u64 = 100_000;

/// The report on a file, and the most memory that it took, in KiB.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and says what it used")]
fn analyse(binary: &Path, capture: &Path, report: &Path) -> (Value, i64) {
    let mut command = Command::new(binary);
    command
        .args(["analyze", "--json"])
        .arg(capture)
        .stdout(File::create(report).unwrap())
        .stderr(Stdio::null());
    let child = command.spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: the process is our child and nobody else waits for it; both places are writable for their types.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(waited, pid, "{}", io::Error::last_os_error());
    assert_eq!(status, 0, "voxprobe ended with {status}");
    // SAFETY: the kernel filled it: the call above succeeded.
    let usage = unsafe { usage.assume_init() };
    (serde_json::from_reader(File::open(report).unwrap()).unwrap(), usage.ru_maxrss)
}

fn account_is_exact(report: &Value) {
    let capture = &report["capture"];
    let losses: u64 = capture["losses"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(capture["matched"].as_u64(), Some(capture["analysed"].as_u64().unwrap() + losses));
}

#[test]
fn thousands_of_calls_at_once_are_told_each_with_its_end() {
    const TEST: &str = "thousands_of_calls_at_once_are_told_each_with_its_end";
    const CALLS: u32 = 4_000;
    let Ok(binary) = Probe::binary() else { return skipped(TEST, "no voxprobe binary: `cargo xtask build`") };
    let scratch = Scratch::new("crowd").unwrap();
    let capture = scratch.path().join("crowd.pcapng");
    assert_eq!(crowd::write(&capture, CALLS, 0).unwrap(), 6 * u64::from(CALLS));
    let (report, peak_kib) = analyse(&binary, &capture, &scratch.path().join("report.json"));
    account_is_exact(&report);
    let calls = report["calls"].as_array().unwrap();
    assert_eq!((calls.len(), &report["sip"]["messages"]), (CALLS as usize, &Value::from(6 * CALLS)));
    assert!(calls.iter().all(|call| call["state"] == "ended" && call["ended_by"] == "caller"));
    println!("{CALLS} calls at once: {peak_kib} KiB");
    // What a process takes without calls, and 16 KiB a call: of so few, all messages are remembered.
    assert!(peak_kib < 96 * 1024 + 16 * i64::from(CALLS), "{peak_kib} KiB");
}

#[test]
#[ignore = "a hundred thousand messages: minutes in a debug build"]
fn of_a_flood_of_invites_as_many_are_kept_as_there_is_room_and_the_others_are_counted() {
    const TEST: &str = "of_a_flood_of_invites_as_many_are_kept_as_there_is_room_and_the_others_are_counted";
    const INVITES: u32 = 120_000;
    let Ok(binary) = Probe::binary() else { return skipped(TEST, "no voxprobe binary: `cargo xtask build`") };
    let scratch = Scratch::new("flood").unwrap();
    let capture = scratch.path().join("flood.pcapng");
    crowd::write_flood(&capture, INVITES).unwrap();
    let (report, peak_kib) = analyse(&binary, &capture, &scratch.path().join("report.json"));
    account_is_exact(&report);
    assert_eq!(report["sip"]["kinds"]["INVITE"]["messages"], INVITES);
    assert_eq!(report["calls"].as_array().map(Vec::len), Some(100_000));
    let given_up = ["live_calls", "ended_calls"].map(|what| report["given_up"][what].as_u64().unwrap());
    assert_eq!(given_up.iter().sum::<u64>(), u64::from(INVITES) - ROOM);
    println!("{INVITES} INVITEs with new Call-IDs: {peak_kib} KiB");
    assert!(peak_kib < BUDGET_KIB, "{peak_kib} KiB");
}
