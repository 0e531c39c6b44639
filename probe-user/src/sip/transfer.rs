//! Transfers: REFER and its NOTIFYs within a call (RFC 3515), and which other call a REFER has made.
//!
//! ```text
//!   call A:  transferor ── REFER, Refer-To: target ──▶ transferee
//!   call B:                                  transferee ── INVITE ──▶ target
//!   call A:  transferor ◀── NOTIFY: 180, 200 ────────── transferee
//! ```
//!
//! Nothing has to name call A in call B. It is known by what the transferee may copy (Referred-By, Replaces), else by its
//! target and its sender within a while after the REFER.

use std::collections::VecDeque;
use std::sync::Arc;

use super::call::{Sighting, millis, name, name_text, uri_text};
use super::message::{Address, Message};
use super::report::{CallReport, Transfer, TransferKind, What};
use super::text::parameter;
use crate::packet::Nanos;

/// REFERs told of one call.
const MAX_TRANSFERS: usize = 16;
/// REFERs whose call is awaited at one time; each new call is held against all of them.
const MAX_AWAITED: usize = 256;
/// How long a transferee may take to call: as long as it may repeat its INVITE (64 T1).
const WINDOW_NS: i64 = 32_000_000_000;

/// A dialog that a header names: that of Replaces (RFC 3891), also where a Refer-To URI carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replaces {
    pub(super) call_id: Box<str>,
}

impl Replaces {
    /// Of an INVITE.
    pub(super) fn of(message: &Message<'_>) -> Option<Self> {
        Self::parse(message.header("replaces", None)?)
    }

    /// `<sip:carol@pbx?Replaces=id%40host%3Bto-tag%3D1%3Bfrom-tag%3D2>`
    fn of_uri(uri: &[u8]) -> Option<Self> {
        let headers = uri.split(|&b| b == b'?').nth(1)?;
        let named = headers.split(|&b| b == b'&').find_map(|header| {
            let (name, value) = header.split_at_checked(header.iter().position(|&b| b == b'=')?)?;
            name.eq_ignore_ascii_case(b"replaces").then(|| unescape(value.get(1..).unwrap_or_default()))
        });
        Self::parse(&named?)
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let call_id = value.split(|&b| b == b';').next()?.trim_ascii();
        (!call_id.is_empty()).then(|| Self { call_id: name_text(call_id).into() })
    }
}

/// Takes a REFER into its call.
pub(super) fn refer(call: &mut CallReport, at: Sighting, message: &Message<'_>) {
    if call.transfers.len() >= MAX_TRANSFERS {
        return;
    }
    let target = target(message);
    let replaces = Replaces::of_uri(target.uri);
    call.transfers.push(Transfer {
        at_s: Nanos(at.time.0.saturating_sub(call.began.0)),
        frame: at.number,
        kind: if replaces.is_some() { TransferKind::Attended } else { TransferKind::Blind },
        by: uri_text(&message.from()),
        target: uri_text(&target),
        replaces: replaces.map(|replaces| replaces.call_id),
        seen: at.time,
        cseq: message.cseq.map_or(0, |cseq| cseq.number),
        ..Transfer::default()
    });
}

/// Takes the answer to a REFER.
pub(super) fn answer(call: &mut CallReport, message: &Message<'_>, code: u16) {
    let cseq = message.cseq.map(|cseq| cseq.number);
    if let Some(transfer) = call.transfers.iter_mut().rev().find(|t| Some(t.cseq) == cseq) {
        transfer.answer = Some(code);
    }
}

/// A NOTIFY of `Event: refer` carries the new call's status line (RFC 3515, 2.4.5); its `id` is REFER's CSeq.
pub(super) fn notify(call: &mut CallReport, at: Sighting, message: &Message<'_>) -> Option<What> {
    let event = message.header("event", Some(b'o'))?;
    let fragment = Message::parse(message.body).ok()?;
    let code = fragment.status()?;
    let id = parameter(event, b"id").and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    let transfers = &mut call.transfers;
    let named = transfers.iter().rposition(|t| Some(t.cseq) == id);
    let index = named.or(transfers.len().checked_sub(1))?;
    let transfer = transfers.get_mut(index)?;
    transfer.outcome = Some(code);
    if code >= 200 && transfer.completed_ms.is_none() {
        transfer.completed_ms = millis(at.time, transfer.seen);
    }
    Some(What::Notify(code))
}

fn target<'a>(message: &Message<'a>) -> Address<'a> {
    Address::parse(message.header("refer-to", Some(b'r')).unwrap_or_default())
}

/// REFERs whose call has not been seen yet.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    refers: VecDeque<Refer>,
    forgotten: u64,
}

/// A REFER, and what its call may be known by.
#[derive(Debug)]
struct Refer {
    /// The call that carries it.
    serial: u64,
    at: Sighting,
    transferor: Box<[u8]>,
    transferee: Box<[u8]>,
    target: Box<[u8]>,
    replaces: Option<Replaces>,
}

/// The transfer that made a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// The call with the REFER.
    pub(super) by: u64,
    /// Frame of the REFER.
    pub(super) frame: u64,
    pub(super) because: Box<str>,
}

