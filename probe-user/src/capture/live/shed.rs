//! The kernel's level of media that is left out: sessions of [buckets](probe_ebpf::flow) below it.

use aya::maps::{Array, MapData};
use probe_ebpf::flow::BUCKETS;

/// Sets the level. One write, seen by every CPU at its next frame.
pub struct KernelShed {
    map: Array<MapData, u32>,
}

impl KernelShed {
    /// With what configuration leaves out.
    pub(super) fn new(map: Array<MapData, u32>, sampled_below: u8) -> Self {
        let mut shed = Self { map };
        // A map of one entry that was just made takes it.
        shed.set(u32::from(sampled_below));
        shed
    }

    /// Leaves out the sessions of buckets below `level` from now on. False if the kernel refused, and all is as it was.
    pub fn set(&mut self, level: u32) -> bool {
        self.map.set(0, level.min(BUCKETS), 0).is_ok()
    }
}
