//! Which streams a person asked for: `--stream`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use super::contract::{Report, StreamReport};
use crate::packet::Endpoint;

/// Terms joined by commas; a stream has to meet all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    terms: Vec<Term>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    Ssrc(u32),
    Src(Place),
    Dst(Place),
    Either(Place),
}

/// An address, with or without its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Address(IpAddr),
    Endpoint(SocketAddr),
}

/// Why a selection is not understood.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no SSRC (0x1a2b3c4d or decimal), no address (10.0.0.1, 10.0.0.1:4000, [2001:db8::1]:4000), and no src= or \
     dst= with one"
)]
pub struct NotUnderstood(String);

impl FromStr for Selection {
    type Err = NotUnderstood;

    fn from_str(text: &str) -> Result<Self, NotUnderstood> {
        let terms = text.split(',').map(|term| Term::parse(term.trim())).collect::<Option<_>>();
        terms.map(|terms| Self { terms }).ok_or_else(|| NotUnderstood(text.to_owned()))
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            return u32::from_str_radix(hex, 16).ok().map(Self::Ssrc);
        }
        if let Ok(ssrc) = text.parse() {
            return Some(Self::Ssrc(ssrc));
        }
        match text.split_once('=') {
            Some(("src", place)) => Place::parse(place).map(Self::Src),
            Some(("dst", place)) => Place::parse(place).map(Self::Dst),
            Some(_) => None,
            None => Place::parse(text).map(Self::Either),
        }
    }

    fn holds(self, stream: &StreamReport) -> bool {
        match self {
            Self::Ssrc(ssrc) => stream.ssrc == format!("0x{ssrc:08x}"),
            Self::Src(place) => place.is(stream.src),
            Self::Dst(place) => place.is(stream.dst),
            Self::Either(place) => place.is(stream.src) || place.is(stream.dst),
        }
    }
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let address = || text.trim_matches(['[', ']']).parse().ok().map(Self::Address);
        text.parse().ok().map(Self::Endpoint).or_else(address)
    }

    fn is(self, endpoint: Endpoint) -> bool {
        match self {
            Self::Address(address) => endpoint.ip() == address,
            Self::Endpoint(wanted) => endpoint == wanted.into(),
        }
    }
}

impl Selection {
    /// Leaves only the streams that were asked for.
    pub fn apply(&self, report: &mut Report) {
        report.streams.retain(|stream| self.terms.iter().all(|term| term.holds(stream)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::testing::{report, stream};
    use super::*;

    /// Does it select the stream 0x12345678 from 10.0.0.1:4000 to 10.0.0.2:5000?
    fn selects(text: &str) -> bool {
        let mut report = report(vec![stream()]);
        text.parse::<Selection>().unwrap().apply(&mut report);
        !report.streams.is_empty()
    }

    #[test]
    fn a_stream_is_found_by_ssrc_or_address_or_both() {
        for text in [
            "0x12345678",
            "305419896",
            "10.0.0.1",
            "10.0.0.2:5000",
            "src=10.0.0.1:4000",
            "dst=10.0.0.2",
            "src=10.0.0.1, dst=10.0.0.2, 0x12345678",
        ] {
            assert!(selects(text), "{text}");
        }
        for text in
            ["0x1", "7", "10.0.0.3", "10.0.0.1:5000", "src=10.0.0.2", "10.0.0.1,0x1", "[2001:db8::1]:4000"]
        {
            assert!(!selects(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said_with_what_would_be() {
        for text in ["", "0x", "0x123456789", "10.0.0", "from=10.0.0.1", "10.0.0.1:99999"] {
            assert_eq!(text.parse::<Selection>(), Err(NotUnderstood(text.to_owned())), "{text}");
        }
    }
}
