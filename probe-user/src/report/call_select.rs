//! Which calls a person asked for, and in which order: the options of `voxprobe calls`.

use std::cmp::Ordering;
use std::str::FromStr;

use super::contract::{CallWithStreams, Report, StreamReport};
use super::problems::{self, ByCall};
use super::words;
use crate::sip::CallState;

/// What a call has to be to be listed. Everything that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct CallFilter {
    /// The word of its state, or its final code.
    pub state: Option<State>,
    /// A part of the caller's URI.
    pub from: Option<String>,
    /// A part of the called's URI.
    pub to: Option<String>,
    /// A part of the Call-ID.
    pub call: Option<String>,
    /// Something about it deserves a look.
    pub has_problems: bool,
}

/// A state, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// By its word.
    Word(&'static str),
    /// By the code that refused or cancelled it.
    Code(u16),
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(code @ 300..=699) = text.parse() {
            return Ok(Self::Code(code));
        }
        let is_asked_for = |word: &&str| word.replace(' ', "-").eq_ignore_ascii_case(&text.replace(' ', "-"));
        STATES.into_iter().map(CallState::word).find(is_asked_for).map(Self::Word).ok_or_else(|| {
            let words: Vec<_> = STATES.into_iter().map(|state| state.word().replace(' ', "-")).collect();
            format!("one of {}, or a status from 300 to 699", words.join(", "))
        })
    }
}

/// One of each state, for its word.
const STATES: [CallState; 8] = [
    CallState::Inviting,
    CallState::Challenged,
    CallState::Ringing,
    CallState::Answered,
    CallState::Ended,
    CallState::Cancelled,
    CallState::Failed(0),
    CallState::LostSight,
];

/// In which order calls are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they began.
    #[default]
    Begin,
    /// The worst loss first.
    Loss,
    /// The worst jitter first.
    Jitter,
    /// The worst score first.
    Mos,
    /// The longest wait for an answer first.
    Setup,
    /// The longest first.
    Talk,
    /// Most messages first.
    Messages,
}

impl CallFilter {
    /// Is it one of those that were asked for?
    fn takes(&self, call: &CallWithStreams) -> bool {
        let has =
            |text: &str, part: &Option<String>| part.as_ref().is_none_or(|part| text.contains(part.as_str()));
        let is_state = match self.state {
            None => true,
            Some(State::Word(word)) => call.call.state.word() == word,
            Some(State::Code(code)) => call.call.final_code == Some(code),
        };
        is_state
            && has(&call.call.from, &self.from)
            && has(&call.call.to, &self.to)
            && has(&call.call.call_id, &self.call)
            && (!self.has_problems || !call.problems.is_empty())
    }

    /// Leaves in a report the calls that were asked for, in this order.
    pub fn apply(&self, report: &mut Report, order: Order) {
        report.calls.retain(|call| self.takes(call));
        let by_call = ByCall::of(&report.streams);
        let worst = |call: &CallWithStreams| {
            let streams = by_call.streams_of(call);
            problems::worst(&streams).and_then(|at| streams.get(at).copied())
        };
        report.calls.sort_by(|a, b| order.compare((a, worst(a)), (b, worst(b))));
    }

    /// What was asked for, as options.
    pub fn describe(&self) -> String {
        let mut said = Vec::new();
        match &self.state {
            Some(State::Word(word)) => said.push(format!("--state {}", word.replace(' ', "-"))),
            Some(State::Code(code)) => said.push(format!("--state {code}")),
            None => {}
        }
        for (option, part) in [("--from", &self.from), ("--to", &self.to), ("--call", &self.call)] {
            said.extend(part.as_ref().map(|part| format!("{option} {}", words::printable(part))));
        }
        if self.has_problems {
            said.push("--problems".to_owned());
        }
        said.join(" ")
    }
}

/// A call and the worst of its streams.
type Rated<'a> = (&'a CallWithStreams, Option<&'a StreamReport>);

