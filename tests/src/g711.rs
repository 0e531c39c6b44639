//! G.711 encoding (ITU-T G.711) and a voice-like signal to encode.

use std::f64::consts::TAU;

/// The two laws, as RTP's static payload types (RFC 3551, table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// PCMU, payload type 0.
    Mu,
    /// PCMA, payload type 8.
    A,
}

impl Law {
    /// RTP payload type.
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Mu => 0,
            Self::A => 8,
        }
    }

    /// The law of a payload type.
    pub fn of_payload_type(payload_type: u8) -> Option<Self> {
        [Self::Mu, Self::A].into_iter().find(|law| law.payload_type() == payload_type)
    }

    fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Mu => mu_law(sample),
            Self::A => a_law(sample),
        }
    }
}

/// `samples` samples at 8 kHz from `first`: a tone that swells and drifts, so that no two packets are equal.
#[expect(clippy::cast_possible_truncation, reason = "the amplitude stays below 13,500")]
pub fn speech(law: Law, pitch_hz: f64, first: u32, samples: u32) -> Vec<u8> {
    (first..first + samples)
        .map(|index| {
            let t = f64::from(index) / 8000.0;
            let tone = (TAU * (pitch_hz + 17.3 * t) * t).sin() + 0.5 * (TAU * 2.01 * pitch_hz * t).sin();
            let swell = 0.55 + 0.45 * (TAU * 1.7 * t).sin();
            law.encode((tone * swell * 9000.0) as i16)
        })
        .collect()
}

/// 14-bit magnitude with bias 33, a segment of three bits, a step of four, all inverted.
#[expect(clippy::cast_possible_truncation, reason = "three bits of segment, four of step")]
fn mu_law(sample: i16) -> u8 {
    const BIAS: u16 = 33;
    const CLIP: u16 = 8158;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (sample.unsigned_abs() >> 2).min(CLIP) + BIAS;
    // The bias puts the highest bit at 5 to 12.
    let segment = magnitude.ilog2().saturating_sub(5);
    let step = (magnitude >> (segment + 1)) & 0x0f;
    !(sign | ((segment as u8) << 4) | step as u8)
}

/// 13-bit magnitude, two linear segments at the bottom, even bits inverted.
#[expect(clippy::cast_possible_truncation, reason = "three bits of segment, four of step")]
fn a_law(sample: i16) -> u8 {
    let sign = if sample < 0 { 0 } else { 0x80 };
    let magnitude = if sample < 0 { !sample } else { sample }.unsigned_abs() >> 3;
    let coded = if magnitude < 32 {
        magnitude >> 1
    } else {
        let segment = magnitude.ilog2() - 4;
        ((segment as u16) << 4) | ((magnitude >> segment) & 0x0f)
    };
    (sign | coded as u8) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_and_full_scale_have_the_codes_of_the_recommendation() {
        assert_eq!([mu_law(0), mu_law(i16::MAX), mu_law(i16::MIN)], [0xff, 0x80, 0x00]);
        assert_eq!([a_law(0), a_law(i16::MAX), a_law(i16::MIN)], [0xd5, 0xaa, 0x2a]);
    }

    #[test]
    fn louder_never_has_a_smaller_code() {
        for law in [Law::Mu, Law::A] {
            let undo = if law == Law::Mu { 0xff } else { 0x55 };
            let codes: Vec<u8> = (0..i16::MAX).step_by(64).map(|s| (law.encode(s) ^ undo) & 0x7f).collect();
            assert!(codes.is_sorted(), "{law:?}");
        }
    }

    #[test]
    fn consecutive_packets_of_speech_differ() {
        assert_ne!(speech(Law::Mu, 200.0, 0, 160), speech(Law::Mu, 200.0, 160, 160));
    }
}
