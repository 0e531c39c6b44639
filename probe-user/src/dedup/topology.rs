//! Where the capture sees the media: taps, learned from what carries the same packets.
//!
//! Within a stream a tap is a signature (interface, direction, MACs, VLAN, TTL, tunnel and session). Over many streams
//! MACs and TTLs are those of many phones, so taps are summed up by where they are and by how they differ from
//! the tap whose times count: "the same interface, another destination MAC", "inside rpcap".

use serde::Serialize;

use super::cause::Differs;
use super::stats::Session;
use crate::packet::{Carrier, Encapsulation, Evidence, Nanos, Tap, Vlans};
use crate::rtp::stream::TapPart;

/// Taps told apart; more than that are no topology.
const MAX_TAPS: usize = 32;
/// Rounds without a packet after which a tap is gone.
const GONE_AFTER: u32 = 2;

/// What makes a tap the same in two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapKey {
    /// Interface and direction.
    pub tap: Tap,
    /// Tags.
    pub vlans: Vlans,
    /// Tunnel.
    pub encapsulation: Encapsulation,
    /// Its session.
    pub session: Carrier,
    /// In what it differs from the reference tap.
    pub differs: Differs,
}

impl TapKey {
    fn of(part: &TapPart) -> Self {
        let Evidence { tap, vlans, encapsulation, carrier, .. } = part.evidence;
        let differs = Differs::between(&part.reference, &part.evidence).with_ip_id(false);
        Self { tap, vlans, encapsulation, session: carrier, differs }
    }
}

/// One tap of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TapReport {
    /// Index of its interface, in the order of the capture.
    pub interface: u16,
    /// Leaving the host there?
    pub egress: bool,
    /// VLAN identifiers, outermost first.
    pub vlans: Vec<u16>,
    /// "none", or the path of encapsulations.
    pub encapsulation: String,
    /// The tunnel's session, as the decoder counts them.
    #[serde(skip)]
    pub session: Carrier,
    /// The same in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Session>,
    /// Do its times count?
    pub is_reference: bool,
    /// In what it differs from the tap whose times count.
    pub differs: Differs,
    /// Streams seen there.
    pub streams: u64,
    /// Packets of them.
    pub packets: u64,
    /// How late it is after the reference tap: the median of its streams.
    pub late_us: Option<f64>,
    /// How much that varies within a stream: the median of their interquartile ranges.
    pub late_spread_us: Option<f64>,
    /// MACs of one of its frames, destination first.
    pub example_macs: [String; 2],
    /// TTL of the same frame.
    pub example_ttl: u8,
}

/// A tap while its streams are summed up, with how late it is in each: median and spread.
type Summed = (TapKey, TapReport, Vec<(i64, i64)>);

/// The taps of all streams, those with most packets first. Empty if no tap saw anything.
pub fn sum_up(streams: &[&[TapPart]]) -> Vec<TapReport> {
    let mut taps: Vec<Summed> = Vec::new();
    for part in streams.iter().copied().flatten() {
        let key = TapKey::of(part);
        let at = match taps.iter().position(|(known, ..)| *known == key) {
            Some(at) => at,
            None if taps.len() < MAX_TAPS => {
                taps.push((key, TapReport::new(&key, part), Vec::new()));
                taps.len() - 1
            }
            None => continue,
        };
        if let Some((_, report, late)) = taps.get_mut(at) {
            report.streams += 1;
            report.packets += part.packets;
            late.extend(part.late_ns);
        }
    }
    let finish = |(_, mut report, late): Summed| {
        report.late_us = median(late.iter().map(|(late, _)| *late));
        report.late_spread_us = median(late.iter().map(|(_, spread)| *spread));
        report
    };
    let mut taps: Vec<_> = taps.into_iter().map(finish).collect();
    taps.sort_by_key(|tap| (!tap.is_reference, std::cmp::Reverse(tap.packets)));
    taps
}

fn median(values: impl Iterator<Item = i64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).map(|ns| *ns as f64 / 1e3)
}

impl TapReport {
    fn new(key: &TapKey, part: &TapPart) -> Self {
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let seen = &part.evidence;
        Self {
            interface: key.tap.interface(),
            egress: key.tap.is_egress(),
            vlans: key.vlans.ids().collect(),
            encapsulation: key.encapsulation.to_string(),
            session: key.session,
            carrier: None,
            is_reference: part.evidence == part.reference,
            differs: key.differs,
            streams: 0,
            packets: 0,
            late_us: None,
            late_spread_us: None,
            example_macs: [mac(seen.dst_mac), mac(seen.src_mac)],
            example_ttl: seen.ttl,
        }
    }
}

/// Which taps carry traffic now, for telling when one appears or vanishes. Bounded as the report is.
#[derive(Debug, Default)]
pub struct Watch {
    known: Vec<Watched>,
    /// Taps that appeared in this round.
    changes: Vec<Change>,
    is_traffic: bool,
    since: Nanos,
}

