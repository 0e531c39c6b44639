//! One call as a ladder: who said what to whom, what was heard meanwhile, and what was only captured twice.
//!
//! ```text
//!   Transcript ─▶ messages ─┐
//!                           ├─▶ Ladder: rows in the order of time ─▶ text of 100 columns, or JSON
//!   Report ─▶ streams, gaps ┘
//! ```
//!
//! A message stands once, however often it was captured; a retransmission stands for itself, with the timer that
//! made it. Media stands where it begins, with what became of it.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::contract::{CallWithStreams, Report, StreamReport};
use super::page::clip;
use super::words;
use crate::dedup::Cause;
use crate::packet::Endpoint;
use crate::sip::sdp::Direction;
use crate::sip::transcript::{Copies, Line, Transcript};
use crate::sip::{Repeat, Timer};

/// Columns of a line.
const WIDTH: usize = 100;
/// Columns before the first participant: time, and time since the row before.
const LEFT: usize = 20;
/// Columns kept after the last participant's line, for its name.
const RIGHT: usize = 16;
/// Columns between two participants, at most and at least.
const WIDEST: usize = 40;
const NARROWEST: usize = 12;
/// Participants drawn as columns; what others say is written out.
const MAX_COLUMNS: usize = 6;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Ladder {
    /// Call-ID.
    pub call_id: String,
    /// URIs of caller and called.
    pub parties: (String, String),
    /// Who takes part, in order of appearance: an address, with its port where two share one.
    pub participants: Vec<String>,
    /// What happened, in the order of time.
    pub rows: Vec<Row>,
    /// Messages for which there was no room.
    pub left_out: u64,
}

/// One row.
#[derive(Debug, PartialEq, Serialize)]
pub struct Row {
    /// Seconds since the capture began.
    pub at_s: f64,
    /// Its frame.
    pub frame: u64,
    /// What kind it is of.
    pub kind: Kind,
    /// Index of the participant that it comes from.
    pub from: usize,
    /// Index of the participant that it goes to.
    pub to: usize,
    /// Method, status, or what is to say of the media.
    pub label: String,
    /// What is to say besides: copies, retransmission.
    pub notes: Vec<String>,
}

/// Kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A SIP message.
    Message,
    /// A media stream begins.
    Media,
    /// A media stream falls silent.
    Silence,
}

/// Which characters a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// Lines and arrows.
    Utf8,
    /// What every terminal and every mail has.
    Ascii,
}

impl Ladder {
    /// Of one call of a report, from what was said in it.
    pub fn new(report: &Report, call: &CallWithStreams, transcript: &Transcript) -> Self {
        let said: Vec<&Line> = transcript.lines().filter(|line| line.call_id == call.call.call_id).collect();
        let is_one_host = said.iter().any(|line| line.flow.src.address == line.flow.dst.address);
        let mut participants = Participants { all: Vec::new(), with_ports: is_one_host };
        let mut rows: Vec<Row> = said
            .iter()
            .map(|line| Row {
                at_s: line.time.since(transcript.epoch()) as f64 / 1e9,
                frame: line.number,
                kind: Kind::Message,
                from: participants.of(line.flow.src),
                to: participants.of(line.flow.dst),
                label: label(line),
                notes: repeated(line.repeat).into_iter().chain(captured(&line.copies)).collect(),
            })
            .collect();
        let is_its = |stream: &&StreamReport| stream.call_id.as_ref() == Some(&call.call.call_id);
        for stream in report.streams.iter().filter(is_its) {
            let (from, to) = (participants.of(stream.src), participants.of(stream.dst));
            rows.push(Row {
                at_s: stream.start_s,
                frame: 0,
                kind: Kind::Media,
                from,
                to,
                label: media(stream),
                notes: vec![format!(
                    "{} in {:.1} s",
                    words::count(stream.unique.packets, "packet"),
                    stream.unique.duration_s
                )],
            });
            rows.extend(stream.interruptions.iter().filter(|found| found.gap.is_silence()).map(|found| {
                let ended_s = found.gap.at.since(transcript.epoch()) as f64 / 1e9;
                let why = if found.gap.missing > 0 { "packets are missing" } else { "the sender paused" };
                Row {
                    at_s: ended_s - found.gap.silence_s,
                    frame: found.gap.packet,
                    kind: Kind::Silence,
                    from,
                    to,
                    label: format!("{:.2} s silent: {why}", found.gap.silence_s),
                    notes: Vec::new(),
                }
            }));
        }
        rows.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Self {
            call_id: call.call.call_id.to_string(),
            parties: (call.call.from.to_string(), call.call.to.to_string()),
            participants: participants.names(),
            rows,
            left_out: transcript.left_out(),
        }
    }

