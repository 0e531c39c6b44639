//! The receive thread's work: frame by frame, to signalling or to a shard.
//!
//! Signalling is read here, before the next frame, so that an SDP takes effect at once: in the table that
//! tells media from other UDP, in the kernel's map, and deterministically in files. SIP is rare; the price is
//! paid only by it.

mod settle;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;

use super::account::{Account, Loss};
use super::flows::Flows;
use super::outlet::Outlet;
use super::shard::{Event, ReceiverStatus, Shards};
use super::shed::Resumed;
use super::wheel::Part;
use crate::capture::file::Frame;
use crate::capture::live::{KernelEndpoints, Record};
use crate::decode::{self, CarrierReport, Census, Datagram, Decoded, Decoder, RemoteCapture, Tunnels};
use crate::dedup::cluster::{Clusters, Key, Seen};
use crate::dedup::{Classes, FrameClass};
use crate::memo::AHEAD;
use crate::packet::{Endpoint, MediaId, Nanos, RtpPacket};
use crate::rtcp;
use crate::rtp::codec::{Announcement, Payload, static_payload};
use crate::rtp::demux::{Demux, Other};
use crate::sip::signalling::Told;
use crate::sip::{EndpointChange, MediaInfo, Signalling, SignallingReport, Transcript, Transport};
use probe_ebpf::Verdict;

/// RTCP reports remembered for the classes of frames, and for how long: a copy is never later.
const MAX_REPORTS: usize = 16_384;
const REPORT_MEMORY: Duration = Duration::from_secs(2);

/// Lines whose fax is counted: a gateway has hundreds of fax calls a day.
const MAX_FAX_LINES: usize = 16_384;

/// Who follows the announced endpoints and the learned carriers: the kernel's map, or nobody.
pub trait EndpointSink {
    /// A media line was announced.
    fn insert(&mut self, endpoint: Endpoint);
    /// It is over.
    fn remove(&mut self, endpoint: Endpoint);
    /// A TCP endpoint was found to carry captured frames: an rpcap data connection's.
    fn insert_carrier(&mut self, _endpoint: Endpoint) {}
    /// It is over.
    fn remove_carrier(&mut self, _endpoint: Endpoint) {}
    /// Announcements that it could not follow.
    fn refused(&self) -> u64 {
        0
    }
}

impl EndpointSink for KernelEndpoints {
    fn insert(&mut self, endpoint: Endpoint) {
        // A full map is counted there, and reported at the end.
        Self::insert(self, endpoint);
    }

    fn remove(&mut self, endpoint: Endpoint) {
        Self::remove(self, endpoint);
    }

    fn insert_carrier(&mut self, endpoint: Endpoint) {
        Self::insert_carrier(self, endpoint);
    }

    fn remove_carrier(&mut self, endpoint: Endpoint) {
        Self::remove_carrier(self, endpoint);
    }

    fn refused(&self) -> u64 {
        self.failed()
    }
}

impl EndpointSink for () {
    fn insert(&mut self, _: Endpoint) {}
    fn remove(&mut self, _: Endpoint) {}
}

/// Packets that wait to be given their lines together: look-ups that follow each other closely wait for memory together, and
/// those between much other work one by one. So many stay in the first-level cache.
const BATCH: usize = 32;

/// See the module.
pub struct Receiver<S, O = Shards> {
    decoder: Decoder,
    analysis: Analysis<S, O>,
    number: u64,
    round: u64,
    interval: u64,
    sip_frames_cut: u64,
    first: Option<Nanos>,
    last: Nanos,
}

/// Everything behind the decoder; apart from it, because what it decoded is lent from its buffers.
struct Analysis<S, O> {
    signalling: Signalling,
    beside: Beside,
    outlet: O,
    /// Packets that have no line yet. What could change the table gives them theirs first ([`Self::settle`]), so that
    /// each has the line of its place in the capture.
    waiting: Vec<RtpPacket>,
    flows: Flows,
    sink: S,
    events: Sender<Event>,
    events_dropped: u64,
    account: Account,
    /// Media ids that the shards know, by slot.
    announced: FxHashMap<u32, MediaId>,
    /// What each frame is, if anybody asks.
    classes: Option<Classes>,
    /// Reports of RTCP, for the same.
    reports: Clusters<Key, ()>,
}

