//! `voxlab core-cost`: what a packet costs the analysis core, by the number of streams that it holds.
//!
//! The core is a [`StreamTable`] with everything in it: index, both ledgers, the window of copies, both distributions,
//! drift, and the simulated buffers. Packets are G.711 at 20 ms with a jitter of up to 4 ms. They come in an order that
//! stays the same from round to round, as phases do, and that has nothing to do with the order in which streams began.
//! They are made apart from the clock, and lie in a cache when the core reads them, as after a decoder.
//!
//! With `--interval` it is a shard: how long packets wait while an interval is closed, all streams at once or a part at a time,
//! with packets of other streams in between. The lines are taken apart from the clock, as another thread does.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use crossbeam_channel::unbounded;
use probe_ebpf::Fingerprint;
use rustix::time::{ClockId, clock_gettime};
use voxprobe::packet::{
    Carrier, Encapsulation, Endpoint, Evidence, Flow, MediaId, Nanos, RtpHeader, RtpPacket, Tap, Vlans,
};
use voxprobe::pipeline::shard::{Overflow, Shards};
use voxprobe::pipeline::table::{Limits, StreamTable};
use voxprobe::pipeline::wheel::{Part, SPOKES};

use crate::random::Random;

/// Packets made at once: 120 KiB of them.
const CHUNK: usize = 1_024;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Streams at once; several numbers are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "2000,20000,1000000")]
    streams: Vec<u32>,
    /// Packets of each stream before the clock starts. 128 fill the window of copies.
    #[arg(long, default_value_t = 20)]
    warm_up: u64,
    /// Packets in all while it runs, at least.
    #[arg(long, default_value_t = 8_000_000)]
    packets: u64,
    /// Packets in a thousand that the network loses.
    #[arg(long, default_value_t = 0)]
    loss_per_mille: u16,
    /// Show each packet again, 50 us later, by another tap.
    #[arg(long)]
    copies: bool,
    /// Close intervals: all streams at once, and then in so many parts.
    #[arg(long, value_name = "PARTS")]
    interval: Option<u16>,
}

/// What a packet costs, and a stream holds.
pub struct Cost {
    /// CPU time of a packet in nanoseconds.
    pub ns: f64,
    /// Resident bytes of a stream.
    pub bytes: u64,
}

/// Prints the table.
pub fn run(options: &Options) -> Result<()> {
    for &streams in &options.streams {
        if let Some(parts) = options.interval {
            ensure!(
                parts.is_power_of_two() && usize::from(parts) <= SPOKES,
                "--interval: a power of two up to {SPOKES}"
            );
            for of in [1, parts] {
                let Closing { longest, all } = close(streams, of, options)?;
                println!("{streams:>8} streams: longest {longest:.1?} of {all:.0?} in {of} parts");
            }
            continue;
        }
        let before = resident_kib();
        let Cost { ns, bytes } = measure(streams, options);
        println!(
            "{streams:>8} streams: {ns:6.1} ns a packet, {:5.1} Mpps, {bytes} bytes a stream in all ({} MiB before)",
            1e3 / ns,
            before / 1_024
        );
    }
    Ok(())
}

/// The same of orderly streams whose windows of copies are full, for the benchmark.
pub(crate) fn orderly(streams: u32, packets: u64) -> Cost {
    measure(
        streams,
        &Options {
            streams: Vec::new(),
            warm_up: 140,
            packets,
            loss_per_mille: 0,
            copies: false,
            interval: None,
        },
    )
}

fn measure(streams: u32, options: &Options) -> Cost {
    let table = Box::new(StreamTable::new(limits(streams)));
    let mut core = Core::new(Analysis::Table(table), streams, options);
    let idle = resident_kib();
    core.rounds(options.warm_up);
    core.spent_ns = 0.0;
    core.packets = 0;
    let each = u64::from(streams);
    core.rounds(options.packets.div_ceil(each));
    let bytes = resident_kib().saturating_sub(idle) * 1_024 / each;
    Cost { ns: core.spent_ns / core.packets as f64, bytes }
}

/// How long packets wait for an interval to be closed.
struct Closing {
    /// The longest round.
    longest: Duration,
    /// All rounds together.
    all: Duration,
}

/// Closes the second interval of so many streams; the first makes room that a stream keeps.
fn close(streams: u32, of: u16, options: &Options) -> Result<Closing> {
    let (sender, events) = unbounded();
    let limits = Limits { idle: Some(Duration::from_secs(30)), ..limits(streams) };
    let shards = Shards::start(1, limits, Overflow::Lose, &sender)?;
    let mut core = Core::new(Analysis::Shard(shards), streams, options);
    core.rounds(options.warm_up);
    let mut closing = Closing { longest: Duration::ZERO, all: Duration::ZERO };
    for round in 1..=2 {
        // Each stream has something to tell, and a run.
        core.rounds(8);
        closing = Closing { longest: Duration::ZERO, all: Duration::ZERO };
        for index in 0..of {
            let now = core.now();
            let Analysis::Shard(shards) = &mut core.analysis else { bail!("it was made a shard") };
            let begun = thread_ns();
            shards.close_intervals(Part { index, of }, now, round);
            let took = Duration::from_secs_f64((thread_ns() - begun) / 1e9);
            closing.longest = closing.longest.max(took);
            closing.all += took;
            events.try_iter().for_each(drop);
            core.some();
        }
        core.end_round();
    }
    Ok(closing)
}

