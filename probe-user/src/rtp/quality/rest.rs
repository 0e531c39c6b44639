//! What of the quality is left beside an orderly run.

use super::super::{drift, playout, unique};
use super::{CodecChange, Discards, Quality, Running, Settings};
use crate::histogram::{self, Distribution, MicrosHistogram};
use crate::packet::Nanos;
use crate::rtp::drift::Drift;
use crate::rtp::incidents::Incidents;
use crate::rtp::loss::LossPattern;
use crate::rtp::playout::Playout;
use crate::rtp::rate::RateEstimate;
use crate::rtp::timeline::Timeline;
use crate::rtp::unique::{Interruption, UniqueLedger};
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug)]
pub(in crate::rtp) struct Rest {
    drift: drift::Points,
    /// Where they are not told by how many packets came.
    counts: Option<Box<Counts>>,
}

/// The two distributions of the intervals that have closed.
pub(in crate::rtp) type Before = [Option<Box<MicrosHistogram>>; 2];

/// How many packets of a stream were counted, by what counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    unique: unique::Counts,
    played: u64,
    received: u64,
}

/// What a stream that nothing has happened to has none of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::rtp) struct Troubles {
    unique: unique::Troubles,
    /// Where it is not the stream's.
    first: Option<Nanos>,
    playout: playout::Discards,
    /// Where packets were lost or discarded.
    loss: Option<LossPattern>,
    discards: Option<Discards>,
    distributions: [histogram::Rest; 2],
    estimate: Option<Box<RateEstimate>>,
    changes: Vec<CodecChange>,
    change_count: u64,
    interruption: Option<Interruption>,
    discarded_before: u64,
    incidents: Option<Box<Incidents>>,
}

/// What the stream knows beside, and quality need not: how it stood when the run began.
#[derive(Clone, Copy, Debug)]
pub(in crate::rtp) struct Stood {
    /// The first number that was not settled, and how many were not.
    pub(in crate::rtp) oldest: u64,
    pub(in crate::rtp) unsettled: u8,
    /// When the stream began.
    pub(in crate::rtp) first_seen: Nanos,
    /// Frames in its raw ledger.
    pub(in crate::rtp) packets: u64,
}

/// And where: behind number `seq`, with packets of this type on that clock.
#[derive(Clone, Copy, Debug)]
pub(in crate::rtp) struct Began {
    pub(in crate::rtp) seq: u64,
    pub(in crate::rtp) payload_type: u8,
    pub(in crate::rtp) rate: u32,
    pub(in crate::rtp) stood: Stood,
}

/// The quality of a stream, parted from its run.
#[derive(Debug)]
pub(in crate::rtp) struct Parted {
    pub(in crate::rtp) rest: Rest,
    pub(in crate::rtp) clock_rate: u32,
    pub(in crate::rtp) before: Before,
    pub(in crate::rtp) troubles: Troubles,
}

impl Quality {
    /// What is left of it beside the run that it was lent to.
    pub(in crate::rtp) fn into_rest(self, stood: Stood) -> Parted {
        let Self {
            settings: _,
            timeline,
            unique,
            drift,
            delay: _,
            playout,
            loss,
            discards,
            jitter,
            variation,
            estimate,
            codec: _,
            changes,
            change_count,
            interruption,
            discarded_before,
            incidents,
        } = self;
        let (counted, first, unique) = unique.into_rest();
        let (played, playout) = playout.into_rest();
        let received = loss.received();
        let [(of_jitter, jitter_before), (of_variation, variation_before)] =
            [jitter, variation].map(Distribution::into_rest);
        let counts = Counts { unique: counted, played, received };
        let rest = Rest {
            drift: drift.into_rest(),
            counts: (counts != Counts::of_orderly(stood)).then(|| Box::new(counts)),
        };
        let troubles = Troubles {
            unique,
            first: Some(first).filter(|first| *first != stood.first_seen),
            playout,
            loss: Some(loss).filter(|loss| *loss != LossPattern::of_received(received)),
            discards: Some(discards)
                .filter(|discards| *discards != Discards::of_none(stood.oldest, received)),
            distributions: [of_jitter, of_variation],
            estimate,
            changes,
            change_count,
            interruption,
            discarded_before,
            incidents,
        };
        Parted { rest, clock_rate: timeline.rate(), before: [jitter_before, variation_before], troubles }
    }

    /// The same, whole again: as it was lent to a run that has come to `running`.
    pub(in crate::rtp) fn of_rest(
        (rest, before, troubles): (Rest, Before, Troubles),
        running: &Running,
        began: Began,
        settings: Arc<Settings>,
    ) -> Self {
        let Rest { drift, counts } = rest;
        let Began { seq, payload_type, rate, stood } = began;
        let Counts { unique: counted, played, received } =
            counts.map_or_else(|| Counts::of_orderly(stood), |counts| *counts);
        let unique = (counted, troubles.first.unwrap_or(stood.first_seen), troubles.unique);
        let [of_jitter, of_variation] = troubles.distributions;
        let [jitter_before, variation_before] = before;
        Self {
            timeline: Timeline::of_rest(rate),
            unique: UniqueLedger::of_rest(unique, running.unique, (seq, payload_type)),
            drift: Drift::of_rest(drift, running.slope),
            delay: running.delay,
            playout: Playout::of_rest(settings.jitter_buffer, (played, troubles.playout), running.buffers),
            loss: troubles.loss.unwrap_or_else(|| LossPattern::of_received(received)),
            discards: troubles.discards.unwrap_or_else(|| Discards::of_none(stood.oldest, received)),
            // Each sample of jitter is counted, and each packet that the buffers are shown.
            jitter: Distribution::of_rest(counted.jitter_samples, of_jitter, jitter_before),
            variation: Distribution::of_rest(played, of_variation, variation_before),
            estimate: troubles.estimate,
            codec: Some(payload_type),
            changes: troubles.changes,
            change_count: troubles.change_count,
            interruption: troubles.interruption,
            discarded_before: troubles.discarded_before,
            incidents: troubles.incidents,
            settings,
        }
    }
}

impl Rest {
    /// Closes a run's block of the drift, and begins one with what comes at `time`.
    pub(in crate::rtp) fn turn(&mut self, running: &mut Running, time: Nanos) {
        let mut drift = Drift::of_rest(std::mem::take(&mut self.drift), running.slope);
        drift.take_back(running.block);
        (running.block, running.slope) = drift.turn(time);
        self.drift = drift.into_rest();
    }
}

impl Counts {
    /// Of a stream whose packets all followed each other: each is played, and received once its number is settled.
    fn of_orderly(Stood { packets, unsettled, .. }: Stood) -> Self {
        Self {
            unique: unique::Counts::of_regular(packets),
            played: packets,
            received: packets.saturating_sub(unsettled.into()),
        }
    }
}

impl Discards {
    /// Of a stream whose packets were never too late: so many are settled, and that number is the next.
    fn of_none(next: u64, settled: u64) -> Self {
        Self { bits: 0, next, is_fresh: settled == 0 }
    }
}
