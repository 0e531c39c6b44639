//! Signalling: SIP messages, their SDP, the calls they make, and the media they announce.

pub mod media;
pub mod message;
pub mod sdp;
