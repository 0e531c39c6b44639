//! The usual frame, from its context to its counter and its record, with every offset a constant. Of a mirror port, to its
//! verdict: what comes then is the same for every frame.

use probe_ebpf::classify::VERDICTS;
use probe_ebpf::parse::Layers;
use probe_ebpf::usual::{self, Network, TAGGED, UNTAGGED};
use probe_ebpf::{Verdict, flow};

use super::frame::{Frame, Linear};
use super::maps::{AnnouncedNear, Tap, config};
use super::source::Source;
use super::{Judged, News, lose, record, shed};

/// Takes a frame into account, if it is [usual]. Otherwise nothing has happened.
#[inline(always)]
pub(super) fn observe<S: Source>(source: &S, frame: &Frame<Linear>) -> Option<News> {
    // Three times the same, so that where IP begins is a constant in each.
    match usual::network(frame)? {
        Network::Ipv4 => account(source, frame, usual::ipv4(frame, UNTAGGED, config(), &AnnouncedNear)?),
        Network::Ipv6 => account(source, frame, usual::ipv6(frame, UNTAGGED, config(), &AnnouncedNear)?),
        Network::TaggedIpv4 => account(source, frame, usual::ipv4(frame, TAGGED, config(), &AnnouncedNear)?),
    }
}

/// The verdict on a frame, if it is [usual], and the layers that it rests on.
#[inline(always)]
pub(super) fn judge(frame: &Frame<Linear>) -> Option<Judged> {
    let any = frame.0.unknown;
    let judged = |(verdict, layers): (Verdict, Layers)| Judged::parsed(&layers, any).with(verdict, any);
    match usual::network(frame)? {
        Network::Ipv4 => usual::ipv4(frame, UNTAGGED, config(), &AnnouncedNear).map(judged),
        Network::Ipv6 => usual::ipv6(frame, UNTAGGED, config(), &AnnouncedNear).map(judged),
        Network::TaggedIpv4 => usual::ipv4(frame, TAGGED, config(), &AnnouncedNear).map(judged),
    }
}

#[inline(always)]
fn account<S: Source>(
    source: &S,
    frame: &Frame<Linear>,
    (verdict, layers): (Verdict, Layers),
) -> Option<News> {
    let any = frame.0.unknown;
    // Its lower half is the interface.
    let tap = Tap::find(any as u32, S::EGRESS, any);
    if tap.is_unknown() {
        return None;
    }
    let counters = tap.counters()?;
    // SAFETY: a value of this CPU's own.
    let counted = unsafe { &mut *counters };
    if !matches!(verdict, Verdict::Rtp) {
        count(&mut counted.verdicts, verdict);
        return Some(News::NONE);
    }
    count(&mut counted.verdicts, Verdict::Rtp);
    counted.matched_bytes += u64::from(source.wire_len());
    let handed_over = match shed::why_left_out(|| flow::of_frame(frame, &layers), any) {
        Some(loss) => Err(loss),
        None => record::media(source, frame, tap, &layers, any),
    };
    Some(match handed_over {
        Ok(()) => News::NONE,
        Err(loss) => lose(counters, loss, News::NONE, any),
    })
}

#[inline(always)]
fn count(verdicts: &mut [u64; VERDICTS], verdict: Verdict) {
    verdicts[verdict as usize] += 1;
}
