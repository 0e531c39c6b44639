//! What is tried with bytes that nobody sent on purpose, and what must hold then.
//!
//! ```text
//!   message      any bytes: a SIP message, or refused
//!   sdp          any bytes: a body
//!   reassembly   segments of a stream that is known, in any order: what comes out is that stream
//!   websocket    any bytes: frames; and frames that are made: what they carry
//!   dialogs      messages, segments and records of TLS, mutated: every counter adds up, every bound holds
//!   frames       any bytes: a frame, through the decoder
//! ```
//!
//! Trusted is nothing but the caller. Each `run` panics if something does not hold. libFuzzer calls it with what it invents,
//! the ordinary tests with what is in `corpus/`.

pub mod dialogs;
pub mod frames;
pub mod message;
pub mod reassembly;
pub mod sdp;
pub mod websocket;

/// Takes decisions out of bytes, one after the other; zeros when they are used up.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Are there any left?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Two bytes as a number.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// So many bytes, or what is left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
