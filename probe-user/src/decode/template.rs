//! Plain RTP known by a frame before it in its flow: nothing is parsed but what differs.
//!
//! Frames of one flow have the same headers, but for a few numbers; so the kernel's TCP has compared headers rather than read
//! them since Van Jacobson. What [`Plain`] made of such a frame is kept, with the octets of the frame that it made it of, and
//! serves all frames that have the same. This is exact because of what each step of [`Plain::rtp`] looks at, for Ethernet, IPv4
//! without options, UDP, and an RTP header without padding, extension and contributors:
//!
//! ```text
//!   octets    field                   who looks at it                                         here
//!   0 .. 12   MAC addresses           evidence                                                equal
//!   12 .. 14  ethertype               parser                                                  equal: 0x0800
//!   14        version, length         parser: where everything after it is                    equal: 0x45
//!   15        TOS                     evidence                                                equal
//!   16 .. 18  total length            parser, classifier, heuristic: whether the fixed        read: the headers fit,
//!                                     headers fit; fingerprint, head, length                  the rest is computed
//!   18 .. 20  identification          evidence                                                read
//!   20 .. 22  flags, offset           parser: whole, or a fragment                            equal
//!   22        TTL                     evidence                                                equal
//!   23        protocol                parser, classifier, fingerprint                         equal: 17
//!   24 .. 26  header checksum         nobody                                                  -
//!   26 .. 34  addresses               flow, fingerprint                                       equal
//!   34 .. 38  ports                   classifier, other dissectors' ports, flow               equal
//!   38 .. 40  UDP length              nobody: the IP length says it                           -
//!   40 .. 42  UDP checksum            fingerprint                                             read
//!   42        version, P, X, CC       classifier, heuristic, where the payload begins         equal: 0x80
//!   43        marker, payload type    classifier and heuristic, but between types that        read: none of 64 to 95
//!                                     are RTCP's with a marker, or near them, only there
//!   44 .. 54  sequence, time, SSRC    nobody but the packet itself                            read
//!   54 ..     payload                 its head, and a hash where the checksum is none         read
//! ```
//!
//! Besides the octets there are the link type and the interface, which are compared, how many octets were captured, which are
//! enough, time and number, which are read, and the configuration, which is the same as long as the templates live. What
//! cannot be a template's is decoded the whole way, each frame for itself.

use probe_ebpf::parse::UDP;
use probe_ebpf::{Fingerprint, Layers, fingerprint};

use super::datagram::HASHED;
use super::plain::{Plain, PlainRtp};
use crate::capture::file::{Frame, LinkType};
use crate::memo::{AHEAD, Hash, Kept, Memo, Number};
use crate::packet::{EndpointWords, Nanos, RtpHeader, RtpPacket};

/// Tells plain RTP as [`Plain`] does, and remembers how: a frame is asked for by `predict`, and if nothing is known
/// of its flow, by [`Predictor::decode`].
#[derive(Debug)]
pub struct Predictor {
    plain: Plain,
    /// By addresses and ports.
    templates: Memo<Template>,
}

/// A frame that is RTP by what is known of its flow.
#[derive(Clone, Copy, Debug)]
pub struct Predicted<'a> {
    template: &'a Template,
    head: &'a Head,
    // Of the frame what is needed: with a reference to it, it would have to lie in memory.
    time: Nanos,
    number: u64,
    bytes: &'a [u8],
}

/// What a frame was, and what of it others must have to be the same: three lines of memory.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Template {
    wanted: Wanted,
    interface: u16,
    /// Sum of the pseudo-header without the length (RFC 768), folded.
    pseudo_header: u16,
    /// Of the flow.
    hash: u64,
    packet: RtpPacket,
}

/// Headers up to the first octets of the payload.
type Head = [u8; 58];

/// The octets that have to be equal, eight a word, and zeros for the others. Called by what is in each.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    macs: u64,
    version: u64,
    lengths: u64,
    addresses: u64,
    ports: u64,
    rtp: u64,
}

impl Predictor {
    /// Knows nothing yet, and of so many flows at most.
    pub fn new(plain: Plain, flows: usize) -> Self {
        Self { plain, templates: Memo::new(flows) }
    }

