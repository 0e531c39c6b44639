//! The whole probe flat out, by the number of streams and of shards.

use std::time::Duration;

use anyhow::Result;
use voxprobe::capture::live::Mode;

use super::Run;
use crate::throughput;
use crate::traffic::Spec;

/// Streams, and shards that hold them: one is the receiving thread.
const CASES: [(u32, usize); 5] = [(1_000, 1), (10_000, 1), (100_000, 1), (1_000, 2), (100_000, 2)];

/// All cases. More shards than CPUs beside the generator's have nothing to run on, and are measured all the same.
pub(super) fn measure(run: &mut Run, duration: Duration) -> Result<()> {
    println!("\nscaling, tap mode, as many packets a second as the generator makes:");
    println!(
        "  {:>8} {:>7} {:>9} {:>9} {:>8} {:>19} {:>7}",
        "streams", "shards", "sent Mpps", "got Mpps", "lost %", "receive thread, ns", "in all"
    );
    for (streams, shards) in CASES {
        let spec = Spec { streams, ..Spec::default() };
        let setup = throughput::Setup { mode: Mode::Tap, shards, ring_bytes: 8 << 20, sheds: false };
        let measured = throughput::measure(&spec, duration, setup)?;
        let seconds = measured.sent.elapsed.as_secs_f64();
        let (sent, frames) = (measured.sent.frames as f64, measured.report.capture.analysed as f64);
        let (offered, rate) = (sent / seconds / 1e6, frames / seconds / 1e6);
        let lost = (sent - frames).max(0.0) / sent.max(1.0) * 100.0;
        let cpu = measured.receiver_cpu.as_nanos() as f64 / frames.max(1.0);
        let all = measured.effort.total().as_nanos() as f64 / sent.max(1.0);
        println!("  {streams:>8} {shards:>7} {offered:>9.3} {rate:>9.3} {lost:>8.3} {cpu:>19.0} {all:>7.0}");
        let name = |quantity| format!("scale/{streams}-streams/{shards}-shards/{quantity}");
        run.note(name("offered"), offered, "Mpps");
        run.note(name("rate"), rate, "Mpps");
        run.note(name("lost"), lost, "%");
        run.note(name("cpu"), cpu, "ns/frame");
        run.note(name("in-all"), all, "ns/frame");
    }
    Ok(())
}
