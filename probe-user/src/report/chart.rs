//! A distribution drawn with characters: one line a class, classes at 1, 2 and 5 of every decade.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

use super::words;

/// Columns before the bars.
const LEFT: usize = 36;
/// Eighths of a column, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// The histogram of a report, as it is exported: HdrHistogram V2, compressed, base64. `None` if it is none.
pub(super) fn decode(exported: &str) -> Option<Histogram<u64>> {
    let bytes = STANDARD.decode(exported).ok()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

/// Lines of a histogram of microseconds, from its lowest class that is not empty to its highest, in `width` columns.
pub(super) fn lines(histogram: &Histogram<u64>, width: usize) -> Vec<String> {
    let longest = width.saturating_sub(LEFT).max(1);
    let classes = classes(histogram);
    let most = classes.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let all: u64 = classes.iter().map(|(_, count)| count).sum();
    let mut first = true;
    let line = |(from_us, count): &(u64, u64)| {
        let lead = if first { "from" } else { "" };
        first = false;
        let mut line =
            format!("{lead:>6} {:>7} {:>9}", words::delay(*from_us as f64), words::thousands(*count));
        let _ = write!(
            line,
            " {:>5.1} %  {}",
            *count as f64 * 100.0 / all.max(1) as f64,
            bar(*count, most, longest)
        );
        line.truncate(line.trim_end().len());
        line
    };
    classes.iter().map(line).collect()
}

/// Lower ends of the classes and what is in them, without the empty ones at both ends.
fn classes(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let ends = std::iter::once(0).chain((0..8).flat_map(|decade| [1, 2, 5].map(|n| n * 10_u64.pow(decade))));
    let mut classes: Vec<(u64, u64)> = ends.map(|end| (end, 0)).collect();
    for value in histogram.iter_recorded() {
        let at = classes.partition_point(|(end, _)| *end <= value.value_iterated_to());
        if let Some((_, count)) = at.checked_sub(1).and_then(|at| classes.get_mut(at)) {
            *count += value.count_since_last_iteration();
        }
    }
    let is_empty = |(_, count): &&(u64, u64)| *count == 0;
    let (low, high) =
        (classes.iter().take_while(is_empty).count(), classes.iter().rev().take_while(is_empty).count());
    classes.truncate(classes.len() - high);
    classes.drain(..low.min(classes.len()));
    classes
}

/// A bar in eighths of a column. What is not empty is never invisible.
fn bar(count: u64, most: u64, longest: usize) -> String {
    let eighths = (count * longest as u64 * 8).checked_div(most).unwrap_or(0).max(u64::from(count > 0));
    let whole = usize::try_from(eighths / 8).unwrap_or(longest);
    let rest = usize::try_from(eighths % 8).ok().and_then(|rest| rest.checked_sub(1));
    let rest = rest.and_then(|rest| EIGHTHS.get(rest));
    "█".chars().cycle().take(whole).chain(rest.copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_was_recorded_and_empty_ends_are_left_out() {
        let mut histogram = Histogram::new(2).unwrap();
        for (value, count) in [(3, 10), (40, 1_000), (1_500, 1)] {
            histogram.record_n(value, count).unwrap();
        }
        let classes: Vec<_> = classes(&histogram).into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(classes, [(2, 10), (20, 1_000), (1_000, 1)]);
        let lines = lines(&histogram, 100);
        assert_eq!(lines.len(), 9);
        assert_eq!(lines[0], "  from    2 us        10   1.0 %  ▋");
        assert!(lines[3].ends_with(&"█".repeat(64)), "{}", lines[3]);
        assert!(lines[8].ends_with('▏'), "one of a thousand is seen: {}", lines[8]);
        assert!(lines.iter().all(|line| line.chars().count() <= 100));
    }

    #[test]
    fn what_is_no_histogram_is_none() {
        assert!(decode("").is_none() && decode("AAAA").is_none() && decode("not base64").is_none());
    }
}
