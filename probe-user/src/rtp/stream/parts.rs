//! A stream taken apart for its report, and what is said of it before.

use std::sync::Arc;

use super::{Stream, StreamKey};
use crate::dedup::stats::CauseReport;
use crate::dedup::{CopyStats, reference};
use crate::histogram::MicrosHistogram;
use crate::packet::{Encapsulation, Evidence, MediaId, Nanos};
use crate::rtp::codec::{self, Announcement, static_payload};
use crate::rtp::events::Events;
use crate::rtp::legs::Sketch;
use crate::rtp::loss::LossPattern;
use crate::rtp::quality::QualityParts;
use crate::rtp::rate::RateSource;
use crate::rtp::raw::RawLedger;
use crate::rtp::unique::{Interruption, LedgerReport};

/// A stream taken apart for its report.
#[derive(Clone, Debug)]
pub struct StreamParts {
    /// Identity.
    pub key: StreamKey,
    /// Place in the order of appearance.
    pub number: u64,
    /// What the signalling said, as an index.
    pub media: MediaId,
    /// What the signalling said.
    pub announcement: Arc<Announcement>,
    /// Announced, or past RFC 3550's probation; the others are byte patterns.
    pub valid: bool,
    /// The payload type that it is about.
    pub payload_type: u8,
    /// Name of the codec.
    pub codec: Option<String>,
    /// Its format parameters in the SDP.
    pub codec_parameters: Option<String>,
    /// Its clock rate in Hz.
    pub clock_rate: Option<u32>,
    /// Who says so.
    pub clock_rate_source: Option<RateSource>,
    /// Time of the first frame.
    pub first_seen: Nanos,
    /// Time of the last.
    pub last_seen: Nanos,
    /// Payload types seen, ascending.
    pub payload_types: Vec<u8>,
    /// Encapsulation of the first frame.
    pub encapsulation: Encapsulation,
    /// As captured.
    pub raw: LedgerReport,
    /// Time of the frame that `raw` counted last.
    pub raw_end: Nanos,
    /// Would tshark mark the stream?
    pub raw_marked: bool,
    /// Copies removed.
    pub unique: LedgerReport,
    /// Packets after a later one.
    pub reordered: u64,
    /// Where arrivals and timestamps parted company; the first few.
    pub interruptions: Vec<Interruption>,
    /// How often they did.
    pub interruption_count: u64,
    /// Times the numbering began anew.
    pub restarts: u32,
    /// Loss in sequence order.
    pub loss: LossPattern,
    /// Proven copies by cause.
    pub copies: CopyStats,
    /// Packets that the reference tap missed, and another's copy stands for.
    pub filled_in: u64,
    /// Through which taps it was seen.
    pub taps: Vec<TapPart>,
    /// Copies too long after their originals to be explained.
    pub old_copies: u64,
    /// Same number, other content.
    pub conflicts: u64,
    /// Too old to be told from a copy.
    pub too_old: u64,
    /// Numbers that nobody believed.
    pub strays: u64,
    /// Were payload bytes hashed because the UDP checksum was of no use?
    pub hashed_fingerprints: bool,
    /// Jitter samples |D| of the whole life.
    pub jitter: MicrosHistogram,
    /// What else the network did.
    pub quality: QualityParts,
    /// What tells its other legs.
    pub sketch: Sketch,
    /// Telephone events.
    pub events: Events,
}

/// One tap's part in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapPart {
    /// Its signature: evidence without the IP ID.
    pub evidence: Evidence,
    /// That of the tap whose times count.
    pub reference: Evidence,
    /// Packets that it saw.
    pub packets: u64,
    /// How late it is after the reference, median and spread; unknown before both saw the same packet.
    pub late_ns: Option<(i64, i64)>,
    /// When it saw its first packet.
    pub first: Nanos,
    /// When it saw its last.
    pub last: Nanos,
}

impl Stream {
    /// The payload type that the stream is about: of those that carry speech, as far as is known, the one with
    /// most frames. Comfort noise and digits come between, and an unannounced dynamic type could be either.
    pub fn main_payload_type(&self) -> u8 {
        let is_speech = |number| {
            !codec::is_comfort_noise(number)
                && match self.announcement.payload(number) {
                    Some(payload) => !codec::is_event(&payload.name),
                    None => static_payload(number).is_some(),
                }
        };
        let most = self.payload_types().max_by_key(|(number, frames)| (is_speech(*number), *frames));
        most.map_or(0, |(number, _)| number)
    }

