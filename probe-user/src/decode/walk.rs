//! From layer to layer, down to what is ours.
//!
//! ```text
//!   frame ─▶ link, IP ─▶ plain: that is it
//!              ▲   └───▶ fragment: held, or made whole and read again from here
//!              │   └───▶ a tunnel is suspected ─▶ opened: its inside is the next frame ─┐
//!              │                └▶ refused: counted, and judged again without tunnels     │
//!              └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A walk names places by offsets, in the frame itself or in a buffer of a reassembled datagram, and borrows nothing:
//! what it found is cut out at the end. Depth is bounded by the path ([`Encapsulation::MAX_LAYERS`]).

use std::ops::Range;

use probe_ebpf::classify;
use probe_ebpf::parse::{GRE, IPV4_IN_IP, IPV6_IN_IP, Refusal, TCP, UDP};
use probe_ebpf::{Config, Endpoints, Layers, MediaRule, Verdict};

use super::carrier::{Carriers, Ends, Transport};
use super::census::{Census, Reason};
use super::datagram::Heuristic;
use super::fragment::{Fragments, Outcome};
use super::remote::Remotes;
use super::stream::{self, Framing, Messages, Streams};
use super::suspect::{
    Service, TCP_HEADER, UDP_HEADER, UDP_TUNNELS, begins_like_carrier, judge, of_port, region,
};
use super::tunnel::{self, Begins, IpVersion, Region, Step, hep, rpcap, unwrap_ethertype};
use super::{Decoded, Seen, datagram, link};
use crate::capture::file::LinkType;
use crate::packet::{Encapsulation, Layer};

/// Layers of any kind that one walk goes through; more than a path can name.
const MAX_STEPS: usize = 2 * Encapsulation::MAX_LAYERS;

/// Everything that decoding remembers from frame to frame.
#[derive(Debug)]
pub(super) struct Walker {
    config: Config,
    /// The same for what is no tunnel after all.
    otherwise: Config,
    /// A file: questions are asked of more than ports.
    as_wireshark: bool,
    pub(super) fragments: Fragments,
    /// Reassembled datagrams, laid out as the frames they would have been. Two, as one may be a fragment of the other.
    wholes: [Vec<u8>; 2],
    pub(super) streams: Streams,
    pub(super) remotes: Remotes,
    pub(super) carriers: Carriers,
    pub(super) census: Census,
}

/// Where bytes are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    source: Source,
    range: Range<usize>,
    /// How many the layer around says there are.
    claimed: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Given,
    First,
    Second,
}

/// What a walk came to.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// A datagram; the place is the frame around it.
    Datagram { place: Place, seen: Seen, layers: Layers, verdict: Verdict },
    /// A message that HEP carried.
    Message { place: Place, seen: Seen, message: hep::Message },
    /// A piece of a byte stream.
    Segment { place: Place, segment: Segment },
    /// A fragment that waits.
    Held(Verdict),
    /// Nothing.
    Nothing(Verdict),
}

/// Of a byte stream that carries frames or messages.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// As what is inside is seen.
    pub(super) seen: Seen,
    pub(super) key: stream::Key,
    pub(super) framing: Framing,
    pub(super) seq: u32,
}

/// Where a walk stands.
struct Here {
    place: Place,
    begins: Begins,
    seen: Seen,
    /// The ends of the tunnel that was entered, until its inside is reached.
    ends: Option<Ends>,
    session: u32,
}

impl Walker {
    pub(super) fn new(config: Config, as_wireshark: bool) -> Self {
        Self {
            config,
            otherwise: config.without_tunnels(),
            as_wireshark,
            fragments: Fragments::default(),
            wholes: [Vec::new(), Vec::new()],
            streams: Streams::default(),
            remotes: Remotes::default(),
            carriers: Carriers::default(),
            census: Census::default(),
        }
    }

    #[inline]
    pub(super) fn heuristic(&self) -> Heuristic {
        match self.as_wireshark {
            false => Heuristic::None,
            true if self.config.media_rule == MediaRule::Anything as u8 => Heuristic::PayloadAndPorts,
            true => Heuristic::Payload,
        }
    }

