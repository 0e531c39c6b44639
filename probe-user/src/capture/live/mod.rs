//! Live capture: the BPF programs in the kernel, and what comes out of their rings.
//!
//! ```text
//!   start ─▶ load (object, constants, maps, verifier) ─▶ rings ─▶ attach, interface by interface
//!                                                          │
//!      RingReader ◀── records, for the receive thread ─────┤
//!      KernelEndpoints ──▶ media and carriers, same thread ┤
//!      counters, occupancy, log ◀── for the control plane ─┘
//! ```
//!
//! In mirror mode sockets take the place of the rings ([`crate::capture::xsk`]): attach, bind, and then show the program
//! the sockets. What was counted before that is not part of the account.
//!
//! Nothing is pinned: programs, maps and links live exactly as long as this process holds their descriptors, so
//! that even SIGKILL leaves an interface as it was. Every step of the attach ladder that was tried, and what
//! came of it, is a [`Rung`] for the start-up log.
//!
//! # Minimum kernel version
//!
//! 5.18 (multi-buffer XDP); with `egress` 6.6 (tcx).

mod ages;
mod attach;
pub(crate) mod diagnose;
mod endpoints;
mod error;
mod interfaces;
mod load;
mod log;
mod merge;
mod near;
mod ring;
mod rings;
mod shed;
mod slots;

use std::fmt;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, Xdp};
use aya::{Ebpf, Pod, TestRun as _, TestRunOptions};
use probe_ebpf::Config;
use probe_ebpf::classify::Verdict;
use probe_ebpf::record::{COUNTER_ENTRIES, Counters, KernelLoss};
use rustix::thread::{MembarrierCommand, membarrier};

pub use self::ages::Ages;
pub(crate) use self::attach::Tap;
pub use self::endpoints::KernelEndpoints;
pub use self::error::LiveError;
pub(crate) use self::interfaces::dump;
pub use self::interfaces::{Interface, interfaces};
pub use self::log::{KernelLog, LogLevel};
pub(crate) use self::rings::Gauges;
pub use self::rings::{Occupancies, Occupancy, Record, Records, RingReader};
pub use self::shed::KernelShed;

use crate::capture::xsk::{self, MirrorOptions, MirrorReader};

/// How to attach to the receiving side of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// Native, and generic where the driver cannot.
    #[default]
    Auto,
    /// In the driver, before the kernel allocates anything for the frame. Fails where the driver cannot.
    Native,
    /// In the stack, after the allocation: any interface, three to five times the cost.
    Generic,
}

/// What becomes of a frame that is ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is looked at and passes.
    #[default]
    Tap,
    /// It is taken from the host: for interfaces that carry only copies.
    Mirror(MirrorOptions),
}

/// What to capture, and how.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// What becomes of frames.
    pub mode: Mode,
    /// Names of the interfaces, at most [`MAX_INTERFACES`](probe_ebpf::config::MAX_INTERFACES).
    pub interfaces: Vec<String>,
    /// Also capture what leaves through them. On a gateway whose every interface is watched, all forwarded
    /// packets are then seen twice, which is the point: it shows what the gateway itself does to them.
    pub egress: bool,
    /// How to attach.
    pub xdp: XdpMode,
    /// What the kernel takes for media and signalling. `ifindex` is filled in here.
    pub config: Config,
    /// Bytes of each of a CPU's two rings, that of RTP heads and that of everything else: a power of two, at least a
    /// page. The default of 8 MiB holds 131,072 heads at 64 bytes, that is 25 ms of 10 Gb/s G.711 (5.25 Mpps) on one
    /// CPU, or 250 ms of a tenth of it: double it for every doubling of the longest pause of the reader. 128 MiB on 8
    /// CPUs, allocated at the start.
    pub ring_bytes: u32,
    /// What the programs may log. What they may not costs nothing: the verifier removes it.
    pub log_level: LogLevel,
}

