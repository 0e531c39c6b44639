//! What happened in calls lately that may have made a sender pause, by call: each line of a stream that paused asks for its own, and
//! after a hole there are as many such lines as streams.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::sip::calls::Moment;

/// REFERs, holds, re-INVITEs and BYEs that are remembered; the oldest makes room.
const MOST: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// In order of time.
    by_call: FxHashMap<Arc<str>, Vec<Moment>>,
    /// Whose each of them is, the oldest first.
    calls: VecDeque<Arc<str>>,
}

impl Moments {
    /// Remembers one of a call.
    pub(super) fn note(&mut self, call_id: &Arc<str>, moment: Moment) {
        if self.calls.len() == MOST {
            self.forget_one();
        }
        self.calls.push_back(Arc::clone(call_id));
        self.by_call.entry(Arc::clone(call_id)).or_default().push(moment);
    }

    /// Those of a call, in order.
    pub(super) fn of(&self, call_id: &str) -> &[Moment] {
        self.by_call.get(call_id).map_or(&[], Vec::as_slice)
    }

    fn forget_one(&mut self) {
        let Some(call_id) = self.calls.pop_front() else { return };
        if let Some(moments) = self.by_call.get_mut(&call_id) {
            moments.remove(0);
            if moments.is_empty() {
                self.by_call.remove(&call_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Nanos;
    use crate::sip::calls::What;

    #[test]
    fn each_call_has_its_own_and_the_oldest_of_all_makes_room() {
        let mut moments = Moments::default();
        let ids: Vec<Arc<str>> = (0..3).map(|n| format!("call {n}").into()).collect();
        let count = MOST + 100;
        for n in 0..count {
            let moment = Moment { time: Nanos(n as u64), number: n as u64, what: What::Refer };
            moments.note(&ids[n * n % 3], moment);
        }
        for (at, id) in ids.iter().enumerate() {
            let of_it = (100..count).filter(|n| n * n % 3 == at).map(|n| n as u64);
            assert!(moments.of(id).iter().map(|moment| moment.number).eq(of_it), "{id}");
        }
        // The square of no number leaves 2.
        assert_eq!((moments.by_call.len(), moments.calls.len()), (2, MOST));
    }
}
