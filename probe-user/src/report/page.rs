//! Text for people: lines as wide as the terminal, broken between words, with colours where they help.
//!
//! A page is written once, with or without styles. Styles are escape sequences around words, so they are put in only by
//! the methods that know how wide the words are. Whoever prints a styled page does it through `anstream`, which
//! takes the styles out again where no terminal shows them.
//!
//! What is written may be a peer's words, in whatever sentence they stand. So nothing but this module's own styles and ends
//! of lines gets on a page as it is: the rest passes [`printable`].

use std::fmt::{self, Write};
use std::io;

use anstyle::{AnsiColor, Style};
use terminal_size::{Width, terminal_size_of};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::words::printable;

/// Columns of a line where no terminal says how many it has: a mail and two windows side by side hold so many.
pub const WIDTH: usize = 100;
/// The narrowest and the widest lines: tables need the one, and eyes lose their line beyond the other.
const RANGE: (usize, usize) = (80, 120);

/// Headings of sections.
pub(super) const HEADING: Style = Style::new().bold();
/// What hurts calls.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What distorts what is seen.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// What is good to know.
pub(super) const INFO: Style = AnsiColor::Cyan.on_default();
/// What to do.
pub(super) const ADVICE: Style = AnsiColor::Green.on_default();

/// See the module.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    is_styled: bool,
    width: usize,
}

impl Page {
    /// An empty page of so many columns.
    pub(super) fn new(is_styled: bool, width: usize) -> Self {
        Self { text: String::new(), is_styled, width }
    }

    /// Its columns.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Writes words in a style. They stay on the line.
    pub(super) fn styled(&mut self, style: Style, words: &str) {
        if self.is_styled {
            let _ = write!(self.text, "{style}{words}{style:#}");
        } else {
            self.text.push_str(words);
        }
    }

    /// Begins a section, after an empty line.
    pub(super) fn section(&mut self, name: &str, rest: &str) {
        self.text.push('\n');
        self.styled(HEADING, name);
        let name_width = columns(name);
        self.flow(name_width, &format!("  {rest}"), 2);
    }

    /// Writes `text` in lines, all indented.
    pub(super) fn wrap(&mut self, text: &str, indent: usize) {
        self.hang(&" ".repeat(indent), text, indent);
    }

    /// The same, with `lead` before the first line.
    pub(super) fn hang(&mut self, lead: &str, text: &str, indent: usize) {
        self.text.push_str(lead);
        self.flow(columns(lead), text, indent);
    }

    /// The same, where `column` columns of the first line are written already. A word longer than a line, as a path may
    /// be, is broken.
    pub(super) fn flow(&mut self, mut column: usize, text: &str, indent: usize) {
        let text = &printable(text);
        let out = &mut self.text;
        for _ in 0..text.chars().take_while(|c| *c == ' ').count() {
            out.push(' ');
            column += 1;
        }
        let mut begins = true;
        for word in text.split_whitespace() {
            let length = columns(word);
            if !begins && column + 1 + length <= self.width {
                out.push(' ');
                column += 1;
            } else if !begins {
                let _ = write!(out, "\n{:indent$}", "");
                column = indent;
            }
            begins = false;
            for c in word.chars() {
                let taken = c.width().unwrap_or(0);
                if column + taken > self.width {
                    let _ = write!(out, "\n{:indent$}", "");
                    column = indent;
                }
                out.push(c);
                column += taken;
            }
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
    }

    /// All of it.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Lines of a table, whose ends are the writer's.
impl Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(line) => self.text.extend([&printable(line), "\n"]),
                None => self.text.push_str(&printable(part)),
            }
        }
        Ok(())
    }
}

/// Columns of the terminal that standard output is, within reason.
pub fn terminal_width() -> usize {
    let (narrowest, widest) = RANGE;
    terminal_size_of(io::stdout())
        .map_or(WIDTH, |(Width(columns), _)| usize::from(columns).clamp(narrowest, widest))
}

/// Columns that a text takes on a terminal: letters of East Asia take two, marks on letters none.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Text of at most `width` columns, with an ellipsis where something is left out.
pub(super) fn clip(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| {
        let taken = c.width().unwrap_or(0);
        let fits = taken <= room;
        room = room.saturating_sub(taken);
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The same, filled up with blanks: a cell of a table.
pub(super) fn cell(text: &str, width: usize) -> String {
    let text = clip(text, width);
    let blanks = width.saturating_sub(columns(&text));
    format!("{text}{:blanks$}", "")
}

/// The same page for a terminal without UTF-8, column for column: what ASCII lacks becomes what comes near, or `?`.
pub fn ascii(page: &str) -> String {
    let near = |c: char| match c {
        '→' => '>',
        '↳' => '+',
        '…' => '~',
        '█'..='▏' => '#',
        '\0'..='\x7f' => c,
        _ => '?',
    };
    page.chars().map(near).collect()
}

/// Does the locale of this environment show UTF-8? The first of the three that is set decides, as in the C library.
pub fn is_utf8_locale(variable: impl Fn(&str) -> Option<String>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()))
        .is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_takes_no_room() {
        let written = |is_styled| {
            let mut page = Page::new(is_styled, WIDTH);
            page.styled(BAD, "  BAD   ");
            page.flow(8, &"word ".repeat(40), 8);
            page.into_text()
        };
        assert_ne!(written(true), written(false));
        assert_eq!(anstream::adapter::strip_str(&written(true)).to_string(), written(false));
    }

    #[test]
    fn letters_that_take_two_columns_are_counted_as_two() {
        assert_eq!((columns("王小明"), columns("Jürgen"), columns("e\u{301}")), (6, 6, 1));
        assert_eq!(
            (clip("王小明", 6), clip("王小明", 5), clip("王小明", 4)),
            ("王小明".into(), "王小…".into(), "王…".into())
        );
        assert_eq!(cell("王小明", 4), "王… ");
        let mut page = Page::new(false, 21);
        page.wrap(&"王".repeat(20), 2);
        assert!(page.into_text().lines().all(|line| columns(line) <= 21));
    }

    #[test]
    fn ascii_keeps_the_columns() {
        assert_eq!(ascii("a → b…  ██▌ Jürgen"), "a > b~  ### J?rgen");
    }

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<_> =
                set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            is_utf8_locale(|name| set.iter().find(|(set, _)| set == name).map(|(_, value)| value.clone()))
        };
        assert!(with(&[("LANG", "de_DE.UTF-8")]) && with(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]) && !with(&[]));
    }
}
