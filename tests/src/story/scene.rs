//! What is really sent: calls with their signalling and audio, each transmission once, before anybody captures it.
//!
//! ```text
//!   INVITE 407 ACK INVITE 100 180 200 ACK │ audio both ways … hold … REFER 202 NOTIFY … │ BYE 200
//!      └ 500 ms without an answer: sent again by timer A, with another IP ID
//! ```
//!
//! All that is random comes from the plan's seed, and each call and stream draws from a sequence of its own: a
//! switch that adds retransmissions does not change the losses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use super::dialog::Dialog;
use crate::frames::{Datagram, rtp, tcp, udp};
use crate::g711::{self, Law};
use crate::random::Random;
use crate::segments::{Connection, From};
use crate::sip::message::Message;

const MS: u64 = 1_000_000;
const PTIME_NS: u64 = 20 * MS;
const SAMPLES: u32 = 160;
/// The silence of a transfer: the story's.
const TRANSFER_PAUSE_NS: u64 = 1_790 * MS;
/// The silence of a hold.
const HOLD_PAUSE_NS: u64 = 1_200 * MS;
/// Sends of timers A, G and of 2xx, after the first, in units of T1.
const DOUBLING: [u64; 3] = [1, 3, 7];
/// How much too late a timer fires at most.
const TIMER_SLACK_NS: u64 = 8 * MS;

/// What a scene consists of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a generator")]
pub struct Plan {
    /// What all that is random comes from.
    pub seed: u64,
    /// Calls, one after the other but overlapping.
    pub calls: u32,
    /// RTP packets of each direction of a call, of 20 ms.
    pub packets: u32,
    /// A packet is late by up to this, in milliseconds, all equally likely.
    pub jitter_ms: f64,
    /// Share of packets that are lost before anybody captures them, in percent.
    pub loss_percent: f64,
    /// Share of packets that come after the next one, in percent.
    pub reorder_percent: f64,
    /// Answers that are late, so that timers A, E, G and those of 2xx run out.
    pub retransmissions: bool,
    /// Each call is challenged (407), and its phone registers before (401).
    pub auth: bool,
    /// Each call is transferred (REFER), with a pause of 1.79 s.
    pub transfer: bool,
    /// Each call is held for 1.2 s (re-INVITE).
    pub hold: bool,
    /// A telephone event in each stream (RFC 4733).
    pub dtmf: bool,
    /// Over IPv6.
    pub ipv6: bool,
    /// The timer T1 of both ends in milliseconds; RFC 3261's is 500.
    pub t1_ms: u64,
    /// Offers that are too long for one Ethernet frame, and so are fragmented.
    pub large: bool,
    /// Tries of somebody who guesses passwords: one Call-ID and CSeq, each time another branch, each time a 401.
    pub guesses: u32,
    /// Signalling over TCP; with `retransmissions`, TCP repeats segments as well.
    pub tcp: bool,
}

impl Plan {
    /// One plain call of six seconds, without a fault.
    pub const PLAIN: Self = Self {
        seed: 1,
        calls: 1,
        packets: 300,
        jitter_ms: 2.0,
        loss_percent: 0.0,
        reorder_percent: 0.0,
        retransmissions: false,
        auth: false,
        transfer: false,
        hold: false,
        dtmf: false,
        ipv6: false,
        t1_ms: 500,
        large: false,
        guesses: 0,
        tcp: false,
    };
}

/// Why a message or segment was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// By this timer of RFC 3261, as reports name it: `A`, `E`, `G`, `2xx`.
    Timer(&'static str),
    /// Because what it answers was.
    Echo,
    /// By TCP.
    Tcp,
}

/// The part of a message in authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// None.
    None,
    /// It demands credentials: 401 or 407.
    Challenge,
    /// It gives them.
    Credentials,
}

/// What a transmission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A SIP message of a call.
    Message {
        /// Which call; a registration is none.
        call: Option<usize>,
        /// What it has to do with authentication.
        auth: Auth,
    },
    /// RTP of a stream.
    Media {
        /// Which stream.
        stream: usize,
        /// Its number there, from 0, lost ones counted.
        packet: u32,
    },
    /// Anything else: a TCP segment without a message, RTCP, STUN.
    Other,
}

/// One transmission.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When it passes the first tap, from the beginning of the scene.
    pub time_ns: u64,
    /// As it is there.
    pub datagram: Datagram,
    /// What it is.
    pub what: What,
    /// Which earlier transmission it repeats, and why.
    pub repeats: Option<(usize, Again)>,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Call-ID header.
    pub call_id: String,
    /// It was transferred.
    pub transferred: bool,
}

