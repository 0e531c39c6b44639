//! Generated stories: whole VoIP scenes as several taps would capture them, and the truth about every frame.
//!
//! ```text
//!   Plan ──▶ Scene: what is sent ──▶ taps: who sees it, when, how ──▶ Story: frames in order of time
//!   seed     (scene, dialog)         (taps, rpcap)                           └▶ Truth (truth)
//! ```
//!
//! Nothing here is read back from the analysis: classes come from which transmission a frame shows, causes from what
//! the taps were told to do. The same plan and recording give the same bytes. `voxlab story` writes the capture and the
//! truth as JSON, whose form is described in [`truth`].

pub mod bulk;
pub mod command;
mod dialog;
mod rpcap;
pub mod scene;
pub mod taps;
pub mod truth;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};

use self::scene::{Again, Auth, Plan, Scene, Sent, What, spread};
use self::taps::{Look, Step, Tap};
use self::truth::{CallTruth, Class, FrameTruth, StreamTruth, Totals, Truth};
use crate::captures::Writer;
use crate::random::Random;

pub use self::rpcap::Rpcap;

/// When stories begin: 14 November 2023.
const START_NS: u64 = 1_700_000_000_000_000_000;
/// Octets of an IP packet that Ethernet carries.
const MTU: usize = 1_500;
/// Before the first transmission, for what a remote capture says to begin with.
const LEAD_NS: u64 = 100_000_000;

/// How a scene is captured.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// Taps besides the first.
    pub taps: Vec<Tap>,
    /// A remote capture of all taps that are no tunnels, itself captured.
    pub rpcap: Option<Rpcap>,
    /// Share of sightings that a tap misses, in percent; somebody sees each packet.
    pub misses_percent: f64,
    /// Each tap is an interface of its own in the file.
    pub interfaces: bool,
    /// Taps besides the first see everything later by this.
    pub delay_ns: u64,
    /// The first tap is no longer the first to see a packet, but comes among the others.
    pub shuffled: bool,
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When, since 1970.
    pub time_ns: u64,
    /// On which interface of the file.
    pub interface: u16,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A capture and the truth about it.
#[derive(Clone, Debug)]
pub struct Story {
    /// Frames in order of time.
    pub frames: Vec<Frame>,
    /// The truth.
    pub truth: Truth,
}

/// A frame on its way into the story.
struct Draft {
    time_ns: u64,
    tap: u8,
    interface: u16,
    bytes: Vec<u8>,
    shows: Vec<Sighting>,
    /// What it is a part of, or completes, as a number of that whole's own.
    whole: Option<u64>,
}

/// A transmission as one tap sees it.
#[derive(Clone, Debug)]
struct Sighting {
    sent: usize,
    /// Behind a translator.
    leg: bool,
    look: Look,
}

impl Story {
    /// The story of a plan, as a recording shows it.
    pub fn new(plan: &Plan, recording: &Recording) -> Self {
        let mut story = Self::of(&Scene::new(plan), plan.seed, recording);
        story.truth.findings.extend(plan.transfer.then_some("gap-at-transfer"));
        story.truth.plan = Some(*plan);
        story
    }

    /// The story of a scene that is there, as a recording shows it.
    pub fn of(scene: &Scene, seed: u64, recording: &Recording) -> Self {
        let mut drafts = recording.capture(scene, seed);
        drafts.sort_by_key(|draft| draft.time_ns);
        let truth = Judge::new(scene).judge(&drafts, recording);
        let frame = |draft: Draft| Frame {
            time_ns: START_NS + draft.time_ns,
            interface: draft.interface,
            bytes: draft.bytes,
        };
        Self { frames: drafts.into_iter().map(frame).collect(), truth }
    }

