//! What the signalling did while a stream was in trouble.
//!
//! ```text
//!   signalling  ───── REFER ─────────────────────── NOTIFY 200 ─────▶
//!   packets     ■■■■■■■■■┤     1.81 s without          ├■■■■■■■■■■■■▶
//!                        └ began 8 ms after            └ ended 12 ms after
//! ```
//!
//! What is near in time is told as near, and no more. A cause is only named where the stream proves it: numbers that
//! run on prove that the sender paused, missing ones that packets were lost, SDP that says hold that silence was agreed.
//!
//! The list of calls, the ladder, the findings, the page of one stream and the health log take their words from here.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use super::words;
use crate::packet::Nanos;
use crate::rtp::unique::Interruption;
use crate::sip::calls::{Moment, What};

/// How long before and after something in a stream the signalling may be that belongs to it: a proxy takes a while, and
/// a phone may act before it says so.
const BEFORE_MS: f64 = 1_000.0;
const AFTER_MS: f64 = 500.0;

/// Something in the signalling, near something in a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SignallingMoment {
    /// What: "REFER: transfer", "hold (sendonly)", "re-INVITE".
    pub event: String,
    /// Its frame.
    pub frame: u64,
    /// From it to what happened in the stream; negative if that came first.
    pub after_ms: f64,
    /// The call that it belongs to, where that is not the stream's own: the other leg, or a transfer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_call: Option<Arc<str>>,
}

/// A moment of a call, and which call that is if it is not the stream's own.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) of_call: Option<Arc<str>>,
    pub(super) moment: Moment,
}

impl Told {
    /// A moment of the stream's own call.
    pub(super) fn own(moment: Moment) -> Self {
        Self { of_call: None, moment }
    }
}

/// What is known of the time of an interruption, besides the moments of its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// Nothing.
    #[default]
    Ordinary,
    /// The probe itself lost frames, so a hole may be its own.
    ProbeLost,
    /// No frame of any kind was captured, and the other direction stopped and came back with this one.
    NothingCaptured,
    /// T.38 was agreed, which has another numbering.
    Fax,
}

/// What an interruption was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The numbers run on across it: the sender paused.
    SenderPaused,
    /// The same, while SDP said hold.
    Hold,
    /// The same, from the call's BYE on: another call goes on with the stream.
    CallEnded,
    /// Numbers are missing: packets were sent, and did not come here.
    Lost,
    /// The numbering jumped, which hides whether any are missing.
    Restarted,
    /// Packets kept coming; the timestamp alone jumped.
    TimestampJumped,
    /// The capture itself has a hole there.
    CapturePaused,
    /// The call was fax meanwhile.
    Fax,
}

/// An interruption in the light of the signalling.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// What it was.
    pub cause: Cause,
    /// The same in words, with what proves it.
    pub because: String,
    /// What happened in the call when it began; absent if nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began_at: Option<SignallingMoment>,
    /// And when it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<SignallingMoment>,
}

impl Explanation {
    /// Of an interruption, by the `moments` of its call and of those that belong to it.
    pub(super) fn new(gap: &Interruption, meanwhile: Meanwhile, moments: &[Told]) -> Self {
        let is_doubted = meanwhile == Meanwhile::ProbeLost;
        let began = gap.began();
        let held = hold_at(began, moments);
        let begins = SignallingMoment::nearest_told(began, moments, begins_pause);
        let is_end = begins.is_some_and(|(told, _)| told.moment.what == What::Bye);
        let is_agreed = gap.missing == 0 && !gap.restarted && (is_end || held.is_some());
        let cause = if meanwhile == Meanwhile::Fax {
            Cause::Fax
        } else if meanwhile == Meanwhile::NothingCaptured && !is_agreed {
            Cause::CapturePaused
        } else if gap.restarted {
            Cause::Restarted
        } else if gap.missing > 0 {
            Cause::Lost
        } else if !gap.is_silence() {
            Cause::TimestampJumped
        } else if is_end {
            Cause::CallEnded
        } else if held.is_some() {
            Cause::Hold
        } else {
            Cause::SenderPaused
        };
        let because = match cause {
            Cause::Fax => "the call was T.38 fax meanwhile, whatever its RTP numbers say; nothing lost".to_owned(),
            Cause::CapturePaused => {
                "no frame of any kind was captured meanwhile: the capture paused, a file is missing, or its clock was set"
                    .to_owned()
            }
            Cause::Restarted if is_doubted => {
                "the numbering jumped, but the probe itself lost frames and may have made the hole".to_owned()
            }
            Cause::Restarted if gap.timestamp_ran_on() => {
                "the numbering jumped: the sender restarted, or 3,000 packets or more were lost, and the timestamp ran \
                 on: loss"
                    .to_owned()
            }
            Cause::Restarted => {
                "the numbering jumped: the sender restarted, or 3,000 packets or more were lost".to_owned()
            }
            Cause::Lost if is_doubted => format!(
                "{} missing, but the probe itself lost frames and may have made the hole",
                words::count(gap.missing, "packet")
            ),
            Cause::Lost => {
                format!("{} missing: sent, and lost on the way here", words::count(gap.missing, "packet"))
            }
            Cause::TimestampJumped => format!(
                "packets kept coming, and the timestamp alone jumped by {} s: the sender changed its source",
                words::signed(gap.jump_s().unwrap_or_default(), 2)
            ),
            Cause::Hold => {
                format!("{} was agreed, so silence is in order; nothing lost", held.unwrap_or_default())
            }
            Cause::CallEnded => "the call was over; nothing lost".to_owned(),
            Cause::SenderPaused if gap.timestamp_ran_on() => {
                "the sender was silent, its clock ran on; nothing lost".to_owned()
            }
            Cause::SenderPaused => {
                "the sender stopped sending, its numbers run on; nothing lost".to_owned()
            }
        };
        // Where packets kept coming, beginning and end are one.
        let ended = gap.is_silence().then_some(gap.at);
        Self {
            cause,
            because,
            began_at: begins.map(|(told, after_ms)| SignallingMoment::of(told, after_ms)),
            ended_at: ended.and_then(|ended| SignallingMoment::nearest(ended, moments, ends_pause)),
        }
    }

