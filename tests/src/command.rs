//! `voxlab lab`: real calls through a gateway of namespaces, and the probe's log on the terminal.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::calls::{CallPlan, CallState, CallTruth};
use crate::lab::Lab;
use crate::media::Impairment;
use crate::mirror::MirrorPlan;
use crate::netns;
use crate::probe::Probe;
use crate::sip::sipp;
use crate::topology::MAX_PHONES;

/// Only one lab talks to a terminal at a time; tests, which have labs of their own, do not take it.
const LOCK: &str = "/run/voxlab.lock";

/// How the probe is asked to report.
const INTERVAL: &str = "5s";

/// Options of `voxlab lab`.
#[derive(Args, Debug)]
pub struct Options {
    /// Calls at the same time, one a phone.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_PHONES)))]
    calls: u8,
    /// Copy every frame to a mirror port, tens of microseconds later. By default as re-emitted: other destination MAC,
    /// IP ID zeroed. Or, with = and commas: same-point, l2-mirror, vlan, routed, nat, a tunnel (gre, erspan2, vxlan, ...), steps
    /// joined as in vlan+erspan2; and rpcap, a remote capture of all these through the gateway.
    /// The full story, each frame four times: --mirror=re-emitted,rpcap
    #[arg(long, value_name = "TAP,...", num_args = 0..=1, require_equals = true, default_missing_value = "re-emitted")]
    mirror: Option<MirrorPlan>,
    /// Repeat a run: the same calls, losses and delays. Default: another at each start.
    #[arg(long)]
    seed: Option<u64>,
    /// End after this time, like 90s or 2m. Default: at Ctrl-C.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// Length of the talk in each call.
    #[arg(long, default_value = "12s", value_parser = humantime::parse_duration)]
    talk: Duration,
    /// The probe's log: text or json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Place all calls with the built-in user agents, also where sipp is installed.
    #[arg(long)]
    built_in: bool,
    /// Leave the probe out.
    #[arg(long)]
    no_probe: bool,
    /// After the calls, leave namespaces and interfaces for a look around, until Enter or Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// More arguments for `voxprobe run`.
    #[arg(last = true, value_name = "PROBE ARGS")]
    probe_args: Vec<String>,
}

/// Set by SIGINT and SIGTERM.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Runs the lab until its time is over or somebody interrupts it.
pub fn run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "the lab makes network namespaces and attaches BPF programs: run it as root (`sudo voxlab lab`)"
        );
    }
    let _lock = lock()?;
    for name in netns::remove_stale()? {
        eprintln!("lab: removed {name}, left behind by a lab that was killed");
    }
    catch_signals();

    let seed = options.seed.unwrap_or_else(clock_seed);
    let started = Instant::now();
    let mut lab = Lab::start(options.calls, &options.mirror.clone().unwrap_or_default())?;
    let sipp = !options.built_in && sipp::is_installed();
    if sipp {
        lab = lab.with_sipp();
    }
    print_header(options, seed, sipp, &lab);

    let mut probe = if options.no_probe { None } else { Some(start_probe(options, &lab)?) };
    if let Some(probe) = probe.as_mut() {
        // A call whose INVITE the probe missed would have no call beside its streams.
        probe.wait_attached(&lab.topology, || INTERRUPTED.load(Ordering::Relaxed))?;
    }
    let tally = Tally::default();
    let packets = u32::try_from(options.talk.as_millis() / 20).unwrap_or(u32::MAX).max(10);
    let plan = |index| CallPlan::mixed(seed, index, options.calls, packets, Impairment::MILD);
    thread::scope(|scope| -> Result<()> {
        scope.spawn(|| lab.keep_calling(options.calls, plan, |truth| tally.add(truth)));
        let outcome = watch(options, started, probe.as_mut());
        // The probe first: its final report is about a lab that still talks.
        let finished = match probe.as_mut().filter(|_| outcome.is_ok()) {
            Some(probe) => probe.finish().map(drop),
            None => Ok(()),
        };
        lab.stop();
        outcome.and(finished)
    })?;
    tally.print(seed, lab.mirrored());
    if options.keep {
        keep(&lab);
    }
    Ok(())
}