impl LiveOptions {
    /// Defaults of the command line, for the given interfaces.
    pub fn new(interfaces: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            mode: Mode::Tap,
            interfaces: interfaces.into_iter().map(Into::into).collect(),
            egress: false,
            xdp: XdpMode::Auto,
            config: Config::DEFAULT,
            ring_bytes: 8 << 20,
            log_level: LogLevel::Warn,
        }
    }
}

/// One line of the start-up log: something that was tried, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// What: "eth0: native XDP", "rings".
    pub what: String,
    /// What came of it.
    pub outcome: String,
    /// Did it work? A failed rung is followed by the one that worked instead.
    pub ok: bool,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.outcome)
    }
}

/// A running capture. Dropping it detaches from all interfaces.
pub struct LiveCapture {
    links: Vec<FdLink>,
    ladder: Vec<Rung>,
    interfaces: Vec<String>,
    egress: bool,
    rings: Option<RingReader>,
    mode: Mode,
    mirror: Option<MirrorReader>,
    sockets: Option<xsk::Sockets>,
    /// What was counted before the sockets were there.
    before: Box<[Counters]>,
    endpoints: Option<KernelEndpoints>,
    shed: Option<KernelShed>,
    log: Option<KernelLog>,
    counters: PerCpuArray<MapData, CounterWords>,
    /// Programs and the maps that userspace does not touch.
    ebpf: Ebpf,
}

/// What came of a [`LiveCapture::test_run`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned.
    pub returned: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Mean duration of a run.
    pub mean: Duration,
}

/// The counters of one tap on one CPU, as words.
type CounterWords = [u64; Counters::WORDS];

impl LiveCapture {
    /// Loads the programs and attaches them. On any error nothing is left behind.
    pub fn start(options: &LiveOptions) -> Result<Self, LiveError> {
        let taps = attach::taps(&options.interfaces)?;
        let mut ladder = Vec::new();
        if let Mode::Mirror(mirror) = options.mode {
            if options.egress {
                return Err(LiveError::EgressOfMirror);
            }
            xsk::check(&taps, mirror.steal, &mut ladder)?;
        }
        let (mut capture, sockets) = Self::load(options, &taps, ladder)?;
        capture.links = attach::attach(&mut capture.ebpf, options, &taps, &mut capture.ladder)?;
        if let Mode::Mirror(mirror) = options.mode {
            // After the program: some drivers have queues for sockets only then.
            let snap = usize::from(options.config.snap);
            let (reader, mut sockets) = xsk::open(&taps, mirror, snap, sockets, &mut capture.ladder)?;
            // What came between the two passed, and was no loss of a capture that had not begun.
            capture.before = capture.all_counters()?;
            sockets.connect()?;
            capture.mirror = Some(reader);
            capture.sockets = Some(sockets);
        }
        Ok(capture)
    }

    /// Loads the programs and attaches them nowhere: for [`test_run`](Self::test_run).
    pub fn detached(options: &LiveOptions) -> Result<Self, LiveError> {
        Ok(Self::load(options, &attach::taps(&options.interfaces)?, Vec::new())?.0)
    }

    fn load(
        options: &LiveOptions,
        taps: &[Tap],
        mut ladder: Vec<Rung>,
    ) -> Result<(Self, XskMap<MapData>), LiveError> {
        let loaded = load::load(options, taps, &mut ladder)?;
        let capture = Self {
            links: Vec::new(),
            ladder,
            interfaces: options.interfaces.clone(),
            egress: options.egress,
            rings: loaded.rings,
            mode: options.mode,
            mirror: None,
            sockets: None,
            before: Box::new([Counters::ZERO; COUNTER_ENTRIES]),
            endpoints: Some(loaded.endpoints),
            shed: Some(loaded.shed),
            log: loaded.log,
            counters: loaded.counters,
            ebpf: loaded.ebpf,
        };
        Ok((capture, loaded.sockets))
    }

    /// What was tried at the start, in order.
    pub fn ladder(&self) -> &[Rung] {
        &self.ladder
    }

