//! Live capture from end to end: records in, events out, an exact account at the end.
//!
//! ```text
//!   vox-rx thread: Records ─▶ Receiver ─▶ shards      control plane (the caller): events, counters, clocks
//!        └── sleeps when the rings are empty                 └── stop(): detach, drain, count, join
//! ```
//!
//! The end is a sequence: detach, so that nothing is matched any more; drain, so that nothing is left in the
//! rings; then `matched = analysed + sum(losses)` holds exactly, whatever happened before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver as Events, bounded};
use probe_ebpf::record::KernelLoss;
use probe_ebpf::slots::GRACE_NS;
use thiserror::Error;

use super::account::{Account, Loss};
use super::cpus::{self, CpuError, Cpus, Home};
use super::receiver::{Receiver, Remains};
use super::rounds::Rounds;
use super::shard::{Event, Overflow, Shards};
use super::shed::{History, Pressure, SharedHistory, Valve};
use super::table::Limits;
use crate::capture::clock;
use crate::capture::live::{KernelCounters, LiveCapture, LiveError, LiveOptions, Occupancies, Records};
use crate::decode::Decoder;
use crate::packet::Nanos;
use crate::rtp::quality::Settings;
use crate::sip::{LegHeaders, Signalling, signalling};

/// Records taken in one go, before clocks and flags are looked at again: 2 ms at 2 Mpps.
const BURST: usize = 4096;
/// A round of fewer was spent in looking for records: a reader that never sleeps has such rounds until it is as good as busy.
const FEW: usize = 32;
/// How often calls and media lines are told the time: what is due then is little, and never waits for long.
const ADVANCE_NS: i64 = 10_000_000;
/// Events that may wait for the control plane. Half of them are for lines: of 16 rounds, or more.
const EVENTS: usize = 1 << 16;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to capture, and how.
    pub capture: LiveOptions,
    /// Shards: threads besides the receiver's, if more than one.
    pub shards: usize,
    /// CPUs of the receive thread and the shards.
    pub cpus: Cpus,
    /// Streams held at once, all shards together.
    pub max_streams: usize,
    /// A stream silent for so long has ended.
    pub idle: Duration,
    /// How often streams report.
    pub interval: Duration,
    /// How quality is judged.
    pub quality: Arc<Settings>,
    /// Headers that name the other leg of a call.
    pub leg_headers: LegHeaders,
    /// Are media sessions shed when the probe does not keep up? Else packets of all of them are lost.
    pub sheds: bool,
}

/// Why it does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The capture did not start.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The system refuses a thread.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// The system refuses a CPU.
    #[error("--cpus")]
    Cpu(#[from] CpuError),
    /// The receive thread died; its message is on standard error.
    #[error("the receive thread ended by itself; please report its message")]
    Receiver,
}

/// A running probe.
pub struct Probe {
    capture: LiveCapture,
    events: Events<Event>,
    occupancies: Occupancies,
    shedding: SharedHistory,
    snap_bytes: u16,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ended>,
}

/// What the receive thread leaves.
struct Ended {
    remains: Remains,
    malformed_records: u64,
}

/// Everything, when it is over.
pub struct Outcome {
    /// The receiver's remains; its account is complete but for what shards analysed.
    pub remains: Remains,
    /// Final counters of the kernel.
    pub counters: KernelCounters,
    /// Bytes taken of a frame that is taken whole.
    pub snap_bytes: u16,
}

impl Probe {
    /// Loads, attaches, and starts the threads.
    ///
    /// # Errors
    /// [`RunError`]; nothing is left behind.
    pub fn start(options: &Options) -> Result<Self, RunError> {
        options.cpus.check(options.shards)?;
        let cpu = options.cpus.receiver();
        // Rings and frames are read by the receive thread, so they should be where it is.
        let home = cpu.map(Home::on).transpose()?;
        let mut capture = LiveCapture::start(&options.capture)?;
        drop(home);
        let endpoints = capture.take_endpoints().ok_or(RunError::Receiver)?;
        let floor = u32::from(options.capture.config.sampled_below);
        let shedding = SharedHistory::new(History::new(floor));
        let shed = capture.take_shed().filter(|_| options.sheds);
        let now = Nanos(clock::monotonic_ns());
        let valve = shed.map(|shed| Valve::new(shed, floor, shedding.clone(), now));
        let (sender, events) = bounded(EVENTS);
        let limits = Limits {
            streams: options.max_streams,
            idle: Some(options.idle),
            quality: Arc::clone(&options.quality),
        };
        let shards = Shards::start_on(&options.cpus, options.shards, limits, Overflow::Lose, &sender)?;
        let decoder = Decoder::new(options.capture.config, false);
        let signalling = Signalling::new(signalling::Limits {
            follow_endpoints: true,
            follow_calls: true,
            leg_headers: options.leg_headers.clone(),
            ..signalling::Limits::default()
        });
        let receiver = Receiver::new(decoder, signalling, shards, endpoints, sender, options.max_streams);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, interval) = (Arc::clone(&stop), options.interval);
        let name = "vox-rx".to_owned();
        let (occupancies, thread) = match (capture.take_rings(), capture.take_mirror()) {
            (Some(rings), _) => {
                let occupancies = rings.occupancies();
                (
                    occupancies,
                    cpus::spawn(name, cpu, move || receive(rings, receiver, interval, valve, &stopped))?,
                )
            }
            (None, Some(mirror)) => {
                let occupancies = mirror.occupancies();
                (
                    occupancies,
                    cpus::spawn(name, cpu, move || receive(mirror, receiver, interval, valve, &stopped))?,
                )
            }
            (None, None) => return Err(RunError::Receiver),
        };
        let snap_bytes = options.capture.config.snap;
        Ok(Self { capture, events, occupancies, shedding, snap_bytes, stop, thread })
    }

    /// The capture, for its ladder, log and counters.
    pub fn capture(&mut self) -> &mut LiveCapture {
        &mut self.capture
    }

    /// What shards and the receiver tell.
    pub fn events(&self) -> &Events<Event> {
        &self.events
    }

    /// How full the rings are and were.
    pub fn occupancies(&self) -> &Occupancies {
        &self.occupancies
    }

    /// What is and was left out of the media.
    pub fn shedding(&self) -> &SharedHistory {
        &self.shedding
    }

    /// Has the receive thread ended by itself? It dies, or it ends because a shard died.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Detaches, drains and ends. `last` gets the events of the end, among them every stream's.
    ///
    /// # Errors
    /// [`RunError::Receiver`], or if the counters cannot be read.
    pub fn stop(mut self, mut last: impl FnMut(Event)) -> Result<Outcome, RunError> {
        self.capture.detach();
        // What was stamped just before is too young for the reader: then an empty round would not be the last.
        thread::sleep(Duration::from_nanos(50 * GRACE_NS));
        // Release: the detachment is visible to the thread that sees the flag; pairs with its acquire.
        self.stop.store(true, Ordering::Release);
        self.events.iter().for_each(&mut last);
        let ended = self.thread.join().map_err(|_| RunError::Receiver)?;
        let counters = self.capture.counters()?;
        let mut remains = ended.remains;
        remains.account.matched = counters.matched() + remains.account.unpacked;
        remains.account.lose(Loss::BadRecord, ended.malformed_records);
        add_kernel_losses(&mut remains.account, &counters);
        Ok(Outcome { remains, counters, snap_bytes: self.snap_bytes })
    }
}

