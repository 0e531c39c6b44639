//! The caller: one script from INVITE to BYE, run on the thread of its call.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::calls::{CallBook, CallPlan, CallRecord, CallState, CallTruth, DirectionTruth};
use crate::g711::Law;
use crate::link::bind_numbered;
use crate::media::{MediaEngine, Moment, PTIME, Talk, TalkId};
use crate::netns::Namespace;
use crate::random::Random;
use crate::sip::digest;
use crate::sip::message::{Message, host, parse_sdp, sdp};
use crate::sip::sipp;
use crate::topology::{pbx_address, phone_address};

/// RFC 3261, 17.1.1.1.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// Longer than any answer of the PBX takes on a busy machine, shorter than timer B: a fault shows soon.
const PATIENCE: Duration = Duration::from_secs(8);

/// One phone: its place, and what it needs to place a call.
#[derive(Clone, Copy, Debug)]
pub struct Phone<'a> {
    /// Where its sockets are made.
    pub namespace: &'a Namespace,
    /// Sends and receives its audio.
    pub engine: &'a MediaEngine,
    /// Where the PBX looks the call up.
    pub book: &'a CallBook,
    /// When set, calls end early.
    pub stop: &'a AtomicBool,
    /// sipp does the signalling.
    pub sipp: bool,
}

impl Phone<'_> {
    /// Places one call and returns what became of it.
    pub fn call(&self, plan: CallPlan) -> CallTruth {
        let call_id = plan.call_id();
        let (moments, inbox) = mpsc::channel();
        let record = Arc::new(CallRecord::new(plan, moments));
        self.book.enter(Arc::clone(&record));
        let mut truth = CallTruth {
            index: record.plan.index,
            call_id: call_id.clone(),
            state: CallState::Completed,
            authenticated: false,
            transferred: false,
            messages: 0,
            retransmissions: 0,
            directions: Vec::new(),
        };
        let mut own_talk = None;
        let outcome = if self.sipp {
            // Its scenario ends well only with credentials taken, the transfer's success told, the BYE answered.
            sipp::call(self, &record).map(|outcome| {
                let completed = outcome.state == CallState::Completed;
                truth.authenticated = completed && record.plan.authenticated;
                truth.transferred = completed && record.plan.transferred;
                own_talk = outcome.talk;
                outcome.state
            })
        } else {
            Dialog::open(self, &record, inbox).and_then(|dialog| dialog.run(&mut truth, &mut own_talk))
        };
        match outcome {
            Ok(state) => truth.state = state,
            Err(error) => truth.state = CallState::Failed(format!("{error:#}")),
        }
        self.book.strike(&call_id);
        truth.directions = self.close(&record, own_talk).unwrap_or_default();
        truth.messages = record.messages.load(Ordering::Relaxed);
        truth.retransmissions = record.retransmissions.load(Ordering::Relaxed);
        truth
    }

    /// Whether calls should end early.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Closes both talks at once: what one sent is held against what the other received.
    fn close(&self, record: &CallRecord, own: Option<(TalkId, SocketAddr)>) -> Option<Vec<DirectionTruth>> {
        let far = *record.pbx_talk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = own.map(|(id, address)| (self.engine.close(id), address));
        let far = far.map(|(id, address)| (self.engine.close(id), address));
        let ((Ok((sent, heard)), at), (Ok((far_sent, far_heard)), far_at)) = (own?, far?) else {
            return None;
        };
        Some(vec![
            DirectionTruth { src: at, dst: far_at, stream: sent, received: far_heard },
            DirectionTruth { src: far_at, dst: at, stream: far_sent, received: heard },
        ])
    }
}

/// One call's dialog, from the caller's side.
struct Dialog<'a> {
    phone: &'a Phone<'a>,
    record: &'a CallRecord,
    moments: Receiver<Moment>,
    socket: UdpSocket,
    own: SocketAddr,
    far: SocketAddr,
    random: Random,
    from: String,
    to: String,
    cseq: u32,
    /// NOTIFY told of the transfer's success.
    transferred: bool,
}

impl<'a> Dialog<'a> {
    fn open(phone: &'a Phone<'a>, record: &'a CallRecord, moments: Receiver<Moment>) -> Result<Self> {
        let plan = &record.plan;
        let own = SocketAddr::new(phone_address(plan.phone, plan.v6), 5060);
        let far = SocketAddr::new(pbx_address(plan.v6), 5060);
        let socket = phone.namespace.within(|| bind_numbered(own))??;
        socket.connect(far).with_context(|| format!("no route to {far}"))?;
        let mut random = Random::derived(plan.seed, 100);
        let from = format!("<sip:{}@{}>;tag={:08x}", plan.user(), host(own.ip()), random.next_u32());
        let to = format!("<sip:200@{}>", host(far.ip()));
        Ok(Self { phone, record, moments, socket, own, far, random, from, to, cseq: 0, transferred: false })
    }

