//! A thread that reads ahead of whoever looks at what it read.
//!
//! ```text
//!   file | stdin ─▶ decompressor ─▶ feeder ──blocks──▶ Feed ─▶ window
//!                                      ▲                          │
//!                                      └──── empty ones ──────────┘
//! ```
//!
//! It is for compressed input: to decompress takes longer than to analyse. It is at most [`AHEAD`] blocks ahead, so
//! memory does not grow with the file.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::window::{Block, Full};

/// Blocks that wait to be looked at, at most.
const AHEAD: usize = 8;

/// What the feeder tells.
enum Message {
    Block(Block),
    /// The input is over. Its absence tells that the thread died.
    End,
    /// A read failed.
    Failed(io::ErrorKind),
}

/// The reader's end.
pub(super) struct Feed {
    blocks: Receiver<Message>,
    empty: Sender<Block>,
}

impl Feed {
    /// Gives a block back, if there is one, for the next; `None` at the end of the input.
    pub(super) fn next(&mut self, empty: Option<Block>) -> io::Result<Option<Block>> {
        if let Some(block) = empty {
            // Full, or its thread is gone: it has no use for more.
            let _ = self.empty.try_send(block);
        }
        match self.blocks.recv() {
            Ok(Message::Block(block)) => Ok(Some(block)),
            Ok(Message::End) => Ok(None),
            Ok(Message::Failed(kind)) => Err(kind.into()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Starts a thread that reads `input`.
///
/// # Errors
/// If the system refuses a thread.
pub(super) fn start(mut input: Full) -> io::Result<Feed> {
    let (to, blocks) = bounded(AHEAD);
    let (empty, emptied) = bounded(AHEAD);
    thread::Builder::new().name("vox-read".to_owned()).spawn(move || {
        let last = match feed(&mut input, &to, &emptied) {
            Ok(()) => Message::End,
            Err(error) => Message::Failed(error.kind()),
        };
        // Gone before the end: it wanted no more.
        let _ = to.send(last);
    })?;
    Ok(Feed { blocks, empty })
}

/// Feeds to the end of the input, or until nobody is left who wants it.
fn feed(input: &mut Full, to: &Sender<Message>, emptied: &Receiver<Block>) -> io::Result<()> {
    loop {
        let mut block = emptied.try_recv().unwrap_or_else(|_| Block::allocated());
        if !block.fill(input)? || to.send(Message::Block(block)).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::window::{BLOCK, Source, Window};
    use super::*;

    const LENGTH: usize = 2 * AHEAD * BLOCK + 4_321;

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

    fn window(fails: bool) -> Window {
        Window::new(Source::Feed(start(Full::new(Box::new(Counting { at: 0, fails }))).unwrap()))
    }

    #[test]
    fn all_bytes_come_in_order_and_how_they_end() {
        for fails in [false, true] {
            let (mut window, mut at) = (window(fails), 0);
            let over = loop {
                match window.reach(1_000) {
                    Ok(true) => {}
                    over => break over,
                }
                let expected = (at..at + 1_000).map(pattern);
                assert!(window.rest().iter().take(1_000).copied().eq(expected), "{at}");
                window.consume(1_000);
                at += 1_000;
            };
            assert_eq!((at + window.rest().len(), over.is_err()), (LENGTH, fails));
        }
    }

    #[test]
    fn who_leaves_early_leaves_no_thread_behind() {
        let (to, blocks) = bounded(1);
        let (_empty, emptied) = bounded(1);
        let mut input = Full::new(Box::new(Counting { at: 0, fails: false }));
        drop(blocks);
        assert!(feed(&mut input, &to, &emptied).is_ok(), "it ends, and does not wait");
    }
}
