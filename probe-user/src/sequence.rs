//! TCP sequence numbers (RFC 9293, 3.4): places in a stream, modulo 2^32.

/// From one sequence number to another: negative if it is before.
pub(crate) fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

/// So many bytes further on.
pub(crate) fn advanced(seq: u32, bytes: usize) -> u32 {
    seq.wrapping_add(u32::try_from(bytes).unwrap_or(u32::MAX))
}
