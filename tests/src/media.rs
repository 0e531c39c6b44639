//! G.711 in RTP at 20 ms, for all calls of the lab from one timer thread.
//!
//! ```text
//!   tick k (absolute: start + 20 ms · k) ─ lost?  ─▶ counted, not sent
//!                                        ─ else   ─▶ sent at tick + jitter, or held behind its successor
//! ```
//!
//! The kernel of the lab has no netem, so the sender impairs its own packets, from a seed. It keeps the truth
//! about each stream, so that a test can hold the probe's account against it. A stream has a number of packets
//! and not a duration: with the same seed, what is sent is the same to the byte, whatever the machine does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};

use crate::g711::{self, Law};
use crate::random::Random;

/// Packetisation time, and samples in it.
pub const PTIME: Duration = Duration::from_millis(20);
const SAMPLES: u32 = 160;

const FIRST_REPORT: Duration = Duration::from_secs(1);
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Receiving is only counting, and the sockets' buffers hold minutes.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

/// After the last packet: for what is still held back.
const TAIL: Duration = Duration::from_millis(80);

/// What happens to a stream's packets on their way out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Each packet is late by anything up to this. Below [`PTIME`], so that it never reorders.
    pub jitter: Duration,
    /// Probability that a packet is not sent.
    pub loss: f64,
    /// Probability that a packet is held until its successor has gone.
    pub reorder: f64,
}

impl Impairment {
    /// A network on a good day.
    pub const MILD: Self = Self { jitter: Duration::from_millis(4), loss: 0.005, reorder: 0.003 };
    /// None at all.
    pub const NONE: Self = Self { jitter: Duration::ZERO, loss: 0.0, reorder: 0.0 };
}

/// A time without packets, as during a transfer: sequence numbers and timestamps go on as if it had not been.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pause {
    /// Before this packet (counted from 0).
    pub before: u32,
    /// For this long.
    pub length: Duration,
}

/// One direction of a call's audio.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// Everything random about it.
    pub seed: u64,
    /// Codec.
    pub law: Law,
    /// Packets, sent or lost; with none it only listens.
    pub packets: u32,
    /// What happens to them.
    pub impairment: Impairment,
    /// A hole in the middle.
    pub pause: Option<Pause>,
}

/// Both ends of the wire that a talk uses: its own sockets, and where the other side listens.
#[derive(Debug)]
pub struct Talk {
    /// What to send.
    pub plan: StreamPlan,
    /// Bound to the announced port.
    pub rtp: UdpSocket,
    /// Bound to the port after it.
    pub rtcp: UdpSocket,
    /// The other side's announced address.
    pub to: SocketAddr,
    /// Told about [`Moment`]s.
    pub moments: Sender<Moment>,
}

/// What the signalling needs to know of a talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Two packets from now comes the pause.
    PauseNear,
    /// All packets were sent or lost.
    Sent,
}

/// The truth about one direction: what was sent, and what the other end received of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamTruth {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Given to the network.
    pub sent: u64,
    /// Withheld: the stream's loss.
    pub dropped: u64,
    /// Of `sent`, those that went after a later one.
    pub reordered: u64,
    /// Sum over the hashes of all packets sent.
    pub digest: u64,
    /// RTCP sender reports sent.
    pub reports: u64,
}

/// What arrived at a talk's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// RTP packets.
    pub packets: u64,
    /// Sum over their hashes.
    pub digest: u64,
    /// RTCP packets.
    pub reports: u64,
}

/// Refers to a talk of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TalkId(u64);

enum Command {
    Open(TalkId, Box<Talk>),
    Close(TalkId, Sender<(StreamTruth, Received)>),
}