/// One direction of a call's audio.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its call, if signalling tells.
    pub call: Option<usize>,
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Codec.
    pub law: Law,
    /// The phone speaks, not the PBX.
    pub from_phone: bool,
    /// When its first packet is due.
    pub begins_ns: u64,
}

/// All of it, in no particular order of time.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Transmissions; others refer to them by index.
    pub sent: Vec<Sent>,
    /// Calls.
    pub calls: Vec<Call>,
    /// Streams.
    pub streams: Vec<Stream>,
}

impl Scene {
    /// The scene of a plan.
    pub fn new(plan: &Plan) -> Self {
        let mut scene = Self::default();
        let mut random = Random::derived(plan.seed, 0);
        let mut start_ns = 0;
        for index in 0..plan.calls {
            Performance::new(&mut scene, plan, index).perform(start_ns);
            start_ns += 700 * MS + spread(&mut random, 900 * MS);
        }
        scene
    }
}

impl Scene {
    /// Only the signalling of one call of a plan, and what its streams will be.
    pub fn signalling(plan: &Plan, index: u32, start_ns: u64) -> Self {
        let mut scene = Self::default();
        let mut performance = Performance::new(&mut scene, plan, index);
        performance.silent = true;
        performance.perform(start_ns);
        scene
    }
}

/// One call while it is put into the scene.
struct Performance<'a> {
    scene: &'a mut Scene,
    plan: &'a Plan,
    random: Random,
    call: usize,
    index: u32,
    dialog: Dialog,
    connection: Option<Connection>,
    phone_ip_id: u16,
    pbx_ip_id: u16,
    now_ns: u64,
    /// Nothing is said: somebody else makes the audio.
    silent: bool,
}

