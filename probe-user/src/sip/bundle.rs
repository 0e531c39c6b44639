//! Media lines that share an endpoint: BUNDLE (RFC 8843), and a choice of profiles for one port.
//!
//! A packet that comes to a shared endpoint is told by its payload type, so the line that owns the endpoint has to know
//! the formats of all of them. Payload types mean one thing within a bundle (RFC 8843, 9.1).

use sdp_types::{Media, Session};

use super::ice::MAX_CANDIDATES;
use super::sdp::{MediaLine, Protocol};

/// SSRCs read of a media line: simulcast and retransmission have some ten.
const MAX_SSRCS: usize = 16;

/// Lets the first line of each group know the formats of the others, and marks those that have no endpoint of their own.
pub(super) fn share(session: &Session, lines: &mut [MediaLine]) {
    let groups = session.attributes.iter().filter(|attribute| attribute.attribute == "group");
    for group in groups.filter_map(|group| group.value.as_deref()?.trim().strip_prefix("BUNDLE ")) {
        let place = |mid| lines.iter().position(|line| line.mid.as_deref() == Some(mid));
        let members: Vec<_> = group.split_ascii_whitespace().filter_map(place).collect();
        let Some((first, others)) = members.split_first() else { continue };
        for other in others {
            gather(lines, *first, *other);
        }
    }
    for at in 1..lines.len() {
        let Some(endpoint) = lines.get(at).and_then(|line| line.endpoint) else { continue };
        let earlier = lines.get(..at).unwrap_or_default();
        let shared =
            earlier.iter().position(|line| line.endpoint == Some(endpoint) && line.rides_on.is_none());
        if let Some(first) = shared {
            gather(lines, first, at);
            if let Some(line) = lines.get_mut(at) {
                line.rides_on = Some(first);
            }
        }
    }
}

/// Formats, candidates and SSRCs of the line at `from` become known to that at `to`, as far as they are new to it.
fn gather(lines: &mut [MediaLine], to: usize, from: usize) {
    let is_rtp = |line: &&MediaLine| line.protocol == Protocol::Rtp && to != from;
    let Some(other) = lines.get(from).filter(is_rtp).cloned() else { return };
    let Some(line) = lines.get_mut(to) else { return };
    for format in other.formats {
        if !line.formats.iter().any(|known| known.payload_type == format.payload_type) {
            line.formats.push(format);
        }
    }
    line.srtp &= other.srtp;
    merge(&mut line.candidates, &other.candidates, MAX_CANDIDATES);
    merge(&mut line.ssrcs, &other.ssrcs, MAX_SSRCS);
}

/// Adds what is new, up to a bound.
pub(super) fn merge<T: Copy + PartialEq>(known: &mut Vec<T>, more: &[T], bound: usize) {
    for item in more {
        if known.len() < bound && !known.contains(item) {
            known.push(*item);
        }
    }
}

/// `a=ssrc:1234 cname:x`: those of a line, each once.
pub(super) fn ssrcs(media: &Media) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    for value in media.get_attribute_values("ssrc").flatten() {
        let Some(ssrc) = value.split_ascii_whitespace().next().and_then(|word| word.parse().ok()) else {
            continue;
        };
        if found.len() < MAX_SSRCS && !found.contains(&ssrc) {
            found.push(ssrc);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::sip::sdp::Description;

    fn read(text: &str) -> Description {
        Description::parse(format!("v=0\r\nc=IN IP4 10.0.0.1\r\n{text}").as_bytes())
    }

    fn types(description: &Description, line: usize) -> Vec<u8> {
        description.lines[line].formats.iter().map(|format| format.payload_type).collect()
    }

    #[test]
    fn the_first_line_of_a_bundle_knows_the_formats_of_all() {
        let offer = read(
            "a=group:BUNDLE a v\r\n\
             m=audio 4000 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=ssrc:7 cname:x\r\na=ssrc:7 msid:y\r\n\
             m=video 4002 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:v\r\na=ssrc:8 cname:x\r\n",
        );
        assert_eq!((types(&offer, 0), types(&offer, 1)), (vec![111, 96, 97], vec![96, 97]));
        assert_eq!(offer.lines[0].ssrcs, [7, 8]);
        assert!(offer.lines.iter().all(|line| line.rides_on.is_none()), "each has a port of its own, yet");
    }

    #[test]
    fn lines_with_one_endpoint_ride_on_the_first() {
        let answer = read(
            "a=group:BUNDLE a v\r\nm=audio 4000 RTP/SAVPF 111\r\na=mid:a\r\nm=video 4000 RTP/SAVPF 96\r\na=mid:v\r\n",
        );
        assert_eq!((types(&answer, 0), answer.lines[1].rides_on), (vec![111, 96], Some(0)));
        // A choice of profiles: encrypted, or not.
        let choice = read("m=audio 4000 RTP/SAVP 8\r\nm=audio 4000 RTP/AVP 8 0\r\n");
        assert_eq!((types(&choice, 0), choice.lines[0].srtp), (vec![8, 0], false));
    }

    #[test]
    fn a_line_that_comes_with_its_bundle_only_is_not_refused() {
        let offer = read(
            "a=group:BUNDLE a v\r\nm=audio 4000 RTP/AVP 0\r\na=mid:a\r\n\
             m=video 0 RTP/AVP 96\r\na=mid:v\r\na=bundle-only\r\nm=audio 0 RTP/AVP 0\r\n",
        );
        let refused: Vec<_> = offer.lines.iter().map(|line| line.refused).collect();
        assert_eq!((refused, types(&offer, 0)), (vec![false, false, true], vec![0, 96]));
    }
}