    /// Is media only what was announced?
    #[inline]
    pub(super) fn asks_for_announcements(&self) -> bool {
        self.config.media_rule == MediaRule::Announced as u8
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The verdict, with the questions that only files are asked.
    pub(super) fn verdict<E: Endpoints>(&self, bytes: &[u8], layers: &Layers, endpoints: &E) -> Verdict {
        judge(&self.config, self.as_wireshark, bytes, layers, endpoints)
    }

    /// Can nothing but this verdict come of the frame? In files, carriers are looked for on any port.
    pub(super) fn is_final(&self, verdict: Verdict, bytes: &[u8], layers: &Layers) -> bool {
        let is_looked_for = self.as_wireshark && self.config.tunnels != 0;
        match verdict {
            Verdict::Fragment | Verdict::Tunnel => false,
            Verdict::OtherUdp if is_looked_for => {
                !begins_like_carrier(bytes, layers.transport + usize::from(UDP_HEADER))
            }
            // SIP in a segment of a capture's own stream begins one as easily as any other message in it.
            Verdict::SipTcp if is_looked_for => {
                self.streams.is_empty() || self.config.is_sip(layers.src_port, layers.dst_port)
            }
            Verdict::OtherTcp if is_looked_for => {
                let offset =
                    bytes.get(layers.transport + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
                self.streams.is_empty()
                    && self.remotes.is_empty()
                    && !begins_like_carrier(bytes, layers.transport + offset)
            }
            // Live, what the kernel forwards of a connection that it was told of.
            Verdict::OtherTcp if !self.remotes.is_empty() => {
                !datagram::flow(bytes, layers).is_some_and(|flow| self.remotes.is_announced(&flow))
            }
            _ => true,
        }
    }

    /// Is a link layer's refusal one that tunnels may turn into something?
    pub(super) fn is_final_refusal(&self, refusal: Refusal) -> bool {
        !matches!(refusal, Refusal::Labelled | Refusal::NotIp) || !self.config.follows_labels()
    }

    /// Walks through a frame of so many bytes on the wire.
    pub(super) fn walk<E: Endpoints>(
        &mut self,
        seen: Seen,
        given: &[u8],
        wire_len: usize,
        endpoints: &E,
    ) -> Found {
        let claimed = wire_len.max(given.len());
        let place = Place { source: Source::Given, range: 0..given.len(), claimed };
        let mut here = Here { place, begins: Begins::Link(seen.link), seen, ends: None, session: 0 };
        // What it is if the layer that comes next is not believed.
        let mut otherwise = Found::Nothing(Verdict::NotIp);
        for _ in 0..MAX_STEPS {
            let bytes = select(given, &self.wholes, &here.place);
            let Begins::Link(link) = here.begins else {
                let begins = here.begins;
                let opened = tunnel::open(begins, Region::new(bytes, here.place.claimed), None);
                let leaving = Leaving { begins, at: 0, tags: 0, macs: None };
                if let Err(reason) = opened.and_then(|step| here.enter(leaving, &step, &mut self.carriers)) {
                    self.census.refuse(begins.layer(), reason);
                    return self.done(otherwise);
                }
                continue;
            };
            here.seen.link = link;
            let layers = match link::parse(link, bytes) {
                Ok(layers) => layers,
                Err(refusal) => {
                    otherwise = Found::Nothing(classify::refused(refusal, &self.otherwise));
                    if self.is_final_refusal(refusal) {
                        return self.nothing(otherwise, &here);
                    }
                    let region = Region::new(bytes, here.place.claimed);
                    let shim = link::ethertype(link, bytes)
                        .and_then(|(ethertype, at)| unwrap_ethertype(region, ethertype, at));
                    let Some(shim) = shim else { return self.nothing(otherwise, &here) };
                    let macs = here.seen.macs.unwrap_or_else(|| link::macs(link, bytes));
                    let opened = match shim.begins {
                        Begins::Link(_) => Ok(Step::whole(here.place.claimed - shim.at, shim.begins)),
                        begins => region.after(shim.at).and_then(|inside| tunnel::open(begins, inside, None)),
                    };
                    let leaving =
                        Leaving { begins: shim.begins, at: shim.at, tags: shim.tags, macs: Some(macs) };
                    if let Err(reason) =
                        opened.and_then(|step| here.enter(leaving, &step, &mut self.carriers))
                    {
                        self.census.refuse(shim.begins.layer(), reason);
                        return self.nothing(otherwise, &here);
                    }
                    continue;
                }
            };
            let verdict = judge(&self.config, self.as_wireshark, bytes, &layers, endpoints);
            if verdict == Verdict::Fragment {
                match self.reassemble(given, &mut here, &layers) {
                    Some(held) => return self.nothing(held, &here),
                    None => continue,
                }
            }
            let plain = |verdict| {
                let seen = here.seen;
                Found::Datagram { place: here.place.clone(), seen, layers, verdict }
            };
            if self.is_final(verdict, bytes, &layers) {
                return self.done(plain(verdict));
            }
            otherwise = match verdict {
                Verdict::Tunnel => {
                    plain(judge(&self.otherwise, self.as_wireshark, bytes, &layers, endpoints))
                }
                verdict => plain(verdict),
            };
            let inside = match layers.protocol {
                TCP => self.segment(given, &here, &layers, verdict),
                UDP => self.datagram(given, &mut here, &layers),
                protocol => self.protocol(given, &mut here, &layers, protocol),
            };
            match inside {
                Inside::Entered => {}
                Inside::Is(found) => return self.done(found),
                Inside::Nothing => return self.done(otherwise),
            }
        }
        self.census.refuse(here.begins.layer(), Reason::TooDeep);
        self.done(otherwise)
    }

    /// Walks through a message of a stream. The range is that of the bytes that were walked through.
    pub(super) fn message<E: Endpoints>(
        &mut self,
        segment: &Segment,
        message: &[u8],
        endpoints: &E,
    ) -> (Range<usize>, Found) {
        const NOTHING: Found = Found::Nothing(Verdict::NotIp);
        let whole = 0..message.len();
        if segment.framing == Framing::Hep {
            let found = match hep::read(Region::new(message, message.len())) {
                Ok(read) => self.done(Found::message(whole.clone(), segment.seen, read)),
                Err(reason) => {
                    self.census.refuse(Some(Layer::Hep), reason);
                    NOTHING
                }
            };
            return (whole, found);
        }
        let Some(head) = message.first_chunk().and_then(|octets| rpcap::head(*octets)) else {
            return (whole, NOTHING);
        };
        let flow = &segment.key.flow;
        let body = message.get(rpcap::HEADER..).unwrap_or_default();
        let packet = match body.first_chunk() {
            Some(octets) if head.kind == rpcap::kind::PACKET => rpcap::packet(*octets, head.length),
            _ => None,
        };
        let Some(packet) = packet else {
            self.remotes.control(flow, head, body, segment.seen.number);
            return (whole, NOTHING);
        };
        self.remotes.packet(flow, &packet);
        let range = rpcap::HEADER + rpcap::PACKET_HEADER..message.len();
        let frame = message.get(range.clone()).unwrap_or_default();
        let guess = || tunnel::guess_link(Region::new(frame, packet.wire_len));
        let Some(link) = self.remotes.link(flow).or_else(guess) else {
            self.census.refuse(Some(Layer::Rpcap), Reason::NotIp);
            return (range, NOTHING);
        };
        let seen = Seen { link, tap_time: packet.time, ..segment.seen };
        (range, self.walk(seen, frame, packet.wire_len, endpoints))
    }

    /// Takes a segment into its stream; what it completes is then in `messages`.
    pub(super) fn take(&mut self, given: &[u8], place: &Place, segment: &Segment, messages: &mut Messages) {
        let payload = select(given, &self.wholes, place);
        let place = (segment.seq, segment.seen.number);
        self.streams.take(segment.key, segment.framing, place, payload, messages);
    }

    /// Cuts out what a walk found.
    pub(super) fn cut_out<'a, E: Endpoints>(
        &'a self,
        found: Found,
        given: &'a [u8],
        endpoints: &E,
    ) -> Decoded<'a> {
        match found {
            Found::Datagram { place, seen, layers, verdict } => {
                let bytes = select(given, &self.wholes, &place);
                datagram::cut_out(seen, bytes, &layers, verdict, self.heuristic(), endpoints)
            }
            Found::Message { place, seen, message } => {
                let bytes = select(given, &self.wholes, &place);
                datagram::of_hep(seen, bytes.get(message.payload.clone()).unwrap_or_default(), &message)
            }
            Found::Segment { .. } => Decoded::Carrier,
            Found::Held(verdict) => Decoded::Held(verdict),
            Found::Nothing(verdict) => Decoded::Nothing(verdict),
        }
    }