    /// The rings of a tap, for the thread that receives. They can be taken once.
    pub fn take_rings(&mut self) -> Option<RingReader> {
        self.rings.take()
    }

    /// The sockets of a mirror port, for the thread that receives. They can be taken once.
    pub fn take_mirror(&mut self) -> Option<MirrorReader> {
        self.mirror.take()
    }

    /// The kernel's table of announced media and learned carriers. It can be taken once.
    pub fn take_endpoints(&mut self) -> Option<KernelEndpoints> {
        self.endpoints.take()
    }

    /// The kernel's level of media that is left out. It can be taken once.
    pub fn take_shed(&mut self) -> Option<KernelShed> {
        self.shed.take()
    }

    /// What the programs log. It can be taken once.
    pub fn take_logger(&mut self) -> Option<KernelLog> {
        self.log.take()
    }

    /// Runs a program on `frame`, `repeat` times, as if it had come through the loopback interface. Counters and
    /// records are real. For tests and for measuring what a frame costs.
    pub fn test_run(&mut self, egress: bool, frame: &[u8], repeat: u32) -> Result<TestRun, LiveError> {
        // The kernel writes back what it was given, plus what the program may have added.
        let mut after = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            repeat,
            ..TestRunOptions::new()
        };
        let run = if egress {
            load::program::<SchedClassifier>(&mut self.ebpf, load::EGRESS)?.test_run(options)
        } else {
            load::program::<Xdp>(&mut self.ebpf, self.mode.ingress())?.test_run(options)
        };
        let act = || format!("cannot test-run the program on a frame of {} bytes", frame.len());
        let run = run.map_err(|error| load::refused(&act(), error.into()))?;
        after.truncate(run.data_size_out as usize);
        Ok(TestRun { returned: run.return_value, frame: after, mean: run.duration })
    }

    /// Instructions that the verifier walked for the ingress and, if loaded, the egress program.
    pub fn verified_instructions(&mut self) -> Result<(u32, Option<u32>), LiveError> {
        let count = |info: ProgramInfo| info.verified_instruction_count().unwrap_or(0);
        let refused = |error: ProgramError| load::refused("cannot ask for program details", error.into());
        let ingress =
            load::program::<Xdp>(&mut self.ebpf, self.mode.ingress())?.info().map(count).map_err(refused)?;
        let egress = if self.egress {
            let program = load::program::<SchedClassifier>(&mut self.ebpf, load::EGRESS)?;
            Some(program.info().map(count).map_err(refused)?)
        } else {
            None
        };
        Ok((ingress, egress))
    }

    /// Detaches from all interfaces and waits for the programs that were running meanwhile, so that counters
    /// and rings are final: what is still in the rings can be read, and then the account is exact.
    pub fn detach(&mut self) {
        self.links.clear();
        // A run that has begun finishes: in microseconds, or when a hypervisor gives its CPU the next turn. It keeps bottom halves off,
        // so a grace period of RCU, which this command is (membarrier(2), Linux 4.3), has waited for it.
        if membarrier(MembarrierCommand::Global).is_err() {
            // Refused where CPUs run without ticks (nohz_full), or by a filter.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the kernel counted so far.
    pub fn counters(&self) -> Result<KernelCounters, LiveError> {
        let mut taps = Vec::new();
        for (index, interface) in (0..).zip(&self.interfaces) {
            taps.push(TapCounters {
                interface: interface.clone(),
                egress: false,
                counters: self.counted(index * 2)?,
            });
            if self.egress {
                let counters = self.counted(index * 2 + 1)?;
                taps.push(TapCounters { interface: interface.clone(), egress: true, counters });
            }
        }
        let sockets = self.sockets.as_ref().map(xsk::Sockets::losses).transpose()?.unwrap_or_default();
        Ok(KernelCounters { taps, unknown: self.counted(LAST_ENTRY)?, sockets })
    }

    /// What an entry counted since the capture began.
    fn counted(&self, entry: u32) -> Result<Counters, LiveError> {
        let mut counters = self.sum(entry)?;
        if let Some(before) = self.before.get(entry as usize) {
            counters.subtract(before);
        }
        Ok(counters)
    }

    fn all_counters(&self) -> Result<Box<[Counters]>, LiveError> {
        (0..=LAST_ENTRY).map(|entry| self.sum(entry)).collect()
    }

    fn sum(&self, entry: u32) -> Result<Counters, LiveError> {
        let values = self.counters.get(&entry, 0).map_err(|error| LiveError::Object {
            act: format!("cannot read entry {entry} of the kernel's counters"),
            reason: chain(&error),
        })?;
        let mut sum = Counters::ZERO;
        for words in values.iter() {
            sum.add_words(words);
        }
        Ok(sum)
    }
}

/// The entry of interfaces that are not configured.
#[expect(clippy::cast_possible_truncation, reason = "33 entries")]
const LAST_ENTRY: u32 = COUNTER_ENTRIES as u32 - 1;

/// What the kernel counted, all CPUs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCounters {
    /// By tap.
    pub taps: Vec<TapCounters>,
    /// Frames of interfaces that were not configured: zero, unless one was renumbered.
    pub unknown: Counters,
    /// Frames that were redirected and did not get into their sockets; of a tap none.
    pub sockets: SocketLosses,
}

