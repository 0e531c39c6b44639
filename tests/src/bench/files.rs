//! Whole processes on the same capture files: wall time, CPU time, largest memory, packets a second.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;

use super::process::{self, Taken};
use super::{Options, Run, median};
use crate::probe::Probe;
use crate::story::scene::Plan;
use crate::story::taps::Tap;
use crate::story::{Recording, bulk};

/// Runs of each subject that count; one that takes longer than [`LONG`] runs once.
const ROUNDS: usize = 3;
const LONG: Duration = Duration::from_secs(20);

/// A command to run on each capture.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    name: String,
    /// `{}` stands for the file.
    words: Vec<String>,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if !words.iter().any(|word| word.contains("{}")) {
            return Err("the command does not say {}, which stands for the file".to_owned());
        }
        Ok(Self { name: name.to_owned(), words })
    }
}

impl Peer {
    fn command(&self, file: &Path) -> Vec<OsString> {
        self.words.iter().map(|word| word.replace("{}", &file.to_string_lossy()).into()).collect()
    }

    fn is_installed(&self) -> bool {
        self.words.first().is_some_and(|program| program.contains('/') || process::is_installed(program))
    }
}

/// What is asked of every peer: what it does best with such a file, without a screen. The first does nothing but read it, with
/// the size of block that voxprobe has: what is above that is work.
const PEERS: [(&str, &str); 5] = [
    ("dd", "dd status=none if={} of=/dev/null bs=128K"),
    ("tcpdump", "tcpdump -n -Z root -r {} -w /dev/null"),
    ("editcap", "editcap -D 100 {} /dev/null"),
    ("tshark", "tshark -n -q -z rtp,streams -r {}"),
    ("sngrep", "sngrep -N -q -r -I {}"),
];

/// How many of them read about as fast as voxprobe.
const FAST: usize = 3;

struct Capture {
    name: &'static str,
    calls: u32,
    concurrent: u32,
    talk_s: u32,
    copies: Vec<Tap>,
    /// Only voxprobe and what reads as fast.
    fast_only: bool,
}

fn captures(quick: bool) -> Result<Vec<Capture>> {
    let part = if quick { 10 } else { 1 };
    let second: Tap = "re-emitted".parse().map_err(|error: String| anyhow::anyhow!(error))?;
    let capture = |name, calls: u32, talk_s, copies, fast_only| Capture {
        name,
        calls: calls / part,
        concurrent: calls / part,
        talk_s,
        copies,
        fast_only,
    };
    Ok(vec![
        capture("calls-1000", 1_000, 60, vec![], false),
        capture("streams-20000", 10_000, 6, vec![], true),
        capture("duplicated", 500, 60, vec![second], true),
    ])
}

/// Writes each capture, runs everything on it, and removes it.
pub(super) fn measure(run: &mut Run, options: &Options) -> Result<()> {
    let (voxlab, voxprobe) = (std::env::current_exe()?, Probe::binary()?);
    let analyze = |threads: usize| Peer {
        name: format!("voxprobe-{threads}t"),
        words: [&voxprobe.to_string_lossy(), "analyze", "--json", "--threads", &threads.to_string(), "{}"]
            .map(ToString::to_string)
            .to_vec(),
    };
    let mut own: Vec<Peer> = vec![analyze(1)];
    let mut threads = 2;
    while threads <= run.cpus {
        own.push(analyze(threads));
        threads *= 2;
    }
    for capture in captures(options.quick)? {
        let file = Scratch(options.scratch.join(format!(
            "voxlab-bench-{}-{}.pcapng",
            std::process::id(),
            capture.name
        )));
        let plan =
            Plan { seed: 1, packets: capture.talk_s * 50, jitter_ms: 2.0, loss_percent: 0.1, ..Plan::PLAIN };
        let recording = Recording { taps: capture.copies, ..Recording::default() };
        let written = bulk::write(&file.0, &plan, capture.calls, capture.concurrent, &recording)?;
        let bytes = std::fs::metadata(&file.0)?.len();
        println!("\n{}: {} frames, {:.2} GB", capture.name, written.frames, bytes as f64 / 1e9);
        println!(
            "  {:<14} {:>8} {:>8} {:>9} {:>8} {:>9}",
            "", "wall s", "CPU s", "peak MiB", "Mpps", "ns/frame"
        );
        // Into the page cache: disks are not what is compared.
        std::io::copy(&mut std::fs::File::open(&file.0)?, &mut std::io::sink())?;
        let listed = PEERS.iter().filter_map(|(name, command)| format!("{name}={command}").parse().ok());
        let peers = listed.take(if capture.fast_only { FAST } else { PEERS.len() });
        for subject in own.iter().cloned().chain(peers).chain(options.peers.clone()) {
            if !subject.is_installed() {
                run.leave_out(format!("{} is not installed", subject.name));
                continue;
            }
            match several(&voxlab, &subject.command(&file.0)) {
                Ok(taken) => note(run, capture.name, &subject.name, written.frames, &taken),
                Err(error) if subject.name.starts_with("voxprobe") => return Err(error),
                Err(error) => run.leave_out(format!("{error:#}")),
            }
        }
    }
    Ok(())
}

fn several(voxlab: &Path, command: &[OsString]) -> Result<Taken> {
    let mut all = vec![process::run(voxlab, command)?];
    while all.len() < ROUNDS && all.iter().all(|taken| taken.wall < LONG) {
        all.push(process::run(voxlab, command)?);
    }
    let of = |part: fn(&Taken) -> f64| median(all.iter().map(part).collect());
    Ok(Taken {
        wall: Duration::from_secs_f64(of(|taken| taken.wall.as_secs_f64())),
        cpu: Duration::from_secs_f64(of(|taken| taken.cpu.as_secs_f64())),
        peak_kib: all.iter().map(|taken| taken.peak_kib).max().unwrap_or_default(),
    })
}

fn note(run: &mut Run, capture: &str, subject: &str, frames: u64, taken: &Taken) {
    let (wall, cpu) = (taken.wall.as_secs_f64(), taken.cpu.as_secs_f64());
    let mpps = frames as f64 / wall / 1e6;
    let peak = taken.peak_kib as f64 / 1024.0;
    let ns = cpu * 1e9 / frames as f64;
    println!("  {subject:<14} {wall:>8.2} {cpu:>8.2} {peak:>9.0} {mpps:>8.2} {ns:>9.0}");
    let name = |quantity| format!("files/{capture}/{subject}/{quantity}");
    run.note(name("wall"), wall, "s");
    run.note(name("cpu"), cpu, "s");
    run.note(name("peak"), peak, "MiB");
    run.note(name("rate"), mpps, "Mpps");
}

/// A file that is gone when it is no longer needed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_needs_a_name_and_a_place_for_the_file() {
        assert!("tcpdump -r {}".parse::<Peer>().is_err());
        assert!("x=tcpdump -r".parse::<Peer>().is_err());
        let peer: Peer = "x=tool --read={} -q".parse().unwrap();
        assert_eq!(peer.command(Path::new("/a b")), ["tool", "--read=/a b", "-q"]);
    }

    #[test]
    fn every_listed_peer_is_well_formed() {
        for (name, command) in PEERS {
            assert!(format!("{name}={command}").parse::<Peer>().is_ok(), "{name}");
        }
    }
}
