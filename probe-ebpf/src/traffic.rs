//! The traffic generator's program: RTP of many streams, sent from inside the kernel.
//!
//! ```text
//!   BPF_PROG_TEST_RUN, live frames ──▶ one page per frame, recycled with its content
//!        │                                     │
//!        └── voxlab_traffic: due? ── no ──▶ XDP_DROP: the page comes round again
//!                              └──── yes ─▶ fill in stream, sequence number, time; XDP_TX
//! ```
//!
//! One long test run: ending one costs 10 to 28 ms, so short ones would leave gaps. Pacing is therefore done
//! here, against the clock. Streams take turns, so everything that varies follows from the number of frames
//! sent, and so does what each stream sent: exact counts without a counter per stream.
#![no_std]
#![no_main]

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use probe_ebpf::generator::{FRAME, Progress, Spec, Stream};

/// What to send. Written by the loader.
#[unsafe(no_mangle)]
static SPEC: Global<Spec> = Global::new(Spec::IDLE);

/// How far it has come. One test run at a time uses it, on one CPU at a time.
#[btf_map]
static PROGRESS: Array<Progress, 1> = Array::new();

/// Sends the frame or recycles it.
#[xdp]
fn voxlab_traffic(ctx: XdpContext) -> u32 {
    let Some(progress) = PROGRESS.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the only entry of the map, which nobody else writes during a run.
    let progress = unsafe { &mut *progress };
    let spec = SPEC.load();
    // SAFETY: the helper has no precondition.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if progress.started_ns == 0 {
        progress.started_ns = now_ns;
    }
    if !spec.is_due(progress, now_ns) {
        progress.held_back += 1;
        return XDP_DROP;
    }
    let start = ctx.data() as *mut u8;
    if start.wrapping_add(FRAME) > ctx.data_end() as *mut u8 {
        return XDP_ABORTED;
    }
    let stream = progress.next(&spec);
    fill(start, &spec, &stream);
    progress.last_ns = now_ns;
    XDP_TX
}

/// Does nothing: what a program costs that does something is measured against it.
#[xdp(frags)]
fn voxlab_empty(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// Writes what differs between frames over the template.
#[inline(always)]
fn fill(start: *mut u8, spec: &Spec, stream: &Stream) {
    let fields = [
        (18, stream.ip_id),
        (24, spec.ip_checksum(stream)),
        (28, stream.src_low),
        (34, stream.port),
        (36, stream.port),
        (40, spec.udp_checksum(stream)),
        (44, stream.seq),
        (46, (stream.timestamp >> 16) as u16),
        (48, stream.timestamp as u16),
        (50, (stream.ssrc >> 16) as u16),
        (52, stream.ssrc as u16),
    ];
    for (offset, value) in fields {
        // SAFETY: all offsets are below FRAME, and the caller has checked that many bytes.
        unsafe { start.add(offset).cast::<u16>().write_unaligned(value.to_be()) };
    }
}

/// What the kernel checks before it lends GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never linked: nothing here can panic. The compiler asks for it all the same.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
