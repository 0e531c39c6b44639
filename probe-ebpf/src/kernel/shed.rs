//! Media that is left out before anything is copied: by configuration, or while userspace does not keep up.
//!
//! Whole conversations are, by their [bucket](probe_ebpf::flow), so that those that are taken can be judged:
//!
//! ```text
//!   bucket 0 ........ sampled_below ........ first taken ........ 255
//!   left out by configuration  |  by overload  |  taken
//! ```

use probe_ebpf::flow;
use probe_ebpf::record::KernelLoss;

use super::maps::{config, first_taken};
use super::opaque::forget;

/// Is RTP of this conversation, by its hash, left out, and why? Where all are taken this costs one load, and the hash is not
/// asked for. What cannot be told apart is taken.
#[inline(always)]
pub(crate) fn why_left_out(conversation: impl FnOnce() -> Option<u32>, any: u64) -> Option<KernelLoss> {
    let first_taken = first_taken();
    if first_taken == 0 {
        return None;
    }
    let bucket = forget(u64::from(flow::bucket(conversation()?)), any);
    if bucket >= u64::from(first_taken) {
        return None;
    }
    let is_sampled_out = bucket < u64::from(config().sampled_below);
    Some(if is_sampled_out { KernelLoss::SampledOut } else { KernelLoss::Shed })
}
