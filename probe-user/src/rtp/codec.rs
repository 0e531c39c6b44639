//! Payload types: names and clock rates, by our rule and by Wireshark's.

use std::sync::Arc;

use super::rate::RateSource;

/// What is known about one payload type of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Payload type.
    pub number: u8,
    /// Encoding name as announced, or of the static table.
    pub name: Arc<str>,
    /// Clock rate in Hz.
    pub clock_rate: u32,
}

/// What the signalling said about a stream, as far as a stream needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The dialog it belongs to.
    pub call_id: Option<Arc<str>>,
    /// Payload types of the SDP that announced the stream's destination (or, failing that, its source).
    pub payloads: Vec<Payload>,
    /// Payload types that it lists without saying what they are: dynamic ones without `a=rtpmap`.
    pub unnamed: Vec<u8>,
    /// Their format parameters (`a=fmtp`), as written, of those that have any.
    pub parameters: Vec<(u8, Box<str>)>,
    /// Is the media encrypted (SAVP, a=crypto)?
    pub encrypted: bool,
    /// Is it declared to be sent twice?
    pub redundancy: Option<Redundancy>,
}

impl Announcement {
    /// Does the payload type carry events?
    pub fn is_event(&self, number: u8) -> bool {
        self.payload(number).is_some_and(|payload| is_event(&payload.name))
    }

    /// The announced payload type `number`.
    pub fn payload(&self, number: u8) -> Option<&Payload> {
        self.payloads.iter().find(|payload| payload.number == number)
    }

    /// Format parameters of the payload type `number`.
    pub fn parameters(&self, number: u8) -> Option<&str> {
        self.parameters.iter().find(|(of, _)| *of == number).map(|(_, text)| text.as_ref())
    }
}

/// Media that is declared to be sent twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redundancy {
    /// The second copy comes so much later on the same flow (RFC 7197, `a=duplication-delay`).
    pub delay_ms: Option<u32>,
    /// It comes under the second of these SSRCs (RFC 7104, `a=ssrc-group:DUP`).
    pub ssrcs: Vec<u32>,
    /// It comes under another media line (RFC 7104, `a=group:DUP`), as in SMPTE ST 2022-7.
    pub is_grouped: bool,
}

/// The static table of RFC 3551, tables 4 and 5.
const STATIC: [(u8, &str, u32); 23] = [
    (0, "PCMU", 8000),
    (3, "GSM", 8000),
    (4, "G723", 8000),
    (5, "DVI4", 8000),
    (6, "DVI4", 16_000),
    (7, "LPC", 8000),
    (8, "PCMA", 8000),
    (9, "G722", 8000),
    (10, "L16", 44_100),
    (11, "L16", 44_100),
    (12, "QCELP", 8000),
    (13, "CN", 8000),
    (14, "MPA", 90_000),
    (15, "G728", 8000),
    (16, "DVI4", 11_025),
    (17, "DVI4", 22_050),
    (18, "G729", 8000),
    (25, "CelB", 90_000),
    (26, "JPEG", 90_000),
    (28, "nv", 90_000),
    (31, "H261", 90_000),
    (32, "MPV", 90_000),
    (34, "H263", 90_000),
];

/// Name and clock rate of a static payload type.
pub fn static_payload(number: u8) -> Option<(&'static str, u32)> {
    STATIC.iter().find(|(n, ..)| *n == number).map(|(_, name, rate)| (*name, *rate))
}

/// Name of a payload type: as announced, else of the static table.
pub fn name(number: u8, announcement: &Announcement) -> Option<&str> {
    let announced = announcement.payload(number).map(|payload| payload.name.as_ref());
    announced.or_else(|| static_payload(number).map(|(name, _)| name))
}

/// Why neither codec nor clock rate of a payload type are known, in words for the report.
pub fn unknown_because(number: u8, announcement: &Announcement) -> String {
    if announcement.call_id.is_none() {
        "no SDP, and a dynamic payload type".to_owned()
    } else if announcement.unnamed.contains(&number) {
        format!("payload type {number} has no a=rtpmap in its SDP")
    } else if announcement.payload(number).is_some() {
        format!("the clock rate of payload type {number} in its SDP is none that is used")
    } else {
        format!("payload type {number} is not in its SDP")
    }
}

/// Comfort noise (RFC 3389, and the 19 of older equipment).
pub fn is_comfort_noise(number: u8) -> bool {
    matches!(number, 13 | 19)
}

