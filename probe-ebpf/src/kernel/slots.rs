//! The producer's side of a CPU's ring of slots: reserve, fill, stamp, commit. The protocol is in [`probe_ebpf::slots`].

use core::arch::asm;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use probe_ebpf::record::{KernelLoss, MediaHead4};
use probe_ebpf::slots::{Slot, committed};

use super::maps::{POSITIONS, SLOTS, SLOTS_PER_CPU};

/// One slot that nobody else has, or two. They must be committed: the reader waits for them.
pub(crate) struct Reserved {
    slot: *mut Slot,
    /// The second, or the first again.
    last: *mut Slot,
    index: u64,
}

impl Reserved {
    /// Reserves the next slot of this CPU, or the next two. Whoever stamps the record reads the clock after this.
    #[inline(always)]
    pub(crate) fn next(width: u64) -> Result<Self, KernelLoss> {
        // SAFETY: the helper has no precondition.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let positions = POSITIONS.get_ptr_mut(cpu).ok_or(KernelLoss::NoRing)?;
        let slots = u64::from(SLOTS_PER_CPU.load());
        // SAFETY: a map value, of which this word is written only here.
        let index = unsafe { (*positions).reserved };
        // SAFETY: a map value. Volatile, as the reader writes it.
        let consumed = unsafe { (&raw const (*positions).consumed).read_volatile() };
        if index.wrapping_sub(consumed).wrapping_add(width) > slots {
            return Err(KernelLoss::RingFull);
        }
        // Below `slots` for each CPU, and the map has that many for each that has positions.
        let slot_of = |index: u64| {
            let slot = u64::from(cpu) * slots + (index & (slots - 1));
            SLOTS.get_ptr_mut(slot as u32).ok_or(KernelLoss::NoRing)
        };
        let slot = slot_of(index)?;
        let last = if width > 1 { slot_of(index + 1)? } else { slot };
        // SAFETY: as above.
        store(unsafe { &raw mut (*positions).reserved }, index + width);
        Ok(Self { slot, last, index })
    }

    /// Where the record is, to be filled in, all but the time. In place, and before the clock is read: across the call
    /// nothing but the slot has to be kept.
    #[inline(always)]
    pub(crate) fn head(&mut self) -> *mut MediaHead4 {
        // SAFETY: in a map value.
        unsafe { &raw mut (*self.slot).head }
    }

    /// Where the rest of a record of two slots is, to be filled in before it is committed.
    #[inline(always)]
    pub(crate) fn tail(&mut self) -> *mut u64 {
        self.last.cast()
    }

    /// Stamps the record and hands it over.
    #[inline(always)]
    pub(crate) fn commit(self, time_ns: u64) {
        let Self { slot, index, .. } = self;
        // SAFETY: as in `fill`.
        unsafe { (*slot).head.common.time_ns = time_ns };
        // SAFETY: the same.
        publish(unsafe { &raw mut (*slot).sequence }, committed(index));
    }
}

/// A store that the compiler moves no other access across.
#[inline(always)]
fn store(to: *mut u64, value: u64) {
    // SAFETY: the caller's word, aligned, in a map value.
    unsafe { asm!("*(u64 *)({0} + 0) = {1}", in(reg) to, in(reg) value, options(nostack)) };
}

/// Stores after everything stored before: on x86-64, stores stay in order.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn publish(to: *mut u64, sequence: u64) {
    store(to, sequence);
}

/// Stores after everything stored before. An exchange, which is a full barrier: BPF has had a store-release only since
/// Linux 6.15.
#[cfg(not(bpf_target_arch = "x86_64"))]
#[inline(always)]
fn publish(to: *mut u64, sequence: u64) {
    // SAFETY: the caller's word, aligned, in a map value.
    unsafe { asm!("{1} = xchg_64({0} + 0, {1})", in(reg) to, inout(reg) sequence => _, options(nostack)) };
}