    fn run(
        mut self,
        truth: &mut CallTruth,
        own_talk: &mut Option<(TalkId, SocketAddr)>,
    ) -> Result<CallState> {
        let plan = &self.record.plan;
        let media = SocketAddr::new(self.own.ip(), plan.phone_port());
        let (rtp, rtcp) = bind_pair(self.phone.namespace, media)?;

        let (offer, answer) = self.invite(media, truth)?;
        answer.text("To").clone_into(&mut self.to);
        let (far_media, _) = parse_sdp(&answer.body).context("the 200 has no usable SDP")?;
        self.acknowledge(&offer, &answer)?;
        let talk =
            Talk { plan: plan.stream(true), rtp, rtcp, to: far_media, moments: self.record.moments.clone() };
        *own_talk = Some((self.phone.engine.open(talk)?, media));

        let state = self.talk()?;
        truth.transferred = self.transferred;
        let bye = self.in_dialog("BYE");
        let answer = self.transact(&bye)?;
        if answer.status() != Some(200) {
            bail!("BYE was answered by {}", answer.start);
        }
        Ok(state)
    }

    /// INVITE until the 200, through a challenge if there is one.
    fn invite(&mut self, media: SocketAddr, truth: &mut CallTruth) -> Result<(Message, Message)> {
        let laws = if self.record.plan.law == Law::Mu { [Law::Mu, Law::A] } else { [Law::A, Law::Mu] };
        let session = u64::from(self.random.next_u32());
        let body = sdp(media, &laws, session);
        let invite = self.in_dialog("INVITE").with_body("application/sdp", body.clone());
        let answer = self.transact(&invite)?;
        if answer.status() != Some(407) {
            return accepted(invite, answer);
        }
        // The ACK of a failure belongs to the INVITE's transaction: same branch, same number.
        self.acknowledge(&invite, &answer)?;
        let credentials = self.credentials(&answer)?;
        let again = self
            .in_dialog("INVITE")
            .with("Proxy-Authorization", credentials)
            .with_body("application/sdp", body);
        let answer = self.transact(&again)?;
        truth.authenticated = answer.status() == Some(200);
        accepted(again, answer)
    }

