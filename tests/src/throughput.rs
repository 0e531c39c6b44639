//! The whole probe under load: generator, veth, programs, rings, receiver, shards, report.
//!
//! ```text
//!   namespace near: generator ─▶ near0 ══ veth ══ far0 ─▶ XDP ─▶ rings or sockets ─▶ Probe     namespace far
//! ```
//!
//! Used by tests, which ask whether the account is exact, and by `voxlab throughput`, which asks how fast.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use voxprobe::capture::clock::monotonic_ns;
use voxprobe::capture::live::{Ages, LiveOptions, Mode, interfaces};
use voxprobe::capture::xsk::MirrorOptions;
use voxprobe::packet::Nanos;
use voxprobe::pipeline::account::Loss;
use voxprobe::pipeline::cpus::Cpus;
use voxprobe::pipeline::live::{Options as ProbeOptions, Probe};
use voxprobe::report::contract::Report;
use voxprobe::report::monitor::Monitor;

use crate::effort::{Effort, Meter, cpu_of_task};
use crate::netns::{End, LabName, Namespace, join};
use crate::traffic::{Generator, Rate, Sent, Spec};

/// Measure how many packets a second the whole probe takes without a loss, over a veth pair of its own
///
/// Generator, softirq and probe share this machine's CPUs, so this is a floor. Build with --release.
#[derive(Debug, Args)]
pub struct Options {
    /// Streams, in turns
    #[arg(long, default_value_t = 1024)]
    streams: u32,
    /// Packets a second, or `flat` for as many as the kernel can
    #[arg(long, default_value = "flat")]
    rate: Rate,
    /// How long
    #[arg(long = "for", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Shards of the probe; 1 means the receiving thread
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Ring of each CPU in KiB
    #[arg(long, default_value_t = 8192)]
    ring_size: u32,
    /// What becomes of frames: looked at in their rings, or taken by AF_XDP
    #[arg(long, value_enum, default_value_t = Take::Tap)]
    mode: Take,
    /// With --mode mirror: frames that a queue may hold
    #[arg(long)]
    frames: Option<u32>,
    /// With --mode mirror: poll the driver for so long at each look
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    busy_poll: Duration,
    /// Shed whole media sessions when the probe does not keep up, as `voxprobe run` does
    #[arg(long)]
    shed: bool,
}

/// Values of --mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Take {
    Tap,
    Mirror,
}

/// How the probe of a run is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// What becomes of frames.
    pub mode: Mode,
    /// Shards.
    pub shards: usize,
    /// Of a tap: bytes of each CPU's ring.
    pub ring_bytes: u32,
    /// Are media sessions shed when the probe does not keep up? A measurement wants to see the loss.
    pub sheds: bool,
}

/// What a run came to.
pub struct Run {
    /// By the generator's own count.
    pub sent: Sent,
    /// The probe's final report.
    pub report: Report,
    /// CPU time of the probe's receive thread.
    pub receiver_cpu: Duration,
    /// CPU time of generator, softirqs and probe while frames were sent and taken.
    pub effort: Effort,
    /// How long records waited to be taken.
    pub ages: Ages,
}

impl Run {
    /// Frames that the probe lost itself, or found incomplete.
    pub fn lost(&self) -> u64 {
        self.report.capture.losses.values().sum()
    }

    /// Of those, frames that it left out by decision.
    fn shed(&self) -> u64 {
        self.report.capture.losses.get(Loss::Shed.name()).copied().unwrap_or(0)
    }
}

/// `near0` here, `far0` there.
///
/// # Errors
/// If the pair cannot be made.
pub fn connect(near: &Namespace, far: &Namespace) -> Result<()> {
    let end = |namespace, interface, mac| End { namespace, interface, mac };
    join(end(near, "near0", "02:00:00:00:00:01"), end(far, "far0", "02:00:00:00:00:02"))
}

/// Sends out of `near0`.
pub(crate) fn send(near: &Namespace, spec: &Spec, duration: Duration) -> Result<Sent> {
    near.within(|| Generator::start(index_of("near0")?, spec)?.run(duration, spec.limit.unwrap_or(u64::MAX)))?
}

/// The number of an interface of this namespace.
///
/// # Errors
/// If it is not there.
pub fn index_of(name: &str) -> Result<u32> {
    let all = interfaces()?;
    Ok(all.iter().find(|interface| interface.name == name).with_context(|| format!("{name} is gone"))?.index)
}