/// The timer thread. Ends with the last handle on it.
#[derive(Clone, Debug)]
pub struct MediaEngine {
    commands: Sender<Command>,
    ids: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl MediaEngine {
    /// Starts the thread.
    pub fn start() -> Result<Self> {
        let (commands, inbox) = mpsc::channel();
        thread::Builder::new()
            .name("media".to_owned())
            .spawn(move || Timer::default().run(&inbox))
            .context("cannot start the media thread")?;
        Ok(Self { commands, ids: std::sync::Arc::default() })
    }

    /// Starts to send and to receive.
    pub fn open(&self, talk: Talk) -> Result<TalkId> {
        talk.rtp.set_nonblocking(true).context("cannot make the RTP socket non-blocking")?;
        talk.rtcp.set_nonblocking(true).context("cannot make the RTCP socket non-blocking")?;
        let id = TalkId(self.ids.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        self.commands.send(Command::Open(id, Box::new(talk))).ok().context("the media thread has ended")?;
        Ok(id)
    }

    /// Stops, and says what was sent and received.
    pub fn close(&self, id: TalkId) -> Result<(StreamTruth, Received)> {
        let (answer, result) = mpsc::channel();
        self.commands.send(Command::Close(id, answer)).ok().context("the media thread has ended")?;
        result.recv().context("the talk is not open")
    }
}

/// A thing to do, in the order of time and then of request.
type Due = (Instant, u64, TalkId, Act);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Tick(u32),
    Send(u32),
    Report,
    Finish,
}

#[derive(Default)]
struct Timer {
    talks: HashMap<TalkId, Speaker>,
    due: BinaryHeap<Reverse<Due>>,
    requests: u64,
}

impl Timer {
    fn run(mut self, inbox: &Receiver<Command>) {
        let mut drained = Instant::now();
        loop {
            let now = Instant::now();
            while let Some(Reverse((time, _, id, act))) = self.due.peek().copied() {
                if time > now {
                    break;
                }
                self.due.pop();
                self.act(time, id, act);
            }
            if now.duration_since(drained) >= DRAIN_INTERVAL {
                drained = now;
                self.talks.values_mut().for_each(Speaker::drain);
            }
            let next =
                self.due.peek().map_or(now + DRAIN_INTERVAL, |Reverse(due)| due.0.min(now + DRAIN_INTERVAL));
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open(id, talk) => {
                let start = Instant::now();
                if talk.plan.packets > 0 {
                    self.at(start, id, Act::Tick(0));
                    self.at(start + FIRST_REPORT, id, Act::Report);
                }
                self.talks.insert(id, Speaker::new(*talk, start));
            }
            Command::Close(id, answer) => {
                if let Some(mut speaker) = self.talks.remove(&id) {
                    speaker.drain();
                    let _ = answer.send((speaker.truth, speaker.received));
                }
            }
        }
    }

    fn at(&mut self, time: Instant, id: TalkId, act: Act) {
        self.requests += 1;
        self.due.push(Reverse((time, self.requests, id, act)));
    }

    fn act(&mut self, time: Instant, id: TalkId, act: Act) {
        let Some(speaker) = self.talks.get_mut(&id) else { return };
        match act {
            Act::Tick(packet) => {
                let sending = speaker.tick(packet);
                let next = speaker.nominal(packet + 1);
                let last = packet + 1 >= speaker.talk.plan.packets;
                if let Some(delay) = sending {
                    self.at(time + delay, id, Act::Send(packet));
                }
                if last {
                    self.at(time + TAIL, id, Act::Finish);
                } else {
                    self.at(next, id, Act::Tick(packet + 1));
                }
            }
            Act::Send(packet) => speaker.send(packet),
            Act::Report => {
                speaker.report(time);
                self.at(time + REPORT_INTERVAL, id, Act::Report);
            }
            Act::Finish => {
                // Nobody listens any more if the call was cut short.
                let _ = speaker.talk.moments.send(Moment::Sent);
            }
        }
    }
}

/// One talk in progress.
struct Speaker {
    talk: Talk,
    start: Instant,
    random: Random,
    first_seq: u16,
    first_timestamp: u32,
    pitch_hz: f64,
    highest_sent: Option<u32>,
    octets: u32,
    truth: StreamTruth,
    received: Received,
}

impl Speaker {
    fn new(talk: Talk, start: Instant) -> Self {
        let mut random = Random::new(talk.plan.seed);
        let ssrc = random.next_u32();
        let first_seq = (random.next_u32() >> 16) as u16;
        let first_timestamp = random.next_u32();
        let pitch_hz = 120.0 + 160.0 * random.unit();
        let truth =
            StreamTruth { ssrc, payload_type: talk.plan.law.payload_type(), ..StreamTruth::default() };
        Self {
            talk,
            start,
            random,
            first_seq,
            first_timestamp,
            pitch_hz,
            highest_sent: None,
            octets: 0,
            truth,
            received: Received::default(),
        }
    }

    /// When a packet would go if nothing happened to it.
    fn nominal(&self, packet: u32) -> Instant {
        let paused = self.talk.plan.pause.filter(|pause| packet >= pause.before).map(|pause| pause.length);
        self.start + PTIME * packet + paused.unwrap_or_default()
    }

    /// Decides a packet's fate; how long it is late, if it is sent at all.
    fn tick(&mut self, packet: u32) -> Option<Duration> {
        let StreamPlan { packets, impairment, pause, .. } = self.talk.plan;
        if pause.is_some_and(|pause| packet + 2 == pause.before) {
            let _ = self.talk.moments.send(Moment::PauseNear);
        }
        // Three draws a packet, whatever they decide: the fate of one must not shift that of the next.
        let jitter = impairment.jitter.mul_f64(self.random.unit());
        let (lost, held) = (self.random.chance(impairment.loss), self.random.chance(impairment.reorder));
        // The ends stay: what is expected of a stream is counted between the first and the last that came.
        let inner = packet > 0 && packet + 1 < packets;
        let before_pause = pause.is_some_and(|pause| packet + 1 == pause.before);
        if lost && inner {
            self.truth.dropped += 1;
            return None;
        }
        if held && inner && !before_pause { Some(PTIME * 3 / 2 + jitter) } else { Some(jitter) }
    }

    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
    fn send(&mut self, packet: u32) {
        let marker = if packet == 0 { 0x80 } else { 0 };
        let mut bytes = Vec::with_capacity(12 + SAMPLES as usize);
        bytes.extend([0x80, self.truth.payload_type | marker]);
        bytes.extend(self.first_seq.wrapping_add(packet as u16).to_be_bytes());
        bytes.extend(self.timestamp(packet).to_be_bytes());
        bytes.extend(self.truth.ssrc.to_be_bytes());
        bytes.extend(g711::speech(self.talk.plan.law, self.pitch_hz, packet * SAMPLES, SAMPLES));
        if self.talk.rtp.send_to(&bytes, self.talk.to).is_err() {
            // The other side is gone, as after a call that was cut short.
            self.truth.dropped += 1;
            return;
        }
        self.truth.sent += 1;
        self.octets = self.octets.wrapping_add(SAMPLES);
        self.truth.digest = self.truth.digest.wrapping_add(hash(&bytes));
        if self.highest_sent.is_some_and(|highest| packet < highest) {
            self.truth.reordered += 1;
        }
        self.highest_sent = self.highest_sent.max(Some(packet));
    }

