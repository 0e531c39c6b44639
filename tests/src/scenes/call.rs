//! A call between two parties, message by message (RFC 3261), and the figures that follow from what was said when.
//!
//! ```text
//!   caller ──INVITE──▶ proxy ──INVITE──▶ called      each proxy adds its Via, and stays on the path by Record-Route
//!          ◀──180───         ◀──180────
//! ```
//!
//! A message is returned as its receiver got it, which is what an answer is made from. Times count where a message is
//! sent first.

use super::party::Party;
use super::sdp::Sdp;
use super::stage::{MS, Stage};
use crate::sip::message::{Message, tag};

/// Between two hops.
const HOP_NS: u64 = 2 * MS;

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sent the first INVITE.
    Caller,
    /// Received it.
    Called,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Called => "called",
        }
    }
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its number in the scene.
    pub index: usize,
    /// Its Call-ID.
    pub id: String,
    /// Who calls.
    pub caller: Party,
    /// Who is called.
    pub called: Party,
    /// Tag of the caller.
    pub caller_tag: String,
    /// Tag of the called.
    pub called_tag: String,
    proxies: Vec<Party>,
    cseq: [u32; 2],
    branches: u32,
    is_dialog: bool,
    invite: Option<Message>,
    invited_ns: u64,
    rang_ns: Option<u64>,
    answered_ns: Option<u64>,
}

impl Call {
    /// A call to be; nothing is sent yet.
    pub fn new(stage: &mut Stage, caller: &Party, called: &Party) -> Self {
        let id = format!("{}@{}", stage.word(), caller.sip.ip());
        let index = stage.add_call(&id);
        Self {
            index,
            id,
            caller: caller.clone(),
            called: called.clone(),
            caller_tag: stage.word(),
            called_tag: stage.word(),
            proxies: Vec::new(),
            cseq: [0, 900],
            branches: 0,
            is_dialog: false,
            invite: None,
            invited_ns: 0,
            rang_ns: None,
            answered_ns: None,
        }
    }

    /// A registration, a ping or the like between the same: no call.
    pub fn outside(stage: &mut Stage, caller: &Party, called: &Party) -> Self {
        let (scene, truth) = (stage.scene.calls.len(), stage.truth.calls.len());
        let call = Self::new(stage, caller, called);
        stage.scene.calls.truncate(scene);
        stage.truth.calls.truncate(truth);
        call
    }

    /// Through these proxies, from the caller on.
    #[must_use]
    pub fn through(self, proxies: &[Party]) -> Self {
        Self { proxies: proxies.to_vec(), ..self }
    }

    /// The same dialog seen anew: another user agent answers.
    #[must_use]
    pub fn with_called(&self, called: &Party, tag: &str) -> Self {
        Self { called: called.clone(), called_tag: tag.to_owned(), ..self.clone() }
    }

    /// Goes on directly with the user agent of this branch of the call.
    pub fn settle(&mut self, branch: &Self) {
        self.called = branch.called.clone();
        self.called_tag.clone_from(&branch.called_tag);
        self.is_dialog = true;
    }

    /// It began before the capture did.
    #[must_use]
    pub fn in_progress(self) -> Self {
        Self { is_dialog: true, cseq: [4, 900], ..self }
    }

    /// Another call between the same, with the same Call-ID.
    #[must_use]
    pub fn again(&self, stage: &mut Stage) -> Self {
        let index = stage.add_call(&self.id);
        let mut again = Self::outside(stage, &self.caller, &self.called);
        (again.index, again.id) = (index, self.id.clone());
        again
    }

    /// When it was answered.
    ///
    /// # Panics
    /// If it was not: the scene is wrong.
    pub fn answered_ns(&self) -> u64 {
        self.answered_ns.expect("the call was answered")
    }

    /// A request of one side.
    pub fn request(&mut self, side: Side, method: &str) -> Message {
        let place = usize::from(side == Side::Called);
        self.cseq[place] += 1;
        let cseq = self.cseq[place];
        let branch = self.branch();
        self.request_as(side, method, cseq, &branch)
    }

    fn branch(&mut self) -> String {
        self.branches += 1;
        // Tags tell the branches of dialogs apart that share a Call-ID.
        format!("z9hG4bK{}{}{}", self.caller_tag, self.called_tag, self.branches)
    }

