//! The BPF object of voxprobe: one program for frames that arrive, one for frames that leave, and one for an interface
//! that carries only copies.
//!
//! ```text
//!   NIC ──▶ voxprobe_xdp ─────────────▶ stack ──▶ voxprobe_egress ──▶ NIC
//!              │ always XDP_PASS                      │ always TCX_NEXT
//!              └──────────── observe ─────────────────┘
//!                   parse, classify (shared with userspace), count,
//!                   and for a matched frame one record into this CPU's ring
//! ```
//!
//! Both are taps: no path returns anything but "pass", no byte of a frame is written. Whatever goes wrong
//! becomes a counter.
//!
//! ```text
//!   mirror port ──▶ voxprobe_mirror ──▶ AF_XDP socket of the queue: frames that are ours
//!                          └──────────▶ stack: all others
//! ```
//!
//! This one takes frames away from the host. Userspace attaches it only where asked for by name.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod kernel;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

/// TCX_NEXT, the same number as TC_ACT_UNSPEC: the next program, or the stack, decides.
const TCX_NEXT: i32 = -1;

/// Frames that arrive. Multi-buffer aware (Linux 5.18), so that interfaces with jumbo MTUs accept it.
#[xdp(frags)]
#[inline(always)]
fn voxprobe_xdp(ctx: XdpContext) -> u32 {
    kernel::observe(&ctx);
    XDP_PASS
}

/// Frames of a mirror port: those that are ours go to the socket of their queue instead of the host.
#[xdp(frags)]
#[inline(always)]
fn voxprobe_mirror(ctx: XdpContext) -> u32 {
    kernel::mirror::steer(&ctx)
}

/// Frames that leave (tcx, Linux 6.6), those that this host forwards and those that it sends itself.
#[classifier]
#[inline(always)]
fn voxprobe_egress(ctx: TcContext) -> i32 {
    kernel::observe(&ctx);
    TCX_NEXT
}

/// What the kernel checks before it lends GPL-only helpers, those of the ring among them.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never linked: nothing here can panic. The compiler asks for it all the same.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