/// Until it is time to end.
fn watch(options: &Options, started: Instant, mut probe: Option<&mut Probe>) -> Result<()> {
    loop {
        if INTERRUPTED.load(Ordering::Relaxed)
            || options.length.is_some_and(|length| started.elapsed() >= length)
        {
            return Ok(());
        }
        if let Some(probe) = probe.as_mut()
            && let Some(status) = probe.ended()?
        {
            bail!("the probe ended by itself: {status}. Its last words are above");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn start_probe(options: &Options, lab: &Lab) -> Result<Probe> {
    let mut args = vec!["run".to_owned(), "--interval".to_owned(), INTERVAL.to_owned()];
    for interface in lab.topology.watched() {
        args.extend(["--iface".to_owned(), interface.to_owned()]);
    }
    if let Some(format) = &options.log_format {
        args.extend(["--log-format".to_owned(), format.clone()]);
    }
    args.extend(options.probe_args.iter().cloned());
    Probe::spawn(Probe::command(&lab.topology.gw, args)?)
}

fn print_header(options: &Options, seed: u64, sipp: bool, lab: &Lab) {
    let gw = lab.topology.gw.name();
    let copies = match &options.mirror {
        None => "every frame once; try --mirror for the case where each is captured twice".to_owned(),
        Some(plan) => {
            let taps: Vec<_> = plan.taps.iter().map(|tap| format!("at mir0 as {tap}")).collect();
            let remote = plan.rpcap.then(|| "all of this again inside rpcap, TCP port 2002".to_owned());
            let more: Vec<_> = taps.into_iter().chain(remote).collect();
            format!("every frame at the gateway, and {}", more.join(", "))
        }
    };
    let agents = if sipp { "sipp (IPv4) and the built-in phone (IPv6)" } else { "the built-in phones" };
    eprintln!(
        "\
lab: {calls} phones 10.60.1.11… ── gw-phones [gateway] gw-pbx ── PBX 10.60.2.10   (seed {seed})
     {calls} calls at a time, of each four: one plain, one challenged (407), one transferred (REFER), one over IPv6
     placed by {agents}; G.711 at 20 ms both ways, up to 4 ms of jitter, 0.5 % lost, 0.3 % reordered, by the sender
     the probe sees {copies}
     look: lost and p99 jitter of each stream; the 1.8 s gap at the REFER of every fourth call
     in the gateway: ip netns exec {gw} ip -s link       Ctrl-C ends it and removes everything
",
        calls = options.calls,
    );
}

/// What the lab knows of all calls, for a last word beside the probe's.
#[derive(Default)]
struct Tally {
    calls: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    reordered: AtomicU64,
    received: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn add(&self, truth: CallTruth) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        for direction in &truth.directions {
            self.sent.fetch_add(direction.stream.sent, Ordering::Relaxed);
            self.dropped.fetch_add(direction.stream.dropped, Ordering::Relaxed);
            self.reordered.fetch_add(direction.stream.reordered, Ordering::Relaxed);
            self.received.fetch_add(direction.received.packets, Ordering::Relaxed);
        }
        if let CallState::Failed(reason) = truth.state {
            let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            failures.push(format!("call {} ({}): {reason}", truth.index, truth.call_id));
        }
    }

    fn print(&self, seed: u64, mirrored: u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        eprintln!(
            "\nlab: {} calls, {} failed; RTP: {} sent, {} received, {} withheld as loss, {} sent out of order; \
             {mirrored} frames mirrored; seed {seed}",
            count(&self.calls),
            failures.len(),
            count(&self.sent),
            count(&self.received),
            count(&self.dropped),
            count(&self.reordered),
        );
        for failure in failures.iter() {
            eprintln!("     {failure}");
        }
    }
}

/// Taken for as long as the file is open.
fn lock() -> Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(LOCK)
        .with_context(|| format!("cannot open {LOCK}"))?;
    if file.try_lock().is_err() {
        let holder = fs::read_to_string(LOCK).unwrap_or_default();
        bail!("another lab is running (pid {}): end that one first", holder.trim());
    }
    file.set_len(0).context("cannot write the lock")?;
    writeln!(file, "{}", std::process::id()).context("cannot write the lock")?;
    Ok(file)
}

fn keep(lab: &Lab) {
    eprintln!(
        "lab: kept for a look around: ip netns exec {} bash; Enter or Ctrl-C removes it",
        lab.topology.gw.name()
    );
    INTERRUPTED.store(false, Ordering::Relaxed);
    let (enter, waiting) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        let _ = enter.send(());
    });
    while !INTERRUPTED.load(Ordering::Relaxed) && waiting.try_recv().is_err() {
        thread::sleep(Duration::from_millis(50));
    }
}

fn catch_signals() {
    extern "C" fn interrupted(_: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is safe at any moment.
        unsafe { libc::signal(signal, interrupted as *const () as libc::sighandler_t) };
    }
}

/// Unlike the last one, and short enough to be typed again.
fn clock_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now.as_secs() * 1000 + u64::from(now.subsec_millis())) % 1_000_000
}