/// Books what the kernel lost under the names of the account.
pub fn add_kernel_losses(account: &mut Account, counters: &KernelCounters) {
    let total = counters.total();
    for (kernel, count) in KernelLoss::ALL.into_iter().zip(total.losses) {
        let loss = match kernel {
            KernelLoss::RingFull => Loss::RingFull,
            KernelLoss::NoRing => Loss::NoRing,
            KernelLoss::CopyFailed => Loss::CopyFailed,
            KernelLoss::NoSocket => Loss::NoSocket,
            KernelLoss::NoMetadata => Loss::NoMetadata,
            KernelLoss::Shed => Loss::Shed,
            KernelLoss::SampledOut => Loss::SampledOut,
        };
        account.lose(loss, count);
    }
    account.lose(Loss::SocketDropped, counters.sockets.dropped);
    account.lose(Loss::SocketRingFull, counters.sockets.ring_full);
}

/// The receive thread. One clock call a burst, none a record.
fn receive<R: Records, S: super::receiver::EndpointSink>(
    mut records: R,
    mut receiver: Receiver<S>,
    interval: Duration,
    mut valve: Option<Valve>,
    stop: &AtomicBool,
) -> Ended {
    let mut now = Nanos(clock::monotonic_ns());
    let (mut rounds, mut advanced) = (Rounds::new(now, interval), now);
    let (mut idle_ns, mut rested) = (0, Duration::ZERO);
    loop {
        // Acquire: pairs with the release in `Probe::stop`. Read before the rings, so that an empty round
        // after it is the last.
        let stopping = stop.load(Ordering::Acquire);
        let taken = records.poll(BURST, |record| receiver.record(record));
        receiver.flush();
        // Without one of its shards the account cannot be kept: better an end that is seen.
        if taken == 0 && stopping || receiver.has_failed() {
            let remains = receiver.finish();
            return Ended { remains, malformed_records: records.malformed() };
        }
        let before = std::mem::replace(&mut now, Nanos(clock::monotonic_ns()));
        idle_ns += idle(now.since(before), taken, rested);
        if let Some(valve) = &mut valve {
            let pressure = Pressure {
                fullest: records.fullest(),
                lost: receiver.lost_by_shards(),
                idle_ns,
                reached: if taken < BURST { now } else { receiver.newest() },
            };
            valve.look(now, pressure, |resumed| receiver.end_shed(resumed));
        }
        if now.since(advanced) >= ADVANCE_NS {
            receiver.advance(now);
            advanced = now;
        }
        // A control plane that is behind gets its lines later, rather than never.
        if !stopping
            && receiver.is_heard()
            && let Some(part) = rounds.due(now, receiver.streams())
        {
            receiver.close_round(part, now);
        }
        rested = if taken < BURST && !stopping { records.rest() } else { Duration::ZERO };
    }
}

/// How much of the time since the round before the thread had nothing to do. A thread that wakes late waits for its turn on
/// a CPU, and would wait as well if it had more to do.
fn idle(elapsed_ns: i64, taken: usize, rested: Duration) -> i64 {
    if taken < FEW {
        return elapsed_ns;
    }
    i64::try_from(rested.as_nanos()).unwrap_or(i64::MAX).min(elapsed_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_wakes_late_was_not_idle_and_one_that_only_looks_is() {
        let nap = Duration::from_micros(800);
        assert_eq!(idle(5_000_000, 1_000, nap), 800_000);
        assert_eq!(idle(5_000_000, BURST, Duration::ZERO), 0);
        assert_eq!(idle(5_000_000, FEW - 1, nap), 5_000_000);
        // One that waited for frames wakes with the first of them.
        assert_eq!(idle(3_000_000, 1_000, Duration::from_millis(10)), 3_000_000);
    }
}
