//! The answering side: reacts to what arrives, and to its own clock.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::calls::{CallBook, CallRecord, TRANSFER_PAUSE};
use crate::link::bind_numbered;
use crate::media::{MediaEngine, Talk};
use crate::netns::Namespace;
use crate::random::Random;
use crate::sip::digest;
use crate::sip::message::{Message, host, parse_sdp, sdp, tag};
use crate::sip::phone::{bind_pair, password};
use crate::topology::pbx_address;

const REALM: &str = "voxlab";

const RING_AFTER: Duration = Duration::from_millis(40);
const ANSWER_AFTER: Duration = Duration::from_millis(300);
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);

/// Before the audio returns, as a transferor that reports success before it reconnects.
const TRANSFERRED_AFTER: Duration = TRANSFER_PAUSE.saturating_sub(Duration::from_millis(100));

/// Serves both address families until dropped.
#[derive(Debug)]
pub struct Pbx {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pbx {
    /// Starts to listen.
    pub fn start(namespace: &Arc<Namespace>, engine: &MediaEngine, book: &CallBook) -> Result<Self> {
        let mut pbx = Self { stop: Arc::default(), threads: Vec::new() };
        for v6 in [false, true] {
            let own = SocketAddr::new(pbx_address(v6), 5060);
            let socket = namespace.within(|| bind_numbered(own))??;
            let server = Server {
                namespace: Arc::clone(namespace),
                engine: engine.clone(),
                book: book.clone(),
                socket,
                own,
                dialogs: HashMap::new(),
                due: BinaryHeap::new(),
            };
            let stop = Arc::clone(&pbx.stop);
            let thread = thread::Builder::new().name("pbx".to_owned()).spawn(move || server.run(&stop));
            pbx.threads.push(thread.context("cannot start the PBX's thread")?);
        }
        Ok(pbx)
    }
}

impl Drop for Pbx {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What the clock makes the PBX do in a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Ring,
    Answer,
    /// The 200 again, until its ACK; the interval that has passed.
    AnswerAgain(Duration),
    NotifyTrying,
    NotifyDone,
}

struct Dialog {
    record: Arc<CallRecord>,
    peer: SocketAddr,
    invite: Message,
    tag: String,
    random: Random,
    cseq: u32,
    /// Each transaction's latest response, for a request that comes again.
    answered: HashMap<(u32, String), Message>,
    media: Option<(UdpSocket, UdpSocket)>,
    acknowledged: bool,
    ended: bool,
}

struct Server {
    namespace: Arc<Namespace>,
    engine: MediaEngine,
    book: CallBook,
    socket: UdpSocket,
    own: SocketAddr,
    dialogs: HashMap<String, Dialog>,
    due: BinaryHeap<Reverse<(Instant, String, Act)>>,
}

impl Server {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = [0; 4096];
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            while self.due.peek().is_some_and(|Reverse((time, ..))| *time <= now) {
                if let Some(Reverse((_, call_id, act))) = self.due.pop() {
                    self.act(&call_id, act);
                }
            }
            self.dialogs.retain(|call_id, _| self.book.find(call_id).is_some());
            let next = self.due.peek().map(|Reverse((time, ..))| time.saturating_duration_since(now));
            let patience = next.unwrap_or(T1).clamp(Duration::from_millis(1), Duration::from_millis(100));
            if self.socket.set_read_timeout(Some(patience)).is_err() {
                return;
            }
            match self.socket.recv_from(&mut buffer) {
                Ok((length, peer)) => {
                    if let Some(message) = Message::parse(&buffer[..length]) {
                        self.receive(&message, peer);
                    }
                }
                // Refused: a phone that has gone; the next message is another's.
                Err(error) => {
                    if !matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
                    ) {
                        return;
                    }
                }
            }
        }
    }

    fn receive(&mut self, message: &Message, peer: SocketAddr) {
        let Some(method) = message.method().map(str::to_owned) else { return };
        let Some(call_id) = message.header("Call-ID").map(str::to_owned) else { return };
        let Some(cseq) = message.cseq().map(|(number, _)| number) else { return };
        if let Some(dialog) = self.dialogs.get(&call_id) {
            if let Some(answer) = dialog.answered.get(&(cseq, method.clone())) {
                self.send(dialog, answer, true);
                return;
            }
        } else {
            let Some(record) = self.book.find(&call_id) else { return };
            let mut random = Random::derived(record.plan.seed, 200);
            let tag = format!("{:08x}", random.next_u32());
            let dialog = Dialog {
                record,
                peer,
                invite: message.clone(),
                tag,
                random,
                cseq: 0,
                answered: HashMap::new(),
                media: None,
                acknowledged: false,
                ended: false,
            };
            self.dialogs.insert(call_id.clone(), dialog);
        }
        match method.as_str() {
            "INVITE" => self.invited(&call_id, message),
            "ACK" => self.acknowledged(&call_id, cseq),
            "REFER" => {
                self.answer(&call_id, message, 202, "Accepted");
                self.schedule(&call_id, Duration::from_millis(5), Act::NotifyTrying);
                self.schedule(&call_id, TRANSFERRED_AFTER, Act::NotifyDone);
            }
            "BYE" => {
                self.answer(&call_id, message, 200, "OK");
                if let Some(dialog) = self.dialogs.get_mut(&call_id) {
                    dialog.ended = true;
                }
            }
            _ => self.answer(&call_id, message, 501, "Not Implemented"),
        }
    }

    fn invited(&mut self, call_id: &str, invite: &Message) {
        let Some(dialog) = self.dialogs.get_mut(call_id) else { return };
        dialog.invite = invite.clone();
        if dialog.record.plan.authenticated && !has_credentials(invite, &dialog.record) {
            let nonce = format!("{:016x}", dialog.random.next_u64());
            let challenge = Message::response(407, "Proxy Authentication Required", invite, &dialog.tag)
                .with(
                    "Proxy-Authenticate",
                    format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\", algorithm=MD5"),
                );
            self.remember_and_send(call_id, invite, challenge);
            return;
        }
        self.answer(call_id, invite, 100, "Trying");
        self.schedule(call_id, RING_AFTER, Act::Ring);
        self.schedule(call_id, ANSWER_AFTER, Act::Answer);
    }

    fn acknowledged(&mut self, call_id: &str, cseq: u32) {
        let Some(dialog) = self.dialogs.get_mut(call_id) else { return };
        let answered = dialog.answered.get(&(cseq, "INVITE".to_owned())).and_then(Message::status);
        if answered != Some(200) {
            return;
        }
        dialog.acknowledged = true;
        let Some((rtp, rtcp)) = dialog.media.take() else { return };
        let Some((to, _)) = parse_sdp(&dialog.invite.body) else { return };
        let talk = Talk {
            plan: dialog.record.plan.stream(false),
            rtp,
            rtcp,
            to,
            moments: dialog.record.moments.clone(),
        };
        if let Ok(id) = self.engine.open(talk) {
            let at = SocketAddr::new(self.own.ip(), dialog.record.plan.pbx_port());
            *dialog.record.pbx_talk.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                Some((id, at));
        }
    }

    fn act(&mut self, call_id: &str, act: Act) {
        let Some(dialog) = self.dialogs.get_mut(call_id) else { return };
        let invite = dialog.invite.clone();
        match act {
            Act::Ring => self.answer(call_id, &invite, 180, "Ringing"),
            Act::Answer => {
                let at = SocketAddr::new(self.own.ip(), dialog.record.plan.pbx_port());
                let Ok(media) = bind_pair(&self.namespace, at) else {
                    self.answer(call_id, &invite, 500, "No Media Port");
                    return;
                };
                dialog.media = Some(media);
                let body = sdp(at, &[dialog.record.plan.law], u64::from(dialog.random.next_u32()));
                let answer = Message::response(200, "OK", &invite, &dialog.tag)
                    .with("Contact", format!("<sip:200@{}:5060>", host(self.own.ip())))
                    .with_body("application/sdp", body);
                self.remember_and_send(call_id, &invite, answer);
                self.schedule(call_id, T1, Act::AnswerAgain(T1));
            }
            Act::AnswerAgain(interval) => {
                if dialog.acknowledged || dialog.ended {
                    return;
                }
                let key = invite.cseq().map(|(number, method)| (number, method.to_owned()));
                let answer = key.and_then(|key| dialog.answered.get(&key).cloned());
                if let (Some(dialog), Some(answer)) = (self.dialogs.get(call_id), answer) {
                    self.send(dialog, &answer, true);
                    let interval = (interval * 2).min(T2);
                    self.schedule(call_id, interval, Act::AnswerAgain(interval));
                }
            }
            Act::NotifyTrying => self.notify(call_id, "SIP/2.0 100 Trying\r\n", "active;expires=60"),
            Act::NotifyDone => self.notify(call_id, "SIP/2.0 200 OK\r\n", "terminated;reason=noresource"),
        }
    }

    /// NOTIFY of a transfer's progress (RFC 3515, 2.4.4). Sent once: the phone is near, and the lab loses no SIP.
    fn notify(&mut self, call_id: &str, sipfrag: &str, state: &str) {
        let own = host(self.own.ip());
        let Some(dialog) = self.dialogs.get_mut(call_id) else { return };
        if dialog.ended {
            return;
        }
        dialog.cseq += 1;
        let to = dialog.invite.text("From").to_owned();
        let from = format!("{};tag={}", dialog.invite.text("To"), dialog.tag);
        debug_assert!(tag(&to).is_some(), "a dialog's peer is tagged");
        let branch = format!("z9hG4bK{:016x}", dialog.random.next_u64());
        let target = format!("sip:{}@{}:5060", dialog.record.plan.user(), host(dialog.peer.ip()));
        let notify = Message::request("NOTIFY", &target)
            .with("Via", format!("SIP/2.0/UDP {own}:5060;branch={branch}"))
            .with("From", from)
            .with("To", to)
            .with("Call-ID", call_id)
            .with("CSeq", format!("{} NOTIFY", dialog.cseq))
            .with("Contact", format!("<sip:200@{own}:5060>"))
            .with("Event", "refer")
            .with("Subscription-State", state)
            .with_body("message/sipfrag;version=2.0", sipfrag.to_owned());
        if let Some(dialog) = self.dialogs.get(call_id) {
            self.send(dialog, &notify, false);
        }
    }

    fn answer(&mut self, call_id: &str, request: &Message, status: u16, reason: &str) {
        let Some(dialog) = self.dialogs.get(call_id) else { return };
        let response = Message::response(status, reason, request, &dialog.tag);
        self.remember_and_send(call_id, request, response);
    }

    fn remember_and_send(&mut self, call_id: &str, request: &Message, response: Message) {
        let Some((number, method)) = request.cseq().map(|(number, method)| (number, method.to_owned()))
        else {
            return;
        };
        if let Some(dialog) = self.dialogs.get(call_id) {
            self.send(dialog, &response, false);
        }
        if let Some(dialog) = self.dialogs.get_mut(call_id) {
            dialog.answered.insert((number, method), response);
        }
    }

    fn send(&self, dialog: &Dialog, message: &Message, again: bool) {
        // Counted first: the phone may have read the count by the time that sending returns.
        dialog.record.sent(again);
        // A phone that is gone is the call's failure, which the phone's side reports.
        let _ = self.socket.send_to(message.to_string().as_bytes(), dialog.peer);
    }

    fn schedule(&mut self, call_id: &str, after: Duration, act: Act) {
        self.due.push(Reverse((Instant::now() + after, call_id.to_owned(), act)));
    }
}

/// Whether the INVITE carries the digest that its user's password gives.
fn has_credentials(invite: &Message, record: &CallRecord) -> bool {
    let user = record.plan.user();
    let Some(given) = invite.header("Proxy-Authorization") else { return false };
    let parameter = |name| digest::parameter(given, name).unwrap_or_default();
    let (uri, nonce) = (parameter("uri"), parameter("nonce"));
    parameter("response") == digest::response(&user, REALM, &password(&user), "INVITE", uri, nonce)
}
