//! From a context to a counter and a record.
//!
//! ```text
//!   usual? ─┬─ yes ─▶ verdict, counter, record: every offset a constant
//!           └─ no ──▶ parser, classifier, a look inside of tunnels ─▶ counter, record
//! ```
//!
//! The order matters for cost: nearly every frame of a gateway is not ours, so everything before the verdict
//! is packet loads and compares, without a helper call. Clock, ring and fingerprint come after it. A call is dear where
//! returns are protected (5 ns each on a CPU with safe RET), which is why all is in line.

mod frame;
mod maps;
pub(crate) mod mirror;
mod opaque;
mod record;
mod shed;
mod slots;
mod source;
mod usual;

use aya_ebpf::EbpfContext;
use aya_log_ebpf::warn;
use probe_ebpf::classify::{self, VERDICTS};
use probe_ebpf::parse::{self, FORGOTTEN, Fragment, Layers, TCP, UDP};
use probe_ebpf::record::{Counters, HASHED_PAYLOAD, KERNEL_LOSSES, KernelLoss};
use probe_ebpf::tunnel::Inside;
use probe_ebpf::{Verdict, flow};

use self::frame::{COPIED_HEAD, Copied, Frame, Memory};
use self::maps::{Announced, Tap, config};
use self::opaque::{forget, opaque, unknown};
use self::source::Source;

/// Headers without which a frame in pieces is not judged: Ethernet with two tags, IPv6.
const ETHERNET_AND_IPV6: usize = 14 + 8 + 40;

/// Takes one frame into account. Returns nothing, as nothing may depend on it.
#[inline(always)]
pub(crate) fn observe<S: Source + EbpfContext>(source: &S) {
    let frame = source.linear();
    let news = match usual::observe(source, &frame) {
        Some(news) => news,
        None => {
            // Anew, or all that was found out about the frame's end would make one way to here differ from another.
            let frame = source.anew().linear();
            let judged = judge(&frame, frame.0.unknown);
            if is_beyond(&frame, judged) && source.wire_len() as usize > frame.0.len() {
                observe_copied(source)
            } else {
                account(source, &frame, judged, frame.0.unknown)
            }
        }
    };
    if news.0 != 0 {
        warn_of(source, News(forget(news.0, frame.0.unknown)));
    }
}

/// The shared parser and classifier, as [`classify::ethernet`], with what the verifier need not know forgotten between
/// its steps.
#[inline(always)]
fn judge<M: Memory>(frame: &Frame<M>, any: u64) -> Judged {
    let (judged, inside) = match parse::ethernet(frame) {
        Ok(layers) => {
            let parsed = Judged::parsed(&layers, any);
            let ports = forget(u64::from(layers.src_port) << 16 | u64::from(layers.dst_port), any);
            let layers = Layers { src_port: (ports >> 16) as u16, dst_port: ports as u16, ..parsed.layers() };
            let judged = parsed.with(classify::classify(frame, &layers, config(), &Announced), any);
            (judged, if judged.is_to_look_into() { Inside::of(frame, &layers) } else { Inside::UNKNOWN })
        }
        Err(refusal) => {
            let judged = Judged::refused(classify::refused(refusal, config()), any);
            (judged, if judged.is_to_look_into() { Inside::of_labels(frame) } else { Inside::UNKNOWN })
        }
    };
    if !judged.is_to_look_into() {
        return judged;
    }
    judged.instead(inside.verdict(frame, config(), &Announced), any)
}

/// A verdict and the layers that it rests on, in one register. Here the many ways to come to a verdict meet: what
/// is read out of this word, the verifier has never seen before.
#[derive(Clone, Copy)]
struct Judged(u64);

impl Judged {
    const VERDICT: u64 = 0xf;
    const V6: u64 = 1 << 4;

    /// Without a branch: each would double the ways that the verifier walks to here.
    #[inline(always)]
    fn parsed(layers: &Layers, any: u64) -> Self {
        let word = u64::from(layers.v6) << 4
            | (layers.fragment as u64) << 5
            | (layers.ip as u64) << 8
            | (layers.transport as u64) << 16
            | u64::from(layers.transport_len) << 32
            | u64::from(layers.protocol) << 48;
        Self(forget(word, any))
    }