/// Events of RFC 4733: their timestamps stand still, so they carry no jitter.
pub fn is_event(name: &str) -> bool {
    name.get(..15).is_some_and(|start| start.eq_ignore_ascii_case("telephone-event"))
}

/// Our clock rate: what SDP says, else the static table.
pub fn clock_rate(number: u8, announcement: &Announcement) -> Option<u32> {
    sourced_clock_rate(number, announcement).map(|(rate, _)| rate)
}

/// The same, and who says so.
pub fn sourced_clock_rate(number: u8, announcement: &Announcement) -> Option<(u32, RateSource)> {
    let announced = announcement.payload(number).and_then(|payload| {
        let rate = prescribed_rate(&payload.name).unwrap_or(payload.clock_rate);
        BELIEVED.contains(&rate).then_some((rate, RateSource::Sdp))
    });
    announced.or_else(|| static_payload(number).map(|(_, rate)| (rate, RateSource::Static)))
}

/// Clock rates in Hz that SDP is believed: text has 1,000, the fastest audio and video that is sent is below 400,000.
const BELIEVED: std::ops::RangeInclusive<u32> = 1_000..=400_000;

/// Clock rates that a payload format prescribes whatever a sloppy SDP says: G.722 ticks at half its sampling rate (RFC
/// 3551, 4.5.2), Opus always at 48 kHz (RFC 7587, 4.1).
fn prescribed_rate(name: &str) -> Option<u32> {
    if name.eq_ignore_ascii_case("G722") {
        Some(8000)
    } else if name.eq_ignore_ascii_case("opus") {
        Some(48_000)
    } else {
        None
    }
}

/// The clock rate that tshark 4.0 uses: the static table for payload types below 96 whatever SDP says, for
/// the others the announced rate, and none for events. `None` leaves jitter and skew out.
pub fn wireshark_clock_rate(number: u8, announcement: &Announcement) -> Option<u32> {
    if number < 96 {
        return match number {
            0..=5 | 7..=9 | 12 | 13 | 15 | 18 | 19 => Some(8000),
            6 => Some(16_000),
            10 | 11 => Some(44_100),
            16 => Some(11_025),
            17 => Some(22_050),
            14 | 25 | 26 | 28 | 31..=34 => Some(90_000),
            _ => None,
        };
    }
    let payload = announcement.payload(number)?;
    if is_event(&payload.name) {
        return None;
    }
    // tshark divides by whole ticks a millisecond; below 1,000 Hz it prints what division by zero gives.
    (payload.clock_rate >= 1000).then_some(payload.clock_rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_payload_type_has_its_own_reason() {
        let payload = Payload { number: 96, name: "AMR".into(), clock_rate: 0 };
        let announced = Announcement {
            call_id: Some("one".into()),
            payloads: vec![payload],
            unnamed: vec![97],
            ..Announcement::default()
        };
        let reasons = [96, 97, 98].map(|number| unknown_because(number, &announced));
        assert_eq!(
            reasons,
            [
                "the clock rate of payload type 96 in its SDP is none that is used",
                "payload type 97 has no a=rtpmap in its SDP",
                "payload type 98 is not in its SDP"
            ]
        );
        assert_eq!(unknown_because(98, &Announcement::default()), "no SDP, and a dynamic payload type");
    }

    #[test]
    fn a_clock_rate_that_nothing_has_is_not_believed() {
        for (rate, believed) in [(1, None), (u32::MAX, None), (16_000, Some(16_000))] {
            let payload = Payload { number: 96, name: "X".into(), clock_rate: rate };
            let announcement = Announcement { payloads: vec![payload], ..Announcement::default() };
            assert_eq!(clock_rate(96, &announcement), believed, "{rate}");
        }
    }

    #[test]
    fn sdp_comes_before_the_table_and_the_format_before_a_sloppy_sdp() {
        let payload = |number, name: &str, clock_rate| Payload { number, name: name.into(), clock_rate };
        let payloads = vec![
            payload(8, "L16", 16_000),
            payload(9, "G722", 16_000),
            payload(111, "opus", 8000),
            payload(97, "AMR", 0),
        ];
        let announcement = Announcement { payloads, ..Announcement::default() };
        let rates = [8, 0, 9, 111, 97, 98].map(|number| sourced_clock_rate(number, &announcement));
        let (sdp, table) = (RateSource::Sdp, RateSource::Static);
        assert_eq!(
            rates,
            [Some((16_000, sdp)), Some((8000, table)), Some((8000, sdp)), Some((48_000, sdp)), None, None]
        );
    }
}