    fn request_as(&self, side: Side, method: &str, cseq: u32, branch: &str) -> Message {
        let (from, to) = match side {
            Side::Caller => (&self.caller, &self.called),
            Side::Called => (&self.called, &self.caller),
        };
        let (from_tag, to_tag) = match side {
            Side::Caller => (&self.caller_tag, &self.called_tag),
            Side::Called => (&self.called_tag, &self.caller_tag),
        };
        let to_tag = if self.is_dialog { format!(";tag={to_tag}") } else { String::new() };
        let mut request = Message::request(method, &to.uri())
            .with("Via", format!("{};branch={branch};rport", from.via()))
            .with("From", format!("<sip:{}@{}>;tag={from_tag}", from.user, from.sip.ip()))
            .with("To", format!("<sip:{}@{}>{to_tag}", to.user, to.sip.ip()))
            .with("Call-ID", &self.id)
            .with("CSeq", format!("{cseq} {method}"))
            .with("Contact", format!("<{}>", from.uri()));
        if self.is_dialog {
            for proxy in self.path(side) {
                request = request.with("Route", format!("<sip:{};lr>", proxy.sip));
            }
        }
        request
    }

    fn path(&self, side: Side) -> Vec<Party> {
        let mut path = self.proxies.clone();
        if side == Side::Called {
            path.reverse();
        }
        path
    }

    /// Sends a message along the path; as it arrives, and where it was first sent.
    pub fn send(&self, stage: &mut Stage, side: Side, message: &Message) -> (Message, usize) {
        let (from, to) = match side {
            Side::Caller => (&self.caller, &self.called),
            Side::Called => (&self.called, &self.caller),
        };
        let is_request = message.status().is_none();
        let mut stops = vec![from.clone()];
        stops.extend(self.path(side));
        stops.push(to.clone());
        let mut message = message.clone();
        let mut first = None;
        for hop in stops.windows(2) {
            let [here, next] = hop else { continue };
            if first.is_some() {
                stage.now_ns += HOP_NS;
                message = if is_request { forwarded(&message, here) } else { message.without_first("Via") };
            }
            let sent = stage.say(here, next, &message);
            first = first.or(Some(sent));
        }
        (message, first.unwrap_or_default())
    }

    /// The first INVITE, or the same once more with another CSeq; as it arrives.
    pub fn invite(&mut self, stage: &mut Stage, offer: Option<&Sdp>) -> Message {
        let invite = self.request(Side::Caller, "INVITE");
        self.invite_with(stage, &with_sdp(invite, offer)).0
    }

    /// This first INVITE.
    pub fn invite_with(&mut self, stage: &mut Stage, invite: &Message) -> (Message, usize) {
        self.begin(stage, invite);
        self.send(stage, Side::Caller, invite)
    }

    /// An INVITE of the caller is sent now, by other means.
    pub fn begin(&mut self, stage: &mut Stage, invite: &Message) {
        let truth = stage.call(self.index);
        if truth.state.is_empty() {
            truth.state = "inviting";
            self.invited_ns = stage.now_ns;
        }
        self.invite = Some(invite.clone());
    }

    /// A response to a request as it arrived, of whoever got it.
    pub fn response(&self, request: &Message, code: u16, reason: &str) -> Message {
        let (user, tag) = match self.answering(request) {
            Side::Called => (&self.called, &self.called_tag),
            Side::Caller => (&self.caller, &self.caller_tag),
        };
        let response = Message::response(code, reason, request, tag);
        if (101..300).contains(&code) {
            response.with("Contact", format!("<{}>", user.uri()))
        } else {
            response
        }
    }

    fn answering(&self, request: &Message) -> Side {
        if tag(request.text("From")) == Some(&self.caller_tag) { Side::Called } else { Side::Caller }
    }

    /// Sends such a response.
    pub fn respond(&mut self, stage: &mut Stage, request: &Message, response: &Message) -> usize {
        let side = self.answering(request);
        let code = response.status().unwrap_or_default();
        if response.cseq().is_some_and(|(_, method)| method == "INVITE") && side == Side::Called {
            self.heard(stage, code, response);
        }
        self.send(stage, side, response).1
    }