    /// Books the end of a walk by the path that it took. What a stream brought is booked frame by frame.
    fn done(&mut self, found: Found) -> Found {
        match &found {
            Found::Datagram { seen, .. } | Found::Message { seen, .. } => self.census.open(seen.path),
            Found::Segment { .. } | Found::Held(_) | Found::Nothing(_) => {}
        }
        found
    }

    /// The same where there is no datagram.
    fn nothing(&mut self, found: Found, here: &Here) -> Found {
        self.census.open(here.seen.path);
        match found {
            Found::Nothing(_) if !here.seen.path.is_none() => Found::Nothing(Verdict::Tunnel),
            found => found,
        }
    }

    /// Takes a fragment. `None` if it completed a datagram, at which the walk then stands.
    fn reassemble(&mut self, given: &[u8], here: &mut Here, layers: &Layers) -> Option<Found> {
        let [first, second] = &mut self.wholes;
        // Never into the buffer that it is read from.
        let (from, whole, to) = match here.place.source {
            Source::Given => (given, first, Source::First),
            Source::First => (first.as_slice(), second, Source::Second),
            Source::Second => (second.as_slice(), first, Source::First),
        };
        let bytes = from.get(here.place.range.clone()).unwrap_or_default();
        match self.fragments.observe(&here.seen, bytes, layers, whole) {
            Outcome::Held | Outcome::Refused => {
                Some(Found::Held(if here.seen.path.is_none() { Verdict::Fragment } else { Verdict::Tunnel }))
            }
            Outcome::Complete => {
                here.place = Place { source: to, range: 0..whole.len(), claimed: whole.len() };
                None
            }
        }
    }

