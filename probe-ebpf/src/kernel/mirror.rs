//! Mirror mode: a matched frame leaves the host's path for the socket of its queue, what was found out in front of it.
//!
//! What is not matched, and what has no socket to go to, passes as if nobody had looked. The socket is looked up before
//! the metadata is written, so that a frame which goes on to the host goes on untouched. Media that is left out goes
//! nowhere: it was a copy, or, with `--steal`, the host would not have got it either.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_xdp_adjust_meta;
use aya_ebpf::programs::XdpContext;
use probe_ebpf::record::KernelLoss;
use probe_ebpf::{Meta, Verdict, flow};

use super::frame::{Frame, Memory};
use super::maps::{SOCKETS, Tap, config};
use super::opaque::forget;
use super::source::Source as _;
use super::{Judged, News, count, is_beyond, judge, judge_copied, lose, shed, usual, warn_of};

/// Takes one frame into account and says where it goes.
#[inline(always)]
pub(crate) fn steer(ctx: &XdpContext) -> u32 {
    let judged = match usual::judge(&ctx.linear()) {
        Some(judged) => judged,
        None => judge_unusual(&ctx.anew()),
    };
    // Anew, as what was found out about the frame's end differs from one way to the other.
    let frame = ctx.anew().linear();
    let any = frame.0.unknown;
    let tap = Tap::find(ctx.ifindex(), false, any);
    let Some(counters) = tap.counters() else { return XDP_PASS };
    let (news, is_matched) = count(tap, counters, judged);
    let (action, news) = if is_matched {
        let wire_len = ctx.wire_len();
        // SAFETY: a value of this CPU's own.
        let counted = unsafe { &mut *counters };
        counted.matched_bytes += u64::from(wire_len);
        // Before there is metadata: making it voids what points into the frame.
        let flow = conversation(&frame, judged, any);
        let is_told_apart = judged.is(Verdict::Rtp) && flow != 0;
        if is_told_apart && let Some(loss) = shed::why_left_out(|| Some(flow), any) {
            // A copy that nobody is to look at.
            (XDP_DROP, lose(counters, loss, news, any))
        } else {
            let is_cut = wire_len > u32::from(config().snap) && !judged.is(Verdict::SipTls);
            match redirect(ctx, tap, judged, flow) {
                Ok(()) => {
                    counted.cut += u64::from(is_cut);
                    (XDP_REDIRECT, news)
                }
                Err(loss) => (XDP_PASS, lose(counters, loss, news, any)),
            }
        }
    } else {
        (XDP_PASS, news)
    };
    if news.0 != 0 {
        warn_of(ctx, News(forget(news.0, any)));
    }
    action
}

/// The verdict of parser and classifier.
#[inline(always)]
fn judge_unusual(ctx: &XdpContext) -> Judged {
    let frame = ctx.linear();
    let any = frame.0.unknown;
    let judged = judge(&frame, any);
    if is_beyond(&frame, judged) && ctx.wire_len() as usize > frame.0.len() {
        Judged(forget(judged_in_pieces(ctx), any))
    } else {
        judged
    }
}

/// The verdict on a frame in pieces. Out of line, and a number, for the verifier's sake: see `observe_copied`.
#[inline(never)]
fn judged_in_pieces(ctx: &XdpContext) -> u64 {
    judge_copied(ctx).map_or(0, |(_, judged)| judged.0)
}

/// The hash of the frame's conversation. Zero where the directly readable part ends too early, or without layers.
#[inline(always)]
fn conversation<M: Memory>(frame: &Frame<M>, judged: Judged, any: u64) -> u32 {
    let layers = judged.layers();
    let hash = if layers.ip == 0 { None } else { flow::of_frame(frame, &layers) };
    // One way from here on, whatever was hashed.
    forget(u64::from(hash.unwrap_or(0)), any) as u32
}

/// Sends the frame to the socket of its queue.
#[inline(always)]
fn redirect(ctx: &XdpContext, tap: Tap, judged: Judged, flow: u32) -> Result<(), KernelLoss> {
    let slot = tap.socket(ctx.rx_queue_index()).ok_or(KernelLoss::NoSocket)?;
    SOCKETS.get(slot).ok_or(KernelLoss::NoSocket)?;
    // SAFETY: the context is the one this program was called with.
    if unsafe { bpf_xdp_adjust_meta(ctx.as_ptr().cast(), -(Meta::BYTES as i32)) } != 0 {
        return Err(KernelLoss::NoMetadata);
    }
    // All pointers into the packet are void after that call: these are read from the context anew.
    let (start, end) = (ctx.metadata() as *mut u8, ctx.metadata_end() as *mut u8);
    if start.wrapping_add(Meta::BYTES) > end {
        return Err(KernelLoss::NoMetadata);
    }
    let layers = judged.layers();
    let meta = Meta {
        // SAFETY: the helper has no precondition.
        time_ns: unsafe { bpf_ktime_get_ns() },
        flow,
        verdict: judged.verdict(),
        point: tap.point(),
        ip: layers.ip as u8,
        v6: u8::from(layers.v6),
        transport: layers.transport as u16,
        transport_len: layers.transport_len,
    };
    // SAFETY: in bounds by the check above; a frame's start has no alignment to speak of.
    unsafe { start.cast::<Meta>().write_unaligned(meta) };
    // The socket was there a moment ago. If it is not now, the frame passes.
    SOCKETS.redirect(slot, u64::from(XDP_PASS)).map(|_| ()).map_err(|_| KernelLoss::NoSocket)
}
