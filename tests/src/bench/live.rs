//! A generator in the kernel sends past the probe, and past its peers, at the same rates.
//!
//! The peers write what they get to /dev/null, as a recorder would to a disk that costs nothing. What each received is what it
//! says itself when it ends; what was sent is the generator's count.
//!
//! CPU time is told three times: what the receiver is charged with; what all take together, generator and softirqs included
//! ([`crate::effort`]); and that less what it is where nobody receives, which is what the receiver costs the machine. A generator
//! that has a rate waits by turning: its turns are measured first, and taken off.

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use rustix::process::{Pid, Signal, kill_process};
use voxprobe::capture::live::{Ages, Mode};
use voxprobe::capture::xsk::MirrorOptions;

use super::{Run, process};
use crate::effort::{Effort, Meter};
use crate::netns::{LabName, Namespace};
use crate::throughput;
use crate::traffic::{self, Sent, Spec};

/// Offered, in packets a second; `None` is flat out.
const RATES: [Option<u64>; 3] = [Some(250_000), Some(1_000_000), None];
const STREAMS: u32 = 1_024;
/// Time to begin capturing: netsniff-ng makes a ring of hundreds of megabytes first.
const BEGIN: Duration = Duration::from_secs(3);
/// Time to take what is still on its way.
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

/// Who received what, and what it took.
struct Received {
    sent: Sent,
    frames: u64,
    /// What the receiver is charged with: a recorder's process, the probe's receive thread.
    cpu: Duration,
    effort: Effort,
    /// How long records waited for the probe's reader.
    ages: Option<Ages>,
}

impl Received {
    /// CPU time of all, a frame sent.
    fn all_ns(&self, turn_ns: f64) -> f64 {
        all_ns(self.effort.total(), self.sent.frames, self.sent.held_back, turn_ns)
    }
}

/// CPU time in nanoseconds a frame, without the `turns` in which the generator waited.
fn all_ns(total: Duration, frames: u64, turns: u64, turn_ns: f64) -> f64 {
    (total.as_nanos() as f64 - turns as f64 * turn_ns) / frames.max(1) as f64
}

/// One rate.
struct Offer<'a> {
    name: &'a str,
    /// A turn of the generator that waits.
    turn_ns: f64,
    /// What a frame takes if nobody receives it.
    nobody_ns: f64,
}

/// All rates, all receivers.
pub(super) fn measure(run: &mut Run, duration: Duration) -> Result<()> {
    let turn_ns = turn_ns(duration.min(Duration::from_secs(2)))?;
    run.note("live/generator/turn", turn_ns, "ns");
    for rate in RATES {
        let name = rate.map_or_else(|| "flat".to_owned(), |pps| format!("{}k", pps / 1_000));
        println!(
            "\nlive, {} packets a second of {STREAMS} streams; CPU in ns a frame:",
            rate.map_or("as many", |_| &name)
        );
        println!(
            "  {:<16} {:>9} {:>9} {:>8} {:>9} {:>7} {:>12} {:>9}",
            "", "sent Mpps", "got Mpps", "lost %", "receiver", "in all", "over nobody", "others %"
        );
        let spec = Spec { streams: STREAMS, rate_pps: rate, ..Spec::default() };
        let nobody = record(None, &spec, duration)?;
        let offer = Offer { name: &name, turn_ns, nobody_ns: nobody.all_ns(turn_ns) };
        offer.note(run, "nobody", &nobody);
        for (subject, mode) in
            [("voxprobe-tap", Mode::Tap), ("voxprobe-mirror", Mode::Mirror(MirrorOptions::DEFAULT))]
        {
            offer.note(run, subject, &probe(&spec, duration, mode)?);
        }
        for recorder in &RECORDERS {
            if !process::is_installed(recorder.name) {
                run.leave_out(format!("{} is not installed", recorder.name));
                continue;
            }
            match record(Some(recorder), &spec, duration) {
                Ok(received) => offer.note(run, recorder.name, &received),
                Err(error) => run.leave_out(format!("{}: {error:#}", recorder.name)),
            }
        }
    }
    Ok(())
}