    /// What an IP protocol number announces.
    fn protocol(&mut self, given: &[u8], here: &mut Here, layers: &Layers, protocol: u8) -> Inside {
        let begins = match protocol {
            GRE => Begins::Gre,
            IPV4_IN_IP => Begins::IpInIp(IpVersion::V4),
            IPV6_IN_IP => Begins::IpInIp(IpVersion::V6),
            _ => return Inside::Nothing,
        };
        let bytes = select(given, &self.wholes, &here.place);
        let Some(flow) = datagram::flow(bytes, layers) else { return Inside::Nothing };
        let Some(region) = region(bytes, layers, 0, layers.transport_len) else { return Inside::Nothing };
        here.ends = Some(Ends::of(&flow, Transport::Ip, u16::from(protocol)));
        let leaving = Leaving { begins, at: layers.transport, tags: here.tags(layers), macs: None };
        let opened = tunnel::open(begins, region, None);
        match opened.and_then(|step| here.enter(leaving, &step, &mut self.carriers)) {
            Ok(()) => Inside::Entered,
            Err(reason) => {
                self.census.refuse(begins.layer(), reason);
                Inside::Nothing
            }
        }
    }

    /// What a UDP port announces, or the magic of HEP and the shape of rpcap on any port.
    fn datagram(&mut self, given: &[u8], here: &mut Here, layers: &Layers) -> Inside {
        let bytes = select(given, &self.wholes, &here.place);
        let length = bytes.get(layers.transport + 4..).and_then(<[u8]>::first_chunk).copied();
        let length = u16::from_be_bytes(length.unwrap_or_default());
        let (Some(payload), Some(flow)) =
            (region(bytes, layers, UDP_HEADER, length), datagram::flow(bytes, layers))
        else {
            return Inside::Nothing;
        };
        let is_configured = self.config.is_tunnel(layers.src_port, layers.dst_port);
        let named =
            [layers.dst_port, layers.src_port].into_iter().find_map(|port| Some((port, of_port(port)?)));
        let (port, named) = match named.filter(|_| is_configured) {
            Some((port, service)) => (port, Some(service)),
            None => (layers.dst_port, None),
        };
        here.ends = Some(Ends::of(&flow, Transport::Udp, port));
        let tags = here.tags(layers);
        if named == Some(Service::Hep) || payload.bytes.starts_with(&hep::MAGIC) {
            let read = hep::read(payload);
            let leaving = Leaving { begins: Begins::Hep, at: 0, tags, macs: None };
            let step = |agent| Step { session: agent, ..Step::whole(payload.claimed, Begins::Hep) };
            match read.and_then(|message| {
                here.pass(leaving, &step(message.agent), &mut self.carriers)?;
                Ok(message)
            }) {
                Ok(message) => {
                    let start = here.place.range.start + layers.transport + usize::from(UDP_HEADER);
                    let place = Place {
                        source: here.place.source,
                        range: start..start + payload.bytes.len(),
                        claimed: payload.claimed,
                    };
                    return Inside::Is(Found::Message { place, seen: here.seen, message });
                }
                Err(reason) => {
                    self.census.refuse(Some(Layer::Hep), reason);
                    return Inside::Nothing;
                }
            }
        }
        let at = layers.transport + usize::from(UDP_HEADER);
        let is_rpcap = payload.bytes.starts_with(&[0, rpcap::kind::PACKET, 0, 0]);
        let mut refusal = None;
        // What the port stands for; on a port that somebody configured, everything.
        for begins in UDP_TUNNELS {
            let is_tried = match named {
                Some(service) => service == Service::Tunnel(begins),
                None => is_configured || begins == Begins::Rpcap && is_rpcap,
            };
            if !is_tried {
                continue;
            }
            let link = if begins == Begins::Rpcap { self.remotes.link(&flow) } else { None };
            let leaving = Leaving { begins, at, tags, macs: None };
            let opened = tunnel::open(begins, payload, link);
            match opened.and_then(|step| here.enter(leaving, &step, &mut self.carriers)) {
                Ok(()) => return Inside::Entered,
                Err(reason) => refusal = refusal.or(Some((begins, reason))),
            }
        }
        // Of many that were tried on a configured port, none is to blame.
        if let Some((begins, reason)) = refusal.filter(|_| named.is_some()) {
            self.census.refuse(begins.layer(), reason);
        }
        Inside::Nothing
    }

