//! SIP over WebSocket (RFC 7118): the handshake that announces it, and its frames (RFC 6455, 5.2).
//!
//! One message of WebSocket holds one message of SIP, in one frame or several; pings and pongs may come between them. What a
//! client sends is masked, so its bytes are not what they seem: nothing of such a connection can be found by looking for a
//! start line.

use std::borrow::Cow;

use super::message::{self, headers_of};
use super::reassembly::MAX_UNFINISHED;

/// Longest head of the handshake.
const MAX_HANDSHAKE: usize = 8 * 1024;

/// Whether bytes begin with a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// No HTTP.
    None,
    /// HTTP, and its head is not complete.
    Incomplete,
    /// HTTP, and no change to WebSocket; so long.
    Http(usize),
    /// Behind so many bytes, frames begin.
    Upgrade(usize),
}

impl Handshake {
    /// Reads the head of a request or of its response (RFC 6455, 4).
    pub fn read(bytes: &[u8]) -> Self {
        const BEGINS: [&[u8]; 2] = [b"GET ", b"HTTP/1.1 "];
        let begins = |word: &&[u8]| {
            let there = word.len().min(bytes.len());
            bytes.get(..there) == word.get(..there)
        };
        if bytes.is_empty() || !BEGINS.iter().any(begins) {
            return Self::None;
        }
        let (head, Some(body)) = message::split_head(bytes) else {
            return if bytes.len() < MAX_HANDSHAKE { Self::Incomplete } else { Self::None };
        };
        let length = bytes.len() - body.len();
        let mut lines = head.splitn(2, |byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        if !first.trim_ascii_end().ends_with(b" HTTP/1.1") && !first.starts_with(b"HTTP/1.1 ") {
            return Self::None;
        }
        let is_upgrade = headers_of(lines.next().unwrap_or_default()).any(|header| {
            header.name.eq_ignore_ascii_case(b"upgrade") && header.value.eq_ignore_ascii_case(b"websocket")
        });
        let is_refused = first.starts_with(b"HTTP/1.1 ") && !first.starts_with(b"HTTP/1.1 101");
        if is_upgrade && !is_refused { Self::Upgrade(length) } else { Self::Http(length) }
    }
}

/// What stands at the front of a stream of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// A message without its mask, in so many bytes and frames.
    Message {
        /// What it carries.
        payload: Cow<'a, [u8]>,
        /// Bytes that it took.
        length: usize,
        /// Frames, those of control between them included.
        frames: u64,
    },
    /// A ping, a pong, a close, or the rest of a message whose beginning was not seen: so many bytes.
    Other(usize),
    /// More bytes are needed: so many in all, as far as is known.
    Incomplete(usize),
    /// No frame, or one that no message of SIP is in.
    Malformed,
}

/// Takes the first message off a stream of frames.
pub fn split(bytes: &[u8]) -> Front<'_> {
    let mut at = 0;
    let mut frames = 0;
    let mut payload: Option<Cow<'_, [u8]>> = None;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let head = match Head::read(rest) {
            Ok(head) => head,
            Err(Refusal::TooFew(count)) => return Front::Incomplete(at + count),
            Err(Refusal::NoFrame) => return Front::Malformed,
        };
        let end = at + head.length + head.payload;
        let Some(carried) = bytes.get(at + head.length..end) else { return Front::Incomplete(end) };
        (at, frames) = (end, frames + 1);
        payload = match (head.opcode, payload) {
            (opcode::CLOSE.., None) => return Front::Other(end),
            (opcode::CLOSE.., begun) => {
                payload = begun;
                continue;
            }
            (opcode::CONTINUATION, None) => return Front::Other(end),
            (opcode::CONTINUATION, Some(begun)) => {
                let mut whole = begun.into_owned();
                whole.extend_from_slice(&head.unmask(carried));
                Some(Cow::Owned(whole))
            }
            (_, None) => Some(head.unmask(carried)),
            (_, Some(_)) => return Front::Malformed,
        };
        if at > MAX_UNFINISHED {
            return Front::Malformed;
        }
        if head.is_last {
            return Front::Message { payload: payload.unwrap_or_default(), length: at, frames };
        }
    }
}

/// Does a frame that carries SIP begin here? Asked of a connection whose handshake is not in the capture.
pub fn begins_with_sip(bytes: &[u8]) -> bool {
    let Ok(head) = Head::read(bytes) else { return false };
    let carried = bytes.get(head.length..).unwrap_or_default();
    let carried = carried.get(..head.payload).unwrap_or(carried);
    matches!(head.opcode, opcode::TEXT | opcode::BINARY) && message::begins_like_sip(&head.unmask(carried))
}

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    /// The first of those for control: close, ping, pong.
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PONG: u8 = 10;
}

/// A frame's head.
#[derive(Clone, Copy, Debug)]
struct Head {
    is_last: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    /// Of the head itself.
    length: usize,
    /// Of what it carries.
    payload: usize,
}

