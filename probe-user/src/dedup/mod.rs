//! Which frame is a copy of which, and why.
//!
//! A copy has the identity of its original (flow, payload) and differs at most in its
//! [`Evidence`](crate::packet::Evidence). [`window`] finds the original of an RTP packet, [`crate::sip::copies`] that of a SIP
//! message; [`cause`] reads the difference; [`stats`] adds up what was found, per pair of differences.
//!
//! A copy is not a retransmission: nothing here looks at timers, and nothing that a timer could explain
//! (20 ms apart or more) is called a copy. See docs/duplicates.md for the taxonomy.

pub mod cause;
pub mod class;
pub mod cluster;
pub mod reference;
mod slots;
pub mod stats;
mod tap;
pub mod topology;
pub mod window;

pub use cause::{Cause, Differs, Explanation, explain};
pub use class::{Classes, FrameClass};
pub(crate) use slots::Tail;
pub use stats::CopyStats;
pub(crate) use tap::Signature;
