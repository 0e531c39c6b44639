//! SIP messages as text, and the SDP in them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::g711::Law;

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    headers: Vec<(String, String)>,
    /// Body, with the type that its header names.
    pub body: String,
}

impl Message {
    /// A request with the headers that every request has, save `Content-Length`, which is computed.
    pub fn request(method: &str, uri: &str) -> Self {
        Self { start: format!("{method} {uri} SIP/2.0"), headers: Vec::new(), body: String::new() }
            .with("Max-Forwards", "70")
    }

    /// A response to `request`, with what RFC 3261, 8.2.6.2 copies from it. A tag is added to `To` unless the
    /// request has one, or the response is the 100, which belongs to the hop and not to the dialog.
    pub fn response(status: u16, reason: &str, request: &Self, tag: &str) -> Self {
        let mut response =
            Self { start: format!("SIP/2.0 {status} {reason}"), headers: Vec::new(), body: String::new() };
        for (name, value) in &request.headers {
            match name.as_str() {
                "Via" | "From" | "Call-ID" | "CSeq" => response.headers.push((name.clone(), value.clone())),
                // RFC 3261, 12.1.1: whoever is on the path stays on it.
                "Record-Route" if status > 100 => response.headers.push((name.clone(), value.clone())),
                "To" if status == 100 || value.contains(";tag=") => {
                    response.headers.push((name.clone(), value.clone()));
                }
                "To" => response.headers.push((name.clone(), format!("{value};tag={tag}"))),
                _ => {}
            }
        }
        response
    }

    /// Adds a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a header above the others, as a proxy does with Via and Record-Route.
    #[must_use]
    pub fn on_top(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.headers.insert(0, (name.to_owned(), value.to_string()));
        self
    }

    /// Takes the first header of this name away.
    #[must_use]
    pub fn without_first(mut self, name: &str) -> Self {
        if let Some(at) = self.headers.iter().position(|(have, _)| have.eq_ignore_ascii_case(name)) {
            self.headers.remove(at);
        }
        self
    }

    /// Adds a body.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: String) -> Self {
        self.headers.push(("Content-Type".to_owned(), content_type.to_owned()));
        self.body = body;
        self
    }

    /// Changes a header that is there.
    pub fn replace(&mut self, name: &str, value: &str) {
        for (_, have) in self.headers.iter_mut().filter(|(have, _)| have.eq_ignore_ascii_case(name)) {
            value.clone_into(have);
        }
    }

    /// From the bytes of a datagram.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let start = lines.next()?.to_owned();
        let headers = lines
            .map(|line| {
                line.split_once(':').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            })
            .collect::<Option<Vec<_>>>()?;
        let message = Self { start, headers, body: body.to_owned() };
        let length: usize = message.header("Content-Length")?.parse().ok()?;
        (length == body.len()).then_some(message)
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }

    /// Same, empty if there is none: where its absence is caught by what the value is compared to.
    pub fn text(&self, name: &str) -> &str {
        self.header(name).unwrap_or_default()
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        if self.start.starts_with("SIP/2.0 ") { None } else { self.start.split(' ').next() }
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        self.start.strip_prefix("SIP/2.0 ")?.split(' ').next()?.parse().ok()
    }

    /// Number and method of the CSeq header.
    pub fn cseq(&self) -> Option<(u32, &str)> {
        let (number, method) = self.header("CSeq")?.split_once(' ')?;
        Some((number.parse().ok()?, method))
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\r\n", self.start)?;
        for (name, value) in &self.headers {
            write!(f, "{name}: {value}\r\n")?;
        }
        write!(f, "Content-Length: {}\r\n\r\n{}", self.body.len(), self.body)
    }
}

/// The tag parameter of a From or To value.
pub fn tag(value: &str) -> Option<&str> {
    value.split(';').find_map(|parameter| parameter.strip_prefix("tag="))
}

/// An address in a URI: IPv6 in brackets.
pub fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Audio offered or answered: `laws` in order of preference, with telephone events.
pub fn sdp(at: SocketAddr, laws: &[Law], session: u64) -> String {
    use std::fmt::Write as _;

    let family = if at.is_ipv4() { "IP4" } else { "IP6" };
    let (ip, port) = (at.ip(), at.port());
    let types: String =
        laws.iter().fold(String::new(), |text, law| text + &format!("{} ", law.payload_type()));
    let mut text = format!(
        "v=0\r\no=voxlab {session} {session} IN {family} {ip}\r\ns=call\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {types}101\r\n"
    );
    for law in laws {
        let name = if *law == Law::Mu { "PCMU" } else { "PCMA" };
        let _ = write!(text, "a=rtpmap:{} {name}/8000\r\n", law.payload_type());
    }
    text + "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
}

/// Where the other side listens, and the codec it names first.
pub fn parse_sdp(body: &str) -> Option<(SocketAddr, Law)> {
    let line = |prefix: &str| body.lines().find_map(|line| line.strip_prefix(prefix));
    let address: IpAddr = line("c=IN ")?.split(' ').nth(1)?.parse().ok()?;
    let mut audio = line("m=audio ")?.split(' ');
    let port = audio.next()?.parse().ok()?;
    let law = Law::of_payload_type(audio.nth(1)?.parse().ok()?)?;
    Some((SocketAddr::new(address, port), law))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let message = Message::request("INVITE", "sip:200@10.0.0.1")
            .with("Via", "SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK1")
            .with("CSeq", "7 INVITE")
            .with_body("application/sdp", "v=0\r\n".to_owned());
        let read = Message::parse(message.to_string().as_bytes()).expect("well-formed");
        assert_eq!(read.method(), Some("INVITE"));
        assert_eq!(read.cseq(), Some((7, "INVITE")));
        assert_eq!((read.header("content-length"), read.body.as_str()), (Some("5"), "v=0\r\n"));
    }

    #[test]
    fn a_response_belongs_to_its_request_and_is_tagged_from_180_on() {
        let request = Message::request("INVITE", "sip:200@10.0.0.1")
            .with("To", "<sip:200@pbx>")
            .with("CSeq", "1 INVITE");
        assert_eq!(Message::response(100, "Trying", &request, "t").text("To"), "<sip:200@pbx>");
        assert_eq!(tag(Message::response(180, "Ringing", &request, "t").text("To")), Some("t"));
    }

    #[test]
    fn sdp_carries_address_port_and_preferred_codec_of_both_families() {
        for address in ["10.0.0.1:16384", "[2001:db8::1]:16386"] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(parse_sdp(&sdp(address, &[Law::A, Law::Mu], 1)), Some((address, Law::A)));
        }
    }
}