/// What belongs to the media and is not RTP: joined to the streams when they are reported.
#[derive(Debug, Default)]
pub struct Beside {
    /// RTCP.
    pub rtcp: rtcp::Tracker,
    /// STUN, DTLS and the like.
    pub demux: Demux,
    /// Datagrams of T.38 fax by the line that they came to, or from.
    pub fax: FxHashMap<MediaId, u64>,
}

/// What is left when the receiver has finished.
pub struct Remains {
    /// Calls and message counts.
    pub signalling: SignallingReport,
    /// RTCP, and what else came beside the media.
    pub beside: Beside,
    /// The receiver's account. What shards analysed is in their last [`Event::Finished`].
    pub account: Account,
    /// Names of shard threads that ended by themselves.
    pub failed_shards: Vec<String>,
    /// The receiver's own events that nobody took in time.
    pub events_dropped: u64,
    /// Frames with SIP that is not whole because the frame was cut.
    pub sip_frames_cut: u64,
    /// Announced endpoints that the sink could not follow.
    pub endpoints_refused: u64,
    /// What carried tunnelled datagrams, by number from 1: what [`crate::packet::Evidence::carrier`] refers to.
    pub carriers: Vec<CarrierReport>,
    /// Frames of carriers for which there was no room; they have the last one's number.
    pub carriers_shared: u64,
    /// Tunnels that were opened, and refused.
    pub tunnels: Census,
    /// Remote captures that were themselves captured.
    pub remote_captures: Vec<RemoteCapture>,
    /// Time of the first frame.
    pub first: Option<Nanos>,
    /// Time of the last.
    pub last: Nanos,
    /// What each frame is, if that was asked for.
    pub classes: Option<Classes>,
    /// What was said in calls, if that was asked for.
    pub transcript: Option<Transcript>,
}

impl<S: EndpointSink, O: Outlet> Receiver<S, O> {
    /// A receiver that hands media to `outlet`, announced endpoints to `sink`, and news of calls to `events`, and remembers so
    /// many flows.
    pub fn new(
        decoder: Decoder,
        signalling: Signalling,
        outlet: O,
        sink: S,
        events: Sender<Event>,
        flows: usize,
    ) -> Self {
        let analysis = Analysis {
            signalling,
            beside: Beside::default(),
            outlet,
            waiting: Vec::with_capacity(BATCH),
            flows: Flows::new(flows),
            sink,
            events,
            events_dropped: 0,
            account: Account::default(),
            announced: FxHashMap::default(),
            classes: None,
            reports: Clusters::new(MAX_REPORTS, REPORT_MEMORY),
        };
        let (first, last) = (None, Nanos::default());
        Self { decoder, analysis, number: 0, round: 0, interval: 0, sip_frames_cut: 0, first, last }
    }

    /// Notes what each frame is, for [`Remains::classes`]. With one shard only: others answer too late.
    #[must_use]
    pub fn classifying(mut self) -> Self {
        self.analysis.classes = Some(Classes::default());
        self
    }

    /// Keeps what is said in the calls of `transcript`, for [`Remains::transcript`].
    #[must_use]
    pub fn transcribing(mut self, transcript: Transcript) -> Self {
        self.analysis.signalling = self.analysis.signalling.transcribing(transcript);
        self
    }

    /// Takes one frame of a file. What the filter does not match is only counted, as its verdict.
    pub fn frame(&mut self, frame: &Frame<'_>) -> Verdict {
        self.begin(frame.time);
        self.analysis.settle();
        let decoded = self.decoder.frame(frame, self.analysis.signalling.media());
        let verdict = decoded.verdict();
        self.analysis.account.matched += u64::from(verdict.is_matched());
        let is_carrier = decoded == Decoded::Carrier;
        self.analysis.take(decoded);
        if verdict == Verdict::Tunnel {
            self.unpack(is_carrier);
        }
        if let Some(classes) = &mut self.analysis.classes {
            for part in self.decoder.take_parts() {
                classes.note_part(part, frame.number);
            }
        }
        verdict
    }