impl Offer<'_> {
    fn note(&self, run: &mut Run, subject: &str, received: &Received) {
        let seconds = received.sent.elapsed.as_secs_f64();
        let (sent, frames) = (received.sent.frames.max(1) as f64, received.frames as f64);
        let (offered, rate) = (sent / seconds / 1e6, frames / seconds / 1e6);
        // What it says that it lost may be less than what did not come.
        let lost = (sent - frames).max(0.0) / sent * 100.0;
        let cpu = received.cpu.as_nanos() as f64 / frames.max(1.0);
        let all = received.all_ns(self.turn_ns);
        let over_nobody = all - self.nobody_ns;
        let others = received.effort.others_percent();
        let name = |quantity: &str| format!("live/{}/{subject}/{quantity}", self.name);
        run.note(name("offered"), offered, "Mpps");
        run.note(name("in-all"), all, "ns/frame");
        run.note(name("others"), others, "% of a CPU");
        if subject == "nobody" {
            println!(
                "  {subject:<16} {offered:>9.3} {:>9} {:>8} {:>9} {all:>7.0} {:>12} {others:>9.0}",
                "", "", "", ""
            );
            return;
        }
        println!(
            "  {subject:<16} {offered:>9.3} {rate:>9.3} {lost:>8.3} {cpu:>9.0} {all:>7.0} {over_nobody:>12.0} {others:>9.0}"
        );
        if let Some(ages) = &received.ages {
            println!("  {:<16} {}", "", throughput::latency(ages));
            let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
            for percent in throughput::PERCENTS {
                if let Some(waited) = ages.percentile(percent) {
                    run.note(name(&format!("latency-p{percent}")), ms(waited), "ms");
                }
            }
            run.note(name("latency-max"), ms(ages.longest()), "ms");
        }
        run.note(name("rate"), rate, "Mpps");
        run.note(name("lost"), lost, "%");
        run.note(name("cpu"), cpu, "ns/frame");
        run.note(name("over-nobody"), over_nobody, "ns/frame");
    }
}

/// What a turn of the generator takes that waits for its time: of one that sends a frame a second, hardly anything else.
fn turn_ns(duration: Duration) -> Result<f64> {
    let spec = Spec { streams: 1, rate_pps: Some(1), ..Spec::default() };
    let idle = record(None, &spec, duration)?;
    Ok(idle.effort.own.as_nanos() as f64 / idle.sent.held_back.max(1) as f64)
}

fn probe(spec: &Spec, duration: Duration, mode: Mode) -> Result<Received> {
    let setup = throughput::Setup { mode, shards: 1, ring_bytes: 8 << 20, sheds: false };
    let throughput::Run { sent, report, receiver_cpu, effort, ages } =
        throughput::measure(spec, duration, setup)?;
    Ok(Received { sent, frames: report.capture.analysed, cpu: receiver_cpu, effort, ages: Some(ages) })
}

/// Runs a recorder at the far end of a pair of its own, or nobody.
fn record(recorder: Option<&Recorder>, spec: &Spec, duration: Duration) -> Result<Received> {
    let lab = LabName::unique()?;
    let (near, far) = (Namespace::create(&lab, "near")?, Namespace::create(&lab, "far")?);
    throughput::connect(&near, &far)?;
    // Without a program at the far end, a veth pair refuses frames that come from one at the near end.
    let _empty = far.within(accept_everything)??;
    let recording = recorder.map(|recorder| Recording::start(recorder, &far)).transpose()?;
    let meter = Meter::start(recording.as_ref().map(|recording| recording.child.id()));
    let sent = throughput::send(&near, spec, duration)?;
    thread::sleep(SETTLE);
    let effort = meter.stop();
    let frames = recording.map_or(Ok(0), Recording::stop)?;
    Ok(Received { sent, frames, cpu: effort.recorder, effort, ages: None })
}

/// A recorder at work.
struct Recording {
    says: &'static str,
    child: Child,
    reader: JoinHandle<std::io::Result<String>>,
}

impl Recording {
    fn start(recorder: &Recorder, namespace: &Namespace) -> Result<Self> {
        // Some say it on one, some on the other.
        let (mut said, says) = std::io::pipe()?;
        let child = namespace
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
        thread::sleep(BEGIN);
        Ok(Self { says: recorder.says, child, reader })
    }

    /// Ends it. How many frames it says that it got.
    fn stop(mut self) -> Result<u64> {
        kill_process(Pid::from_child(&self.child), Signal::INT).context("it ended by itself")?;
        self.child.wait()?;
        let text = self.reader.join().map_err(|_| anyhow::anyhow!("the reader failed"))??;
        number_beside(&text, self.says)
            .with_context(|| format!("it does not say how many \"{}\":\n{text}", self.says))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_generator_is_not_counted() {
        let total = Duration::from_micros(700);
        assert!((all_ns(total, 1_000, 0, 20.0) - 700.0).abs() < 1e-9);
        assert!((all_ns(total, 1_000, 10_000, 20.0) - 500.0).abs() < 1e-9);
    }

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