    /// A segment of a connection that carries frames or messages: by its port, because a control connection announced it,
    /// because it was before, or because it begins like one.
    fn segment(&mut self, given: &[u8], here: &Here, layers: &Layers, verdict: Verdict) -> Inside {
        let bytes = select(given, &self.wholes, &here.place);
        let header = bytes.get(layers.transport..).and_then(<[u8]>::first_chunk::<TCP_HEADER>);
        let Some(&[_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, ..]) = header else {
            return Inside::Nothing;
        };
        let header_len = u16::from(offset >> 4) * 4;
        if usize::from(header_len) < TCP_HEADER {
            return Inside::Nothing;
        }
        let payload = region(bytes, layers, header_len, layers.transport_len);
        let Some(payload) = payload.filter(|payload| !payload.bytes.is_empty()) else {
            return Inside::Nothing;
        };
        let recognised = Framing::recognise(payload.bytes);
        let Some(flow) = datagram::flow(bytes, layers) else { return Inside::Nothing };
        let mut seen = here.seen;
        let key = stream::Key { flow, path: seen.path, carrier: seen.carrier };
        let is_hep_port = |port| of_port(port) == Some(Service::Hep);
        let framing = match self.streams.framing(&key).or(recognised) {
            Some(framing) => framing,
            None if self.remotes.is_announced(&flow) => Framing::Rpcap,
            None if verdict != Verdict::Tunnel => return Inside::Nothing,
            None if is_hep_port(layers.src_port) || is_hep_port(layers.dst_port) => Framing::Hep,
            None => Framing::Rpcap,
        };
        let layer = match framing {
            Framing::Rpcap => Layer::Rpcap,
            Framing::Hep => Layer::Hep,
        };
        let Some(path) = with_tags(seen.path, here.tags(layers)).and_then(|path| path.with(layer)) else {
            self.census.refuse(Some(layer), Reason::TooDeep);
            return Inside::Nothing;
        };
        // Frames come from an rpcap server, messages go to a collector. What a client asks of the server goes to its port.
        let is_service = |port: u16| port != 0 && self.config.carrier_ports.contains(&port);
        let (port, peer_port) = match framing {
            Framing::Rpcap if is_service(flow.dst.port) && !is_service(flow.src.port) => {
                (flow.dst.port, flow.src.port)
            }
            Framing::Rpcap => (flow.src.port, flow.dst.port),
            Framing::Hep => (flow.dst.port, flow.src.port),
        };
        let ends = Ends { peer_port, ..Ends::of(&flow, Transport::Tcp, port) };
        seen.carrier = self.carriers.find(seen.carrier, path, ends, 0, (seen.number, seen.time));
        (seen.path, seen.offloaded_tag, seen.macs) = (path, None, None);
        let start = here.place.range.start + layers.transport + usize::from(header_len);
        let place = Place {
            source: here.place.source,
            range: start..start + payload.bytes.len(),
            claimed: payload.claimed,
        };
        let seq = u32::from_be_bytes([s0, s1, s2, s3]);
        Inside::Is(Found::Segment { place, segment: Segment { seen, key, framing, seq } })
    }
}