    /// As a pcapng file.
    pub fn pcapng(&self) -> Vec<u8> {
        let writer = Writer::PCAP_NG;
        let mut file = writer.section();
        let last = self.frames.iter().map(|frame| frame.interface).max().unwrap_or(0);
        for interface in 0..=last {
            file.extend(writer.interface(&format!("tap{interface}"), Some(9), None, 0));
        }
        for frame in &self.frames {
            file.extend(writer.enhanced(u32::from(frame.interface), frame.time_ns, &frame.bytes));
        }
        file
    }

    /// Writes the capture.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.pcapng()).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Recording {
    /// Taps besides the first, each after one step.
    pub fn by(steps: &[Step]) -> Self {
        Self { taps: steps.iter().copied().map(Tap::after).collect(), ..Self::default() }
    }

    /// With a remote capture of them all.
    #[must_use]
    pub fn and_rpcap(self) -> Self {
        Self { rpcap: Some(Rpcap::default()), ..self }
    }

    /// How much later than the packet a tap sees it: some tens of microseconds, in a tunnel some hundreds.
    fn delay(&self, random: &mut Random, at: u8, tap: &Tap) -> u64 {
        let own = spread(random, 9_000);
        let tunnelled = spread(random, 300_000);
        let place = 15_000 + 23_000 * u64::from(at);
        match at {
            0 if self.shuffled => self.delay_ns + 70_000 + own,
            0 => 0,
            _ if tap.is_tunnelled() => self.delay_ns + 185_000 + place + tunnelled,
            _ => self.delay_ns + place + own,
        }
    }

    fn capture(&self, scene: &Scene, seed: u64) -> Vec<Draft> {
        let taps: Vec<Tap> = std::iter::once(Tap::FIRST).chain(self.taps.iter().cloned()).collect();
        let mut counted = vec![0_u32; taps.len()];
        let mut order: Vec<usize> = (0..scene.sent.len()).collect();
        order.sort_by_key(|sent| scene.sent[*sent].time_ns);
        let mut random = Random::derived(seed, 2_000_000_000);
        let mut drafts = Vec::new();
        for sent in order {
            let Sent { time_ns, datagram, what, .. } = &scene.sent[sent];
            let seen_by: Vec<bool> =
                taps.iter().map(|_| !random.chance(self.misses_percent / 100.0)).collect();
            let nobody = !taps.iter().zip(&seen_by).any(|(tap, seen)| *seen && tap.shows(datagram));
            for (at, tap) in (0_u8..).zip(&taps) {
                let place = usize::from(at);
                let late_ns = self.delay(&mut random, at, tap);
                let is_seen = (seen_by[place] && tap.shows(datagram)) || (at == 0 && nobody);
                if !is_seen {
                    continue;
                }
                counted[place] += 1;
                let seen_ns = LEAD_NS + time_ns + late_ns;
                let clock_ns = START_NS + seen_ns;
                let (seen, look) = tap.view(datagram, at, clock_ns, counted[place]);
                let interface = if self.interfaces { u16::from(at) } else { 0 };
                let sighting = Sighting { sent, leg: tap.is_translated(), look: look.on(interface) };
                let shows = if *what == What::Other { Vec::new() } else { vec![sighting] };
                // Tunnels here have room for all.
                let frames = if tap.is_tunnelled() || datagram.payload.len() <= MTU - 48 {
                    vec![seen.ethernet()]
                } else {
                    seen.fragments(MTU - 48)
                };
                let count = frames.len();
                let whole = (count > 1).then_some(drafts.len() as u64);
                let apart_ns = spread(&mut random, 60_000);
                let mut time_ns = seen_ns;
                for (index, bytes) in (1..).zip(frames) {
                    let shows = if index == count { shows.clone() } else { Vec::new() };
                    drafts.push(Draft { time_ns, tap: at, interface, bytes, shows, whole });
                    time_ns += apart_ns;
                }
            }
        }
        if let Some(rpcap) = self.rpcap {
            let tunnelled: Vec<bool> = taps.iter().map(Tap::is_tunnelled).collect();
            let number = u8::try_from(taps.len()).unwrap_or(u8::MAX);
            let interface = if self.interfaces { u16::from(number) } else { 0 };
            let captured = drafts.iter().filter(|draft| !tunnelled[usize::from(draft.tap)]);
            let again = rpcap.capture(captured, number, interface, &mut random);
            drafts.extend(again);
        }
        drafts
    }
}