    /// A response without a body.
    pub fn reply(&mut self, stage: &mut Stage, request: &Message, code: u16, reason: &str) -> usize {
        let response = self.response(request, code, reason);
        self.respond(stage, request, &response)
    }

    /// A response with SDP.
    pub fn reply_sdp(&mut self, stage: &mut Stage, request: &Message, code: u16, sdp: &Sdp) -> usize {
        let reason = if code == 200 { "OK" } else { "Session Progress" };
        let response = with_sdp(self.response(request, code, reason), Some(sdp));
        self.respond(stage, request, &response)
    }

    /// A response to the caller's INVITE is first seen now, and sent by other means.
    pub fn note(&mut self, stage: &mut Stage, response: &Message) {
        self.heard(stage, response.status().unwrap_or_default(), response);
    }

    /// The figures that a response to an INVITE of the caller makes.
    fn heard(&mut self, stage: &mut Stage, code: u16, response: &Message) {
        if self.answered_ns.is_some() {
            return;
        }
        let since = |from_ns: u64| (stage.now_ns - from_ns) as f64 / 1e6;
        let (setup, rang) = (since(self.invited_ns), self.rang_ns.map(since));
        let now_ns = stage.now_ns;
        let truth = stage.call(self.index);
        match code {
            101..=199 => {
                truth.ringing_ms.get_or_insert(setup);
                truth.state = "ringing";
                truth.early_media |= !response.body.is_empty();
                self.is_dialog = true;
                if (180..190).contains(&code) {
                    self.rang_ns.get_or_insert(now_ns);
                }
            }
            200..=299 => {
                truth.state = "answered";
                truth.setup_ms = Some(setup);
                truth.rang_ms = rang;
                self.is_dialog = true;
                self.answered_ns = Some(now_ns);
            }
            401 | 407 => {
                truth.state = "challenged";
                truth.auth_challenges += 1;
            }
            300.. => {
                truth.state = if code == 487 { "cancelled" } else { "failed" };
                truth.final_code = Some(code);
                truth.rang_ms = rang;
            }
            _ => {}
        }
    }

    /// The caller's ACK: of a refusal in the INVITE's own transaction, of a 2xx in one of its own.
    ///
    /// # Panics
    /// If nobody was invited.
    pub fn ack(&mut self, stage: &mut Stage, accepted: bool, sdp: Option<&Sdp>) {
        let ack = if accepted { self.ack_message() } else { self.ack_of_refusal() };
        self.send(stage, Side::Caller, &with_sdp(ack, sdp));
    }

    /// The caller's ACK of a 2xx.
    ///
    /// # Panics
    /// If nobody was invited.
    pub fn ack_message(&mut self) -> Message {
        let (cseq, branch) = (self.invite_number(), self.branch());
        self.request_as(Side::Caller, "ACK", cseq, &branch)
    }

    fn ack_of_refusal(&self) -> Message {
        let invite = self.invite.as_ref().expect("there was an INVITE");
        self.request_as(Side::Caller, "ACK", self.invite_number(), branch_of(invite))
    }

    fn invite_number(&self) -> u32 {
        let invite = self.invite.as_ref().expect("there was an INVITE");
        invite.cseq().map_or(1, |(number, _)| number)
    }

    /// The caller's ACK of a refusal that a proxy sent on, to that proxy.
    ///
    /// # Panics
    /// If nobody was invited.
    pub fn ack_hop(&self, stage: &mut Stage, proxy: &Party) {
        stage.say(&self.caller, proxy, &self.ack_of_refusal());
    }

    /// The ACK of a refusal of this INVITE within the call.
    pub fn ack_refused(&self, stage: &mut Stage, side: Side, invite: &Message) {
        let cseq = invite.cseq().map_or(1, |(number, _)| number);
        let ack = self.request_as(side, "ACK", cseq, branch_of(invite));
        self.send(stage, side, &ack);
    }

    /// The caller gives up: CANCEL and its 200.
    ///
    /// # Panics
    /// If nobody was invited.
    pub fn cancel(&mut self, stage: &mut Stage) {
        let invite = self.invite.clone().expect("there was an INVITE");
        let is_dialog = std::mem::replace(&mut self.is_dialog, false);
        let cancel = self.request_as(Side::Caller, "CANCEL", self.invite_number(), branch_of(&invite));
        self.is_dialog = is_dialog;
        let (cancel, _) = self.send(stage, Side::Caller, &cancel);
        stage.wait(4);
        self.reply(stage, &cancel, 200, "OK");
    }