impl<'a> Performance<'a> {
    fn new(scene: &'a mut Scene, plan: &'a Plan, index: u32) -> Self {
        let mut random = Random::derived(plan.seed, 1 + u64::from(index));
        let [_, b2, b3, b4] = (index + 11).to_be_bytes();
        let at = |v4: Ipv4Addr, v6: Ipv6Addr, port: u16| {
            SocketAddr::new(if plan.ipv6 { v6.into() } else { v4.into() }, port)
        };
        let phone = |port: u16| {
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 7, 16, 0, 0, u16::from(b3), u16::from(b4));
            at(Ipv4Addr::new(10, 16 + b2, b3, b4), v6, port)
        };
        let pbx =
            |port: u16| at(Ipv4Addr::new(10, 7, 0, 5), Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 5), port);
        let port = 2 * u16::try_from(index % 6_000).unwrap_or(0);
        let call_id = format!("{:016x}@phone.example", random.next_u64());
        let mut dialog =
            Dialog::new((phone(5060), phone(16_384 + port)), (pbx(5060), pbx(20_002 + port)), call_id);
        dialog.user = format!("{}", 1_001 + index);
        dialog.law = if index.is_multiple_of(2) { Law::Mu } else { Law::A };
        let connection = plan.tcp.then(|| {
            dialog.transport = "TCP";
            dialog.phone.set_port(40_000 + port / 2);
            Connection::like(outbound(tcp()).between(dialog.phone, dialog.pbx))
        });
        scene.calls.push(Call { call_id: dialog.call_id.clone(), transferred: plan.transfer });
        let (phone_ip_id, pbx_ip_id) = (random_id(&mut random), random_id(&mut random));
        let call = scene.calls.len() - 1;
        Self {
            scene,
            plan,
            random,
            call,
            index,
            dialog,
            connection,
            phone_ip_id,
            pbx_ip_id,
            now_ns: 0,
            silent: false,
        }
    }

    fn perform(mut self, start_ns: u64) {
        self.now_ns = start_ns;
        self.connect();
        if self.plan.auth {
            self.register();
        }
        self.guess();
        let media_ns = self.invite();
        let (pauses, end_ns) = self.pauses(media_ns);
        for phone_speaks in [true, false] {
            self.speak(phone_speaks, media_ns, &pauses);
        }
        if self.plan.hold {
            self.hold(media_ns);
        }
        if self.plan.transfer {
            self.transfer(media_ns, &pauses);
        }
        self.now_ns = end_ns;
        let bye = self.dialog.request("BYE");
        self.transact(true, &bye, &Dialog::response(200, "OK", &bye));
        self.disconnect();
    }

    fn register(&mut self) {
        // A dialog of its own, with another Call-ID.
        let mut dialog = self.dialog.clone();
        dialog.call_id.insert(0, 'r');
        let register = dialog.request("REGISTER").with("Expires", 300);
        self.say(true, &register);
        self.wait(12);
        self.say(false, &dialog.challenge(401, &register));
        self.wait(9);
        let again = dialog.authorized(&register, "Authorization").with("Expires", 300);
        self.say(true, &again);
        self.wait(12);
        self.say(false, &Dialog::response(200, "OK", &again));
        self.wait(150);
    }

    /// As sipvicious does it: only the branch tells one try from another.
    fn guess(&mut self) {
        let mut dialog = self.dialog.clone();
        dialog.call_id.insert(0, 'g');
        for _ in 0..self.plan.guesses {
            let register = dialog.first_request("REGISTER");
            self.say(true, &register);
            self.wait(3);
            self.say(false, &dialog.challenge(401, &register));
            self.wait(4);
        }
    }

    /// Until the call is answered; when its audio begins.
    fn invite(&mut self) -> u64 {
        self.dialog.large = self.plan.large;
        let mut invite = self.dialog.invite("sendrecv");
        if self.plan.auth {
            let first = self.say(true, &invite);
            self.repeat_by("A", first);
            self.wait(20);
            let challenge = self.say(false, &self.dialog.challenge(407, &invite));
            self.repeat_by("G", challenge);
            self.wait(5);
            let ack = self.dialog.ack(&invite, true);
            self.say(true, &ack);
            self.wait(15);
            invite = self.dialog.authorized(&invite, "Proxy-Authorization");
        }
        let sent = self.say(true, &invite);
        self.repeat_by("A", sent);
        self.wait(20);
        self.say(false, &Dialog::response(100, "Trying", &invite));
        self.wait(40);
        self.say(false, &Dialog::response(180, "Ringing", &invite));
        self.wait(300);
        self.answered(&invite, "sendrecv");
        self.now_ns + 10 * MS
    }

    /// 200 and ACK, which may be late.
    fn answered(&mut self, invite: &Message, direction: &str) {
        let answer = self.say(false, &self.dialog.answer(invite, direction));
        self.repeat_by("2xx", answer);
        self.wait(8);
        let ack = self.dialog.ack(invite, false);
        self.say(true, &ack);
    }

    fn hold(&mut self, media_ns: u64) {
        for (quarter, mine, theirs) in
            [(0, "sendonly", "recvonly"), (HOLD_PAUSE_NS - 60 * MS, "sendrecv", "sendrecv")]
        {
            self.now_ns = media_ns + PTIME_NS * u64::from(self.plan.packets / 4) + quarter - 5 * MS;
            let invite = self.dialog.invite(mine);
            self.say(true, &invite);
            self.wait(3);
            self.say(false, &Dialog::response(100, "Trying", &invite));
            self.wait(5);
            // No repeats: the second re-INVITE has to follow when its time has come.
            self.say(false, &self.dialog.answer(&invite, theirs));
            self.wait(4);
            let ack = self.dialog.ack(&invite, false);
            self.say(true, &ack);
        }
    }

    fn transfer(&mut self, media_ns: u64, pauses: &[(u32, u64)]) {
        let half = self.plan.packets / 2;
        let paused: u64 = pauses.iter().filter(|(before, _)| *before < half).map(|(_, length)| length).sum();
        self.now_ns = media_ns + PTIME_NS * u64::from(half) + paused - 12 * MS;
        let refer = self.dialog.refer();
        self.transact(true, &refer, &Dialog::response(202, "Accepted", &refer));
        self.wait(30);
        for progress in ["100 Trying", "200 OK"] {
            let notify = self.dialog.notify(progress);
            self.transact(false, &notify, &Dialog::response(200, "OK", &notify));
            self.wait(600);
        }
    }

    /// A request and its final answer. Of those that are late, some were not: the answer was lost behind the
    /// taps, and is given again.
    fn transact(&mut self, from_phone: bool, request: &Message, answer: &Message) {
        let sent = self.say(from_phone, request);
        if self.repeats() && self.plan.t1_ms == 500 && self.random.chance(0.4) {
            self.wait(10);
            let answered = self.say(!from_phone, answer);
            self.now_ns = self.scene.sent[sent].time_ns + self.plan.t1_ms * MS + self.slack();
            self.again(sent, Again::Timer("E"));
            self.wait(10);
            self.again(answered, Again::Echo);
            return;
        }
        self.repeat_by("E", sent);
        self.wait(10);
        self.say(!from_phone, answer);
    }

    /// By chance, sends a message again, once to three times, on its timer's schedule.
    fn repeat_by(&mut self, timer: &'static str, sent: usize) {
        if !self.repeats() || !self.random.chance(0.6) {
            return;
        }
        let first_ns = self.scene.sent[sent].time_ns;
        // Of another T1 than RFC 3261's, the second interval is the sign.
        let least = if self.plan.t1_ms == 500 { 1 } else { 2 };
        let times = least + spread(&mut self.random, 2);
        for intervals in DOUBLING.iter().take(usize::try_from(times).unwrap_or(1)) {
            self.now_ns = first_ns + intervals * self.plan.t1_ms * MS + self.slack();
            self.again(sent, Again::Timer(timer));
        }
    }

    /// Only over UDP do endpoints repeat; over TCP the stack does, see [`Self::say`].
    fn repeats(&self) -> bool {
        self.plan.retransmissions && self.connection.is_none()
    }

    fn slack(&mut self) -> u64 {
        spread(&mut self.random, TIMER_SLACK_NS)
    }

    fn wait(&mut self, ms: u64) {
        self.now_ns += ms * MS + spread(&mut self.random, 2 * MS);
    }

    fn say(&mut self, from_phone: bool, message: &Message) -> usize {
        let text = message.to_string();
        let auth = match message.status() {
            Some(401 | 407) => Auth::Challenge,
            _ if message.to_string().contains("uthorization: Digest") => Auth::Credentials,
            _ => Auth::None,
        };
        let call = (message.text("Call-ID") == self.dialog.call_id).then_some(self.call);
        let what = What::Message { call, auth };
        let Some(connection) = self.connection.as_mut() else {
            let datagram =
                outbound(udp()).between(self.dialog.phone, self.dialog.pbx).payload(text.as_bytes());
            return self.put(from_phone, datagram, what, None);
        };
        let (from, to) = if from_phone { (From::Client, From::Server) } else { (From::Server, From::Client) };
        let mut segments = connection.send(from, text.as_bytes());
        let acknowledged = connection.acknowledge(to);
        // One segment a message: `mss` is larger than any.
        let Some(segment) = segments.pop() else { return 0 };
        let sent = self.put_segment(segment.clone(), what, None);
        if self.plan.retransmissions && self.random.chance(0.3) {
            let back_ns = self.now_ns;
            self.now_ns += 210 * MS + self.slack();
            let again = Datagram { ip_id: segment.ip_id ^ 0x4000, ..segment };
            self.put_segment(again, what, Some((sent, Again::Tcp)));
            self.now_ns = back_ns;
        }
        self.now_ns += MS / 2;
        self.put_segment(acknowledged, What::Other, None);
        sent
    }

    fn again(&mut self, sent: usize, why: Again) {
        let Sent { datagram, what, .. } = self.scene.sent[sent].clone();
        let from_phone = datagram.src == self.dialog.phone;
        let datagram = if from_phone { datagram } else { datagram.reversed() };
        self.put(from_phone, datagram, what, Some((sent, why)));
    }

    fn connect(&mut self) {
        for segment in self.connection.as_mut().map(Connection::open).unwrap_or_default() {
            self.put_segment(segment, What::Other, None);
            self.now_ns += MS;
        }
    }

    fn disconnect(&mut self) {
        self.now_ns += 400 * MS;
        for segment in self.connection.as_mut().map(Connection::close).unwrap_or_default() {
            self.put_segment(segment, What::Other, None);
            self.now_ns += MS;
        }
    }

    /// `datagram` as the phone would send it; numbered by whoever does.
    fn put(
        &mut self,
        from_phone: bool,
        datagram: Datagram,
        what: What,
        repeats: Option<(usize, Again)>,
    ) -> usize {
        let (datagram, id) = if from_phone {
            (datagram, &mut self.phone_ip_id)
        } else {
            (datagram.reversed(), &mut self.pbx_ip_id)
        };
        // Zero is what some devices write instead.
        *id = id.wrapping_add(1).max(1);
        let datagram = datagram.ip_id(*id);
        self.scene.sent.push(Sent { time_ns: self.now_ns, datagram, what, repeats });
        self.scene.sent.len() - 1
    }

    fn put_segment(&mut self, datagram: Datagram, what: What, repeats: Option<(usize, Again)>) -> usize {
        self.scene.sent.push(Sent { time_ns: self.now_ns, datagram, what, repeats });
        self.scene.sent.len() - 1
    }

    /// Silences, each before a packet; and when the call ends.
    fn pauses(&self, media_ns: u64) -> (Vec<(u32, u64)>, u64) {
        let packets = self.plan.packets;
        let hold = self.plan.hold.then_some((packets / 4, HOLD_PAUSE_NS));
        let transfer = self.plan.transfer.then_some((packets / 2, TRANSFER_PAUSE_NS));
        let pauses: Vec<_> = hold.into_iter().chain(transfer).collect();
        let silent: u64 = pauses.iter().map(|(_, length)| length).sum();
        (pauses, media_ns + PTIME_NS * u64::from(packets) + silent + 120 * MS)
    }

    fn speak(&mut self, phone_speaks: bool, media_ns: u64, pauses: &[(u32, u64)]) {
        let Plan { packets, jitter_ms, loss_percent, reorder_percent, dtmf, .. } = *self.plan;
        let stream = self.scene.streams.len();
        let sequence = 2 * u64::from(self.index) + u64::from(!phone_speaks);
        let mut random = Random::derived(self.plan.seed, 1_000_000 + sequence);
        let (phone, pbx) = (self.dialog.phone_media, self.dialog.pbx_media);
        let law = self.dialog.law;
        let ssrc = random.next_u32();
        // Of some, the numbers wrap on the way.
        let near_the_end = random.chance(0.3);
        let first_seq = if near_the_end { 65_500 } else { (random.next_u32() >> 16) as u16 };
        let first_timestamp = random.next_u32();
        let pitch_hz = 120.0 + 160.0 * random.unit();
        let event = dtmf.then_some(packets / 3);
        for packet in 0..if self.silent { 0 } else { packets } {
            let pause: u64 =
                pauses.iter().filter(|(before, _)| packet >= *before).map(|(_, length)| length).sum();
            // Three draws a packet, whatever they decide: the fate of one must not shift that of the next.
            let jitter_ns = scaled(jitter_ms * 1e6, random.unit());
            let (is_lost, is_held) =
                (random.chance(loss_percent / 100.0), random.chance(reorder_percent / 100.0));
            // The ends stay: what is expected of a stream is counted between the first and the last that came.
            let inner = packet > 0 && packet + 1 < packets;
            if is_lost && inner {
                continue;
            }
            let held_ns = if is_held && inner { PTIME_NS * 3 / 2 } else { 0 };
            #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
            let seq = first_seq.wrapping_add(packet as u16);
            let timestamp = first_timestamp.wrapping_add(packet.wrapping_mul(SAMPLES));
            let mut audio = rtp();
            (audio.seq, audio.timestamp, audio.ssrc) = (seq, timestamp, ssrc);
            (audio.payload_type, audio.marker) = (law.payload_type(), packet == 0);
            match event.and_then(|event| packet.checked_sub(event)).filter(|at| *at < EVENT_PACKETS) {
                None => audio.payload = g711::speech(law, pitch_hz, packet * SAMPLES, SAMPLES),
                Some(at) => {
                    audio.payload_type = 101;
                    audio.marker = at == 0;
                    audio.timestamp = timestamp.wrapping_sub(at * SAMPLES);
                    audio.payload = event_payload(at);
                }
            }
            self.now_ns = media_ns + PTIME_NS * u64::from(packet) + pause + jitter_ns + held_ns;
            let datagram = audio.over(outbound(udp()).between(phone, pbx));
            self.put(phone_speaks, datagram, What::Media { stream, packet }, None);
        }
        let (src, dst) = if phone_speaks { (phone, pbx) } else { (pbx, phone) };
        self.scene.streams.push(Stream {
            call: Some(self.call),
            src,
            dst,
            ssrc,
            law,
            from_phone: phone_speaks,
            begins_ns: media_ns,
        });
    }
}

/// Packets of one telephone event; the last three say that it ended.
const EVENT_PACKETS: u32 = 8;

/// Digit 5, volume, duration (RFC 4733, 2.3).
fn event_payload(at: u32) -> Vec<u8> {
    const VOLUME: u8 = 0x0a;
    let last = EVENT_PACKETS - 3;
    let end = if at >= last { 0x80 } else { 0 };
    let duration = u16::try_from((at.min(last) + 1) * SAMPLES).unwrap_or(u16::MAX);
    [&[5, end | VOLUME][..], &duration.to_be_bytes()].concat()
}

/// From the phone's side of the first tap to the PBX's.
fn outbound(datagram: Datagram) -> Datagram {
    datagram.macs([2, 0x10, 0, 0, 0, 1], [2, 0x10, 0, 0, 0, 5])
}

fn random_id(random: &mut Random) -> u16 {
    ((random.next_u32() >> 16) as u16).max(1)
}

/// From 0 to just below `most`.
pub(super) fn spread(random: &mut Random, most: u64) -> u64 {
    scaled(most as f64, random.unit())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive amount")]
pub(super) fn scaled(most: f64, unit: f64) -> u64 {
    (most * unit) as u64
}
