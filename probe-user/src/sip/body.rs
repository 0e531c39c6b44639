//! Where in a body the description is: `application/sdp` alone, or a part of a multipart (RFC 2046, 5.1; RFC 5621).

use super::message::{headers_of, split_head};
use super::text::{parameter, prefix_matches, trim};

/// Types of a description, and of a piece of one.
const DESCRIPTIONS: [&[u8]; 2] = [b"application/sdp", b"application/trickle-ice-sdpfrag"];
/// Parts of a multipart body that are searched.
const MAX_PARTS: usize = 16;
/// Multipart bodies inside of each other.
const MAX_DEPTH: usize = 3;

/// The first description in a body, in the order of its parts.
pub(super) fn find<'a>(content_type: &'a [u8], body: &'a [u8]) -> Option<&'a [u8]> {
    within(content_type, body, MAX_DEPTH)
}

fn within<'a>(content_type: &'a [u8], body: &'a [u8], depth: usize) -> Option<&'a [u8]> {
    let media_type = trim(content_type.split(|&b| b == b';').next().unwrap_or_default());
    if DESCRIPTIONS.iter().any(|kind| media_type.eq_ignore_ascii_case(kind)) {
        return Some(body);
    }
    if depth == 0 || !prefix_matches(media_type, b"multipart/") {
        return None;
    }
    let boundary = parameter(content_type, b"boundary")?;
    parts(body, boundary).find_map(|part| {
        let (kind, body) = part_body(part)?;
        within(kind, body, depth - 1)
    })
}

/// The parts of a multipart body (RFC 2046, 5.1.1), tolerant of bare LF and of a missing last delimiter.
fn parts<'a>(body: &'a [u8], boundary: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = after_delimiter(body, boundary).map(|(_, rest)| rest);
    std::iter::from_fn(move || {
        let current = rest?;
        let Some((part, next)) = after_delimiter(current, boundary) else {
            rest = None;
            return Some(current);
        };
        rest = (!next.starts_with(b"--")).then_some(next);
        Some(part)
    })
    .take(MAX_PARTS)
}

/// Splits at the next `--boundary` that begins a line.
fn after_delimiter<'a>(bytes: &'a [u8], boundary: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let after = rest.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary));
        // Another boundary may begin like this one.
        if let Some(after @ ([] | [b'\r' | b'\n' | b' ' | b'\t', ..] | [b'-', b'-', ..])) = after {
            return Some((bytes.get(..at)?, after));
        }
        at += rest.iter().position(|&b| b == b'\n')? + 1;
    }
    None
}

/// A part's Content-Type and its body. Its headers begin behind the line of the delimiter.
fn part_body(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = part.get(part.iter().position(|&b| b == b'\n')? + 1..)?;
    let (head, body) = split_head(rest);
    let kind = headers_of(head).find(|header| header.name.eq_ignore_ascii_case(b"content-type"));
    Some((kind.map_or(b"text/plain", |header| header.value), body?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content_type: &str, body: &str) -> Option<String> {
        let body = body.replace('\n', "\r\n");
        let of_body = |body: &str| find(content_type.as_bytes(), body.as_bytes()).map(<[u8]>::to_vec);
        // Bare LF makes no difference.
        let lines = of_body(&body.replace('\r', "")).map(|found| String::from_utf8(found).unwrap());
        let found = of_body(&body).map(|found| String::from_utf8(found).unwrap().replace('\r', ""));
        assert_eq!(found, lines);
        found
    }

    #[test]
    fn a_description_is_found_whatever_is_around_it() {
        let part = |name: &str| format!("Content-Type: application/sdp\n\nv=0\ns={name}\n");
        for (kind, body, expected) in [
            ("application/sdp", "v=0\n".to_owned(), Some("v=0\n")),
            ("APPLICATION/SDP; charset=utf-8", "v=0\n".to_owned(), Some("v=0\n")),
            ("text/plain", "v=0\n".to_owned(), None),
            // The first of several.
            (
                "multipart/mixed; boundary=b",
                format!("--b\n{}--b\n{}--b--\n", part("1"), part("2")),
                Some("v=0\ns=1\n"),
            ),
            // A preamble, and a part without headers.
            (
                "multipart/mixed;boundary=b",
                format!("hello\n--b\n\nv=1\n--b\n{}--b--\nbye", part("1")),
                Some("v=0\ns=1\n"),
            ),
            // Nothing closes it.
            ("multipart/mixed;boundary=b", format!("--b\n{}", part("1")), Some("v=0\ns=1\n")),
            // A quoted boundary with what only quotes allow.
            (
                "multipart/mixed; boundary=\"b; c\"",
                format!("--b; c\n{}--b; c--", part("1")),
                Some("v=0\ns=1\n"),
            ),
            // Folded headers, other headers, compact spelling of the type.
            (
                "multipart/mixed;boundary=b",
                "--b\nContent-ID: <1>\ncontent-type :\n application/sdp\n\nv=0\n--b--".to_owned(),
                Some("v=0\n"),
            ),
            // Inside of another, whose boundary begins with this one's.
            (
                "multipart/mixed;boundary=b",
                format!(
                    "--b\nContent-Type: multipart/alternative;\n boundary=bb\n\n--bb\n{}--bb--\n--b--",
                    part("1")
                ),
                Some("v=0\ns=1\n"),
            ),
            (
                "multipart/mixed;boundary=a",
                format!(
                    "--a\nContent-Type: multipart/alternative;\n boundary=b\n\n--b\n{}--b--\n--a--",
                    part("1")
                ),
                Some("v=0\ns=1\n"),
            ),
            ("multipart/mixed", format!("--b\n{}--b--\n", part("1")), None),
        ] {
            assert_eq!(found(kind, &body).as_deref(), expected, "{kind}: {body}");
        }
    }

    #[test]
    fn parts_and_depth_are_bounded() {
        let mut body = "--b\n\nx\n".repeat(MAX_PARTS);
        body.push_str("--b\nContent-Type: application/sdp\n\nv=0\n--b--");
        assert_eq!(found("multipart/mixed;boundary=b", &body), None);
        let mut body = "v=0\n".to_owned();
        let mut kind = "application/sdp".to_owned();
        for depth in 0..=MAX_DEPTH {
            assert!(found(&kind, &body).is_some(), "{depth}");
            body = format!("--{depth}\nContent-Type: {kind}\n\n{body}--{depth}--\n");
            kind = format!("multipart/mixed;boundary={depth}");
        }
        assert_eq!(found(&kind, &body), None);
    }
}