    fn credentials(&self, challenge: &Message) -> Result<String> {
        let challenge = challenge.header("Proxy-Authenticate").context("a 407 without Proxy-Authenticate")?;
        let realm = digest::parameter(challenge, "realm").context("a challenge without realm")?;
        let nonce = digest::parameter(challenge, "nonce").context("a challenge without nonce")?;
        let (user, uri) = (self.record.plan.user(), self.uri());
        let response = digest::response(&user, realm, &password(&user), "INVITE", &uri, nonce);
        Ok(format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\", algorithm=MD5"
        ))
    }

    /// Until both directions have sent all, or the lab is stopped.
    fn talk(&mut self) -> Result<CallState> {
        let plan = &self.record.plan;
        let pause = plan.stream(true).pause.map(|pause| pause.length).unwrap_or_default();
        let deadline = Instant::now() + PTIME * plan.packets + pause + PATIENCE;
        let mut unfinished = 2;
        let mut referred = !plan.transferred;
        while unfinished > 0 || (plan.transferred && !self.transferred) {
            if self.phone.is_stopped() {
                return Ok(CallState::CutShort);
            }
            if Instant::now() > deadline {
                bail!("{unfinished} of 2 directions did not come to their end");
            }
            for moment in self.moments.try_iter().collect::<Vec<_>>() {
                match moment {
                    Moment::Sent => unfinished -= 1,
                    Moment::PauseNear if !referred => {
                        referred = true;
                        self.refer()?;
                    }
                    Moment::PauseNear => {}
                }
            }
            if let Some(message) = self.receive(Duration::from_millis(10))? {
                self.serve(&message)?;
            }
        }
        Ok(CallState::Completed)
    }

    fn refer(&mut self) -> Result<()> {
        let target = format!("<sip:300@{}>", host(self.far.ip()));
        let refer = self.in_dialog("REFER").with("Refer-To", target).with("Referred-By", &self.from);
        let answer = self.transact(&refer)?;
        if answer.status() != Some(202) {
            bail!("REFER was answered by {}", answer.start);
        }
        Ok(())
    }

    /// A request with the dialog's headers, a branch and a number of its own.
    fn in_dialog(&mut self, method: &str) -> Message {
        self.cseq += 1;
        self.numbered(method, self.cseq)
    }

    fn numbered(&mut self, method: &str, cseq: u32) -> Message {
        let branch = format!("z9hG4bK{:016x}", self.random.next_u64());
        self.with_branch(method, cseq, &branch)
    }

    fn with_branch(&self, method: &str, cseq: u32, branch: &str) -> Message {
        let host = host(self.own.ip());
        Message::request(method, &self.uri())
            .with("Via", format!("SIP/2.0/UDP {host}:5060;branch={branch}"))
            .with("From", &self.from)
            .with("To", &self.to)
            .with("Call-ID", self.record.plan.call_id())
            .with("CSeq", format!("{cseq} {method}"))
            .with("Contact", format!("<sip:{}@{host}:5060>", self.record.plan.user()))
            .with("User-Agent", "voxlab phone")
    }

    fn uri(&self) -> String {
        format!("sip:200@{}:5060", host(self.far.ip()))
    }

    fn acknowledge(&mut self, invite: &Message, answer: &Message) -> Result<()> {
        let (cseq, _) = invite.cseq().context("our INVITE has a number")?;
        let mut ack = if answer.status() == Some(200) {
            self.numbered("ACK", cseq)
        } else {
            let branch = invite.text("Via").rsplit_once("branch=").map(|(_, branch)| branch.to_owned());
            self.with_branch("ACK", cseq, &branch.context("our INVITE has a branch")?)
        };
        ack.replace("To", answer.text("To"));
        self.send(&ack, false)
    }

    /// Sends a request until it is answered finally; serves what arrives meanwhile.
    fn transact(&mut self, request: &Message) -> Result<Message> {
        let expected = request.cseq().context("our requests have numbers")?;
        let is_invite = expected.1 == "INVITE";
        self.send(request, false)?;
        let started = Instant::now();
        let mut interval = T1;
        let mut again = Some(started + interval);
        while started.elapsed() < PATIENCE {
            if again.is_some_and(|time| Instant::now() >= time) {
                self.send(request, true)?;
                interval = if is_invite { interval * 2 } else { (interval * 2).min(T2) };
                again = Some(Instant::now() + interval);
            }
            let Some(message) = self.receive(Duration::from_millis(10))? else { continue };
            match message.status() {
                None => self.serve(&message)?,
                Some(_) if message.cseq() != Some(expected) => self.late_answer(request, &message)?,
                Some(100..=199) => {
                    // Timer A stops; E goes on at its slowest.
                    again = if is_invite { None } else { Some(Instant::now() + T2) };
                }
                Some(_) => return Ok(message),
            }
        }
        bail!("no final answer to {} within {PATIENCE:?}", expected.1)
    }

    /// A response to an earlier request: a 200 to INVITE that came again wants its ACK again.
    fn late_answer(&mut self, current: &Message, answer: &Message) -> Result<()> {
        let repeated =
            answer.status() == Some(200) && answer.cseq().is_some_and(|(_, method)| method == "INVITE");
        if repeated && current.method() != Some("INVITE") {
            let (cseq, _) = answer.cseq().context("it was just read")?;
            let ack = self.numbered("ACK", cseq);
            self.send(&ack, true)?;
        }
        Ok(())
    }

    /// Answers a request of the PBX: NOTIFY, or the odd one out.
    fn serve(&mut self, request: &Message) -> Result<()> {
        let Some(method) = request.method() else { return Ok(()) };
        if method == "NOTIFY" && request.body.starts_with("SIP/2.0 200") {
            self.transferred = true;
        }
        let response = match method {
            "NOTIFY" => Message::response(200, "OK", request, ""),
            _ => Message::response(501, "Not Implemented", request, ""),
        };
        self.send(&response, false)
    }

    fn send(&self, message: &Message, again: bool) -> Result<()> {
        self.socket
            .send(message.to_string().as_bytes())
            .with_context(|| format!("cannot send {}", message.start))?;
        self.record.sent(again);
        Ok(())
    }

    fn receive(&self, patience: Duration) -> Result<Option<Message>> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(patience)).context("cannot bound the wait for SIP")?;
        match self.socket.recv(&mut buffer) {
            // A message of an earlier call from this phone may still be on its way.
            Ok(length) => Ok(Message::parse(&buffer[..length])
                .filter(|message| message.header("Call-ID") == Some(&self.record.plan.call_id()))),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error).context("cannot receive SIP"),
        }
    }
}

fn accepted(invite: Message, answer: Message) -> Result<(Message, Message)> {
    if answer.status() != Some(200) {
        bail!("INVITE was answered by {}", answer.start);
    }
    Ok((invite, answer))
}

/// What the lab's users have for a password.
pub(super) fn password(user: &str) -> String {
    format!("secret-{user}")
}

/// An RTP port and the RTCP port after it.
pub(super) fn bind_pair(namespace: &Namespace, rtp: SocketAddr) -> Result<(UdpSocket, UdpSocket)> {
    let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
    namespace.within(|| Ok((bind_numbered(rtp)?, bind_numbered(rtcp)?)))?
}
