//! What signalling costs. Run with `cargo test --release -p probe-user --lib sip::signalling::cost -- --ignored --nocapture`.

use std::hint::black_box;

use rustix::time::{ClockId, clock_gettime};

use super::testing::{Wire, whole_call};
use super::*;
use crate::packet::Endpoint;
use crate::sip::sdp::Description;

/// Budget: 20 ns a lookup, as every RTP packet asks; 5 us a message, as 1,000 calls a second make some 10,000.
#[test]
#[ignore = "measures: needs a release build and a quiet machine"]
fn cost_of_a_lookup_and_of_a_message() {
    for lines in [100, 10_000, media::MAX_LINES] {
        let mut table = MediaTable::default();
        let endpoint = |n: usize| {
            let [_, a, b, c] = u32::try_from(n / 4).unwrap().to_be_bytes();
            Endpoint::v4([10, a, b, c], 16_384 + 2 * u16::try_from(n % 4).unwrap())
        };
        let line = Description::parse(b"v=0\nc=IN IP4 10.0.0.1\nm=audio 4000 RTP/AVP 0\n").lines.remove(0);
        for n in 0..lines {
            let line = sdp_line(&line, endpoint(n));
            table.announce(&"call".into(), &line, Nanos(1), 1);
        }
        // In the order of a hash, so that neighbours in the table are not asked one after the other.
        let order: Vec<_> = (0..1 << 16).map(|n: usize| n.wrapping_mul(40_503) % lines).collect();
        let flows: Vec<_> =
            order.iter().map(|n| Flow { src: endpoint(lines + n), dst: endpoint(*n) }).collect();
        let strangers: Vec<_> =
            order.iter().map(|n| Flow { src: endpoint(2 * lines + n), dst: endpoint(lines + n) }).collect();
        for (name, flows) in [("announced", &flows), ("strangers", &strangers)] {
            let begun = cpu_seconds();
            for _ in 0..50 {
                for flow in flows {
                    black_box(table.lookup(black_box(flow)));
                }
            }
            let each = (cpu_seconds() - begun) * 1e9 / (50 * flows.len()) as f64;
            println!("lookup, {lines} lines, {name}: {each:.1} ns");
        }
    }
    let mut wire = Wire::new();
    whole_call(&mut wire);
    let texts = wire.sent;
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let rounds = 20_000;
    let begun = cpu_seconds();
    for _ in 0..rounds {
        for (_, text) in &texts {
            let _ = black_box(Message::parse(black_box(text.as_bytes())));
        }
    }
    let each = (cpu_seconds() - begun) * 1e9 / (rounds * texts.len()) as f64;
    println!("parse: {each:.0} ns a message of {} bytes", bytes / texts.len());

    let calls: Vec<Vec<(Flow, String)>> = (0..rounds)
        .map(|n| {
            let renamed = |text: &String| text.replace("Call-ID: one", &format!("Call-ID: {n}"));
            texts.iter().map(|(flow, text)| (*flow, renamed(text))).collect()
        })
        .collect();
    let mut probe = Signalling::new(Limits { calls: 10_000, ..Limits::default() });
    let evidence = super::testing::seen();
    let begun = cpu_seconds();
    for (n, call) in (1..).zip(&calls) {
        for (flow, text) in call {
            probe.observe(Nanos(n * 1_000_000), n, *flow, Transport::Udp, &evidence, text.as_bytes());
        }
    }
    let each = (cpu_seconds() - begun) * 1e9 / (rounds * texts.len()) as f64;
    println!("observe: {each:.0} ns a message, {} calls kept", probe.calls().len());
    assert_eq!(probe.totals().messages, (rounds * texts.len()) as u64);
}

/// Budget: 4 KiB a call, its media lines and what is remembered of its last messages included.
#[test]
#[ignore = "measures: needs a process of its own"]
fn memory_of_100_000_calls() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let mut story = Wire::new();
    whole_call(&mut story);
    let mut probe = Signalling::default();
    let before = resident();
    for n in 0..100_000_u64 {
        for (flow, text) in &story.sent {
            let text =
                text.replace("Call-ID: one", &format!("Call-ID: {n:08}-1234-5678-abcd@pbx.example.com"));
            probe.observe(
                Nanos(n * 10_000_000),
                n,
                *flow,
                Transport::Udp,
                &super::testing::seen(),
                text.as_bytes(),
            );
        }
    }
    let each = (resident() - before) / 100_000;
    println!("{} calls kept, {each} bytes each", probe.calls().len());
    assert!(each < 4096, "{each}");
}

/// Time this thread has run: others may use the machine.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn sdp_line(line: &crate::sip::sdp::MediaLine, endpoint: Endpoint) -> crate::sip::sdp::MediaLine {
    let rtcp = Endpoint { port: endpoint.port + 1, ..endpoint };
    crate::sip::sdp::MediaLine { endpoint: Some(endpoint), rtcp: Some(rtcp), ..line.clone() }
}
