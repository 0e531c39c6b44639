//! A generator in the kernel sends past the probe, and past its peers, at the same rates.
//!
//! The peers write what they get to /dev/null, as a recorder would to a disk that costs nothing. What each received and lost is
//! what it says itself when it ends; what was sent is the generator's count.

use std::io::Read as _;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use rustix::process::{Pid, Signal, kill_process};
use voxprobe::capture::live::Mode;
use voxprobe::capture::xsk::MirrorOptions;

use super::{Run, process};
use crate::netns::{LabName, Namespace};
use crate::throughput;
use crate::traffic::{self, Generator, Sent, Spec};

/// Offered, in packets a second; `None` is flat out.
const RATES: [Option<u64>; 3] = [Some(250_000), Some(1_000_000), None];
const STREAMS: u32 = 1_024;
/// Time to begin capturing.
const SETTLE: Duration = Duration::from_millis(700);

/// A recorder, and how it says what it got.
struct Recorder {
    name: &'static str,
    args: &'static [&'static str],
    /// Words beside the number of frames that it received.
    says: &'static str,
}

const RECORDERS: [Recorder; 3] = [
    Recorder {
        name: "tcpdump",
        args: &["-n", "-Z", "root", "-i", "far0", "-w", "/dev/null"],
        says: "packets captured",
    },
    Recorder { name: "dumpcap", args: &["-q", "-i", "far0", "-w", "/dev/null"], says: "packets captured" },
    Recorder {
        name: "netsniff-ng",
        args: &["--in", "far0", "--out", "/dev/null", "--silent"],
        says: "packets passed filter",
    },
];

/// Who received what.
struct Received {
    sent: Sent,
    frames: u64,
    lost: u64,
    cpu: Duration,
}

/// All rates, all receivers.
pub(super) fn measure(run: &mut Run, duration: Duration) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        run.leave_out("live: needs root".to_owned());
        return Ok(());
    }
    for rate in RATES {
        let offered = rate.map_or_else(|| "flat".to_owned(), |pps| format!("{}k", pps / 1_000));
        println!(
            "\nlive, {} packets a second of {STREAMS} streams:",
            if rate.is_none() { "as many" } else { &offered }
        );
        println!("  {:<14} {:>9} {:>10} {:>9} {:>11}", "", "sent Mpps", "got Mpps", "lost %", "CPU ns/frame");
        let spec = Spec { streams: STREAMS, rate_pps: rate, ..Spec::default() };
        for (subject, mode) in
            [("voxprobe-tap", Mode::Tap), ("voxprobe-mirror", Mode::Mirror(MirrorOptions::DEFAULT))]
        {
            note(run, &offered, subject, &probe(&spec, duration, mode)?);
        }
        for recorder in &RECORDERS {
            if !process::is_installed(recorder.name) {
                run.leave_out(format!("{} is not installed", recorder.name));
                continue;
            }
            match record(recorder, &spec, duration) {
                Ok(received) => note(run, &offered, recorder.name, &received),
                Err(error) => run.leave_out(format!("{}: {error:#}", recorder.name)),
            }
        }
    }
    Ok(())
}

fn probe(spec: &Spec, duration: Duration, mode: Mode) -> Result<Received> {
    let setup = throughput::Setup { mode, shards: 1, ring_bytes: 8 << 20, sheds: false };
    let measured = throughput::measure(spec, duration, setup)?;
    let frames = measured.report.capture.analysed;
    Ok(Received {
        sent: measured.sent,
        frames,
        lost: measured.sent.frames.saturating_sub(frames),
        cpu: measured.receiver_cpu,
    })
}

