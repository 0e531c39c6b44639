//! One SIP message, read as a monitor reads it: without a copy, without a panic, and without insisting.
//!
//! An element of the network must refuse what RFC 3261 forbids; a monitor must say what was there. So what can
//! be read is read and its [`Defects`] are noted, and only bytes without a SIP start line are refused
//! ([`Malformed`]). Header names match in any case and in their compact forms (RFC 3261, 7.3.3), values may be
//! folded: every accessor takes CR and LF for the white space that folding makes of them.
//!
//! A datagram holds one message and what follows it is nobody's (RFC 3261, 18.3); in a stream
//! Content-Length separates them, see [`split`].

use thiserror::Error;

pub use super::defects::Defects;
use super::reassembly::Needs;
use super::text::{Quoted, number, parameter, prefix_matches, token, trim, values};

/// Bytes searched for a start line behind junk. Real junk (keep-alives, an old body's tail) is short.
const MAX_JUNK: usize = 1024;
/// Longest head that a stream may keep open: what follows would be another protocol.
const MAX_HEAD: usize = 32 * 1024;

/// A message: its start line, the headers that correlation needs, and its body.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// Request or response.
    pub start: StartLine<'a>,
    /// Call-ID, trimmed; empty if there is none.
    pub call_id: &'a [u8],
    /// CSeq, if it could be read.
    pub cseq: Option<CSeq<'a>>,
    /// From, as written. See [`Message::from`].
    from: &'a [u8],
    to: &'a [u8],
    top_via: &'a [u8],
    /// Via values: hops that the request has made, each a value of its own or separated by commas.
    pub vias: u16,
    /// Content-Type, as written; empty if there is none.
    pub content_type: &'a [u8],
    /// Content-Length, if it could be read.
    pub content_length: Option<usize>,
    /// Content-Encoding is there, and is not `identity`: the body cannot be read as text.
    pub is_encoded: bool,
    /// What came after the empty line, cut to Content-Length where that fits.
    pub body: &'a [u8],
    /// What was wrong and did not prevent reading.
    pub defects: Defects,
    head: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads the message in a datagram.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (start, head_at, mut defects) = find_start(bytes)?;
        let rest = bytes.get(head_at..).unwrap_or_default();
        let (head, body) = split_head(rest);
        if body.is_none() {
            defects.note(Defects::NO_EMPTY_LINE);
        }
        let mut message = Self::with_head(start, head, defects);
        message.take_body(body.unwrap_or_default());
        Ok(message)
    }

    /// The method of a request, or the method that a response answers (from CSeq); empty if unknown.
    pub fn method(&self) -> &'a str {
        match self.start {
            StartLine::Request { method, .. } => method,
            StartLine::Response { .. } => self.cseq.map_or("", |cseq| cseq.method),
        }
    }

    /// The status code of a response.
    pub fn status(&self) -> Option<u16> {
        match self.start {
            StartLine::Request { .. } => None,
            StartLine::Response { code, .. } => Some(code),
        }
    }

    /// From.
    pub fn from(&self) -> Address<'a> {
        Address::parse(self.from)
    }

    /// To.
    pub fn to(&self) -> Address<'a> {
        Address::parse(self.to)
    }

    /// The tag of whoever sent this message: From's of a request, To's of a response.
    pub fn sender_tag(&self) -> &'a [u8] {
        let address = if self.status().is_some() { self.to() } else { self.from() };
        address.tag.unwrap_or_default()
    }

    /// The branch of the topmost Via: with the method, the name of the transaction.
    pub fn branch(&self) -> Option<&'a [u8]> {
        parameter(self.top_via, b"branch")
    }

    /// The first value of a header that this reader does not extract by itself. `long` in lower case.
    pub fn header(&self, long: &str, compact: Option<u8>) -> Option<&'a [u8]> {
        self.headers().find(|header| header.is(long.as_bytes(), compact)).map(|header| header.value)
    }

    /// Seconds of an Expires header.
    pub fn expires(&self) -> Option<u32> {
        number(self.header("expires", None)?)
    }

    /// All headers, in the order of the message.
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.head }
    }

    fn with_head(start: StartLine<'a>, head: &'a [u8], defects: Defects) -> Self {
        let mut message = Self {
            start,
            call_id: &[],
            cseq: None,
            from: &[],
            to: &[],
            top_via: &[],
            vias: 0,
            content_type: &[],
            content_length: None,
            is_encoded: false,
            body: &[],
            defects,
            head,
        };
        for header in message.headers() {
            message.note(&header);
        }
        message.judge();
        message
    }

    /// Takes a header for a field. The first of a kind counts, as every element takes the first for its own;
    /// a second From, To, CSeq or Call-ID is a defect (RFC 4475, 3.3.8).
    fn note(&mut self, header: &Header<'a>) {
        let value = header.value;
        let once = |field: &mut &'a [u8], defects: &mut Defects| {
            if field.is_empty() {
                *field = value;
            } else if *field != value {
                defects.note(Defects::REPEATED_HEADER);
            }
        };
        let Some(kind) = header.kind() else {
            if header.name.is_empty() {
                self.defects.note(Defects::NOT_A_HEADER);
            }
            return;
        };
        match kind {
            Field::CallId => once(&mut self.call_id, &mut self.defects),
            Field::From => once(&mut self.from, &mut self.defects),
            Field::To => once(&mut self.to, &mut self.defects),
            Field::ContentType => once(&mut self.content_type, &mut self.defects),
            Field::Via => {
                if self.top_via.is_empty() {
                    self.top_via = values(value).next().unwrap_or_default();
                }
                let hops = u16::try_from(values(value).count()).unwrap_or(u16::MAX);
                self.vias = self.vias.saturating_add(hops);
            }
            Field::CSeq => match (CSeq::parse(value), self.cseq) {
                (Some(cseq), None) => self.cseq = Some(cseq),
                (Some(cseq), Some(first)) if cseq != first => self.defects.note(Defects::REPEATED_HEADER),
                (Some(_), Some(_)) => {}
                (None, _) => self.defects.note(Defects::BAD_CSEQ),
            },
            Field::ContentLength => match (number(value), self.content_length) {
                (Some(length), None) => self.content_length = Some(length),
                (Some(length), Some(first)) if length != first => {
                    self.defects.note(Defects::REPEATED_HEADER);
                }
                (Some(_), Some(_)) => {}
                (None, _) => self.defects.note(Defects::BAD_CONTENT_LENGTH),
            },
            Field::ContentEncoding => self.is_encoded = !value.eq_ignore_ascii_case(b"identity"),
        }
    }

    /// Notes what is missing, and what contradicts itself.
    fn judge(&mut self) {
        let missing =
            self.call_id.is_empty() || self.from.is_empty() || self.to.is_empty() || self.top_via.is_empty();
        if missing || (self.cseq.is_none() && !self.defects.has(Defects::BAD_CSEQ)) {
            self.defects.note(Defects::MISSING_HEADER);
        }
        if let (StartLine::Request { method, .. }, Some(cseq)) = (self.start, self.cseq)
            && method != cseq.method
        {
            self.defects.note(Defects::METHOD_MISMATCH);
        }
    }

    fn take_body(&mut self, rest: &'a [u8]) {
        self.body = match self.content_length {
            Some(length) => rest.get(..length).unwrap_or_else(|| {
                self.defects.note(Defects::BODY_CUT);
                rest
            }),
            None => rest,
        };
        if !is_keep_alive(rest.get(self.body.len()..).unwrap_or_default()) {
            self.defects.note(Defects::TRAILING);
        }
    }
}

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartLine<'a> {
    /// `INVITE sip:bob@example.com SIP/2.0`
    Request {
        /// As written: methods are case-sensitive (RFC 3261, 7.1).
        method: &'a str,
        /// Request-URI, as written.
        uri: &'a [u8],
    },
    /// `SIP/2.0 180 Ringing`
    Response {
        /// 100 to 699.
        code: u16,
        /// Reason phrase, as written; may be empty.
        reason: &'a [u8],
    },
}

