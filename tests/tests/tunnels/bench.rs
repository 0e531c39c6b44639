//! A decoder on a bench: frames in, what was found out, owned.
#![allow(dead_code, reason = "each of the tests that share it uses its own part")]

use probe_ebpf::{Config, EndpointKey, Endpoints, MediaRule, Verdict};
use voxlab::frames::{Datagram, rtcp, rtp, sip, udp};
use voxprobe::capture::file::{Frame, LinkType};
use voxprobe::decode::{Decoded, Decoder, Tunnels};
use voxprobe::packet::{Evidence, Flow, Nanos};

/// A request.
pub(crate) const OPTIONS: &str = "OPTIONS sip:a SIP/2.0\r\nCall-ID: c\r\n\r\n";
/// When captures begin.
pub(crate) const START_NS: u64 = 1_700_000_000_123_456_000;

/// Nobody announced anything.
pub(crate) struct Nobody;

impl Endpoints for Nobody {
    fn is_announced(&self, _: &EndpointKey) -> bool {
        false
    }
}

/// What was found, owned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Got {
    Sip { flow: Flow, payload: Vec<u8>, evidence: Evidence },
    Rtcp { flow: Flow, payload: Vec<u8>, evidence: Evidence },
    Rtp { flow: Flow, seq: u16, tap_time: Nanos, evidence: Evidence },
    Carrier,
    Held(Verdict),
    Nothing(Verdict),
}

impl From<Decoded<'_>> for Got {
    fn from(decoded: Decoded<'_>) -> Self {
        match decoded {
            Decoded::Sip(datagram) => Self::Sip {
                flow: datagram.flow,
                payload: datagram.payload.to_vec(),
                evidence: datagram.evidence,
            },
            Decoded::Rtcp(datagram) => Self::Rtcp {
                flow: datagram.flow,
                payload: datagram.payload.to_vec(),
                evidence: datagram.evidence,
            },
            Decoded::Rtp(packet) => Self::Rtp {
                flow: packet.flow.into(),
                seq: packet.rtp.seq,
                tap_time: packet.tap_time,
                evidence: packet.evidence,
            },
            Decoded::Carrier => Self::Carrier,
            Decoded::Held(verdict) => Self::Held(verdict),
            Decoded::Beside { .. } | Decoded::Tls(..) | Decoded::Nothing(_) => {
                Self::Nothing(decoded.verdict())
            }
        }
    }
}

impl Got {
    pub(crate) fn evidence(&self) -> Option<&Evidence> {
        match self {
            Self::Sip { evidence, .. } | Self::Rtcp { evidence, .. } | Self::Rtp { evidence, .. } => {
                Some(evidence)
            }
            Self::Carrier | Self::Held(_) | Self::Nothing(_) => None,
        }
    }

    pub(crate) fn path(&self) -> String {
        self.evidence().map_or_else(|| format!("{self:?}"), |evidence| evidence.encapsulation.to_string())
    }

    /// The same, but for how it came.
    pub(crate) fn content(&self) -> (Option<Flow>, Vec<u8>, u16) {
        match self {
            Self::Sip { flow, payload, .. } | Self::Rtcp { flow, payload, .. } => {
                (Some(*flow), payload.clone(), 0)
            }
            Self::Rtp { flow, seq, .. } => (Some(*flow), Vec::new(), *seq),
            Self::Carrier | Self::Held(_) | Self::Nothing(_) => (None, Vec::new(), 0),
        }
    }
}

/// A decoder that numbers its frames.
pub(crate) struct Bench {
    pub(crate) decoder: Decoder,
    number: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Config { media_rule: MediaRule::Anything as u8, ..Config::DEFAULT })
    }

    pub(crate) fn with(config: Config) -> Self {
        Self { decoder: Decoder::new(config, true), number: 0 }
    }

    /// Everything that comes of a frame: its own, then what its segment completed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<Got> {
        self.number += 1;
        let wire_len = u32::try_from(bytes.len()).unwrap();
        let time = Nanos(START_NS + self.number * 1_000);
        let link = LinkType::Ethernet;
        let frame = Frame { time, number: self.number, interface: 0, link, bytes, wire_len };
        let mut got = vec![Got::from(self.decoder.frame(&frame, &Nobody))];
        while let Some(decoded) = self.decoder.more(&Nobody) {
            got.push(decoded.into());
        }
        got
    }

    pub(crate) fn one(&mut self, bytes: &[u8]) -> Got {
        let mut got = self.take(bytes);
        assert_eq!(got.len(), 1, "{got:?}");
        got.remove(0)
    }

    /// Datagrams that segments completed.
    pub(crate) fn unpacked(&mut self, segments: &[Datagram]) -> Vec<Got> {
        segments.iter().flat_map(|segment| self.take(&segment.ethernet()).split_off(1)).collect()
    }

    pub(crate) fn finish(self) -> Tunnels {
        self.decoder.into_tunnels()
    }
}

/// Something of each kind, in both versions of IP.
pub(crate) fn inners() -> Vec<Datagram> {
    let media = rtp().seq(7).over(udp());
    let control = udp().ports(20_001, 30_001).payload(&rtcp());
    let plain = [sip(OPTIONS), media, control];
    plain.iter().cloned().chain(plain.iter().cloned().map(Datagram::v6)).collect()
}
