//! Shards: who owns which stream, and how packets get there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::account::{Account, Loss};
use super::cpus::{self, Cpus};
use super::shed::Resumed;
use super::table::{End, Limits, StreamTable};
use super::wheel::Part;
use crate::decode::CarrierReport;
use crate::dedup::FrameClass;
use crate::packet::{Encapsulation, MediaId, Nanos, RtpPacket};
use crate::rtp::StreamKey;
use crate::rtp::codec::Announcement;
use crate::rtp::stream::{IntervalSummary, StreamParts, TapPart, Totals};
use crate::sip::CallEvent;

/// Packets handed over at once: a hand-off costs a cache line or two, whatever it carries.
const BATCH: usize = 128;
/// Batches that may wait for a shard: 64 of 128 packets of 120 bytes are 1 MiB, and 8 ms at 1 Mpps.
const QUEUE: usize = 64;
/// How long an idle shard sleeps before it looks whether the receive thread is still there. What that hands over wakes it.
const NAP: Duration = Duration::from_millis(250);

/// What shards tell the control plane. Rare: per stream and interval, never per packet.
#[derive(Debug)]
pub enum Event {
    /// A stream's interval.
    Interval(Box<IntervalLine>),
    /// A stream's end.
    Ended(Box<StreamParts>, End),
    /// All lines of a shard's part in a round were sent.
    RoundDone(ShardStatus),
    /// A shard is empty and gone.
    Finished(ShardStatus),
    /// The receiver's own figures, at the end of a round.
    Receiver(ReceiverStatus),
    /// A call changed.
    Call(CallEvent),
    /// Something carries packets that was not seen before.
    Carrier(CarrierReport),
    /// What receivers reported in the interval whose lines come next.
    Reports(Vec<crate::rtcp::News>),
}

/// The receiver's own figures.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverStatus {
    /// Which round: they are numbered, because events can be dropped.
    pub round: u64,
    /// Which interval it is of, from 1.
    pub interval: u64,
    /// Whose lines it had.
    pub part: Part,
    /// When it was, by the clock that stamps frames.
    pub now: Nanos,
    /// Since the start; without what shards analysed.
    pub account: Account,
    /// Calls that are not over.
    pub calls: u64,
    /// The receiver's own events that nobody took in time, since the start.
    pub events_dropped: u64,
    /// Announced media for which there was no room here or in the kernel's table, since the start.
    pub announcements_given_up: u64,
}

/// A shard's own figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardStatus {
    /// Whose, from 0.
    pub shard: usize,
    /// Its last round, from 1.
    pub round: u64,
    /// Packets analysed since the start.
    pub analysed: u64,
    /// Streams now.
    pub streams: usize,
    /// Streams that had to make room since the start.
    pub evicted: u64,
    /// Events that nobody took in time: lines that the log lacks.
    pub events_dropped: u64,
}

/// One stream in one interval, for a health line.
#[derive(Clone, Debug)]
pub struct IntervalLine {
    /// Which round.
    pub round: u64,
    /// Whose.
    pub key: StreamKey,
    /// Place in the order of appearance.
    pub number: u64,
    /// What its first packet came in.
    pub encapsulation: Encapsulation,
    /// Codec name, if known.
    pub codec: Option<String>,
    /// Its format parameters in the SDP.
    pub codec_parameters: Option<String>,
    /// The payload type that the stream is about.
    pub payload_type: u8,
    /// What the signalling said.
    pub announcement: Arc<Announcement>,
    /// The interval.
    pub summary: IntervalSummary,
    /// Since the stream began.
    pub lifetime: Totals,
    /// Lost percent since the stream began, as tshark would say.
    pub raw_lost_percent: f64,
    /// Burst ratio since the stream began.
    pub burst_ratio: f64,
    /// How quality is judged.
    pub settings: Arc<crate::rtp::quality::Settings>,
    /// Copies since the stream began, by cause.
    pub causes: Vec<crate::dedup::stats::CauseReport>,
    /// The taps that see it, if there are several.
    pub taps: Vec<TapPart>,
}

/// What a shard's thread is told.
enum Message {
    Epoch(Nanos),
    Announce(MediaId, Arc<Announcement>),
    Packets(Vec<RtpPacket>),
    CloseIntervals(Part, Nanos, u64),
    EndShed(Resumed),
    Finish,
}