    /// The same if there are several; nothing where one tap sees it all.
    pub fn several_taps(&self) -> Vec<TapPart> {
        if self.window.tap_count() > 1 { self.taps() } else { Vec::new() }
    }

    /// Through which taps this stream is seen, in order of appearance.
    pub fn taps(&self) -> Vec<TapPart> {
        let part = |(at, evidence): (usize, Evidence)| {
            let count = self.reference.as_ref().and_then(|reference| reference.taps().get(at));
            let current = self.reference.as_ref().map_or(0, |reference| reference.current());
            TapPart {
                evidence,
                reference: self.window.tap_at(current).copied().unwrap_or(evidence),
                packets: count.map_or(self.totals().packets, |count| count.packets),
                late_ns: count.map_or(Some((0, 0)), reference::TapCount::late_ns),
                first: count.and_then(|count| count.first).filter(|_| at > 0).unwrap_or(self.first_seen),
                last: count.map_or(self.last_seen, |count| count.last),
            }
        };
        self.window.taps().enumerate().map(part).collect()
    }

    /// The raw ledger so far.
    pub fn raw_report(&self) -> LedgerReport {
        self.raw.as_ref().map_or_else(LedgerReport::nothing, RawLedger::report)
    }

    /// Copies so far, by cause.
    pub fn causes(&self) -> Vec<CauseReport> {
        self.copies.causes(self.quality.packets())
    }

    /// Name of the codec, if anybody said or the payload type is static.
    pub fn codec(&self) -> Option<&str> {
        codec::name(self.main_payload_type(), &self.announcement)
    }

    /// Format parameters of the codec, if SDP has any.
    pub fn codec_parameters(&self) -> Option<&str> {
        self.announcement.parameters(self.main_payload_type())
    }

    /// Clock rate of the codec, and who says so.
    pub fn clock_rate(&self) -> Option<(u32, RateSource)> {
        let number = self.main_payload_type();
        codec::sourced_clock_rate(number, &self.announcement)
            .or_else(|| self.quality.estimated_rate(number).map(|rate| (rate, RateSource::Estimated)))
    }

    /// The parts that a report is made of. Closes what is still open, hence by value of a clone or at the end.
    pub fn into_parts(mut self) -> StreamParts {
        self.release();
        let taps = self.taps();
        let quality = &mut self.quality;
        self.window.drain(|came| quality.settled(came));
        let totals = self.totals();
        let clock_rate = self.clock_rate();
        let rate = clock_rate.map(|(rate, _)| rate);
        let unique = self.quality.ledger(totals.expected, rate);
        let (valid, codec) = (self.is_valid(), self.codec().map(ToOwned::to_owned));
        let (payload_type, codec_parameters) =
            (self.main_payload_type(), self.codec_parameters().map(ToOwned::to_owned));
        let reordered = self.quality.late();
        let (interruptions, interruption_count) = self.quality.interruptions();
        let interruptions = interruptions.to_vec();
        let (loss, jitter, quality) = self.quality.into_parts();
        StreamParts {
            valid,
            payload_type,
            codec,
            codec_parameters,
            clock_rate: rate,
            clock_rate_source: clock_rate.map(|(_, source)| source),
            raw_end: self.raw.as_ref().map_or(self.first_seen, RawLedger::end),
            raw_marked: self.raw.as_ref().is_some_and(RawLedger::is_marked),
            raw: self.raw.as_ref().map_or_else(LedgerReport::nothing, RawLedger::report),
            unique,
            reordered,
            interruptions,
            interruption_count,
            restarts: self.sequence.restarts(),
            key: self.key,
            number: self.number,
            media: self.media,
            announcement: self.announcement,
            first_seen: self.first_seen,
            last_seen: self.last_seen,
            payload_types: {
                let mut numbers: Vec<_> = std::iter::once(self.first_type)
                    .chain(self.other_types)
                    .map(|(number, _)| number)
                    .collect();
                numbers.sort_unstable();
                numbers
            },
            encapsulation: self.encapsulation,
            loss,
            filled_in: self.reference.as_ref().map_or(0, |reference| reference.filled_in()),
            taps,
            copies: self.copies,
            old_copies: self.old_copies,
            conflicts: self.conflicts,
            too_old: self.too_old,
            strays: self.strays,
            hashed_fingerprints: self.hashed_fingerprints,
            jitter,
            quality,
            sketch: self.sketch,
            events: self.events,
        }
    }
}
