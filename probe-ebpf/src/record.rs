//! The records that travel from the kernel to userspace through the rings.
//!
//! A [`MediaHead4`] of 56 bytes makes a [slot](crate::slots) of one cache line, with eight bytes of its sequence. That is the
//! record of nearly every frame: IPv4 RTP under at most one VLAN tag. Anything else that is RTP takes a [`MediaHead6`], in two. SIP,
//! RTCP, RTP too short for sound, fragments and tunnels travel whole, behind a [`PacketHead`].
//!
//! Numbers are in host byte order, addresses and the RTP header as on the wire.

/// What follows in a ring entry; byte 8 of every record.
pub mod kind {
    /// A [`MediaHead4`](super::MediaHead4).
    pub const MEDIA4: u8 = 1;
    /// A [`MediaHead6`](super::MediaHead6) with IPv6 addresses.
    pub const MEDIA6: u8 = 2;
    /// A [`MediaHead6`](super::MediaHead6) with IPv4 addresses in the first four bytes, for two VLAN tags.
    pub const MEDIA4_TWO_TAGS: u8 = 3;
    /// A [`PacketHead`](super::PacketHead) and the frame's bytes.
    pub const PACKET: u8 = 4;
    /// Low bits of the byte that hold one of the above.
    pub const MASK: u8 = 0x0f;
    /// Flag: the UDP checksum cannot identify the payload (absent, or left to the hardware), so
    /// `fingerprint` is a hash of captured payload bytes.
    pub const HASHED: u8 = 0x10;
    /// Flag: the IPv4 header has "don't fragment" set, so its identification says little (RFC 6864).
    pub const DONT_FRAGMENT: u8 = 0x20;
}

/// Where a frame was seen; byte 9 of every record.
pub mod point {
    /// Low bits: index of the interface in [`Config::ifindex`](crate::Config::ifindex).
    pub const INTERFACE: u8 = 0x0f;
    /// The interface was not in the configuration (it was renumbered); `INTERFACE` is meaningless.
    pub const UNKNOWN: u8 = 0x10;
    /// Seen leaving the host (tcx egress); otherwise arriving (XDP).
    pub const EGRESS: u8 = 0x20;
    /// `outer_vlan` is meaningful.
    pub const TAGGED: u8 = 0x40;
    /// The outer tag was not in the frame but beside it (hardware offload, seen on egress).
    pub const TAG_OFFLOADED: u8 = 0x80;
}

/// Head of an RTP packet over IPv4. 56 bytes, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MediaHead4 {
    /// What and where.
    pub common: MediaCommon,
    /// Source address.
    pub src: [u8; 4],
    /// Destination address.
    pub dst: [u8; 4],
}

/// Head of an RTP packet over IPv6, or under two VLAN tags. 88 bytes, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MediaHead6 {
    /// What and where.
    pub common: MediaCommon,
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
    /// Tag control information of the inner VLAN tag; zero where there is none.
    pub inner_vlan: u16,
    /// One if `inner_vlan` is meaningful.
    pub inner_tagged: u16,
    /// IPv6 flow label: what IPv6 has in place of the identification as evidence. Zero for IPv4.
    pub flow_label: u32,
}

/// The part that both media heads share. 48 bytes, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MediaCommon {
    /// `bpf_ktime_get_ns` (CLOCK_MONOTONIC) when the program saw the frame.
    pub time_ns: u64,
    /// A [`kind`] and its flags.
    pub kind: u8,
    /// A [`point`].
    pub point: u8,
    /// Tag control information of the outer VLAN tag; meaningful with [`point::TAGGED`].
    pub outer_vlan: u16,
    /// UDP length field.
    pub udp_len: u16,
    /// UDP checksum as on the wire, or with [`kind::HASHED`] a hash of payload bytes.
    pub fingerprint: u16,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IPv4 identification; zero for IPv6.
    pub ip_id: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class: DSCP in the upper six bits.
    pub tos: u8,
    /// The fixed RTP header (RFC 3550, 5.1).
    pub rtp: [u8; 12],
    /// Destination MAC, then source MAC.
    pub macs: [u8; 12],
}