/// CSeq: number and method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Below 2^31 by RFC 3261, 8.1.1.5; anything that fits is taken.
    pub number: u32,
    /// Method.
    pub method: &'a str,
}

impl<'a> CSeq<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = value.split_at_checked(digits)?;
        let method = token(trim(rest))?;
        Some(Self { number: number(digits)?, method })
    }
}

/// A From, To, Contact or Refer-To value taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address<'a> {
    /// Display name without its quotes; empty if there is none.
    pub display: &'a [u8],
    /// URI without its angle brackets.
    pub uri: &'a [u8],
    /// The tag parameter.
    pub tag: Option<&'a [u8]>,
}

impl<'a> Address<'a> {
    /// Takes `"Bob" <sip:bob@b.example>;tag=x` or `sip:bob@b.example;tag=x` apart.
    pub fn parse(value: &'a [u8]) -> Self {
        let mut quoted = Quoted::default();
        let open = value.iter().position(|&b| !quoted.step(b) && b == b'<');
        // A quote that is never closed must not hide the URI.
        let open = open.or_else(|| value.iter().position(|&b| b == b'<').filter(|_| quoted.inside));
        let Some((before, after)) = open.and_then(|at| value.split_at_checked(at)) else {
            // Without brackets every parameter is the header's, not the URI's (RFC 3261, 20).
            let end = value.iter().position(|&b| b == b';').unwrap_or(value.len());
            let (uri, parameters) = value.split_at_checked(end).unwrap_or((value, &[]));
            return Self { display: &[], uri: trim(uri), tag: parameter(parameters, b"tag") };
        };
        let after = after.get(1..).unwrap_or_default();
        let end = after.iter().position(|&b| b == b'>').unwrap_or(after.len());
        let (uri, parameters) = after.split_at_checked(end).unwrap_or((after, &[]));
        let display = trim(before);
        let display = display.strip_prefix(b"\"").and_then(|d| d.strip_suffix(b"\"")).unwrap_or(display);
        Self { display, uri: trim(uri), tag: parameter(parameters, b"tag") }
    }
}