#[derive(Debug)]
struct Watched {
    key: TapKey,
    report: TapReport,
    silent_rounds: u32,
    is_heard: bool,
    is_present: bool,
}

/// What happened to a tap.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It shows packets that another tap shows, too.
    Appeared(TapReport),
    /// It showed them, and no longer does, though traffic goes on.
    Vanished(TapReport),
}

impl Watch {
    /// Takes the taps of a stream that was heard in this round. One with one tap says nothing but that there is traffic.
    pub fn hear(&mut self, parts: &[TapPart]) {
        self.is_traffic = true;
        let heard = parts.iter().filter(|part| part.last >= self.since && parts.len() > 1);
        for part in heard.filter(|part| part.evidence != part.reference) {
            let key = TapKey::of(part);
            let report = || {
                let mut report = TapReport::new(&key, part);
                (report.streams, report.packets) = (1, part.packets);
                report.late_us = part.late_ns.map(|(late, _)| late as f64 / 1e3);
                report.late_spread_us = part.late_ns.map(|(_, spread)| spread as f64 / 1e3);
                report
            };
            if let Some(known) = self.known.iter_mut().find(|known| known.key == key) {
                known.is_heard = true;
                if !std::mem::replace(&mut known.is_present, true) {
                    self.changes.push(Change::Appeared(report()));
                }
            } else if self.known.len() < MAX_TAPS {
                let report = report();
                self.changes.push(Change::Appeared(report.clone()));
                self.known.push(Watched { key, report, silent_rounds: 0, is_heard: true, is_present: true });
            }
        }
    }

    /// Ends the round, and says what changed in it.
    pub fn close(&mut self, now: Nanos) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.changes);
        let is_traffic = std::mem::take(&mut self.is_traffic);
        for watched in &mut self.known {
            watched.silent_rounds = if watched.is_heard { 0 } else { watched.silent_rounds + 1 };
            watched.is_heard = false;
            if is_traffic && watched.is_present && watched.silent_rounds >= GONE_AFTER {
                watched.is_present = false;
                changes.push(Change::Vanished(watched.report.clone()));
            }
        }
        self.since = now;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Layer;
    use crate::rtp::testing::packet;

    fn parts(phone: u8, last: u64) -> Vec<TapPart> {
        let mut evidence = packet(0).evidence;
        (evidence.ip_id, evidence.src_mac[5]) = (0, phone);
        let part = |evidence, late_ns| TapPart {
            evidence,
            reference: Evidence { src_mac: [2, 0, 0, 0, 0, phone], ip_id: 0, ..packet(0).evidence },
            packets: 100,
            late_ns: Some(late_ns),
            first: Nanos(0),
            last: Nanos(last),
        };
        let rpcap = Encapsulation::NONE.with(Layer::Rpcap).unwrap();
        vec![
            part(evidence, (0, 0)),
            part(Evidence { dst_mac: [9; 6], ..evidence }, (38_000, 2_000)),
            part(Evidence { encapsulation: rpcap, carrier: Carrier(1), ..evidence }, (4_000_000, 90_000)),
        ]
    }

    #[test]
    fn taps_of_many_phones_are_three() {
        let streams: Vec<_> = (0..50).map(|phone| parts(phone, 1)).collect();
        let taps = sum_up(&streams.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let shown: Vec<_> = taps
            .iter()
            .map(|tap| {
                let differs: Vec<_> = tap.differs.names().collect();
                (tap.is_reference, tap.encapsulation.as_str(), differs, tap.streams, tap.late_us)
            })
            .collect();
        assert_eq!(
            shown,
            [
                (true, "none", vec![], 50, Some(0.0)),
                (false, "none", vec!["dst_mac"], 50, Some(38.0)),
                (false, "rpcap", vec!["encapsulation"], 50, Some(4_000.0)),
            ]
        );
    }

    #[test]
    fn a_tap_is_told_when_it_appears_vanishes_and_comes_back() {
        let mut watch = Watch::default();
        let mut round = |now: u64, parts: &[TapPart]| {
            watch.hear(parts);
            let changes = watch.close(Nanos(now));
            changes
                .iter()
                .map(|change| match change {
                    Change::Appeared(tap) => format!("+{}", tap.encapsulation),
                    Change::Vanished(tap) => format!("-{}", tap.encapsulation),
                })
                .collect::<Vec<_>>()
        };
        let all = parts(1, 5);
        assert_eq!(round(10, &all[..1]), [""; 0]);
        assert_eq!(round(20, &parts(1, 15)[..2]), ["+none"]);
        assert_eq!(round(30, &parts(1, 25)), ["+rpcap"]);
        let without = |last| [parts(1, last)[..2].to_vec(), vec![parts(1, 25)[2]]].concat();
        assert_eq!(round(40, &without(35)), [""; 0]);
        assert_eq!(round(50, &without(45)), ["-rpcap"]);
        assert_eq!(round(60, &parts(1, 55)), ["+rpcap"]);
    }
}