    fn timestamp(&self, packet: u32) -> u32 {
        self.first_timestamp.wrapping_add(packet.wrapping_mul(SAMPLES))
    }

    /// A sender report and a CNAME (RFC 3550, 6.4.1 and 6.5.1). Without a report block: the socket is read too
    /// rarely for its arrival times to be worth reporting.
    #[expect(clippy::cast_possible_truncation, reason = "NTP seconds, RTP time and counts wrap at 32 bits")]
    fn report(&mut self, now: Instant) {
        const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let fraction = (u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000;
        let elapsed = now.duration_since(self.start).as_millis() as u32;
        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend(self.truth.ssrc.to_be_bytes());
        bytes.extend(((wall.as_secs() + SECONDS_1900_TO_1970) as u32).to_be_bytes());
        bytes.extend((fraction as u32).to_be_bytes());
        bytes.extend(self.first_timestamp.wrapping_add(elapsed.wrapping_mul(8)).to_be_bytes());
        bytes.extend((self.truth.sent as u32).to_be_bytes());
        bytes.extend(self.octets.to_be_bytes());

        let name = b"voxlab@lab";
        let mut chunk = self.truth.ssrc.to_be_bytes().to_vec();
        chunk.extend([1, name.len() as u8]);
        chunk.extend(name);
        // At least one zero ends the items, and the chunk is whole words.
        chunk.resize((chunk.len() / 4 + 1) * 4, 0);
        bytes.extend([0x81, 202]);
        bytes.extend(((chunk.len() / 4) as u16).to_be_bytes());
        bytes.extend(chunk);

        let to = SocketAddr::new(self.talk.to.ip(), self.talk.to.port() + 1);
        if self.talk.rtcp.send_to(&bytes, to).is_ok() {
            self.truth.reports += 1;
        }
    }

    fn drain(&mut self) {
        let mut buffer = [0; 2048];
        while let Ok(length) = self.talk.rtp.recv(&mut buffer) {
            self.received.packets += 1;
            self.received.digest = self.received.digest.wrapping_add(hash(&buffer[..length]));
        }
        while self.talk.rtcp.recv(&mut buffer).is_ok() {
            self.received.reports += 1;
        }
    }
}

/// FNV-1a, 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").expect("loopback is there")
    }

    /// Sends 60 packets over loopback and returns the truth and what arrived.
    fn talk(seed: u64, impairment: Impairment) -> (StreamTruth, Received) {
        let engine = MediaEngine::start().expect("threads can be made");
        let (rtp, far) = (socket(), socket());
        let to = far.local_addr().expect("bound");
        let (moments, inbox) = mpsc::channel();
        let plan = StreamPlan { seed, law: Law::Mu, packets: 60, impairment, pause: None };
        let listen = StreamPlan { packets: 0, ..plan.clone() };
        let (other, _unheard) = mpsc::channel();
        let near = Talk { plan, rtp, rtcp: socket(), to, moments };
        let nobody = Talk {
            plan: listen,
            rtp: far,
            rtcp: socket(),
            to: socket().local_addr().expect("bound"),
            moments: other,
        };
        let listener = engine.open(nobody).expect("engine runs");
        let speaker = engine.open(near).expect("engine runs");
        assert_eq!(inbox.recv_timeout(Duration::from_secs(10)), Ok(Moment::Sent));
        let (truth, _) = engine.close(speaker).expect("open");
        let (_, received) = engine.close(listener).expect("open");
        (truth, received)
    }

    #[test]
    fn the_same_seed_sends_the_same_bytes_and_all_arrive() {
        let rough = Impairment { jitter: Duration::from_millis(3), loss: 0.1, reorder: 0.1 };
        let (first, received) = talk(3, rough);
        let (again, _) = talk(3, rough);
        assert_eq!(first, again);
        assert_eq!(first.sent + first.dropped, 60);
        assert!(first.dropped > 0 && first.reordered > 0, "{first:?}");
        assert_eq!((received.packets, received.digest), (first.sent, first.digest));
    }
}