    #[inline(always)]
    fn with(self, verdict: Verdict, any: u64) -> Self {
        Self(forget(self.0 | verdict as u64, any))
    }

    /// With another verdict.
    #[inline(always)]
    fn instead(self, verdict: Verdict, any: u64) -> Self {
        Self(self.0 & !Self::VERDICT).with(verdict, any)
    }

    #[inline(always)]
    fn is_to_look_into(self) -> bool {
        self.is(Verdict::Tunnel) && config().looks_inside()
    }

    /// Without layers.
    #[inline(always)]
    fn refused(verdict: Verdict, any: u64) -> Self {
        Self(forget(verdict as u64, any))
    }

    #[inline(always)]
    fn verdict(self) -> u8 {
        (self.0 & Self::VERDICT) as u8
    }

    #[inline(always)]
    fn is(self, verdict: Verdict) -> bool {
        self.0 & Self::VERDICT == verdict as u64
    }

    #[inline(always)]
    fn protocol(self) -> u8 {
        (self.0 >> 48) as u8
    }

    #[inline(always)]
    fn transport(self) -> usize {
        (self.0 >> 16) as usize & (FORGOTTEN - 1)
    }

    #[inline(always)]
    fn transport_len(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// All but the ports and the tags.
    #[inline(always)]
    fn layers(self) -> Layers {
        let fragment = match (self.0 >> 5) & 3 {
            0 => Fragment::None,
            1 => Fragment::First,
            _ => Fragment::Later,
        };
        Layers {
            ip: (self.0 >> 8) as usize & 0x1f,
            v6: self.0 & Self::V6 != 0,
            protocol: self.protocol(),
            fragment,
            transport: self.transport(),
            transport_len: self.transport_len(),
            ..Layers::NONE
        }
    }
}

/// Did the verdict hang on bytes after the end of the directly readable part?
///
/// Only then is it worth asking whether there are more: a driver may leave as little as the link header in
/// the linear part.
#[inline(always)]
fn is_beyond<M: Memory>(frame: &Frame<M>, judged: Judged) -> bool {
    let needed = if judged.protocol() == UDP {
        // UDP header, RTP header, and what the fingerprint may hash.
        judged.transport() + usize::from(judged.transport_len()).min(8 + 12 + HASHED_PAYLOAD)
    } else if judged.is(Verdict::Truncated) {
        usize::MAX
    } else {
        0
    };
    opaque(needed as u64) as usize > frame.0.len()
}

/// The same with the frame's first bytes copied to scratch memory, for frames in pieces. Rare, and out of line: the
/// verifier then finds nothing alive in the caller that would make one way to here differ from another.
#[inline(never)]
fn observe_copied<S: Source + EbpfContext>(source: &S) -> News {
    let Some((frame, judged)) = judge_copied(source) else { return News::NONE };
    account(source, &frame, judged, frame.0.unknown)
}

/// The frame's first bytes, copied to scratch memory, and the verdict on them.
#[inline(always)]
fn judge_copied<S: Source + EbpfContext>(source: &S) -> Option<(Frame<Copied>, Judged)> {
    let head = maps::head()?;
    // Opaque for the same reason as in `record::packet`.
    let len = opaque(u64::from(source.wire_len().min(COPIED_HEAD as u32))) as u32;
    if len == 0 || len > COPIED_HEAD as u32 {
        return None;
    }
    // SAFETY: `head` is this CPU's map value of COPIED_HEAD bytes, and `len` was compared with that and zero.
    let copied = unsafe { source.copy_to(head.cast(), len) };
    let len = if copied { len as usize } else { 0 };
    let frame = Frame(Copied { bytes: head, len, unknown: unknown(source.ifindex()) });
    let judged = judge(&frame, frame.0.unknown);
    // What the verdict rests on: network headers, and of UDP and TCP what a record or the classifier reads.
    let transport =
        if matches!(judged.protocol(), UDP | TCP) { usize::from(judged.transport_len()).min(20) } else { 0 };
    let is_whole = judged.transport() + transport <= len && len >= ETHERNET_AND_IPV6;
    let judged = if is_whole { judged } else { Judged::refused(Verdict::Truncated, frame.0.unknown) };
    Some((frame, judged))
}

/// Counts the frame under its verdict and, if it matched, hands it over or counts the loss.
#[inline(always)]
fn account<S: Source, M: Memory>(source: &S, frame: &Frame<M>, judged: Judged, any: u64) -> News {
    let tap = Tap::find(source.ifindex(), S::EGRESS, any);
    let Some(counters) = tap.counters() else { return News::NONE };
    let (news, is_matched) = count(tap, counters, judged);
    if !is_matched {
        return news;
    }
    let wire_len = source.wire_len();
    // SAFETY: a value of this CPU's own.
    unsafe { (*counters).matched_bytes += u64::from(wire_len) };
    let layers = Layers { protocol: UDP, ..judged.layers() };
    let is_rtp = judged.is(Verdict::Rtp);
    let handed_over = if is_rtp && let Some(loss) = shed::why_left_out(|| flow::of_frame(frame, &layers), any)
    {
        Err(loss)
    } else if is_rtp && !classify::is_short_rtp(frame, &layers) {
        record::media(source, frame, tap, &layers, any)
    } else {
        record::packet(source, tap, judged.verdict(), wire_len, counters)
    };
    match handed_over {
        Ok(()) => news,
        Err(loss) => lose(counters, loss, news, any),
    }
}

/// Counts a frame under its verdict. Is it matched?
#[inline(always)]
fn count(tap: Tap, counters: *mut Counters, judged: Judged) -> (News, bool) {
    // The compiler knows that a verdict is below VERDICTS and would drop the check; the verifier does not.
    let number = opaque(u64::from(judged.verdict())) as usize;
    if number >= VERDICTS {
        return (News::NONE, false);
    }
    // SAFETY: a value of this CPU's own, in bounds by the check above.
    let count = unsafe { &mut (&mut (*counters).verdicts)[number] };
    let news = if *count == 0 && tap.is_unknown() { News::UNKNOWN_INTERFACE } else { News::NONE };
    *count += 1;
    (news, number >= Verdict::SipUdp as usize)
}

/// Counts the loss of a matched frame.
#[inline(always)]
fn lose(counters: *mut Counters, loss: KernelLoss, news: News, any: u64) -> News {
    let number = forget(loss as u64, any) as usize;
    if number >= KERNEL_LOSSES {
        return news;
    }
    // SAFETY: a value of this CPU's own, in bounds by the check above.
    let lost = unsafe { &mut (&mut (*counters).losses)[number] };
    *lost += 1;
    // What is left out by decision is told by who decided.
    if *lost == 1 && number < KernelLoss::Shed as usize { news.and_first_loss(number) } else { news }
}

/// What is worth a line in the log: nearly always nothing, which is zero.
#[derive(Clone, Copy)]
struct News(u64);

impl News {
    const NONE: Self = Self(0);
    const UNKNOWN_INTERFACE: Self = Self(1);
    const FIRST_LOSS: u64 = 2;

    #[inline(always)]
    fn and_first_loss(self, cause: usize) -> Self {
        Self(self.0 | Self::FIRST_LOSS | (cause as u64) << 8)
    }
}

/// Out of line, and called from one place: formatting is long, and happens once.
#[inline(never)]
fn warn_of<S: Source + EbpfContext>(source: &S, news: News) {
    if news.0 & News::UNKNOWN_INTERFACE.0 != 0 {
        warn!(source, "a frame came through interface {}, which is not configured", source.ifindex());
    }
    if news.0 & News::FIRST_LOSS != 0 {
        warn!(source, "first frame lost on this CPU, cause {} of KernelLoss", (news.0 >> 8) as u32);
    }
}
