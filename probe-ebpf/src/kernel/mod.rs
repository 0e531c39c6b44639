//! From a context to a counter and a record.
//!
//! The order matters for cost: nearly every frame of a gateway is not ours, so everything before the verdict
//! is packet loads and compares, without a helper call. Clock, ring and fingerprint come after it.

mod frame;
mod maps;
mod record;
mod source;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::warn;
use probe_ebpf::classify::VERDICTS;
use probe_ebpf::parse::{self, Layers, TCP, UDP};
use probe_ebpf::record::{HASHED_PAYLOAD, KERNEL_LOSSES};
use probe_ebpf::{Verdict, classify};

use self::frame::{COPIED_HEAD, Copied, Memory};
use self::maps::{Announced, Tap, config};
use self::source::Source;

/// Headers without which a frame in pieces is not judged: Ethernet with two tags, IPv6.
const ETHERNET_AND_IPV6: usize = 14 + 8 + 40;

/// Takes one frame into account. Returns nothing, as nothing may depend on it.
#[inline(always)]
pub(crate) fn observe<S: Source + EbpfContext>(source: &S) {
    let frame = source.linear();
    let (verdict, layers) = judge(&frame);
    if is_beyond(&frame, verdict, &layers) {
        let wire_len = source.wire_len();
        if wire_len as usize > frame.len() {
            return observe_copied(source, wire_len);
        }
    }
    account(source, &frame, verdict, &layers);
}

/// The shared parser and classifier. Layers are zero, not absent, where the parser refused: an `Option` would
/// let the compiler read them before it looks whether they are there, and the verifier refuses that.
#[inline(always)]
fn judge<M: Memory>(frame: &M) -> (Verdict, Layers) {
    match parse::ethernet(frame) {
        Ok(layers) => (classify(frame, &layers, config(), &Announced), layers),
        Err(refusal) => (refusal.into(), Layers::NONE),
    }
}

/// Did the verdict hang on bytes after the end of the directly readable part?
///
/// Only then is it worth asking whether there are more: a driver may leave as little as the link header in
/// the linear part.
#[inline(always)]
fn is_beyond<M: Memory>(frame: &M, verdict: Verdict, layers: &Layers) -> bool {
    if layers.protocol != UDP {
        return matches!(verdict, Verdict::Truncated);
    }
    // UDP header, RTP header, and what the fingerprint may hash.
    let media = usize::from(layers.transport_len).min(8 + 12 + HASHED_PAYLOAD);
    layers.transport + media > frame.len()
}

/// The same with the frame's first bytes copied to scratch memory, for frames in pieces. Rare.
#[inline(always)]
fn observe_copied<S: Source + EbpfContext>(source: &S, wire_len: u32) {
    let Some(head) = maps::head() else { return };
    // Opaque for the same reason as in `record::packet`.
    let len = core::hint::black_box(wire_len.min(COPIED_HEAD as u32));
    if len == 0 || len > COPIED_HEAD as u32 {
        return;
    }
    // SAFETY: `head` is this CPU's map value of COPIED_HEAD bytes, and `len` was compared with that and zero.
    let copied = unsafe { source.copy_to(head.cast(), len) };
    let len = if copied { len as usize } else { 0 };
    let frame = Copied { bytes: head, len, unknown: source.ifindex() as usize };
    let (verdict, layers) = judge(&frame);
    // What the verdict rests on: network headers, and of UDP and TCP what a record or the classifier reads.
    let transport = match layers.protocol {
        UDP | TCP => usize::from(layers.transport_len).min(20),
        _ => 0,
    };
    let is_whole = layers.transport + transport <= len && len >= ETHERNET_AND_IPV6;
    account(source, &frame, if is_whole { verdict } else { Verdict::Truncated }, &layers);
}

/// Counts the frame under its verdict and, if it matched, hands it over or counts the loss.
#[inline(always)]
fn account<S: Source + EbpfContext, M: Memory>(source: &S, frame: &M, verdict: Verdict, layers: &Layers) {
    let tap = Tap::find(source.ifindex(), S::EGRESS);
    let Some(counters) = tap.counters() else { return };
    // The compiler knows that a verdict is below VERDICTS and would drop the check; the verifier does not.
    let number = core::hint::black_box(verdict as usize);
    if number >= VERDICTS {
        return;
    }
    // SAFETY: a value of this CPU's own, in bounds by the check above.
    let count = unsafe { &mut (&mut (*counters).verdicts)[number] };
    if *count == 0 && tap.interface.is_none() {
        warn!(source, "a frame came through interface {}, which is not configured", source.ifindex());
    }
    *count += 1;
    if !verdict.is_matched() {
        return;
    }
    let wire_len = source.wire_len();
    // SAFETY: a value of this CPU's own.
    unsafe { (*counters).matched_bytes += u64::from(wire_len) };
    let handed_over = if matches!(verdict, Verdict::Rtp) {
        record::media(source, frame, tap, layers)
    } else {
        record::packet(source, tap, verdict, wire_len, counters)
    };
    if let Err(loss) = handed_over {
        let number = core::hint::black_box(loss as usize);
        if number >= KERNEL_LOSSES {
            return;
        }
        // SAFETY: as above.
        let lost = unsafe { &mut (&mut (*counters).losses)[number] };
        if *lost == 0 {
            warn!(source, "first frame lost on this CPU, cause {} of KernelLoss", number as u32);
        }
        *lost += 1;
    }
}