    /// Asks for the templates of the next frames, and says where each is, as far as its hash tells.
    #[inline]
    pub(crate) fn ask_ahead<'a>(&self, frames: impl Iterator<Item = Frame<'a>>) -> [Number; AHEAD] {
        let wanted = |frame: Frame<'a>| frame.bytes.first_chunk().map(Wanted::of);
        self.templates.ask_ahead(frames.map(|frame| wanted(frame).map_or(Hash::NONE, |wanted| wanted.hash())))
    }

    /// The RTP that a frame is, if there is a template for it, which is probably that one.
    #[inline]
    pub(crate) fn predict<'a>(&'a self, frame: &Frame<'a>, at: Number) -> Option<Predicted<'a>> {
        let head = predictable(frame)?;
        let wanted = Wanted::of(head);
        let template = match self.templates.get(at) {
            Some(template) if template.is_of(&wanted, frame.interface) => template,
            _ => self.find(head, frame.interface)?,
        };
        let Frame { time, number, bytes, .. } = *frame;
        Some(Predicted { template, head, time, number, bytes })
    }

    /// Begins anew, so that the question before needs no memory.
    #[inline(never)]
    fn find(&self, head: &Head, interface: u16) -> Option<&Template> {
        let wanted = Wanted::of(head);
        let is_it = |template: &Template| template.is_of(&wanted, interface);
        self.templates.get(self.templates.find(wanted.hash(), is_it)?)
    }

    /// Is it plain RTP, whatever was announced? The next of its flow will be predicted.
    #[inline(never)]
    pub fn decode<'a>(&mut self, frame: &'a Frame<'a>) -> Option<PlainRtp<'a>> {
        let rtp = self.plain.rtp(frame)?;
        if let Some(wanted) = predictable(frame).map(Wanted::of).filter(Wanted::is_plain) {
            self.templates.keep(Template::new(wanted, &rtp));
        }
        Some(rtp)
    }
}

/// The headers of a frame that may have a template.
#[inline]
fn predictable<'a>(frame: &Frame<'a>) -> Option<&'a Head> {
    let head = frame.bytes.first_chunk()?;
    let may_be = frame.link == LinkType::Ethernet && has_neutral_type(head) && total_len(head) >= HEADERS;
    may_be.then_some(head)
}

impl Predicted<'_> {
    /// Of its flow.
    #[inline]
    pub fn hash(&self) -> u64 {
        self.template.hash
    }

    /// The packet; the signalling was not asked about it.
    #[inline(never)]
    pub fn packet(&self) -> RtpPacket {
        let mut packet = self.template.packet;
        self.write_to(&mut packet);
        packet
    }

    /// Writes it over another.
    #[inline]
    pub fn write_to(&self, packet: &mut RtpPacket) {
        let Self { template, head, time, number, bytes } = *self;
        *packet = template.packet;
        packet.time = time;
        packet.tap_time = time;
        packet.number = number;
        template.fill(packet, head, bytes);
    }
}

impl Kept for Template {
    fn hash(&self) -> Hash {
        self.wanted.hash()
    }
}

impl Template {
    fn new(wanted: Wanted, rtp: &PlainRtp<'_>) -> Self {
        let packet = rtp.packet();
        #[expect(clippy::cast_possible_truncation, reason = "halves of an IPv4 address")]
        let sum = |EndpointWords { address: [_, low], .. }| plus((low >> 16) as u16, low as u16);
        let addresses = plus(sum(packet.flow.src()), sum(packet.flow.dst()));
        Self {
            wanted,
            interface: packet.evidence.tap.interface(),
            pseudo_header: plus(addresses, u16::from(UDP)),
            hash: rtp.flow.hash(),
            packet,
        }
    }

    /// Is it a frame's that wants this, from there?
    #[inline]
    fn is_of(&self, wanted: &Wanted, interface: u16) -> bool {
        self.wanted.equals(wanted) && self.interface == interface
    }

    /// Makes of this template's packet that of a frame, but for time and number.
    #[inline]
    fn fill(&self, packet: &mut RtpPacket, head: &Head, bytes: &[u8]) {
        let udp_len = total_len(head) - IP_HEADER;
        packet.rtp = RtpHeader::from_wire(&field::<42, 12>(head));
        packet.udp_len = udp_len;
        packet.evidence.ip_id = word::<18>(head);
        packet.payload_head = (udp_len >= UDP_HEADER + RTP_HEADER + 4).then(|| field::<54, 4>(head));
        let checksum = word::<40>(head);
        // No checksum, or one that the sender left to its network card: see `probe_ebpf::fingerprint`.
        if checksum == 0 || checksum == plus(self.pseudo_header, udp_len) {
            hash(packet, bytes);
        } else {
            packet.fingerprint = Fingerprint { value: checksum, hashed: false };
            packet.is_hash_cut = false;
        }
    }
}

