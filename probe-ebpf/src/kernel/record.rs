//! Filling records, in place, in one of this CPU's two rings: heads of RTP over IPv4 in a slot, all else in the BPF ring.
//!
//! Every header that is read was bounded before the reservation: after it nothing can fail, so there is one way out. The
//! time is taken after it, which is what makes the reader's merge of the rings exact. Submits to the BPF ring never wake the
//! reader (`BPF_RB_NO_WAKEUP`), which polls: a wakeup per record costs twenty times the record.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use probe_ebpf::Verdict;
use probe_ebpf::fingerprint;
use probe_ebpf::parse::{Bytes as _, Layers};
use probe_ebpf::record::{
    Counters, KernelLoss, MAX_PACKET, MediaCommon, MediaHead6, PacketHead, TLS_HEAD, kind, point,
};

use super::frame::{Frame, Memory};
use super::maps::{self, Tap};
use super::opaque::{forget, opaque};
use super::slots::Reserved;
use super::source::Source;

/// Hands over the head of an RTP packet.
#[inline(always)]
pub(crate) fn media<S: Source, M: Memory>(
    source: &S,
    frame: &Frame<M>,
    tap: Tap,
    layers: &Layers,
    any: u64,
) -> Result<(), KernelLoss> {
    let fingerprint = fingerprint::of_rtp(frame, layers).ok_or(KernelLoss::CopyFailed)?;
    let tags = Tags::of(source, frame, layers, any);
    let ethernet = frame.0.window::<14>(0).ok_or(KernelLoss::CopyFailed)?;
    let udp = frame.0.window::<20>(layers.transport).ok_or(KernelLoss::CopyFailed)?;
    if !layers.v6 && !tags.has_inner() {
        let ip = frame.0.window::<40>(layers.ip).ok_or(KernelLoss::CopyFailed)?;
        let mut slot = Reserved::next()?;
        let head = slot.head();
        let hashed = if fingerprint.hashed { kind::HASHED } else { 0 };
        // Field by field, each written before the next is read: together they would not fit the registers.
        // SAFETY: reserved, so the reader does not look at it, and no other program runs on this CPU.
        unsafe {
            // "Don't fragment" is in the first octet of the field.
            (*head).common.kind = kind::MEDIA4 | hashed | (ip.read::<u8, 6>() & 0x40) >> 1;
            (*head).common.point = tap.point() | tags.point();
            (*head).common.outer_vlan = tags.outer();
            (*head).common.udp_len = u16::from_be(udp.read::<u16, 4>());
            (*head).common.fingerprint = fingerprint.value;
            (*head).common.src_port = u16::from_be(udp.read::<u16, 0>());
            (*head).common.dst_port = u16::from_be(udp.read::<u16, 2>());
            (*head).common.ip_id = u16::from_be(ip.read::<u16, 4>());
            (*head).common.ttl = ip.read::<u8, 8>();
            (*head).common.tos = ip.read::<u8, 1>();
            let rtp = (&raw mut (*head).common.rtp).cast::<u8>();
            rtp.cast::<u64>().write_unaligned(udp.read::<u64, 8>());
            rtp.add(8).cast::<u32>().write_unaligned(udp.read::<u32, 16>());
            let macs = (&raw mut (*head).common.macs).cast::<u8>();
            macs.cast::<u64>().write_unaligned(ethernet.read::<u64, 0>());
            macs.add(8).cast::<u32>().write_unaligned(ethernet.read::<u32, 8>());
            (&raw mut (*head).src).cast::<u64>().write_unaligned(ip.read::<u64, 12>());
        }
        slot.commit(now_ns());
        return Ok(());
    }
    let common = || MediaCommon {
        time_ns: 0,
        kind: if fingerprint.hashed { kind::HASHED } else { 0 },
        point: tap.point() | tags.point(),
        outer_vlan: tags.outer(),
        udp_len: u16::from_be(udp.read::<u16, 4>()),
        fingerprint: fingerprint.value,
        src_port: u16::from_be(udp.read::<u16, 0>()),
        dst_port: u16::from_be(udp.read::<u16, 2>()),
        ip_id: 0,
        ttl: 0,
        tos: 0,
        rtp: octets(udp.read::<u64, 8>(), udp.read::<u32, 16>()),
        macs: octets(ethernet.read::<u64, 0>(), ethernet.read::<u32, 8>()),
    };
    if layers.v6 {
        let ip = frame.0.window::<60>(layers.ip).ok_or(KernelLoss::CopyFailed)?;
        let ring = maps::ring().ok_or(KernelLoss::NoRing)?;
        let mut entry = ring.reserve_untyped::<MediaHead6>(0).ok_or(KernelLoss::RingFull)?;
        let first = u32::from_be(ip.read::<u32, 0>());
        let common = common();
        entry.write(MediaHead6 {
            common: MediaCommon {
                time_ns: now_ns(),
                kind: common.kind | kind::MEDIA6,
                ttl: ip.read::<u8, 7>(),
                tos: (first >> 20) as u8,
                ..common
            },
            src: address(ip.read::<u64, 8>(), ip.read::<u64, 16>()),
            dst: address(ip.read::<u64, 24>(), ip.read::<u64, 32>()),
            inner_vlan: tags.inner(),
            inner_tagged: u16::from(tags.has_inner()),
            flow_label: first & 0x000f_ffff,
        });
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
        return Ok(());
    }
    let ip = frame.0.window::<40>(layers.ip).ok_or(KernelLoss::CopyFailed)?;
    let common = |kind: u8| {
        let common = common();
        // "Don't fragment" is in the first octet of the field.
        let whole = (ip.read::<u8, 6>() & 0x40) >> 1;
        MediaCommon {
            kind: common.kind | kind | whole,
            ip_id: u16::from_be(ip.read::<u16, 4>()),
            ttl: ip.read::<u8, 8>(),
            tos: ip.read::<u8, 1>(),
            ..common
        }
    };
    {
        // Opaque, or the compiler calls a function to fill in zeros, byte by byte.
        let zero = opaque(0);
        let ring = maps::ring().ok_or(KernelLoss::NoRing)?;
        let mut entry = ring.reserve_untyped::<MediaHead6>(0).ok_or(KernelLoss::RingFull)?;
        entry.write(MediaHead6 {
            common: MediaCommon { time_ns: now_ns(), ..common(kind::MEDIA4_TWO_TAGS) },
            src: address(u64::from(ip.read::<u32, 12>()), zero),
            dst: address(u64::from(ip.read::<u32, 16>()), zero),
            inner_vlan: tags.inner(),
            inner_tagged: 1,
            flow_label: 0,
        });
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    Ok(())
}

/// Hands over a whole frame, or as much of it as is wanted. Of one that nobody can read, the first [`TLS_HEAD`] bytes.
#[inline(always)]
pub(crate) fn packet<S: Source>(
    source: &S,
    tap: Tap,
    verdict: u8,
    wire_len: u32,
    counters: *mut Counters,
) -> Result<(), KernelLoss> {
    let ring = maps::ring().ok_or(KernelLoss::NoRing)?;
    let scratch = maps::scratch().ok_or(KernelLoss::CopyFailed)?;
    // Opaque, so that the comparison below is made on the very register that is passed on: the compiler knows
    // the bound already, the verifier has to see it.
    let is_readable = verdict != Verdict::SipTls as u8;
    let wanted = if is_readable { u32::from(maps::config().snap) } else { TLS_HEAD as u32 };
    let captured_len = opaque(u64::from(wire_len.min(wanted))) as u32;
    if captured_len == 0 || captured_len > MAX_PACKET as u32 {
        return Err(KernelLoss::CopyFailed);
    }
    if captured_len < wire_len && is_readable {
        // SAFETY: a value of this CPU's own.
        unsafe { (*counters).cut += 1 };
    }
    let (offloaded, outer_vlan) = match source.offloaded_tag() {
        Some(tag) => (point::TAGGED | point::TAG_OFFLOADED, tag),
        None => (0, 0),
    };
    let point = tap.point() | offloaded;
    // SAFETY: this CPU's scratch memory, which nobody else uses while a program runs.
    let head = unsafe { &mut (*scratch).head };
    head.time_ns = now_ns();
    head.kind = kind::PACKET;
    head.point = point;
    head.outer_vlan = outer_vlan;
    head.wire_len = wire_len;
    head.captured_len = captured_len;
    // `reserved` is zero since the map was made, and nobody writes it.
    head.verdict = verdict;
    // SAFETY: MAX_PACKET bytes follow the head, and `captured_len` was compared with that and zero.
    if !unsafe { source.copy_to((&raw mut (*scratch).bytes).cast(), captured_len) } {
        return Err(KernelLoss::CopyFailed);
    }
    let len = size_of::<PacketHead>() as u64 + u64::from(captured_len);
    // SAFETY: `ring` is a ring buffer map and `len` bytes of `scratch` have been written.
    let output = unsafe {
        bpf_ringbuf_output(
            core::ptr::from_ref(ring).cast_mut().cast(),
            scratch.cast(),
            len,
            u64::from(BPF_RB_NO_WAKEUP),
        )
    };
    if output == 0 { Ok(()) } else { Err(KernelLoss::RingFull) }
}

/// The VLAN tags of a frame, those in its bytes and the one beside them, outermost first: bits for the record's
/// `point`, whether there is an inner one, and the tags, in one register.
#[derive(Clone, Copy)]
struct Tags(u64);

impl Tags {
    const INNER: u64 = 1 << 8;

    /// Reads them again, where the IP header's offset says that there are any: carried along from the parser they
    /// would take registers from every frame. A third tag, possible only where one is offloaded, is not recorded.
    #[inline(always)]
    fn of<S: Source, M: Memory>(source: &S, frame: &Frame<M>, layers: &Layers, any: u64) -> Self {
        // What stands before an IP header that was parsed is there.
        let tag = |offset| u64::from(frame.be16(offset).unwrap_or(0));
        let (in_frame, first, second) = match layers.ip {
            ..=14 => (0, 0, 0),
            15..=18 => (1, tag(14), 0),
            _ => (2, tag(14), tag(18)),
        };
        let word = match source.offloaded_tag() {
            Some(beside) => {
                let inner = if in_frame > 0 { Self::INNER } else { 0 };
                u64::from(point::TAGGED | point::TAG_OFFLOADED)
                    | inner
                    | u64::from(beside) << 16
                    | first << 32
            }
            None => {
                let tagged = if in_frame > 0 { u64::from(point::TAGGED) } else { 0 };
                let inner = if in_frame > 1 { Self::INNER } else { 0 };
                tagged | inner | first << 16 | second << 32
            }
        };
        // One way from here on, whatever tags there are.
        Self(forget(word, any))
    }

    #[inline(always)]
    fn point(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    fn has_inner(self) -> bool {
        self.0 & Self::INNER != 0
    }

    #[inline(always)]
    fn outer(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    fn inner(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// CLOCK_MONOTONIC.
#[inline(always)]
fn now_ns() -> u64 {
    // SAFETY: the helper has no precondition.
    unsafe { bpf_ktime_get_ns() }
}

/// Twelve octets as read from the wire, as bytes again.
#[inline(always)]
fn octets(a: u64, b: u32) -> [u8; 12] {
    let ([a0, a1, a2, a3, a4, a5, a6, a7], [b0, b1, b2, b3]) = (a.to_ne_bytes(), b.to_ne_bytes());
    [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3]
}

/// Sixteen octets as read from the wire, as bytes again.
#[inline(always)]
fn address(a: u64, b: u64) -> [u8; 16] {
    let ([a0, a1, a2, a3, a4, a5, a6, a7], [b0, b1, b2, b3, b4, b5, b6, b7]) =
        (a.to_ne_bytes(), b.to_ne_bytes());
    [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7]
}
