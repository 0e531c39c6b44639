//! Extended report blocks (RFC 3611) that no crate reads: VoIP metrics, the statistics summary, and DLRR of more than one
//! sub-block. They plug into `rtcp-types`' walk, which gives each the rest of the packet: the block's own length is checked
//! here.

use rtcp_types::RtcpParseError;
use rtcp_types::prelude::*;
use serde::Serialize;

/// Delays of reference times, as many as one participant answers; more are left out.
const MAX_ANSWERS: usize = 8;

/// A block of exactly `length` octets.
fn block(data: &[u8], length: usize) -> Result<&[u8], RtcpParseError> {
    let short = || RtcpParseError::Truncated { expected: length, actual: data.len() };
    let claimed = match data {
        [_, _, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])) + 1) * 4,
        _ => return Err(short()),
    };
    if claimed != length {
        return Err(RtcpParseError::TooLarge { expected: length, actual: claimed });
    }
    data.get(..length).ok_or_else(short)
}

fn octet(data: &[u8], at: usize) -> u8 {
    data.get(at).copied().unwrap_or_default()
}

fn short(data: &[u8], at: usize) -> u16 {
    data.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |octets| u16::from_be_bytes(*octets))
}

fn word(data: &[u8], at: usize) -> u32 {
    data.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |octets| u32::from_be_bytes(*octets))
}

fn header(data: &[u8]) -> [u8; 4] {
    data.first_chunk().copied().unwrap_or_default()
}

/// One answer to a reference time: the receiver's counterpart of LSR and DLSR (4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Who had sent the reference time.
    pub ssrc: u32,
    /// Middle of its NTP time.
    pub last_time: u32,
    /// For how long it was held, in 1/65536 s.
    pub delay: u32,
}

/// A DLRR block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    list: [Answer; MAX_ANSWERS],
    count: usize,
    header: [u8; 4],
}

impl Answers {
    /// Its sub-blocks.
    pub fn iter(&self) -> impl Iterator<Item = &Answer> {
        self.list.iter().take(self.count)
    }
}

impl XrBlockStaticType for Answers {
    const BLOCK_TYPE: u8 = 5;
}

impl<'a> XrBlockParser<'a> for Answers {
    fn parse(data: &'a [u8]) -> Result<Self, RtcpParseError> {
        let words = usize::from(short(data, 2));
        if words % 3 != 0 {
            return Err(RtcpParseError::TooLarge { expected: words / 3 * 3, actual: words });
        }
        let data = block(data, (words + 1) * 4)?;
        let mut answers = Self { header: header(data), ..Self::default() };
        let (parts, _) = data.get(4..).unwrap_or_default().as_chunks::<12>();
        for (to, from) in answers.list.iter_mut().zip(parts) {
            *to = Answer { ssrc: word(from, 0), last_time: word(from, 4), delay: word(from, 8) };
        }
        answers.count = parts.len().min(MAX_ANSWERS);
        Ok(answers)
    }

    fn header_data(&self) -> [u8; 4] {
        self.header
    }
}

/// Loss, duplicates and jitter of a range of sequence numbers (4.6); `None` where the block does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatisticsSummary {
    /// The sender it is about.
    #[serde(skip)]
    pub ssrc: u32,
    /// Sequence numbers covered, the last one not.
    pub packets: u16,
    /// Lost of them.
    pub lost: Option<u32>,
    /// Duplicates.
    pub duplicates: Option<u32>,
    /// Transit time variation in timestamp units: least, greatest, mean, standard deviation.
    pub jitter_ticks: Option<[u32; 4]>,
    /// TTL or hop limit: least, greatest, mean, standard deviation.
    pub ttl: Option<[u8; 4]>,
    #[serde(skip)]
    header: [u8; 4],
}

impl XrBlockStaticType for StatisticsSummary {
    const BLOCK_TYPE: u8 = 6;
}

impl<'a> XrBlockParser<'a> for StatisticsSummary {
    fn parse(data: &'a [u8]) -> Result<Self, RtcpParseError> {
        let data = block(data, 40)?;
        let flags = octet(data, 1);
        let packets = short(data, 10).wrapping_sub(short(data, 8));
        let lost = (flags & 0x80 != 0).then(|| word(data, 12));
        if lost.is_some_and(|lost| lost > u32::from(packets)) {
            return Err(RtcpParseError::WrongImplementation);
        }
        Ok(Self {
            ssrc: word(data, 4),
            packets,
            lost,
            duplicates: (flags & 0x40 != 0).then(|| word(data, 16)),
            jitter_ticks: (flags & 0x20 != 0).then(|| [20, 24, 28, 32].map(|at| word(data, at))),
            ttl: (flags & 0x18 != 0).then(|| [36, 37, 38, 39].map(|at| octet(data, at))),
            header: header(data),
        })
    }