    /// A request within the call and its answer, 12 ms apart.
    pub fn transact(&mut self, stage: &mut Stage, side: Side, request: &Message, code: u16, reason: &str) {
        let (request, _) = self.send(stage, side, request);
        stage.wait(12);
        self.reply(stage, &request, code, reason);
        stage.wait(3);
    }

    /// INVITE within the call, answered and acknowledged.
    pub fn reinvite(&mut self, stage: &mut Stage, side: Side, offer: &Sdp, answer: &Sdp) {
        stage.call(self.index).reinvites += 1;
        let invite = with_sdp(self.request(side, "INVITE"), Some(offer));
        let (arrived, _) = self.send(stage, side, &invite);
        stage.wait(15);
        self.reply_sdp(stage, &arrived, 200, answer);
        stage.wait(8);
        let cseq = invite.cseq().map_or(1, |(number, _)| number);
        let branch = self.branch();
        let ack = self.request_as(side, "ACK", cseq, &branch);
        self.send(stage, side, &ack);
    }

    /// The ordinary beginning: 100, ringing for a time, answer, ACK.
    pub fn set_up(&mut self, stage: &mut Stage, offer: &Sdp, answer: &Sdp, ring_ms: u64) {
        let invite = self.invite(stage, Some(offer));
        stage.wait(9);
        self.trying(stage, &invite);
        stage.wait(40);
        self.reply(stage, &invite, 180, "Ringing");
        stage.wait(ring_ms);
        self.reply_sdp(stage, &invite, 200, answer);
        stage.wait(11);
        self.ack(stage, true, None);
    }

    /// 100, which belongs to a hop: of whoever the caller's INVITE reached first.
    pub fn trying(&mut self, stage: &mut Stage, _invite: &Message) {
        let Some(invite) = self.invite.clone() else { return };
        let next = self.proxies.first().unwrap_or(&self.called).clone();
        let trying = Message::response(100, "Trying", &invite, "");
        stage.say(&next, &self.caller.clone(), &trying);
    }

    /// One side hangs up, and the other agrees.
    pub fn hang_up(&mut self, stage: &mut Stage, side: Side) {
        let bye = self.request(side, "BYE");
        self.hang_up_with(stage, side, &bye);
    }

    /// The same with this BYE.
    pub fn hang_up_with(&mut self, stage: &mut Stage, side: Side, bye: &Message) {
        self.ends(stage, side);
        self.transact(stage, side, bye, 200, "OK");
    }

    /// One side's BYE is sent now, by whatever means.
    pub fn ends(&self, stage: &mut Stage, side: Side) {
        let talked = self.answered_ns.map(|answered| (stage.now_ns - answered) as f64 / 1e6);
        let truth = stage.call(self.index);
        (truth.state, truth.ended_by, truth.talked_ms) = ("ended", Some(side.word()), talked);
    }
}

/// With SDP as its body, if there is some.
pub fn with_sdp(message: Message, sdp: Option<&Sdp>) -> Message {
    match sdp {
        Some(sdp) => message.with_body("application/sdp", sdp.text()),
        None => message,
    }
}

/// As a proxy sends it on (RFC 3261, 16.6).
pub fn forwarded(request: &Message, proxy: &Party) -> Message {
    let mut request = request.clone();
    let via = request.text("Via").to_owned();
    let branch = branch_of(&request).to_owned();
    let hops: u32 = request.text("Max-Forwards").parse().unwrap_or(70);
    request.replace("Max-Forwards", &(hops - 1).to_string());
    debug_assert!(via.contains("branch="), "{via}");
    let request = request.without_first("Route").on_top("Via", format!("{};branch={branch}p", proxy.via()));
    if request.method() == Some("INVITE") && tag(request.text("To")).is_none() {
        return request.on_top("Record-Route", format!("<sip:{};lr>", proxy.sip));
    }
    request
}

fn branch_of(request: &Message) -> &str {
    request.text("Via").split(';').find_map(|part| part.strip_prefix("branch=")).unwrap_or_default()
}
