//! Filling records, in place, in one of this CPU's two rings: heads of RTP in slots, whole packets in the BPF ring.
//!
//! Every header that is read was bounded before the reservation: after it nothing can fail, so there is one way out. The
//! time is taken after it, which is what makes the reader's merge of the rings exact. Submits to the BPF ring never wake the
//! reader (`BPF_RB_NO_WAKEUP`), which polls: a wakeup per record costs twenty times the record.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use probe_ebpf::Verdict;
use probe_ebpf::fingerprint::{self, Fingerprint};
use probe_ebpf::parse::{Bytes as _, Layers};
use probe_ebpf::record::{Counters, KernelLoss, MAX_PACKET, MediaHead4, PacketHead, TLS_HEAD, kind, point};

use super::frame::{Frame, Memory, Window};
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
    let common = Common { fingerprint, tags, ethernet, udp, point: tap.point() };
    if layers.v6 {
        let ip = frame.0.window::<60>(layers.ip).ok_or(KernelLoss::CopyFailed)?;
        let first = u32::from_be(ip.read::<u32, 0>());
        let mut slot = Reserved::next(2)?;
        common.fill(slot.head(), kind::MEDIA6, 0, ip.read::<u8, 7>(), (first >> 20) as u8);
        let (src, dst) =
            ([ip.read::<u64, 8>(), ip.read::<u64, 16>()], [ip.read::<u64, 24>(), ip.read::<u64, 32>()]);
        fill_wide(&mut slot, src, dst, tags, first & 0x000f_ffff);
        slot.commit(now_ns());
        return Ok(());
    }
    let ip = frame.0.window::<40>(layers.ip).ok_or(KernelLoss::CopyFailed)?;
    // "Don't fragment" is in the first octet of the field.
    let whole = (ip.read::<u8, 6>() & 0x40) >> 1;
    let (ip_id, ttl, tos) = (u16::from_be(ip.read::<u16, 4>()), ip.read::<u8, 8>(), ip.read::<u8, 1>());
    if tags.has_inner() {
        let mut slot = Reserved::next(2)?;
        common.fill(slot.head(), kind::MEDIA4_TWO_TAGS | whole, ip_id, ttl, tos);
        let (src, dst) = ([u64::from(ip.read::<u32, 12>()), 0], [u64::from(ip.read::<u32, 16>()), 0]);
        fill_wide(&mut slot, src, dst, tags, 0);
        slot.commit(now_ns());
    } else {
        let mut slot = Reserved::next(1)?;
        common.fill(slot.head(), kind::MEDIA4 | whole, ip_id, ttl, tos);
        // SAFETY: reserved, as in `Common::fill`; both addresses side by side, as in the packet.
        unsafe { (&raw mut (*slot.head()).src).cast::<u64>().write_unaligned(ip.read::<u64, 12>()) };
        slot.commit(now_ns());
    }
    Ok(())
}

/// What all heads have alike.
struct Common {
    fingerprint: Fingerprint,
    tags: Tags,
    ethernet: Window<14>,
    udp: Window<20>,
    point: u8,
}

impl Common {
    /// Fills in what all heads have alike, field by field, each written before the next is read: together they would not
    /// fit the registers. The time is left for later.
    #[inline(always)]
    fn fill(&self, head: *mut MediaHead4, kind: u8, ip_id: u16, ttl: u8, tos: u8) {
        let Self { fingerprint, tags, ethernet, udp, point } = self;
        let hashed = if fingerprint.hashed { kind::HASHED } else { 0 };
        // SAFETY: reserved, so the reader does not look at it, and no other program runs on this CPU.
        unsafe {
            let common = &raw mut (*head).common;
            (*common).kind = kind | hashed;
            (*common).point = point | tags.point();
            (*common).outer_vlan = tags.outer();
            (*common).udp_len = u16::from_be(udp.read::<u16, 4>());
            (*common).fingerprint = fingerprint.value;
            (*common).src_port = u16::from_be(udp.read::<u16, 0>());
            (*common).dst_port = u16::from_be(udp.read::<u16, 2>());
            (*common).ip_id = ip_id;
            (*common).ttl = ttl;
            (*common).tos = tos;
            let rtp = (&raw mut (*common).rtp).cast::<u8>();
            rtp.cast::<u64>().write_unaligned(udp.read::<u64, 8>());
            rtp.add(8).cast::<u32>().write_unaligned(udp.read::<u32, 16>());
            let macs = (&raw mut (*common).macs).cast::<u8>();
            macs.cast::<u64>().write_unaligned(ethernet.read::<u64, 0>());
            macs.add(8).cast::<u32>().write_unaligned(ethernet.read::<u32, 8>());
        }
    }
}

/// Fills in what comes after that in a [`MediaHead6`](probe_ebpf::record::MediaHead6): its first eight bytes end the first
/// slot, the others begin the second.
#[inline(always)]
fn fill_wide(slot: &mut Reserved, src: [u64; 2], dst: [u64; 2], tags: Tags, flow_label: u32) {
    let inner = [tags.inner().to_ne_bytes(), u16::from(tags.has_inner()).to_ne_bytes()];
    let (head, tail) = (slot.head(), slot.tail());
    // SAFETY: two slots are reserved, as in `Common::fill`, of which the second has room for TAIL bytes.
    unsafe {
        (&raw mut (*head).src).cast::<u64>().write_unaligned(src[0]);
        tail.write(src[1]);
        tail.add(1).write(dst[0]);
        tail.add(2).write(dst[1]);
        tail.add(3).cast::<[[u8; 2]; 2]>().write(inner);
        tail.add(3).cast::<u32>().add(1).write(flow_label);
    }
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
    if output != 0 {
        return Err(KernelLoss::RingFull);
    }
    if captured_len < wire_len && is_readable {
        // SAFETY: a value of this CPU's own.
        unsafe { (*counters).cut += 1 };
    }
    Ok(())
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
