//! A call in the health log: that it began, rang, was answered, held, transferred; and at its end what it was like.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use super::call_media::CallFinding;
use super::words;
use crate::packet::Endpoint;
use crate::sip::CallEvent;

/// Problems told in the text of one end; JSON has them all.
const MAX_PROBLEMS: usize = 3;

/// A call's news.
#[derive(Clone, Debug, Serialize)]
pub struct CallEntry {
    /// The call.
    pub call_id: Arc<str>,
    /// What happened, in words.
    pub event: String,
    /// What it has come to.
    pub state: &'static str,
    /// Number of the frame.
    pub frame: u64,
    /// URI of the caller.
    pub from: Arc<str>,
    /// URI of the called.
    pub to: Arc<str>,
    /// First INVITE to first 101 to 199, in milliseconds.
    pub ringing_ms: Option<f64>,
    /// First INVITE to first 2xx, in milliseconds.
    pub setup_ms: Option<f64>,
    /// First 101 to 199 to the answer, the refusal or the end, in milliseconds.
    pub rang_ms: Option<f64>,
    /// 2xx to BYE, in milliseconds.
    pub talked_ms: Option<f64>,
    /// "caller" or "called".
    pub ended_by: Option<&'static str>,
    /// Status that refused or cancelled it.
    pub final_code: Option<u16>,
    /// In the words of whoever ended it.
    pub disconnect_reason: Option<Arc<str>>,
    /// How its media was, at its end.
    #[serde(flatten)]
    pub end: Option<CallEnd>,
}

/// What there is to say of a call that is over.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CallEnd {
    /// Streams that were heard.
    pub stream_count: usize,
    /// The one that sounded worst.
    pub worst_stream: Option<WorstStream>,
    /// What deserves a look.
    pub problems: Vec<CallFinding>,
}

/// A stream in a few figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorstStream {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// `0x%08x`.
    pub ssrc: String,
    /// Codec, if known.
    pub codec: Option<String>,
    /// Lost, copies removed.
    pub lost_percent: f64,
    /// The probe itself lost frames meanwhile.
    pub loss_is_upper_bound: bool,
    /// Jitter: 99 % are not above. Live, of the worst interval.
    pub jitter_p99_us: Option<f64>,
    /// Score. Live, of the worst interval.
    pub mos: Option<f64>,
}

impl CallEntry {
    /// From the tracker's news.
    pub fn new(event: &CallEvent) -> Self {
        let figures = event.figures.clone();
        Self {
            call_id: Arc::clone(&event.call_id),
            event: event.moment.what.to_string(),
            state: event.state.word(),
            frame: event.moment.number,
            from: figures.from,
            to: figures.to,
            ringing_ms: figures.ringing_ms,
            setup_ms: figures.setup_ms,
            rang_ms: figures.rang_ms,
            talked_ms: figures.talked_ms,
            ended_by: figures.ended_by,
            final_code: figures.final_code,
            disconnect_reason: figures.disconnect_reason,
            end: None,
        }
    }

    /// The line's text.
    pub(super) fn text(&self) -> String {
        let id = words::printable(words::short_call_id(&self.call_id));
        let mut text = format!("{id}  {}", self.state);
        if self.event != self.state {
            let event = words::printable(&self.event);
            // "ringing  180, ringing" says it twice.
            let own = event.strip_suffix(self.state).map_or(&*event, |rest| rest.trim_end_matches(", "));
            let _ = write!(text, "  {own}");
        }
        let after = |ms: Option<f64>| ms.map_or_else(String::new, |ms| format!(" after {}", words::span(ms)));
        let Some(end) = &self.end else {
            match self.state {
                "ringing" => text.push_str(&after(self.ringing_ms)),
                "answered" if self.event == self.state => text.push_str(&after(self.setup_ms)),
                _ => {}
            }
            if self.event == "INVITE" {
                text.push_str(&self.parties());
            }
            return text;
        };
        text.push_str(&self.parties());
        if let Some(who) = self.ended_by {
            let _ = write!(text, "  by {who}");
        }
        text.push_str(&after(self.talked_ms));
        if let Some(reason) = &self.disconnect_reason {
            let _ = write!(text, ": {}", words::printable(reason));
        }
        text.push_str(&end.text());
        text
    }

    fn parties(&self) -> String {
        let [from, to] = [&self.from, &self.to].map(|uri| words::printable(words::party(uri)));
        format!("  {from} → {to}")
    }
}

impl CallEnd {
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(worst) = &self.worst_stream {
            let which = if self.stream_count > 1 { "worst of " } else { "" };
            let count = words::count(self.stream_count as u64, "stream");
            let bound = if worst.loss_is_upper_bound { "≤" } else { "" };
            let _ = write!(
                text,
                "  {which}{count}: {} → {} lost {bound}{:.1} %",
                worst.src, worst.dst, worst.lost_percent
            );
            if let Some(p99) = worst.jitter_p99_us {
                let _ = write!(text, " jitter p99 {} ms", words::ms(p99));
            }
            if let Some(mos) = worst.mos {
                let _ = write!(text, " MOS {mos:.1}");
            }
        }
        // The worst stream's loss was told.
        let is_told = |problem: &&CallFinding| {
            self.worst_stream.as_ref().is_some_and(|worst| {
                problem.id == "packets-lost"
                    && problem.text.starts_with(&format!("{} → {}:", worst.src, worst.dst))
            })
        };
        let further: Vec<_> = self.problems.iter().filter(|problem| !is_told(problem)).collect();
        for problem in further.iter().take(MAX_PROBLEMS) {
            let _ = write!(text, "; {}", words::printable(&problem.text));
        }
        if further.len() > MAX_PROBLEMS {
            let _ = write!(text, "; and {} more", further.len() - MAX_PROBLEMS);
        }
        text
    }
}
