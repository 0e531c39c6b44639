//! What a call costs in memory, by a counting allocator: the call, its dialogs, its media lines, and what is remembered of its
//! messages.
//!
//! Budgets of issue 5: a typical call below 4 KiB, 100,000 calls at one time below 1 GiB.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use voxprobe::packet::{Carrier, Encapsulation, Endpoint, Evidence, Flow, Nanos, Tap, Vlans};
use voxprobe::sip::{CallState, Signalling, Transport};

/// The system's allocator, with a count of what is held.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
/// Tests of one process share the count.
static ALONE: Mutex<()> = Mutex::new(());

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`, and the block is the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MS: u64 = 1_000_000;

fn evidence() -> Evidence {
    Evidence {
        tap: Tap::new(0, false),
        dst_mac: [2, 0, 0, 0, 0, 1],
        src_mac: [2, 0, 0, 0, 0, 2],
        vlans: Vlans::default(),
        ttl: 64,
        tos: 0,
        ip_id: 7,
        encapsulation: Encapsulation::NONE,
        carrier: Carrier::NONE,
    }
}

/// One message: when, from the caller or to it, and its text.
type Said = (u64, bool, String);

/// Twelve messages: a challenge, the answer with SDP both ways, a session refresh, and the end.
fn call(n: u64) -> Vec<Said> {
    let tag = |of: &str| format!("{of}{n:08x}");
    let sdp = |user: &str, port: u64| {
        format!(
            "v=0\r\no={user} 3794 1 IN IP4 10.1.{}.{}\r\ns=call\r\nc=IN IP4 10.1.{}.{}\r\nt=0 0\r\n\
             m=audio {} RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n",
            n / 250 % 250,
            n % 250,
            n / 250 % 250,
            n % 250,
            port + 4 * (n / 62_500)
        )
    };
    let message = |start: &str, cseq: &str, answered: bool, more: &str, body: &str| {
        let to_tag = if answered { format!(";tag={}", tag("b")) } else { String::new() };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{start}\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;rport;branch=z9hG4bK-{n}-{}\r\nMax-Forwards: 70\r\n\
             From: \"Extension 1001\" <sip:1001@pbx.example.com>;tag={}\r\nTo: <sip:+4930123456@pbx.example.com>{to_tag}\r\n\
             Contact: <sip:1001@10.0.0.1:5060;transport=udp>\r\nCall-ID: {n:08x}-77aa-4b1c-9f3e-2d5a6c1b0e9f@10.0.0.1\r\n\
             CSeq: {cseq}\r\nUser-Agent: Phone 8.1\r\n{more}{kind}Content-Length: {}\r\n\r\n{body}",
            cseq.replace(' ', ""),
            tag("a"),
            body.len()
        )
    };
    let uri = "sip:+4930123456@pbx.example.com";
    let request = |method: &str, cseq: u32, answered, more: &str, body: &str| {
        message(&format!("{method} {uri} SIP/2.0"), &format!("{cseq} {method}"), answered, more, body)
    };
    let ok =
        |cseq: &str, body: &str| message("SIP/2.0 200 OK", cseq, true, "Session-Expires: 1800\r\n", body);
    let credentials =
        "Proxy-Authorization: Digest username=\"1001\",realm=\"pbx\",nonce=\"5f\",response=\"00\"\r\n";
    let challenge = "Proxy-Authenticate: Digest realm=\"pbx\",nonce=\"5f\"\r\n";
    vec![
        (0, true, request("INVITE", 1, false, "", &sdp("a", 16_384))),
        (4, false, message("SIP/2.0 407 Proxy Authentication Required", "1 INVITE", true, challenge, "")),
        (6, true, request("ACK", 1, true, "", "").replace("1ACK", "1INVITE")),
        (9, true, request("INVITE", 2, false, credentials, &sdp("a", 16_384))),
        (12, false, message("SIP/2.0 100 Trying", "2 INVITE", false, "", "")),
        (300, false, message("SIP/2.0 180 Ringing", "2 INVITE", true, "", "")),
        (2_000, false, ok("2 INVITE", &sdp("b", 30_000))),
        (2_010, true, request("ACK", 2, true, "", "")),
        (5_000, true, request("UPDATE", 3, true, "Session-Expires: 1800\r\n", "")),
        (5_010, false, ok("3 UPDATE", "")),
        (9_000, true, request("BYE", 4, true, "", "")),
        (9_010, false, ok("4 BYE", "")),
    ]
}

/// Lets these calls begin so many milliseconds after each other; without the last messages of each, if they go on.
fn run(probe: &mut Signalling, calls: u64, apart_us: u64, messages: usize) {
    let (phone, pbx) = (Endpoint::v4([10, 0, 0, 1], 5060), Endpoint::v4([10, 0, 0, 2], 5060));
    let (there, back) = (Flow { src: phone, dst: pbx }, Flow { src: pbx, dst: phone });
    // In the order of their time: each step of all calls that are as far.
    let mut said: Vec<(u64, u64, usize)> = Vec::new();
    let steps: Vec<u64> = call(0).iter().take(messages).map(|(ms, ..)| *ms).collect();
    for n in 0..calls {
        said.extend((0..).zip(&steps).map(|(step, ms)| (n * apart_us * 1_000 + ms * MS, n, step)));
    }
    said.sort_unstable();
    for (number, (time, n, step)) in (1..).zip(said) {
        let (_, is_callers, text) = call(n).swap_remove(step);
        let flow = if is_callers { there } else { back };
        probe.observe(Nanos(time + MS), number, flow, Transport::Udp, &evidence(), text.as_bytes());
    }
}

/// Held for so many calls, in bytes a call: what the tracker holds without any is not theirs.
fn bytes_each(calls: u64, apart_us: u64, messages: usize) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    let mut probe = Signalling::default();
    run(&mut probe, calls, apart_us, messages);
    let held = HELD.load(Ordering::Relaxed) - before;
    assert_eq!(probe.calls().len() as u64, calls);
    let state = if messages == 12 { CallState::Ended } else { CallState::Answered };
    assert!(probe.calls().reports().iter().all(|call| call.state == state && call.media.lines.len() >= 2));
    println!(
        "{calls} calls of {messages} messages: {held} bytes, {} each",
        held / usize::try_from(calls).unwrap()
    );
    held / usize::try_from(calls).unwrap()
}

#[test]
fn typical_call_takes_less_than_4_kib() {
    let _alone = ALONE.lock();
    // Within the 32 s in which each message could still be repeated, and after.
    let recent = bytes_each(2_000, 2_000, 12);
    let each = bytes_each(2_000, 100_000, 12);
    assert!(each < 4_096, "{each} bytes a call");
    assert!(recent < 3 * 4_096, "{recent} bytes while messages are remembered");
}

#[test]
#[ignore = "measures: minutes"]
fn hundred_thousand_calls_take_less_than_a_gibibyte() {
    let _alone = ALONE.lock();
    let each = bytes_each(100_000, 1_000, 10);
    assert!(each * 100_000 < 1 << 30, "{each} bytes a call");
}
