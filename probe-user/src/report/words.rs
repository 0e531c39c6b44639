//! Numbers and names as people read them.

use crate::dedup::stats::CauseReport;
use crate::dedup::{Cause, Differs};
use crate::sip::CapturedReport;

/// `2004` as `2,004`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Microseconds as milliseconds with the digits that matter: `0.04`, `3.8`, `120`.
pub fn ms(microseconds: f64) -> String {
    let ms = microseconds / 1000.0;
    if ms < 0.1 {
        format!("{ms:.2}")
    } else if ms < 100.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

/// A delay in the unit in which it is short: `38 us`, `1.4 ms`, `2.1 s`.
pub fn delay(microseconds: f64) -> String {
    if microseconds < 1000.0 {
        format!("{microseconds:.0} us")
    } else if microseconds < 1_000_000.0 {
        format!("{:.1} ms", microseconds / 1000.0)
    } else {
        format!("{:.1} s", microseconds / 1e6)
    }
}

/// A time in at most six columns: `564ms`, `9.4s`, `12m05s`, `3h20m`, `120h`.
pub fn span(ms: f64) -> String {
    let seconds = ms / 1e3;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds of a call; saturates"
    )]
    let whole = seconds.round() as u64;
    match whole {
        _ if ms < 999.5 => format!("{ms:.0}ms"),
        _ if seconds < 99.95 => format!("{seconds:.1}s"),
        0..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..360_000 => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}h", whole / 3_600),
    }
}

/// A duration: `31.5 s`, and from ten minutes on `9h59m`.
pub fn seconds(seconds: f64) -> String {
    if seconds < 600.0 { format!("{seconds:.1} s") } else { span(seconds * 1e3) }
}

/// A silence: `1.81 s`, and from ten minutes on `9h59m`.
pub fn silence(seconds: f64) -> String {
    if seconds < 600.0 { format!("{seconds:.2} s") } else { span(seconds * 1e3) }
}

/// A count in at most four columns: `999`, `9999`, `12k`, `3M`.
pub fn compact(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{}k", count / 1_000),
        1_000_000..1_000_000_000 => format!("{}M", count / 1_000_000),
        _ => format!("{}G", count / 1_000_000_000),
    }
}

/// A number with so many decimals, and never a zero with a sign: "-0.1", "0.0".
pub fn decimal(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(amount) if amount.chars().all(|c| matches!(c, '0' | '.')) => amount.to_owned(),
        _ => text,
    }
}

/// The same with its sign: "+12", "-3", "0".
pub fn signed(value: f64, digits: usize) -> String {
    let text = decimal(value, digits);
    let is_plus = value > 0.0 && text.chars().any(|c| matches!(c, '1'..='9'));
    if is_plus { format!("+{text}") } else { text }
}

/// Bytes in binary units.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 10.0 && unit > 0);
    format!("{value:.digits$} {}", UNITS.get(unit).unwrap_or(&""))
}

/// A count with its noun: `1 call`, `2 calls`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// How much of SIP the snap length cut off: "6 of 306 SIP frames are cut after 158 bytes of SIP".
pub fn cut(captured: CapturedReport) -> String {
    let CapturedReport { frames, cut, cut_at_bytes } = captured;
    format!(
        "{} of {} {} cut after {cut_at_bytes} bytes of SIP",
        thousands(cut),
        count(frames, "SIP frame"),
        if cut == 1 { "is" } else { "are" }
    )
}

/// How often each packet was seen: `twice`, `3 times`, `1.4 times on average`.
pub fn times(copies_per_packet: f64) -> String {
    let rounded = copies_per_packet.round();
    if (copies_per_packet - rounded).abs() > 0.05 {
        return format!("{copies_per_packet:.2} times on average");
    }
    match rounded {
        1.0 => "once".to_owned(),
        2.0 => "twice".to_owned(),
        n => format!("{n:.0} times"),
    }
}

/// A factor: `2`, `1.4`.
pub fn number(factor: f64) -> String {
    let rounded = factor.round();
    if (factor - rounded).abs() <= 0.05 { format!("{rounded:.0}") } else { format!("{factor:.1}") }
}

/// A cause in a few words: `re-emitted: destination MAC and IP ID differ, +38 us`, `encapsulated: inside rpcap, +4.9 ms`.
pub fn cause(report: &CauseReport) -> String {
    let differs = report.differs.besides_tunnel();
    match report.layer {
        Some(layer) if differs.is_empty() => {
            format!("{}: inside {layer}, {}", report.cause.label(), late(report.delay_us.p50))
        }
        _ => difference(report.cause, report.differs, report.delay_us.p50),
    }
}

