//! The input as one row of bytes, of which as many are at hand as a record needs.
//!
//! ```text
//!   block ─▶ │ record │ record │ rec        rest(): lent from the block, nothing is copied
//!                               └─┐
//!                               seam ─▶ rec·ord   what lies across two blocks, put together
//!                               ┌─┘
//!   block ─▶                ord │ record │ …
//! ```
//!
//! Blocks are read by whoever needs them ([`Source::Reader`]), or by a thread of their own, ahead
//! ([`super::feeder`]). They are read and not mapped: docs/decisions/0018. A block can be taken away with what is in it
//! ([`Window::take_block`]), and comes back empty.

use std::io::{self, Read};

use super::feeder::Feed;

/// Bytes of a block: with the packets that are made of it they stay in the second-level cache, and leave room there for the
/// streams. A call of the system for so many costs nothing beside them.
pub(super) const BLOCK: usize = 128 << 10;

/// Bytes that were read at once.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Box<[u8]>,
    len: usize,
}

impl Block {
    pub(super) fn allocated() -> Self {
        Self { bytes: vec![0; BLOCK].into_boxed_slice(), len: 0 }
    }

    /// Reads until it is full or the input ends; whether there was anything.
    pub(super) fn fill(&mut self, input: &mut Full) -> io::Result<bool> {
        self.len = 0;
        self.len = input.read(&mut self.bytes)?;
        Ok(self.len > 0)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Where blocks come from.
pub(super) enum Source {
    Reader(Full),
    Feed(Feed),
}

/// See the module.
pub(super) struct Window {
    source: Source,
    block: Block,
    /// What of the block was consumed, or is in the seam.
    at: usize,
    seam: Vec<u8>,
    /// What of the seam was consumed.
    seam_at: usize,
    /// Blocks to read into.
    spare: Vec<Block>,
    is_over: bool,
}

/// Where the bytes at hand are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// In the block, from here on.
    Block(usize),
    /// Put together from two.
    Seam,
}

impl Window {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            block: Block::default(),
            at: 0,
            seam: Vec::new(),
            seam_at: 0,
            spare: Vec::new(),
            is_over: false,
        }
    }

    /// Where is what [`Self::rest`] gives?
    #[inline]
    pub(super) fn at(&self) -> At {
        if self.seam.is_empty() { At::Block(self.at) } else { At::Seam }
    }

    /// Bytes of the block at hand, whether they were consumed or not.
    pub(super) fn block_len(&self) -> usize {
        self.block.bytes().len()
    }

    /// Takes the block at hand. What of it was not consumed stays at hand, in the seam.
    pub(super) fn take_block(&mut self) -> Block {
        self.seam.extend_from_slice(self.block.bytes().get(self.at..).unwrap_or_default());
        self.at = 0;
        std::mem::take(&mut self.block)
    }

    /// Gives a block back.
    pub(super) fn give_back(&mut self, block: Block) {
        if block.bytes.len() == BLOCK {
            self.spare.push(block);
        }
    }

    /// What is at hand and was not consumed.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        let (bytes, at) = if self.seam.is_empty() {
            (self.block.bytes(), self.at)
        } else {
            (self.seam.as_slice(), self.seam_at)
        };
        bytes.get(at..).unwrap_or_default()
    }

    /// Goes on by `count` bytes, which are at hand.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        if self.seam.is_empty() {
            self.at += count;
            return;
        }
        self.seam_at += count;
        if self.seam_at >= self.seam.len() {
            self.seam.clear();
            self.seam_at = 0;
        }
    }

    /// Gets so many bytes at hand; `false` if the input ends before.
    ///
    /// # Errors
    /// If reading fails. What was at hand stays.
    #[inline]
    pub(super) fn reach(&mut self, needed: usize) -> io::Result<bool> {
        if self.rest().len() >= needed { Ok(true) } else { self.reach_on(needed) }
    }

    #[cold]
    fn reach_on(&mut self, needed: usize) -> io::Result<bool> {
        loop {
            let there = self.rest().len();
            if there >= needed {
                return Ok(true);
            }
            if self.seam.is_empty() {
                self.seam.extend_from_slice(self.block.bytes().get(self.at..).unwrap_or_default());
                self.at = self.block.bytes().len();
            } else {
                self.seam.drain(..self.seam_at);
            }
            self.seam_at = 0;
            if self.at == self.block.bytes().len() && !self.next_block()? {
                return Ok(false);
            }
            if self.seam.is_empty() {
                continue;
            }
            let more = self.block.bytes().get(self.at..).unwrap_or_default();
            let more = more.get(..needed - there).unwrap_or(more);
            self.seam.extend_from_slice(more);
            self.at += more.len();
        }
    }

    fn next_block(&mut self) -> io::Result<bool> {
        if self.is_over {
            return Ok(false);
        }
        let empty = self.spare.pop();
        let next = match &mut self.source {
            Source::Reader(input) => {
                let mut block = empty.unwrap_or_else(Block::allocated);
                block.fill(input)?.then_some(block)
            }
            Source::Feed(feed) => feed.next(empty)?,
        };
        let Some(next) = next else {
            self.is_over = true;
            return Ok(false);
        };
        let left = std::mem::replace(&mut self.block, next);
        self.at = 0;
        self.give_back(left);
        Ok(true)
    }
}

/// Reads until the buffer is full or the input ends, so that only the last block is short.
pub(super) struct Full {
    input: Box<dyn Read + Send>,
    /// What went wrong after something was read: that counts first. A decoder tells of a wrong checksum once.
    failed: Option<io::Error>,
}

impl Full {
    pub(super) fn new(input: Box<dyn Read + Send>) -> Self {
        Self { input, failed: None }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one, two, … bytes at a time.
    struct Dribble {
        bytes: Vec<u8>,
        at: usize,
        step: usize,
    }

    impl Read for Dribble {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.step = self.step % 7_919 + 1;
            let rest = &self.bytes[self.at..];
            let n = rest.len().min(self.step).min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            self.at += n;
            Ok(n)
        }
    }

    #[test]
    fn records_of_any_length_come_out_in_one_piece_wherever_blocks_end() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 12_345).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let source = Dribble { bytes: bytes.clone(), at: 0, step: 0 };
        let mut window = Window::new(Source::Reader(Full::new(Box::new(source))));
        let (mut at, mut length) = (0, 1);
        while at + length <= bytes.len() {
            // A header is looked at first, as records are read.
            assert!(window.reach(length.min(16)).unwrap() && window.reach(length).unwrap(), "{at} {length}");
            assert_eq!(window.rest().get(..length), Some(&bytes[at..at + length]), "{at} {length}");
            window.consume(length);
            at += length;
            length = length * 3 % 70_001 + 1;
        }
        assert!(!window.reach(length).unwrap());
        assert_eq!(window.rest(), &bytes[at..], "what is left is still there");
    }
}