/// Before the bytes of a whole frame. 24 bytes, no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PacketHead {
    /// `bpf_ktime_get_ns` when the program saw the frame.
    pub time_ns: u64,
    /// [`kind::PACKET`].
    pub kind: u8,
    /// A [`point`].
    pub point: u8,
    /// With [`point::TAG_OFFLOADED`], the tag that the frame's bytes lack.
    pub outer_vlan: u16,
    /// Length of the frame on the wire.
    pub wire_len: u32,
    /// Bytes of it that follow.
    pub captured_len: u32,
    /// The [`Verdict`](crate::Verdict) as its number.
    pub verdict: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

impl MediaHead4 {
    /// From the bytes of a ring entry.
    #[inline]
    pub fn from_ne_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        Self { common: MediaCommon::at_start(bytes), src: field(bytes, 48), dst: field(bytes, 52) }
    }
}

impl MediaHead6 {
    /// From the bytes of a ring entry.
    #[inline]
    pub fn from_ne_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        Self {
            common: MediaCommon::at_start(bytes),
            src: field(bytes, 48),
            dst: field(bytes, 64),
            inner_vlan: u16::from_ne_bytes(field(bytes, 80)),
            inner_tagged: u16::from_ne_bytes(field(bytes, 82)),
            flow_label: u32::from_ne_bytes(field(bytes, 84)),
        }
    }
}

impl MediaCommon {
    #[inline]
    fn at_start(bytes: &[u8]) -> Self {
        let [kind, point] = field(bytes, 8);
        let [ttl, tos] = field(bytes, 22);
        Self {
            time_ns: u64::from_ne_bytes(field(bytes, 0)),
            kind,
            point,
            outer_vlan: u16::from_ne_bytes(field(bytes, 10)),
            udp_len: u16::from_ne_bytes(field(bytes, 12)),
            fingerprint: u16::from_ne_bytes(field(bytes, 14)),
            src_port: u16::from_ne_bytes(field(bytes, 16)),
            dst_port: u16::from_ne_bytes(field(bytes, 18)),
            ip_id: u16::from_ne_bytes(field(bytes, 20)),
            ttl,
            tos,
            rtp: field(bytes, 24),
            macs: field(bytes, 36),
        }
    }
}

impl PacketHead {
    /// From the first bytes of a ring entry.
    #[inline]
    pub fn from_ne_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        let [kind, point] = field(bytes, 8);
        let [verdict, reserved @ ..]: [u8; 4] = field(bytes, 20);
        Self {
            time_ns: u64::from_ne_bytes(field(bytes, 0)),
            kind,
            point,
            outer_vlan: u16::from_ne_bytes(field(bytes, 10)),
            wire_len: u32::from_ne_bytes(field(bytes, 12)),
            captured_len: u32::from_ne_bytes(field(bytes, 16)),
            verdict,
            reserved,
        }
    }
}

/// `N` bytes at `offset`. Every caller passes constants within the record's size, so the zeros are never
/// seen; they stand where a panic would.
#[inline]
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// What is forwarded of a frame with SIP over TLS: Ethernet with two tags, IPv6, TCP with all options, and a record's
/// header; 14 + 8 + 40 + 60 + 5 = 127.
pub const TLS_HEAD: usize = 128;
/// Longest frame that a record can carry; the rest is cut off and `captured_len` says so. Jumbo frames and
/// every SIP message that fits one fit. [`Config::snap`](crate::Config::snap) may cut earlier.
pub const MAX_PACKET: usize = 16_384;

/// Bytes of RTP payload that the kernel hashes where the UDP checksum is of no use.
pub const HASHED_PAYLOAD: usize = 32;

/// A frame that matched and could not be handed over: index of the per-CPU loss counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KernelLoss {
    /// The CPU's ring was full: userspace did not keep up.
    RingFull = 0,
    /// The frame ran on a CPU that has no ring.
    NoRing = 1,
    /// The kernel refused to copy the frame's bytes.
    CopyFailed = 2,
    /// Mirror mode: the frame came by a queue that has no socket. It went on to the host instead.
    NoSocket = 3,
    /// Mirror mode: the driver leaves no room for metadata before a frame. It went on to the host instead.
    NoMetadata = 4,
    /// RTP of a session that is left out while userspace does not keep up.
    Shed = 5,
    /// RTP of a session that is left out by configuration.
    SampledOut = 6,
}

