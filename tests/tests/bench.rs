//! What the benchmark says that programs take.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use voxlab::bench::process::{self, Taken};

const MIB: u64 = 1 << 10;

fn run(words: &[&str]) -> anyhow::Result<Taken> {
    let words: Vec<_> = words.iter().map(OsString::from).collect();
    process::run(Path::new(env!("CARGO_BIN_EXE_voxlab")), &words)
}

/// What this process has in use, in KiB (proc(5), `status`).
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_small_program_of_a_large_parent_is_small() {
    let large = vec![1_u8; 256 << 20];
    assert!(resident_kib() > Some(256 * MIB));
    let taken = run(&["true"]).unwrap();
    assert!(taken.peak_kib < 64 * MIB, "{taken:?}");
    assert!(taken.wall > Duration::ZERO && taken.cpu <= taken.wall, "{taken:?}");
    drop(large);
}

#[test]
fn a_large_program_is_as_large_as_it_is() {
    // One block of so many bytes, which is written to.
    let taken = run(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]).unwrap();
    assert!((200 * MIB..264 * MIB).contains(&taken.peak_kib), "{taken:?}");
    assert!(taken.cpu > Duration::ZERO, "{taken:?}");
}

#[test]
fn a_program_that_fails_or_is_not_there_is_no_measurement() {
    let error = format!("{:#}", run(&["false"]).unwrap_err());
    assert!(error.contains("\"false\" ended with exit status: 1"), "{error}");
    let error = format!("{:#}", run(&["/does/not/exist", "--help"]).unwrap_err());
    assert!(error.contains("cannot start") && error.contains("No such file"), "{error}");
}