fn limits(streams: u32) -> Limits {
    Limits { streams: streams as usize, idle: None, quality: Arc::default() }
}

/// Who gets the packets.
enum Analysis {
    Table(Box<StreamTable>),
    Shard(Shards),
}

struct Core {
    analysis: Analysis,
    order: Vec<u32>,
    random: Random,
    round: u64,
    number: u64,
    chunk: Vec<RtpPacket>,
    loss: f64,
    copies: bool,
    /// Place in a round of which only some packets have come.
    at: usize,
    spent_ns: f64,
    packets: u64,
}

impl Core {
    fn new(analysis: Analysis, streams: u32, options: &Options) -> Self {
        let mut random = Random::new(7);
        let mut order: Vec<u32> = (0..streams).collect();
        for at in (1..order.len()).rev() {
            let other = random.next_u64() % (at as u64 + 1);
            order.swap(at, usize::try_from(other).unwrap_or(at));
        }
        Self {
            analysis,
            order,
            random,
            round: 0,
            number: 0,
            chunk: Vec::with_capacity(2 * CHUNK),
            loss: f64::from(options.loss_per_mille) / 1e3,
            copies: options.copies,
            at: 0,
            spent_ns: 0.0,
            packets: 0,
        }
    }

    /// The time of the running round of packets.
    fn now(&self) -> Nanos {
        Nanos(1_000_000_000 + self.round * 20_000_000)
    }

    /// The next packets in the order of a round: what comes while the control plane is at work.
    fn some(&mut self) {
        let order = std::mem::take(&mut self.order);
        let end = order.len().min(self.at + CHUNK);
        self.chunk.clear();
        for &stream in order.get(self.at..end).unwrap_or_default() {
            self.make(stream, order.len() as u64);
        }
        self.feed();
        self.at = end;
        self.order = order;
        if end == self.order.len() {
            self.end_round();
        }
    }

    /// What is left of a round does not come.
    fn end_round(&mut self) {
        (self.at, self.round) = (0, self.round + 1);
    }

    fn rounds(&mut self, rounds: u64) {
        for _ in 0..rounds {
            let order = std::mem::take(&mut self.order);
            for part in order.chunks(CHUNK) {
                self.chunk.clear();
                for &stream in part {
                    self.make(stream, order.len() as u64);
                }
                self.feed();
            }
            self.order = order;
            self.round += 1;
        }
    }

    fn make(&mut self, stream: u32, streams: u64) {
        if self.random.chance(self.loss) {
            return;
        }
        self.number += 1;
        let phase = self.number % streams * 15_000_000 / streams;
        let late = self.random.next_u64() % 4_000_000;
        let at = Nanos(self.now().0 + phase + late);
        let first = packet(stream, self.round, at, self.number);
        self.chunk.push(first);
        if self.copies {
            self.number += 1;
            let at = Nanos(at.0 + 50_000);
            let evidence = Evidence { dst_mac: [9; 6], ip_id: 0, ..first.evidence };
            self.chunk.push(RtpPacket { time: at, tap_time: at, number: self.number, evidence, ..first });
        }
    }

    fn feed(&mut self) {
        let packets = self.chunk.len() as u64;
        let begun = thread_ns();
        match &mut self.analysis {
            Analysis::Table(table) => {
                table.observe_batch(black_box(&self.chunk), |gone| drop(black_box(gone)));
            }
            Analysis::Shard(shards) => shards.packets(black_box(&mut self.chunk)),
        }
        self.spent_ns += thread_ns() - begun;
        self.packets += packets;
    }
}

#[expect(clippy::cast_possible_truncation, reason = "what the wire has room for")]
fn packet(stream: u32, round: u64, time: Nanos, number: u64) -> RtpPacket {
    let [_, a, b, c] = stream.to_be_bytes();
    RtpPacket {
        time,
        tap_time: time,
        number,
        flow: Flow { src: Endpoint::v4([10, a, b, c], 4_000), dst: Endpoint::v4([192, 168, 7, c], 5_000) }
            .into(),
        rtp: RtpHeader {
            payload_type: 0,
            marker: false,
            seq: (round & 0xffff) as u16,
            timestamp: (round as u32).wrapping_mul(160),
            ssrc: stream.wrapping_mul(2_654_435_761),
        },
        udp_len: 180,
        fingerprint: Fingerprint { value: (number as u16).wrapping_mul(31), hashed: false },
        evidence: Evidence {
            tap: Tap::new(0, false),
            dst_mac: [2, 0, 0, 0, 0, 1],
            src_mac: [2, 0, 0, 0, 0, 2],
            vlans: Vlans::default(),
            ttl: 64,
            tos: 0xb8,
            ip_id: round as u16,
            encapsulation: Encapsulation::NONE,
            carrier: Carrier::NONE,
        },
        is_hash_cut: false,
        payload_head: Some([0xd5; 4]),
        media: MediaId::UNANNOUNCED,
    }
}

fn thread_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Memory of this process that is in use.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
