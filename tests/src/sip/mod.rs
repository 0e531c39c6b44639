//! A small pair of SIP user agents: phones that call, and the PBX that answers.
//!
//! Enough of RFC 3261 for its messages to be what a probe meets in the field: branches and tags, retransmission
//! by timers, digest authentication (407), transfer (REFER, RFC 3515), offer and answer. Both ends are ours, so
//! that the truth about each call is known to the test that asks for it.

pub mod digest;
pub mod load;
pub mod message;
pub mod pbx;
pub mod phone;
pub mod sipp;
pub mod talkers;