/// Sends past a probe, then ends the probe while nothing is sent any more.
///
/// # Errors
/// If namespaces, programs or threads cannot be had.
pub fn measure(spec: &Spec, duration: Duration, setup: Setup) -> Result<Run> {
    let Setup { mode, shards, ring_bytes, sheds } = setup;
    let lab = LabName::unique()?;
    let (near, far) = (Namespace::create(&lab, "near")?, Namespace::create(&lab, "far")?);
    connect(&near, &far)?;
    let options = ProbeOptions {
        capture: LiveOptions { mode, ring_bytes, ..LiveOptions::new(["far0"]) },
        shards,
        cpus: Cpus::default(),
        max_streams: 1 << 17,
        idle: Duration::from_secs(30),
        interval: Duration::from_secs(1),
        quality: Arc::default(),
        leg_headers: voxprobe::sip::LegHeaders::default(),
        sheds,
    };
    let started = Nanos(monotonic_ns());
    let probe = far.within(|| Probe::start(&options))??;
    let meter = Meter::start(None);
    let sent = send(&near, spec, duration)?;
    // What is still on its way through the softirq.
    thread::sleep(Duration::from_millis(200));
    let effort = meter.stop();
    let receiver_cpu = cpu_of_thread("vox-rx")?;
    let ages = probe.occupancies().take_ages();
    let mut monitor = Monitor::new(started, shards, usize::MAX).following(probe.shedding().clone());
    let outcome = probe.stop(|event| {
        monitor.take(event);
    })?;
    let report = monitor.finish(outcome, &["far0".to_owned()], false);
    Ok(Run { sent, report, receiver_cpu, effort, ages })
}

/// The `throughput` command.
///
/// # Errors
/// As [`measure`].
pub fn run(options: &Options) -> Result<()> {
    let spec = Spec { streams: options.streams, rate_pps: options.rate.pps(), ..Spec::default() };
    let mirror =
        MirrorOptions { chunks: options.frames, busy_poll: options.busy_poll, ..MirrorOptions::DEFAULT };
    let setup = Setup {
        mode: if options.mode == Take::Mirror { Mode::Mirror(mirror) } else { Mode::Tap },
        shards: options.shards,
        ring_bytes: options.ring_size.saturating_mul(1024),
        sheds: options.shed,
    };
    let run = measure(&spec, options.duration, setup)?;
    let capture = &run.report.capture;
    let seconds = run.sent.elapsed.as_secs_f64();
    println!(
        "sent      {} frames of {} streams in {seconds:.2} s: {:.3} Mpps",
        run.sent.frames,
        options.streams,
        run.sent.rate_pps() / 1e6
    );
    println!(
        "matched   {} = {} analysed + {} lost   (dropped by veth before any program: {})",
        capture.matched,
        capture.analysed,
        run.lost(),
        run.sent.frames - capture.matched
    );
    if let Some(shedding) = &capture.shedding {
        let levels = shedding.changes.iter().map(|to| format!("{:.0} % at {:.2} s", to.percent, to.time_s));
        println!("shed      {} of the lost: {}", run.shed(), levels.collect::<Vec<_>>().join(", "));
    }
    println!(
        "received  {:.3} Mpps, {:.0} ns of CPU a packet in the receive thread, {:.0} % of a core",
        capture.analysed as f64 / seconds / 1e6,
        run.receiver_cpu.as_nanos() as f64 / capture.analysed.max(1) as f64,
        run.receiver_cpu.as_secs_f64() / seconds * 100.0
    );
    println!(
        "in all    {:.0} ns of CPU a packet, with generator and softirqs; {:.0} % of a core was others'",
        run.effort.total().as_nanos() as f64 / run.sent.frames.max(1) as f64,
        run.effort.others_percent()
    );
    println!("latency   {}", latency(&run.ages));
    Ok(())
}

/// Shares of records that waited no longer than is told, in percent.
pub(crate) const PERCENTS: [f64; 3] = [50.0, 99.0, 99.9];

/// How long records waited, in words.
pub(crate) fn latency(ages: &Ages) -> String {
    let ms = |duration: Duration| format!("{:.3} ms", duration.as_secs_f64() * 1e3);
    let told = PERCENTS.iter().filter_map(|percent| Some((percent, ages.percentile(*percent)?)));
    let parts: Vec<_> = told.map(|(percent, waited)| format!("{percent} % within {}", ms(waited))).collect();
    format!(
        "from a record's stamp until it was taken: {}, all within {}",
        parts.join(", "),
        ms(ages.longest())
    )
}

/// CPU time of this process's thread of that name.
fn cpu_of_thread(name: &str) -> Result<Duration> {
    let is_it = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let tasks = fs::read_dir("/proc/self/task")?.flatten().map(|task| task.path());
    let cpu = tasks.filter(|task| is_it(task)).find_map(|task| cpu_of_task(&task));
    cpu.with_context(|| format!("there is no thread {name}"))
}
