//! Audio for calls that somebody else signals: whoever's SDP passes by is given a voice.
//!
//! ```text
//!   phones0 ── what leaves: INVITE, the caller's port ──┐
//!   pbx0    ── what leaves: 200, the called's port ─────┴─▶ with both known, both ends begin to talk
//! ```
//!
//! sipp sends the audio of all its calls from one port; here each call has ports of its own, as phones do.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::message::{Message, parse_sdp};
use super::phone::bind_pair;
use crate::g711::Law;
use crate::link::RawSocket;
use crate::media::{Impairment, MediaEngine, Moment, PTIME, StreamPlan, Talk, TalkId};
use crate::topology::Topology;

/// Ethernet, IPv4 without options, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// After the last packet: sockets are kept for what still arrives.
const TAIL: Duration = Duration::from_millis(500);

/// What both ends of all calls sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// Streams.
    pub streams: u64,
    /// RTP packets.
    pub packets: u64,
    /// RTCP packets.
    pub reports: u64,
    /// RTP packets that arrived.
    pub received: u64,
}

/// Gives both ends of each call that is answered during `act` a voice of so many packets.
pub fn speak_during(topology: &Topology, packets: u32, act: impl FnOnce() -> Result<()>) -> Result<Spoken> {
    let stop = AtomicBool::new(false);
    let (heard, inbox) = mpsc::channel();
    let mut sockets = Vec::new();
    for (host, interface) in [(&topology.phones, "phones0"), (&*topology.pbx, "pbx0")] {
        let socket = host.within(|| RawSocket::reader(interface))??;
        socket.set_timeout(Duration::from_millis(100))?;
        sockets.push(socket);
    }
    let booth = Booth {
        topology,
        engine: MediaEngine::start()?,
        packets,
        ports: HashMap::new(),
        open: VecDeque::new(),
        moments: mpsc::channel().0,
        spoken: Spoken::default(),
    };
    thread::scope(|scope| {
        let stop = &stop;
        for socket in sockets {
            let heard = heard.clone();
            scope.spawn(move || listen(&socket, &heard, stop));
        }
        // The booth ends with the last listener.
        drop(heard);
        let speaking = scope.spawn(move || booth.run(&inbox));
        let outcome = act();
        stop.store(true, Ordering::Relaxed);
        let spoken = speaking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and(spoken)
    })
}

fn listen(socket: &RawSocket, heard: &Sender<Message>, stop: &AtomicBool) {
    let mut frame = vec![0; 2_048];
    while !stop.load(Ordering::Relaxed) {
        let Ok(Some(length)) = socket.receive_outgoing(&mut frame) else { continue };
        let payload = frame.get(HEADERS..length).unwrap_or_default();
        // RTP begins with a version, SIP with a letter.
        if payload.first().is_some_and(u8::is_ascii_uppercase)
            && let Some(message) = Message::parse(payload)
            && heard.send(message).is_err()
        {
            return;
        }
    }
}

/// Where calls are kept while they talk.
struct Booth<'a> {
    topology: &'a Topology,
    engine: MediaEngine,
    packets: u32,
    /// By Call-ID: where caller and called listen.
    ports: HashMap<String, [Option<SocketAddr>; 2]>,
    /// Talks, and when they will be over.
    open: VecDeque<(Instant, TalkId)>,
    /// Nobody waits for them.
    moments: Sender<Moment>,
    spoken: Spoken,
}

impl Booth<'_> {
    fn run(mut self, inbox: &Receiver<Message>) -> Result<Spoken> {
        loop {
            match inbox.recv_timeout(Duration::from_millis(50)) {
                Ok(message) => self.hear(&message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.close_until(Instant::now())?;
        }
        while let Some((over, _)) = self.open.back().copied() {
            thread::sleep(over.saturating_duration_since(Instant::now()));
            self.close_until(Instant::now())?;
        }
        Ok(self.spoken)
    }

    fn hear(&mut self, message: &Message) -> Result<()> {
        let call_id = message.text("Call-ID");
        let side = usize::from(message.status().is_some());
        let Some((at, _)) = parse_sdp(&message.body) else { return Ok(()) };
        let ports = self.ports.entry(call_id.to_owned()).or_default();
        ports[side] = Some(at);
        // Two threads listen: the answer may be heard before the offer.
        if let [Some(caller), Some(called)] = *ports {
            self.ports.remove(call_id);
            // Both listen before one of them talks.
            let ends = [
                (bind_pair(&self.topology.phones, caller)?, called),
                (bind_pair(&self.topology.pbx, called)?, caller),
            ];
            for (sockets, to) in ends {
                self.talk(sockets, to)?;
            }
        }
        Ok(())
    }

    fn talk(&mut self, (rtp, rtcp): (UdpSocket, UdpSocket), to: SocketAddr) -> Result<()> {
        let plan = StreamPlan {
            seed: 1 + self.spoken.streams,
            law: Law::Mu,
            packets: self.packets,
            impairment: Impairment::NONE,
            pause: None,
        };
        self.spoken.streams += 1;
        let id = self.engine.open(Talk { plan, rtp, rtcp, to, moments: self.moments.clone() })?;
        self.open.push_back((Instant::now() + PTIME * self.packets + TAIL, id));
        Ok(())
    }

    fn close_until(&mut self, now: Instant) -> Result<()> {
        while let Some((over, id)) = self.open.front().copied()
            && over <= now
        {
            let (sent, received) = self.engine.close(id)?;
            self.spoken.packets += sent.sent;
            self.spoken.reports += sent.reports;
            self.spoken.received += received.packets;
            self.open.pop_front();
        }
        Ok(())
    }
}
