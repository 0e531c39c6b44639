//! One part at a time, without files and interfaces.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use voxprobe::histogram::MicrosHistogram;
use voxprobe::packet::Nanos;
use voxprobe::rtp::raw::RawLedger;
use voxprobe::sip::message::Message;

use super::{Run, median};
use crate::frames::invite;
use crate::random::Random;
use crate::{core_cost, cost, dedup_cost};

const ROUNDS: usize = 31;

/// All parts.
pub(super) fn measure(run: &mut Run, is_quick: bool) -> Result<()> {
    println!("\nXDP program, ns a frame over an empty one:");
    if rustix::process::geteuid().is_root() {
        for case in cost::measure()? {
            println!("  {:<32} {:>6}", case.name, case.ns);
            run.note(format!("micro/xdp/{}/over-empty", case.name), case.ns as f64, "ns");
        }
    } else {
        run.leave_out("XDP programs: needs root".to_owned());
    }

    println!("\nanalysis core, ns a packet of orderly streams with full windows:");
    let (counts, packets) =
        if is_quick { (&[2_000][..], 800_000) } else { (&[2_000, 20_000, 1_000_000][..], 8_000_000) };
    for streams in counts {
        let cost = core_cost::orderly(*streams, packets);
        println!("  {streams:>7} streams: {:6.1}, {:5.1} Mpps", cost.ns, 1e3 / cost.ns);
        run.note(format!("micro/core/{streams}/packet"), cost.ns, "ns");
        // Of few streams it is what the allocator kept of the case before.
        if *streams == 1_000_000 {
            println!("  {:>7}          {} bytes a stream, resident", "", cost.bytes);
            run.note(format!("micro/core/{streams}/memory"), cost.bytes as f64, "bytes a stream");
        }
    }

    println!("\nengine of copies, ns a frame of streams without copies:");
    for streams in if is_quick { &[100][..] } else { &[1, 100, 10_000] } {
        let (without, with) = dedup_cost::engine(*streams);
        println!("  {streams:>6} streams: without {without:6.1}, with {with:6.1}");
        run.note(format!("micro/dedup/{streams}/without"), without, "ns");
        run.note(format!("micro/dedup/{streams}/with"), with, "ns");
    }

    println!("\nparts of a stream, ns a packet:");
    let items = if is_quick { 10_000 } else { 1_000_000 };
    for (name, ns) in [("jitter and ledger", ledger(items)), ("histogram", histogram(items))] {
        println!("  {name:<18} {ns:6.1}");
        run.note(format!("micro/{name}/packet"), ns, "ns");
    }

    println!("\nSIP parser:");
    let text = invite(900);
    let messages = if is_quick { 1_000 } else { 20_000 };
    let ns = ns_each(messages, || {
        for _ in 0..messages {
            let _ = black_box(Message::parse(black_box(text.as_bytes())));
        }
    });
    let rate = text.len() as f64 * 1e3 / ns;
    println!("  INVITE of {} bytes: {rate:.0} MB/s, {ns:.0} ns", text.len());
    run.note("micro/sip/parse/rate", rate, "MB/s");
    Ok(())
}

/// Jitter, differences and skew as tshark has them, of one stream.
fn ledger(packets: u64) -> f64 {
    let packets: Vec<_> = (0..packets).map(|seq| dedup_cost::packet(1, seq, 0)).collect();
    ns_each(packets.len(), || {
        let mut ledger = packets.first().map(|first| RawLedger::new(first, first.time));
        for packet in &packets {
            if let Some(ledger) = &mut ledger {
                ledger.observe(black_box(packet), Nanos(0), Some(8_000));
            }
        }
        black_box(&ledger);
    })
}

/// Differences of up to 8 ms into a stream's distribution.
fn histogram(values: u64) -> f64 {
    let mut random = Random::new(1);
    let values: Vec<_> = (0..values).map(|_| random.next_u64() % 8_000_000).collect();
    ns_each(values.len(), || {
        let mut histogram = MicrosHistogram::default();
        for value in &values {
            histogram.record_ns(black_box(*value));
        }
        black_box(&histogram);
    })
}

/// Nanoseconds of one of `count` things that `work` does: the median of many rounds.
fn ns_each(count: usize, mut work: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        work();
        began.elapsed().as_nanos() as f64 / count as f64
    });
    median(rounds.collect())
}