/// Puts a hash of the payload in place of a checksum.
#[inline(never)]
fn hash(packet: &mut RtpPacket, bytes: &[u8]) {
    const TRANSPORT: usize = 34;
    const PAYLOAD: usize = TRANSPORT + UDP_HEADER as usize;
    let RtpPacket { udp_len, .. } = *packet;
    let layers =
        Layers { ip: 14, protocol: UDP, transport: TRANSPORT, transport_len: udp_len, ..Layers::NONE };
    let claimed = usize::from(udp_len - UDP_HEADER);
    packet.is_hash_cut = bytes.len() - PAYLOAD < claimed.min(HASHED);
    if let Some(fingerprint) = fingerprint::of_rtp(bytes, &layers) {
        packet.fingerprint = fingerprint;
    }
}

const IP_HEADER: u16 = 20;
const UDP_HEADER: u16 = 8;
const RTP_HEADER: u16 = 12;
/// The least total length of an IP packet that is RTP.
const HEADERS: u16 = IP_HEADER + UDP_HEADER + RTP_HEADER;

impl Wanted {
    /// Of a frame: all but lengths, identification, checksums, and the second octet of RTP and what follows it.
    #[inline]
    fn of(head: &Head) -> Self {
        const LENGTHS: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        const ADDRESSES: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        const PORTS: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        const RTP: u64 = u64::from_ne_bytes([0, 0, 0xff, 0, 0, 0, 0, 0]);
        Self {
            macs: long::<0>(head),
            version: long::<8>(head),
            lengths: long::<16>(head) & LENGTHS,
            addresses: long::<24>(head) & ADDRESSES,
            ports: long::<32>(head) & PORTS,
            rtp: long::<40>(head) & RTP,
        }
    }

    /// All differences at once: where there is a template, it is mostly the right one.
    #[inline]
    fn equals(&self, other: &Self) -> bool {
        (self.macs ^ other.macs)
            | (self.version ^ other.version)
            | (self.lengths ^ other.lengths)
            | (self.addresses ^ other.addresses)
            | (self.ports ^ other.ports)
            | (self.rtp ^ other.rtp)
            == 0
    }

    /// Is it IPv4 without options directly in Ethernet, and RTP without anything that is optional?
    fn is_plain(&self) -> bool {
        let [.., ethertype, low, version, _] = self.version.to_ne_bytes();
        let [_, _, rtp, ..] = self.rtp.to_ne_bytes();
        ([ethertype, low], version, rtp) == ([0x08, 0x00], 0x45, 0x80)
    }

    /// By which its template is found: of addresses and ports.
    #[inline]
    fn hash(&self) -> Hash {
        let Self { addresses, ports, .. } = self;
        let mixed =
            (addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ports).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed.into()
    }
}

/// Is the payload type one that the classifier and the heuristic let pass, with a marker and without? Others may be RTCP
/// (RFC 5761, 4), or what Wireshark does not take.
#[inline]
fn has_neutral_type(head: &Head) -> bool {
    let [second] = field::<43, 1>(head);
    !matches!(second & 0x7f, 64..=95)
}

/// Length of the IP packet, by its header.
#[inline]
fn total_len(head: &Head) -> u16 {
    word::<16>(head)
}

#[inline]
fn word<const AT: usize>(head: &Head) -> u16 {
    u16::from_be_bytes(field::<AT, 2>(head))
}

/// As they lie in memory: only whether they are the same matters.
#[inline]
fn long<const AT: usize>(head: &Head) -> u64 {
    u64::from_ne_bytes(field::<AT, 8>(head))
}

/// The assertion makes the zeros impossible.
#[inline]
fn field<const AT: usize, const LEN: usize>(head: &Head) -> [u8; LEN] {
    const { assert!(AT + LEN <= size_of::<Head>()) };
    head.get(AT..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; LEN])
}

/// A sum of 16-bit words with end-around carry: the number modulo 65,535, and never zero where something was. So it does not matter
/// in which order they are added, nor what of them first.
#[inline]
fn plus(one: u16, other: u16) -> u16 {
    let (sum, carry) = one.overflowing_add(other);
    sum + u16::from(carry)
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