/// What AF_XDP sockets lost, by their XDP_STATISTICS, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketLosses {
    /// Frames for which there was no chunk, or which are longer than one and the socket takes no pieces.
    pub dropped: u64,
    /// Frames for which the receive ring had no slot.
    pub ring_full: u64,
    /// How often the kernel found the fill ring empty: a cause of `dropped`, and no frame of its own.
    pub fill_ring_empty: u64,
}

impl SocketLosses {
    /// By the name in reports.
    pub fn by_name(&self) -> [(&'static str, u64); 2] {
        [("xsk_rx_dropped", self.dropped), ("xsk_rx_ring_full", self.ring_full)]
    }
}

/// What the kernel counted at one tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapCounters {
    /// Name of the interface.
    pub interface: String,
    /// Leaving the host, or arriving?
    pub egress: bool,
    /// The counts.
    pub counters: Counters,
}

impl KernelCounters {
    /// Everything together.
    pub fn total(&self) -> Counters {
        let mut total = self.unknown;
        for tap in &self.taps {
            let Counters { verdicts, losses, cut, matched_bytes } = &tap.counters;
            let add = |to: &mut u64, from: &u64| *to = to.wrapping_add(*from);
            total.verdicts.iter_mut().zip(verdicts).for_each(|(to, from)| add(to, from));
            total.losses.iter_mut().zip(losses).for_each(|(to, from)| add(to, from));
            add(&mut total.cut, cut);
            add(&mut total.matched_bytes, matched_bytes);
        }
        total
    }

    /// Frames with a verdict.
    pub fn verdict(&self, verdict: Verdict) -> u64 {
        self.total().verdicts.get(verdict as usize).copied().unwrap_or(0)
    }

    /// Frames that the kernel meant to hand over: `matched = records read + lost`, exactly, once the capture is
    /// detached and the rings are drained.
    pub fn matched(&self) -> u64 {
        let total = self.total();
        let matched = Verdict::ALL.iter().zip(total.verdicts).filter(|(verdict, _)| verdict.is_matched());
        matched.map(|(_, count)| count).sum()
    }

    /// Matched frames that the kernel lost, by name.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of_programs = KernelLoss::ALL.iter().map(|loss| loss.name()).zip(self.total().losses);
        of_programs.chain(self.sockets.by_name())
    }

    /// All of them together.
    pub fn lost(&self) -> u64 {
        self.losses().map(|(_, count)| count).sum()
    }
}

const _: () = {
    const fn is_pod<T: Pod>() {}
    is_pod::<CounterWords>();
};

/// An error and its causes, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
