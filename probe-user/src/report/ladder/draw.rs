//! The ladder as text: columns for those who take part, arrows between them, notes at the right or below.
//!
//! Everything is drawn into lines of cells, because letters of East Asia take two. Life lines are double while media
//! flows. What happens in both directions at one moment is one row.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use super::super::page::{self, columns};
use super::{Charset, Kind, Ladder, Row, words};

/// Columns of a line.
pub(super) const WIDTH: usize = page::WIDTH;
/// Columns before the first participant: letter of the call, time, and time since the row before.
const LEFT: usize = 22;
/// Participants drawn as columns; what others say is written out.
const MAX_COLUMNS: usize = 8;
/// Columns of a name in a head: an IPv4 address.
const NAME: usize = 15;
/// Distances of columns where notes stand at the right.
const NOTED_GAPS: [usize; 3] = [0, 36, 22];
/// Room for a label within an arrow that is worth clipping it for.
const CLIPPED_LABEL: usize = 20;
/// What both directions do within this time, they do together.
const TOGETHER_S: f64 = 0.2;
/// Problems told of one call.
const MAX_PROBLEMS: usize = 6;

/// What is drawn with.
struct Marks {
    idle: char,
    active: char,
    message: char,
    media: char,
    silence: char,
    right: char,
    left: char,
    ellipsis: char,
}

const UTF8: Marks = Marks {
    idle: '│',
    active: '║',
    message: '─',
    media: '═',
    silence: '╌',
    right: '▶',
    left: '◀',
    ellipsis: '…',
};

const ASCII: Marks = Marks {
    idle: '|',
    active: '#',
    message: '-',
    media: '=',
    silence: '.',
    right: '>',
    left: '<',
    ellipsis: '~',
};

pub(super) fn render(ladder: &Ladder, charset: Charset) -> String {
    let mut drawing = Drawing::new(ladder, charset);
    let mut out = title(ladder);
    let usual = usual_copies(&ladder.rows);
    if let Some((short, why)) = usual.and_then(|copies| copies.split_once(": ")) {
        push_wrapped(
            &mut out,
            "",
            &format!("{short} = captured {} times, sent once: {why}", short.trim_start_matches('x')),
        );
        out.push('\n');
    }
    out.push_str(&drawing.head(&ladder.participants));
    let mut before: Option<f64> = None;
    for row in together(&ladder.rows) {
        let since = before.map_or_else(String::new, |before| format!("{:+.3}", row.at_s - before));
        before = Some(row.at_s);
        let letter =
            ladder.calls.get(row.call).filter(|_| ladder.calls.len() > 1).map_or(' ', |call| call.letter);
        let time = format!("{letter}{:>9.3} {since:>9}", row.at_s);
        let copies = row.copies.as_deref().map(|copies| match copies.split_once(": ") {
            Some((short, _)) if usual == Some(copies) => short,
            _ => copies,
        });
        let notes = row.notes.iter().map(String::as_str).chain(copies).collect::<Vec<_>>().join("; ");
        out.push_str(&drawing.row(&time, &row, &notes, &ladder.participants));
    }
    if ladder.left_out > 0 {
        let _ = writeln!(out, "{} more messages are not shown", words::thousands(ladder.left_out));
    }
    out.push_str(&problems(ladder));
    match charset {
        Charset::Utf8 => out,
        Charset::Ascii => page::ascii(&out),
    }
}

