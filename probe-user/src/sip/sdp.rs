//! What a body says about media: where somebody wants to receive it, and in which formats.
//!
//! The grammar is `sdp-types`'. It refuses a whole description for one bad line, which is right for an
//! endpoint and wrong for a monitor: a bandwidth with a stray blank would hide a call's media. So only the
//! lines that say something about media (`c=`, `m=`, `a=`) are given to it; if they are refused together, they are
//! tried one by one, and those that cannot be read are dropped and counted.
//!
//! A media line describes what its *author receives*: its address and port are a destination, its payload types are
//! those of packets that go there.

use std::net::IpAddr;

use sdp_types::{Media, RtpMap, Session};

use super::body;
use super::bundle;
use super::ice::{self, Candidate};
use super::sdp_lines::{first_sections, is_readable, media_text, tidied};
use crate::packet::Endpoint;
use crate::rtp::codec::Redundancy;

/// A description, as far as it concerns RTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its media lines in order, the refused ones (port 0) and those that are not RTP included: an answer has the same
    /// number of them as its offer (RFC 3264, 6).
    pub lines: Vec<MediaLine>,
    /// Lines of the body that could not be read.
    pub dropped: usize,
    /// Media lines beyond those that are read of one description.
    pub given_up: usize,
}

/// One `m=` line and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "attributes of a line, each of which stands for itself")]
pub struct MediaLine {
    /// `audio`, `video`, …
    pub kind: MediaKind,
    /// What is sent there.
    pub protocol: Protocol,
    /// Where it is wanted; `None` if the line is refused, or without a usable address.
    pub endpoint: Option<Endpoint>,
    /// `endpoint` is not what `c=` and `m=` say by the letter: a candidate's, or an address in brackets.
    pub is_guessed: bool,
    /// Port 0: not wanted at all (RFC 3264, 6). Apart from `a=bundle-only`, whose port is that of its group.
    pub refused: bool,
    /// Where RTCP is wanted, if not there: by `a=rtcp` (RFC 3605), else the next port (RFC 3550, 11).
    pub rtcp: Option<Endpoint>,
    /// RTCP may come to the port of RTP (RFC 5761). Of an offer it is a wish, and `rtcp` is where RTCP comes if it is not
    /// granted.
    pub mux: bool,
    /// ICE candidates over UDP: where it may be wanted instead (RFC 8839).
    pub candidates: Vec<Candidate>,
    /// SSRCs that its author will send (RFC 5576).
    pub ssrcs: Vec<u32>,
    /// `a=mid` (RFC 5888), if it is not absurdly long.
    pub mid: Option<Box<str>>,
    /// The line of the same description that has the same endpoint, by its place: BUNDLE (RFC 8843), or a choice of
    /// profiles. That one has the formats of both.
    pub rides_on: Option<usize>,
    /// Payload types in order of preference.
    pub formats: Vec<Format>,
    /// Milliseconds of media in a packet, as wished.
    pub ptime_ms: Option<u16>,
    /// Who sends.
    pub direction: Direction,
    /// Encrypted: SAVP profiles, `a=crypto`, or DTLS. Headers stay readable, payload does not.
    pub srtp: bool,
    /// Declared to be sent twice.
    pub redundancy: Option<Redundancy>,
}

/// What a media line is carried by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RTP, of any profile.
    Rtp,
    /// T.38 fax over UDPTL.
    Udptl,
    /// MSRP: messages over TCP.
    Msrp,
    /// BFCP: floor control.
    Bfcp,
    /// WebRTC data channels.
    Data,
    /// None of these.
    Other,
}

impl Protocol {
    /// Of the third word of `m=`.
    fn of(word: &str) -> Self {
        let word = word.to_ascii_uppercase();
        let has = |part: &str| word.split('/').any(|of_it| of_it == part);
        if has("RTP") {
            Self::Rtp
        } else if has("UDPTL") {
            Self::Udptl
        } else if has("MSRP") {
            Self::Msrp
        } else if has("BFCP") {
            Self::Bfcp
        } else if has("SCTP") {
            Self::Data
        } else {
            Self::Other
        }
    }

    /// Does it come as UDP to the port of the line, and nothing else on it?
    pub fn is_media(self) -> bool {
        matches!(self, Self::Rtp | Self::Udptl)
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtp => "RTP",
            Self::Udptl => "T.38 fax",
            Self::Msrp => "MSRP messages",
            Self::Bfcp => "BFCP floor control",
            Self::Data => "WebRTC data",
            Self::Other => "another protocol",
        }
    }
}