/// Goes through the frames in order and says what each is.
struct Judge<'a> {
    scene: &'a Scene,
    /// Of each transmission, on each side of a translator: its first frame, and the looks so far.
    seen: HashMap<(usize, bool), (u64, Vec<Look>)>,
    totals: Totals,
    calls: Vec<CallTruth>,
    /// By stream and leg: packets in order of their first sighting, and copies.
    media: HashMap<(usize, bool), (Vec<u32>, u64)>,
}

impl<'a> Judge<'a> {
    fn new(scene: &'a Scene) -> Self {
        let call = |call: &scene::Call| CallTruth {
            call_id: call.call_id.clone(),
            transfers: u64::from(call.transferred),
            ..CallTruth::default()
        };
        Self {
            scene,
            seen: HashMap::new(),
            totals: Totals::default(),
            calls: scene.calls.iter().map(call).collect(),
            media: HashMap::new(),
        }
    }

    fn judge(mut self, drafts: &[Draft], recording: &Recording) -> Truth {
        let mut frames = Vec::with_capacity(drafts.len());
        let ends: HashMap<u64, u64> = (1..)
            .zip(drafts)
            .filter(|(_, draft)| !draft.shows.is_empty())
            .filter_map(|(number, draft)| draft.whole.map(|whole| (whole, number)))
            .collect();
        for (number, draft) in (1..).zip(drafts) {
            let mut classes: Vec<_> = draft.shows.iter().map(|one| self.sighting(number, one)).collect();
            let holds = if classes.is_empty() { 1 } else { classes.len() };
            let class = if classes.is_empty() {
                let whole = draft.whole.and_then(|whole| ends.get(&whole));
                whole.map_or(Class::Other, |whole| Class::Part { whole: *whole })
            } else {
                // What is no copy decides.
                let news = classes.iter().position(|class| !matches!(class, Class::Copy { .. }));
                classes.swap_remove(news.unwrap_or(0))
            };
            frames.push(FrameTruth { class, holds });
        }
        self.totals.frames = drafts.len() as u64;
        let streams = self.streams();
        let findings = self.findings(recording, &streams);
        let mut taps: Vec<_> =
            std::iter::once(String::new()).chain(recording.taps.iter().map(Tap::to_string)).collect();
        taps.extend(recording.rpcap.map(|_| "rpcap".to_owned()));
        Truth { plan: None, taps, totals: self.totals, calls: self.calls, streams, findings, frames }
    }

    fn sighting(&mut self, number: u64, sighting: &Sighting) -> Class {
        let Sighting { sent, leg, look } = sighting;
        let Sent { what, repeats, .. } = self.scene.sent[*sent];
        let first_of = |seen: &HashMap<_, (u64, Vec<Look>)>, sent: usize, leg: bool| {
            seen.get(&(sent, leg)).map(|(first, _)| *first)
        };
        let is_tcp_again = matches!(repeats, Some((_, Again::Tcp)));
        if let Some((first, looks)) = self.seen.get_mut(&(*sent, *leg)) {
            let mut causes = look.cause_after(looks.iter()).into_iter();
            let (of, cause) = (*first, causes.next().unwrap_or("same-point"));
            looks.push(look.clone());
            if !is_tcp_again {
                self.count_copy(what, *leg, cause);
            }
            return Class::Copy { of, cause, others: causes.collect() };
        }
        let other_side = first_of(&self.seen, *sent, !leg);
        let original =
            repeats.and_then(|(of, why)| first_of(&self.seen, of, *leg).map(|number| (number, why)));
        self.seen.insert((*sent, *leg), (number, vec![look.clone()]));
        self.count_first(what, *leg, original.map(|(_, why)| why));
        match (original, other_side) {
            (Some((of, Again::Timer(timer))), _) => Class::Retransmission { of, timer },
            (Some((of, Again::Echo)), _) => Class::Echo { of },
            (Some((of, Again::Tcp)), _) => Class::TcpRetransmission { of },
            (None, Some(of)) => Class::Leg { of },
            (None, None) if matches!(what, What::Message { auth: Auth::Credentials, .. }) => Class::AuthRetry,
            (None, None) => Class::Unique,
        }
    }