    /// As text, in lines of at most a hundred columns.
    pub fn render(&self, charset: Charset) -> String {
        let drawing = Drawing::new(self.participants.len(), charset);
        let mut out = String::new();
        let title = format!(
            "call {}: {} to {}",
            words::printable(&self.call_id),
            words::printable(&self.parties.0),
            words::printable(&self.parties.1),
        );
        let _ = writeln!(out, "{}\n", clip(&title, WIDTH));
        out.push_str(&drawing.head(&self.participants));
        let mut before = None;
        for row in &self.rows {
            let since = before.map_or_else(String::new, |before| format!("{:+.3}", row.at_s - before));
            before = Some(row.at_s);
            let time = format!("{:>9.3} {since:>8}  ", row.at_s);
            let notes = words::printable(&row.notes.join("; "));
            out.push_str(&drawing.row(&time, row, &notes, &self.participants));
        }
        if self.left_out > 0 {
            let _ = writeln!(out, "{} more messages are not shown", words::thousands(self.left_out));
        }
        out
    }
}

/// Who takes part.
struct Participants {
    all: Vec<Endpoint>,
    /// Do several of them share an address, so that the port tells them apart?
    with_ports: bool,
}

impl Participants {
    fn of(&mut self, endpoint: Endpoint) -> usize {
        let is_same =
            |known: &Endpoint| known.address == endpoint.address && (!self.with_ports || *known == endpoint);
        self.all.iter().position(is_same).unwrap_or_else(|| {
            self.all.push(endpoint);
            self.all.len() - 1
        })
    }

    fn names(&self) -> Vec<String> {
        let name = |endpoint: &Endpoint| match endpoint.ip() {
            _ if self.with_ports => endpoint.to_string(),
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => address.to_string(),
        };
        self.all.iter().map(name).collect()
    }
}

/// Where the columns are, and what they are drawn with.
struct Drawing {
    columns: usize,
    gap: usize,
    /// Life line, message, media, silence, heads to the right and to the left, ellipsis.
    marks: [char; 7],
}

impl Drawing {
    fn new(participants: usize, charset: Charset) -> Self {
        let columns = participants.clamp(1, MAX_COLUMNS);
        let gap = (WIDTH - LEFT - RIGHT) / (columns - 1).max(1);
        let marks = match charset {
            Charset::Utf8 => ['│', '─', '═', '╌', '▶', '◀', '…'],
            Charset::Ascii => ['|', '-', '=', '.', '>', '<', '~'],
        };
        Self { columns, gap: gap.clamp(NARROWEST, WIDEST), marks }
    }

    fn at(&self, participant: usize) -> usize {
        LEFT + participant * self.gap
    }

    fn head(&self, participants: &[String]) -> String {
        let mut line = vec![' '; WIDTH];
        for (index, name) in participants.iter().take(self.columns).enumerate() {
            let room = if index + 1 == self.columns { WIDTH - self.at(index) } else { self.gap - 2 };
            put(&mut line, self.at(index), &self.tail(name, room));
        }
        put(&mut line, 0, "   time s   since");
        finish(&line)
    }

    /// One row, and the notes where there is room for them: beside it, or below.
    fn row(&self, time: &str, row: &Row, notes: &str, participants: &[String]) -> String {
        let mut line = self.life_lines();
        put(&mut line, 0, time);
        let ends = self.at(self.columns - 1) + 2;
        if row.from.max(row.to) >= self.columns || row.from == row.to {
            let name = |index: usize| participants.get(index).map_or("?", String::as_str);
            let text = format!("{} {} {}: {}", name(row.from), self.marks[4], name(row.to), row.label);
            put(&mut line, LEFT, &self.head_of(&words::printable(&text), WIDTH - LEFT));
        } else {
            self.arrow(&mut line, row);
        }
        let mut out = String::new();
        if notes.is_empty() {
            return finish(&line);
        }
        let is_free = line.iter().skip(ends).all(|c| *c == ' ');
        if is_free && ends + notes.chars().count() <= WIDTH {
            put(&mut line, ends, notes);
            out.push_str(&finish(&line));
        } else {
            out.push_str(&finish(&line));
            let mut below = self.life_lines();
            put(&mut below, LEFT + 2, &self.head_of(notes, WIDTH - LEFT - 2));
            out.push_str(&finish(&below));
        }
        out
    }