/// What kind of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures that move.
    Video,
    /// Real-time text (RFC 4103) and whatever else goes over RTP.
    Other,
}

/// Who sends, from the author's point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Both.
    #[default]
    SendRecv,
    /// The author only: usually hold with music.
    SendOnly,
    /// The other side only.
    RecvOnly,
    /// Nobody: hold.
    Inactive,
}

impl Direction {
    /// Does the author send?
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Does the author want to receive?
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The attribute of RFC 8866, 6.7.
    pub fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }
}

/// One payload type of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Payload type.
    pub payload_type: u8,
    /// Its `a=rtpmap`, if there is one; static types (RFC 3551) need none.
    pub codec: Option<Codec>,
    /// Its `a=fmtp`, as written; the first 256 bytes.
    pub fmtp: Option<Box<str>>,
}

/// `a=rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Codec {
    /// Encoding name, as written; the first 64 bytes.
    pub name: Box<str>,
    /// Clock rate of the timestamps in Hz.
    pub clock_rate: u32,
    /// Channels; 1 where nothing is said.
    pub channels: u8,
}

/// The description in a message's body, if it has one: `application/sdp`, or the first such part of a multipart (RFC 5621). Or
/// the fragment of one that trickles ICE candidates (RFC 8840), which looks alike.
/// A body without Content-Type counts as one if it begins like one.
pub fn describe<'a>(content_type: &'a [u8], body: &'a [u8]) -> Option<Description> {
    if content_type.is_empty() && body.starts_with(b"v=0") {
        return Some(Description::parse(body));
    }
    body::find(content_type, body).map(Description::parse)
}

impl Description {
    /// Reads a description. What cannot be read is left out and counted.
    pub fn parse(body: &[u8]) -> Self {
        let mut dropped = 0;
        let body = tidied(body);
        let (body, given_up) = first_sections(&body);
        let session = Session::parse(&media_text(body, |_, _| true)).or_else(|_| {
            dropped = 0;
            let text = media_text(body, |section, line| {
                let readable = is_readable(section, line);
                dropped += usize::from(!readable);
                readable
            });
            Session::parse(&text)
        });
        let Ok(session) = session else { return Self { dropped, given_up, ..Self::default() } };
        let mut description = Self { dropped, given_up, ..Self::default() };
        description.lines = session.medias.iter().map(|media| MediaLine::from_sdp(&session, media)).collect();
        bundle::share(&session, &mut description.lines);
        description
    }
}

impl MediaLine {
    fn from_sdp(session: &Session, media: &Media) -> Self {
        let connection = media.connections.first().or(session.connection.as_ref());
        let address = connection.and_then(|c| c.try_address().ok()).map(|c| c.ip);
        // Brackets belong into a URI, and some write them here.
        let bracketed = || {
            let text = connection?.connection_address.trim();
            text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
        };
        let profile = media.proto.to_ascii_uppercase();
        let protocol = Protocol::of(&profile);
        let candidates = ice::candidates(media);
        let refused = media.port == 0 && !media.has_attribute("bundle-only");
        // Without an address of its own, as where candidates trickle in (RFC 8840), the first of them stands for it.
        let candidate = || candidates.iter().find(|found| !found.is_rtcp).map(|found| found.endpoint);
        let by_letter = address.and_then(|address| endpoint(address, media.port));
        let endpoint = by_letter
            .or_else(|| bracketed().and_then(|address| endpoint(address, media.port)))
            .or_else(|| candidate().filter(|_| !refused));
        Self {
            kind: match media.media.to_ascii_lowercase().as_str() {
                "audio" => MediaKind::Audio,
                "video" => MediaKind::Video,
                _ => MediaKind::Other,
            },
            protocol,
            endpoint,
            is_guessed: by_letter.is_none(),
            refused,
            rtcp: endpoint.filter(|_| protocol == Protocol::Rtp).and_then(|rtp| rtcp_endpoint(media, rtp)),
            mux: media.has_attribute("rtcp-mux"),
            candidates,
            ssrcs: bundle::ssrcs(media),
            mid: first_value(media, "mid").map(str::trim).filter(|mid| mid.len() <= MAX_MID).map(Into::into),
            rides_on: None,
            formats: formats(media),
            ptime_ms: first_value(media, "ptime").and_then(|value| value.trim().parse().ok()),
            direction: Direction::of(session, media).unless_held(address, media.port),
            srtp: profile.contains("SAVP") || media.has_attribute("crypto"),
            redundancy: redundancy(session, media),
        }
    }
}

