//! Lines of a description, made ready for the grammar: what says nothing about media is left out, what is only written carelessly
//! is put right, and what cannot be read is dropped alone.

use sdp_types::Session;

use super::text::trim;

/// Media lines read of one description; real ones have at most a dozen, and each costs microseconds.
const MAX_LINES: usize = 16;

/// The lines that concern media (`c=`, `m=`, `a=`), each in the form that RFC 8866 wants: a small letter, single blanks, none
/// around the colon of an attribute, and `IN IP4` in capitals.
pub(super) fn tidied(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len() + 8);
    for line in body.split(|b| matches!(b, b'\n' | b'\r')).map(trim) {
        let [kind, b'=', value @ ..] = line else { continue };
        let kind = kind.to_ascii_lowercase();
        if !matches!(kind, b'c' | b'm' | b'a') {
            continue;
        }
        text.extend_from_slice(&[kind, b'=']);
        let colon = value.iter().position(|&b| b == b':').filter(|_| kind == b'a');
        let (name, value) = colon.and_then(|at| value.split_at_checked(at + 1)).unwrap_or((&[], value));
        if let Some((b':', name)) = name.split_last() {
            text.extend_from_slice(trim(name));
            text.push(b':');
        }
        for (number, word) in value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).enumerate()
        {
            if number > 0 {
                text.push(b' ');
            }
            if kind == b'c' && number < 2 {
                text.extend(word.iter().map(u8::to_ascii_uppercase));
            } else {
                text.extend_from_slice(word);
            }
        }
        text.push(b'\n');
    }
    text
}

/// The body as far as its first [`MAX_LINES`] media lines and what is theirs, and how many more it has.
pub(super) fn first_sections(body: &[u8]) -> (&[u8], usize) {
    let (mut at, mut end, mut media_lines) = (0, body.len(), 0_usize);
    for line in body.split(|b| matches!(b, b'\n' | b'\r')) {
        if trim(line).starts_with(b"m=") {
            if media_lines == MAX_LINES {
                end = at;
            }
            media_lines += 1;
        }
        at += line.len() + 1;
    }
    (body.get(..end).unwrap_or(body), media_lines.saturating_sub(MAX_LINES))
}

/// The lines that `keep` wants among those that concern media, under a version line of our own.
/// `keep` is given the section's `m=` line (empty in the session's own) and the line.
/// A dropped `m=` line takes its section along: its attributes are nobody else's.
pub(super) fn media_text(body: &[u8], mut keep: impl FnMut(&[u8], &[u8]) -> bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(body.len() + 8);
    text.extend_from_slice(b"v=0\r\n");
    let mut section: &[u8] = &[];
    let mut is_kept = true;
    let mut has_connection = false;
    for line in body.split(|b| matches!(b, b'\n' | b'\r')).map(trim) {
        match line {
            [b'm', b'=', ..] => {
                is_kept = keep(&[], line);
                section = line;
            }
            // A second session address is an error to the grammar, and of no meaning.
            [b'c', b'=', ..] if section.is_empty() && has_connection => continue,
            [b'a' | b'c', b'=', ..] if is_kept && keep(section, line) => {
                has_connection |= section.is_empty() && line.starts_with(b"c");
            }
            _ => continue,
        }
        if is_kept {
            text.extend_from_slice(line);
            text.extend_from_slice(b"\r\n");
        }
    }
    text
}

pub(super) fn is_readable(section: &[u8], line: &[u8]) -> bool {
    let text = [b"v=0\r\n", section, b"\r\n", line, b"\r\n"].concat();
    Session::parse(&text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::sdp::{Description, MediaKind};
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        let right = "v=0\no=- 1 1 IN IP4 h\ns=-\nc=IN IP4 10.0.0.1\nt=0 0\nm=audio 5000 RTP/AVP 0 101\n\
                     a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\n";
        let expected = Description::parse(right.as_bytes());
        let line = &expected.lines[0];
        assert_eq!(
            (line.endpoint.unwrap().to_string().as_str(), line.kind),
            ("10.0.0.1:5000", MediaKind::Audio)
        );
        for (mistake, from, to) in [
            ("CRLF", "\n", "\r\n"),
            ("CR alone", "\n", "\r"),
            ("blanks before lines", "\n", "\n  "),
            ("blanks behind lines", "\n", " \t\n"),
            ("empty lines", "\n", "\n\n"),
            ("no version", "v=0\n", ""),
            ("another version", "v=0\n", "v=one\n"),
            ("no origin, name and time", "o=- 1 1 IN IP4 h\ns=-\n", ""),
            ("blank behind the equals sign", "m=audio", "m= audio"),
            ("two blanks", "5000 RTP", "5000  RTP"),
            ("tabs", " ", "\t"),
            ("capital letters of lines", "m=", "M="),
            ("small letters", "IN IP4 10", "in ip4 10"),
            ("AUDIO", "m=audio", "m=AUDIO"),
            ("rtp/avp", "RTP/AVP", "rtp/avp"),
            ("blank behind the colon", "rtpmap:", "rtpmap: "),
            ("blank before the colon", "fmtp:", "fmtp :"),
            ("two blanks in rtpmap", "101 tele", "101   tele"),
            ("number of ports", "5000 RTP", "5000/2 RTP"),
            (
                "address of the line",
                "m=audio 5000 RTP/AVP 0 101\n",
                "m=audio 5000 RTP/AVP 0 101\nc=IN IP4 10.0.0.1\n",
            ),
            ("multicast's suffix", "10.0.0.1", "10.0.0.1/127"),
            ("what nobody knows", "t=0 0\n", "t=0 0\nx=y\nz\n=\nb=AS: 64\n\u{7f}\n"),
            ("garbage at the end", "0-15\n", "0-15\n\0\0\0"),
            ("no line end at the end", "0-15\n", "0-15"),
        ] {
            let text = right.replace(from, to);
            assert_ne!(text, right, "{mistake}");
            let mut read = Description::parse(text.as_bytes());
            assert_eq!(read.dropped, 0, "{mistake}");
            // The encoding's name and the rest of values stay as they were written.
            if let Some(fmtp) = read.lines.first_mut().and_then(|line| line.formats.last_mut()?.fmtp.as_mut())
            {
                *fmtp = fmtp.trim_end_matches('\0').into();
            }
            assert_eq!(read, expected, "{mistake}");
        }
    }

    #[test]
    fn what_has_no_address_has_no_endpoint_and_says_the_rest() {
        for (connection, port) in [
            ("", "5000"),
            ("c=IN IP4 pbx.example.com\n", "5000"),
            ("c=IN IP4 10.0.0\n", "5000"),
            ("c=IN\n", "5000"),
            ("c=IN IP4 10.0.0.1\n", "0"),
            ("c=IN IP6 ::\n", "5000"),
        ] {
            let text = format!("v=0\n{connection}m=audio {port} RTP/AVP 8\na=sendonly\n");
            let read = Description::parse(text.as_bytes());
            let line = &read.lines[0];
            assert_eq!((line.endpoint, line.rtcp, line.formats[0].payload_type), (None, None, 8), "{text}");
        }
        let v6 =
            Description::parse(b"v=0\nc=IN IP4 10.0.0.1\nm=audio 5000 RTP/AVP 8\nc=in ip6 2001:DB8::1\n");
        assert_eq!(v6.lines[0].endpoint.unwrap().to_string(), "[2001:db8::1]:5000");
        assert!(tidied(b"\xff\n=\nm\n==\n").is_empty());
    }
}
