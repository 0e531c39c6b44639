//! The fuzz targets on a stable compiler: what the fuzzer has found worth keeping, and random bytes.
//!
//! `cargo xtask fuzz` looks for more. See `tests/fuzz/src/lib.rs` for what is tried.

#[allow(unreachable_pub, clippy::pedantic, reason = "shared with the fuzzer, which is a crate of its own")]
#[path = "../fuzz/src/lib.rs"]
mod voxfuzz;

use std::path::Path;

use voxlab::random::Random;

/// A target, and the name of its folder.
type Target = (&'static str, fn(&[u8]));

/// All of them.
const TARGETS: [Target; 6] = [
    ("message", voxfuzz::message::run),
    ("sdp", voxfuzz::sdp::run),
    ("reassembly", voxfuzz::reassembly::run),
    ("websocket", voxfuzz::websocket::run),
    ("dialogs", voxfuzz::dialogs::run),
    ("frames", voxfuzz::frames::run),
];

#[test]
fn what_the_fuzzer_found_worth_keeping_still_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut bytes = 0;
    for (name, run) in TARGETS {
        let files: Vec<_> =
            std::fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 10, "{name}: {} files", files.len());
        for file in files {
            let input = std::fs::read(&file).unwrap();
            bytes += input.len();
            eprintln!("{}", file.display());
            run(&input);
        }
    }
    assert!(bytes <= 200 << 10, "{bytes} bytes are no small corpus");
}

#[test]
fn random_bytes_break_nothing() {
    let mut random = Random::new(7);
    for (name, run) in TARGETS {
        for round in 0..300 {
            let length = random.next_u32() % 400;
            let input: Vec<u8> = (0..length).map(|_| random.next_u32().to_le_bytes()[0]).collect();
            eprintln!("{name}, {round}: {input:02x?}");
            run(&input);
        }
    }
}