/// What is said of the copies of most messages: it stands above the ladder, and its beginning in the rows.
fn usual_copies(rows: &[Row]) -> Option<&str> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for copies in rows.iter().filter_map(|row| row.copies.as_deref()) {
        match counts.iter_mut().find(|(known, _)| *known == copies) {
            Some((_, count)) => *count += 1,
            None => counts.push((copies, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(copies, _)| copies)
}

/// Which calls these are, and what became of them.
fn title(ladder: &Ladder) -> String {
    let mut out = String::new();
    let is_alone = ladder.calls.len() < 2;
    for call in &ladder.calls {
        let lead = if is_alone { "call ".to_owned() } else { format!("{}  call ", call.letter) };
        let parties = format!("{} → {}", words::printable(&call.from), words::printable(&call.to));
        let text =
            format!("{}: {parties}: {}", words::printable(&call.call_id), words::printable(&call.outcome));
        push_wrapped(&mut out, &lead, &text);
        for related in &call.related {
            push_wrapped(&mut out, &format!("{:width$}", "", width = lead.len()), &words::printable(related));
        }
    }
    out.push('\n');
    out
}

fn problems(ladder: &Ladder) -> String {
    let mut out = String::new();
    for call in &ladder.calls {
        for problem in call.problems.iter().take(MAX_PROBLEMS) {
            let lead = if ladder.calls.len() > 1 { format!("{} ! ", call.letter) } else { "! ".to_owned() };
            push_wrapped(&mut out, &lead, &words::printable(&problem.text));
        }
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

fn push_wrapped(out: &mut String, lead: &str, text: &str) {
    for (at, line) in wrapped(text, WIDTH - lead.len()).iter().enumerate() {
        out.push_str(if at == 0 { lead } else { "" });
        out.push_str(&" ".repeat(if at == 0 { 0 } else { lead.len() }));
        out.push_str(line);
        out.push('\n');
    }
}

/// A row as it is drawn: of one direction, or of both.
struct Drawn {
    row: Row,
    is_both_ways: bool,
}

impl std::ops::Deref for Drawn {
    type Target = Row;

    fn deref(&self) -> &Row {
        &self.row
    }
}

/// Rows of media that say the same of both directions at one moment become one.
fn together(rows: &[Row]) -> Vec<Drawn> {
    let mut drawn: Vec<Drawn> = Vec::new();
    for row in rows {
        let is_other_way = |other: &&mut Drawn| {
            row.kind != Kind::Message
                && !other.is_both_ways
                && (other.kind, other.call, other.from, other.to) == (row.kind, row.call, row.to, row.from)
                && (row.at_s - other.at_s).abs() <= TOGETHER_S
                && alike(&other.label, &row.label, row.kind)
        };
        // A message in between stays in between.
        let since = drawn.iter().rposition(|other| other.kind == Kind::Message).map_or(0, |at| at + 1);
        match drawn.iter_mut().skip(since).rev().find(is_other_way) {
            Some(other) => {
                other.is_both_ways = true;
                // Silences of both directions have one reason, and begin some milliseconds apart.
                let is_same = other.row.notes == row.notes
                    || row.kind == Kind::Silence && other.row.notes.last() == row.notes.last();
                if !is_same {
                    let way = |from: usize, to: usize| if from < to { "→" } else { "←" };
                    let say = |row: &Row| format!("{} {}", way(row.from, row.to), row.notes.join("; "));
                    let mut notes: Vec<_> =
                        [&other.row, row].into_iter().filter(|row| !row.notes.is_empty()).map(say).collect();
                    // From the left to the right first.
                    notes.sort_by_key(|note| note.starts_with('←'));
                    other.row.notes = notes;
                }
            }
            None => drawn.push(Drawn { row: row.clone(), is_both_ways: false }),
        }
    }
    drawn
}

/// Do two rows say the same? Silences of both directions are seldom equal to the hundredth of a second.
fn alike(a: &str, b: &str, kind: Kind) -> bool {
    let seconds = |label: &str| label.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    match (kind, seconds(a), seconds(b)) {
        (Kind::Silence, Some(a), Some(b)) => (a - b).abs() <= TOGETHER_S,
        _ => a == b,
    }
}

/// Where the columns are, and what flows between them.
struct Drawing {
    marks: &'static Marks,
    columns: usize,
    gap: usize,
    /// Where notes begin; `None` if they go below.
    notes_at: Option<usize>,
    /// Names are too long for heads and stand above them, by number.
    has_legend: bool,
    /// Streams that flow to or from each participant.
    flowing: Vec<usize>,
}

impl Drawing {
    fn new(ladder: &Ladder, charset: Charset) -> Self {
        let marks = match charset {
            Charset::Utf8 => &UTF8,
            Charset::Ascii => &ASCII,
        };
        let names = &ladder.participants;
        let columns = names.len().clamp(1, MAX_COLUMNS);
        let noted = NOTED_GAPS.get(columns - 1).copied();
        let roomy = (WIDTH - LEFT - NAME) / (columns - 1).max(1);
        let gap = noted.unwrap_or(roomy);
        let longest = names.iter().map(|name| self::columns(name)).max().unwrap_or(0);
        let is_tight = columns > 1 && longest + 2 > gap || longest > WIDTH - LEFT - gap * (columns - 1);
        let has_legend = is_tight || names.len() > MAX_COLUMNS;
        let gap = if noted.is_none() && has_legend { (WIDTH - LEFT - 2) / (columns - 1).max(1) } else { gap };
        let notes_at = noted.map(|_| LEFT + gap * (columns - 1) + 2);
        Self { marks, columns, gap, notes_at, has_legend, flowing: vec![0; names.len()] }
    }

    fn at(&self, participant: usize) -> usize {
        LEFT + participant * self.gap
    }

    fn head(&self, names: &[String]) -> String {
        let mut out = String::new();
        let mut line = Line::new();
        line.put(0, "   time s     since");
        for (at, name) in (0..self.columns).zip(names) {
            if self.has_legend {
                line.put(self.at(at), &(at + 1).to_string());
            } else {
                line.put(self.at(at), name);
            }
        }
        if self.has_legend {
            for (number, name) in (1..).zip(names) {
                let _ = writeln!(out, "{number:>4}  {name}");
            }
        }
        out.push_str(&line.finish());
        out
    }

    /// One row, and its notes.
    fn row(&mut self, time: &str, row: &Drawn, notes: &str, names: &[String]) -> String {
        if row.kind == Kind::Silence || row.kind == Kind::MediaEnd {
            self.flow(row, usize::saturating_sub);
        }
        let mut line = self.life_lines();
        line.put(0, time);
        let label = words::printable(&row.label);
        if row.from.max(row.to) >= self.columns {
            let name = |at: usize| names.get(at).map_or("?", String::as_str);
            let text = format!("{} {} {}: {label}", name(row.from), self.marks.right, name(row.to));
            line.put_apart(LEFT, &self.clipped(&text, WIDTH - LEFT));
        } else if row.from == row.to {
            line.put_apart(self.at(row.from) + 2, &self.clipped(&label, WIDTH - self.at(row.from) - 2));
        } else {
            self.arrow(&mut line, row, &label);
        }
        if row.kind == Kind::Media || row.kind == Kind::Resumed {
            self.flow(row, |streams, more| streams + more);
        }
        self.noted(line, &words::printable(notes))
    }

    /// More or fewer streams flow between the ends of a row from now on.
    fn flow(&mut self, row: &Drawn, change: fn(usize, usize) -> usize) {
        let streams = if row.is_both_ways { 2 } else { 1 };
        for end in [row.from, row.to] {
            if let Some(flowing) = self.flowing.get_mut(end) {
                *flowing = change(*flowing, streams);
            }
        }
    }

    /// The lines of a row with its notes: at the right where there is a place for them, else below.
    fn noted(&self, mut line: Line, notes: &str) -> String {
        if notes.is_empty() {
            return line.finish();
        }
        let (at, mut out) = match self.notes_at {
            Some(at) => (at, String::new()),
            None => (LEFT + 2, std::mem::replace(&mut line, self.life_lines()).finish()),
        };
        for piece in wrapped(notes, WIDTH - at) {
            line.put_apart(at, &piece);
            out.push_str(&std::mem::replace(&mut line, self.life_lines()).finish());
        }
        out
    }

    fn arrow(&self, line: &mut Line, row: &Drawn, label: &str) {
        let marks = self.marks;
        let stroke = match row.kind {
            Kind::Message => marks.message,
            Kind::Media | Kind::Resumed | Kind::Change | Kind::MediaEnd => marks.media,
            Kind::Silence => marks.silence,
        };
        let (low, high) = (self.at(row.from.min(row.to)), self.at(row.from.max(row.to)));
        for at in low + 1..high {
            line.set(at, stroke);
        }
        let goes_right = row.to > row.from;
        if goes_right || row.is_both_ways {
            line.set(high - 1, marks.right);
        }
        if !goes_right || row.is_both_ways {
            line.set(low + 1, marks.left);
        }
        // A stroke and a blank on each side, and the heads.
        let within = high - low - 1;
        let room = within.saturating_sub(6);
        let width = columns(label);
        let end = self.notes_at.map_or(WIDTH, |at| at - 1);
        let short = self.clipped(label, room);
        let is_whole = !short.contains(marks.ellipsis);
        if is_whole || room >= CLIPPED_LABEL {
            line.put_apart(low + 1 + (within - columns(&short)) / 2, &short);
        } else if high + 2 + width <= end {
            line.put_apart(high + 2, label);
        } else if LEFT + 2 + width < low {
            line.put_apart(low - 1 - width, label);
        } else {
            line.put_apart(low + 4, &short);
        }
    }

    fn life_lines(&self) -> Line {
        let mut line = Line::new();
        for (at, flowing) in (0..self.columns).zip(&self.flowing) {
            line.set(self.at(at), if *flowing > 0 { self.marks.active } else { self.marks.idle });
        }
        line
    }

    /// A label in so many columns. The method of a transaction gives way first, its number last: "200 OK #2".
    fn clipped(&self, text: &str, room: usize) -> String {
        if columns(text) <= room {
            return text.to_owned();
        }
        let transaction = text.rsplit_once(" (").and_then(|(status, rest)| {
            let (_, number) = rest.strip_suffix(')')?.rsplit_once(" #")?;
            Some((status, format!(" #{number}")))
        });
        let (head, tail) = match transaction {
            Some((status, number)) if columns(&number) + 4 <= room => (status, number),
            _ => (text, String::new()),
        };
        if columns(head) + columns(&tail) <= room {
            return format!("{head}{tail}");
        }
        let tail = tail.as_str();
        let mut left = room.saturating_sub(columns(tail) + 1);
        let mut out = String::new();
        for c in head.chars() {
            let taken = c.width().unwrap_or(0);
            if taken > left {
                break;
            }
            left -= taken;
            out.push(c);
        }
        out.truncate(out.trim_end().len());
        out.push(self.marks.ellipsis);
        out.push_str(tail);
        out
    }
}

/// Cells of one line; a letter that takes two is followed by nothing.
struct Line(Vec<Option<char>>);

impl Line {
    fn new() -> Self {
        Self(vec![Some(' '); WIDTH])
    }

    fn set(&mut self, at: usize, c: char) {
        // The other half of a letter of two cells goes with this one.
        if self.0.get(at + 1) == Some(&None) {
            self.put_cell(at + 1, Some(' '));
        }
        if let Some(before) = at.checked_sub(1).filter(|_| self.0.get(at) == Some(&None)) {
            self.put_cell(before, Some(' '));
        }
        self.put_cell(at, Some(c));
    }

    fn put_cell(&mut self, at: usize, content: Option<char>) {
        if let Some(cell) = self.0.get_mut(at) {
            *cell = content;
        }
    }

    fn put(&mut self, mut at: usize, text: &str) {
        for c in text.chars() {
            match c.width().unwrap_or(0) {
                // A mark on the letter before has no cell.
                0 => {}
                2 if at + 1 < WIDTH => {
                    self.set(at, c);
                    self.set(at + 1, ' ');
                    self.put_cell(at, Some(c));
                    self.put_cell(at + 1, None);
                    at += 2;
                }
                2 => break,
                _ => {
                    self.set(at, c);
                    at += 1;
                }
            }
        }
    }

    /// The same with a blank on both sides.
    fn put_apart(&mut self, at: usize, text: &str) {
        self.set(at.saturating_sub(1), ' ');
        self.put(at, text);
        self.set(at + columns(text), ' ');
    }

    fn finish(&self) -> String {
        let text: String = self.0.iter().flatten().collect();
        format!("{}\n", text.trim_end())
    }
}

/// A text in lines of so many columns, broken between words, and within those that are longer than a line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && columns(&line) + 1 + columns(word) <= width {
            line.push(' ');
        } else if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            if columns(&line) + c.width().unwrap_or(0) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}
