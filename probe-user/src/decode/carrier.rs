//! Carriers: which session brought a tunnelled datagram here.
//!
//! Two mirror sessions of one switch, or two remote captures, have the same encapsulation path and are two taps.
//! What tells them apart is who sends what to whom, on which port, and the session's own number where the tunnel
//! has one. The list is bounded; what does not fit shares its last entry, and is counted.

use std::net::IpAddr;

use rustc_hash::FxHashMap;
use serde::{Serialize, Serializer};

use crate::packet::{Carrier, Encapsulation, Flow, Nanos};

/// Carriers told apart; each takes 200 bytes, and a capture of ten mirror sessions has ten.
pub(super) const MAX_CARRIERS: u16 = 1024;

/// What carries a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// IP itself: GRE, IP in IP.
    Ip,
    /// UDP.
    Udp,
    /// A TCP connection.
    Tcp,
}

/// One carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CarrierReport {
    /// Its number: what [`crate::packet::Evidence::carrier`] has.
    #[serde(serialize_with = "number")]
    pub carrier: Carrier,
    /// The carrier around this one; 0 if there is none.
    #[serde(serialize_with = "number")]
    pub outer: Carrier,
    /// Layers up to and with it.
    #[serde(serialize_with = "display")]
    pub path: Encapsulation,
    /// Who sends.
    pub src: IpAddr,
    /// To whom.
    pub dst: IpAddr,
    /// Over what.
    pub transport: Transport,
    /// Port of the service, or IP protocol number.
    pub port: u16,
    /// Port of the other end of a TCP connection; 0 otherwise.
    pub peer_port: u16,
    /// The tunnel's own number for it: GRE key, ERSPAN session, VXLAN or Geneve network, HEP agent; 0 where there is none.
    pub session: u32,
    /// Frames that it brought, whatever was in them.
    pub frames: u64,
    /// Number of the first.
    pub first_frame: u64,
    /// When that was seen.
    #[serde(skip)]
    pub first_seen: Nanos,
}

/// The ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) transport: Transport,
    pub(super) port: u16,
    pub(super) peer_port: u16,
}

impl Ends {
    pub(super) fn of(flow: &Flow, transport: Transport, port: u16) -> Self {
        Self { src: flow.src.ip(), dst: flow.dst.ip(), transport, port, peer_port: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    outer: Carrier,
    path: Encapsulation,
    ends: Ends,
    session: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    by_key: FxHashMap<Key, Carrier>,
    list: Vec<CarrierReport>,
    /// How many of the list were handed out as news.
    told: usize,
    /// Frames of carriers that share the last entry with it.
    shared: u64,
}

impl Carriers {
    /// The carrier of a frame, seen then.
    pub(super) fn find(
        &mut self,
        outer: Carrier,
        path: Encapsulation,
        ends: Ends,
        session: u32,
        (number, time): (u64, Nanos),
    ) -> Carrier {
        let key = Key { outer, path, ends, session };
        let known = self.by_key.get(&key).copied();
        let carrier = known.unwrap_or_else(|| {
            let next = u16::try_from(self.list.len() + 1).unwrap_or(u16::MAX);
            if next > MAX_CARRIERS {
                self.shared += 1;
                return Carrier(MAX_CARRIERS);
            }
            let Ends { src, dst, transport, port, peer_port } = ends;
            self.by_key.insert(key, Carrier(next));
            self.list.push(CarrierReport {
                carrier: Carrier(next),
                outer,
                path,
                src,
                dst,
                transport,
                port,
                peer_port,
                session,
                frames: 0,
                first_frame: number,
                first_seen: time,
            });
            Carrier(next)
        });
        if let Some(report) = self.list.get_mut(usize::from(carrier.0).saturating_sub(1)) {
            report.frames += 1;
        }
        carrier
    }

    /// The carriers that are new since the last call.
    pub(super) fn take_new(&mut self) -> &[CarrierReport] {
        let from = std::mem::replace(&mut self.told, self.list.len());
        self.list.get(from..).unwrap_or_default()
    }

    /// All of them, by number, and how many frames had to share the last entry.
    pub(super) fn into_reports(self) -> (Vec<CarrierReport>, u64) {
        (self.list, self.shared)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn number<S: Serializer>(carrier: &Carrier, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(carrier.0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn display<S: Serializer>(path: &Encapsulation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Layer;

    fn ends(last: u8) -> Ends {
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        Ends { src: address(last), dst: address(2), transport: Transport::Ip, port: 47, peer_port: 0 }
    }

    fn find(carriers: &mut Carriers, last: u8, session: u32) -> Carrier {
        let path = Encapsulation::NONE.with(Layer::Gre).unwrap();
        carriers.find(Carrier::NONE, path, ends(last), session, (7, Nanos(9)))
    }

    #[test]
    fn sessions_of_one_encapsulation_are_carriers_of_their_own_and_are_news_once() {
        let mut carriers = Carriers::default();
        let found =
            [(1, 5), (1, 6), (3, 5), (1, 5)].map(|(last, session)| find(&mut carriers, last, session));
        assert_eq!(found, [Carrier(1), Carrier(2), Carrier(3), Carrier(1)]);
        let news: Vec<_> = carriers.take_new().iter().map(|report| report.carrier.0).collect();
        assert_eq!((news, carriers.take_new().len()), (vec![1, 2, 3], 0));
        let (reports, shared) = carriers.into_reports();
        assert_eq!(
            (reports.iter().map(|report| report.frames).collect::<Vec<_>>(), shared),
            (vec![2, 1, 1], 0)
        );
    }

    #[test]
    fn what_does_not_fit_shares_the_last_entry_and_is_counted() {
        let mut carriers = Carriers::default();
        for session in 0..u32::from(MAX_CARRIERS) + 10 {
            find(&mut carriers, 1, session);
        }
        assert_eq!(find(&mut carriers, 1, 0), Carrier(1));
        let (reports, shared) = carriers.into_reports();
        assert_eq!((reports.len(), shared), (usize::from(MAX_CARRIERS), 10));
        assert_eq!(reports.last().map(|report| report.frames), Some(11));
    }
}
