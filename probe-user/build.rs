//! Embeds the BPF object, if there is one.
//!
//! `cargo xtask build-ebpf` makes it, with a compiler that plain `cargo check` must not need. Without it the
//! library still compiles and reads capture files; live capture then says what to run.

use std::env;
use std::path::PathBuf;

const VARIABLE: &str = "VOXPROBE_BPF_OBJECT";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(voxprobe_bpf_object)");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let object = match (env::var_os(VARIABLE), env::var_os("CARGO_MANIFEST_DIR")) {
        (Some(object), _) => PathBuf::from(object),
        (None, Some(package)) => PathBuf::from(package).join("../target/bpf/voxprobe-bpf"),
        (None, None) => return,
    };
    // Not watched while absent: a missing file would have every build start over. `cargo xtask` names the
    // object in the variable, which is watched.
    if let Ok(object) = object.canonicalize() {
        println!("cargo::rerun-if-changed={}", object.display());
        println!("cargo::rustc-env={VARIABLE}={}", object.display());
        println!("cargo::rustc-cfg=voxprobe_bpf_object");
    }
}
