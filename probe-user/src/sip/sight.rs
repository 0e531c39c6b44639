//! Calls that fall silent: when nothing is heard of a call any more, it must not stay open forever.
//!
//! A call that rings is over after five minutes without SIP: no proxy waits longer than three for an answer (timer C,
//! RFC 3261, 16.6). A call that was answered is over when it shows neither SIP nor media for half an hour, which is
//! how long a call is kept that is only refreshed (RFC 4028 recommends 1,800 s), or for as long as its own
//! Session-Expires says and 64 T1. It comes back with its next message.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::call::Call;
use super::media::MediaTable;
use super::report::CallState;
use crate::packet::Nanos;

const SECOND: u64 = 1_000_000_000;
const UNANSWERED: u64 = 300 * SECOND;
const ANSWERED: u64 = 1_800 * SECOND;
const TRANSACTION: u64 = 32 * SECOND;

/// When each live call is looked at next. One entry a call.
#[derive(Debug, Default)]
pub(super) struct Sight {
    due: BinaryHeap<Reverse<(Nanos, u64)>>,
}

impl Sight {
    /// Looks at a call when it may have been silent for too long, and once a minute, as its patience may shrink.
    pub(super) fn watch(&mut self, serial: u64, now: Nanos, deadline: Nanos) {
        let at = deadline.min(Nanos(now.0.saturating_add(60 * SECOND)));
        self.due.push(Reverse((at, serial)));
    }

    /// The next call that is due.
    pub(super) fn next(&mut self, now: Nanos) -> Option<u64> {
        let Reverse((at, _)) = self.due.peek()?;
        if *at > now {
            return None;
        }
        self.due.pop().map(|Reverse((_, serial))| serial)
    }

    /// Forgets calls that are gone, once they are more than those that are not.
    pub(super) fn forget(&mut self, bound: usize, is_there: impl Fn(u64) -> bool) {
        if self.due.len() > 2 * bound {
            self.due.retain(|Reverse((_, serial))| is_there(*serial));
        }
    }
}

/// When a call will have been silent for too long, as far as is known now.
pub(super) fn deadline(call: &Call, media: &MediaTable) -> Nanos {
    let report = &call.report;
    let (heard, patience) = match report.state {
        CallState::Answered => {
            let heard = report.media.ids().filter_map(|id| media.last_seen(id)).max();
            let session = report.session_expires_s.map(|seconds| u64::from(seconds) * SECOND + TRANSACTION);
            (heard.unwrap_or_default().max(report.last_seen), session.unwrap_or(ANSWERED))
        }
        _ => (report.last_seen, UNANSWERED),
    };
    Nanos(heard.0.saturating_add(patience))
}
