//! Media that is left out before anything is copied: by configuration, or while userspace does not keep up.

use probe_ebpf::parse::Layers;
use probe_ebpf::record::KernelLoss;
use probe_ebpf::session;

use super::frame::{Frame, Memory};
use super::maps::{config, first_taken};
use super::opaque::forget;

/// Is this RTP of a session that is left out, and why? Where all are taken this costs one load.
#[inline(always)]
pub(crate) fn why_left_out<M: Memory>(frame: &Frame<M>, layers: &Layers, any: u64) -> Option<KernelLoss> {
    let first_taken = first_taken();
    if first_taken == 0 {
        return None;
    }
    // What cannot be told apart is taken.
    let bucket = forget(u64::from(session::of_udp(frame, layers)?), any);
    if bucket >= u64::from(first_taken) {
        return None;
    }
    let is_sampled_out = bucket < u64::from(config().sampled_below);
    Some(if is_sampled_out { KernelLoss::SampledOut } else { KernelLoss::Shed })
}