/// A header: its name as written and its value, trimmed but still folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name; empty for a line that is no header.
    pub name: &'a [u8],
    /// Value.
    pub value: &'a [u8],
}

#[derive(Clone, Copy)]
enum Field {
    CallId,
    CSeq,
    From,
    To,
    Via,
    ContentType,
    ContentLength,
    ContentEncoding,
}

impl Header<'_> {
    fn is(&self, long: &[u8], compact: Option<u8>) -> bool {
        match self.name {
            [letter] => compact == Some(letter.to_ascii_lowercase()),
            name => name.eq_ignore_ascii_case(long),
        }
    }

    fn kind(&self) -> Option<Field> {
        let is = |long: &[u8]| self.name.eq_ignore_ascii_case(long);
        match self.name {
            [letter] => match letter.to_ascii_lowercase() {
                b'i' => Some(Field::CallId),
                b'f' => Some(Field::From),
                b't' => Some(Field::To),
                b'v' => Some(Field::Via),
                b'c' => Some(Field::ContentType),
                b'l' => Some(Field::ContentLength),
                b'e' => Some(Field::ContentEncoding),
                _ => None,
            },
            name => match name.len() {
                2 if is(b"to") => Some(Field::To),
                3 if is(b"via") => Some(Field::Via),
                4 if is(b"from") => Some(Field::From),
                4 if is(b"cseq") => Some(Field::CSeq),
                7 if is(b"call-id") => Some(Field::CallId),
                12 if is(b"content-type") => Some(Field::ContentType),
                14 if is(b"content-length") => Some(Field::ContentLength),
                16 if is(b"content-encoding") => Some(Field::ContentEncoding),
                _ => None,
            },
        }
    }
}

/// Iterates over the headers of a message.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut end = 0;
        loop {
            let tail = self.rest.get(end..).unwrap_or_default();
            match tail.iter().position(|&b| b == b'\n') {
                Some(at) => end += at + 1,
                None => end = self.rest.len(),
            }
            // A line that begins with white space continues the one before (RFC 3261, 7.3.1).
            if !matches!(self.rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (line, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let colon = line.iter().position(|&b| b == b':');
        let Some((name, value)) = colon.and_then(|at| line.split_at_checked(at)) else {
            return Some(Header { name: &[], value: trim(line) });
        };
        Some(Header { name: trim(name), value: trim(value.get(1..).unwrap_or_default()) })
    }
}

/// Why bytes are not a SIP message. Offsets count from the first byte of the datagram or of the stream's rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Nothing but line ends or NUL: a keep-alive (RFC 5626, 3.5.1), not an error of anybody.
    #[error("SIP start line: only line ends, a keep-alive")]
    KeepAlive,
    /// No line of the first bytes is a start line.
    #[error("SIP start line: none in the first {searched} bytes")]
    NoStartLine {
        /// Bytes searched.
        searched: usize,
    },
    /// A version other than 2.0.
    #[error("SIP start line at offset {offset}: version other than SIP/2.0")]
    Version {
        /// Where the start line begins.
        offset: usize,
    },
    /// A status code outside 100 to 699.
    #[error("SIP start line at offset {offset}: status code outside 100 to 699")]
    StatusCode {
        /// Where the start line begins.
        offset: usize,
    },
    /// In a connection: a head without an end.
    #[error("SIP head: longer than {MAX_HEAD} bytes")]
    EndlessHead,
    /// In a connection of WebSocket: no frame, a compressed one, or one that is too long.
    #[error("WebSocket: no frame that can be read")]
    NoFrame,
}