impl Direction {
    fn of(session: &Session, media: &Media) -> Self {
        let named = |name: &str| match name {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        };
        let own = media.attributes.iter().find_map(|a| named(&a.attribute));
        own.or_else(|| session.attributes.iter().find_map(|a| named(&a.attribute))).unwrap_or_default()
    }

    /// Nothing is to be sent to 0.0.0.0: the old way to hold (RFC 3264, 8.4). With port 9 it is the address that ICE will
    /// find yet (RFC 8840).
    fn unless_held(self, address: Option<IpAddr>, port: u16) -> Self {
        let is_held = address.is_some_and(|address| address.is_unspecified()) && !matches!(port, 0 | 9);
        match self {
            Self::SendRecv if is_held => Self::SendOnly,
            Self::RecvOnly if is_held => Self::Inactive,
            direction => direction,
        }
    }
}

/// 0.0.0.0 is the old way to hold (RFC 2543), port 0 refuses the line.
fn endpoint(address: IpAddr, port: u16) -> Option<Endpoint> {
    let usable = port != 0 && !address.is_unspecified();
    usable.then(|| Endpoint::from(std::net::SocketAddr::new(address, port)))
}

/// RFC 3605, else the next port (RFC 3550, 11).
fn rtcp_endpoint(media: &Media, rtp: Endpoint) -> Option<Endpoint> {
    let Some(value) = first_value(media, "rtcp") else {
        return Some(Endpoint { port: rtp.port.checked_add(1)?, ..rtp });
    };
    let mut words = value.split_ascii_whitespace();
    let port = words.next()?.parse().ok().filter(|port| *port != 0)?;
    match words.nth(2).and_then(|address| address.parse().ok()) {
        Some(address) => endpoint(address, port),
        None => Some(Endpoint { port, ..rtp }),
    }
}

/// Longest `a=mid` that is one; in RTP it has 16 bytes at most (RFC 8843, 15).
const MAX_MID: usize = 64;
/// Longest encoding name kept; of those registered the longest has 21 letters.
const MAX_NAME: usize = 64;
/// Most that is kept of `a=fmtp`, as of a URI.
const MAX_PARAMETERS: usize = 256;

/// As much of a text as `most` bytes hold.
fn shortened(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

fn formats(media: &Media) -> Vec<Format> {
    let mut formats: Vec<Format> = media
        .fmt
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|payload_type: &u8| *payload_type < 128)
        .take(128)
        .map(|payload_type| Format { payload_type, codec: None, fmtp: None })
        .collect();
    for map in media.attributes_typed::<RtpMap>().flatten() {
        if let Some(format) = formats.iter_mut().find(|f| f.payload_type == map.payload_type) {
            let channels = map.encoding_params.and_then(|p| p.trim().parse().ok()).unwrap_or(1);
            let name = shortened(&map.encoding_name, MAX_NAME).into();
            let codec = Codec { name, clock_rate: map.clock_rate, channels };
            format.codec.get_or_insert(codec);
        }
    }
    for value in media.get_attribute_values("fmtp").flatten() {
        let Some((payload_type, parameters)) = value.split_once(' ') else { continue };
        let Ok(payload_type) = payload_type.parse::<u8>() else { continue };
        if let Some(format) = formats.iter_mut().find(|f| f.payload_type == payload_type) {
            format.fmtp.get_or_insert(shortened(parameters.trim(), MAX_PARAMETERS).into());
        }
    }
    formats
}

/// RFC 7104 and 7197. A group may be of more than two; a delay may be a list, of which the first is the second copy's.
fn redundancy(session: &Session, media: &Media) -> Option<Redundancy> {
    /// SSRCs read of a group: two are duplicates, more is somebody's list.
    const MAX_SSRCS: usize = 8;
    let delay = first_value(media, "duplication-delay");
    let delay_ms = delay.and_then(|value| value.split_ascii_whitespace().next()?.parse().ok());
    let ssrcs: Vec<u32> = media
        .get_attribute_values("ssrc-group")
        .flatten()
        .find_map(|value| value.strip_prefix("DUP "))
        .map(|list| {
            list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).take(MAX_SSRCS).collect()
        })
        .unwrap_or_default();
    let is_grouped = first_value(media, "mid").is_some_and(|mid| {
        let groups = session.attributes.iter().filter(|a| a.attribute == "group");
        groups
            .filter_map(|a| a.value.as_deref()?.strip_prefix("DUP "))
            .any(|list| list.split_ascii_whitespace().any(|member| member == mid.trim()))
    });
    let found = Redundancy { delay_ms, ssrcs, is_grouped };
    (found != Redundancy::default()).then_some(found)
}

