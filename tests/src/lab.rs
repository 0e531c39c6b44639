//! The whole lab in one value: network, PBX, audio, and the mirror if there is one. Dropping it removes all of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::calls::{CallBook, CallPlan, CallState, CallTruth};
use crate::media::MediaEngine;
use crate::mirror::{Mirror, MirrorPlan};
use crate::sip::pbx::Pbx;
use crate::sip::phone::Phone;
use crate::topology::Topology;

/// Between the first calls of two phones.
const STAGGER: Duration = Duration::from_millis(700);

/// Between two calls of one phone.
const BREATH: Duration = Duration::from_millis(1200);

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: who uses the network goes before it.
    _pbx: Pbx,
    mirror: Option<Mirror>,
    engine: MediaEngine,
    book: CallBook,
    stop: Arc<AtomicBool>,
    sipp: bool,
    /// The network.
    pub topology: Topology,
}

/// What the lab knows to have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabReport {
    /// The calls, in the order of their numbers.
    pub calls: Vec<CallTruth>,
    /// Frames that the mirror added.
    pub mirrored: u64,
}

impl LabReport {
    /// RTP packets that the network was given.
    pub fn rtp_sent(&self) -> u64 {
        self.directions().map(|direction| direction.stream.sent).sum()
    }

    /// RTP packets that arrived at the other end.
    pub fn rtp_received(&self) -> u64 {
        self.directions().map(|direction| direction.received.packets).sum()
    }

    /// RTCP packets that the network was given.
    pub fn rtcp_sent(&self) -> u64 {
        self.directions().map(|direction| direction.stream.reports).sum()
    }

    /// SIP messages sent by both ends.
    pub fn sip_sent(&self) -> u64 {
        self.calls.iter().map(|call| u64::from(call.messages)).sum()
    }

    /// Calls that did not work, with the reasons.
    pub fn failures(&self) -> Vec<String> {
        let reason = |call: &CallTruth| match &call.state {
            CallState::Failed(reason) => Some(format!("call {}: {reason}", call.index)),
            CallState::Completed | CallState::CutShort => None,
        };
        self.calls.iter().filter_map(reason).collect()
    }

    fn directions(&self) -> impl Iterator<Item = &crate::calls::DirectionTruth> {
        self.calls.iter().flat_map(|call| &call.directions)
    }
}

impl Lab {
    /// Makes the network for `phones` phones and starts the PBX, and the mirror that is planned.
    pub fn start(phones: u8, plan: &MirrorPlan) -> Result<Self> {
        let topology = Topology::create(phones, !plan.is_none())?;
        let engine = MediaEngine::start()?;
        let book = CallBook::default();
        let pbx = Pbx::start(&topology.pbx, &engine, &book)?;
        let mirror = (!plan.is_none()).then(|| Mirror::start(&topology, plan)).transpose()?;
        Ok(Self { _pbx: pbx, mirror, engine, book, stop: Arc::default(), sipp: false, topology })
    }

    /// Has sipp place the calls over IPv4; the built-in phones those over IPv6.
    #[must_use]
    pub fn with_sipp(mut self) -> Self {
        self.sipp = true;
        self
    }

    /// Ends the calls in progress, in an orderly way, and places no more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Places `plans`, each phone its own one after the other, all phones at once; returns when all have ended.
    pub fn place(&self, plans: Vec<CallPlan>) -> LabReport {
        let mut phones: Vec<Vec<CallPlan>> = Vec::new();
        for plan in plans {
            let phone = usize::from(plan.phone);
            if phones.len() <= phone {
                phones.resize_with(phone + 1, Vec::new);
            }
            phones[phone].push(plan);
        }
        let truths = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for (turn, plans) in (0_u32..).zip(phones) {
                let truths = &truths;
                scope.spawn(move || {
                    self.wait(STAGGER * turn);
                    for plan in plans {
                        self.call_once(plan, |truth| {
                            truths.lock().unwrap_or_else(PoisonError::into_inner).push(truth);
                        });
                    }
                });
            }
        });
        let mut calls = truths.into_inner().unwrap_or_else(PoisonError::into_inner);
        calls.sort_by_key(|call| call.index);
        LabReport { calls, mirrored: self.mirrored() }
    }

    /// Has `phones` phones call again and again until [`Self::stop`]; `plan` makes the call of a number.
    pub fn keep_calling(
        &self,
        phones: u8,
        plan: impl Fn(u32) -> CallPlan + Sync,
        ended: impl Fn(CallTruth) + Sync,
    ) {
        thread::scope(|scope| {
            for phone in 0..phones {
                let (plan, ended) = (&plan, &ended);
                scope.spawn(move || {
                    self.wait(STAGGER * u32::from(phone));
                    for index in (u32::from(phone)..).step_by(usize::from(phones)) {
                        if self.stop.load(Ordering::Relaxed) {
                            return;
                        }
                        self.call_once(plan(index), ended);
                        self.wait(BREATH);
                    }
                });
            }
        });
    }

    /// Frames that the mirror has added so far.
    pub fn mirrored(&self) -> u64 {
        self.mirror.as_ref().map_or(0, Mirror::copied)
    }

    fn call_once(&self, plan: CallPlan, ended: impl Fn(CallTruth)) {
        let phone = Phone {
            namespace: &self.topology.phones,
            engine: &self.engine,
            book: &self.book,
            stop: &self.stop,
            sipp: self.sipp && !plan.v6,
        };
        ended(phone.call(plan));
    }

    fn wait(&self, time: Duration) {
        let step = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(left.min(step));
            left = left.saturating_sub(step);
        }
    }
}
