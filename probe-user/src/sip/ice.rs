//! ICE candidates (RFC 8839, 5.1): where media may be wanted instead of at the address of `c=` and `m=`.
//!
//! Which of them it will be is agreed by checks between the two ends. A monitor need not follow them: every candidate is
//! somewhere that the author said he may receive at.

use std::net::{IpAddr, SocketAddr};

use sdp_types::Media;

use super::bundle::merge;
use crate::packet::Endpoint;

/// Candidates read of one media line; a phone with two interfaces, IPv6 and a relay has some ten.
pub(super) const MAX_CANDIDATES: usize = 16;

/// One candidate over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Address and port.
    pub endpoint: Endpoint,
    /// Is it for RTCP (component 2)?
    pub is_rtcp: bool,
}

impl Candidate {
    /// `1 1 UDP 2130706431 10.0.0.1 4000 typ host`. None of TCP, and none of a name (mDNS) instead of an address.
    fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let component = words.nth(1)?;
        let is_udp = words.next()?.eq_ignore_ascii_case("udp");
        let address: IpAddr = words.nth(1)?.parse().ok()?;
        let port: u16 = words.next()?.parse().ok()?;
        // TCP candidates that connect have the discard port; so has a candidate yet to come.
        let is_usable = is_udp && port > 9 && !address.is_unspecified();
        let endpoint = Endpoint::from(SocketAddr::new(address, port));
        is_usable.then_some(Self { endpoint, is_rtcp: component == "2" })
    }
}

/// Those of a media line, each once.
pub(super) fn candidates(media: &Media) -> Vec<Candidate> {
    let read: Vec<_> =
        media.get_attribute_values("candidate").flatten().filter_map(Candidate::parse).take(64).collect();
    let mut found = Vec::new();
    merge(&mut found, &read, MAX_CANDIDATES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_of_every_type_are_read_and_those_that_are_no_address_are_not() {
        let read =
            |value: &str| Candidate::parse(value).map(|found| (found.endpoint.to_string(), found.is_rtcp));
        let relay = "3 1 udp 16777215 192.0.2.7 49152 typ relay raddr 203.0.113.5 rport 61234";
        assert_eq!(read("1 1 UDP 2130706431 10.0.0.1 4000 typ host"), Some(("10.0.0.1:4000".into(), false)));
        assert_eq!(
            read("1 2 UDP 2130706430 2001:db8::1 4001 typ host"),
            Some(("[2001:db8::1]:4001".into(), true))
        );
        assert_eq!(read(relay), Some(("192.0.2.7:49152".into(), false)));
        for unusable in [
            "1 1 TCP 1 10.0.0.1 9 typ host tcptype active",
            "1 1 UDP 1 4f2e.local 4000 typ host",
            "1 1 UDP 1 0.0.0.0 4000 typ host",
            "1 1 UDP 1 10.0.0.1 65536 typ host",
            "1 1",
            "",
        ] {
            assert_eq!(read(unusable), None, "{unusable}");
        }
    }
}
