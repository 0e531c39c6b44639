//! JSON that a terminal may show.
//!
//! JSON lets control characters from U+007F on stand in strings as they are, and of those U+009B begins a command where a terminal
//! knows it. Names come from the network, so they are written as `\u009b`, and so is all that [`words::printable`] would
//! show: ends of lines, marks that turn the direction. Whoever parses it gets the same strings.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use super::words;

/// As one line, without its end.
///
/// # Errors
/// If `value` is not to be expressed in JSON.
pub fn line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::with_capacity(256);
    write(&mut out, value, CompactFormatter)?;
    String::from_utf8(out).map_err(serde::ser::Error::custom)
}

/// As a document for people, too, ended by a line end.
///
/// # Errors
/// As `out`'s, or if `value` is not to be expressed in JSON.
pub fn document(mut out: impl Write, value: &impl Serialize) -> io::Result<()> {
    write(&mut out, value, PrettyFormatter::new())?;
    writeln!(out)
}

fn write(out: impl Write, value: &impl Serialize, layout: impl Formatter) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Shown(layout)))
}

/// A layout whose strings can be shown.
struct Shown<F>(F);

impl<F: Formatter> Formatter for Shown<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, hidden)) = hidden(rest) {
            let (shown, from) = rest.split_at(at);
            out.write_all(shown.as_bytes())?;
            let mut units = [0; 2];
            for unit in hidden.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = from.get(hidden.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

/// The first character that is not to be sent to a terminal, and where it is.
fn hidden(text: &str) -> Option<(usize, char)> {
    // Nearly every string is one of these, and of them JSON itself leaves but one.
    if text.is_ascii() {
        return text.find('\u{7f}').map(|at| (at, '\u{7f}'));
    }
    text.char_indices().find(|(_, c)| !words::is_printable(*c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_commands_a_terminal_is_escaped_and_letters_are_not() {
        let shown = |text: &str| line(&text).unwrap();
        assert_eq!(shown("a\u{9b}2J\u{7f}\u{85}"), r#""a\u009b2J\u007f\u0085""#);
        assert_eq!(shown("a\u{1b}[2J\n\""), r#""a\u001b[2J\n\"""#);
        assert_eq!(shown("\u{202e}cod.exe\u{2028}"), r#""\u202ecod.exe\u2028""#);
        assert_eq!(shown("Jürgen אב 🎷 → ≤"), r#""Jürgen אב 🎷 → ≤""#);
    }

    #[test]
    fn names_of_fields_are_escaped_too_and_the_layout_is_the_usual_one() {
        let value = json!({ "a\u{9b}": [1, { "b": null }, [], {}], "c": "x" });
        let mut out = Vec::new();
        document(&mut out, &value).unwrap();
        let usual = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{}\n", usual.replace('\u{9b}', "\\u009b")));
    }

    proptest! {
        /// Who parses it gets what was written, and nothing in it has to be hidden from a terminal.
        #[test]
        fn strings_are_the_same_to_a_parser(text in "[\\PC\u{0}-\u{ff}\u{2020}-\u{2070}]{0,40}") {
            let written = line(&json!([text])).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), json!([text]));
            prop_assert_eq!(words::printable(&written), written);
        }
    }
}
