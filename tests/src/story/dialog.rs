//! The words of one call: SIP requests and responses between a phone and a PBX.
//!
//! Texts only; when they are sent, and how often, is the scene's business.

use std::net::SocketAddr;

use crate::g711::Law;
use crate::sip::digest;
use crate::sip::message::{self, Message};

const REALM: &str = "pbx.example";
const PASSWORD: &str = "secret";

/// Both ends of a call, and what its messages have in common.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub(super) phone: SocketAddr,
    pub(super) pbx: SocketAddr,
    pub(super) phone_media: SocketAddr,
    pub(super) pbx_media: SocketAddr,
    pub(super) call_id: String,
    pub(super) user: String,
    pub(super) law: Law,
    /// `UDP` or `TCP`.
    pub(super) transport: &'static str,
    /// Offers have more lines than fit a frame.
    pub(super) large: bool,
    cseq: u32,
    pbx_cseq: u32,
    branches: u32,
}

impl Dialog {
    pub(super) fn new(
        phone: (SocketAddr, SocketAddr),
        pbx: (SocketAddr, SocketAddr),
        call_id: String,
    ) -> Self {
        Self {
            phone: phone.0,
            phone_media: phone.1,
            pbx: pbx.0,
            pbx_media: pbx.1,
            call_id,
            user: "1001".to_owned(),
            law: Law::Mu,
            transport: "UDP",
            large: false,
            cseq: 0,
            pbx_cseq: 100,
            branches: 0,
        }
    }

    /// A request of the phone, which begins a transaction of its own.
    pub(super) fn request(&mut self, method: &str) -> Message {
        self.cseq += 1;
        let to_tag = if matches!(method, "INVITE" | "REGISTER") && self.cseq < 3 { "" } else { ";tag=pbx" };
        let (cseq, branch) = (self.cseq, self.branch());
        self.of_phone(method, &branch, cseq, to_tag)
    }

    /// A request that is always the first: the same CSeq in another transaction.
    pub(super) fn first_request(&mut self, method: &str) -> Message {
        let branch = self.branch();
        self.of_phone(method, &branch, 1, "")
    }

    /// The offer: an INVITE with SDP. `direction` is an SDP attribute, like `sendonly`.
    pub(super) fn invite(&mut self, direction: &str) -> Message {
        self.request("INVITE").with_body("application/sdp", self.sdp(self.phone_media, direction))
    }

    /// The same request once more, with credentials; a new transaction.
    pub(super) fn authorized(&mut self, request: &Message, header: &str) -> Message {
        let method = request.method().unwrap_or_default().to_owned();
        let uri = self.uri();
        let response = digest::response(&self.user, REALM, PASSWORD, &method, &uri, &self.nonce());
        let credentials = format!(
            "Digest username=\"{}\",realm=\"{REALM}\",nonce=\"{}\",uri=\"{uri}\",response=\"{response}\"",
            self.user,
            self.nonce()
        );
        let again = self.request(&method).with(header, credentials);
        if request.body.is_empty() { again } else { again.with_body("application/sdp", request.body.clone()) }
    }

    /// 401 or 407.
    pub(super) fn challenge(&self, status: u16, request: &Message) -> Message {
        let (reason, header) = match status {
            401 => ("Unauthorized", "WWW-Authenticate"),
            _ => ("Proxy Authentication Required", "Proxy-Authenticate"),
        };
        let challenge = format!("Digest realm=\"{REALM}\",nonce=\"{}\",algorithm=MD5", self.nonce());
        Message::response(status, reason, request, "pbx").with(header, challenge)
    }

    /// A response without a body, of either side.
    pub(super) fn response(status: u16, reason: &str, request: &Message) -> Message {
        Message::response(status, reason, request, "pbx")
    }

    /// The answer: 200 with SDP.
    pub(super) fn answer(&self, request: &Message, direction: &str) -> Message {
        Message::response(200, "OK", request, "pbx")
            .with("Contact", format!("<sip:pbx@{}>", self.pbx))
            .with_body("application/sdp", self.sdp(self.pbx_media, direction))
    }

    /// The phone's ACK: of a refusal in the INVITE's own transaction, of a 2xx in a new one.
    pub(super) fn ack(&mut self, invite: &Message, refused: bool) -> Message {
        let branch = if refused {
            invite.text("Via").rsplit("branch=").next().unwrap_or_default().to_owned()
        } else {
            self.branch()
        };
        let cseq = invite.cseq().map_or(1, |(number, _)| number);
        self.of_phone("ACK", &branch, cseq, ";tag=pbx")
    }

    /// The transfer.
    pub(super) fn refer(&mut self) -> Message {
        self.request("REFER").with("Refer-To", format!("<sip:300@{}>", self.pbx))
    }

    /// The PBX on how a transfer goes, `100 Trying` or `200 OK`.
    pub(super) fn notify(&mut self, progress: &str) -> Message {
        self.pbx_cseq += 1;
        let state =
            if progress.starts_with('1') { "active;expires=60" } else { "terminated;reason=noresource" };
        let branch = self.branch();
        Message::request("NOTIFY", &format!("sip:{}@{}", self.user, self.phone))
            .with("Via", format!("SIP/2.0/{} {};branch={branch}", self.transport, self.pbx))
            .with("From", "<sip:200@pbx.example>;tag=pbx")
            .with("To", format!("<sip:{}@phone.example>;tag=phone", self.user))
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{} NOTIFY", self.pbx_cseq))
            .with("Event", "refer")
            .with("Subscription-State", state)
            .with_body("message/sipfrag", format!("SIP/2.0 {progress}\r\n"))
    }

    fn of_phone(&self, method: &str, branch: &str, cseq: u32, to_tag: &str) -> Message {
        Message::request(method, &self.uri())
            .with("Via", format!("SIP/2.0/{} {};branch={branch}", self.transport, self.phone))
            .with("From", format!("<sip:{}@phone.example>;tag=phone", self.user))
            .with("To", format!("<sip:200@pbx.example>{to_tag}"))
            .with("Call-ID", &self.call_id)
            .with("CSeq", format!("{cseq} {method}"))
            .with("Contact", format!("<sip:{}@{}>", self.user, self.phone))
    }

    fn uri(&self) -> String {
        format!("sip:200@{}", self.pbx)
    }

    fn nonce(&self) -> String {
        format!("{:x}", self.call_id.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)))
    }

    fn branch(&mut self) -> String {
        self.branches += 1;
        let call = self.call_id.split('@').next().unwrap_or_default();
        format!("z9hG4bK-{call}-{}", self.branches)
    }

    fn sdp(&self, at: SocketAddr, direction: &str) -> String {
        let session = u64::from(self.cseq);
        let sdp = message::sdp(at, &[self.law], session).replace("a=sendrecv", &format!("a={direction}"));
        if !self.large {
            return sdp;
        }
        let candidate = |number| {
            format!(
                "a=candidate:{number} 1 UDP {} 192.0.2.{number} {} typ host\r\n",
                2_130_706_431 - number,
                at.port()
            )
        };
        sdp + &(1..30).map(candidate).collect::<String>()
    }
}
