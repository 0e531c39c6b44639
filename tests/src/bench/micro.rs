//! One part at a time, without files and interfaces.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use voxprobe::sip::message::Message;

use super::{Run, median};
use crate::frames::invite;
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
    }

    println!("\nengine of copies, ns a frame of streams without copies:");
    for streams in if is_quick { &[100][..] } else { &[1, 100, 10_000] } {
        let (without, with) = dedup_cost::engine(*streams);
        println!("  {streams:>6} streams: without {without:6.1}, with {with:6.1}");
        run.note(format!("micro/dedup/{streams}/without"), without, "ns");
        run.note(format!("micro/dedup/{streams}/with"), with, "ns");
    }

    println!("\nSIP parser:");
    let text = invite(900);
    let messages = if is_quick { 1_000 } else { 20_000 };
    let rates = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        for _ in 0..messages {
            let _ = black_box(Message::parse(black_box(text.as_bytes())));
        }
        (messages * text.len()) as f64 / began.elapsed().as_secs_f64() / 1e6
    });
    let rate = median(rates.collect());
    println!("  INVITE of {} bytes: {rate:.0} MB/s, {:.0} ns", text.len(), text.len() as f64 * 1e3 / rate);
    run.note("micro/sip/parse/rate", rate, "MB/s");
    Ok(())
}
