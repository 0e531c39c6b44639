//! Audio: RTP of one direction for some time, and RTCP about it.

use std::net::SocketAddr;

use super::stage::MS;
use crate::frames::{Rtp, rtp};
use crate::g711::{self, Law};

/// Between two packets.
pub const PTIME_NS: u64 = 20 * MS;
const SAMPLES: u32 = 160;
/// Of a video clock in the same time.
const VIDEO_TICKS: u32 = 1_800;

/// What is said, from whom to whom.
#[derive(Clone, Debug)]
pub struct Speech {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// Synchronisation source.
    pub ssrc: u32,
    /// When it begins.
    pub start_ns: u64,
    /// For how many packets of 20 ms.
    pub count: u64,
    /// Codec.
    pub law: Law,
    /// Video by its payload type and clock, whatever the bytes are.
    pub is_video: bool,
    /// The call that it belongs to, if signalling tells.
    pub call: Option<usize>,
    /// Words of the reason why it has no call.
    pub absent: Option<&'static str>,
}

impl Speech {
    /// µ-law from one place to another, for so many milliseconds from a moment on; the SSRC comes from both.
    pub fn new(from: SocketAddr, to: SocketAddr, start_ns: u64, ms: u64) -> Self {
        let mix = |sum: u32, octet: u8| sum.wrapping_mul(0x0100_0193) ^ u32::from(octet);
        let ssrc = format!("{from}>{to}").bytes().fold(0x811c_9dc5, mix);
        Self {
            from,
            to,
            ssrc,
            start_ns,
            count: ms * MS / PTIME_NS,
            law: Law::Mu,
            is_video: false,
            call: None,
            absent: None,
        }
    }

    /// Of this call.
    #[must_use]
    pub fn of(self, call: usize) -> Self {
        Self { call: Some(call), ..self }
    }

    /// With another codec.
    #[must_use]
    pub fn law(self, law: Law) -> Self {
        Self { law, ..self }
    }

    /// Video of payload type 96 at 90 kHz instead.
    #[must_use]
    pub fn video(self) -> Self {
        Self { is_video: true, ..self }
    }

    /// With another SSRC.
    #[must_use]
    pub fn ssrc(self, ssrc: u32) -> Self {
        Self { ssrc, ..self }
    }

    /// Belongs to no call, for a reason with these words.
    #[must_use]
    pub fn absent(self, because: &'static str) -> Self {
        Self { absent: Some(because), ..self }
    }
}

/// A sender and how far its numbers got.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    pub(super) stream: usize,
    began_ns: u64,
    next: u32,
    first_seq: u16,
    first_timestamp: u32,
}

impl Voice {
    /// Numbers come from the SSRC: whoever relays a stream sends the same.
    pub(super) fn new(ssrc: u32, stream: usize, began_ns: u64) -> Self {
        let mixed = ssrc.wrapping_mul(0x9e37_79b1);
        #[expect(clippy::cast_possible_truncation, reason = "any sixteen bits will do")]
        let first_seq = (mixed >> 7) as u16;
        Self { stream, began_ns, next: 0, first_seq, first_timestamp: mixed.rotate_left(13) }
    }

    pub(super) fn packets(&mut self, speech: &Speech) -> Vec<Rtp> {
        let offset = speech.start_ns.saturating_sub(self.began_ns) / PTIME_NS;
        let pitch_hz = 120.0 + f64::from(speech.ssrc % 160);
        (0..speech.count)
            .map(|index| {
                let ticks = if speech.is_video { VIDEO_TICKS } else { SAMPLES };
                let at = u32::try_from(offset + index).unwrap_or(u32::MAX).wrapping_mul(ticks);
                #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
                let seq = self.first_seq.wrapping_add(self.next as u16);
                self.next += 1;
                Rtp {
                    seq,
                    timestamp: self.first_timestamp.wrapping_add(at),
                    ssrc: speech.ssrc,
                    payload_type: if speech.is_video { 96 } else { speech.law.payload_type() },
                    marker: index == 0,
                    ..rtp().payload(&g711::speech(speech.law, pitch_hz, at, SAMPLES))
                }
            })
            .collect()
    }
}

/// A sender report without blocks (RFC 3550, 6.4.1): NTP time and RTP time both at `seconds`.
pub fn sender_report(ssrc: u32, seconds: u32, packets: u32) -> Vec<u8> {
    let words = [ssrc, 0xe000_0000 + seconds, 0, seconds * 8_000, packets, packets * SAMPLES];
    let mut report = vec![0x80, 200, 0, 6];
    report.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    // Source description with a CNAME: a compound has one (RFC 3550, 6.1).
    report.extend([0x81, 202, 0, 3]);
    report.extend(ssrc.to_be_bytes());
    report.extend([1, 4, b'l', b'a', b'b', b'1', 0, 0]);
    report
}
