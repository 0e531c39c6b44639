//! One RTCP datagram, checked before anything in it is believed.
//!
//! The lengths of all packets of a compound (RFC 3550, 6.1) must add up to the datagram's, each must be version 2 and of a
//! type that RFC 5761 sets aside for RTCP; then each packet's own counts must fit its length. The first packet may
//! be of any type (reduced size, RFC 5506). What fails is refused and named: read on, an SDES becomes a report block
//! and its letters a jitter of a hundred million milliseconds.
//!
//! SR, RR, BYE, and the walk over XR blocks are `rtcp-types`'. Padding is taken off before it looks, and SDES is read
//! here: see `docs/decisions/0009-rtcp-crate.md`.

use rtcp_types::prelude::*;
use rtcp_types::{Bye, ReceiverReferenceTime, ReceiverReport, SenderReport, Xr};

use super::xr::{Answers, StatisticsSummary, VoipMetrics};

/// Highest jitter that is believed: a minute at the fastest clock that is in use. In timestamp units.
const MAX_JITTER: u32 = 60 * 90_000;
/// Longest time that a receiver may have held a report before it answered: an hour, in 1/65536 s.
const MAX_DELAY: u32 = 3_600 << 16;

/// A 64-bit NTP time: seconds since 1900 and their 2^32nd parts (RFC 3550, 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ntp(pub u64);

impl Ntp {
    /// The middle 32 bits, by which a report is named in an answer to it.
    pub fn middle(self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "the middle of 64 bits")]
        let middle = (self.0 >> 16) as u32;
        middle
    }

    /// Seconds since `earlier`, right across the era's end in 2036.
    pub fn since(self, earlier: Self) -> f64 {
        self.0.wrapping_sub(earlier.0).cast_signed() as f64 / 4_294_967_296.0
    }
}

/// What one receiver says of one sender (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The sender it is about.
    pub ssrc: u32,
    /// Lost since the report before, in 256ths of what was expected.
    pub fraction_lost: u8,
    /// Lost since reception began; negative with duplicates.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle of the NTP time of the last sender report that arrived; 0 if none did.
    pub last_report: u32,
    /// For how long it was held, in 1/65536 s.
    pub delay: u32,
}

impl ReportBlock {
    /// Nothing in it contradicts itself: nobody can have lost more than was sent, or held a report for an hour.
    pub fn is_plausible(&self) -> bool {
        let most = i64::from(self.highest_seq) + 1;
        i64::from(self.cumulative_lost) <= most && self.jitter <= MAX_JITTER && self.delay <= MAX_DELAY
    }

    /// Nothing is filled in but the sequence number.
    pub fn is_empty(&self) -> bool {
        let Self { ssrc: _, highest_seq: _, fraction_lost, cumulative_lost, jitter, last_report, delay } =
            *self;
        fraction_lost == 0 && cumulative_lost == 0 && jitter == 0 && last_report == 0 && delay == 0
    }
}

impl From<rtcp_types::ReportBlock<'_>> for ReportBlock {
    fn from(block: rtcp_types::ReportBlock<'_>) -> Self {
        Self {
            ssrc: block.ssrc(),
            fraction_lost: block.fraction_lost(),
            // 24 bits with a sign.
            cumulative_lost: (block.cumulative_lost() << 8).cast_signed() >> 8,
            highest_seq: block.extended_sequence_number(),
            jitter: block.interarrival_jitter(),
            last_report: block.last_sender_report_timestamp(),
            delay: block.delay_since_last_sender_report_timestamp(),
        }
    }
}

/// What a sender says of itself (RFC 3550, 6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// When, by the sender's wall clock.
    pub ntp: Ntp,
    /// The same moment, by its media clock.
    pub rtp: u32,
    /// Packets sent since it began.
    pub packets: u32,
    /// Octets of payload sent since it began.
    pub octets: u32,
}

/// One statement of a datagram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statement<'a> {
    /// A sender's report.
    Sender(SenderInfo),
    /// A receiver's, which is nothing but its blocks.
    Receiver,
    /// What was received from another.
    Block(ReportBlock),
    /// The canonical name (SDES).
    Name(&'a [u8]),
    /// The participant leaves, and perhaps why.
    Bye(Option<&'a [u8]>),
    /// A receiver's wall clock (XR, block type 4).
    ReferenceTime(Ntp),
    /// How long a participant held another's reference time (XR, block type 5).
    Answer(Answers),
    /// XR, block type 6.
    Statistics(StatisticsSummary),
    /// XR, block type 7.
    Voip(VoipMetrics),
    /// Feedback, APP, and XR blocks that are not read.
    Other,
}

/// Why a datagram is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The capture has not all of it.
    Cut,
    /// The lengths do not add up, and what is left over ends as SRTCP does.
    Encrypted,
    /// The lengths do not add up.
    Malformed,
}

