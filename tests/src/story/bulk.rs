//! `voxlab bulk`: captures too big for memory, for measurements: many calls at once, written as they are made.
//!
//! ```text
//!   call i begins ─▶ its signalling and two streams ─▶ due: one entry a stream ─▶ taps ─▶ waiting: by time ─▶ file
//! ```
//!
//! What is held is one entry a stream and the copies of the next few milliseconds, whatever the length of the file. The same
//! options give the same bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use super::scene::{Plan, Scene, Sent, Stream, What, scaled};
use super::taps::Tap;
use super::{Recording, START_NS};
use crate::captures::Writer;
use crate::frames::{Datagram, rtp, udp};
use crate::random::Random;

const PTIME_NS: u64 = 20_000_000;
const SAMPLES: u32 = 160;

/// Writes a big capture: many calls over a long time, without holding it in memory.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The same seed gives the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls in all.
    #[arg(long, default_value_t = 100)]
    calls: u32,
    /// Calls at the same time, about.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    concurrent: u32,
    /// Length of the talk in each call.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    talk: Duration,
    /// More taps besides the first, as in `voxlab story`.
    #[arg(long, value_delimiter = ',', value_name = "TAP,...")]
    copies: Vec<Tap>,
    /// Packets that no tap sees, in percent.
    #[arg(long, default_value_t = 0.1, value_name = "PERCENT")]
    loss: f64,
    /// Largest delay of a packet by its sender, in milliseconds.
    #[arg(long, default_value_t = 2.0, value_name = "MS")]
    jitter: f64,
    /// Challenge each call (407).
    #[arg(long)]
    auth: bool,
    /// Over IPv6.
    #[arg(long)]
    ipv6: bool,
    /// The capture (pcapng).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Calls.
    pub calls: u64,
    /// Frames.
    pub frames: u64,
    /// SIP messages sent.
    pub sip_messages: u64,
    /// RTP packets that were seen.
    pub rtp_packets: u64,
    /// RTP packets that were not, between a stream's first and last.
    pub rtp_lost: u64,
    /// Sightings beyond the first.
    pub copies: u64,
}

/// Runs `voxlab bulk`.
pub fn run(options: &Options) -> Result<()> {
    let packets = u32::try_from(options.talk.as_millis() / 20).unwrap_or(u32::MAX).max(10);
    let plan = Plan {
        seed: options.seed,
        packets,
        auth: options.auth,
        ipv6: options.ipv6,
        loss_percent: options.loss,
        jitter_ms: options.jitter,
        ..Plan::PLAIN
    };
    let recording = Recording { taps: options.copies.clone(), ..Recording::default() };
    let totals = write(&options.out, &plan, options.calls, options.concurrent, &recording)?;
    println!("{}", serde_json::to_string(&totals).context("cannot print the totals")?);
    Ok(())
}

/// Writes `calls` calls of a plan, of which `concurrent` overlap.
pub fn write(path: &Path, plan: &Plan, calls: u32, concurrent: u32, recording: &Recording) -> Result<Totals> {
    let create = || format!("cannot write {}", path.display());
    let file = BufWriter::with_capacity(1 << 20, File::create(path).with_context(create)?);
    let mut bulk = Bulk::new(plan, recording, file);
    bulk.begin().with_context(create)?;
    let apart_ns = PTIME_NS * u64::from(plan.packets) / u64::from(concurrent.max(1));
    for call in 0..calls {
        bulk.run_until(u64::from(call) * apart_ns).with_context(create)?;
        bulk.call(call, u64::from(call) * apart_ns);
    }
    bulk.run_until(u64::MAX).with_context(create)?;
    bulk.file.flush().with_context(create)?;
    Ok(bulk.totals)
}

/// What happens next, by time and then in the order in which it was planned.
type Due = Reverse<(u64, u64, usize)>;

struct Bulk<'a> {
    plan: &'a Plan,
    recording: &'a Recording,
    taps: Vec<Tap>,
    random: Random,
    file: BufWriter<File>,
    due: BinaryHeap<Due>,
    acts: Vec<Option<Act>>,
    free: Vec<usize>,
    waiting: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>>,
    order: u64,
    totals: Totals,
}

enum Act {
    Message(Box<Datagram>),
    Packet(Box<Speaker>),
}

/// One direction of a call's audio.
struct Speaker {
    stream: Stream,
    next: u32,
    seq: u16,
    timestamp: u32,
}

impl<'a> Bulk<'a> {
    fn new(plan: &'a Plan, recording: &'a Recording, file: BufWriter<File>) -> Self {
        Self {
            plan,
            recording,
            taps: std::iter::once(Tap::FIRST).chain(recording.taps.iter().cloned()).collect(),
            random: Random::derived(plan.seed, 3_000_000_000),
            file,
            due: BinaryHeap::new(),
            acts: Vec::new(),
            free: Vec::new(),
            waiting: BinaryHeap::new(),
            order: 0,
            totals: Totals::default(),
        }
    }

    fn begin(&mut self) -> std::io::Result<()> {
        let writer = Writer::PCAP_NG;
        self.file.write_all(&writer.section())?;
        self.file.write_all(&writer.interface("tap0", Some(9), None, 0))
    }