/// What to do with packets for which a shard has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Count them as [`Loss::ShardQueueFull`]: the frames of a live source do not wait.
    Lose,
    /// Wait: a file does.
    Wait,
}

impl Overflow {
    /// Sends an event; 1 if it could not be.
    fn emit(self, events: &Sender<Event>, event: Event) -> u64 {
        let is_sent = match self {
            Self::Lose => events.try_send(event).is_ok(),
            Self::Wait => events.send(event).is_ok(),
        };
        u64::from(!is_sent)
    }
}

/// The receive thread's side of all shards.
pub struct Shards {
    lanes: Lanes,
    overflow: Overflow,
    lost: Account,
}

enum Lanes {
    /// One shard, run by the receive thread itself: no hand-off at all.
    Inline(Box<Shard>),
    Threads(Vec<Lane>),
}

struct Lane {
    batch: Vec<RtpPacket>,
    to: rtrb::Producer<Message>,
    /// Emptied batches come back, so that the steady state allocates nothing.
    back: rtrb::Consumer<Vec<RtpPacket>>,
    /// Streams that the shard holds, as it said last.
    streams: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Shards {
    /// `count` shards that share `limits.streams` and report to `events`.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        count: usize,
        limits: Limits,
        overflow: Overflow,
        events: &Sender<Event>,
    ) -> Result<Self, std::io::Error> {
        Self::start_on(&Cpus::default(), count, limits, overflow, events)
    }

    /// The same with each thread on a CPU of its own, if there is one for it.
    ///
    /// # Errors
    /// If the system refuses a thread or its CPU.
    pub fn start_on(
        cpus: &Cpus,
        count: usize,
        limits: Limits,
        overflow: Overflow,
        events: &Sender<Event>,
    ) -> Result<Self, std::io::Error> {
        let count = count.max(1);
        let limits = Limits { streams: (limits.streams / count).max(1), ..limits };
        let lanes = if count == 1 {
            Lanes::Inline(Box::new(Shard::new(0, limits, overflow, events.clone())))
        } else {
            let shard = |index| Shard::new(index, limits.clone(), overflow, events.clone());
            let lane = |index| Lane::start(shard(index), cpus.shard(index));
            Lanes::Threads((0..count).map(lane).collect::<Result<_, _>>()?)
        };
        Ok(Self { lanes, overflow, lost: Account::default() })
    }

    /// Has one packet analysed now, and says what it is. With several shards nobody knows yet.
    pub fn packet(&mut self, packet: &RtpPacket) -> FrameClass {
        if let Lanes::Inline(shard) = &mut self.lanes {
            return shard.packet(packet);
        }
        self.packets(&mut vec![*packet]);
        FrameClass::Other
    }

    /// Hands over a batch, which is empty then. Its memory is asked for ahead.
    #[inline]
    pub fn packets(&mut self, batch: &mut Vec<RtpPacket>) {
        match &mut self.lanes {
            Lanes::Inline(shard) => {
                shard.packets(batch);
                batch.clear();
            }
            Lanes::Threads(lanes) => {
                for packet in batch.drain(..) {
                    let at = share_of(packet.flow.hash(), lanes.len());
                    if let Some(lane) = lanes.get_mut(at) {
                        lane.batch.push(packet);
                        if lane.batch.len() == BATCH {
                            lane.flush(self.overflow, &mut self.lost);
                        }
                    }
                }
            }
        }
    }

    /// Hands over what waits for a batch to fill. Called when the source has nothing more for now.
    pub fn flush(&mut self) {
        if let Lanes::Threads(lanes) = &mut self.lanes {
            for lane in lanes {
                lane.flush(self.overflow, &mut self.lost);
            }
        }
    }

    /// Sets the time from which raw ledgers count; before the first packet.
    pub fn set_epoch(&mut self, epoch: Nanos) {
        self.tell(|shard| shard.table.set_epoch(epoch), || Message::Epoch(epoch));
    }

    /// What a media id stands for; before the first packet that carries it.
    pub fn announce(&mut self, media: MediaId, announcement: &Arc<Announcement>) {
        self.tell(
            |shard| shard.table.announce(media, Arc::clone(announcement)),
            || Message::Announce(media, Arc::clone(announcement)),
        );
    }

