//! The receive thread's work: frame by frame, to signalling or to a shard.
//!
//! Signalling is read here, before the next frame, so that an SDP takes effect at once: in the table that
//! tells media from other UDP, in the kernel's map, and deterministically in files. SIP is rare; the price is
//! paid only by it.

use std::sync::Arc;

use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;

use super::account::{Account, Loss};
use super::shard::{Event, Shards};
use crate::capture::file::Frame;
use crate::capture::live::Record;
use crate::decode::{Decoded, Decoder};
use crate::packet::{Endpoint, MediaId, Nanos, RtpPacket};
use crate::rtp::codec::{Announcement, Payload};
use crate::sip::media::{EndpointChange, MediaInfo};
use crate::sip::{Signalling, SignallingReport};

/// Who follows the announced endpoints: the kernel's map, or nobody.
pub trait EndpointSink {
    /// A media line was announced.
    fn insert(&mut self, endpoint: Endpoint);
    /// It is over.
    fn remove(&mut self, endpoint: Endpoint);
}

impl EndpointSink for () {
    fn insert(&mut self, _: Endpoint) {}
    fn remove(&mut self, _: Endpoint) {}
}

/// See the module.
pub struct Receiver<S> {
    decoder: Decoder,
    signalling: Signalling,
    shards: Shards,
    sink: S,
    events: Sender<Event>,
    account: Account,
    /// Media ids that the shards know, by slot.
    announced: FxHashMap<u32, MediaId>,
    number: u64,
    first: Option<Nanos>,
    last: Nanos,
}

/// What is left when the receiver has finished.
pub struct Remains {
    /// Calls and message counts.
    pub signalling: SignallingReport,
    /// The receiver's and the shards' account, but for what only the shards know they analysed.
    pub account: Account,
    /// Time of the first frame.
    pub first: Option<Nanos>,
    /// Time of the last.
    pub last: Nanos,
    /// The decoder, for its names of encapsulations and its own counts.
    pub decoder: Decoder,
}
