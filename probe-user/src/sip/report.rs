//! What a report says of a call: its state, its figures, its moments, and its relations to other calls.
//!
//! Nothing here decides anything: [`super::calls`] fills it.

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::announced::CallMedia;
use super::copies::Timer;
use super::dialog::Dialogs;
use super::hold::Hold;
use super::sdp::Direction;
use crate::packet::{Flow, Nanos};

/// What a call has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CallState {
    /// INVITE is out, nothing but 100 came back.
    #[default]
    Inviting,
    /// 401 or 407: the caller has to say who it is, and then invites again.
    Challenged,
    /// 101 to 199.
    Ringing,
    /// 2xx.
    Answered,
    /// BYE.
    Ended,
    /// The caller gave up (CANCEL, 487).
    Cancelled,
    /// Refused with this code.
    Failed(u16),
    /// Neither ended nor heard of any more: no SIP and no media for longer than a call can be silent.
    LostSight,
}

impl CallState {
    /// The word of reports: the code of a failure is `final_code`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inviting => "inviting",
            Self::Challenged => "challenged",
            Self::Ringing => "ringing",
            Self::Answered => "answered",
            Self::Ended => "ended",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
            Self::LostSight => "lost sight",
        }
    }

    /// Is it over?
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Cancelled | Self::Failed(_) | Self::LostSight)
    }
}

impl Serialize for CallState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// Something that happened in a call, for joining with what happened to its media at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When it was seen.
    pub time: Nanos,
    /// In which frame.
    pub number: u64,
    /// What.
    pub what: What,
}

/// Kinds of [`Moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// First INVITE.
    Invite,
    /// 401 or 407.
    Challenge(u16),
    /// First ringing, or other progress.
    Ringing(u16),
    /// 2xx to the first INVITE.
    Answer,
    /// 2xx of another fork, after one has answered.
    ForkAnswered,
    /// INVITE within the call.
    ReInvite,
    /// UPDATE within the call.
    Update,
    /// SDP that says hold, by its direction.
    Hold(Direction),
    /// SDP that ends a hold.
    Resume,
    /// REFER.
    Refer,
    /// NOTIFY of a transfer's progress, with the status that it reports.
    Notify(u16),
    /// Another call's INVITE takes its place (RFC 3891).
    Replaced,
    /// CANCEL.
    Cancel,
    /// BYE.
    Bye,
    /// Final refusal of the call.
    Failure(u16),
    /// See [`CallState::LostSight`].
    LostSight,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invite => f.write_str("INVITE"),
            Self::Challenge(code) => write!(f, "{code}, asked for credentials"),
            Self::Ringing(code) => write!(f, "{code}, ringing"),
            Self::Answer => f.write_str("answered"),
            Self::ForkAnswered => f.write_str("answered by another fork"),
            Self::ReInvite => f.write_str("re-INVITE"),
            Self::Update => f.write_str("UPDATE"),
            Self::Hold(direction) => write!(f, "hold ({})", direction.attribute()),
            Self::Resume => f.write_str("resumed"),
            Self::Refer => f.write_str("REFER: transfer"),
            Self::Notify(status) => write!(f, "NOTIFY: transfer {status}"),
            Self::Replaced => f.write_str("replaced by another call"),
            Self::Cancel => f.write_str("CANCEL"),
            Self::Bye => f.write_str("BYE"),
            Self::Failure(code @ 300..=399) => write!(f, "redirected with {code}"),
            Self::Failure(code) => write!(f, "failed with {code}"),
            Self::LostSight => f.write_str("lost sight of it"),
        }
    }
}