/// Reads a datagram. `say` is given each statement with the SSRC that makes it. Returns how many of its packets had counts
/// that do not fit them; those say nothing.
///
/// # Errors
/// If the datagram as a whole is no RTCP that can be read; then nothing was said.
pub fn read(payload: &[u8], is_cut: bool, mut say: impl FnMut(u32, Statement<'_>)) -> Result<u64, Refusal> {
    if is_cut {
        return Err(Refusal::Cut);
    }
    if !adds_up(payload) {
        return Err(if ends_as_srtcp(payload) { Refusal::Encrypted } else { Refusal::Malformed });
    }
    let mut refused = 0;
    let mut rest = payload;
    while let Some((packet, next)) = first_packet(rest) {
        let is_read = match without_padding(packet) {
            Padding::None => read_packet(packet, &mut say),
            Padding::Taken(shorter) => read_packet(&shorter, &mut say),
            Padding::Wrong => None,
        };
        refused += u64::from(is_read.is_none());
        rest = next;
    }
    Ok(refused)
}

/// Do the packets fill the datagram exactly, with padding in the last only?
fn adds_up(payload: &[u8]) -> bool {
    let mut rest = payload;
    while let Some((packet, next)) = first_packet(rest) {
        if next.is_empty() {
            return true;
        }
        if is_padded(packet) {
            return false;
        }
        rest = next;
    }
    false
}

/// The first packet and what comes after it, by its own length.
fn first_packet(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[first, kind, high, low, ..] = bytes else { return None };
    let is_rtcp = first >> 6 == 2 && (192..=223).contains(&kind);
    let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
    is_rtcp.then(|| bytes.split_at_checked(length)).flatten()
}

/// SRTCP (RFC 3711, 3.4): the first header is in the clear, and at the end are a bit E that is set, an index of 31 bits and
/// a tag. The tag has 10 octets, seldom 4; with AES-GCM (RFC 7714, 9) it comes first.
fn ends_as_srtcp(payload: &[u8]) -> bool {
    let &[first, kind, ..] = payload else { return false };
    let is_marked = |tail: usize| {
        let at = payload.len().checked_sub(tail).filter(|at| *at >= 8);
        at.and_then(|at| payload.get(at)).is_some_and(|octet| octet & 0x80 != 0)
    };
    first >> 6 == 2 && (200..=207).contains(&kind) && [14, 8, 4].into_iter().any(is_marked)
}

enum Padding {
    None,
    /// The packet as it would be without.
    Taken(Vec<u8>),
    Wrong,
}

fn is_padded(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & 0x20 != 0)
}

fn without_padding(packet: &[u8]) -> Padding {
    if !is_padded(packet) {
        return Padding::None;
    }
    let count = packet.last().copied().map_or(0, usize::from);
    let kept = packet.len().checked_sub(count).filter(|kept| *kept >= 4);
    let Some(kept) = kept.filter(|_| count > 0 && count % 4 == 0) else { return Padding::Wrong };
    let mut shorter = packet.get(..kept).unwrap_or_default().to_vec();
    if let ([first, _, high, low, ..], Ok(words)) = (shorter.as_mut_slice(), u16::try_from(kept / 4 - 1)) {
        *first &= !0x20;
        [*high, *low] = words.to_be_bytes();
    }
    Padding::Taken(shorter)
}

/// One packet whose length is right. `None` if its counts do not fit it.
fn read_packet(packet: &[u8], say: &mut impl FnMut(u32, Statement<'_>)) -> Option<()> {
    match packet.get(1)? {
        200 => {
            let report = SenderReport::parse(packet).ok()?;
            say(
                report.ssrc(),
                Statement::Sender(SenderInfo {
                    ntp: Ntp(report.ntp_timestamp()),
                    rtp: report.rtp_timestamp(),
                    packets: report.packet_count(),
                    octets: report.octet_count(),
                }),
            );
            report.report_blocks().for_each(|block| say(report.ssrc(), Statement::Block(block.into())));
        }
        201 => {
            let report = ReceiverReport::parse(packet).ok()?;
            say(report.ssrc(), Statement::Receiver);
            report.report_blocks().for_each(|block| say(report.ssrc(), Statement::Block(block.into())));
        }
        202 => names(packet, say)?,
        203 => {
            let bye = Bye::parse(packet).ok()?;
            bye.ssrcs().for_each(|ssrc| say(ssrc, Statement::Bye(bye.reason())));
        }
        207 => {
            // Without a block it is short for the crate, and says nothing.
            if packet.len() > 8 {
                let report = Xr::parse(packet).ok()?;
                report.block_iter().for_each(|block| say(report.sender_ssrc(), extended(&block)));
            }
        }
        _ => {
            let ssrc = packet.get(4..)?.first_chunk()?;
            say(u32::from_be_bytes(*ssrc), Statement::Other);
        }
    }
    Some(())
}

/// What an XR block says. One whose length is not its type's is none that is read.
fn extended<'a>(block: &rtcp_types::XrBlock<'_>) -> Statement<'a> {
    match block.block_type() {
        4 => block
            .parse_into::<ReceiverReferenceTime<'_>>()
            .ok()
            .filter(|time| time.length() == 12)
            .map(|time| Statement::ReferenceTime(Ntp(time.ntp_timestamp()))),
        5 => block.parse_into().ok().map(Statement::Answer),
        6 => block.parse_into().ok().map(Statement::Statistics),
        7 => block.parse_into().ok().map(Statement::Voip),
        _ => None,
    }
    .unwrap_or(Statement::Other)
}

/// The canonical names of an SDES packet (RFC 3550, 6.5): as many chunks as it counts, each of items up to a zero, filled
/// up to a word.
fn names(packet: &[u8], say: &mut impl FnMut(u32, Statement<'_>)) -> Option<()> {
    const CNAME: u8 = 1;
    let chunks = packet.first()? & 0x1f;
    let mut at = 4;
    for _ in 0..chunks {
        let ssrc = u32::from_be_bytes(*packet.get(at..)?.first_chunk()?);
        at += 4;
        loop {
            let kind = *packet.get(at)?;
            if kind == 0 {
                break;
            }
            let length = usize::from(*packet.get(at + 1)?);
            let value = packet.get(at + 2..)?.get(..length)?;
            if kind == CNAME {
                say(ssrc, Statement::Name(value));
            }
            at += 2 + length;
        }
        // The zero that ended it, and those up to the next word.
        at = (at + 4) & !3;
    }
    (at == packet.len()).then_some(())
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
