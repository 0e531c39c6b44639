//! One thread that reads, and several that look at what it read.
//!
//! ```text
//!   file | stdin ─▶ (decompressor) ─▶ feeder: block n ─┬─▶ Feed of worker 0
//!                       ▲                              ├─▶ Feed of worker 1     the same block, not a copy
//!                       └── a block that nobody holds ─┴─▶ …
//! ```
//!
//! A capture is read, and decompressed, once for all workers. Blocks go round: the slowest worker is [`BLOCKS`] behind
//! the reader at most, so memory does not grow with the file, nor with the number of workers.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::window::{Block, Full};

/// Blocks that go round, and the size of each: together far below a second-level cache times a few, and a hand-over costs
/// nothing beside what is in it (2,000 frames of G.711).
const BLOCKS: usize = 8;
const BLOCK: usize = 512 << 10;

/// What the feeder tells.
enum Message {
    Block(Arc<Block>),
    /// The input is over. Its absence tells that the thread died.
    End,
    /// A read failed.
    Failed(io::ErrorKind),
}

/// A worker's end.
pub(super) struct Feed {
    blocks: Receiver<Message>,
    /// Wakes the feeder where it waits for a block.
    returned: Sender<()>,
}

impl Feed {
    /// Exchanges `block` for the next; `false` at the end of the input.
    pub(super) fn next(&mut self, block: &mut Arc<Block>) -> io::Result<bool> {
        match self.blocks.recv() {
            Ok(Message::Block(next)) => {
                *block = next;
                // Full: it was told already.
                let _ = self.returned.try_send(());
                Ok(true)
            }
            Ok(Message::End) => Ok(false),
            Ok(Message::Failed(kind)) => Err(kind.into()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Starts a thread that reads `input` for so many workers.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start(mut input: Full, workers: usize) -> io::Result<Vec<Feed>> {
    let (returned, free) = bounded(1);
    let (mut to, feeds): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| {
            let (sender, blocks) = bounded(BLOCKS);
            (sender, Feed { blocks, returned: returned.clone() })
        })
        .unzip();
    drop(returned);
    thread::Builder::new().name("vox-read".to_owned()).spawn(move || {
        let last = feed(&mut input, &mut to, &free);
        for sender in &to {
            let message = match &last {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error.kind()),
            };
            // Gone before the end: it wanted no more.
            let _ = sender.send(message);
        }
    })?;
    Ok(feeds)
}

/// Feeds to the end of the input, or until nobody is left who wants it.
fn feed(input: &mut Full, to: &mut Vec<Sender<Message>>, free: &Receiver<()>) -> io::Result<()> {
    let mut ring: Vec<_> = (0..BLOCKS).map(|_| Arc::new(Block::with_capacity(BLOCK))).collect();
    loop {
        for slot in &mut ring {
            let block = loop {
                if let Some(block) = Arc::get_mut(slot) {
                    break block;
                }
                if free.recv().is_err() {
                    return Ok(());
                }
            };
            if !block.fill(input)? {
                return Ok(());
            }
            to.retain(|sender| sender.send(Message::Block(Arc::clone(slot))).is_ok());
            if to.is_empty() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::window::{Source, Window};
    use super::*;

    const LENGTH: usize = 2 * BLOCKS * BLOCK + 4_321;

    /// So many bytes, then an error or the end.
    struct Counting {
        at: usize,
        fails: bool,
    }

    impl Read for Counting {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = buffer.len().min(LENGTH - self.at).min(100_000);
            for (byte, at) in buffer.iter_mut().zip(self.at..self.at + n) {
                *byte = pattern(at);
            }
            self.at += n;
            if n == 0 && self.fails { Err(io::ErrorKind::InvalidData.into()) } else { Ok(n) }
        }
    }

    fn pattern(at: usize) -> u8 {
        (at % 253).to_le_bytes()[0]
    }

    fn windows(fails: bool, count: usize) -> Vec<Window> {
        let input = Full::new(Box::new(Counting { at: 0, fails }));
        let feeds = start(input, count).unwrap();
        feeds.into_iter().map(|feed| Window::new(Source::Feed(feed))).collect()
    }

    /// Reads it all in records of a thousand bytes.
    fn read(window: &mut Window) -> (usize, io::Result<bool>) {
        let mut at = 0;
        loop {
            match window.reach(1_000) {
                Ok(true) => {}
                over => return (at + window.rest().len(), over),
            }
            let expected = (at..at + 1_000).map(pattern);
            assert!(window.rest().iter().take(1_000).copied().eq(expected), "{at}");
            window.consume(1_000);
            at += 1_000;
        }
    }

    #[test]
    fn every_worker_sees_all_bytes_in_order_and_how_they_end() {
        for fails in [false, true] {
            let workers: Vec<_> = windows(fails, 3)
                .into_iter()
                .map(|mut window| thread::spawn(move || read(&mut window)))
                .collect();
            for worker in workers {
                let (length, over) = worker.join().unwrap();
                assert_eq!((length, over.is_err()), (LENGTH, fails));
            }
        }
    }

    #[test]
    fn a_worker_that_leaves_holds_nobody_up() {
        let mut windows = windows(false, 2);
        drop(windows.pop());
        let left = windows.pop().map(|mut window| read(&mut window).0);
        assert_eq!(left, Some(LENGTH));
    }
}
