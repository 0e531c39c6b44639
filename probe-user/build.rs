//! Embeds the BPF object, if there is one.
//!
//! `cargo xtask build-ebpf` makes it, with a compiler that plain `cargo check` must not need. Without it the
//! library still compiles and reads capture files; live capture then says what to run.

use std::path::PathBuf;
use std::{env, fs};

const VARIABLE: &str = "VOXPROBE_BPF_OBJECT";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(voxprobe_bpf_object)");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let object = match (env::var_os(VARIABLE), env::var_os("CARGO_MANIFEST_DIR")) {
        (Some(object), _) => PathBuf::from(object),
        (None, Some(package)) => PathBuf::from(package).join("../target/bpf/voxprobe-bpf"),
        (None, None) => return,
    };
    // The folder is watched, not the object: a missing file would have every build start over, and one that
    // appears later would not be noticed.
    if let Some(folder) = object.parent() {
        let _ = fs::create_dir_all(folder);
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    if let Ok(object) = object.canonicalize() {
        println!("cargo::rustc-env={VARIABLE}={}", object.display());
        println!("cargo::rustc-cfg=voxprobe_bpf_object");
    }
}