enum Refusal {
    /// So many bytes are needed to say.
    TooFew(usize),
    NoFrame,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let &[first, second, ..] = bytes else { return Err(Refusal::TooFew(2)) };
        let (is_last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let is_control = opcode >= opcode::CLOSE;
        // The reserved bits stand for extensions. The one in use compresses (RFC 7692), and is not followed.
        let is_known = matches!(opcode, opcode::CONTINUATION..=opcode::BINARY | opcode::CLOSE..=opcode::PONG);
        if first & 0x70 != 0 || !is_known {
            return Err(Refusal::NoFrame);
        }
        let (field, payload) = match second & 0x7f {
            126 => {
                let Some(octets) = bytes.get(2..).and_then(<[u8]>::first_chunk) else {
                    return Err(Refusal::TooFew(4));
                };
                (2, u64::from(u16::from_be_bytes(*octets)))
            }
            127 => {
                let Some(octets) = bytes.get(2..).and_then(<[u8]>::first_chunk) else {
                    return Err(Refusal::TooFew(10));
                };
                (8, u64::from_be_bytes(*octets))
            }
            short => (0, u64::from(short)),
        };
        let payload = usize::try_from(payload).ok().filter(|payload| *payload <= MAX_UNFINISHED);
        let Some(payload) = payload.filter(|_| !is_control || is_last && field == 0) else {
            return Err(Refusal::NoFrame);
        };
        let mut length = 2 + field;
        let mut mask = None;
        if second & 0x80 != 0 {
            let Some(octets) = bytes.get(length..).and_then(<[u8]>::first_chunk) else {
                return Err(Refusal::TooFew(length + 4));
            };
            mask = Some(*octets);
            length += 4;
        }
        Ok(Self { is_last, opcode, mask, length, payload })
    }

    fn unmask(self, carried: &[u8]) -> Cow<'_, [u8]> {
        let Some(mask) = self.mask else { return Cow::Borrowed(carried) };
        Cow::Owned(carried.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n";

    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8], field: usize) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match field {
            0 => bytes.push(masked | u8::try_from(payload.len()).unwrap()),
            2 => {
                bytes.push(masked | 0x7e);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(masked | 0x7f);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        let mask = mask.inspect(|mask| bytes.extend(mask)).unwrap_or_default();
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn message(bytes: &[u8]) -> (Vec<u8>, usize, u64) {
        match split(bytes) {
            Front::Message { payload, length, frames } => (payload.into_owned(), length, frames),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_is_read_masked_or_not_with_every_length_field_as_text_or_binary() {
        for field in [0, 2, 8] {
            for mask in [None, Some([1, 2, 3, 0xff])] {
                for first in [0x81, 0x82] {
                    let bytes = frame(first, mask, OPTIONS, field);
                    let followed = [&bytes[..], &bytes].concat();
                    assert_eq!(message(&followed), (OPTIONS.to_vec(), bytes.len(), 1));
                    assert!(begins_with_sip(&bytes));
                    for cut in 0..bytes.len() {
                        let Front::Incomplete(needed) = split(&bytes[..cut]) else { panic!("cut at {cut}") };
                        assert!(
                            cut < needed && needed <= bytes.len(),
                            "{needed} of {} at {cut}",
                            bytes.len()
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn fragments_are_joined_and_control_frames_between_them_skipped() {
        let mask = Some([9, 8, 7, 6]);
        let bytes = [
            frame(0x01, mask, &OPTIONS[..10], 0),
            frame(0x89, mask, b"ping", 0),
            frame(0x00, mask, &OPTIONS[10..20], 2),
            frame(0x80, mask, &OPTIONS[20..], 0),
        ]
        .concat();
        assert_eq!(message(&bytes), (OPTIONS.to_vec(), bytes.len(), 4));
        let ping = frame(0x89, None, b"ping", 0);
        assert_eq!(split(&ping), Front::Other(6));
        let stray = frame(0x80, None, b"rest", 0);
        assert_eq!(split(&stray), Front::Other(6));
        assert!(!begins_with_sip(&stray) && !begins_with_sip(&ping));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let long = frame(0x81, None, &vec![b'x'; MAX_UNFINISHED + 1], 8);
        let two_beginnings = [frame(0x01, None, b"a", 0), frame(0x81, None, b"b", 0)].concat();
        for bytes in [
            b"\xc1\x05compr".as_slice(),
            b"\x83\x00",
            b"\x8b\x00",
            b"\x09\x00",
            b"\x89\x7e\x00\x80",
            b"INVITE sip:a SIP/2.0\r\n",
            &long,
            &two_beginnings,
        ] {
            assert_eq!(split(bytes), Front::Malformed, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_handshake_is_told_from_other_http() {
        let request =
            b"GET /ws HTTP/1.1\r\nHost: a\r\nUPGRADE : WebSocket\r\nSec-WebSocket-Protocol: sip\r\n\r\n";
        let response = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        for bytes in [&request[..], &response[..]] {
            assert_eq!(Handshake::read(bytes), Handshake::Upgrade(bytes.len()));
            for cut in 1..bytes.len() {
                assert_eq!(Handshake::read(&bytes[..cut]), Handshake::Incomplete, "cut at {cut}");
            }
        }
        assert_eq!(Handshake::read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx"), Handshake::Http(27));
        assert_eq!(
            Handshake::read(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n\r\n"),
            Handshake::Http(53)
        );
        for other in [&b""[..], OPTIONS, b"GET sip:a SIP/2.0\r\n\r\n", b"\x16\x03\x01"] {
            assert_eq!(Handshake::read(other), Handshake::None, "{}", other.escape_ascii());
        }
    }
}