    /// What else comes of a tunnel's frame: the datagrams of a byte stream, each a unit of its own, and news of carriers.
    #[cold]
    fn unpack(&mut self, is_carrier: bool) {
        let Self { decoder, analysis, .. } = self;
        while is_carrier && let Some(decoded) = decoder.more(analysis.signalling.media()) {
            // What is refused at last is not ours.
            if decoded.verdict().is_matched() {
                analysis.account.matched += 1;
                analysis.account.unpacked += 1;
                analysis.take(decoded);
                analysis.settle();
            }
        }
        for carrier in decoder.take_new_carriers() {
            analysis.emit(Event::Carrier(*carrier));
        }
        for change in decoder.drain_carrier_changes() {
            match change {
                EndpointChange::Added(endpoint) => analysis.sink.insert_carrier(endpoint),
                EndpointChange::Removed(endpoint) => analysis.sink.remove_carrier(endpoint),
            }
        }
    }

    fn begin(&mut self, time: Nanos) {
        self.last = time;
        if self.first.is_none() {
            self.first = Some(time);
            self.analysis.outlet.set_epoch(time);
        }
    }

    fn settle_fragments(&mut self) {
        let account = &mut self.analysis.account;
        account.analysed += self.decoder.take_completed_fragments();
        account.lose(Loss::FragmentIncomplete, self.decoder.take_lost_fragments());
    }

    /// Ends all streams and threads.
    pub fn finish(mut self) -> Remains {
        self.decoder.finish();
        self.settle_fragments();
        self.analysis.settle();
        self.analysis.signalling.finish();
        self.analysis.follow_signalling();
        let Analysis { mut signalling, beside, outlet, mut account, sink, events_dropped, classes, .. } =
            self.analysis;
        let (lost, failed_shards) = outlet.finish();
        account.merge(&lost);
        let Tunnels { census, carriers, carriers_shared, remote_captures } = self.decoder.into_tunnels();
        Remains {
            carriers,
            carriers_shared,
            tunnels: census,
            remote_captures,
            signalling: signalling.report(),
            beside,
            account,
            failed_shards,
            events_dropped,
            sip_frames_cut: self.sip_frames_cut,
            endpoints_refused: sink.refused(),
            first: self.first,
            last: self.last,
            classes,
            transcript: signalling.take_transcript(),
        }
    }
}

/// Live.
impl<S: EndpointSink> Receiver<S> {
    /// Takes one record of the kernel's. Each was matched there, so it is analysed or lost.
    pub fn record(&mut self, record: Record<'_>) {
        self.number += 1;
        self.begin(Nanos(record.time_ns()));
        let analysis = &mut self.analysis;
        match record {
            Record::Media4(head) => analysis.media(decode::from_media4(head, self.number)),
            Record::Media6(head) => analysis.media(decode::from_media6(head, self.number)),
            Record::Packet(head, bytes) => {
                analysis.settle();
                let is_suspect = head.verdict == Verdict::Tunnel as u8;
                let is_sip = [Verdict::SipUdp as u8, Verdict::SipTcp as u8].contains(&head.verdict);
                self.sip_frames_cut += u64::from(is_sip && head.captured_len < head.wire_len);
                match self.decoder.packet(head, bytes, self.number, analysis.signalling.media()) {
                    // No tunnel after all, and nothing else for us.
                    Decoded::Nothing(_) if is_suspect => analysis.account.analysed += 1,
                    // The same parser refuses here what it took there: the bytes are not the same.
                    Decoded::Nothing(
                        Verdict::NotIp | Verdict::Truncated | Verdict::Malformed | Verdict::TooDeep,
                    ) => analysis.account.lose(Loss::Undecodable, 1),
                    // A reassembled datagram that is not ours, or media whose line went since.
                    Decoded::Nothing(_) => analysis.account.analysed += 1,
                    decoded => {
                        let (verdict, is_carrier) = (decoded.verdict(), decoded == Decoded::Carrier);
                        // The kernel matched it, whatever it is now.
                        analysis.account.analysed += u64::from(!verdict.is_matched());
                        analysis.take(decoded);
                        if verdict == Verdict::Tunnel {
                            self.unpack(is_carrier);
                        }
                    }
                }
            }
        }
    }

    /// Time of the newest record.
    pub fn newest(&self) -> Nanos {
        self.last
    }

    /// The source has nothing more for now.
    pub fn flush(&mut self) {
        self.analysis.settle();
        self.analysis.outlet.flush();
    }

    /// Lets time pass: for calls that fall silent, and for lines whose calls have ended.
    pub fn advance(&mut self, now: Nanos) {
        self.analysis.settle();
        self.analysis.signalling.advance(now);
        self.analysis.follow_signalling();
    }

    /// Streams that are held, about.
    pub fn streams(&self) -> usize {
        self.analysis.outlet.streams()
    }

