//! The raw ledger equals what tshark 4.0 prints: captures made here, by the tshark that is installed. The shared
//! captures, whose rows are kept, are in `golden.rs` and need none.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use voxlab::captures::Scratch;
use voxlab::conformance::generated::{self, Capture};
use voxlab::conformance::{Outcome, Subject, Tshark, file};
use voxlab::privileges::skipped;

#[test]
fn generated_captures_equal_the_installed_tshark() {
    compare("generated_captures_equal_the_installed_tshark", "generated", &generated::named(), 80);
}

#[test]
fn random_rtp_equals_the_installed_tshark() {
    compare("random_rtp_equals_the_installed_tshark", "random", &generated::random(4, 2_000), 36);
}

/// Compares all captures by both rules. `rows` is how many have to be found at least.
fn compare(test: &str, folder: &str, captures: &[Capture], rows: usize) {
    let tshark = match Tshark::find() {
        Ok(tshark) if tshark.is_the_reference() => tshark,
        Ok(tshark) => return skipped(test, &format!("tshark is {}", tshark.describe())),
        Err(error) => return skipped(test, &format!("{error:#}")),
    };
    let scratch = Scratch::new(folder).unwrap();
    let mut outcome = Outcome::default();
    let mut said = String::new();
    for capture in captures {
        let path = scratch.file(&capture.name, &capture.bytes).unwrap();
        let text = file(&tshark, &Subject::Library, &path, &mut outcome).unwrap();
        if !text.is_empty() {
            said.push_str(&[&capture.name, "\n", &text].concat());
        }
    }
    assert_eq!((outcome.differ, outcome.excused), (0, 0), "{said}");
    assert!(outcome.equal >= rows, "only {} rows were compared: {outcome:?}", outcome.equal);
}