    /// Closes the interval of every stream of a part, and ends its silent ones: between the packets that came before
    /// and those that come after, in every shard.
    pub fn close_intervals(&mut self, part: Part, now: Nanos, round: u64) {
        self.tell(
            |shard| shard.close_intervals(part, now, round),
            || Message::CloseIntervals(part, now, round),
        );
    }

    /// Streams that are held, about.
    pub fn streams(&self) -> usize {
        match &self.lanes {
            Lanes::Inline(shard) => shard.table.len(),
            // Relaxed: a number to go by, which nothing hangs on.
            Lanes::Threads(lanes) => lanes.iter().map(|lane| lane.streams.load(Ordering::Relaxed)).sum(),
        }
    }

    /// Sessions that were shed come back: their streams end when they do.
    pub fn end_shed(&mut self, resumed: Resumed) {
        self.tell(|shard| shard.table.end_shed(resumed), || Message::EndShed(resumed));
    }

    /// What shards could not take so far.
    pub fn lost(&self) -> &Account {
        &self.lost
    }

    /// Has a shard's thread ended before it was told to? What it held is gone, and what is its is not analysed.
    pub fn has_failed(&self) -> bool {
        match &self.lanes {
            Lanes::Inline(_) => false,
            Lanes::Threads(lanes) => lanes.iter().any(|lane| lane.thread.is_finished()),
        }
    }

    /// Ends all streams and threads. Returns the account of what shards could not take, and the names of those
    /// threads that had failed.
    pub fn finish(mut self) -> (Account, Vec<String>) {
        self.tell(Shard::finish, || Message::Finish);
        let mut failed = Vec::new();
        if let Lanes::Threads(lanes) = self.lanes {
            for lane in lanes {
                let name = lane.thread.thread().name().unwrap_or("a shard").to_owned();
                // The panic itself has been printed by its thread.
                if lane.thread.join().is_err() {
                    failed.push(name);
                }
            }
        }
        (self.lost, failed)
    }

    /// Does `inline` on the one shard, or sends `message` to each, after the packets that came before.
    fn tell(&mut self, inline: impl FnOnce(&mut Shard), message: impl Fn() -> Message) {
        match &mut self.lanes {
            Lanes::Inline(shard) => inline(shard),
            Lanes::Threads(lanes) => {
                for lane in lanes {
                    lane.flush(self.overflow, &mut self.lost);
                    lane.send_or_wait(message());
                }
            }
        }
    }
}

/// Whose a flow with this hash is, of so many: all of it, hence all copies of its packets, are one's.
#[inline]
pub(super) fn share_of(hash: u64, shares: usize) -> usize {
    let scaled = ((hash >> 32) * shares as u64) >> 32;
    usize::try_from(scaled).unwrap_or(0)
}

impl Lane {
    fn start(mut shard: Shard, cpu: Option<usize>) -> Result<Self, std::io::Error> {
        let (to, mut from) = rtrb::RingBuffer::new(QUEUE);
        let (mut give_back, back) = rtrb::RingBuffer::new(QUEUE);
        let streams = Arc::new(AtomicUsize::new(0));
        let held = Arc::clone(&streams);
        let thread = cpus::spawn(format!("vox-shard-{}", shard.index), cpu, move || {
            loop {
                match from.pop() {
                    Ok(Message::Packets(mut batch)) => {
                        shard.packets(&batch);
                        held.store(shard.table.len(), Ordering::Relaxed);
                        batch.clear();
                        // No room to give it back: it is freed, and the receiver makes another.
                        let _ = give_back.push(batch);
                    }
                    Ok(Message::Epoch(epoch)) => shard.table.set_epoch(epoch),
                    Ok(Message::Announce(media, announcement)) => shard.table.announce(media, announcement),
                    Ok(Message::CloseIntervals(part, now, round)) => {
                        shard.close_intervals(part, now, round);
                        held.store(shard.table.len(), Ordering::Relaxed);
                    }
                    Ok(Message::EndShed(resumed)) => shard.table.end_shed(resumed),
                    Ok(Message::Finish) => break shard.finish(),
                    Err(rtrb::PopError::Empty) if from.is_abandoned() => break shard.finish(),
                    Err(rtrb::PopError::Empty) => thread::park_timeout(NAP),
                }
            }
        })?;
        Ok(Self { batch: Vec::with_capacity(BATCH), to, back, streams, thread })
    }

