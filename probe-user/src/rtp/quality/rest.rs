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
    counts: unique::Counts,
    played: u64,
    received: u64,
    drift: drift::Rest,
    /// The two distributions of the intervals that have closed.
    before: Option<Box<[Option<Box<MicrosHistogram>>; 2]>>,
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

/// What the stream knows beside: where the run began, behind number `seq`, with packets of this type on that clock.
#[derive(Clone, Copy, Debug)]
pub(in crate::rtp) struct Began {
    pub(in crate::rtp) seq: u64,
    /// The first number that was not settled then.
    pub(in crate::rtp) oldest: u64,
    pub(in crate::rtp) payload_type: u8,
    pub(in crate::rtp) rate: u32,
    /// When the stream began.
    pub(in crate::rtp) first_seen: Nanos,
}

impl Quality {
    /// What is left of it beside the run that it was lent to, with its clock rate. `oldest` is the first number that is not
    /// settled.
    pub(in crate::rtp) fn into_rest(self, oldest: u64, first_seen: Nanos) -> (Rest, u32, Troubles) {
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
        let (counts, first, unique) = unique.into_rest();
        let (played, playout) = playout.into_rest();
        let received = loss.received();
        let [(of_jitter, jitter_before), (of_variation, variation_before)] =
            [jitter, variation].map(Distribution::into_rest);
        let before = [jitter_before, variation_before];
        let rest = Rest {
            counts,
            played,
            received,
            drift: drift.into_rest(),
            before: before.iter().any(Option::is_some).then(|| Box::new(before)),
        };
        let troubles = Troubles {
            unique,
            first: Some(first).filter(|first| *first != first_seen),
            playout,
            loss: Some(loss).filter(|loss| *loss != LossPattern::of_received(received)),
            discards: Some(discards).filter(|discards| *discards != Discards::of_none(oldest, received)),
            distributions: [of_jitter, of_variation],
            estimate,
            changes,
            change_count,
            interruption,
            discarded_before,
            incidents,
        };
        (rest, timeline.rate(), troubles)
    }

    /// The same, whole again: as it was lent to a run that has come to `running`.
    pub(in crate::rtp) fn of_rest(
        rest: Rest,
        troubles: Troubles,
        running: &Running,
        began: Began,
        settings: Arc<Settings>,
    ) -> Self {
        let Rest { counts, played, received, drift, before } = rest;
        let Began { seq, oldest, payload_type, rate, first_seen } = began;
        let unique = (counts, troubles.first.unwrap_or(first_seen), troubles.unique);
        let [of_jitter, of_variation] = troubles.distributions;
        let [jitter_before, variation_before] = before.map_or_else(Default::default, |before| *before);
        Self {
            timeline: Timeline::of_rest(rate),
            unique: UniqueLedger::of_rest(unique, running.unique, (seq, payload_type)),
            drift: Drift::of_rest(drift, running.slope),
            delay: running.delay,
            playout: Playout::of_rest(settings.jitter_buffer, (played, troubles.playout), running.buffers),
            loss: troubles.loss.unwrap_or_else(|| LossPattern::of_received(received)),
            discards: troubles.discards.unwrap_or_else(|| Discards::of_none(oldest, received)),
            // Each sample of jitter is counted, and each packet that the buffers are shown.
            jitter: Distribution::of_rest(counts.jitter_samples, of_jitter, jitter_before),
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

impl Discards {
    /// Of a stream whose packets were never too late: so many are settled, and that number is the next.
    fn of_none(next: u64, settled: u64) -> Self {
        Self { bits: 0, next, is_fresh: settled == 0 }
    }
}