    /// Plans a call that begins now.
    fn call(&mut self, index: u32, start_ns: u64) {
        let scene = Scene::signalling(self.plan, index, start_ns);
        self.totals.calls += 1;
        for Sent { time_ns, datagram, what, .. } in scene.sent {
            self.totals.sip_messages += u64::from(matches!(what, What::Message { .. }));
            self.plan_act(time_ns, Act::Message(Box::new(datagram)));
        }
        for stream in scene.streams {
            let (seq, timestamp) = ((self.random.next_u32() >> 16) as u16, self.random.next_u32());
            let begins_ns = stream.begins_ns;
            let speaker = Speaker { stream, next: 0, seq, timestamp };
            self.plan_act(begins_ns, Act::Packet(Box::new(speaker)));
        }
    }

    fn run_until(&mut self, end_ns: u64) -> std::io::Result<()> {
        while let Some(Reverse((now_ns, ..))) = self.due.peek().copied()
            && now_ns < end_ns
        {
            self.flush(now_ns)?;
            let Some(Reverse((_, _, at))) = self.due.pop() else { break };
            let Some(act) = self.acts.get_mut(at).and_then(Option::take) else { continue };
            self.free.push(at);
            match act {
                Act::Message(datagram) => self.show(now_ns, &datagram),
                Act::Packet(speaker) => self.speak(now_ns, speaker),
            }
        }
        if end_ns == u64::MAX { self.flush(end_ns) } else { Ok(()) }
    }

    /// Sends one packet, or loses it, and plans the next.
    fn speak(&mut self, now_ns: u64, mut speaker: Box<Speaker>) {
        let Speaker { stream, next, seq, timestamp } = &mut *speaker;
        let is_inner = *next > 0 && *next + 1 < self.plan.packets;
        if is_inner && self.random.chance(self.plan.loss_percent / 100.0) {
            self.totals.rtp_lost += 1;
        } else {
            let mut audio = rtp().ssrc(stream.ssrc);
            (audio.seq, audio.timestamp) = (*seq, *timestamp);
            (audio.payload_type, audio.marker) = (stream.law.payload_type(), *next == 0);
            audio.payload = audio.clone().varied(SAMPLES as usize).payload;
            let macs = if stream.from_phone { (1, 5) } else { (5, 1) };
            let datagram = udp().between(stream.src, stream.dst).ip_id(seq.wrapping_add(7).max(1));
            let datagram = datagram.macs([2, 0x10, 0, 0, 0, macs.0], [2, 0x10, 0, 0, 0, macs.1]);
            self.totals.rtp_packets += 1;
            self.show(now_ns, &audio.over(datagram));
        }
        *seq = seq.wrapping_add(1);
        *timestamp = timestamp.wrapping_add(SAMPLES);
        *next += 1;
        if *next < self.plan.packets {
            let jitter_ns = scaled(self.plan.jitter_ms * 1e6, self.random.unit());
            // Never before the packet that was just sent.
            let time_ns = (stream.begins_ns + PTIME_NS * u64::from(*next) + jitter_ns).max(now_ns + 1);
            self.plan_act(time_ns, Act::Packet(speaker));
        }
    }

    /// All taps' views of a packet.
    fn show(&mut self, now_ns: u64, datagram: &Datagram) {
        let mut seen = 0;
        for (at, tap) in (0_u8..).zip(&self.taps) {
            if !tap.shows(datagram) {
                continue;
            }
            let time_ns = START_NS + now_ns + self.recording.delay(&mut self.random, at, tap);
            #[expect(clippy::cast_possible_truncation, reason = "a running number that wraps")]
            let bytes = tap.view(datagram, at, time_ns, self.order as u32).0.ethernet();
            self.order += 1;
            self.waiting.push(Reverse((time_ns, self.order, bytes)));
            seen += 1;
        }
        self.totals.copies += seen - 1;
    }

    fn flush(&mut self, now_ns: u64) -> std::io::Result<()> {
        while let Some(Reverse((time_ns, _, bytes))) = self.waiting.peek()
            && *time_ns <= START_NS.saturating_add(now_ns)
        {
            self.file.write_all(&Writer::PCAP_NG.enhanced(0, *time_ns, bytes))?;
            self.totals.frames += 1;
            self.waiting.pop();
        }
        Ok(())
    }

    fn plan_act(&mut self, time_ns: u64, act: Act) {
        let at = self.free.pop().unwrap_or_else(|| {
            self.acts.push(None);
            self.acts.len() - 1
        });
        if let Some(place) = self.acts.get_mut(at) {
            *place = Some(act);
        }
        self.order += 1;
        self.due.push(Reverse((time_ns, self.order, at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captures::Scratch;

    #[test]
    fn a_big_capture_holds_what_its_totals_say_and_repeats_with_its_seed() {
        let scratch = Scratch::new("bulk").expect("a temporary directory");
        let plan = Plan { packets: 50, loss_percent: 2.0, ..Plan::PLAIN };
        let recording =
            Recording { taps: vec!["re-emitted".parse().expect("a tap")], ..Recording::default() };
        let paths = ["one", "two"].map(|name| scratch.path().join(name));
        let totals =
            paths.each_ref().map(|path| write(path, &plan, 20, 5, &recording).expect("room on the disk"));
        let [one, two] = paths.map(|path| std::fs::read(path).expect("it was written"));
        assert_eq!(totals[0], totals[1]);
        assert!(one == two, "the same seed gives the same bytes");
        let Totals { calls, frames, sip_messages, rtp_packets, rtp_lost, copies } = totals[0].clone();
        assert_eq!((calls, rtp_packets + rtp_lost), (20, 20 * 2 * 50));
        assert_eq!((copies, frames), (sip_messages + rtp_packets, 2 * copies));
        assert!(rtp_lost > 0);
    }
}