/// Number of kernel losses.
pub const KERNEL_LOSSES: usize = 7;

impl KernelLoss {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; KERNEL_LOSSES] = [
        Self::RingFull,
        Self::NoRing,
        Self::CopyFailed,
        Self::NoSocket,
        Self::NoMetadata,
        Self::Shed,
        Self::SampledOut,
    ];

    /// Was the frame left out because somebody decided so, and not because something failed?
    #[inline(always)]
    pub const fn is_decision(self) -> bool {
        matches!(self, Self::Shed | Self::SampledOut)
    }

    /// The name that reports, metrics and documents use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::NoRing => "no_ring",
            Self::CopyFailed => "copy_failed",
            Self::NoSocket => "no_socket",
            Self::NoMetadata => "no_metadata",
            Self::Shed => "shed",
            Self::SampledOut => "sampled_out",
        }
    }
}

/// The per-CPU counters of one tap direction: the value of the counter map, whose key is
/// `interface * 2 + egress`, with one more entry at the end for unknown interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Frames by [`Verdict`](crate::Verdict).
    pub verdicts: [u64; crate::classify::VERDICTS],
    /// Matched frames that were lost, by [`KernelLoss`].
    pub losses: [u64; KERNEL_LOSSES],
    /// Frames that were to be taken whole and were longer than [`Config::snap`](crate::Config::snap); they are not lost, only
    /// cut.
    pub cut: u64,
    /// Bytes of the matched frames.
    pub matched_bytes: u64,
}

impl Counters {
    /// Words of eight bytes in this structure.
    pub const WORDS: usize = size_of::<Self>() / 8;

    /// No frame seen.
    pub const ZERO: Self = Self {
        verdicts: [0; crate::classify::VERDICTS],
        losses: [0; KERNEL_LOSSES],
        cut: 0,
        matched_bytes: 0,
    };

    /// Takes away what was counted before.
    pub fn subtract(&mut self, before: &Self) {
        let Self { verdicts, losses, cut, matched_bytes } = self;
        let words = verdicts.iter_mut().chain(losses).chain([cut, matched_bytes]);
        let earlier =
            before.verdicts.iter().chain(&before.losses).chain([&before.cut, &before.matched_bytes]);
        for (word, earlier) in words.zip(earlier) {
            *word = word.wrapping_sub(*earlier);
        }
    }

    /// Adds what one CPU counted, given as the words of the map's value.
    pub fn add_words(&mut self, words: &[u64; Self::WORDS]) {
        let Self { verdicts, losses, cut, matched_bytes } = self;
        let sums = verdicts.iter_mut().chain(losses).chain([cut, matched_bytes]);
        for (sum, word) in sums.zip(words) {
            *sum = sum.wrapping_add(*word);
        }
    }
}

/// Entries of the counter map.
pub const COUNTER_ENTRIES: usize = crate::config::MAX_INTERFACES * 2 + 1;