    /// Was nothing lost across it, as far as is known?
    pub fn is_pause(&self) -> bool {
        matches!(
            self.cause,
            Cause::SenderPaused | Cause::Hold | Cause::CallEnded | Cause::TimestampJumped | Cause::Fax
        )
    }

    /// Does what is missing across it say nothing of the network?
    pub fn is_excuse(&self) -> bool {
        matches!(self.cause, Cause::Fax | Cause::CapturePaused)
    }

    /// The whole of it: "1.81 s without packets, began 8 ms after REFER, ended 12 ms after NOTIFY 200: the sender …".
    pub fn sentence(&self, gap: &Interruption) -> String {
        let mut text = if gap.is_silence() {
            format!("{} without packets", words::silence(gap.silence_s))
        } else {
            "timestamp jump".to_owned()
        };
        let verb = if gap.is_silence() { "began " } else { "" };
        for (verb, moment) in [(verb, &self.began_at), ("ended ", &self.ended_at)] {
            if let Some(moment) = moment {
                let _ = write!(text, ", {verb}{}", moment.phrase());
            }
        }
        let _ = write!(text, ": {}", self.because);
        text
    }
}

impl SignallingMoment {
    /// The nearest to `time` of those moments that `concerns` picks, if one is near enough. The stream's own call comes
    /// before others.
    pub(super) fn nearest(time: Nanos, moments: &[Told], concerns: fn(What) -> bool) -> Option<Self> {
        Self::nearest_told(time, moments, concerns).map(|(told, after_ms)| Self::of(told, after_ms))
    }

    fn nearest_told(time: Nanos, moments: &[Told], concerns: fn(What) -> bool) -> Option<(&Told, f64)> {
        let near = moments
            .iter()
            .filter(|told| concerns(told.moment.what))
            .map(|told| (told, time.since(told.moment.time) as f64 / 1e6))
            .filter(|(_, after_ms)| (-AFTER_MS..=BEFORE_MS).contains(after_ms));
        near.min_by(|(a, a_ms), (b, b_ms)| {
            let is_other = |told: &Told| told.of_call.is_some();
            is_other(a).cmp(&is_other(b)).then(a_ms.abs().total_cmp(&b_ms.abs()))
        })
    }

    fn of(told: &Told, after_ms: f64) -> Self {
        Self {
            event: told.moment.what.to_string(),
            frame: told.moment.number,
            after_ms,
            of_call: told.of_call.clone(),
        }
    }

    /// "8 ms after REFER", "3 ms before re-INVITE of call a84b4c76".
    pub fn phrase(&self) -> String {
        let side = if self.after_ms < 0.0 { "before" } else { "after" };
        let mut text = format!("{:.0} ms {side} {}", self.after_ms.abs(), self.name());
        if let Some(call_id) = &self.of_call {
            let _ = write!(text, " of call {}", words::printable(words::short_call_id(call_id)));
        }
        text
    }

    /// The event as it is called within a sentence: "REFER", "NOTIFY 200", "hold (sendonly)".
    pub fn name(&self) -> String {
        words::printable(&self.event.replace(": transfer", ""))
    }
}

/// What of a call makes its senders pause.
fn begins_pause(what: What) -> bool {
    matches!(what, What::Refer | What::Hold(_) | What::ReInvite | What::Update | What::Replaced | What::Bye)
}

/// What makes them go on, or others in their place.
fn ends_pause(what: What) -> bool {
    matches!(
        what,
        What::Notify(_)
            | What::Resume
            | What::ReInvite
            | What::Update
            | What::Replaced
            | What::Ringing(_)
            | What::Answer
            | What::ForkAnswered
    )
}

/// What changes who sends, or what: another SSRC, codec, source.
pub(super) fn changes_media(what: What) -> bool {
    begins_pause(what) || ends_pause(what)
}

/// The hold that was in force at `time`, in words.
fn hold_at(time: Nanos, moments: &[Told]) -> Option<String> {
    let own = moments.iter().filter(|told| told.of_call.is_none()).map(|told| told.moment);
    let until = own.take_while(|moment| moment.time.since(time) as f64 / 1e6 <= AFTER_MS);
    let last = until.filter(|moment| matches!(moment.what, What::Hold(_) | What::Resume)).last()?;
    matches!(last.what, What::Hold(_)).then(|| last.what.to_string())
}

#[cfg(test)]
#[path = "forensics_tests.rs"]
mod tests;