    fn header_data(&self) -> [u8; 4] {
        self.header
    }
}

/// What a telephone says of the call it hears (4.7), as it says it; `None` where it says "unavailable" (127), or a
/// value out of its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct VoipMetrics {
    /// The sender it is about.
    #[serde(skip)]
    pub ssrc: u32,
    /// Lost on the network, of all expected.
    pub loss_percent: f64,
    /// Came too late or too early for the de-jitter buffer, of all expected.
    pub discard_percent: f64,
    /// Lost and discarded, within bursts.
    pub burst_density_percent: f64,
    /// The same, between bursts.
    pub gap_density_percent: f64,
    /// Mean length of a burst.
    pub burst_ms: u16,
    /// Mean length of a gap.
    pub gap_ms: u16,
    /// Round trip, as the telephone measured it; 0 is "unavailable".
    pub round_trip_ms: Option<u16>,
    /// Delay in the telephone itself; 0 is "unavailable".
    pub end_system_ms: Option<u16>,
    /// Level of the voice.
    pub signal_dbm0: Option<i8>,
    /// Level of the noise.
    pub noise_dbm0: Option<i8>,
    /// Residual echo return loss.
    pub echo_return_loss_db: Option<u8>,
    /// Received packets in a row that end a burst.
    pub gmin: u8,
    /// R factor of this segment, 0 to 100.
    pub r_factor: Option<u8>,
    /// R factor of a segment beyond, as on a mobile network.
    pub external_r_factor: Option<u8>,
    /// Listening quality, 1 to 5.
    pub mos_lq: Option<f64>,
    /// Conversational quality, 1 to 5.
    pub mos_cq: Option<f64>,
    /// "unspecified", "disabled", "enhanced", "standard".
    pub concealment: &'static str,
    /// "unknown", "reserved", "fixed", "adaptive".
    pub jitter_buffer: &'static str,
    /// Nominal delay of the de-jitter buffer.
    pub jitter_buffer_ms: u16,
    /// Its current maximum.
    pub jitter_buffer_max_ms: u16,
    /// What it can grow to.
    pub jitter_buffer_limit_ms: u16,
    #[serde(skip)]
    header: [u8; 4],
}

impl XrBlockStaticType for VoipMetrics {
    const BLOCK_TYPE: u8 = 7;
}

impl<'a> XrBlockParser<'a> for VoipMetrics {
    fn parse(data: &'a [u8]) -> Result<Self, RtcpParseError> {
        const UNAVAILABLE: u8 = 127;
        let data = block(data, 36)?;
        let percent = |at| f64::from(octet(data, at)) * 100.0 / 256.0;
        let level = |at| Some(octet(data, at)).filter(|v| *v != UNAVAILABLE).map(u8::cast_signed);
        let r_factor = |at| Some(octet(data, at)).filter(|value| *value <= 100);
        let mos = |at| Some(octet(data, at)).filter(|v| (10..=50).contains(v)).map(|v| f64::from(v) / 10.0);
        let delay = |at| Some(short(data, at)).filter(|value| *value != 0);
        let config = octet(data, 28);
        Ok(Self {
            ssrc: word(data, 4),
            loss_percent: percent(8),
            discard_percent: percent(9),
            burst_density_percent: percent(10),
            gap_density_percent: percent(11),
            burst_ms: short(data, 12),
            gap_ms: short(data, 14),
            round_trip_ms: delay(16),
            end_system_ms: delay(18),
            signal_dbm0: level(20),
            noise_dbm0: level(21),
            echo_return_loss_db: Some(octet(data, 22)).filter(|value| *value != UNAVAILABLE),
            gmin: octet(data, 23),
            r_factor: r_factor(24),
            external_r_factor: r_factor(25),
            mos_lq: mos(26),
            mos_cq: mos(27),
            concealment: match config >> 6 {
                0 => "unspecified",
                1 => "disabled",
                2 => "enhanced",
                _ => "standard",
            },
            jitter_buffer: match (config >> 4) & 3 {
                0 => "unknown",
                1 => "reserved",
                2 => "fixed",
                _ => "adaptive",
            },
            jitter_buffer_ms: short(data, 30),
            jitter_buffer_max_ms: short(data, 32),
            jitter_buffer_limit_ms: short(data, 34),
            header: header(data),
        })
    }

    fn header_data(&self) -> [u8; 4] {
        self.header
    }
}