/// Runs a recorder at the far end of a pair of its own.
fn record(recorder: &Recorder, spec: &Spec, duration: Duration) -> Result<Received> {
    let lab = LabName::unique()?;
    let (near, far) = (Namespace::create(&lab, "near")?, Namespace::create(&lab, "far")?);
    throughput::connect(&near, &far)?;
    // Without a program at the far end, a veth pair refuses frames that come from one at the near end.
    let _empty = far.within(accept_everything)??;
    // Some say it on one, some on the other.
    let (mut said, says) = std::io::pipe()?;
    let child = far
        .command(recorder.name)
        .args(recorder.args)
        .stdin(Stdio::null())
        .stdout(says.try_clone()?)
        .stderr(says)
        .spawn()
        .with_context(|| format!("cannot start {}", recorder.name))?;
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        said.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    thread::sleep(SETTLE);
    let sent = near.within(|| -> Result<Sent> {
        Generator::start(throughput::index_of("near0")?, spec)?.run(duration, spec.limit.unwrap_or(u64::MAX))
    })??;
    thread::sleep(SETTLE);
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child without a number")?;
    kill_process(pid, Signal::INT).context("it ended by itself")?;
    let (_, cpu, _) = process::wait(child)?;
    let text = reader.join().map_err(|_| anyhow::anyhow!("the reader failed"))??;
    let frames = number_beside(&text, recorder.says)
        .with_context(|| format!("it does not say how many \"{}\":\n{text}", recorder.says))?;
    // What it says that it lost may be less than what did not come.
    let lost = sent.frames.saturating_sub(frames);
    Ok(Received { sent, frames, lost, cpu })
}

/// Attaches a program that passes everything; it goes with what is returned.
fn accept_everything() -> Result<Ebpf> {
    let mut ebpf = EbpfLoader::new().btf(None).load(&traffic::object()?)?;
    let program: &mut Xdp = ebpf.program_mut("voxlab_empty").context("no empty program")?.try_into()?;
    program.load()?;
    program.attach("far0", XdpMode::default())?;
    Ok(ebpf)
}

/// The number right before some words, or after them and a colon, as dumpcap has it.
fn number_beside(text: &str, words: &str) -> Option<u64> {
    let lower = text.to_lowercase();
    let at = lower.find(words)?;
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let after = lower.get(at + words.len()..)?;
    if let Some(rest) = after.strip_prefix(':') {
        return digits(rest.split_whitespace().next()?).parse().ok();
    }
    digits(lower.get(..at)?.split_whitespace().next_back()?).parse().ok()
}

fn note(run: &mut Run, offered: &str, subject: &str, received: &Received) {
    let seconds = received.sent.elapsed.as_secs_f64();
    let sent = received.sent.frames.max(1) as f64;
    let (rate, lost) = (received.frames as f64 / seconds / 1e6, received.lost as f64 / sent * 100.0);
    let ns = received.cpu.as_nanos() as f64 / received.frames.max(1) as f64;
    println!("  {subject:<14} {:>9.3} {rate:>10.3} {lost:>9.3} {ns:>11.0}", sent / seconds / 1e6);
    let name = |quantity| format!("live/{offered}/{subject}/{quantity}");
    run.note(name("offered"), sent / seconds / 1e6, "Mpps");
    run.note(name("rate"), rate, "Mpps");
    run.note(name("lost"), lost, "%");
    run.note(name("cpu"), ns, "ns/frame");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_recorders_say_is_read() {
        let tcpdump = "12 packets captured\n14 packets received by filter\n2 packets dropped by kernel\n";
        assert_eq!(number_beside(tcpdump, "packets captured"), Some(12));
        let dumpcap =
            "Packets captured: 1734\nPackets received/dropped on interface 'far0': 1734/0 (pcap:0/…)\n";
        assert_eq!(number_beside(dumpcap, "packets captured"), Some(1734));
        let netsniff =
            "\r           5  packets incoming (0 unread on exit)\n           5  packets passed filter\n";
        assert_eq!(number_beside(netsniff, "packets passed filter"), Some(5));
        assert_eq!(number_beside("", "packets captured"), None);
    }
}