impl Awaited {
    /// Takes a REFER of a call.
    pub(super) fn expect(&mut self, serial: u64, at: Sighting, message: &Message<'_>) {
        let target = target(message);
        if self.refers.len() >= MAX_AWAITED {
            self.refers.pop_front();
            self.forgotten += 1;
        }
        let referred_by = message.header("referred-by", Some(b'b')).map(Address::parse);
        self.refers.push_back(Refer {
            serial,
            at,
            transferor: user(referred_by.unwrap_or_else(|| message.from()).uri),
            transferee: user(message.to().uri),
            target: user(target.uri),
            replaces: Replaces::of_uri(target.uri),
        });
    }

    /// The REFER in this frame was refused.
    pub(super) fn refused(&mut self, frame: u64) {
        self.refers.retain(|refer| refer.at.number != frame);
    }

    /// Was the call that this INVITE begins made by one of them? `serial` is the call.
    pub(super) fn made(&mut self, serial: u64, at: Sighting, message: &Message<'_>) -> Option<Made> {
        while let Some(refer) = self.refers.front()
            && at.time.since(refer.at.time) > WINDOW_NS
        {
            self.refers.pop_front();
        }
        if self.refers.is_empty() {
            return None;
        }
        let invite = Invite {
            at,
            replaces: Replaces::of(message),
            referred_by: message.header("referred-by", Some(b'b')).map(|by| user(Address::parse(by).uri)),
            from: user(message.from().uri),
            to: user(message.to().uri),
        };
        let others = || self.refers.iter().enumerate().filter(|(_, refer)| refer.serial != serial);
        // The surest sign of any first.
        let (place, because) = SIGNS
            .iter()
            .find_map(|sign| others().find_map(|(place, refer)| Some((place, sign(refer, &invite)?))))?;
        let refer = self.refers.remove(place)?;
        Some(Made { by: refer.serial, frame: refer.at.number, because: because.into() })
    }

    /// Given up for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

/// What an INVITE may be known by.
struct Invite {
    at: Sighting,
    replaces: Option<Replaces>,
    referred_by: Option<Box<[u8]>>,
    from: Box<[u8]>,
    to: Box<[u8]>,
}

/// Signs that an INVITE was made by a REFER, in words.
const SIGNS: [fn(&Refer, &Invite) -> Option<String>; 3] = [
    |refer, invite| {
        let replaces = refer.replaces.as_ref()?;
        (invite.replaces.as_ref()? == replaces)
            .then(|| format!("Replaces {}, as the REFER asked", replaces.call_id))
    },
    |refer, invite| {
        let by = invite.referred_by.as_ref().filter(|by| **by == refer.transferor)?;
        Some(format!("Referred-By {}", String::from_utf8_lossy(by)))
    },
    |refer, invite| {
        let is_theirs =
            invite.from == refer.transferee || invite.at.flow.src.address == refer.at.flow.dst.address;
        (is_theirs && !refer.target.is_empty() && invite.to == refer.target).then(|| {
            let target = String::from_utf8_lossy(&refer.target);
            match millis(invite.at.time, refer.at.time) {
                Some(ms) => format!("to {target}, {ms:.0} ms after the REFER"),
                None => format!("to {target}, after the REFER"),
            }
        })
    },
];

/// The user part of a SIP URI; the host part is rewritten on the way. Of another URI all of it (`tel:`).
fn user(uri: &[u8]) -> Box<[u8]> {
    let uri = uri.split(|b| b"?;".contains(b)).next().unwrap_or_default();
    let rest = uri.iter().position(|&b| b == b':').and_then(|at| uri.get(at + 1..)).unwrap_or(uri);
    let user = rest.iter().position(|&b| b == b'@').and_then(|at| rest.get(..at)).unwrap_or(rest);
    name(user).into()
}

/// Takes `%40` for `@` (RFC 3986, 2.1).
fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%').and_then(|d| std::str::from_utf8(d).ok());
        let escape = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escape.unwrap_or(first));
        rest = if escape.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    bytes
}

/// The call that a REFER made is this one.
pub(super) fn note_made(call: &mut CallReport, frame: u64, call_id: &Arc<str>) {
    if let Some(transfer) = call.transfers.iter_mut().find(|transfer| transfer.frame == frame) {
        transfer.new_call = Some(Arc::clone(call_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_is_read_from_a_header_and_from_an_escaped_uri() {
        let named = |call_id: &str| Some(Replaces { call_id: call_id.into() });
        assert_eq!(Replaces::parse(b" a@b ; to-tag=1;from-tag=2"), named("a@b"));
        let uri = b"sip:c@h;x=1?Subject=a&replaces=a%40b%3Bto-tag%3D1%3bfrom-tag%3D2";
        assert_eq!(Replaces::of_uri(uri), named("a@b"));
        assert_eq!(Replaces::of_uri(b"sip:c@h?Replaces=a%4"), named("a%4"));
        assert_eq!(Replaces::of_uri(b"sip:c@h?Subject=x"), None);
        assert_eq!(Replaces::of_uri(b"sip:c@h?Replaces=%3B"), None);
    }

    #[test]
    fn user_is_what_hosts_do_not_rewrite() {
        let table =
            [("sip:ann@pbx;transport=tcp", "ann"), ("sip:pbx", "pbx"), ("tel:+49;ext=1", "+49"), ("", "")];
        for (uri, expected) in table {
            assert_eq!(*user(uri.as_bytes()), *expected.as_bytes(), "{uri}");
        }
    }
}
