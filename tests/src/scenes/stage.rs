//! The stage: a clock, and what was sent so far, with the truth about it.
//!
//! ```text
//!   say(a, b, message) ─┬─ UDP: one datagram
//!                       └─ TCP: segments of a's connection with b, as the delivery says
//!   speak(speech) ────────── RTP of one direction; time stays where it is
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::party::Party;
use super::speech::{PTIME_NS, Speech, Voice};
use super::truth::{CallTruth, SceneTruth, StreamTruth};
use crate::frames::{Datagram, tcp, udp};
use crate::random::Random;
use crate::segments::{Connection, From};
use crate::sip::message::Message;
use crate::story::scene::{Again, Auth, Call, Scene, Sent, Stream, What};

/// A millisecond.
pub const MS: u64 = 1_000_000;

/// What happens to the segments of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One for each message.
    Whole,
    /// Of so many octets.
    Cut(usize),
    /// Of so many octets, the first and the second in the wrong order.
    Reordered(usize),
    /// Of so many octets, the first sent once more at the end.
    Repeated(usize),
    /// Of so many octets, and the capture lacks the first.
    Lost(usize),
}

/// A connection between two parties.
struct Link {
    ends: (SocketAddr, SocketAddr),
    connection: Connection,
}

/// What is being put on.
pub struct Stage {
    /// The clock, from the beginning of the scene.
    pub now_ns: u64,
    /// How TCP is cut from here on.
    pub delivery: Delivery,
    /// What was sent.
    pub(super) scene: Scene,
    /// What is true.
    pub(super) truth: SceneTruth,
    random: Random,
    ip_ids: HashMap<IpAddr, u16>,
    links: Vec<Link>,
    voices: HashMap<(SocketAddr, SocketAddr, u32), Voice>,
}

