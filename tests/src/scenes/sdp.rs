//! Offers and answers (RFC 8866, RFC 3264), from named fields.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// A codec in SDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    /// Payload type.
    pub payload_type: u8,
    /// As in `a=rtpmap`.
    pub rtpmap: &'static str,
}

/// G.711 µ-law.
pub const PCMU: Codec = Codec { payload_type: 0, rtpmap: "PCMU/8000" };
/// G.711 A-law.
pub const PCMA: Codec = Codec { payload_type: 8, rtpmap: "PCMA/8000" };
/// Telephone events.
pub const EVENTS: Codec = Codec { payload_type: 101, rtpmap: "telephone-event/8000" };
/// VP8 video.
pub const VP8: Codec = Codec { payload_type: 96, rtpmap: "VP8/90000" };

/// A session description with one line of audio, and what else a scene needs.
#[derive(Clone, Debug)]
pub struct Sdp {
    at: SocketAddr,
    connection: Option<String>,
    codecs: Vec<Codec>,
    version: u32,
    /// Attribute lines of the session, without `a=`.
    session: Vec<String>,
    /// Attribute lines of the audio.
    audio: Vec<String>,
    /// Whole lines behind the audio.
    more: String,
    direction: &'static str,
}

/// Audio at `at` with these codecs, sendrecv.
pub fn audio(at: SocketAddr, codecs: &[Codec]) -> Sdp {
    Sdp {
        at,
        connection: None,
        codecs: codecs.to_vec(),
        version: 1,
        session: Vec::new(),
        audio: Vec::new(),
        more: String::new(),
        direction: "sendrecv",
    }
}

impl Sdp {
    /// Sets the direction.
    #[must_use]
    pub fn direction(self, direction: &'static str) -> Self {
        Self { direction, ..self }
    }

    /// Sets the version of the session, which rises with each change.
    #[must_use]
    pub fn version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// Sets the address in `c=`, which is the audio's by default.
    #[must_use]
    pub fn connection(self, address: &str) -> Self {
        Self { connection: Some(address.to_owned()), ..self }
    }

    /// Adds an attribute of the session.
    #[must_use]
    pub fn session(mut self, attribute: &str) -> Self {
        self.session.push(attribute.to_owned());
        self
    }

    /// Adds an attribute of the audio.
    #[must_use]
    pub fn attribute(mut self, attribute: &str) -> Self {
        self.audio.push(attribute.to_owned());
        self
    }

    /// Adds another media line with its attributes.
    #[must_use]
    pub fn line(mut self, lines: &str) -> Self {
        for line in lines.lines() {
            let _ = write!(self.more, "{line}\r\n");
        }
        self
    }

    /// The text.
    pub fn text(&self) -> String {
        let family = if self.at.is_ipv4() { "IP4" } else { "IP6" };
        let (ip, version) = (self.at.ip(), self.version);
        let address = self.connection.clone().unwrap_or_else(|| ip.to_string());
        let mut text = format!(
            "v=0\r\no=- 4711 {version} IN {family} {ip}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n"
        );
        let put = |text: &mut String, line: &str| {
            let _ = write!(text, "a={line}\r\n");
        };
        self.session.iter().for_each(|line| put(&mut text, line));
        if !self.codecs.is_empty() {
            let types: Vec<_> = self.codecs.iter().map(|codec| codec.payload_type.to_string()).collect();
            let _ = write!(text, "m=audio {} RTP/AVP {}\r\n", self.at.port(), types.join(" "));
            for Codec { payload_type, rtpmap } in &self.codecs {
                put(&mut text, &format!("rtpmap:{payload_type} {rtpmap}"));
            }
            put(&mut text, self.direction);
            self.audio.iter().for_each(|line| put(&mut text, line));
        }
        text + &self.more
    }
}