impl Order {
    /// What has no figure comes last.
    fn compare(self, (a, a_worst): Rated<'_>, (b, b_worst): Rated<'_>) -> Ordering {
        let greatest = |a: Option<f64>, b: Option<f64>| {
            b.unwrap_or(f64::NEG_INFINITY).total_cmp(&a.unwrap_or(f64::NEG_INFINITY))
        };
        let loss = |stream: &StreamReport| stream.unique.lost_percent;
        let jitter = |stream: &StreamReport| stream.jitter_percentiles_us.as_ref().map(|jitter| jitter.p99);
        let badness = |stream: &StreamReport| stream.mos.as_ref().map(|mos| -mos.value);
        match self {
            Self::Begin => Ordering::Equal,
            Self::Loss => greatest(a_worst.map(loss), b_worst.map(loss)),
            Self::Jitter => greatest(a_worst.and_then(jitter), b_worst.and_then(jitter)),
            Self::Mos => greatest(a_worst.and_then(badness), b_worst.and_then(badness)),
            Self::Setup => greatest(a.call.setup_ms, b.call.setup_ms),
            Self::Talk => greatest(a.call.talked_ms, b.call.talked_ms),
            Self::Messages => b.call.messages.cmp(&a.call.messages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{call, named, report, stream};
    use super::*;

    fn three() -> Report {
        let mut report = report(Vec::new());
        report.calls = ["a1", "b2", "c3"].map(call).into();
        for (call, (state, code, setup)) in report.calls.iter_mut().zip([
            (CallState::Ended, None, Some(900.0)),
            (CallState::Failed(503), Some(503), None),
            (CallState::Ended, None, Some(5_000.0)),
        ]) {
            (call.call.state, call.call.final_code, call.call.setup_ms) = (state, code, setup);
        }
        report.calls[2].call.from = "sip:alice@pbx.example".into();
        report
    }

    fn listed(filter: &CallFilter, order: Order) -> Vec<String> {
        let mut report = three();
        filter.apply(&mut report, order);
        report.calls.iter().map(|call| call.call.call_id.to_string()).collect()
    }

    #[test]
    fn everything_that_is_asked_for_must_hold() {
        let state = |text: &str| Some(text.parse().unwrap());
        let none = CallFilter::default;
        assert_eq!(listed(&none(), Order::Begin), ["a1", "b2", "c3"]);
        assert_eq!(listed(&CallFilter { state: state("failed"), ..none() }, Order::Begin), ["b2"]);
        assert_eq!(listed(&CallFilter { state: state("503"), ..none() }, Order::Begin), ["b2"]);
        let alice = CallFilter { state: state("ended"), from: Some("alice".to_owned()), ..none() };
        assert_eq!(listed(&alice, Order::Begin), ["c3"]);
        assert_eq!(alice.describe(), "--state ended --from alice");
        assert_eq!(
            listed(
                &CallFilter { call: Some("b".to_owned()), to: Some("200".to_owned()), ..none() },
                Order::Begin
            ),
            ["b2"]
        );
        assert_eq!(listed(&CallFilter { has_problems: true, ..none() }, Order::Begin), [""; 0]);
    }

    #[test]
    fn what_has_no_figure_comes_last() {
        assert_eq!(listed(&CallFilter::default(), Order::Setup), ["c3", "a1", "b2"]);
        let mut lossy = stream();
        (lossy.call_id, lossy.unique.lost_percent) = (Some("b2".into()), 7.0);
        let mut report = three();
        report.calls[1].streams = vec![named(&lossy)];
        report.streams = vec![lossy];
        CallFilter::default().apply(&mut report, Order::Loss);
        assert_eq!(&*report.calls[0].call.call_id, "b2");
    }

    #[test]
    fn an_unknown_state_is_answered_with_the_known_ones() {
        assert!("busy".parse::<State>().unwrap_err().starts_with("one of inviting, challenged"));
        assert_eq!("Failed".parse(), Ok(State::Word("failed")));
    }
}