    /// Does the control plane keep up, so that there is room for the lines of a round?
    pub fn is_heard(&self) -> bool {
        let events = &self.analysis.events;
        events.capacity().is_none_or(|capacity| events.len() <= capacity / 2)
    }

    /// Closes the interval of a part of the streams: each reports, and then so does this.
    pub fn close_round(&mut self, part: Part, now: Nanos) {
        self.settle_fragments();
        self.advance(now);
        self.round += 1;
        if part.is_first() {
            self.interval += 1;
            let news = self.analysis.beside.rtcp.take_news();
            if !news.is_empty() {
                self.analysis.emit(Event::Reports(news));
            }
        }
        self.analysis.outlet.close_intervals(part, now, self.round);
        let Analysis { signalling, outlet, account, events_dropped, sink, .. } = &self.analysis;
        let media = signalling.media();
        let mut status = ReceiverStatus {
            round: self.round,
            interval: self.interval,
            part,
            now,
            account: *account,
            calls: signalling.calls().live() as u64,
            events_dropped: *events_dropped,
            announcements_given_up: media.evicted() + media.given_up() + sink.refused(),
        };
        status.account.merge(outlet.lost());
        self.analysis.emit(Event::Receiver(status));
    }

    /// Ends the streams of sessions that were shed, before they come back.
    pub fn end_shed(&mut self, resumed: Resumed) {
        self.analysis.settle();
        self.analysis.outlet.end_shed(resumed);
    }

    /// Packets that shards could not take, since the start.
    pub fn lost_by_shards(&self) -> u64 {
        self.analysis.outlet.lost().lost()
    }

    /// Has a shard ended by itself? Then so should the run.
    pub fn has_failed(&self) -> bool {
        self.analysis.outlet.has_failed()
    }
}

impl<S: EndpointSink, O: Outlet> Analysis<S, O> {
    fn take(&mut self, decoded: Decoded<'_>) {
        match decoded {
            Decoded::Rtp(packet) => self.media(packet),
            Decoded::Sip(datagram) => {
                self.account.analysed += 1;
                let transport = datagram.tcp_seq.map_or(Transport::Udp, |seq| Transport::Tcp { seq });
                let Datagram { time, number, flow, evidence, payload, claimed, .. } = datagram;
                self.signalling.observe_part(time, number, flow, transport, &evidence, payload, claimed);
                self.note(number, self.signalling.class());
                self.follow_signalling();
            }
            Decoded::Tls(datagram, seq) => {
                self.account.analysed += 1;
                let Datagram { time, number, flow, evidence, payload, claimed, .. } = datagram;
                self.signalling.observe_tls(time, number, flow, seq, &evidence, payload, claimed);
                self.note(number, self.signalling.class());
                self.follow_signalling();
            }
            Decoded::Rtcp(datagram) => {
                self.account.analysed += 1;
                self.beside.rtcp.observe(&datagram);
                self.note_report(&datagram);
            }
            Decoded::Beside { datagram, is_announced } => {
                self.account.analysed += u64::from(decoded.verdict().is_matched());
                let other = self.beside.demux.observe(&datagram.flow, datagram.payload, is_announced);
                if other == Other::Udptl && is_announced {
                    self.fax(&datagram);
                }
            }
            // A segment whose content comes after it, or a tunnel without anything for us in it: it was read.
            Decoded::Carrier | Decoded::Nothing(_) => {
                self.account.analysed += u64::from(decoded.verdict().is_matched());
            }
            Decoded::Held(_) => {}
        }
    }

    /// Full: the control plane is behind, and gets the next one. What it lacks is counted.
    fn emit(&mut self, event: Event) {
        self.events_dropped += u64::from(self.events.try_send(event).is_err());
    }

    /// Gives all packets so far their lines, and to the outlet: before anything that may change the media table, or asks it.
    fn settle(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for packets in waiting.chunks_mut(AHEAD) {
            let numbers = self.flows.ask_ahead(packets.iter().map(|packet| packet.flow.hash().into()));
            for (packet, at) in packets.iter_mut().zip(numbers) {
                let media = self.signalling.media_mut();
                let (media, is_new) = self.flows.line(media, &packet.flow, at, packet.time);
                packet.media = media;
                if is_new {
                    self.announce(media);
                }
            }
        }
        self.outlet.packets(&mut waiting);
        self.waiting = waiting;
        // Packets may have told where their senders are.
        self.follow_endpoints();
    }

