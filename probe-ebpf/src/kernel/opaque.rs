//! Numbers whose history the compiler, or the verifier, must not know.
//!
//! The verifier walks every path, and gives up a path only where it arrives with numbers that it has seen there. Numbers
//! that select what happened before (how many tags, which verdict) therefore multiply everything that comes after them,
//! unless they are made unknown once they have done their work. It is the compiler's job to undo exactly such
//! detours, so it must not see them either.

use core::arch::asm;

/// `number`, of which the compiler knows nothing any more: what is compared is then the register that is used.
#[inline(always)]
pub(crate) fn opaque(number: u64) -> u64 {
    let same: u64;
    // Not an empty template: the kernel refuses line information for an instruction that is not there.
    // SAFETY: a move between registers.
    unsafe {
        asm!("{0} = {1}", out(reg) same, in(reg) number, options(pure, nomem, nostack, preserves_flags));
    }
    same
}

/// The same of a pointer.
#[inline(always)]
pub(crate) fn opaque_pointer<T>(pointer: *const T) -> *const T {
    let same: *const T;
    // SAFETY: a move between registers.
    unsafe {
        asm!("{0} = {1}", out(reg) same, in(reg) pointer, options(pure, nomem, nostack, preserves_flags));
    }
    same
}

/// `number`, of which neither the compiler nor the verifier knows anything any more. Mixing an unknown number in and
/// out again leaves the value; to the verifier, which does not relate the two, any number may come of it.
#[inline(always)]
pub(crate) fn forget(number: u64, unknown: u64) -> u64 {
    let mut mixed = number;
    // SAFETY: an operation on registers.
    unsafe {
        asm!("{0} ^= {1}", inout(reg) mixed, in(reg) unknown, options(pure, nomem, nostack, preserves_flags));
    }
    mixed ^ unknown
}

/// A number that is unknown to the verifier in all bits, from one that is in the lower 32.
#[inline(always)]
pub(crate) fn unknown(word: u32) -> u64 {
    u64::from(word) << 32 | u64::from(word)
}