fn first_value<'a>(media: &'a Media, name: &'a str) -> Option<&'a str> {
    media.get_first_attribute_value(name).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: [u8; 4], port: u16) -> Endpoint {
        Endpoint::v4(address, port)
    }

    #[test]
    fn offer_gives_endpoint_rtcp_formats_and_direction() {
        let offer = Description::parse(
            b"v=0\r\no=- 1 1 IN IP4 h\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\na=sendonly\r\n\
              m=audio 16384 RTP/AVP 0 101 96\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n\
              a=rtpmap:96 opus/48000/2\r\na=ptime:20\r\n\
              m=video 0 RTP/AVP 31\r\nm=image 4000 udptl t38\r\n\
              m=audio 7000 RTP/SAVPF 8\r\nc=IN IP6 2001:db8::1\r\na=rtcp-mux\r\na=recvonly\r\n",
        );
        assert_eq!((offer.lines.len(), offer.dropped), (4, 0));
        let fax = &offer.lines[2];
        assert_eq!(
            (fax.protocol, fax.endpoint, fax.rtcp),
            (Protocol::Udptl, Some(at([10, 0, 0, 1], 4000)), None)
        );
        let audio = &offer.lines[0];
        assert_eq!(
            (audio.endpoint, audio.rtcp),
            (Some(at([10, 0, 0, 1], 16384)), Some(at([10, 0, 0, 1], 16385)))
        );
        assert_eq!((audio.ptime_ms, audio.direction, audio.srtp), (Some(20), Direction::SendOnly, false));
        let types: Vec<_> = audio.formats.iter().map(|f| f.payload_type).collect();
        assert_eq!(types, [0, 101, 96]);
        assert_eq!(audio.formats[1].fmtp.as_deref(), Some("0-15"));
        let opus = Codec { name: "opus".into(), clock_rate: 48_000, channels: 2 };
        assert_eq!(audio.formats[2].codec, Some(opus));
        assert_eq!((offer.lines[1].endpoint, offer.lines[1].refused), (None, true));
        let v6 = &offer.lines[3];
        let address: std::net::SocketAddr = "[2001:db8::1]:7000".parse().unwrap();
        let rtcp = Endpoint { port: 7001, ..address.into() };
        assert_eq!((v6.endpoint, v6.rtcp, v6.mux), (Some(address.into()), Some(rtcp), true));
        assert_eq!((v6.srtp, v6.direction), (true, Direction::RecvOnly));
    }

    #[test]
    fn media_that_is_sent_twice_is_declared_in_three_ways() {
        let offer = Description::parse(
            b"v=0\r\nc=IN IP4 10.0.0.1\r\na=group:BUNDLE x\r\na=group:DUP one two\r\n\
              m=audio 4000 RTP/AVP 8\r\na=mid:one\r\na=duplication-delay:50 100\r\n\
              m=audio 4002 RTP/AVP 8\r\na=mid:two\r\na=ssrc-group:FID 1 2\r\na=ssrc-group:DUP 1000 1010\r\n\
              m=audio 4004 RTP/AVP 8\r\na=mid:x\r\n",
        );
        let declared: Vec<_> = offer.lines.into_iter().map(|line| line.redundancy).collect();
        let expected = [
            Some(Redundancy { delay_ms: Some(50), ssrcs: vec![], is_grouped: true }),
            Some(Redundancy { delay_ms: None, ssrcs: vec![1_000, 1_010], is_grouped: true }),
            None,
        ];
        assert_eq!(declared, expected);
    }

    #[test]
    fn rtcp_attribute_overrides_the_next_port() {
        let line = |rtcp: &str| {
            let text = format!("v=0\nc=IN IP4 10.0.0.1\nm=audio 5000 RTP/AVP 0\na=rtcp:{rtcp}\n");
            Description::parse(text.as_bytes()).lines[0].rtcp
        };
        assert_eq!(line("5555"), Some(at([10, 0, 0, 1], 5555)));
        assert_eq!(line("5555 IN IP4 10.0.0.9"), Some(at([10, 0, 0, 9], 5555)));
        assert_eq!(line("0"), None);
    }

    #[test]
    fn an_address_in_brackets_is_one_and_a_candidate_stands_for_none() {
        let line = |text: &str| Description::parse(format!("v=0\n{text}").as_bytes()).lines.remove(0);
        let bracketed = line("c=IN IP6 [::16.0.0.1]\nm=audio 5000 RTP/AVP 0\n");
        let trickled =
            line("c=IN IP4 0.0.0.0\nm=audio 9 RTP/AVP 0\na=candidate:1 1 UDP 1 10.0.0.1 5000 typ host\n");
        assert_eq!(bracketed.endpoint.map(|at| at.to_string()).as_deref(), Some("[::1000:1]:5000"));
        assert_eq!(trickled.endpoint, Some(at([10, 0, 0, 1], 5000)));
        assert!(bracketed.is_guessed && trickled.is_guessed);
    }

    #[test]
    fn hold_and_refused_lines_have_no_endpoint() {
        for text in
            ["v=0\nc=IN IP4 0.0.0.0\nm=audio 5000 RTP/AVP 0\n", "v=0\nc=IN IP4 h\nm=audio 1 RTP/AVP 0\n"]
        {
            assert_eq!(Description::parse(text.as_bytes()).lines[0].endpoint, None);
        }
    }

    #[test]
    fn of_a_description_with_too_many_lines_the_first_are_read_and_the_rest_counted() {
        let lines: Vec<_> = (0..30).map(|n| format!("m=audio {} RTP/AVP 0\r\n", 5000 + 2 * n)).collect();
        let lines = lines.concat();
        let description = Description::parse(format!("v=0\r\nc=IN IP4 10.0.0.1\r\n{lines}").as_bytes());
        assert_eq!((description.lines.len(), description.given_up), (16, 14));
        assert_eq!(description.lines[15].endpoint.map(|at| at.port), Some(5030));
    }

    #[test]
    fn one_bad_line_does_not_hide_the_others() {
        // Bare LF, a version that is none, a broken o=, b= with a blank, c= twice, an m= without formats.
        let body = b"o=x\nb=AS: 64\nc=IN IP4 10.0.0.1\nc=IN IP4 10.0.0.2\nt=now\n\
            m=audio\na=rtpmap:0 lost/8000\nm=audio 5000 RTP/AVP 0 \xff\na=rtpmap:8 x\n\
            m=audio 6000 RTP/AVP 8\na=\xff\na=rtpmap:8 PCMA/8000\n";
        let description = Description::parse(body);
        assert_eq!(description.dropped, 3);
        assert_eq!(description.lines.len(), 1);
        assert_eq!(description.lines[0].endpoint, Some(at([10, 0, 0, 1], 6000)));
        assert_eq!(description.lines[0].formats[0].codec.as_ref().unwrap().clock_rate, 8000);
    }

    #[test]
    fn description_is_found_in_a_multipart_body() {
        let body = b"preamble\r\n--uniq\r\nContent-Type: text/plain\r\n\r\nm=audio 1 RTP/AVP 0\r\n\
            --uniq\r\ncontent-TYPE : application/SDP ;x=y\r\nContent-Disposition: session\r\n\r\n\
            v=0\r\nc=IN IP4 10.0.0.1\r\nm=audio 5000 RTP/AVP 0\r\n--uniq--\r\n";
        let found = describe(b"multipart/mixed; boundary=\"uniq\"", body).unwrap();
        assert_eq!(found.lines[0].endpoint, Some(at([10, 0, 0, 1], 5000)));
        assert_eq!(found.lines.len(), 1);
        assert_eq!(describe(b"text/plain", b"v=0\n"), None);
    }

    #[test]
    fn long_names_and_parameters_are_cut_between_letters() {
        let (name, parameters) = ("n".repeat(100), "\u{e9}".repeat(200));
        let text =
            format!("v=0\nm=audio 5000 RTP/AVP 96\na=rtpmap:96 {name}/8000\na=fmtp:96 x{parameters}\n");
        let line = Description::parse(text.as_bytes()).lines.remove(0);
        let format = &line.formats[0];
        assert_eq!(format.codec.as_ref().map(|codec| &*codec.name), name.get(..64));
        assert_eq!(format.fmtp.as_deref(), Some(&*format!("x{}", "\u{e9}".repeat(127))));
    }
}
