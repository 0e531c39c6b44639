//! What a packet costs its stream. Run with `cargo test --release -p probe-user --lib rtp::cost -- --ignored --nocapture`.

use std::hint::black_box;
use std::sync::Arc;

use rustix::time::{ClockId, clock_gettime};

use super::testing::packet;
use crate::packet::RtpPacket;
use crate::rtp::Stream;

/// Budget: 100 ns a packet with the stream in the cache. Nothing is asserted: time is not a claim.
#[test]
#[ignore = "measures: needs a release build and a quiet machine"]
fn cost_of_a_packet() {
    for streams in [1, 1_000, 20_000] {
        let rounds = 2_000_000 / streams.max(100);
        // So that the clock is asked seldom enough.
        let batch = 100_u64.div_ceil(streams);
        let at = |n: u64, stream: u64| -> RtpPacket {
            let mut packet = packet(n);
            let late = (n * 7_919 + stream * 104_729) % 4_000_000;
            packet.time.0 += late;
            packet.tap_time.0 = packet.time.0;
            packet
        };
        let epoch = packet(0).time;
        let mut table: Vec<_> =
            (0..streams).map(|stream| Stream::new(&at(0, stream), stream, epoch, Arc::default())).collect();
        let mut spent = 0.0;
        for round in 0..rounds {
            let numbers = 1 + round * batch..=(round + 1) * batch;
            let packets: Vec<_> =
                numbers.flat_map(|n| (0..streams).map(move |stream| at(n, stream))).collect();
            let begun = cpu_seconds();
            for packets in packets.chunks(table.len()) {
                for (stream, packet) in table.iter_mut().zip(packets) {
                    stream.observe(black_box(packet), epoch);
                }
            }
            spent += cpu_seconds() - begun;
        }
        let begun = cpu_seconds();
        let mut kept = 0;
        for stream in table {
            kept += black_box(stream.into_parts()).payload_types.len();
        }
        let ends = (cpu_seconds() - begun) * 1e6 / streams as f64;
        let each = spent * 1e9 / (rounds * batch * streams) as f64;
        println!("{streams} streams: {each:.0} ns a packet, {ends:.1} us an end ({kept})");
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