/// What the inside of a datagram came to.
enum Inside {
    /// The walk stands in it.
    Entered,
    /// It is this.
    Is(Found),
    /// No tunnel, or none that is believed.
    Nothing,
}

/// How a frame is left for what is inside it.
#[derive(Clone, Copy)]
struct Leaving {
    /// The layer that is opened.
    begins: Begins,
    /// Its offset.
    at: usize,
    /// VLAN tags before it, which now are outside of a tunnel.
    tags: usize,
    /// MACs that stay those around the inside.
    macs: Option<([u8; 6], [u8; 6])>,
}

impl Here {
    /// Tags of the frame at which the walk stands.
    fn tags(&self, layers: &Layers) -> usize {
        usize::from(layers.vlan_tags) + usize::from(self.seen.offloaded_tag.is_some())
    }

    /// Goes on to the inside of an opened layer.
    fn enter(&mut self, leaving: Leaving, step: &Step, carriers: &mut Carriers) -> Result<(), Reason> {
        self.pass(leaving, step, carriers)?;
        let start = self.place.range.start.saturating_add(leaving.at).saturating_add(step.skip);
        let end = self.place.range.end.min(start.saturating_add(step.claimed));
        self.place = Place { range: start.min(end)..end, claimed: step.claimed, ..self.place.clone() };
        self.begins = step.begins;
        Ok(())
    }

    /// Takes down what an opened layer says of what is inside; nothing if there are too many.
    fn pass(&mut self, leaving: Leaving, step: &Step, carriers: &mut Carriers) -> Result<(), Reason> {
        let Self { seen, ends, session, .. } = self;
        let mut path = with_tags(seen.path, leaving.tags).ok_or(Reason::TooDeep)?;
        if let Some(layer) = leaving.begins.layer() {
            path = path.with(layer).ok_or(Reason::TooDeep)?;
        }
        (seen.path, seen.offloaded_tag) = (path, None);
        // A pseudowire's frame has MACs of its own.
        seen.macs = leaving.macs.filter(|_| step.begins == Begins::Link(LinkType::RawIp));
        if let Some(time) = step.tap_time {
            seen.tap_time = time;
        }
        if step.session != 0 {
            *session = step.session;
        }
        // GRE is not the carrier of what ERSPAN carries: the two are one.
        if matches!(step.begins, Begins::Link(_) | Begins::Hep)
            && let Some(ends) = ends.take()
        {
            let session = std::mem::take(session);
            seen.carrier = carriers.find(seen.carrier, path, ends, session, (seen.number, seen.time));
        }
        Ok(())
    }
}

impl Found {
    /// Was a tunnel opened on the way?
    pub(super) fn is_in_tunnel(&self) -> bool {
        match self {
            Self::Datagram { seen, .. } | Self::Message { seen, .. } => !seen.path.is_none(),
            Self::Segment { .. } => true,
            Self::Held(_) | Self::Nothing(_) => false,
        }
    }

    fn message(range: Range<usize>, seen: Seen, message: hep::Message) -> Self {
        let claimed = range.len();
        Self::Message { place: Place { source: Source::Given, range, claimed }, seen, message }
    }
}

/// The path with so many tags more.
fn with_tags(path: Encapsulation, tags: usize) -> Option<Encapsulation> {
    (0..tags).try_fold(path, |path, _| path.with(Layer::Vlan))
}

fn select<'a>(given: &'a [u8], [first, second]: &'a [Vec<u8>; 2], place: &Place) -> &'a [u8] {
    let from = match place.source {
        Source::Given => given,
        Source::First => first,
        Source::Second => second,
    };
    from.get(place.range.clone()).unwrap_or_default()
}
