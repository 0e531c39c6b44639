//! Telephone events (RFC 4733): digits, flashes and tones that are sent as what they are.
//!
//! ```text
//!    0                   1                   2                   3
//!   |     event     |E|R| volume    |          duration             |
//! ```
//!
//! All packets of one event bear the timestamp of its beginning, while its duration grows; the last is sent three times, so
//! that it arrives (2.5.1.4). A digit may be somebody's PIN: what is kept is the event's number, and who prints it
//! decides whether to show it.

use serde::Serialize;

use crate::packet::{Nanos, RtpPacket};

/// Events kept of one stream: more digits than anybody dials in a call. Later ones are counted.
const MAX_EVENTS: usize = 64;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// Its number: 0 to 9, 10 is *, 11 is #, 12 to 15 A to D, 16 a flash; others are tones.
    pub event: u8,
    /// RTP timestamp of its beginning, which tells it from others.
    pub timestamp: u32,
    /// Frame that it began with.
    pub frame: u64,
    /// When that was seen.
    pub at: Nanos,
    /// Duration in timestamp units, the longest that was said.
    pub duration: u32,
    /// Volume in -dBm0.
    pub volume: u8,
    /// Packets, copies removed.
    pub packets: u32,
    /// Those of them that say it is over: three are ordinary, none means that its end was lost.
    pub end_packets: u32,
}

/// Events of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    events: Vec<TelephoneEvent>,
    count: u64,
}

impl Events {
    /// Takes a packet of a telephone-event payload type; the first copy of it.
    pub fn observe(&mut self, packet: &RtpPacket) {
        let Some([event, flags, high, low]) = packet.payload_head else { return };
        let (is_end, volume) = (flags & 0x80 != 0, flags & 0x3f);
        let duration = u32::from(u16::from_be_bytes([high, low]));
        let timestamp = packet.rtp.timestamp;
        let known = self.events.iter_mut().rev().take(4).find(|known| known.timestamp == timestamp);
        if let Some(known) = known.filter(|known| known.event == event) {
            known.duration = known.duration.max(duration);
            known.packets += 1;
            known.end_packets += u32::from(is_end);
            return;
        }
        // Beyond the room, each packet of the same event would count as one: the last timestamp is kept up to date.
        self.count += 1;
        let new = TelephoneEvent {
            event,
            timestamp,
            frame: packet.number,
            at: packet.time,
            duration,
            volume,
            packets: 1,
            end_packets: u32::from(is_end),
        };
        let is_full = self.events.len() > MAX_EVENTS;
        match self.events.last_mut() {
            Some(last) if is_full => *last = new,
            _ => self.events.push(new),
        }
    }

    /// The first 64, and how many there were.
    pub fn list(&self) -> (&[TelephoneEvent], u64) {
        let kept = self.events.get(..MAX_EVENTS).unwrap_or(&self.events);
        (kept, self.count)
    }
}

/// One event in a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventReport {
    /// The digit, "x" where digits are hidden; "flash", or "event 36".
    pub event: String,
    /// Seconds from the start of the capture.
    pub start_s: f64,
    /// How long it lasted, as said; null without a clock rate.
    pub duration_ms: Option<f64>,
    /// Packets, copies removed.
    pub packets: u32,
    /// Of them, those that say it is over: three are ordinary.
    pub end_packets: u32,
    /// Frame that it began with.
    pub frame: u64,
    #[serde(skip)]
    number: u8,
}

impl EventReport {
    /// Of an event that began then. The digit is hidden.
    pub fn new(event: &TelephoneEvent, start_s: f64, clock_rate: Option<u32>) -> Self {
        let rate = clock_rate.filter(|rate| *rate > 0);
        Self {
            event: name(event.event, false),
            start_s,
            duration_ms: rate.map(|rate| f64::from(event.duration) * 1e3 / f64::from(rate)),
            packets: event.packets,
            end_packets: event.end_packets,
            frame: event.frame,
            number: event.event,
        }
    }

    /// A key of a telephone, or its hook.
    pub(crate) fn is_key(&self) -> bool {
        self.number <= 16
    }

    /// Shows the digit.
    pub fn show(&mut self) {
        self.event = name(self.number, true);
    }
}

/// What people call an event (RFC 4733, table 3).
pub fn name(event: u8, show_digits: bool) -> String {
    match event {
        0..=15 if !show_digits => "x".to_owned(),
        0..=9 => char::from(b'0' + event).to_string(),
        10 => "*".to_owned(),
        11 => "#".to_owned(),
        12..=15 => char::from(b'A' + event - 12).to_string(),
        16 => "flash".to_owned(),
        other => format!("event {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::testing::packet;

    /// A packet of an event that began at `began`, in packet times.
    fn event(seq: u64, began: u32, head: [u8; 4]) -> RtpPacket {
        let mut packet = packet(seq);
        packet.rtp.timestamp = began * 160;
        packet.payload_head = Some(head);
        packet
    }

    #[test]
    fn a_digit_is_one_event_however_many_packets_it_takes() {
        let mut events = Events::default();
        // Digit 5, -10 dBm0, 160 to 480 units, then three times its end with 640.
        for (step, head) in [[5, 10, 0, 160], [5, 10, 1, 64], [5, 10, 1, 224]].into_iter().enumerate() {
            events.observe(&event(10 + step as u64, 10, head));
        }
        (13..16).for_each(|seq| events.observe(&event(seq, 10, [5, 0x8a, 2, 128])));
        // The same digit again, later, and its end lost.
        events.observe(&event(30, 30, [5, 10, 0, 160]));
        let first = TelephoneEvent {
            event: 5,
            timestamp: 1_600,
            frame: 11,
            at: packet(10).time,
            duration: 640,
            volume: 10,
            packets: 6,
            end_packets: 3,
        };
        let second = TelephoneEvent {
            timestamp: 4_800,
            frame: 31,
            at: packet(30).time,
            duration: 160,
            packets: 1,
            end_packets: 0,
            ..first
        };
        assert_eq!(events.list(), (&[first, second][..], 2));
    }

    #[test]
    fn a_flood_of_events_is_counted_and_not_kept() {
        let mut events = Events::default();
        for began in 0..1_000 {
            events.observe(&event(began * 2, u32::try_from(began).unwrap(), [1, 10, 0, 160]));
            events.observe(&event(began * 2 + 1, u32::try_from(began).unwrap(), [1, 0x8a, 1, 64]));
        }
        let (kept, count) = events.list();
        assert_eq!((kept.len(), count), (MAX_EVENTS, 1_000));
    }

    #[test]
    fn digits_are_hidden_unless_asked_for_and_tones_are_not() {
        let shown: Vec<_> = [0, 9, 10, 11, 15, 16, 36].map(|number| name(number, true)).into();
        assert_eq!(shown, ["0", "9", "*", "#", "D", "flash", "event 36"]);
        let hidden: Vec<_> = [0, 9, 10, 11, 15, 16, 36].map(|number| name(number, false)).into();
        assert_eq!(hidden, ["x", "x", "x", "x", "x", "flash", "event 36"]);
    }
}