    fn flush(&mut self, overflow: Overflow, lost: &mut Account) {
        if self.batch.is_empty() {
            return;
        }
        if self.to.is_abandoned() || overflow == Overflow::Lose && self.to.is_full() {
            lost.lose(Loss::ShardQueueFull, self.batch.len() as u64);
            self.batch.clear();
            return;
        }
        let empty = self.back.pop().unwrap_or_else(|_| Vec::with_capacity(BATCH));
        let batch = std::mem::replace(&mut self.batch, empty);
        self.send_or_wait(Message::Packets(batch));
    }

    /// Waits for room if there is none: control messages are few, and must not be lost.
    fn send_or_wait(&mut self, mut message: Message) {
        while let Err(rtrb::PushError::Full(returned)) = self.to.push(message) {
            if self.to.is_abandoned() {
                return;
            }
            message = returned;
            self.thread.thread().unpark();
            thread::yield_now();
        }
        self.thread.thread().unpark();
    }
}

/// One shard: a table and its way to the control plane.
pub(super) struct Shard {
    index: usize,
    table: StreamTable,
    overflow: Overflow,
    events: Sender<Event>,
    round: u64,
    analysed: u64,
    events_dropped: u64,
}

impl Shard {
    pub(super) fn new(index: usize, limits: Limits, overflow: Overflow, events: Sender<Event>) -> Self {
        let table = StreamTable::new(limits);
        Self { index, table, overflow, events, round: 0, analysed: 0, events_dropped: 0 }
    }

    fn packet(&mut self, packet: &RtpPacket) -> FrameClass {
        self.analysed += 1;
        let (class, evicted) = self.table.observe(packet);
        if let Some(evicted) = evicted {
            self.emit(Event::Ended(Box::new(evicted), End::Evicted));
        }
        class
    }

    pub(super) fn set_epoch(&mut self, epoch: Nanos) {
        self.table.set_epoch(epoch);
    }

    pub(super) fn announce(&mut self, media: MediaId, announcement: Arc<Announcement>) {
        self.table.announce(media, announcement);
    }

    pub(super) fn packets(&mut self, packets: &[RtpPacket]) {
        self.analysed += packets.len() as u64;
        let Self { table, events, overflow, events_dropped, .. } = self;
        table.observe_batch(packets, |evicted| {
            *events_dropped += overflow.emit(events, Event::Ended(Box::new(evicted), End::Evicted));
        });
        self.tell_shed();
    }

    fn close_intervals(&mut self, part: Part, now: Nanos, round: u64) {
        self.round = round;
        let Self { table, events, events_dropped, .. } = self;
        let mut emit = |event| *events_dropped += u64::from(events.try_send(event).is_err());
        table.sweep(part, now, |ended| emit(Event::Ended(Box::new(ended), End::Silent)));
        table.close_intervals(part, |stream, summary| {
            // One that was silent has nothing to tell; its end will be told when it is one.
            if summary.totals.frames > 0 {
                emit(Event::Interval(Box::new(IntervalLine::of(stream, summary, round))));
            }
        });
        let status = self.status();
        self.emit(Event::RoundDone(status));
    }

    /// Tells the streams that were shed and have come back as others.
    fn tell_shed(&mut self) {
        for parts in self.table.take_shed() {
            self.emit(Event::Ended(Box::new(parts), End::Shed));
        }
    }

    /// The last words are not dropped: whoever listens waits for them.
    pub(super) fn finish(&mut self) {
        let Self { table, events, .. } = self;
        table.finish(|parts| {
            let _ = events.send(Event::Ended(Box::new(parts), End::Finished));
        });
        let _ = self.events.send(Event::Finished(self.status()));
    }

    fn status(&self) -> ShardStatus {
        ShardStatus {
            shard: self.index,
            round: self.round,
            analysed: self.analysed,
            streams: self.table.len(),
            evicted: self.table.evicted(),
            events_dropped: self.events_dropped,
        }
    }

    fn emit(&mut self, event: Event) {
        self.events_dropped += self.overflow.emit(&self.events, event);
    }
}