const _: () = {
    assert!(size_of::<MediaCommon>() == 48);
    assert!(size_of::<MediaHead4>() == 56);
    assert!(size_of::<MediaHead6>() == 88);
    assert!(size_of::<PacketHead>() == 24);
    // `from_ne_bytes` reads fields where the compiler puts them.
    assert!(core::mem::offset_of!(MediaCommon, outer_vlan) == 10);
    assert!(core::mem::offset_of!(MediaCommon, ip_id) == 20);
    assert!(core::mem::offset_of!(MediaCommon, rtp) == 24);
    assert!(core::mem::offset_of!(MediaCommon, macs) == 36);
    assert!(core::mem::offset_of!(MediaHead6, inner_vlan) == 80);
    assert!(core::mem::offset_of!(PacketHead, verdict) == 20);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::VERDICTS;
    use crate::sample::Vec;

    /// Bytes of which each is its own offset.
    fn numbered<const N: usize>() -> [u8; N] {
        core::array::from_fn(|at| u8::try_from(at).unwrap())
    }

    /// The fields in the order of their declaration, as memory.
    fn common(head: &MediaCommon) -> Vec<u8> {
        let MediaCommon { time_ns, kind, point, outer_vlan, udp_len, fingerprint, .. } = *head;
        let MediaCommon { src_port, dst_port, ip_id, ttl, tos, rtp, macs, .. } = *head;
        let shorts = |shorts: &[u16]| shorts.iter().flat_map(|short| short.to_ne_bytes()).collect::<Vec<_>>();
        [
            &time_ns.to_ne_bytes()[..],
            &[kind, point],
            &shorts(&[outer_vlan, udp_len, fingerprint, src_port, dst_port, ip_id]),
            &[ttl, tos],
            &rtp,
            &macs,
        ]
        .concat()
    }

    #[test]
    fn an_ipv4_head_makes_its_slot_one_cache_line() {
        const SEQUENCE: usize = 8;
        assert_eq!(size_of::<MediaHead4>() + SEQUENCE, 64);
        assert_eq!((size_of::<MediaHead6>(), size_of::<PacketHead>()), (88, 24));
        // Eight-byte alignment is what a ring entry has.
        assert_eq!((align_of::<MediaHead4>(), align_of::<MediaHead6>(), align_of::<PacketHead>()), (8, 8, 8));
    }

    #[test]
    fn an_ipv4_head_is_read_as_it_was_written() {
        let bytes = numbered();
        let MediaHead4 { common: head, src, dst } = MediaHead4::from_ne_bytes(&bytes);
        assert_eq!([&common(&head)[..], &src, &dst].concat(), bytes);
    }

    #[test]
    fn an_ipv6_head_is_read_as_it_was_written() {
        let bytes = numbered();
        let MediaHead6 { common: head, src, dst, inner_vlan, inner_tagged, flow_label } =
            MediaHead6::from_ne_bytes(&bytes);
        let tail = [&inner_vlan.to_ne_bytes()[..], &inner_tagged.to_ne_bytes(), &flow_label.to_ne_bytes()];
        assert_eq!([&common(&head)[..], &src, &dst, &tail.concat()].concat(), bytes);
    }

    #[test]
    fn a_packet_head_is_read_as_it_was_written() {
        let bytes = numbered();
        let PacketHead { time_ns, kind, point, outer_vlan, wire_len, captured_len, verdict, reserved } =
            PacketHead::from_ne_bytes(&bytes);
        let written = [
            &time_ns.to_ne_bytes()[..],
            &[kind, point],
            &outer_vlan.to_ne_bytes(),
            &wire_len.to_ne_bytes(),
            &captured_len.to_ne_bytes(),
            &[verdict],
            &reserved,
        ];
        assert_eq!(written.concat(), bytes);
    }

    #[test]
    fn kinds_and_flags_share_a_byte_without_touching() {
        let kinds = [kind::MEDIA4, kind::MEDIA6, kind::MEDIA4_TWO_TAGS, kind::PACKET];
        assert!(kinds.iter().all(|kind| kind & kind::MASK == *kind));
        assert_eq!(kind::MASK & (kind::HASHED | kind::DONT_FRAGMENT), 0);
        let flags = [point::UNKNOWN, point::EGRESS, point::TAGGED, point::TAG_OFFLOADED];
        assert_eq!(flags.iter().fold(point::INTERFACE, |sum, flag| sum + flag), 0xff);
        assert!(crate::config::MAX_INTERFACES <= usize::from(point::INTERFACE) + 1);
    }

    #[test]
    fn counters_of_every_cpu_add_up_field_by_field() {
        let words: [u64; Counters::WORDS] = core::array::from_fn(|at| at as u64 + 1);
        let mut sum = Counters::ZERO;
        sum.add_words(&words);
        sum.add_words(&words);
        let expected = Counters {
            verdicts: core::array::from_fn(|at| 2 * (at as u64 + 1)),
            losses: core::array::from_fn(|at| 2 * ((VERDICTS + at) as u64 + 1)),
            cut: 2 * (VERDICTS + KERNEL_LOSSES + 1) as u64,
            matched_bytes: 2 * (VERDICTS + KERNEL_LOSSES + 2) as u64,
        };
        assert_eq!(sum, expected);
        sum.subtract(&expected);
        assert_eq!(sum, Counters::ZERO);
    }

    #[test]
    fn losses_are_numbered_in_order() {
        for (number, loss) in KernelLoss::ALL.into_iter().enumerate() {
            assert_eq!(loss as usize, number, "{}", loss.name());
        }
    }
}