    fn arrow(&self, line: &mut [char], row: &Row) {
        let [_, message, media, silence, right, left, _] = self.marks;
        let stroke = match row.kind {
            Kind::Message => message,
            Kind::Media => media,
            Kind::Silence => silence,
        };
        let (from, to) = (self.at(row.from), self.at(row.to));
        let (low, high) = (from.min(to), from.max(to));
        for slot in line.iter_mut().take(high).skip(low + 1) {
            *slot = stroke;
        }
        let (head, at) = if to > from { (right, high - 1) } else { (left, low + 1) };
        if let Some(slot) = line.get_mut(at) {
            *slot = head;
        }
        let label = self.head_of(&words::printable(&row.label), high - low - 6);
        let label = format!(" {label} ");
        put(line, low + 1 + (high - low - 1 - label.chars().count()) / 2, &label);
    }

    fn life_lines(&self) -> Vec<char> {
        let mut line = vec![' '; WIDTH];
        for index in 0..self.columns {
            if let Some(slot) = line.get_mut(self.at(index)) {
                *slot = self.marks[0];
            }
        }
        line
    }

    /// The beginning of a text, in so many columns.
    fn head_of(&self, text: &str, room: usize) -> String {
        if text.chars().count() <= room {
            return text.to_owned();
        }
        text.chars().take(room.saturating_sub(1)).chain([self.marks[6]]).collect()
    }

    /// The end of a text: that of an address tells two apart.
    fn tail(&self, text: &str, room: usize) -> String {
        let length = text.chars().count();
        if length <= room {
            return text.to_owned();
        }
        [self.marks[6]].into_iter().chain(text.chars().skip(length + 1 - room.max(1))).collect()
    }
}

fn put(line: &mut [char], at: usize, text: &str) {
    for (slot, c) in line.iter_mut().skip(at).zip(text.chars()) {
        *slot = c;
    }
}

fn finish(line: &[char]) -> String {
    let text: String = line.iter().collect();
    format!("{}\n", text.trim_end())
}

fn label(line: &Line) -> String {
    let mut label = line.label.to_string();
    if let Some((_, method)) = &line.answers {
        let _ = write!(label, " ({method})");
    }
    match line.sdp {
        None => {}
        Some(Direction::SendRecv) => label.push_str(" SDP"),
        Some(direction) => {
            let _ = write!(label, " SDP {}", direction.attribute());
        }
    }
    label
}

/// Why a message was sent again.
fn repeated(repeat: Option<Repeat>) -> Option<String> {
    Some(match repeat? {
        Repeat::Timer(Timer::TwoHundred) => "sent again: no ACK came".to_owned(),
        Repeat::Timer(Timer::Provisional) => "sent again: no PRACK came".to_owned(),
        Repeat::Timer(timer) => format!("sent again by timer {}", timer.name()),
        Repeat::Echo => "sent again: what it answers came again".to_owned(),
        Repeat::Unscheduled => "sent again, by no timer".to_owned(),
    })
}

/// How often a message was captured, and why: `x4: 2 taps x rpcap`.
fn captured(copies: &[Copies]) -> Option<String> {
    let total: u32 = 1 + copies.iter().map(|kind| kind.count).sum::<u32>();
    if total == 1 {
        return None;
    }
    let tunnelled = |kind: &&Copies| kind.cause == Cause::Encapsulated;
    let inside: u32 = copies.iter().filter(tunnelled).map(|kind| kind.count).sum();
    let taps = total - inside;
    let layers: Vec<_> = copies.iter().filter(tunnelled).filter_map(|kind| kind.layer).collect();
    if let ([layer], true) = (layers.as_slice(), taps > 1 && inside == taps) {
        return Some(format!("x{total}: {taps} taps x {}", layer.name()));
    }
    let kinds: Vec<_> = copies
        .iter()
        .map(|kind| match kind.layer.filter(|_| kind.cause == Cause::Encapsulated) {
            Some(layer) => layer.name(),
            None => kind.cause.label(),
        })
        .collect();
    Some(format!("x{total}: {}", kinds.join(", ")))
}

fn media(stream: &StreamReport) -> String {
    let codec = stream.codec.as_deref().unwrap_or("?");
    let mut label = format!("RTP {codec} lost {:.1} %", stream.unique.lost_percent);
    if let Some(jitter) = &stream.jitter_percentiles_us {
        let _ = write!(label, " p99 {} ms", words::ms(jitter.p99));
    }
    label
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