/// One REFER and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Transfer {
    /// When REFER was seen, in seconds after the call's first message.
    #[serde(serialize_with = "seconds")]
    pub at_s: Nanos,
    /// Frame number of the REFER.
    pub frame: u64,
    /// To a number, or to a call that the transferor has already made.
    pub kind: TransferKind,
    /// Who asked for it (From).
    pub by: Box<str>,
    /// Whom to call (Refer-To).
    pub target: Box<str>,
    /// Call-ID of the call that the new one shall replace (RFC 3891).
    pub replaces: Option<Box<str>>,
    /// Call-ID of the call that it made, if that was seen.
    pub new_call: Option<Arc<str>>,
    /// Status of the answer to REFER; 202 is usual.
    pub answer: Option<u16>,
    /// Last status that NOTIFY reported of the new call.
    pub outcome: Option<u16>,
    /// From REFER to the NOTIFY with a final status, in milliseconds.
    pub completed_ms: Option<f64>,
    #[serde(skip)]
    pub(super) seen: Nanos,
    #[serde(skip)]
    pub(super) cseq: u32,
}

/// Kinds of [`Transfer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferKind {
    /// To a number (RFC 5589, 6).
    #[default]
    Blind,
    /// To a call that the transferor has made: Refer-To names it in Replaces (RFC 5589, 7).
    Attended,
}

/// Another call that has to do with this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Its Call-ID.
    pub call_id: Arc<str>,
    /// What it is to this one.
    pub relation: Relation,
    /// What shows it.
    pub because: Box<str>,
}

/// What another call is to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// A REFER of this call made it.
    TransferTarget,
    /// Its REFER made this call.
    TransferredFrom,
    /// This call takes its place.
    Replaces,
    /// It takes this call's place.
    ReplacedBy,
    /// It is the other side of the same back-to-back user agent.
    B2buaLeg,
}

impl Relation {
    /// What this call is to the other one.
    #[must_use]
    pub fn inverse(self) -> Self {
        match self {
            Self::TransferTarget => Self::TransferredFrom,
            Self::TransferredFrom => Self::TransferTarget,
            Self::Replaces => Self::ReplacedBy,
            Self::ReplacedBy => Self::Replaces,
            Self::B2buaLeg => Self::B2buaLeg,
        }
    }
}

/// Retransmissions by the timer that made them. As JSON, an object of those that made any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerCounts([u32; Timer::ALL.len()]);

impl TimerCounts {
    /// Retransmissions that this timer made.
    pub fn of(&self, timer: Timer) -> u32 {
        self.iter().find(|(of, _)| *of == timer).map_or(0, |(_, count)| count)
    }

    /// All timers and their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Timer, u32)> {
        Timer::ALL.into_iter().zip(self.0)
    }

    pub(crate) fn add(&mut self, timer: Timer, more: u32) {
        let counts = Timer::ALL.into_iter().zip(&mut self.0);
        for (_, count) in counts.filter(|(of, _)| *of == timer) {
            *count = count.saturating_add(more);
        }
    }
}

impl Serialize for TimerCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (timer, count) in self.iter().filter(|(_, count)| *count > 0) {
            map.serialize_entry(timer.name(), &count)?;
        }
        map.end()
    }
}