/// The same of one copy, that came so much later.
pub fn difference(cause: Cause, differs: Differs, delay_us: f64) -> String {
    if cause == Cause::Encapsulated && differs.besides_tunnel().is_empty() {
        return format!("{}: again inside a tunnel, {}", cause.label(), late(delay_us));
    }
    format!("{}: {}, {}", cause.label(), fields(differs), late(delay_us))
}

/// How much later: `+38 us`; some clocks say earlier.
fn late(delay_us: f64) -> String {
    format!("{}{}", if delay_us < 0.0 { '-' } else { '+' }, delay(delay_us.abs()))
}

/// The fields in which two sightings differ: `destination MAC, VLAN differ`.
pub fn fields(differs: Differs) -> String {
    let fields: Vec<&str> = differs.names().map(field).collect();
    match fields.as_slice() {
        [] => "every byte equal".to_owned(),
        [one] => format!("{one} differs"),
        [most @ .., last] => format!("{} and {last} differ", most.join(", ")),
    }
}

fn field(name: &'static str) -> &'static str {
    match name {
        "dst_mac" => "destination MAC",
        "src_mac" => "source MAC",
        "vlan" => "VLAN",
        "ttl" => "TTL",
        "tos" => "DSCP",
        "ip_id" => "IP ID",
        other => other,
    }
}

/// The first characters of a Call-ID: enough to find it, short enough for a line.
pub fn short_call_id(call_id: &str) -> &str {
    let end = call_id.char_indices().nth(8).map_or(call_id.len(), |(at, _)| at);
    call_id.get(..end).unwrap_or(call_id)
}

/// Who is meant by a URI: its user, or its host where it has none.
pub fn party(uri: &str) -> &str {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let user = rest.split_once('@').map_or(rest, |(user, _)| user);
    user.split([';', '?']).next().unwrap_or(user)
}

/// Text from the network, safe for a terminal: control characters are shown, not sent, and so are those that end a line
/// or turn the direction of what follows, by which a name can show another than its own. What is safe stays as it is.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Is this character safe for a terminal?
pub(super) fn is_printable(c: char) -> bool {
    let is_line_end = matches!(c, '\u{2028}' | '\u{2029}');
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !is_line_end && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_has_no_sign() {
        let values = [-0.04, 0.04, -0.06, 12.34, f64::NEG_INFINITY];
        assert_eq!(values.map(|value| decimal(value, 1)), ["0.0", "0.0", "-0.1", "12.3", "-inf"]);
        assert_eq!(values.map(|value| signed(value, 1)), ["0.0", "0.0", "-0.1", "+12.3", "-inf"]);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([40.0, 3_800.0, 877_890.0].map(ms), ["0.04", "3.8", "878"]);
        assert_eq!([38.0, 1_400.0, 2_100_000.0].map(delay), ["38 us", "1.4 ms", "2.1 s"]);
        assert_eq!([1.0, 1.994, 4.0, 1.4].map(times), ["once", "twice", "4 times", "1.40 times on average"]);
        assert_eq!([512, 8 << 20].map(bytes), ["512 B", "8.0 MiB"]);
        let spans = [0.4, 564.0, 9_400.0, 99_960.0, 725_000.0, 12_000_000.0, 432_000_000.0].map(span);
        assert_eq!(spans, ["0ms", "564ms", "9.4s", "1m40s", "12m05s", "3h20m", "120h"]);
        assert_eq!([0.04, 599.9, 35_939.42].map(seconds), ["0.0 s", "599.9 s", "9h58m"]);
        assert_eq!([1.806, 35_939.42].map(silence), ["1.81 s", "9h58m"]);
        assert_eq!([0, 9_999, 12_345, 3_000_000].map(compact), ["0", "9999", "12k", "3M"]);
        assert_eq!((count(1, "call"), count(2, "call")), ("1 call".to_owned(), "2 calls".to_owned()));
    }

    #[test]
    fn a_terminal_escape_in_a_call_id_is_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }

    #[test]
    fn ends_of_lines_are_shown() {
        assert_eq!(printable("a\u{2028}b\u{2029}c\r\nd"), "a\\u{2028}b\\u{2029}c\\r\\nd");
        assert_eq!(printable(&printable("a\u{2028}")), "a\\u{2028}");
    }

    #[test]
    fn marks_that_turn_the_direction_are_shown_and_letters_that_need_none_are_left() {
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{2069}"), "a\\u{202e}b\\u{2066}c\\u{2069}");
        assert_eq!(printable("Jürgen אב"), "Jürgen אב");
    }
}