    fn count_copy(&mut self, what: What, leg: bool, cause: &'static str) {
        self.totals.copies += 1;
        *self.totals.causes.entry(cause).or_default() += 1;
        match what {
            What::Message { call, .. } => {
                self.totals.sip_copies += 1;
                if let Some(call) = call {
                    self.calls[call].message_copies += 1;
                }
            }
            What::Media { stream, .. } => self.media.entry((stream, leg)).or_default().1 += 1,
            What::Other => {}
        }
    }

    fn count_first(&mut self, what: What, leg: bool, again: Option<Again>) {
        match what {
            What::Message { call, auth } => {
                // A registration counts in the totals, but in no call.
                let mut nobody = CallTruth::default();
                let call = call.map_or(&mut nobody, |call| &mut self.calls[call]);
                match again {
                    Some(Again::Tcp) => {
                        self.totals.tcp_retransmissions += 1;
                        return;
                    }
                    Some(Again::Timer(_)) => {
                        self.totals.retransmissions += 1;
                        call.retransmissions += 1;
                    }
                    Some(Again::Echo) => self.totals.echoes += 1,
                    None => {
                        self.totals.auth_challenges += u64::from(auth == Auth::Challenge);
                        call.auth_challenges += u64::from(auth == Auth::Challenge);
                    }
                }
                self.totals.sip_messages += 1;
                call.messages += 1;
            }
            What::Media { stream, packet } => self.media.entry((stream, leg)).or_default().0.push(packet),
            What::Other => {}
        }
    }

    fn streams(&self) -> Vec<StreamTruth> {
        let mut keys: Vec<_> = self.media.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter()
            .map(|key @ (stream, leg)| {
                let (packets, copies) = &self.media[&key];
                let first = packets.iter().min().copied().unwrap_or(0);
                let last = packets.iter().max().copied().unwrap_or(0);
                let mut highest = None;
                let mut late = 0;
                for packet in packets {
                    late += u64::from(highest.is_some_and(|highest| highest > packet));
                    highest = highest.max(Some(packet));
                }
                let facts = &self.scene.streams[stream];
                let (src, dst) = if leg {
                    let seen = taps::translated_ends(facts.src, facts.dst);
                    (seen.0, seen.1)
                } else {
                    (facts.src, facts.dst)
                };
                StreamTruth {
                    src: src.to_string(),
                    dst: dst.to_string(),
                    ssrc: format!("0x{:08x}", facts.ssrc),
                    call_id: facts.call.map(|call| self.scene.calls[call].call_id.clone()),
                    leg,
                    packets: packets.len() as u64,
                    lost: u64::from(last - first) + 1 - packets.len() as u64,
                    late,
                    copies: *copies,
                }
            })
            .collect()
    }

    fn findings(&self, recording: &Recording, streams: &[StreamTruth]) -> Vec<&'static str> {
        let every = streams.iter().all(|stream| stream.copies >= stream.packets);
        let own_transport = recording.rpcap.is_some() || recording.taps.iter().any(Tap::is_remote);
        [
            (every && !streams.is_empty(), "every-frame-copied"),
            (self.totals.sip_copies > 0, "copies-not-retransmissions"),
            (own_transport, "capture-includes-its-own-transport"),
            (self.totals.retransmissions > 0, "real-retransmissions"),
            (self.totals.auth_challenges > 0, "authentication-retry"),
        ]
        .into_iter()
        .filter_map(|(holds, id)| holds.then_some(id))
        .collect()
    }
}
