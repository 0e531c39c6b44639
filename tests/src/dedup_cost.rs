//! `voxlab dedup-cost`: what finding copies costs per RTP frame, over the same work without it.
//!
//! Without: sequence, the ledger that equals tshark's, and everything behind a first copy. With: the same and the window
//! that tells first from copy. Both in turns, in one process, median of many rounds. Then the engine alone where there are
//! copies, which "without" cannot count rightly: window, cause, and the reference tap.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use probe_ebpf::Fingerprint;
use voxprobe::dedup::reference::By;
use voxprobe::dedup::window::DupWindow;
use voxprobe::packet::{
    Carrier, Encapsulation, Endpoint, Evidence, Flow, Layer, MediaId, Nanos, RtpHeader, RtpPacket, Tap, Vlans,
};
use voxprobe::rtp::quality::{Quality, Settings};
use voxprobe::rtp::raw::RawLedger;
use voxprobe::rtp::sequence::{Sequence, Step};
use voxprobe::rtp::unique::Placed;
use voxprobe::rtp::{Stream, codec::Announcement};

const ROUNDS: usize = 31;
/// Packets of a round and stream.
const PACKETS: u64 = 200;
const RATE: u32 = 8_000;

/// One stream's state without the engine.
struct Without {
    sequence: Sequence,
    raw: RawLedger,
    quality: Quality,
}

impl Without {
    fn new(packet: &RtpPacket) -> Self {
        let sequence = Sequence::new(packet.rtp.seq);
        let first = placed(sequence.first());
        let quality = Quality::new(packet, first, Arc::new(Settings::default()));
        Self { raw: RawLedger::new(packet, packet.time), sequence, quality }
    }

    fn observe(&mut self, packet: &RtpPacket, mut window: Option<&mut DupWindow>) {
        self.raw.observe(packet, Nanos(0), Some(RATE));
        if let Step::Number(seq) = self.sequence.observe(packet.rtp.seq) {
            match &mut window {
                Some(window) => {
                    let quality = &mut self.quality;
                    black_box(window.observe(seq, packet, |came| quality.settled(came)));
                }
                None => self.quality.settled(true),
            }
            self.quality.first_copy(packet, placed(seq));
        }
    }
}

fn placed(seq: u64) -> Placed {
    Placed { seq, clock_rate: Some(RATE), restarted: false, by: By::OnlyTap }
}

/// What a frame without copies costs, in nanoseconds: without the window that finds copies, and with it.
pub fn engine(streams: u32) -> (f64, f64) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(plain(streams, false));
        with.push(plain(streams, true));
    }
    (median(without), median(with))
}

/// Prints the table.
pub fn run() -> Result<()> {
    println!("ns per RTP frame, median of {ROUNDS} rounds:");
    for streams in [1, 100, 10_000] {
        let (without, with) = engine(streams);
        println!(
            "  {streams:>6} streams, no copies: without {without:6.1}, with {with:6.1}, the engine {:5.1}",
            with - without
        );
    }
    for (name, taps) in [("one tap", 1), ("two taps", 2), ("two taps, both again inside rpcap", 4)] {
        let whole = median((0..ROUNDS).map(|_| copied(100, taps)).collect());
        println!("     100 streams, {name}: a whole stream's work {whole:6.1} a frame");
    }
    Ok(())
}

/// Frames of as many streams, interleaved as on a wire.
fn plain(streams: u32, with_window: bool) -> f64 {
    let mut states: Vec<_> = (0..streams).map(|ssrc| Without::new(&packet(ssrc, 0, 0))).collect();
    let mut windows: Vec<_> = (0..streams).map(|ssrc| DupWindow::new(65_536, &packet(ssrc, 0, 0))).collect();
    let packets = if streams > 1_000 { PACKETS / 10 } else { PACKETS };
    let mut spent = Duration::ZERO;
    for seq in 1..=packets {
        let frames: Vec<_> = (0..streams).map(|ssrc| packet(ssrc, seq, 0)).collect();
        let began = Instant::now();
        for ((state, window), frame) in states.iter_mut().zip(&mut windows).zip(&frames) {
            state.observe(black_box(frame), with_window.then_some(window));
        }
        spent += began.elapsed();
    }
    black_box((states.len(), windows.len()));
    per_frame(spent, u64::from(streams) * packets)
}

/// The whole of [`Stream::observe`], each packet seen by so many taps.
fn copied(streams: u32, taps: u8) -> f64 {
    let announcement = Arc::new(Announcement::default());
    let mut states: Vec<_> = (0..streams)
        .map(|ssrc| Stream::new(&packet(ssrc, 0, 0), u64::from(ssrc), Nanos(0), Arc::clone(&announcement)))
        .collect();
    let mut spent = Duration::ZERO;
    for seq in 1..=PACKETS {
        let frames: Vec<_> =
            (0..taps).flat_map(|tap| (0..streams).map(move |ssrc| packet(ssrc, seq, tap))).collect();
        let began = Instant::now();
        for (at, frame) in frames.iter().enumerate() {
            if let Some(state) = states.get_mut(at % streams as usize) {
                black_box(state.observe(black_box(frame), Nanos(0)));
            }
        }
        spent += began.elapsed();
    }
    per_frame(spent, u64::from(streams) * PACKETS * u64::from(taps))
}

fn per_frame(spent: Duration, frames: u64) -> f64 {
    spent.as_nanos() as f64 / frames as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A packet as one of four taps sees it: the first, another that re-emits, and both inside rpcap.
#[expect(clippy::cast_possible_truncation, reason = "what the wire has room for")]
pub(crate) fn packet(ssrc: u32, seq: u64, tap: u8) -> RtpPacket {
    let time = Nanos(1_000_000_000 + seq * 20_000_000 + u64::from(ssrc) * 1_000 + u64::from(tap) * 38_000);
    let is_second = tap % 2 == 1;
    let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap_or_default();
    RtpPacket {
        time,
        tap_time: time,
        number: seq * 4 + u64::from(tap) + 1,
        flow: Flow { src: Endpoint::v4([10, 0, 0, 1], 4_000), dst: Endpoint::v4([10, 0, 0, 2], 5_000) }
            .into(),
        rtp: RtpHeader {
            payload_type: 0,
            marker: false,
            seq: (seq & 0xffff) as u16,
            timestamp: (seq as u32).wrapping_mul(160),
            ssrc,
        },
        udp_len: 180,
        fingerprint: Fingerprint { value: (seq as u16).wrapping_mul(31), hashed: false },
        evidence: Evidence {
            tap: Tap::new(0, false),
            dst_mac: if is_second { [9; 6] } else { [2, 0, 0, 0, 0, 1] },
            src_mac: [2, 0, 0, 0, 0, 2],
            vlans: Vlans::default(),
            ttl: 64,
            tos: 0xb8,
            ip_id: if is_second { 0 } else { seq as u16 },
            encapsulation: if tap >= 2 { rpcap } else { Encapsulation::NONE },
            carrier: if tap >= 2 { Carrier(1) } else { Carrier::NONE },
        },
        is_hash_cut: false,
        payload_head: None,
        media: MediaId::UNANNOUNCED,
    }
}
