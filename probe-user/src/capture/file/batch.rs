//! Frames that were read at once: a block of the file, and where each frame is in it.
//!
//! ```text
//!   Frames ──fill──▶ FrameBatch: block me │ frame │ frame │ fra       seam: frame, put together from two blocks
//!                        places           ▲       ▲                         ▲ at most one, the first
//! ```
//!
//! To find where records end is a walk that one thread has to make. What is in them can be looked at by others, while it
//! goes on with the next block: a batch owns its bytes, and is filled again when it comes back.

use std::ops::Range;

use super::records::{Located, Step};
use super::window::{At, Block};
use super::{Frame, Frames, LinkType};
use crate::packet::Nanos;

/// See the module.
#[derive(Debug, Default)]
pub struct FrameBatch {
    /// Number of the first frame.
    first: u64,
    places: Vec<Place>,
    block: Block,
    seam: Vec<u8>,
}

/// A frame, and where its bytes are.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) time: Nanos,
    /// Of the block, or of what is behind it: the seam.
    start: u32,
    len: u32,
    wire_len: u32,
    interface: u16,
    link: LinkType,
}

impl Place {
    /// That of a frame so long in the file and on the wire, and the interface that it is from, which has that link layer.
    #[inline]
    pub(super) fn new(
        start: usize,
        len: u32,
        time: Nanos,
        wire_len: u32,
        (interface, link): (u16, LinkType),
    ) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "within a block, or a frame's length behind it")]
        let start = start as u32;
        Self { time, start, len, wire_len, interface, link }
    }
}

impl FrameBatch {
    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Numbers the frames as those that come after so many of other files.
    pub fn count_from(&mut self, before: u64) {
        self.first += before;
    }

    /// A frame by its place, from 0.
    #[inline]
    pub fn get(&self, at: usize) -> Option<Frame<'_>> {
        Some(self.frame(self.block.bytes(), at as u64, self.places.get(at)?))
    }

    /// All frames, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        // Asked for once: whoever goes through them writes, and for the compiler that may be the batch.
        let block = self.block.bytes();
        (0..).zip(&self.places).map(move |(at, place)| self.frame(block, at, place))
    }

    #[inline]
    fn frame<'a>(&'a self, block: &'a [u8], at: u64, place: &Place) -> Frame<'a> {
        let Place { time, start, len, wire_len, interface, link } = *place;
        let (start, len) = (start as usize, len as usize);
        let bytes = block.get(start..start + len).or_else(|| {
            let start = start.checked_sub(block.len())?;
            self.seam.get(start..start + len)
        });
        let bytes = bytes.unwrap_or_default();
        Frame { time, number: self.first + at, interface, link, bytes, wire_len }
    }
}

impl Frames {
    /// Fills a batch with the next frames, as many as end in one block. `false` at the end, or where the file breaks off (see
    /// [`Frames::cut_short`]). Nothing of the next block is read: whoever fills the next batch has it in its caches then.
    pub fn fill(&mut self, batch: &mut FrameBatch) -> bool {
        let FrameBatch { first, places, block, seam } = batch;
        *first = self.number + 1;
        places.clear();
        self.window.give_back(std::mem::take(block));
        while places.is_empty() || self.is_whole() {
            let located = match self.step() {
                Some(Step::Frame(located)) => located,
                Some(Step::Other) => continue,
                Some(Step::End) | None => break,
            };
            if let At::Block(at) = self.window.at() {
                places.push(self.place(at + located.bytes.start, &located));
            } else {
                seam.clear();
                seam.extend_from_slice(self.window.rest().get(located.bytes.clone()).unwrap_or_default());
                self.consume();
                if self.window.at() == At::Seam {
                    // Behind it another record has begun: the block is still needed.
                    places.push(self.place(0, &located));
                    return true;
                }
                places.push(self.place(self.window.block_len(), &located));
            }
            self.take_run(places);
        }
        *block = self.window.take_block();
        !places.is_empty()
    }

    /// Counts a frame, which begins at `start` of a batch.
    #[inline]
    fn place(&mut self, start: usize, located: &Located) -> Place {
        let Located { time, interface, wire_len, bytes: Range { start: from, end } } = *located;
        let link = self.count(time, interface);
        // A frame is no longer than `MAX_FRAME`.
        let len = u32::try_from(end - from).unwrap_or(0);
        Place::new(start, len, time, wire_len, (u16::try_from(interface).unwrap_or(u16::MAX), link))
    }
}