impl Stage {
    /// An empty one.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now_ns: 0,
            delivery: Delivery::Whole,
            scene: Scene::default(),
            truth: SceneTruth::default(),
            random: Random::derived(seed, 77),
            ip_ids: HashMap::new(),
            links: Vec::new(),
            voices: HashMap::new(),
        }
    }

    /// Time passes.
    pub fn wait(&mut self, ms: u64) {
        self.now_ns += ms * MS;
    }

    /// Time passes until this moment.
    pub fn until(&mut self, time_ns: u64) {
        self.now_ns = self.now_ns.max(time_ns);
    }

    /// A random word, for tags and Call-IDs.
    pub fn word(&mut self) -> String {
        format!("{:010x}", self.random.next_u64() >> 24)
    }

    /// The truth about a call.
    pub fn call(&mut self, index: usize) -> &mut CallTruth {
        &mut self.truth.calls[index]
    }

    /// The truth about the rest.
    pub fn truth(&mut self) -> &mut SceneTruth {
        &mut self.truth
    }

    /// A call by its Call-ID; its number.
    pub(super) fn add_call(&mut self, call_id: &str) -> usize {
        self.scene.calls.push(Call { call_id: call_id.to_owned(), transferred: false });
        self.truth.calls.push(CallTruth { call_id: call_id.to_owned(), ..CallTruth::default() });
        self.truth.calls.len() - 1
    }

    /// One party sends another a message; its place, for [`Self::again`].
    pub fn say(&mut self, from: &Party, to: &Party, message: &Message) -> usize {
        let bytes = message.to_string().into_bytes();
        let what = self.count(message);
        if from.transport == "UDP" {
            return self.datagram_of(from.sip, to.sip, &bytes, what, None);
        }
        self.say_bytes(from, to, &bytes, what)
    }

    /// Several messages of one party in one segment.
    pub fn say_together(&mut self, from: &Party, to: &Party, messages: &[Message]) {
        self.truth.is_segmented = true;
        let text: String = messages.iter().map(Message::to_string).collect();
        for message in messages {
            self.count(message);
        }
        self.say_bytes(from, to, text.as_bytes(), What::Other);
    }

    /// Bytes over a connection: what is neither a message nor a whole one.
    pub fn bytes(&mut self, from: &Party, to: &Party, bytes: &[u8]) {
        self.say_bytes(from, to, bytes, What::Other);
    }

    /// A message inside of something else, like a WebSocket frame, over a connection.
    pub fn wrapped(&mut self, from: &Party, to: &Party, message: &Message, bytes: &[u8]) {
        self.truth.is_segmented = true;
        self.count(message);
        self.say_bytes(from, to, bytes, What::Other);
    }

    /// The same message once more, by a timer of RFC 3261.
    ///
    /// # Panics
    /// If that place holds no message: the scene is wrong.
    pub fn again(&mut self, sent: usize, timer: &'static str) {
        let Sent { datagram, what, .. } = self.scene.sent[sent].clone();
        let message = Message::parse(&datagram.payload).expect("only whole messages are repeated");
        if let What::Message { call: Some(call), .. } = what {
            *self.truth.calls[call].timers.entry(timer).or_default() += 1;
        }
        self.count(&message);
        let (from, to) = (datagram.src, datagram.dst);
        self.datagram_of(from, to, &datagram.payload, what, Some((sent, Again::Timer(timer))));
    }

    /// Any other datagram: RTCP, STUN, UDPTL.
    pub fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.datagram_of(from, to, bytes, What::Other, None);
    }

    /// A connection is made.
    pub fn connect(&mut self, client: &Party, server: &Party) {
        self.join(client, server);
        let opening = self.links.last_mut().map(|link| link.connection.open()).unwrap_or_default();
        for segment in opening {
            self.put(segment, What::Other, None);
            self.now_ns += MS / 2;
        }
    }

    /// A connection is there; its beginning is not in the capture.
    pub fn join(&mut self, client: &Party, server: &Party) {
        self.truth.has_connections = true;
        let connection = Connection::like(outbound(tcp().between(client.sip, server.sip)));
        self.links.push(Link { ends: (client.sip, server.sip), connection });
    }

    /// RTP of one direction.
    pub fn speak(&mut self, speech: &Speech) {
        let key = (speech.from, speech.to, speech.ssrc);
        let stream = self.scene.streams.len();
        let voice =
            self.voices.entry(key).or_insert_with(|| Voice::new(speech.ssrc, stream, speech.start_ns));
        let stream = voice.stream;
        let packets = voice.packets(speech);
        if stream == self.scene.streams.len() {
            self.scene.streams.push(Stream {
                call: speech.call,
                src: speech.from,
                dst: speech.to,
                ssrc: speech.ssrc,
                law: speech.law,
                from_phone: false,
                begins_ns: speech.start_ns,
            });
            self.truth.streams.push(StreamTruth {
                src: speech.from.to_string(),
                dst: speech.to.to_string(),
                ssrc: format!("0x{:08x}", speech.ssrc),
                call_id: speech.call.map(|call| self.truth.calls[call].call_id.clone()),
                packets: 0,
                sender_reports: None,
                call_absent_because: speech.absent,
            });
        }
        let then_ns = self.now_ns;
        for (index, packet) in (0_u64..).zip(packets) {
            // Up to 2 ms late, each.
            let late_ns = u64::from(self.random.next_u32()) % (2 * MS);
            self.now_ns = speech.start_ns + PTIME_NS * index + late_ns;
            let number = u32::try_from(self.truth.streams[stream].packets).unwrap_or(u32::MAX);
            self.truth.streams[stream].packets += 1;
            let what = What::Media { stream, packet: number };
            self.datagram_of(speech.from, speech.to, &packet.bytes(), what, None);
        }
        self.now_ns = then_ns;
    }

    /// The truth about a stream.
    ///
    /// # Panics
    /// If there is none: the scene is wrong.
    pub fn stream(&mut self, from: SocketAddr, to: SocketAddr) -> &mut StreamTruth {
        let (src, dst) = (from.to_string(), to.to_string());
        let mut streams = self.truth.streams.iter_mut();
        streams.find(|stream| stream.src == src && stream.dst == dst).expect("it was spoken")
    }

    fn count(&mut self, message: &Message) -> What {
        let kind = match message.status() {
            Some(code) => code.to_string(),
            None => message.method().unwrap_or_default().to_owned(),
        };
        self.truth.messages += 1;
        *self.truth.kinds.entry(kind).or_default() += 1;
        let call_id = message.text("Call-ID");
        // Of calls that share a Call-ID, the latest.
        let call = self.truth.calls.iter().rposition(|call| call.call_id == call_id);
        if let Some(call) = call {
            self.truth.calls[call].messages += 1;
        }
        let auth = match message.status() {
            Some(401 | 407) => Auth::Challenge,
            _ if message.header("Authorization").or(message.header("Proxy-Authorization")).is_some() => {
                Auth::Credentials
            }
            _ => Auth::None,
        };
        What::Message { call, auth }
    }

    /// A message that was counted is not whole in the capture.
    fn uncount(&mut self, message: &Message) {
        let kind = message
            .status()
            .map_or_else(|| message.method().unwrap_or_default().to_owned(), |code| code.to_string());
        self.truth.messages -= 1;
        if let Some(count) = self.truth.kinds.get_mut(&kind) {
            *count -= 1;
        }
        self.truth.kinds.retain(|_, count| *count > 0);
        let call_id = message.text("Call-ID");
        if let Some(call) = self.truth.calls.iter_mut().find(|call| call.call_id == call_id) {
            call.messages -= 1;
        }
    }

    fn say_bytes(&mut self, from: &Party, to: &Party, bytes: &[u8], what: What) -> usize {
        let delivery = self.delivery;
        let mss = match delivery {
            Delivery::Whole => usize::MAX,
            Delivery::Cut(mss) | Delivery::Reordered(mss) | Delivery::Repeated(mss) | Delivery::Lost(mss) => {
                mss
            }
        };
        let link = self
            .links
            .iter_mut()
            .find(|link| link.ends == (from.sip, to.sip) || link.ends == (to.sip, from.sip));
        let link = link.expect("they are connected");
        let side = if link.ends.0 == from.sip { From::Client } else { From::Server };
        link.connection.mss = mss.min(1_460);
        let mut segments = link.connection.send(side, bytes);
        let other = if side == From::Client { From::Server } else { From::Client };
        let acknowledged = link.connection.acknowledge(other);
        match delivery {
            Delivery::Reordered(_) if segments.len() > 1 => segments.swap(0, 1),
            Delivery::Whole | Delivery::Cut(_) | Delivery::Reordered(_) => {}
            Delivery::Repeated(_) => segments.extend(segments.first().cloned()),
            Delivery::Lost(_) => {
                segments.remove(0);
                if let Some(message) = Message::parse(bytes) {
                    self.uncount(&message);
                }
            }
        }
        let is_whole = segments.len() == 1 && delivery == Delivery::Whole;
        self.truth.is_segmented |= !is_whole;
        let mut sent = 0;
        for segment in segments {
            sent = self.put(segment, if is_whole { what } else { What::Other }, None);
            self.now_ns += MS / 4;
        }
        self.put(acknowledged, What::Other, None);
        sent
    }

    fn datagram_of(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        what: What,
        repeats: Option<(usize, Again)>,
    ) -> usize {
        let first = (self.random.next_u32() >> 16) as u16;
        let id = self.ip_ids.entry(from.ip()).or_insert(first);
        // Zero is what some devices write instead.
        *id = id.wrapping_add(1).max(1);
        let datagram = outbound(udp().between(from, to)).ip_id(*id).payload(bytes);
        self.put(datagram, what, repeats)
    }

    fn put(&mut self, datagram: Datagram, what: What, repeats: Option<(usize, Again)>) -> usize {
        self.scene.sent.push(Sent { time_ns: self.now_ns, datagram, what, repeats });
        self.scene.sent.len() - 1
    }
}

/// With the MACs of its two ends: each host has one.
fn outbound(datagram: Datagram) -> Datagram {
    let mac = |ip: IpAddr| {
        let last = crate::frames::octets(ip);
        [2, 0x10, 0, last[1], last[last.len() - 2], last[last.len() - 1]]
    };
    let (src, dst) = (mac(datagram.src.ip()), mac(datagram.dst.ip()));
    datagram.macs(src, dst)
}