/// Does a datagram hold only what keeps a NAT binding open?
pub fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | 0 | b' '))
}

/// Could a payload on any port be SIP? A start line at its very beginning, told from RTP by the first byte.
#[inline]
pub fn begins_like_sip(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase) && matches!(first_line(bytes), Ok(Some(_)))
}

fn first_line(bytes: &[u8]) -> Result<Option<(StartLine<'_>, Defects)>, Malformed> {
    let window = bytes.get(..MAX_JUNK).unwrap_or(bytes);
    match window.iter().position(|&b| b == b'\n') {
        Some(end) => start_line(window.get(..end).unwrap_or_default(), 0),
        None => Ok(None),
    }
}

/// What stands at the front of a stream's bytes.
#[derive(Clone, Debug)]
pub enum Front<'a> {
    /// A message of this many bytes, junk before it included.
    Message(Message<'a>, usize),
    /// This many bytes of keep-alive.
    KeepAlive(usize),
    /// A message begins, and its end is not there yet.
    Incomplete(Needs),
    /// A message begins, and its head is longer than any that is read. None begins in so many bytes that could be.
    Endless(usize),
    /// No message begins here.
    Malformed(Malformed),
}

/// Takes the first message off a stream's bytes.
pub fn split(bytes: &[u8]) -> Front<'_> {
    let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n' | 0)).count();
    if blank > 0 {
        return Front::KeepAlive(blank);
    }
    let (start, head_at, defects) = match find_start(bytes) {
        Ok(found) => found,
        Err(_) if bytes.len() < MAX_HEAD && could_begin(bytes) => return Front::Incomplete(Needs::EmptyLine),
        Err(malformed) => return Front::Malformed(malformed),
    };
    let rest = bytes.get(head_at..).unwrap_or_default();
    let (head, Some(body)) = split_head(rest) else {
        // Whatever begins before the last `MAX_HEAD` bytes has no end of its head either.
        return match bytes.len().checked_sub(MAX_HEAD).and_then(|early| bytes.get(early..)) {
            None => Front::Incomplete(Needs::EmptyLine),
            Some(late) => Front::Endless(bytes.len() - late.len() + line_length(late)),
        };
    };
    let mut message = Message::with_head(start, head, defects);
    // Mandatory in a stream (RFC 3261, 18.3); without it the message ends with its head.
    let length = message.content_length.unwrap_or(0);
    let whole = (bytes.len() - body.len()).saturating_add(length);
    if body.len() < length {
        return Front::Incomplete(Needs::Bytes(whole));
    }
    message.body = body.get(..length).unwrap_or_default();
    Front::Message(message, whole)
}

/// Could nothing belong before these bytes of a stream? True of line ends and of a message's beginning, or what may become
/// one. See [`find_beginning`].
pub fn could_be_first(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let may_begin = || matches!(find_beginning(bytes), Beginning::At(0) | Beginning::NotBefore(0));
    bytes.is_empty() || bytes.first().is_some_and(u8::is_ascii_uppercase) && may_begin()
}

/// Where, in a stream that is read from its middle, a message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Here.
    At(usize),
    /// Nowhere yet; with more bytes perhaps here, and not before.
    NotBefore(usize),
}

/// Looks for the first line that is a start line and has a header below it: the status line in the body of a NOTIFY
/// (RFC 3420) has none.
pub fn find_beginning(bytes: &[u8]) -> Beginning {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(end) = rest.iter().position(|&b| b == b'\n').map(|end| end + 1) else {
            let is_open = rest.len() < MAX_JUNK && could_begin(rest);
            return Beginning::NotBefore(if is_open { at } else { bytes.len() });
        };
        let (line, below) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        if matches!(start_line(line, at), Ok(Some(_))) {
            let name = below
                .iter()
                .position(|b| matches!(b, b':' | b'\n'))
                .and_then(|end| below.split_at_checked(end));
            match name {
                Some((name, [b':', ..])) if token(trim(name)).is_some() => return Beginning::At(at),
                None if below.len() < MAX_JUNK && could_begin(below) => return Beginning::NotBefore(at),
                _ => {}
            }
        }
        at += end;
    }
    Beginning::NotBefore(bytes.len())
}