    /// Tells the outlet of a line whose packets it is about to get, unless it knows.
    #[cold]
    fn announce(&mut self, media: MediaId) {
        let Self { announced, signalling, outlet, .. } = self;
        if media == MediaId::UNANNOUNCED || announced.get(&media.slot()) == Some(&media) {
            return;
        }
        announced.insert(media.slot(), media);
        if let Some(info) = signalling.media().info(media) {
            outlet.announce(media, &Arc::new(announcement(&info)));
        }
    }

    fn media(&mut self, packet: RtpPacket) {
        if self.classes.is_some() {
            // The answer has to be there with the frame.
            self.classify(packet);
            return;
        }
        self.waiting.push(packet);
        if self.waiting.len() >= BATCH {
            self.settle();
        }
    }

    fn classify(&mut self, mut packet: RtpPacket) {
        packet.media = self.signalling.media_mut().attribute(&packet.flow.into(), packet.time);
        self.announce(packet.media);
        let class = self.outlet.packet(&packet);
        self.note(packet.number, class);
    }

    /// Fax is the call's that announced the endpoint. Its line is not silent.
    fn fax(&mut self, datagram: &Datagram<'_>) {
        let id = self.signalling.media_mut().attribute(&datagram.flow, datagram.time);
        if self.beside.fax.len() < MAX_FAX_LINES || self.beside.fax.contains_key(&id) {
            *self.beside.fax.entry(id).or_default() += 1;
        }
    }

    fn note(&mut self, number: u64, class: FrameClass) {
        if let Some(classes) = &mut self.classes {
            classes.note(number, class);
        }
    }

    /// RTCP is clustered as SIP is: same bytes, same flow. Only where somebody asks for classes.
    fn note_report(&mut self, datagram: &Datagram<'_>) {
        let Some(classes) = &mut self.classes else { return };
        let key = Key::datagram(datagram.flow, datagram.payload);
        let seen = self.reports.observe(key, datagram.time, datagram.number, &datagram.evidence);
        let class = match seen {
            Seen::Copy(copy) => FrameClass::copy(&copy),
            Seen::First | Seen::Again { .. } => FrameClass::Unique,
        };
        classes.note(datagram.number, class);
        for revised in self.reports.drain_revised() {
            classes.set(revised.copy.number, FrameClass::copy(&revised.copy));
        }
    }

    /// What signalling told besides the class of its frame.
    fn follow_signalling(&mut self) {
        if let Some(classes) = &mut self.classes {
            for told in self.signalling.told() {
                match *told {
                    Told::Part(part, whole) => classes.note_part(part, whole),
                    Told::Was(earlier, class) => classes.set(earlier, class),
                }
            }
        }
        self.follow_endpoints();
        let Self { signalling, events, events_dropped, .. } = self;
        for event in signalling.drain_events() {
            *events_dropped += u64::from(events.try_send(Event::Call(event)).is_err());
        }
    }

    fn follow_endpoints(&mut self) {
        let Self { signalling, sink, .. } = self;
        for change in signalling.media_mut().drain_changes() {
            match change {
                EndpointChange::Added(endpoint) => sink.insert(endpoint),
                EndpointChange::Removed(endpoint) => sink.remove(endpoint),
            }
        }
    }
}

/// What a stream needs to know of a media line.
fn announcement(info: &MediaInfo) -> Announcement {
    let payload = |format: &crate::sip::sdp::Format| {
        let codec = format.codec.as_ref()?;
        Some(Payload {
            number: format.payload_type,
            name: (*codec.name).into(),
            clock_rate: codec.clock_rate,
        })
    };
    let is_unnamed = |number: &u8| {
        let is_named =
            |format: &crate::sip::sdp::Format| format.payload_type == *number && format.codec.is_some();
        static_payload(*number).is_none() && !info.formats.iter().any(is_named)
    };
    Announcement {
        call_id: Some(Arc::clone(&info.call_id)),
        payloads: info.formats.iter().filter_map(payload).collect(),
        unnamed: info.formats.iter().map(|format| format.payload_type).filter(is_unnamed).collect(),
        parameters: info
            .formats
            .iter()
            .filter_map(|format| Some((format.payload_type, format.fmtp.clone()?)))
            .collect(),
        encrypted: info.srtp,
        redundancy: info.redundancy.clone(),
    }
}