impl IntervalLine {
    fn of(stream: &crate::rtp::Stream, summary: IntervalSummary, round: u64) -> Self {
        Self {
            round,
            key: *stream.key(),
            number: stream.number(),
            encapsulation: stream.encapsulation(),
            codec: stream.codec().map(ToOwned::to_owned),
            payload_type: stream.main_payload_type(),
            codec_parameters: stream.codec_parameters().map(ToOwned::to_owned),
            announcement: Arc::clone(stream.announcement()),
            summary,
            lifetime: stream.totals(),
            raw_lost_percent: stream.raw_report().lost_percent,
            burst_ratio: stream.quality().burst_ratio(),
            settings: Arc::clone(stream.quality().settings()),
            causes: stream.causes(),
            taps: stream.several_taps(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::testing::packet;

    fn limits() -> Limits {
        Limits { streams: 100, idle: None, quality: Arc::default() }
    }

    #[test]
    fn a_shard_that_dies_is_seen_and_named() {
        let (sender, events) = crossbeam_channel::bounded(1_024);
        let mut shards = Shards::start(2, limits(), Overflow::Lose, &sender).unwrap();
        drop(sender);
        assert!(!shards.has_failed());
        let dead = thread::Builder::new().name("vox-shard-1".to_owned());
        let dead = dead.spawn(|| std::panic::resume_unwind(Box::new("a test's"))).unwrap();
        let Lanes::Threads(lanes) = &mut shards.lanes else { panic!("two shards are threads") };
        let (to, from) = rtrb::RingBuffer::new(QUEUE);
        drop(from);
        (lanes[1].thread, lanes[1].to) = (dead, to);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !shards.has_failed() {
            assert!(std::time::Instant::now() < deadline, "it was not seen");
            thread::yield_now();
        }
        let mut theirs = 0;
        for port in 0..64 {
            let mut packet = packet(1);
            packet.send_from(port);
            theirs += u64::from(share_of(packet.flow.hash(), 2) == 1);
            shards.packet(&packet);
        }
        let (lost, failed) = shards.finish();
        assert_eq!(failed, ["vox-shard-1"]);
        assert_eq!((lost.lost_to(Loss::ShardQueueFull), theirs > 0), (theirs, true));
        drop(events);
    }

    /// The lines of 90 streams, of which each round closes a part, in an order that does not tell who sent them.
    fn lines_of(shards: usize) -> Vec<String> {
        let (sender, events) = crossbeam_channel::unbounded();
        let limits = Limits { streams: 1_000, ..limits() };
        let mut shards = Shards::start(shards, limits, Overflow::Wait, &sender).unwrap();
        drop(sender);
        let mut round = 0;
        for number in 1..=90 * 60_u64 {
            let mut packet = RtpPacket { number, ..packet(number / 90) };
            packet.send_from(u16::try_from(2_000 + number % 90).unwrap());
            shards.packets(&mut vec![packet]);
            if number % 100 == 0 {
                round += 1;
                let part = Part { index: u16::try_from(round % 8).unwrap(), of: 8 };
                shards.close_intervals(part, packet.time, round);
            }
        }
        shards.finish();
        let line = |event| match event {
            Event::Interval(line) => Some(format!("{line:?}")),
            _ => None,
        };
        let mut lines: Vec<_> = events.iter().filter_map(line).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn lines_are_the_same_however_many_shards_there_are() {
        let lines = lines_of(1);
        assert!(lines.len() > 500, "{}", lines.len());
        assert!(lines == lines_of(3), "they are not");
    }

    #[test]
    fn a_stream_without_frames_in_an_interval_sends_no_line() {
        let (sender, events) = crossbeam_channel::bounded(16);
        let mut shards = Shards::start(1, limits(), Overflow::Lose, &sender).unwrap();
        for seq in 1..=3 {
            shards.packet(&packet(seq));
        }
        shards.close_intervals(Part::WHOLE, packet(4).time, 1);
        shards.close_intervals(Part::WHOLE, packet(5).time, 2);
        let rounds: Vec<_> = events
            .try_iter()
            .map(|event| match event {
                Event::Interval(line) => ("line", line.round),
                Event::RoundDone(status) => ("done", status.round),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(rounds, [("line", 1), ("done", 1), ("done", 2)]);
    }
}
