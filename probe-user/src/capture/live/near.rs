//! The kernel's [buckets](probe_ebpf::announced) of endpoints of one kind, and what belongs to each.

use aya::Pod;
use aya::maps::{Array, MapData};
use probe_ebpf::EndpointKey;
use probe_ebpf::announced::Words;
use rustc_hash::FxHashMap;

/// See the module.
pub(super) struct Near<W: Words<Bucket: Pod>> {
    map: Array<MapData, W::Bucket>,
    /// Of each bucket that is not empty.
    all: FxHashMap<u32, Vec<W>>,
}

impl<W: Words<Bucket: Pod>> Near<W> {
    pub(super) fn new(map: Array<MapData, W::Bucket>) -> Self {
        Self { map, all: FxHashMap::default() }
    }

    /// Adds an endpoint that is not there, if it is of this kind. False if the kernel refuses.
    pub(super) fn insert(&mut self, key: &EndpointKey) -> bool {
        let Some(words) = W::of(key) else { return true };
        self.all.entry(words.bucket()).or_default().push(words);
        self.write(words.bucket())
    }

    /// Takes one away, if it is of this kind. False if the kernel refuses.
    pub(super) fn remove(&mut self, key: &EndpointKey) -> bool {
        let Some(words) = W::of(key) else { return true };
        if let Some(all) = self.all.get_mut(&words.bucket()) {
            all.retain(|other| *other != words);
        }
        self.write(words.bucket())
    }

    fn write(&mut self, index: u32) -> bool {
        let all = self.all.get(&index).map_or(&[][..], Vec::as_slice);
        let bucket = W::together(all);
        if all.is_empty() {
            self.all.remove(&index);
        }
        self.map.set(index, bucket, 0).is_ok()
    }
}
