//! Which calls are placed, and what became of each.
//!
//! A [`CallPlan`] is everything that is decided before a call; the [`CallBook`] is where the PBX looks it up
//! when the INVITE arrives; a [`CallTruth`] is what happened. A plan comes from a seed and an index alone, so
//! that a run can be repeated call for call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::g711::Law;
use crate::media::{Impairment, Moment, Pause, Received, StreamPlan, StreamTruth, TalkId};
use crate::random::Random;
use crate::topology::phone_address;

/// The hole in the audio of a transferred call: the story's 1.8 s.
pub const TRANSFER_PAUSE: Duration = Duration::from_millis(1800);

/// Everything that is decided about a call before it is placed.
#[derive(Clone, Debug, PartialEq)]
pub struct CallPlan {
    /// Its number in this lab.
    pub index: u32,
    /// What all that is random about it comes from.
    pub seed: u64,
    /// Who calls.
    pub phone: u8,
    /// Over IPv6.
    pub v6: bool,
    /// The codec that the caller prefers, and so gets.
    pub law: Law,
    /// The PBX demands credentials (407).
    pub authenticated: bool,
    /// The caller has the PBX transfer the call (REFER) half-way.
    pub transferred: bool,
    /// RTP packets in each direction.
    pub packets: u32,
    /// What happens to them.
    pub impairment: Impairment,
}

impl CallPlan {
    /// Of any four calls: one plain, one authenticated, one transferred, one over IPv6.
    pub fn mixed(seed: u64, index: u32, phones: u8, packets: u32, impairment: Impairment) -> Self {
        Self {
            index,
            seed: Random::derived(seed, u64::from(index)).next_u64(),
            phone: u8::try_from(index % u32::from(phones.max(1))).unwrap_or(0),
            v6: index % 4 == 3,
            law: if index.is_multiple_of(2) { Law::Mu } else { Law::A },
            authenticated: index % 4 == 1,
            transferred: index % 4 == 2,
            packets,
            impairment,
        }
    }

    /// Call-ID header.
    pub fn call_id(&self) -> String {
        format!("{:016x}@{}", self.seed, phone_address(self.phone, false))
    }

    /// The caller's name.
    pub fn user(&self) -> String {
        format!("{}", 1001 + u32::from(self.phone))
    }

    /// Where the caller listens: as phones do it, in the dynamic range, another port for each call.
    pub fn phone_port(&self) -> u16 {
        16384 + self.port_offset()
    }

    /// Where the PBX listens.
    pub fn pbx_port(&self) -> u16 {
        20000 + self.port_offset()
    }

    /// Even, and not in use again while an earlier call may still be.
    fn port_offset(&self) -> u16 {
        u16::try_from(self.index % 1500).map_or(0, |offset| 2 * offset)
    }

    /// The audio that the caller sends, or the PBX.
    pub fn stream(&self, from_caller: bool) -> StreamPlan {
        let pause = Pause { before: self.packets / 2, length: TRANSFER_PAUSE };
        StreamPlan {
            seed: Random::derived(self.seed, 1 + u64::from(from_caller)).next_u64(),
            law: self.law,
            packets: self.packets,
            impairment: self.impairment,
            pause: self.transferred.then_some(pause),
        }
    }
}

/// A call in progress, known to both ends.
#[derive(Debug)]
pub struct CallRecord {
    /// What was decided.
    pub plan: CallPlan,
    /// Where both talks report to.
    pub moments: Sender<Moment>,
    /// SIP messages that either end sent, retransmissions included.
    pub messages: AtomicU32,
    /// Of those, the ones sent again by a timer.
    pub retransmissions: AtomicU32,
    /// The PBX's talk, once it has answered.
    pub pbx_talk: Mutex<Option<(TalkId, SocketAddr)>>,
}

impl CallRecord {
    /// Before the first message.
    pub fn new(plan: CallPlan, moments: Sender<Moment>) -> Self {
        Self {
            plan,
            moments,
            messages: AtomicU32::new(0),
            retransmissions: AtomicU32::new(0),
            pbx_talk: Mutex::new(None),
        }
    }

    /// One more message was sent.
    pub fn sent(&self, again: bool) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        if again {
            self.retransmissions.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The calls in progress, by Call-ID.
#[derive(Clone, Debug, Default)]
pub struct CallBook(Arc<Mutex<HashMap<String, Arc<CallRecord>>>>);

impl CallBook {
    /// Enters a call that is about to be placed.
    pub fn enter(&self, record: Arc<CallRecord>) {
        self.lock().insert(record.plan.call_id(), record);
    }

    /// A call in progress.
    pub fn find(&self, call_id: &str) -> Option<Arc<CallRecord>> {
        self.lock().get(call_id).map(Arc::clone)
    }

    /// Strikes out a call that has ended.
    pub fn strike(&self, call_id: &str) {
        self.lock().remove(call_id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<CallRecord>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallState {
    /// Answered, spoken, and ended by a BYE that was answered.
    Completed,
    /// The lab was stopped: ended early, in the same orderly way.
    CutShort,
    /// It did not work, for this reason.
    Failed(String),
}

/// One direction of a call, from the sender's and the receiver's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectionTruth {
    /// Sender's address.
    pub src: SocketAddr,
    /// Receiver's address.
    pub dst: SocketAddr,
    /// What was sent.
    pub stream: StreamTruth,
    /// What arrived.
    pub received: Received,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTruth {
    /// Its number.
    pub index: u32,
    /// Call-ID header.
    pub call_id: String,
    /// How it ended.
    pub state: CallState,
    /// It was challenged and gave credentials.
    pub authenticated: bool,
    /// REFER was accepted and its success notified.
    pub transferred: bool,
    /// SIP messages sent by both ends, retransmissions included.
    pub messages: u32,
    /// Of those, the ones sent again by a timer.
    pub retransmissions: u32,
    /// Caller to PBX, PBX to caller; empty if it never came to talking.
    pub directions: Vec<DirectionTruth>,
}
