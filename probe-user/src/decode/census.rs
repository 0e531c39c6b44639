//! What was opened, by path, and what was refused, by layer and reason.

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::packet::{Encapsulation, Layer};

/// Paths counted apart. A network has a handful; who sends random nestings gets one counter for the rest.
const MAX_PATHS: usize = 64;

/// Why what a port or a number announced was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The capture ends inside the header.
    Truncated,
    /// A length contradicts the room that there is, or another length.
    Length,
    /// Not the version, or not the magic.
    Version,
    /// A reserved bit or number.
    Reserved,
    /// Its own checksum is wrong.
    Checksum,
    /// Well formed, but of a kind that is not read: a control message, compressed, another protocol inside.
    Unsupported,
    /// Well formed, and what is inside is not IP: ARP, spanning tree.
    NotIp,
    /// Deeper than is followed.
    TooDeep,
}

impl Reason {
    const ALL: [Self; 8] = [
        Self::Truncated,
        Self::Length,
        Self::Version,
        Self::Reserved,
        Self::Checksum,
        Self::Unsupported,
        Self::NotIp,
        Self::TooDeep,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Length => "length",
            Self::Version => "version",
            Self::Reserved => "reserved",
            Self::Checksum => "checksum",
            Self::Unsupported => "unsupported",
            Self::NotIp => "not_ip",
            Self::TooDeep => "too_deep",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Census {
    opened: FxHashMap<Encapsulation, u64>,
    other_paths: u64,
    /// By the layer's number and the reason's.
    refused: [[u64; Reason::ALL.len()]; Layer::ALL.len() + 1],
}

/// Frames under one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// As in `streams[].encapsulation`.
    pub path: String,
    /// Frames; of a byte stream, the frames found in it.
    pub frames: u64,
}

/// Frames of which a layer was not believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Which.
    pub layer: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Frames.
    pub frames: u64,
}

impl Census {
    pub(super) fn open(&mut self, path: Encapsulation) {
        if path.is_none() {
            return;
        }
        if let Some(count) = self.opened.get_mut(&path) {
            *count += 1;
        } else if self.opened.len() < MAX_PATHS {
            self.opened.insert(path, 1);
        } else {
            self.other_paths += 1;
        }
    }

    /// A layer that only is a link's has nothing to refuse.
    pub(super) fn refuse(&mut self, layer: Option<Layer>, reason: Reason) {
        let Some(layer) = layer else { return };
        let by_reason = self.refused.get_mut(layer as usize);
        if let Some(count) = by_reason.and_then(|by_reason| by_reason.get_mut(reason as usize)) {
            *count += 1;
        }
    }

    /// What was opened, most frames first. Paths beyond the bound are one, `other`.
    pub fn opened(&self) -> Vec<Opened> {
        let mut opened: Vec<_> = self
            .opened
            .iter()
            .map(|(path, frames)| Opened { path: path.to_string(), frames: *frames })
            .collect();
        opened.sort_by(|a, b| b.frames.cmp(&a.frames).then_with(|| a.path.cmp(&b.path)));
        if self.other_paths > 0 {
            opened.push(Opened { path: "other".to_owned(), frames: self.other_paths });
        }
        opened
    }

    /// What was refused, by layer and reason.
    pub fn refused(&self) -> Vec<Refused> {
        let mut refused = Vec::new();
        for layer in Layer::ALL {
            let counts = self.refused.get(layer as usize).into_iter().flatten();
            for (reason, frames) in Reason::ALL.into_iter().zip(counts).filter(|(_, frames)| **frames > 0) {
                refused.push(Refused { layer: layer.name(), reason: reason.name(), frames: *frames });
            }
        }
        refused
    }
}