/// A call as a report shows it. `streams` is joined by the caller, from [`CallReport::media`] or Call-ID.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CallReport {
    /// Call-ID.
    pub call_id: Arc<str>,
    /// URI of the caller.
    pub from: Arc<str>,
    /// URI of the called.
    pub to: Arc<str>,
    /// What it has come to.
    pub state: CallState,
    /// Status that refused or cancelled it.
    pub final_code: Option<u16>,
    /// "caller" or "called", if BYE was seen and the caller is known.
    pub ended_by: Option<&'static str>,
    /// Why it ended, in the words of whoever ended it: the Reason header (RFC 3326) as
    /// "Q.850;cause=16 Normal call clearing", else the reason phrase of the status that refused it.
    pub disconnect_reason: Option<Arc<str>>,
    /// First INVITE to first 2xx, in milliseconds.
    pub setup_ms: Option<f64>,
    /// First INVITE to first 101 to 199: the post-dial delay, in milliseconds.
    pub ringing_ms: Option<f64>,
    /// First 101 to 199 to the 2xx, the refusal or the end, in milliseconds.
    pub rang_ms: Option<f64>,
    /// 2xx to BYE, in milliseconds.
    pub talked_ms: Option<f64>,
    /// Messages, without copies.
    pub messages: u64,
    /// Copies of them.
    pub message_copies: u64,
    /// Those of `messages` that a timer repeated.
    pub retransmissions: u64,
    /// The same by timer.
    pub timers: TimerCounts,
    /// 401 and 407, each counted once.
    pub auth_challenges: u64,
    /// Of them, those in answer to credentials.
    pub credentials_refused: u32,
    /// INVITEs within the call: hold, resume, codec change, refresh.
    pub reinvites: u64,
    /// UPDATEs within the call (RFC 3311).
    pub updates: u32,
    /// PRACKs: acknowledged reliable provisional responses (RFC 3262).
    pub prack: u32,
    /// How often one party put the other on hold.
    pub holds: u32,
    /// The first few of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Hold>,
    /// Within this many seconds the call is refreshed or over (Session-Expires of RFC 4028).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_expires_s: Option<u32>,
    /// Different To tags in responses to one INVITE: two or more, and the call was forked.
    pub forks: u16,
    /// Those user agents; told if there are several.
    #[serde(skip_serializing_if = "Dialogs::are_plain")]
    pub dialogs: Dialogs,
    /// A response before the answer carried SDP: announcements or ring-back tone may be heard.
    pub early_media: bool,
    /// REFERs.
    pub transfers: Vec<Transfer>,
    /// Other calls that have to do with it.
    pub related: Vec<Related>,
    /// The call began before the capture, or its INVITE was not seen.
    pub seen_from_the_middle: bool,
    /// What it announced and agreed on.
    #[serde(skip)]
    pub media: CallMedia,
    /// What happened when.
    #[serde(skip)]
    pub moments: Vec<Moment>,
    /// Frame number of its first message.
    pub first_frame: u64,
    /// Time of its first message.
    #[serde(skip)]
    pub began: Nanos,
    /// Time of its last message.
    #[serde(skip)]
    pub last_seen: Nanos,
}

/// A change of a call, for the health log.
#[derive(Clone, Debug, PartialEq)]
pub struct CallEvent {
    /// Call-ID.
    pub call_id: Arc<str>,
    /// What happened, when, in which frame.
    pub moment: Moment,
    /// From whom to whom the message went that made it.
    pub flow: Flow,
    /// The state after it.
    pub state: CallState,
    /// What is known of the call by then.
    pub figures: Figures,
}

/// Who, how long, and how it ended, as in [`CallReport`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// URI of the caller.
    pub from: Arc<str>,
    /// URI of the called.
    pub to: Arc<str>,
    /// First INVITE to first 2xx, in milliseconds.
    pub setup_ms: Option<f64>,
    /// Post-dial delay, in milliseconds.
    pub ringing_ms: Option<f64>,
    /// How long it rang, in milliseconds.
    pub rang_ms: Option<f64>,
    /// 2xx to BYE, in milliseconds.
    pub talked_ms: Option<f64>,
    /// "caller" or "called".
    pub ended_by: Option<&'static str>,
    /// Status that refused or cancelled it.
    pub final_code: Option<u16>,
    /// In the words of whoever ended it.
    pub disconnect_reason: Option<Arc<str>>,
}

impl CallReport {
    /// What the health log says of it now.
    pub fn figures(&self) -> Figures {
        Figures {
            from: Arc::clone(&self.from),
            to: Arc::clone(&self.to),
            setup_ms: self.setup_ms,
            ringing_ms: self.ringing_ms,
            rang_ms: self.rang_ms,
            talked_ms: self.talked_ms,
            ended_by: self.ended_by,
            final_code: self.final_code,
            disconnect_reason: self.disconnect_reason.clone(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn seconds<S: Serializer>(time: &Nanos, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.0 as f64 / 1e9)
}