/// Is the only line so far one that may yet become a start line?
fn could_begin(bytes: &[u8]) -> bool {
    !bytes.contains(&b'\n') && bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ' || *b == b'\r')
}

/// Length of the first line, its end included.
fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// Finds the first line that is a start line. Gives the offset behind it.
fn find_start(bytes: &[u8]) -> Result<(StartLine<'_>, usize, Defects), Malformed> {
    let mut defects = Defects::default();
    let mut offset = 0;
    let mut refusal = None;
    while offset < bytes.len() && offset < MAX_JUNK {
        let rest = bytes.get(offset..).unwrap_or_default();
        let end = line_length(rest);
        let line = rest.get(..end).unwrap_or_default();
        match start_line(line, offset) {
            Ok(Some((start, odd))) => {
                defects.note(odd);
                return Ok((start, offset + end, defects));
            }
            Ok(None) => {}
            Err(malformed) => refusal = refusal.or(Some(malformed)),
        }
        if !is_keep_alive(line) {
            defects.note(Defects::JUNK_BEFORE);
        }
        offset += end;
    }
    match refusal {
        Some(refusal) => Err(refusal),
        None if is_keep_alive(bytes) => Err(Malformed::KeepAlive),
        None => Err(Malformed::NoStartLine { searched: bytes.len().min(MAX_JUNK) }),
    }
}

/// Reads a line as a start line; `None` if it is none at all.
fn start_line(line: &[u8], offset: usize) -> Result<Option<(StartLine<'_>, Defects)>, Malformed> {
    const VERSION: &[u8] = b"SIP/2.0";
    let mut odd = Defects::default();
    let bare = line.strip_suffix(b"\n").unwrap_or(line);
    let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
    let line = trim(bare);
    if prefix_matches(line, b"SIP/") && !line.contains(&b':') || prefix_matches(line, b"SIP/2.0 ") {
        if !prefix_matches(line, VERSION) {
            return Err(Malformed::Version { offset });
        }
        let after = trim(line.get(VERSION.len()..).unwrap_or_default());
        let digits = after.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, reason) = after.split_at_checked(digits).unwrap_or_default();
        return match number(digits) {
            Some(code @ 100..=699) if digits.len() == 3 => {
                Ok(Some((StartLine::Response { code, reason: trim(reason) }, odd)))
            }
            _ => Err(Malformed::StatusCode { offset }),
        };
    }
    let Some((method, after)) = line.iter().position(|&b| b == b' ').and_then(|at| line.split_at_checked(at))
    else {
        return Ok(None);
    };
    let Some(method) = token(method) else { return Ok(None) };
    let Some((uri, version)) =
        after.iter().rposition(|&b| b == b' ').and_then(|at| after.split_at_checked(at))
    else {
        return Ok(None);
    };
    let version = trim(version);
    if !prefix_matches(version, b"SIP/") {
        return Ok(None);
    }
    if !version.eq_ignore_ascii_case(VERSION) {
        return Err(Malformed::Version { offset });
    }
    let spaced = uri.strip_prefix(b" ").unwrap_or(uri);
    let uri = trim(spaced);
    if line.len() != bare.len() || uri.len() != spaced.len() || uri.contains(&b' ') || uri.starts_with(b"<") {
        odd.note(Defects::ODD_START_LINE);
    }
    Ok(Some((StartLine::Request { method, uri }, odd)))
}

/// Headers without a start line.
pub(super) fn headers_of(head: &[u8]) -> Headers<'_> {
    Headers { rest: head }
}

/// Splits at the empty line: the head, and what follows if there is an empty line.
pub(super) fn split_head(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let blank = match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => 0,
        };
        if blank > 0 {
            return (bytes.get(..at).unwrap_or_default(), rest.get(blank..));
        }
        match rest.iter().position(|&b| b == b'\n') {
            Some(end) => at += end + 1,
            None => return (bytes, None),
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
